//! The pixels that each position of a layer depends on: receptive fields, from the windows between the input and the
//! layer.

use crate::error::Result;
use crate::graph::{Graph, NodeId, Op, Over};
use crate::tensor::Window;

/// First and last element that a position depends on along an axis; `None` if its window is entirely in the padding.
type Span = Option<[usize; 2]>;

/// The receptive fields of a layer's positions, rows and columns separately.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// By axis, then by position.
    spans: [Vec<Span>; 2],
}

fn union(a: Span, b: Span) -> Span {
    match (a, b) {
        (Some([a, b]), Some([c, d])) => Some([a.min(c), b.max(d)]),
        (one, None) | (None, one) => one,
    }
}

fn over(spans: &[Span]) -> Span {
    spans.iter().copied().fold(None, union)
}

/// The union of `spans` over each window.
fn windowed(window: &Window, axis: usize, pad: usize, spans: &[Span], out: usize) -> Vec<Span> {
    let taps = |o: usize| {
        (0..window.kernel[axis]).filter_map(move |tap| {
            let at = (o * window.stride[axis] + tap * window.dilation[axis]).checked_sub(pad)?;
            spans.get(at).copied()
        })
    };
    (0..out).map(|o| taps(o).fold(None, union)).collect()
}

impl Footprint {
    /// The footprint of layer `node`.
    ///
    /// # Errors
    /// When the graph has no such node.
    pub fn of(graph: &Graph, node: NodeId) -> Result<Self> {
        graph.check(node)?;
        let mut all: Vec<[Vec<Span>; 2]> = Vec::new();
        for id in graph.ids().take(node.index() + 1) {
            let here = graph.node(id);
            let extents = [here.shape.h, here.shape.w];
            let input = here.inputs.first().map(|i| &all[i.index()]);
            let from = here.inputs.first().map(|&i| graph.node(i).shape);
            let spans = std::array::from_fn(|axis| {
                let out = extents[axis];
                let (Some(input), Some(from)) = (input, from) else {
                    return (0..out).map(|i| Some([i, i])).collect();
                };
                let slid = |window: &Window| {
                    let pad = window.pads(from.h, from.w)[axis][0];
                    windowed(window, axis, pad, &input[axis], out)
                };
                match &here.op {
                    Op::Conv(conv) => slid(&conv.window),
                    Op::MaxPool(window) | Op::AvgPool { window, .. } => slid(window),
                    Op::AdaptiveAvgPool { .. } => {
                        let n = input[axis].len();
                        (0..out).map(|o| over(&input[axis][o * n / out..((o + 1) * n).div_ceil(out)])).collect()
                    }
                    Op::Subsample { stride } => input[axis].iter().copied().step_by(stride[axis].max(1)).collect(),
                    Op::Add | Op::Mul | Op::Divide | Op::Concat => {
                        // An operand of one position is read by all.
                        let at = |n: usize, i: usize| if all[n][axis].len() == out { i } else { 0 };
                        let of = |i: usize| here.inputs.iter().map(move |n| (n.index(), at(n.index(), i)));
                        let seen = |(n, i): (usize, usize)| all[n][axis].get(i).copied().flatten();
                        (0..out).map(|i| of(i).map(seen).fold(None, union)).collect()
                    }
                    Op::Flatten | Op::Linear(_) | Op::GlobalMaxPool => vec![over(&input[axis]); out],
                    Op::Input
                    | Op::BatchNorm(_)
                    | Op::Relu
                    | Op::Clamp { .. }
                    | Op::Smooth(_)
                    | Op::Affine(_)
                    | Op::Slice { .. }
                    | Op::Shuffle { .. }
                    | Op::PRelu(_)
                    | Op::ChannelMax
                    | Op::PadChannels { .. } => input[axis].clone(),
                    Op::Standardise(norm) if norm.across_positions => vec![over(&input[axis]); out],
                    Op::Standardise(_) => input[axis].clone(),
                    Op::Reduce(reduce) if reduce.over != Over::Channels => vec![over(&input[axis]); out],
                    Op::Reduce(_) | Op::Softmax { .. } => input[axis].clone(),
                    Op::Resize(resize) => {
                        let blend = &resize.blends(from, here.shape)[axis];
                        (0..out).map(|o| blend.terms(o).map(|(i, _)| input[axis][i]).fold(None, union)).collect()
                    }
                    Op::Pad { rows, columns } => {
                        let before = [rows, columns][axis][0];
                        let seen = |i: usize| i.checked_add_signed(-before).and_then(|i| input[axis].get(i).copied());
                        (0..out).map(|i| seen(i).flatten()).collect()
                    }
                }
            });
            all.push(spans);
        }
        Ok(Self { spans: all.pop().unwrap_or_default() })
    }

    /// Largest number of rows or columns that a position depends on.
    pub fn extent(&self) -> usize {
        self.spans.iter().flatten().flatten().map(|[first, last]| last - first + 1).max().unwrap_or(0)
    }

    /// Positions along `axis` (0 for rows) that depend on any of the elements `first .. end`.
    pub fn positions(&self, axis: usize, first: usize, end: usize) -> Vec<usize> {
        let sees = |span: &Span| span.is_some_and(|[low, high]| low < end && high >= first);
        (0..self.spans[axis].len()).filter(|&i| sees(&self.spans[axis][i])).collect()
    }
}
