//! Derives graphs from graphs: rounded corners, shifted data, other weights.

use std::sync::Arc;

use super::affine::scale_shift;
use super::{Activation, Affine, Conv, Graph, Linear, Node, NodeId, Op, Smooth, SoftClamp};
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

    /// The net with rounded corners: every ReLU and clamp becomes a [`SoftClamp`] of sharpness `beta`, so that
    /// gradients are differentiable (Dombrowski et al., NeurIPS 2019, section 3.2). Max-pools stay, and so do
    /// activations without corners.
    ///
    /// # Errors
    /// Settings when `beta` is not a positive number. Model when another activation has a corner: a leaky ReLU, a
    /// hard sigmoid.
    pub fn softened(&self, beta: f64) -> Result<Graph> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::settings(format!("softplus needs a sharpness above 0, not {beta}")));
        }
        self.rewritten(|_, node| {
            Ok(match node.op.activation() {
                Some(Activation::Clamp { lo, hi }) => Some(Op::Smooth(Smooth::SoftClamp(SoftClamp { lo, hi, beta }))),
                Some(Activation::Smooth(f)) if !f.facts().corners => None,
                Some(Activation::Smooth(_) | Activation::PRelu { .. }) => {
                    return Err(Error::model(format!(
                        "the corners of ReLUs and clamps can be rounded, not those of '{}' ({})",
                        node.name,
                        node.op.kind()
                    )));
                }
                None => None,
            })
        })
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
