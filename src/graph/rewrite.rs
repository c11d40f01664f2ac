//! Derives graphs from graphs: rounded corners, shifted data, other weights.

use std::sync::Arc;

use super::affine::scale_shift;
use super::{Activation, Affine, Conv, Graph, GraphBuilder, Linear, Node, NodeId, Op, Smooth, SoftClamp};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

impl Graph {
    /// The same nodes, except that `change` may replace an operation by one with the same output shape.
    ///
    /// # Errors
    /// The errors of `change`, and when an operation does not match its inputs, or its output shape differs from that
    /// of the operation it replaces.
    pub fn rewritten(&self, mut change: impl FnMut(NodeId, &Node) -> Result<Option<Op>>) -> Result<Graph> {
        let mut builder = self.like(self.input_shape());
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let (op, norm) = match change(id, node)? {
                Some(op) => (op, None),
                None => (node.op.clone(), node.norm.clone()),
            };
            let new = builder.add(node.name.clone(), op, &node.inputs, norm)?;
            if builder.shape(new) != node.shape {
                let shape = builder.shape(new);
                return Err(Error::model(format!("node '{}' gives {shape} in place of {}", node.name, node.shape)));
            }
        }
        self.stages().iter().for_each(|(name, id)| builder.stage(name, *id));
        builder.finish(self.output())
    }

    /// The net with rounded corners, so that gradients are differentiable (Dombrowski et al., NeurIPS 2019, section 3.2).
    /// ReLUs and clamps become a [`SoftClamp`] of sharpness `beta`. Other activations with corners are written with clamps
    /// first: a hard sigmoid is `clamp(x, −3, 3) / 6 + 1/2`, a leaky ReLU (|x| with slope −1) `slope · x + (1 − slope) · max(x, 0)`, an ELU
    /// `alpha · elu₁(x) + (1 − alpha) · max(x, 0)`. Max-pools stay, and so do activations without corners.
    ///
    /// # Errors
    /// Settings when `beta` is not a positive number.
    pub fn softened(&self, beta: f64) -> Result<Graph> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::settings(format!("softplus needs a sharpness above 0, not {beta}")));
        }
        let mut builder = self.like(self.input_shape());
        let mut new = vec![builder.input()];
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| new[i.index()]).collect();
            new.push(match rounded(&mut builder, node, &inputs, beta)? {
                Some(rounded) => rounded,
                None => builder.add(node.name.clone(), node.op.clone(), &inputs, node.norm.clone())?,
            });
        }
        self.stages().iter().for_each(|(name, id)| builder.stage(name, new[id.index()]));
        builder.finish(new[self.output().index()])
    }

    /// The net for shifted data: its output on `x + shift` is this net's output on `x` (Kindermans et al. 2017, section
    /// 2). The biases of the layers at the picture become `b − W·shift`. Zeros in a convolution's padding are not
    /// shifted, so its new bias has one number per element of the output.
    ///
    /// # Errors
    /// Input when `shift` does not have the input's shape or is not finite. Model when the picture is read by anything
    /// but convolutions, linear and affine layers (after a flattening, if there is one).
    pub fn shifted(&self, shift: &Tensor) -> Result<Graph> {
        if shift.dims() != self.input_shape().dims() {
            return Err(Error::input(format!("a shift of {:?} for pictures of {}", shift.dims(), self.input_shape())));
        }
        if let Some(at) = shift.first_not_finite() {
            return Err(Error::input(format!("element {at} of the shift is {}", shift.at(at))));
        }
        let values = shift.to_f64();
        // Nodes that pass the picture on unchanged.
        let mut same = vec![false; self.nodes().len()];
        same[0] = true;
        self.rewritten(|id, node| {
            if !node.inputs.iter().any(|i| same[i.index()]) {
                return Ok(None);
            }
            match &node.op {
                Op::Flatten => {
                    same[id.index()] = true;
                    Ok(None)
                }
                Op::Conv(conv) => {
                    let input = self.node(node.inputs[0]).shape;
                    let moved = convolved(conv, input, node.shape, &values);
                    let plane = node.shape.plane();
                    let own = |i: usize| match &conv.bias {
                        Some(bias) if bias.len() == moved.len() => bias[i],
                        Some(bias) => bias[i / plane],
                        None => 0.0,
                    };
                    let bias = moved.iter().enumerate().map(|(i, v)| own(i) - v).collect();
                    Ok(Some(Op::Conv(Conv { bias: Some(bias), ..conv.clone() })))
                }
                Op::Linear(linear) => {
                    let mut row = vec![0.0; linear.weight.row_len()];
                    let bias: Arc<[f64]> = (0..linear.weight.rows())
                        .map(|k| {
                            linear.weight.read(k, 0..row.len(), &mut row);
                            let moved: f64 = row.iter().zip(values.iter()).map(|(w, v)| w * v).sum();
                            linear.bias.as_ref().map_or(0.0, |b| b[k]) - moved
                        })
                        .collect();
                    Ok(Some(Op::Linear(Linear { bias: Some(bias), ..linear.clone() })))
                }
                Op::Affine(_) => {
                    // Its constants become one per element where the shift differs between positions.
                    let (scale, own) = scale_shift(&node.op, node.shape.c).unwrap_or_default();
                    let (plane, elements) = (node.shape.plane(), node.shape.len());
                    let at = |i: usize| own[if own.len() == elements { i } else { i / plane }];
                    let all = values.iter().enumerate().map(|(i, v)| at(i) - scale[i / plane] * v);
                    Ok(Some(Op::Affine(Affine { scale: scale.clone().into(), shift: all.collect() })))
                }
                op => Err(Error::model(format!(
                    "a shift of the data can be undone in convolutions, linear and affine layers, not in '{}' ({})",
                    node.name,
                    op.kind()
                ))),
            }
        })
    }
}

