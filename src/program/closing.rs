//! A last adjoint that is taken once a picture, of the sum over its copies.

use std::sync::Arc;

use super::{ConvLayer, Epilogue, Form, Plan, Program, Statistic, Step, Value};
use crate::tensor::Shape;

/// Where a convolution's adjoint happens behind which copies are only summed up. It is linear, so the adjoint of the sum is
/// the sum of the adjoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastAdjoint {
    /// On the signal of each copy; its results are summed up.
    EachCopy,
    /// On the sum of the signals, once a picture, where that is less work: [`Program::closed`].
    EachPicture,
}

/// Multiply-adds for each number of the signal from which on an adjoint costs more than summing up its signal.
///
/// Summing up one number moves some 20 bytes (it is read in single precision, the sum read and written in double) and takes
/// about a nanosecond, in which an adjoint does some tens of multiply-adds. The signal is larger than the map, and its sum
/// leaves the caches sooner. The 3×3 stem of three channels has 27 a number, the 7×7 one 147.
const LEAST_PRODUCTS: usize = 64;

/// Copies from which on the sum of a large signal and the one adjoint cost less than an adjoint a copy.
const LEAST_COPIES: usize = 4;

impl LastAdjoint {
    /// What pays for `copies` of each picture on a device that is best at `best`.
    pub(crate) fn paying(best: LastAdjoint, copies: usize) -> Self {
        if copies < LEAST_COPIES { LastAdjoint::EachCopy } else { best }
    }
}

/// What a [`Plan`] leaves to be done once a picture: `Load` the sum of the signals, adjoint, `Store` the map.
#[derive(Debug, Clone)]
pub struct Closing {
    /// Runs once a picture.
    pub plan: Arc<Plan>,
    /// Shape of the signal whose copies are summed up.
    pub signal: Shape,
    /// Shape of the map.
    pub map: Shape,
}

impl Program {
    /// Takes out the adjoint of a convolution whose result is summed up over copies and read by nobody else: the program
    /// that sums up the signal instead, and the program that is left to be run on the sum.
    ///
    /// None where there is no such adjoint, it has an epilogue, or it has fewer than 64 multiply-adds for each number of
    /// its signal.
    pub fn closed(mut self) -> (Program, Option<Program>) {
        let Some((last, sum)) = self.last_adjoint() else { return (self, None) };
        let Step::ConvAdjoint { layer, s, .. } = &self.steps[last] else { return (self, None) };
        let (layer, signal, node) = (Arc::clone(layer), *s, self.nodes[last]);
        self.steps[sum] = Step::Aggregate { x: signal, statistic: Statistic::Sum };
        self.steps.remove(last);
        self.nodes.remove(last);
        let [s, out] = [Value(0), Value(1)];
        let forms = vec![Form::Dense(layer.output), Form::Dense(layer.input)];
        let adjoint = Step::ConvAdjoint { layer, s, out, epilogue: Epilogue::default() };
        let steps = vec![Step::Load { slot: 0, out: s }, adjoint, Step::Store { x: out, slot: 0 }];
        (self, Some(Program { steps, nodes: vec![None, node, None], forms }))
    }

    /// Positions of the adjoint that can be taken out and of the sum behind it.
    fn last_adjoint(&self) -> Option<(usize, usize)> {
        let mut statistics = self.steps.iter().enumerate().filter_map(|(i, step)| match step {
            Step::Aggregate { x, statistic } => Some((i, *x, *statistic)),
            _ => None,
        });
        let (sum, result) = match (statistics.next(), statistics.next()) {
            (Some((i, x, Statistic::Sum)), None) => (i, x),
            _ => return None,
        };
        let readers = self.steps.iter().flat_map(Step::reads).filter(|v| *v == result).count();
        let last = self.steps.iter().position(|step| step.writes().contains(&result))?;
        let Step::ConvAdjoint { layer, epilogue, .. } = &self.steps[last] else { return None };
        let pays = |layer: &ConvLayer| layer.weight.row_len() >= LEAST_PRODUCTS;
        (readers == 1 && *epilogue == Epilogue::default() && pays(layer)).then_some((last, sum))
    }
}
