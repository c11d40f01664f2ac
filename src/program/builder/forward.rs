//! The forward steps of a node.

use std::sync::Arc;

use super::Builder;
use crate::error::Result;
use crate::graph::{NodeId, Op, Reduce};
use crate::program::{ConvLayer, Elementwise, Epilogue, Range, Step, Value};
use crate::tensor::Moves;

/// Steps, each with the node that it works for.
type NodeSteps = Vec<(Step, Option<NodeId>)>;

impl Builder<'_> {
    pub(super) fn forward_steps(&mut self, id: NodeId, out: Value, read: &[Value]) -> Result<NodeSteps> {
        let node = self.graph.node(id);
        let input = |i: usize| read[node.inputs[i].index()];
        let step = match &node.op {
            Op::Add => return Ok(self.sum_steps(id, out, read)),
            Op::Resize(resize) => {
                let blends = Arc::new(resize.blends(self.graph.node(node.inputs[0]).shape, node.shape));
                Step::Resample { x: input(0), blends, out }
            }
            Op::Mul => Step::Elementwise { op: Elementwise::Mul, xs: vec![input(0), input(1)], out },
            Op::Softmax { groups } => Step::Softmax { groups: *groups, x: input(0), out },
            Op::Divide => Step::Elementwise { op: Elementwise::Quotient, xs: vec![input(0), input(1)], out },
            Op::Reduce(reduce) => return Ok(self.reduce_steps(id, *reduce, input(0), out)),
            Op::Input => Step::Perturb { out },
            Op::Conv(_) | Op::BatchNorm(_) | Op::Affine(_) => {
                let layer = self.conv_layer(id)?;
                return Ok(self.conv_steps(layer, input(0), out).into_iter().map(|step| (step, Some(id))).collect());
            }
            Op::Linear(_) => Step::Linear { layer: self.linear_layer(id)?, x: input(0), out },
            Op::Relu => Step::Clamp { x: input(0), range: Range::POSITIVE, out },
            Op::Clamp { lo, hi } => Step::Clamp { x: input(0), range: Range { lo: *lo, hi: *hi }, out },
            Op::Smooth(f) => Step::Elementwise { op: Elementwise::Smooth(*f), xs: vec![input(0)], out },
            Op::PRelu(slopes) => {
                let steps = self.prelu_steps(slopes, input(0), out);
                return Ok(steps.into_iter().map(|step| (step, Some(id))).collect());
            }
            Op::Standardise(norm) => Step::Standardise { norm: *norm, x: input(0), out, scale: None },
            Op::MaxPool(_) | Op::GlobalMaxPool => {
                Step::MaxPool { layer: self.pool_layer(id)?, x: input(0), out, winners: None }
            }
            Op::ChannelMax => {
                let steps = self.channel_max_steps(self.pool_layer(id)?, input(0), out);
                return Ok(steps.into_iter().map(|step| (step, Some(id))).collect());
            }
            Op::AvgPool { count_padding, .. } => {
                Step::AvgPool { layer: self.pool_layer(id)?, count_padding: *count_padding, x: input(0), out }
            }
            Op::AdaptiveAvgPool { .. } => Step::AdaptiveAvgPool { x: input(0), out },
            Op::Flatten => Step::Flatten { x: input(0), out },
            Op::Concat => Step::Concat { xs: (0..node.inputs.len()).map(input).collect(), out },
            Op::Subsample { .. } | Op::Slice { .. } | Op::Shuffle { .. } | Op::Pad { .. } | Op::PadChannels { .. } => {
                Step::Move { x: input(0), moves: self.moves(id)?, out }
            }
        };
        Ok(vec![(step, Some(id))])
    }

    /// A convolution; a bias with one number per element is added by a separate step, so that devices need not support
    /// it.
    pub(super) fn conv_steps(&mut self, layer: Arc<ConvLayer>, x: Value, out: Value) -> Vec<Step> {
        let epilogue = Epilogue::default();
        let Some(bias) = layer.bias.as_ref().filter(|b| b.len() != layer.output.c).map(Arc::clone) else {
            return vec![Step::Conv { layer, x, out, epilogue }];
        };
        let (plain, values) = (self.dense(layer.output), self.dense(layer.output));
        vec![
            Step::Fill { values: bias, out: values },
            Step::Conv { layer: Arc::new(ConvLayer { bias: None, ..(*layer).clone() }), x, out: plain, epilogue },
            Step::Add { a: plain, b: values, out },
        ]
    }

    /// Adds the inputs two at a time, in order; a sum of one is a copy.
    fn sum_steps(&mut self, id: NodeId, out: Value, read: &[Value]) -> NodeSteps {
        let node = self.graph.node(id);
        let inputs: Vec<Value> = node.inputs.iter().map(|i| read[i.index()]).collect();
        let [first, rest @ ..] = &inputs[..] else { return Vec::new() };
        if rest.is_empty() {
            return vec![(Step::Move { x: *first, moves: Moves::SAME, out }, Some(id))];
        }
        let mut steps = Vec::with_capacity(rest.len());
        let mut sum = *first;
        for (i, &b) in rest.iter().enumerate() {
            let [left, right] = [sum, b].map(|v| self.shape(v));
            let to = match left.joined(right) {
                _ if i + 1 == rest.len() => out,
                Some(shape) => self.dense(shape),
                None => self.dense(node.shape),
            };
            if left == right {
                steps.push((Step::Add { a: sum, b, out: to }, Some(id)));
            } else {
                steps.extend(self.sum_of_two([sum, b], to).map(|step| (step, Some(id))));
            }
            sum = to;
        }
        steps
    }

    /// A sum, and the factor that makes it a mean.
    fn reduce_steps(&mut self, id: NodeId, reduce: Reduce, x: Value, out: Value) -> NodeSteps {
        let from = self.shape(x);
        let factor = Elementwise::Scale(reduce.factor(from));
        if reduce.to(from) == from {
            return vec![(Step::Elementwise { op: factor, xs: vec![x], out }, Some(id))];
        }
        let sum = self.dense(reduce.to(from));
        let sums = (Step::Contract { xs: vec![x], out: sum }, Some(id));
        vec![sums, (Step::Elementwise { op: factor, xs: vec![sum], out }, Some(id))]
    }

    /// `a + b` where one is repeated: `a − (−b)` has the same bits.
    pub(super) fn sum_of_two(&mut self, [a, b]: [Value; 2], out: Value) -> [Step; 2] {
        let (large, small) = if self.shape(a).len() < self.shape(b).len() { (b, a) } else { (a, b) };
        let negative = self.dense(self.shape(small));
        [
            Step::Elementwise { op: Elementwise::Scale(-1.0), xs: vec![small], out: negative },
            Step::Elementwise { op: Elementwise::Sub, xs: vec![large, negative], out },
        ]
    }

    /// The moves of `node`, which only moves numbers.
    pub(super) fn moves(&self, id: NodeId) -> Result<Moves> {
        self.graph.node(id).op.moves().ok_or_else(|| self.not("a move", id))
    }
}
