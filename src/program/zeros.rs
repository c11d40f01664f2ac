//! What a program's steps tell about zeros among their numbers: which kernel computes a convolution depends on it.

use super::{Program, Range, Step, Value};

/// How many of a value's numbers are expected to be exactly zero, from the steps alone; only [`Zeros::Most`] is a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Zeros {
    /// Nothing is known.
    #[default]
    Unknown,
    /// What a ReLU left, or its gate on the way back: as a rule about half.
    Many,
    /// Two thirds at least: what goes back through a max-pooling to a map at least three times as large.
    Most,
}

impl Zeros {
    /// For each value of `program`, by [`Value::index`].
    pub(super) fn of(program: &Program) -> Vec<Zeros> {
        let mut zeros = vec![Zeros::Unknown; program.forms.len()];
        for step in &program.steps {
            let expected = expected(step, program, |v| zeros[v.index()]);
            if let Some(out) = step.writes().first() {
                zeros[out.index()] = expected;
            }
        }
        zeros
    }
}

/// Of a step's first result, from what is expected of what it reads.
fn expected(step: &Step, program: &Program, of: impl Fn(Value) -> Zeros) -> Zeros {
    let cut = |range: Range| if range.lo == 0.0 || range.hi == 0.0 { Zeros::Many } else { Zeros::Unknown };
    let len = |v: Value| program.forms[v.index()].shape().len();
    match step {
        Step::Conv { epilogue, .. } | Step::ConvAdjoint { epilogue, .. } => match (epilogue.gate, epilogue.clamp) {
            (Some(_), _) => Zeros::Many,
            (None, Some(range)) => cut(range),
            (None, None) => Zeros::Unknown,
        },
        Step::Clamp { x, range, .. } => cut(*range).max(of(*x)),
        Step::Gate { s, .. } => of(*s).max(Zeros::Many),
        Step::MaxPoolAdjoint { s, out, .. } if 3 * len(*s) <= len(*out) => Zeros::Most,
        _ => Zeros::Unknown,
    }
}
