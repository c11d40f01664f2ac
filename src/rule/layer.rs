//! Common code of relevance rules: layers with parts of their weights, signed halves of inputs, and the balance of
//! relevance.

use std::sync::Arc;

use super::NodeShares;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, Part};
use crate::program::{Builder, ConvLayer, LinearLayer, Value};
use crate::tensor::Shape;

/// δ in `R / (z + δ·sign(z))` for rules without an ε of their own.
pub const STABILISER: f64 = 1e-6;

/// What happens to a bias's share of the relevance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Bias {
    /// The bias keeps it, so less arrives at the inputs.
    #[default]
    Keep,
    /// There is none: the bias is left out of the layer's sums.
    Zero,
}

impl std::str::FromStr for Bias {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "keep" => Ok(Bias::Keep),
            "zero" => Ok(Bias::Zero),
            _ => Err(Error::settings(format!("no treatment of biases is named '{s}'; there are keep and zero"))),
        }
    }
}

/// Whether the node has weights: a convolution, a linear layer, or a batch norm or affine layer (a depthwise convolution).
pub(super) fn is_layer(graph: &Graph, id: NodeId) -> bool {
    sums(graph, id) || matches!(graph.node(id).op, Op::BatchNorm(_) | Op::Affine(_))
}

/// Whether the node sums over inputs with weights. A batch norm or an affine layer does not, so it is neither a first nor a
/// last layer.
fn sums(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.node(id).op, Op::Conv(_) | Op::Linear(_))
}

/// Whether the node sums with weights and no node between the picture and it does.
pub(super) fn is_first_layer(graph: &Graph, id: NodeId) -> bool {
    let mut behind = vec![false; graph.nodes().len()];
    for i in graph.ids().take(id.index()) {
        behind[i.index()] = sums(graph, i) || graph.node(i).inputs.iter().any(|n| behind[n.index()]);
    }
    sums(graph, id) && !graph.node(id).inputs.iter().any(|n| behind[n.index()])
}

/// Whether the node sums with weights and no node between it and the logits does.
pub(super) fn is_last_layer(graph: &Graph, id: NodeId) -> bool {
    let mut reached = vec![false; graph.nodes().len()];
    reached[id.index()] = true;
    let mut later = false;
    for i in graph.ids().skip(id.index() + 1) {
        reached[i.index()] = graph.node(i).inputs.iter().any(|n| reached[n.index()]);
        later |= reached[i.index()] && sums(graph, i);
    }
    sums(graph, id) && !later
}

/// Whether the value that consumers of `id` read is non-negative for every picture.
pub(super) fn is_not_negative(b: &Builder<'_>, id: NodeId) -> bool {
    let node = b.graph().node(id);
    !b.is_replaced(id)
        && match node.op {
            Op::Softmax { .. } => true,
            _ if node.op.activation().is_some_and(|f| f.bounds()[0] >= 0.0) => true,
            Op::MaxPool(_)
            | Op::GlobalMaxPool
            | Op::ChannelMax
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Mul
            | Op::Divide
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::Resize(_)
            | Op::Reduce(_)
            | Op::Slice { .. }
            | Op::Shuffle { .. }
            | Op::Pad { .. }
            | Op::PadChannels { .. } => node.inputs.iter().all(|&input| is_not_negative(b, input)),
            _ => false,
        }
}

/// A layer with weights.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    Conv(Arc<ConvLayer>),
    Linear(Arc<LinearLayer>),
}

impl Layer {
    /// Node `id` as a layer; for nodes without weights an error that names the rule.
    pub fn of(b: &Builder<'_>, id: NodeId, rule: &str) -> Result<Self> {
        let node = b.graph().node(id);
        match node.op {
            Op::Conv(_) | Op::BatchNorm(_) | Op::Affine(_) => Ok(Layer::Conv(b.conv_layer(id)?)),
            Op::Linear(_) => Ok(Layer::Linear(b.linear_layer(id)?)),
            _ => Err(Error::model(format!(
                "{rule} is a rule for layers with weights, '{}' is {}",
                node.name,
                node.op.kind()
            ))),
        }
    }

    /// The layer's bias, if it counts and is not zero everywhere.
    pub fn bias(&self, bias: Bias) -> Option<Arc<[f64]>> {
        let own = match self {
            Layer::Conv(layer) => layer.bias.as_ref(),
            Layer::Linear(layer) => layer.bias.as_ref(),
        };
        own.filter(|own| bias == Bias::Keep && own.iter().any(|&v| v != 0.0)).map(Arc::clone)
    }

    /// Shape of its input.
    pub fn input(&self) -> Shape {
        match self {
            Layer::Conv(layer) => layer.input,
            Layer::Linear(layer) => Shape::vector(layer.weight.row_len()),
        }
    }

    /// The same layer with a part of its weights and another bias.
    pub fn with(&self, part: Part, bias: Option<Arc<[f64]>>) -> Self {
        match self {
            Layer::Conv(layer) => Layer::Conv(layer.with(part, bias)),
            Layer::Linear(layer) => Layer::Linear(layer.with(part, bias)),
        }
    }

