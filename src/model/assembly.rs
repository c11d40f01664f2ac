//! Builds a graph from named tensors; layer sizes come from the weights' shapes, or, in the draft of a published net,
//! from the family's table.

use std::sync::Arc;

use super::tensors::{Tensors, WeightFill};
use crate::error::{Error, Result};
use crate::graph::{
    Activation, Affine, Conv, Graph, GraphBuilder, Linear, NodeId, Op, Over, Reduce, Smooth, Standardise,
};
use crate::tensor::{Padding, Shape, Window};

/// Whether a layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BiasPresence {
    Present,
    Absent,
    /// Used if the file has one.
    Optional,
}

/// How the channels of a convolution are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    One,
    Depthwise,
    /// From the weight's second dimension, which is this in the published net.
    Inferred(usize),
}

/// How a convolution pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pad {
    /// Half of the odd kernel.
    Half,
    Rows(usize),
    /// Half of the odd kernel, but one position less before the first one: TensorFlow's "SAME" of an even side and stride 2.
    Late,
    /// TensorFlow's "SAME".
    Same,
}

/// Properties of a convolution that the weights do not determine.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvSpec {
    /// Output channels of the published net; a file may have others.
    pub(super) out: Option<usize>,
    /// Rows and columns of the kernel; `None` takes the weight's odd square, which is 3×3 in a published net.
    pub(super) kernel: Option<[usize; 2]>,
    pub(super) stride: usize,
    /// Distance between taps.
    pub(super) dilation: usize,
    pub(super) pad: Pad,
    pub(super) groups: Groups,
    pub(super) bias: BiasPresence,
}

impl ConvSpec {
    /// A convolution without bias that keeps the size except for its stride.
    pub(super) const fn plain(side: Option<usize>, stride: usize) -> Self {
        let kernel = match side {
            Some(side) => Some([side; 2]),
            None => None,
        };
        let (pad, groups, bias) = (Pad::Half, Groups::One, BiasPresence::Absent);
        Self { out: None, kernel, stride, dilation: 1, pad, groups, bias }
    }

    /// Of `kernel` rows and columns, otherwise [`ConvSpec::plain`] with stride 1.
    pub(super) const fn of(kernel: [usize; 2]) -> Self {
        Self { kernel: Some(kernel), ..Self::plain(None, 1) }
    }

    /// The same to `out` channels.
    pub(super) const fn to(self, out: usize) -> Self {
        Self { out: Some(out), ..self }
    }

    /// The same with `dilation`.
    pub(super) const fn dilated(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// The same for each channel of `channels`.
    pub(super) const fn depthwise(self, channels: usize) -> Self {
        Self { out: Some(channels), groups: Groups::Depthwise, ..self }
    }

    /// The same with a bias.
    pub(super) const fn with_bias(self) -> Self {
        Self { bias: BiasPresence::Present, ..self }
    }

    /// The same with `pad`.
    pub(super) const fn padded(self, pad: Pad) -> Self {
        Self { pad, ..self }
    }
}

/// What is assumed of a head of several layers.
const OF_HEAD: &str = "relu between the linear layers of the head";

/// Name of the node after the layer `name`: the next number, if the name ends with one.
fn after(name: &str) -> String {
    let next =
        name.rsplit_once('.').and_then(|(list, last)| Some(format!("{list}.{}", last.parse::<usize>().ok()? + 1)));
    next.unwrap_or_else(|| format!("{name}.relu"))
}

/// Nine numbers with the quantiles of a normal distribution, for the mean over its negative and positive half.
const QUANTILES: [f64; 9] = [0.07, 0.21, 0.36, 0.51, 0.67, 0.86, 1.09, 1.38, 1.91];

/// `min(max(x, 0), 6)`.
pub(super) const RELU6: Op = Op::Clamp { lo: 0.0, hi: 6.0 };

/// `x · sigmoid(x)`.
pub(super) const SILU: Op = Op::Smooth(Smooth::Silu);
/// `1 / (1 + exp(−x))`.
pub(super) const SIGMOID: Op = Op::Smooth(Smooth::Sigmoid);
/// `x · hard_sigmoid(x)`.
pub(super) const HARD_SWISH: Op = Op::Smooth(Smooth::HardSwish);
/// `min(max(x + 3, 0), 6) / 6`.
pub(super) const HARD_SIGMOID: Op = Op::Smooth(Smooth::HardSigmoid);
/// `x · P(Z ≤ x)`.
pub(super) const GELU: Op = Op::Smooth(Smooth::Gelu);

/// A graph under construction; its tensors are used up one by one.
pub(super) struct Assembly<'t> {
    pub(super) tensors: &'t mut Tensors,
    pub(super) builder: GraphBuilder,
    eps: f64,
    /// Estimates for each node's elements, from which a draft takes the size of random weights.
    moments: Vec<Moments>,
}

