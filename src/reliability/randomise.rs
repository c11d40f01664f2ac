//! Model parameter randomisation (Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, NeurIPS 2018: Sanity checks for saliency
//! maps): an explanation that does not notice when what the net has learned is thrown away does not explain the net.

use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Conv, Graph, Linear, NodeId, Op, Weight};
use crate::random;

/// Draws of a layer's weights and biases.
const WEIGHTS: u32 = 0;
const BIASES: u32 = 1;

/// Layers with weights (convolutions and linear layers), from the logits down to the picture.
pub fn layers(graph: &Graph) -> Vec<NodeId> {
    graph.ids().rev().filter(|&id| matches!(graph.node(id).op, Op::Conv(_) | Op::Linear(_))).collect()
}

/// The net with the weights of `nodes` drawn anew: normal numbers with the mean and the standard deviation of the numbers that
/// they replace, so that signals keep about their size; biases likewise. A layer's draw depends on the seed and its place in
/// the net only: the more layers a cascade replaces, the earlier ones stay as they were drawn.
///
/// # Errors
/// None for layers of this graph.
pub fn randomised(graph: &Graph, nodes: &[NodeId], seed: u64) -> Result<Graph> {
    graph.rewritten(|id, node| {
        if !nodes.contains(&id) {
            return Ok(None);
        }
        let key = id.index() as u64;
        let weight = |old: &Weight| -> Result<Weight> {
            let new: Vec<f32> = alike(&old.to_f64(), seed, key, WEIGHTS).iter().map(|&v| v as f32).collect();
            Weight::owned(old.dims(), &new)
        };
        let bias = |old: &Option<Arc<[f64]>>| old.as_ref().map(|old| alike(old, seed, key, BIASES).into());
        Ok(match &node.op {
            Op::Conv(conv) => {
                Some(Op::Conv(Conv { weight: weight(&conv.weight)?, bias: bias(&conv.bias), ..conv.clone() }))
            }
            Op::Linear(linear) => {
                Some(Op::Linear(Linear { weight: weight(&linear.weight)?, bias: bias(&linear.bias) }))
            }
            _ => None,
        })
    })
}

/// Normal numbers with the mean and standard deviation of `old`.
fn alike(old: &[f64], seed: u64, key: u64, sample: u32) -> Vec<f64> {
    let n = old.len().max(1) as f64;
    let mean = old.iter().sum::<f64>() / n;
    let deviation = (old.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let mut draws = vec![0f32; old.len()];
    random::fill_normals(seed, key, sample, 0, &mut draws);
    draws.iter().map(|&z| mean + deviation * f64::from(z)).collect()
}
