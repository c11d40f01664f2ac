//! Watches values behind which an infinity can hide: a sigmoid makes 0 or 1 of it.

use std::collections::HashSet;

use super::lower::NodeStep;
use super::{Elementwise, Form, Step, Value};
use crate::tensor::Shape;

/// One past the largest slot that is stored to.
pub(super) fn slots<'s>(steps: impl Iterator<Item = &'s Step>) -> usize {
    steps.fold(0, |end, step| if let Step::Store { slot, .. } = step { end.max(slot + 1) } else { end })
}

/// Adds up zero times every number of those values in `watched` that the steps compute, and stores the sum in a slot after
/// all others. It is 0, or NaN where one of the numbers is not finite.
pub(super) fn watching(steps: Vec<NodeStep>, forms: &mut Vec<Form>, watched: &HashSet<Value>) -> Vec<NodeStep> {
    let slot = slots(steps.iter().map(|(step, _)| step));
    let mut all = Vec::with_capacity(steps.len());
    let mut total: Option<Value> = None;
    for (step, node) in steps {
        let seen = step.writes().into_iter().filter(|v| watched.contains(v));
        let seen: Vec<(Value, Shape)> = seen.map(|v| (v, forms[v.index()].shape())).collect();
        all.push((step, node));
        let mut write = |shape: Shape, step: &dyn Fn(Value) -> Step| {
            let out = Value(forms.len() as u32);
            forms.push(Form::Dense(shape));
            all.push((step(out), node));
            out
        };
        for (x, shape) in seen {
            let scale = |out| Step::Elementwise { op: Elementwise::Scale(0.0), xs: vec![x], out };
            let mut sum = write(shape, &scale);
            if shape.len() > 1 {
                sum = write(Shape::vector(1), &|out| Step::Contract { xs: vec![sum], out });
            }
            if let Some(before) = total {
                sum = write(Shape::vector(1), &|out| Step::Add { a: before, b: sum, out });
            }
            total = Some(sum);
        }
    }
    all.extend(total.map(|x| (Step::Store { x, slot }, None)));
    all
}