impl<'t> Assembly<'t> {
    /// A net on `input` whose batch norms add `eps` to the variance.
    pub(super) fn new(tensors: &'t mut Tensors, input: Shape, eps: f64) -> Self {
        Self { tensors, builder: GraphBuilder::new(input), eps, moments: vec![Moments { mean: 0.0, variance: 1.0 }] }
    }

    fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        let parts: Vec<(Moments, usize)> =
            inputs.iter().map(|x| (self.moments[x.index()], self.channels(*x))).collect();
        self.moments.push(Moments::of(&op, &parts));
        self.builder.push(name, op, inputs)
    }

    /// Random weights of `fan` products a sum, such that the sums of `x` are of order one.
    fn spread(&self, x: NodeId, fan: usize) -> WeightFill {
        let deviation = (fan as f64 * self.moments[x.index()].square()).sqrt().recip();
        // Four places, so that no rounding of the estimate changes the weights.
        WeightFill::Spread(((deviation * 1e4).round() / 1e4) as f32)
    }

    /// Channels of a node's output.
    pub(super) fn channels(&self, id: NodeId) -> usize {
        self.builder.shape(id).c
    }

    /// Rows of a node's output.
    pub(super) fn side(&self, id: NodeId) -> usize {
        self.builder.shape(id).h
    }

    /// The convolution `name`.
    pub(super) fn conv(&mut self, name: &str, x: NodeId, spec: ConvSpec) -> Result<NodeId> {
        let tensor = format!("{name}.weight");
        let (c, drafted) = (self.channels(x), self.tensors.drafted().is_some());
        let per_group = match spec.groups {
            Groups::One => c,
            Groups::Depthwise => 1,
            Groups::Inferred(width) if drafted => width,
            Groups::Inferred(_) => match self.tensors.shape(&tensor) {
                Some(&[_, d, _, _]) if d > 0 && c.is_multiple_of(d) => d,
                _ => c,
            },
        };
        let sides = spec.kernel.or(drafted.then_some([3; 2]));
        let kernel = sides.map_or([None; 2], |sides| sides.map(Some));
        let out = spec.out.filter(|_| drafted);
        let fill = self.spread(x, per_group * sides.map_or(1, |[kh, kw]| kh * kw));
        let weight = self.tensors.conv_weight(&tensor, [out, Some(per_group), kernel[0], kernel[1]], fill)?;
        let [k, _, kh, kw] = weight.dims();
        let odd = !kh.is_multiple_of(2) && !kw.is_multiple_of(2);
        if (spec.kernel.is_none() && kh != kw) || (matches!(spec.pad, Pad::Half | Pad::Late) && !odd) {
            return Err(Error::model(format!("tensor '{tensor}' has a kernel of {kh}x{kw}, expected an odd square")));
        }
        let groups = c / per_group;
        if !k.is_multiple_of(groups) {
            return Err(Error::model(format!("tensor '{tensor}' has {k} output channels in {groups} groups")));
        }
        let bias = self.bias(name, spec.bias, k)?;
        let [rows, columns] = [kh, kw].map(|side| spec.dilation * (side / 2));
        let padding = match spec.pad {
            Pad::Half => Padding::Explicit { top: rows, bottom: rows, left: columns, right: columns },
            Pad::Late => Padding::Explicit {
                top: (kh / 2).saturating_sub(1),
                bottom: kh / 2,
                left: (kw / 2).saturating_sub(1),
                right: kw / 2,
            },
            Pad::Rows(n) => Padding::all(n),
            Pad::Same => Padding::Same,
        };
        let dilation = [spec.dilation; 2];
        let window = Window { kernel: [kh, kw], dilation, padding, ..Window::square(1, spec.stride, 0) };
        self.push(name, Op::Conv(Conv { weight, bias, window, groups }), &[x])
    }

    fn bias(&mut self, name: &str, bias: BiasPresence, len: usize) -> Result<Option<Arc<[f64]>>> {
        let tensor = format!("{name}.bias");
        let wanted = match bias {
            BiasPresence::Present => true,
            BiasPresence::Absent => false,
            BiasPresence::Optional => self.tensors.drafted().is_some() || self.tensors.has(&tensor),
        };
        wanted.then(|| self.tensors.vector(&tensor, len, WeightFill::Spread(0.05))).transpose()
    }

    /// The batch norm `name`.
    pub(super) fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let norm = self.tensors.batch_norm(name, self.channels(x), self.eps)?;
        self.push(name, Op::BatchNorm(norm), &[x])
    }

    /// The linear layer `name`; its tensors are `name.weight` and `name.bias`. The published net has `out` outputs.
    pub(super) fn linear(&mut self, name: &str, x: NodeId, bias: BiasPresence, out: usize) -> Result<NodeId> {
        let inputs = self.channels(x);
        let out = self.tensors.drafted().map(|_| out);
        let fill = self.spread(x, inputs);
        let weight = self.tensors.linear_weight(&format!("{name}.weight"), [out, Some(inputs)], fill)?;
        let bias = self.bias(name, bias, weight.rows())?;
        self.push(name, Op::Linear(Linear { weight, bias }), &[x])
    }

    /// The convolution `conv`, its batch norm `norm`, and an activation if there is one, as a node called `act`.
    pub(super) fn conv_norm(
        &mut self,
        [conv, norm, act]: [&str; 3],
        x: NodeId,
        spec: ConvSpec,
        activation: Option<&Op>,
    ) -> Result<NodeId> {
        let y = self.conv(conv, x, spec)?;
        let y = self.batch_norm(norm, y)?;
        activation.map_or(Ok(y), |op| self.op(act, op.clone(), &[y]))
    }

    /// torchvision's `Conv2dNormActivation` called `name`: [`Assembly::conv_norm`] with the names 0, 1 and 2.
    pub(super) fn conv_012(
        &mut self,
        name: &str,
        x: NodeId,
        spec: ConvSpec,
        activation: Option<&Op>,
    ) -> Result<NodeId> {
        let [conv, norm, act] = [0, 1, 2].map(|i| format!("{name}.{i}"));
        self.conv_norm([&conv, &norm, &act], x, spec, activation)
    }

    /// torchvision's `BasicConv2d` called `name`: convolution, batch norm and ReLU.
    pub(super) fn conv_bn_relu(&mut self, name: &str, x: NodeId, spec: ConvSpec) -> Result<NodeId> {
        let [conv, norm, relu] = ["conv", "bn", "relu"].map(|part| format!("{name}.{part}"));
        self.conv_norm([&conv, &norm, &relu], x, spec, Some(&Op::Relu))
    }

    /// Squeeze-and-excitation called `name` (Hu 2018): `x` times a gate a channel, from the means of all channels
    /// squeezed to `squeezed` ones. `[activation, gate]` are the functions.
    pub(super) fn excited(&mut self, name: &str, x: NodeId, squeezed: usize, functions: [&Op; 2]) -> Result<NodeId> {
        let names = ["fc1", "fc2"].map(|part| format!("{name}.{part}"));
        self.gated(name, names.each_ref().map(String::as_str), x, squeezed, functions)
    }

    /// [`Assembly::excited`] whose convolutions have the names `convs`.
    pub(super) fn gated(
        &mut self,
        name: &str,
        convs: [&str; 2],
        x: NodeId,
        squeezed: usize,
        functions: [&Op; 2],
    ) -> Result<NodeId> {
        let [activation, gate] = functions;
        let point = ConvSpec::plain(Some(1), 1).with_bias();
        let mut y = self.op(format!("{name}.avgpool"), Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
        y = self.conv(convs[0], y, point.to(squeezed))?;
        y = self.op(format!("{name}.activation"), activation.clone(), &[y])?;
        y = self.conv(convs[1], y, point.to(self.channels(x)))?;
        y = self.op(format!("{name}.scale_activation"), gate.clone(), &[y])?;
        self.op(format!("{name}.product"), Op::Mul, &[x, y])
    }

    /// The layer norm `name` over the channels of each position.
    pub(super) fn layer_norm(&mut self, name: &str, x: NodeId, eps: f64) -> Result<NodeId> {
        let channels = self.channels(x);
        let scale = self.tensors.vector(&format!("{name}.weight"), channels, WeightFill::Around)?;
        let shift = self.tensors.vector(&format!("{name}.bias"), channels, WeightFill::Normal(0.1))?;
        let norm = Op::Standardise(Standardise { groups: 1, across_positions: false, eps });
        let y = self.op(format!("{name}.standardise"), norm, &[x])?;
        self.push(name, Op::Affine(Affine { scale, shift }), &[y])
    }

    /// The linear layer `name` with `out` outputs, applied to the channels of each position.
    pub(super) fn positionwise(&mut self, name: &str, x: NodeId, out: usize) -> Result<NodeId> {
        let inputs = self.channels(x);
        let out = self.tensors.drafted().map(|_| out);
        let fill = self.spread(x, inputs);
        let weight = self.tensors.linear_weight(&format!("{name}.weight"), [out, Some(inputs)], fill)?;
        let bias = self.bias(name, BiasPresence::Present, weight.rows())?;
        self.push(name, Op::Conv(Conv { weight, bias, window: Window::square(1, 1, 0), groups: 1 }), &[x])
    }

    /// A factor a channel: the tensor `name` of shape `[c, 1, 1]`.
    pub(super) fn layer_scale(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let scale = self.tensors.plane_vector(name, self.channels(x), WeightFill::Around)?;
        self.push(name, Op::Affine(Affine::product(scale)), &[x])
    }

    /// The global response norm `name` (Woo 2023, equations 1 to 3): `x` plus `scale · x · n + shift`, where `n` is the
    /// Euclidean norm of a channel over all positions, divided by the mean of these norms.
    pub(super) fn response_norm(&mut self, name: &str, x: NodeId, eps: f64) -> Result<NodeId> {
        let part = |part: &str| format!("{name}.{part}");
        let power = |exponent| Op::Smooth(Smooth::Power { exponent });
        let square = self.op(part("square"), power(2.0), &[x])?;
        let sum = self.op(part("sum"), Op::Reduce(Reduce { over: Over::Positions, mean: false }), &[square])?;
        let norm = self.op(part("norm"), power(0.5), &[sum])?;
        let mean = self.op(part("mean"), Op::Reduce(Reduce { over: Over::Everything, mean: true }), &[norm])?;
        let above = Affine { scale: [1.0].into(), shift: [eps].into() };
        let mean = self.op(part("eps"), Op::Affine(above), &[mean])?;
        let share = self.op(part("share"), Op::Divide, &[norm, mean])?;
        let product = self.op(part("product"), Op::Mul, &[x, share])?;
        let channels = self.channels(x);
        let scale = self.tensors.vector(&part("weight"), channels, WeightFill::Around)?;
        let shift = self.tensors.vector(&part("bias"), channels, WeightFill::Normal(0.1))?;
        let y = self.push(name, Op::Affine(Affine { scale, shift }), &[product])?;
        self.op(part("add"), Op::Add, &[y, x])
    }

    /// A node without tensors.
    pub(super) fn op(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        self.push(name, op, inputs)
    }

    /// `max(x, 0)`.
    pub(super) fn relu(&mut self, name: impl Into<String>, x: NodeId) -> Result<NodeId> {
        self.push(name, Op::Relu, &[x])
    }

    /// Averages over `bins × bins` bins; the result is a vector.
    pub(super) fn pooled(&mut self, bins: usize, x: NodeId) -> Result<NodeId> {
        let pooled = self.op("avgpool", Op::AdaptiveAvgPool { out: [bins; 2] }, &[x])?;
        self.op("flatten", Op::Flatten, &[pooled])
    }

    /// The net that ends with the mean over positions of `x` and the linear layer `name`.
    pub(super) fn classified(mut self, name: &str, x: NodeId) -> Result<Graph> {
        let x = self.pooled(1, x)?;
        let x = self.head(x, &[(name, 1000)], &Op::Relu)?;
        self.builder.finish(x)
    }

    /// The linear layers at the end of a net, on the vector `x`: all that nothing else has read, whatever their names. A
    /// published net has those of `published`, with so many outputs and `between` after each but the last; after
    /// any other layer the activation is taken to be ReLU.
    pub(super) fn head(&mut self, mut x: NodeId, published: &[(&str, usize)], between: &Op) -> Result<NodeId> {
        if self.tensors.drafted().is_some() {
            for (i, (name, out)) in published.iter().enumerate() {
                x = self.linear(name, x, BiasPresence::Present, *out)?;
                if i + 1 < published.len() {
                    x = self.op(after(name), between.clone(), &[x])?;
                }
            }
            return Ok(x);
        }
        let layers = self.tensors.head()?;
        let is_published = |name: &str| published.iter().rev().skip(1).any(|(known, _)| *known == name);
        for layer in &layers {
            let name = &layer.name;
            x = if layer.is_norm {
                self.batch_norm(name, x)?
            } else {
                self.linear(name, x, BiasPresence::Optional, 0)?
            };
            if layer.active {
                let known = is_published(name);
                x = self.op(after(name), if known { between.clone() } else { Op::Relu }, &[x])?;
                if !known && !self.tensors.assumed.contains(&OF_HEAD) {
                    self.tensors.assume(OF_HEAD);
                }
            }
        }
        Ok(x)
    }

    /// Channels of the input, from the first convolution's weight; 3 if there is none.
    pub(super) fn picture_channels(tensors: &Tensors, weight: &str) -> usize {
        // A weight of another rank fails on its shape, with a message that says what was expected.
        match tensors.shape(weight) {
            Some(&[_, channels, _, _]) if channels > 0 => channels,
            _ => 3,
        }
    }

    /// Bins per axis of the average pool before the head, which reads `channels` channels; `drafted` in the published
    /// net.
    pub(super) fn bins(&self, channels: usize, drafted: usize) -> Result<usize> {
        if self.tensors.drafted().is_some() {
            return Ok(drafted);
        }
        let first = self.tensors.head()?.into_iter().find(|layer| !layer.is_norm);
        let tensor = format!("{}.weight", first.map_or_else(String::new, |layer| layer.name));
        let Some(&[_, inputs]) = self.tensors.shape(&tensor) else {
            return Err(match self.tensors.shape(&tensor) {
                Some(shape) => Error::model(format!("tensor '{tensor}' has shape {shape:?}, expected [*, *]")),
                None => Error::model(format!("tensor '{tensor}' is missing; expected shape [*, *]")),
            });
        };
        let bins = (inputs / channels).isqrt();
        if bins == 0 || bins * bins * channels != inputs {
            return Err(Error::model(format!(
                "tensor '{tensor}' has {inputs} inputs, expected {channels} channels times a square number of bins"
            )));
        }
        Ok(bins)
    }
}

