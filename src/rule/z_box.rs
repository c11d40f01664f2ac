//! The z^B rule of deep Taylor decomposition (Montavon et al. 2017, section 4.3): for inputs in a box, such as pixels.

use std::sync::Arc;

use super::layer::{Layer, STABILISER, is_first_layer, lost};
use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op, Part};
use crate::program::{Builder, Value};

/// `z = Wx − W⁺l − W⁻h`, `R_in = x ∘ Wᵀs − l ∘ W⁺ᵀs − h ∘ W⁻ᵀs`; for layers with no layer before them. Biases are
/// ignored.
#[derive(Debug, Clone)]
pub struct ZBox {
    low: Arc<[f64]>,
    high: Arc<[f64]>,
}

impl ZBox {
    /// The box: smallest and largest value of the picture, one per channel or one for all.
    ///
    /// # Errors
    /// When they are not finite, differ in number, or are not in order.
    pub fn new(low: &[f64], high: &[f64]) -> Result<Self> {
        let ordered = |(l, h): (&f64, &f64)| l.is_finite() && h.is_finite() && l <= h;
        if low.is_empty() || low.len() != high.len() || !low.iter().zip(high).all(ordered) {
            return Err(Error::settings(format!("pixels cannot lie between {low:?} and {high:?}")));
        }
        Ok(Self { low: low.into(), high: high.into() })
    }

    /// Refuses nodes between the picture and layer `id` that may fall where a pixel rises.
    fn check_rising(id: NodeId, b: &Builder<'_>) -> Result<()> {
        let graph = b.graph();
        let mut before = vec![false; graph.nodes().len()];
        before[id.index()] = true;
        for i in graph.ids().rev().filter(|i| *i < id) {
            before[i.index()] = graph.ids().any(|r| before[r.index()] && graph.node(r).inputs.contains(&i));
            let node = graph.node(i);
            let rises = match (&node.op, node.op.activation()) {
                (_, Some(activation)) => activation.rises(),
                (Op::Mul | Op::Divide | Op::Softmax { .. } | Op::Standardise(_), None) => false,
                (Op::Affine(affine), None) => affine.scale.iter().all(|s| *s >= 0.0),
                (Op::BatchNorm(norm), None) => norm.gamma.iter().all(|s| *s >= 0.0),
                (
                    Op::Input
                    | Op::MaxPool(_)
                    | Op::GlobalMaxPool
                    | Op::ChannelMax
                    | Op::AvgPool { .. }
                    | Op::AdaptiveAvgPool { .. }
                    | Op::Add
                    | Op::Reduce(_)
                    | Op::Flatten
                    | Op::Concat
                    | Op::Subsample { .. }
                    | Op::Resize(_)
                    | Op::Slice { .. }
                    | Op::Shuffle { .. }
                    | Op::Pad { .. }
                    | Op::PadChannels { .. },
                    None,
                ) => true,
                // Another layer would be the first one.
                (Op::Conv(_) | Op::Linear(_), None) => true,
                (Op::Relu | Op::Clamp { .. } | Op::Smooth(_) | Op::PRelu(_), None) => false,
            };
            if before[i.index()] && !rises {
                let (name, kind) = (&node.name, node.op.kind());
                return Err(Error::model(format!("the box of pixels has no meaning behind '{name}' ({kind})")));
            }
        }
        Ok(())
    }

    /// One end of the box at the layer's input.
    fn bound(values: &Arc<[f64]>, id: NodeId, b: &mut Builder<'_>) -> Result<Value> {
        let graph = b.graph();
        let shape = graph.input_shape();
        let values = match values.len() {
            1 => vec![values[0]; shape.c].into(),
            n if n == shape.c => Arc::clone(values),
            n => {
                return Err(Error::settings(format!("z_box has bounds for {n} channels, the picture has {}", shape.c)));
            }
        };
        let bound = b.fill(shape, values)?;
        let input = graph.node(id).inputs[0];
        if input == graph.input() {
            return Ok(bound);
        }
        ZBox::check_rising(id, b)?;
        // The nodes in between (flattening, pooling, sums, affine layers) never fall, so a bound remains a bound.
        let here = b.forward();
        b.replace(graph.input(), bound)?;
        let bound = b.output(input);
        b.enter(here);
        Ok(bound)
    }
}

impl Rule for ZBox {
    fn id(&self) -> String {
        format!("z_box({:?},{:?})", self.low, self.high)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let layer = Layer::of(b, id, "z_box")?;
        if !is_first_layer(b.graph(), id) {
            return Err(Error::settings(format!(
                "z_box is for first layers; '{}' is not one",
                b.graph().node(id).name
            )));
        }
        let ends = [
            (layer.with(Part::Positive, None), ZBox::bound(&self.low, id, b)?),
            (layer.with(Part::Negative, None), ZBox::bound(&self.high, id, b)?),
        ];
        let layer = layer.with(Part::Whole, None);
        let x = b.input(id, 0);
        let mut z = layer.forward(b, x)?;
        for (part, bound) in &ends {
            let least = part.forward(b, *bound)?;
            z = b.sub(z, least)?;
        }
        let s = b.divide(up, z, STABILISER)?;
        let back = layer.adjoint(b, s)?;
        let mut down = b.mul(x, back)?;
        for (part, bound) in &ends {
            let back = part.adjoint(b, s)?;
            let least = b.mul(*bound, back)?;
            down = b.sub(down, least)?;
        }
        Ok(NodeShares { down: vec![Some(down)], bias: None, lost: Some(lost(b, up, &[(z, s)])?) })
    }
}