    /// `W x + b`.
    pub fn forward(&self, b: &mut Builder<'_>, x: Value) -> Result<Value> {
        match self {
            Layer::Conv(layer) => b.conv(Arc::clone(layer), x),
            Layer::Linear(layer) => b.linear(Arc::clone(layer), x),
        }
    }

    /// `Wᵀ s`.
    pub fn adjoint(&self, b: &mut Builder<'_>, s: Value) -> Result<Value> {
        match self {
            Layer::Conv(layer) => b.conv_adjoint_of(Arc::clone(layer), s),
            Layer::Linear(layer) => b.linear_adjoint_of(Arc::clone(layer), s),
        }
    }
}

/// `x⁺ = max(x, 0)` and `x⁻ = min(x, 0)` of a node's first input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Halves {
    pub positive: Value,
    /// `None` if the input is known to be non-negative.
    pub negative: Option<Value>,
}

impl Halves {
    pub fn of(b: &mut Builder<'_>, id: NodeId) -> Result<Self> {
        let x = b.input(id, 0);
        if is_not_negative(b, b.graph().node(id).inputs[0]) {
            return Ok(Self { positive: x, negative: None });
        }
        Ok(Self { positive: b.positive(x)?, negative: Some(b.negative(x)?) })
    }
}

/// A layer that applies one part of its weights to `x⁺` and another to `x⁻`.
#[derive(Debug, Clone)]
pub(super) struct Parted {
    positive: Layer,
    negative: Layer,
    bias: Option<Arc<[f64]>>,
}

impl Parted {
    /// `positive` and `negative` are the parts of the weights for `x⁺` and `x⁻`; `bias` is added once.
    pub fn new(layer: &Layer, positive: Part, negative: Part, bias: Option<Arc<[f64]>>) -> Self {
        Self { positive: layer.with(positive, bias.clone()), negative: layer.with(negative, None), bias }
    }

    /// `z = P x⁺ + N x⁻ + b`.
    pub fn forward(&self, b: &mut Builder<'_>, x: Halves) -> Result<Value> {
        let z = self.positive.forward(b, x.positive)?;
        let Some(negative) = x.negative else { return Ok(z) };
        let other = self.negative.forward(b, negative)?;
        b.add(z, other)
    }

    /// `x⁺ ∘ Pᵀs + x⁻ ∘ Nᵀs`.
    pub fn back(&self, b: &mut Builder<'_>, x: Halves, s: Value) -> Result<Value> {
        let up = self.positive.adjoint(b, s)?;
        let r = b.mul(x.positive, up)?;
        let Some(negative) = x.negative else { return Ok(r) };
        let up = self.negative.adjoint(b, s)?;
        let other = b.mul(negative, up)?;
        b.add(r, other)
    }

    /// The bias's share for `s`.
    pub fn kept(&self, b: &mut Builder<'_>, s: Value) -> Result<Option<Value>> {
        kept_by_bias(b, self.bias.as_ref(), s)
    }
}

/// `b ∘ ⟨s⟩`: the bias's share, as a mean over positions per channel.
pub(super) fn kept_by_bias(b: &mut Builder<'_>, bias: Option<&Arc<[f64]>>, s: Value) -> Result<Option<Value>> {
    let Some(bias) = bias else { return Ok(None) };
    let shape = b.shape(s);
    if bias.len() == shape.len() {
        let bias = b.fill(shape, Arc::clone(bias))?;
        let kept = b.mul(bias, s)?;
        return b.spatial_mean(kept).map(Some);
    }
    let mean = b.spatial_mean(s)?;
    let bias = b.fill(Shape::vector(bias.len()), Arc::clone(bias))?;
    b.mul(bias, mean).map(Some)
}

/// `⟨R − Σ z∘s⟩`: relevance that reaches no input, because the denominator exceeded the sum of the contributions or was
/// zero.
pub(super) fn lost(b: &mut Builder<'_>, up: Value, shares: &[(Value, Value)]) -> Result<Value> {
    let mut rest = up;
    for &(z, s) in shares {
        let given = b.mul(z, s)?;
        rest = b.sub(rest, given)?;
    }
    b.spatial_mean(rest)
}

/// `R_in = x ∘ Pᵀs + …`, `s = R / z`, for one set of parts: the complete rule in cases such as `z_plus`.
pub(super) fn share(b: &mut Builder<'_>, parted: &Parted, x: Halves, up: Value) -> Result<NodeShares> {
    let z = parted.forward(b, x)?;
    let s = b.divide(up, z, STABILISER)?;
    let down = parted.back(b, x, s)?;
    Ok(NodeShares { down: vec![Some(down)], bias: parted.kept(b, s)?, lost: Some(lost(b, up, &[(z, s)])?) })
}

/// The sum of those that are present.
pub(super) fn sum(b: &mut Builder<'_>, one: Option<Value>, other: Option<Value>) -> Result<Option<Value>> {
    match (one, other) {
        (Some(one), Some(other)) => b.add(one, other).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}
