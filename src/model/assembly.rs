//! Builds a graph from named tensors; layer sizes come from the weights' shapes.

use std::sync::Arc;

use super::tensors::Tensors;
use crate::error::{Error, Result};
use crate::graph::{Conv, GraphBuilder, Linear, NodeId, Op};
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
    /// From the weight's second dimension.
    Inferred,
}

/// How a convolution pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pad {
    /// Half of the odd kernel.
    Half,
    Rows(usize),
    /// TensorFlow's "SAME".
    Same,
}

/// Properties of a convolution that the weights do not determine.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvSpec {
    /// Side of the kernel; `None` takes the weight's.
    pub(super) kernel: Option<usize>,
    pub(super) stride: usize,
    pub(super) pad: Pad,
    pub(super) groups: Groups,
    pub(super) bias: BiasPresence,
}

impl ConvSpec {
    /// A convolution without bias that keeps the size except for its stride.
    pub(super) const fn plain(kernel: Option<usize>, stride: usize) -> Self {
        Self { kernel, stride, pad: Pad::Half, groups: Groups::One, bias: BiasPresence::Absent }
    }
}

/// A graph under construction; its tensors are used up one by one.
pub(super) struct Assembly<'t> {
    pub(super) tensors: &'t mut Tensors,
    pub(super) builder: GraphBuilder,
    eps: f64,
}

impl<'t> Assembly<'t> {
    /// A net on `input` whose batch norms add `eps` to the variance.
    pub(super) fn new(tensors: &'t mut Tensors, input: Shape, eps: f64) -> Self {
        Self { tensors, builder: GraphBuilder::new(input), eps }
    }

    /// Channels of a node's output.
    pub(super) fn channels(&self, id: NodeId) -> usize {
        self.builder.shape(id).c
    }

    /// The convolution `name`.
    pub(super) fn conv(&mut self, name: &str, x: NodeId, spec: ConvSpec) -> Result<NodeId> {
        let tensor = format!("{name}.weight");
        let c = self.channels(x);
        let per_group = match spec.groups {
            Groups::One => c,
            Groups::Depthwise => 1,
            Groups::Inferred => match self.tensors.shape(&tensor) {
                Some(&[_, d, _, _]) if d > 0 && c.is_multiple_of(d) => d,
                _ => c,
            },
        };
        let weight = self.tensors.conv_weight(&tensor, [None, Some(per_group), spec.kernel, spec.kernel])?;
        let [k, _, kh, kw] = weight.dims();
        if kh != kw || (spec.pad == Pad::Half && kh.is_multiple_of(2)) {
            return Err(Error::model(format!("tensor '{tensor}' has a kernel of {kh}x{kw}, expected an odd square")));
        }
        let groups = c / per_group;
        if !k.is_multiple_of(groups) {
            return Err(Error::model(format!("tensor '{tensor}' has {k} output channels in {groups} groups")));
        }
        let bias = self.bias(name, spec.bias, k)?;
        let rows = match spec.pad {
            Pad::Half => kh / 2,
            Pad::Rows(n) => n,
            Pad::Same => 0,
        };
        let mut window = Window::square(kh, spec.stride, rows);
        if spec.pad == Pad::Same {
            window.padding = Padding::Same;
        }
        self.builder.push(name, Op::Conv(Conv { weight, bias, window, groups }), &[x])
    }

    fn bias(&mut self, name: &str, bias: BiasPresence, len: usize) -> Result<Option<Arc<[f64]>>> {
        let tensor = format!("{name}.bias");
        let wanted = match bias {
            BiasPresence::Present => true,
            BiasPresence::Absent => false,
            BiasPresence::Optional => self.tensors.has(&tensor),
        };
        wanted.then(|| self.tensors.vector(&tensor, len)).transpose()
    }

    /// The batch norm `name`.
    pub(super) fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let norm = self.tensors.batch_norm(name, self.channels(x), self.eps)?;
        self.builder.push(name, Op::BatchNorm(norm), &[x])
    }

    /// The linear layer `name`; its tensors are `name.weight` and `name.bias`.
    pub(super) fn linear(&mut self, name: &str, x: NodeId, bias: BiasPresence) -> Result<NodeId> {
        let weight = self.tensors.linear_weight(&format!("{name}.weight"), self.channels(x))?;
        let bias = self.bias(name, bias, weight.rows())?;
        self.builder.push(name, Op::Linear(Linear { weight, bias }), &[x])
    }

    /// A node without tensors.
    pub(super) fn op(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        self.builder.push(name, op, inputs)
    }

    /// `max(x, 0)`.
    pub(super) fn relu(&mut self, name: impl Into<String>, x: NodeId) -> Result<NodeId> {
        self.builder.push(name, Op::Relu, &[x])
    }

    /// Averages over `bins × bins` bins; the result is a vector.
    pub(super) fn pooled(&mut self, bins: usize, x: NodeId) -> Result<NodeId> {
        let pooled = self.op("avgpool", Op::AdaptiveAvgPool { out: [bins; 2] }, &[x])?;
        self.op("flatten", Op::Flatten, &[pooled])
    }

    /// Channels of a picture, from the first convolution's weight: 3, or 1 for grey ones.
    pub(super) fn picture_channels(tensors: &Tensors, weight: &str) -> usize {
        // Any other count fails on the first convolution's shape, with a message that says what was expected.
        if matches!(tensors.shape(weight), Some([_, 1, _, _])) { 1 } else { 3 }
    }

    /// Bins per axis of the average pool before the linear layer `name`, which reads `channels` channels.
    pub(super) fn bins(&self, name: &str, channels: usize) -> Result<usize> {
        let tensor = format!("{name}.weight");
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