/// `W·x` without bias, `[k, h, w]` in double precision.
fn convolved(conv: &Conv, input: Shape, output: Shape, x: &[f64]) -> Vec<f64> {
    let [k, c, kh, kw] = conv.weight.dims();
    let pads = conv.window.pads(input.h, input.w);
    let (stride, dilation) = (conv.window.stride, conv.window.dilation);
    let mut out = vec![0.0; output.len()];
    let mut row = vec![0.0; conv.weight.row_len()];
    for (channel, plane) in out.chunks_exact_mut(output.plane()).enumerate() {
        conv.weight.read(channel, 0..row.len(), &mut row);
        let first = channel / (k / conv.groups) * c;
        for (tap, &w) in row.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let (read, ky, kx) = (first + tap / (kh * kw), tap / kw % kh, tap % kw);
            for y in 0..output.h {
                let Some(iy) = (y * stride[0] + ky * dilation[0]).checked_sub(pads[0][0]).filter(|&i| i < input.h)
                else {
                    continue;
                };
                for ox in 0..output.w {
                    let at = (ox * stride[1] + kx * dilation[1]).checked_sub(pads[1][0]);
                    if let Some(ix) = at.filter(|&i| i < input.w) {
                        plane[y * output.w + ox] += w * x[(read * input.h + iy) * input.w + ix];
                    }
                }
            }
        }
    }
    out
}

/// The activation `node`, applied to `x`, with its corners rounded. `None` if the node has no corners. The last new node
/// has the name of `node`; the names of the others begin with it.
fn rounded(b: &mut GraphBuilder, node: &Node, x: &[NodeId], beta: f64) -> Result<Option<NodeId>> {
    let part = |what: &str| format!("{}/{what}", node.name);
    let soft = |lo, hi| Op::Smooth(Smooth::SoftClamp(SoftClamp { lo, hi, beta }));
    let hard_sigmoid = |b: &mut GraphBuilder, name: String| {
        let clamp = b.push(part("clamp"), soft(-3.0, 3.0), x)?;
        b.push(name, Op::Affine(Affine { scale: [1.0 / 6.0].into(), shift: [0.5].into() }), &[clamp])
    };
    // share · line + (1 − share) · max(x, 0).
    let bent = |b: &mut GraphBuilder, line: &[NodeId], shares: &[f64]| {
        let line = b.push(part("line"), Op::Affine(Affine::product(shares)), line)?;
        let relu = b.push(part("relu"), soft(0.0, f64::INFINITY), x)?;
        let rest: Vec<f64> = shares.iter().map(|share| 1.0 - share).collect();
        let rest = b.push(part("rest"), Op::Affine(Affine::product(rest)), &[relu])?;
        b.push(node.name.as_str(), Op::Add, &[line, rest])
    };
    let rounded = match (&node.op, node.op.activation()) {
        (Op::PRelu(slopes), _) => bent(b, x, slopes)?,
        (_, Some(Activation::Clamp { lo, hi })) => b.push(node.name.as_str(), soft(lo, hi), x)?,
        (_, Some(Activation::Smooth(f))) if f.facts().corners => match f {
            Smooth::HardSigmoid => hard_sigmoid(b, node.name.clone())?,
            Smooth::HardSwish => {
                let gate = hard_sigmoid(b, part("gate"))?;
                b.push(node.name.as_str(), Op::Mul, &[x[0], gate])?
            }
            Smooth::LeakyRelu { slope } => bent(b, x, &[slope])?,
            Smooth::Abs => bent(b, x, &[-1.0])?,
            Smooth::Elu { alpha } => {
                let smooth = b.push(part("elu"), Op::Smooth(Smooth::Elu { alpha: 1.0 }), x)?;
                bent(b, &[smooth], &[alpha])?
            }
            Smooth::SoftClamp(_)
            | Smooth::Sigmoid
            | Smooth::Silu
            | Smooth::Tanh
            | Smooth::Gelu
            | Smooth::GeluTanh
            | Smooth::Softplus { .. }
            | Smooth::Exp
            | Smooth::Log
            | Smooth::Power { .. } => return Ok(None),
        },
        (_, Some(Activation::Smooth(_) | Activation::PRelu { .. }) | None) => return Ok(None),
    };
    Ok(Some(rounded))
}
