//! Predicts, from the steps alone, how sparse each value is.

use super::{Elementwise, Epilogue, Program, Range, Step, Value};

/// The expected share of exact zeros in a value. Only [`Zeros::AllButOneIn`] is a guaranteed bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Zeros {
    /// Unknown.
    #[default]
    Unknown,
    /// Typically about half: the output of a ReLU, or of its gate in the backward pass.
    Many,
    /// At most one number in this many (at least two) is non-zero: the output of a max-pool's adjoint.
    AllButOneIn(usize),
}

impl Zeros {
    /// The prediction for each value of `program`, by [`Value::index`].
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

    /// The sparser of the two, for a value to which both apply.
    fn and(self, other: Zeros) -> Zeros {
        let share = |zeros: Zeros| match zeros {
            Zeros::Unknown => 0,
            Zeros::AllButOneIn(..=2) => 1,
            Zeros::Many => 2,
            Zeros::AllButOneIn(n) => n,
        };
        std::cmp::max_by_key(self, other, |&zeros| share(zeros))
    }
}

/// The prediction for a step's first result; `of` gives those of its operands.
fn expected(step: &Step, program: &Program, of: impl Fn(Value) -> Zeros) -> Zeros {
    let cut = |range: Range| if range.lo == 0.0 || range.hi == 0.0 { Zeros::Many } else { Zeros::Unknown };
    let len = |v: Value| program.forms[v.index()].shape().len();
    match step {
        Step::Conv { epilogue, .. } | Step::ConvAdjoint { epilogue, .. } => match *epilogue {
            Epilogue { gate: Some(_), .. } => Zeros::Many,
            Epilogue { clamp: Some(range), .. } => cut(range),
            Epilogue { times: Some(factor), .. } => of(factor),
            _ => Zeros::Unknown,
        },
        Step::Clamp { x, range, .. } => cut(*range).and(of(*x)),
        Step::Gate { s, .. } => of(*s).and(Zeros::Many),
        Step::MaxPoolAdjoint { s, out, .. } => match len(*out) / len(*s).max(1) {
            0 | 1 => Zeros::Unknown,
            n => Zeros::AllButOneIn(n),
        },
        // A product is zero wherever an operand of its full size is.
        Step::Elementwise { op: Elementwise::Mul, xs, out } => {
            let whole = xs.iter().filter(|&&x| len(x) == len(*out));
            whole.map(|&x| of(x)).fold(Zeros::Unknown, Zeros::and)
        }
        // Where zeros lie close together is not known, so a bound for the whole is none for a part.
        Step::Move { x, .. } if of(*x) != Zeros::Unknown => Zeros::Many,
        Step::Concat { xs, .. } if xs.iter().all(|&x| of(x) != Zeros::Unknown) => Zeros::Many,
        _ => Zeros::Unknown,
    }
}
