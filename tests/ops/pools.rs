//! Pools.

use super::*;

pub(crate) fn pools(subject: &dyn Subject) {
    check_all(subject, |_| cases::pools());
}

pub(crate) fn pools_of_any_geometry(subject: &dyn Subject) {
    proptest!(config(64), |((n, input, op) in pool())| {
                    for numbers in [Numbers::Integers, Numbers::Reals] {
                let case = Case::of(format!("{n}x{input} {op:?}"), n, input, op.clone());
                let x = numbers.maps(92, n, input).map(|v| if v == 0.0 { 1.0 } else { v });
                let sum: f64 = forward(&case.graph, &x)[case.node.index()].data.iter().map(|v| v.abs()).sum();
                prop_assume!(sum > 0.0);
                let seeds = numbers.maps(93, n, forward(&case.graph, &x)[case.node.index()].shape);
                prop_assume!(seeds.data.iter().any(|&v| v != 0.0));
                check_on(subject, &case, numbers, &x, 92).map_err(TestCaseError::fail)?;
            }
    });
}
