//! Model parameter randomisation (Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018: Sanity checks for
//! saliency maps): an explanation that does not change when the learned weights are destroyed does not explain the net.

use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Affine, BatchNorm, Conv, Graph, Linear, NodeId, Op, Weight};
use crate::random::Stream;

/// Draw numbers of a layer's weights (a norm's scales, a PReLU's slopes) and biases.
const WEIGHTS: u32 = 0;
const BIASES: u32 = 1;

/// Layers with weights, from the logits back to the picture: convolutions, linear layers, and scales, shifts and slopes
/// that differ between channels (norms that no convolution took up, layer norms, layer scales, PReLUs).
pub fn layers(graph: &Graph) -> Vec<NodeId> {
    let differ = |v: &[f64]| v.iter().any(|x| *x != v[0]);
    let learned = |op: &Op| match op {
        Op::Conv(_) | Op::Linear(_) => true,
        Op::BatchNorm(norm) => differ(&norm.gamma) || differ(&norm.beta),
        Op::Affine(affine) => differ(&affine.scale) || differ(&affine.shift),
        Op::PRelu(slopes) => differ(slopes),
        _ => false,
    };
    graph.ids().rev().filter(|&id| learned(&graph.node(id).op)).collect()
}

/// The net with the weights of `nodes` randomised: normal numbers with the mean and standard deviation of the
/// originals, so that signals keep roughly their magnitude; likewise for biases, scales, shifts and slopes. A batch norm
/// keeps its statistics. A layer's draw depends only on the seed and the layer's position in the net, so in a cascade the
/// layers randomised earlier keep their draws.
///
/// # Errors
/// Never for layers of this graph.
pub fn randomised(graph: &Graph, nodes: &[NodeId], seed: u64) -> Result<Graph> {
    graph.rewritten(|id, node| {
        if !nodes.contains(&id) {
            return Ok(None);
        }
        let key = id.index() as u64;
        // Of mirrored weights, only the trained half is drawn.
        let weight = |old: &Weight| -> Result<Weight> {
            let [k, c, kh, kw] = old.dims();
            let own = if old.is_mirrored() { k / 2 } else { k };
            let mut row = vec![0.0; old.row_len()];
            let read = |visit: &mut dyn FnMut(f64)| {
                for r in k - own..k {
                    old.read(r, 0..row.len(), &mut row);
                    row.iter().for_each(|&v| visit(v));
                }
            };
            let (mean, deviation) = moments(own * c * kh * kw, read);
            let mut draws = vec![0f32; own * c * kh * kw];
            Stream::Layers.normals(seed, key, WEIGHTS, &mut draws);
            draws.iter_mut().for_each(|z| *z = (mean + deviation * f64::from(*z)) as f32);
            let new = Weight::taking([own, c, kh, kw], draws)?;
            if old.is_mirrored() { new.mirrored() } else { Ok(new) }
        };
        let bias = |old: &Option<Arc<[f64]>>, mirrored: bool| {
            old.as_ref().map(|old| {
                if !mirrored {
                    return alike(old, seed, key, BIASES).into();
                }
                let new = alike(&old[old.len() / 2..], seed, key, BIASES);
                new.iter().map(|v| -v).chain(new.iter().copied()).collect()
            })
        };
        Ok(match &node.op {
            Op::Conv(conv) => Some(Op::Conv(Conv {
                weight: weight(&conv.weight)?,
                bias: bias(&conv.bias, conv.weight.is_mirrored()),
                ..conv.clone()
            })),
            Op::Linear(linear) => Some(Op::Linear(Linear {
                weight: weight(&linear.weight)?,
                bias: bias(&linear.bias, linear.weight.is_mirrored()),
            })),
            Op::BatchNorm(norm) => Some(Op::BatchNorm(BatchNorm {
                gamma: alike(&norm.gamma, seed, key, WEIGHTS).into(),
                beta: alike(&norm.beta, seed, key, BIASES).into(),
                ..norm.clone()
            })),
            Op::Affine(affine) => Some(Op::Affine(Affine {
                scale: alike(&affine.scale, seed, key, WEIGHTS).into(),
                shift: alike(&affine.shift, seed, key, BIASES).into(),
            })),
            Op::PRelu(slopes) => Some(Op::PRelu(alike(slopes, seed, key, WEIGHTS).into())),
            _ => None,
        })
    })
}

/// Bytes of the weights that [`randomised`] draws.
pub fn drawn_bytes(graph: &Graph, nodes: &[NodeId]) -> usize {
    let bytes = |&id: &NodeId| match &graph.node(id).op {
        Op::Conv(conv) => conv.weight.len() * size_of::<f32>(),
        Op::Linear(linear) => linear.weight.len() * size_of::<f32>(),
        // Scales and shifts, and the same as a convolution.
        Op::BatchNorm(norm) => 4 * norm.gamma.len() * size_of::<f64>(),
        Op::Affine(affine) => 2 * (affine.scale.len() + affine.shift.len()) * size_of::<f64>(),
        Op::PRelu(slopes) => slopes.len() * size_of::<f64>(),
        _ => 0,
    };
    nodes.iter().map(bytes).sum()
}

/// Mean and standard deviation of the `n` numbers that `read` visits.
fn moments(n: usize, mut read: impl FnMut(&mut dyn FnMut(f64))) -> (f64, f64) {
    let n = n.max(1) as f64;
    let (mut sum, mut squares) = (0.0, 0.0);
    read(&mut |v| sum += v);
    let mean = sum / n;
    read(&mut |v| squares += (v - mean).powi(2));
    (mean, (squares / n).sqrt())
}

/// Normal numbers with the mean and standard deviation of `old`.
fn alike(old: &[f64], seed: u64, key: u64, draw: u32) -> Vec<f64> {
    let (mean, deviation) = moments(old.len(), |visit| old.iter().for_each(|&v| visit(v)));
    let mut draws = vec![0f32; old.len()];
    Stream::Layers.normals(seed, key, draw, &mut draws);
    draws.iter().map(|&z| mean + deviation * f64::from(z)).collect()
}
