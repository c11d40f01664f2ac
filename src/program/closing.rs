//! The last adjoint, run once per picture on the sum of its copies' signals.

use std::sync::Arc;

use super::{ConvLayer, Epilogue, Form, Plan, Program, Statistic, Step, Value};
use crate::tensor::Shape;

/// How often a convolution's adjoint runs if its results are only summed over copies. The adjoint is linear, so the
/// adjoint of the sum is the sum of the adjoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastAdjoint {
    /// Once per copy, on the copy's signal. The results are summed.
    EachCopy,
    /// Once per picture, on the sum of the signals, if both minima are reached: [`Program::closed`].
    EachPicture {
        /// Minimum number of copies per picture.
        least_copies: usize,
        /// Minimum multiply-adds per signal element.
        least_products: usize,
    },
}

impl LastAdjoint {
    /// The setting for `copies` of each picture, on a device that prefers `best`.
    pub(crate) fn paying(best: LastAdjoint, copies: usize) -> Self {
        match best {
            LastAdjoint::EachPicture { least_copies, .. } if copies < least_copies => LastAdjoint::EachCopy,
            best => best,
        }
    }
}

/// The part of a [`Plan`] that runs once per picture: `Load` the summed signals, adjoint, `Store` the map.
#[derive(Debug, Clone)]
pub struct Closing {
    /// The steps.
    pub plan: Arc<Plan>,
    /// Shape of the signal that is summed over copies.
    pub signal: Shape,
    /// Shape of the map.
    pub map: Shape,
}

impl Program {
    /// Splits off the adjoint of a convolution whose result is summed over copies and read by no other step. Returns the
    /// program that sums the signal instead, and the program to run on the sum.
    ///
    /// There is no second program if there is no such adjoint, if it has an epilogue, or if it has fewer than
    /// `least_products` multiply-adds per signal element.
    pub fn closed(mut self, least_products: usize) -> (Program, Option<Program>) {
        let Some((last, sum)) = self.last_adjoint(least_products) else { return (self, None) };
        let Step::ConvAdjoint { layer, s, .. } = &self.steps[last] else { return (self, None) };
        let (layer, signal, node) = (Arc::clone(layer), *s, self.nodes[last]);
        self.steps[sum] = Step::Aggregate { x: signal, statistic: Statistic::Sum };
        self.steps.remove(last);
        self.nodes.remove(last);
        let [s, out] = [Value(0), Value(1)];
        let forms = vec![Form::Dense(layer.output), Form::Dense(layer.input)];
        let adjoint = Step::ConvAdjoint { layer, s, out, epilogue: Epilogue::default() };
        let steps = vec![Step::Load { slot: 0, out: s }, adjoint, Step::Store { x: out, slot: 0 }];
        (self, Some(Program { steps, nodes: vec![None, node, None], forms, slots: 1 }))
    }

    /// Positions of the adjoint that can be split off, and of the sum after it.
    fn last_adjoint(&self, least_products: usize) -> Option<(usize, usize)> {
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
        let pays = |layer: &ConvLayer| layer.weight.row_len() >= least_products;
        (readers == 1 && *epilogue == Epilogue::default() && pays(layer)).then_some((last, sum))
    }
}