/// Mean and variance of a node's elements, as estimated: signals are taken as normal and independent, and random weights
/// as [`Assembly::spread`] draws them.
#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    /// Mean square.
    fn square(self) -> f64 {
        self.mean * self.mean + self.variance
    }

    /// Of elements with these means and mean squares, each as often as its weight says.
    fn mixed(parts: impl Iterator<Item = (f64, f64, f64)>) -> Self {
        let [weight, mean, square] = parts.fold([0.0; 3], |[all, mean, square], (weight, m, s)| {
            [all + weight, mean + weight * m, square + weight * s]
        });
        let mean = mean / weight;
        Self { mean, variance: square / weight - mean * mean }
    }

    /// Of the output for inputs with these moments and channels.
    fn of(op: &Op, inputs: &[(Self, usize)]) -> Self {
        let normal = Self { mean: 0.0, variance: 1.0 };
        let (x, channels) = inputs.first().copied().unwrap_or((normal, 1));
        let mapped = |f: &dyn Fn(f64) -> f64| {
            let signed = QUANTILES.iter().flat_map(|z| [-z, *z]).map(|z| f(x.mean + z * x.variance.sqrt()));
            Self::mixed(signed.map(|v| (1.0, v, v * v)))
        };
        match op {
            Op::Input | Op::Conv(_) | Op::Linear(_) => normal,
            // Scales and variances from 0.5 to 1.5, means and shifts of 0.1.
            Op::BatchNorm(_) => {
                let mean = 1.035 * x.mean;
                Self { mean, variance: 1.19 * (x.square() + 0.01) + 0.01 - mean * mean }
            }
            Op::Relu | Op::Clamp { .. } | Op::Smooth(_) | Op::PRelu(_) => match op.activation() {
                Some(Activation::Clamp { lo, hi }) => mapped(&|v| v.clamp(lo, hi)),
                Some(Activation::Smooth(f)) => mapped(&|v| f.value(v)),
                Some(Activation::PRelu { least, most }) => mapped(&|v| v.max(0.0) + (least + most) / 2.0 * v.min(0.0)),
                None => x,
            },
            Op::Standardise(_) => normal,
            // Scales from 0.5 to 1.5.
            Op::Affine(_) => Self { mean: x.mean, variance: 1.08 * x.square() - x.mean * x.mean },
            Op::Mul => {
                let [mean, square] = inputs.iter().fold([1.0; 2], |[m, s], (x, _)| [m * x.mean, s * x.square()]);
                Self { mean, variance: square - mean * mean }
            }
            Op::MaxPool(_) | Op::GlobalMaxPool | Op::ChannelMax => {
                Self { mean: x.mean + x.variance.sqrt(), variance: 0.6 * x.variance }
            }
            Op::AvgPool { .. } => Self { variance: 0.3 * x.variance, ..x },
            Op::AdaptiveAvgPool { .. } => Self { variance: 0.2 * x.variance, ..x },
            Op::Add => Self {
                mean: inputs.iter().map(|(x, _)| x.mean).sum(),
                variance: inputs.iter().map(|(x, _)| x.variance).sum(),
            },
            Op::Concat => Self::mixed(inputs.iter().map(|(x, channels)| (*channels as f64, x.mean, x.square()))),
            Op::PadChannels { before, after } => {
                let zeros = ((before + after) as f64, 0.0, 0.0);
                Self::mixed([(channels as f64, x.mean, x.square()), zeros].into_iter())
            }
            Op::Flatten | Op::Subsample { .. } | Op::Slice { .. } | Op::Shuffle { .. } | Op::Pad { .. } => x,
            // No net here has these.
            Op::Divide | Op::Softmax { .. } | Op::Reduce(_) | Op::Resize(_) => x,
        }
    }
}
