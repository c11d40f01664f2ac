//! Pointwise operations, and those that move numbers.

use super::*;

pub(crate) fn pointwise_and_moving_operations(subject: &dyn Subject) {
    check_all(subject, cases::pointwise);
}
