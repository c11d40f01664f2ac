//! Merges batch norms into the convolutions before them (Graph → Graph).

use std::sync::Arc;

use super::{BatchNorm, Conv, Graph, NodeId, Op, Weight};
use crate::error::Result;
use crate::tensor::Window;

impl BatchNorm {
    /// `(scale, shift)` per channel, such that the layer is `scale · x + shift`.
    pub fn affine(&self) -> (Vec<f64>, Vec<f64>) {
        let scale: Vec<f64> = self.gamma.iter().zip(&*self.variance).map(|(g, v)| g / (v + self.eps).sqrt()).collect();
        let shift = self.beta.iter().zip(&*self.mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        (scale, shift)
    }

    /// The same layer as a depthwise 1×1 convolution.
    ///
    /// # Errors
    /// When there are no channels.
    pub fn as_conv(&self) -> Result<Conv> {
        let (scale, shift) = self.affine();
        let ones = Weight::owned([scale.len(), 1, 1, 1], &vec![1.0; scale.len()])?;
        let (weight, groups) = (ones.scaled(&scale)?, scale.len());
        Ok(Conv { weight, bias: Some(Arc::from(shift)), window: Window::square(1, 1, 0), groups })
    }
}

impl Graph {
    /// The same function without batch norms.
    ///
    /// A batch norm that is its convolution's only consumer is merged into it (scales in double precision, exact up to
    /// rounding); any other becomes a depthwise 1×1 convolution. A merged convolution keeps its own name; stages at the
    /// batch norm move to the convolution.
    ///
    /// # Errors
    /// Never for a graph that was built by [`super::GraphBuilder`].
    pub fn fold(&self) -> Result<Graph> {
        let consumers = self.consumers();
        let mut builder = self.like(self.input_shape());
        let mut new_id: Vec<NodeId> = Vec::with_capacity(self.nodes().len());
        new_id.push(builder.input());
        // A convolution followed by a batch norm waits for it.
        let merges = |id: NodeId| match consumers[id.index()][..] {
            [reader] => match (&self.node(id).op, &self.node(reader).op) {
                (Op::Conv(conv), Op::BatchNorm(norm)) => Some((conv, norm)),
                _ => None,
            },
            _ => None,
        };
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| new_id[i.index()]).collect();
            let new = match (&node.op, merges(id)) {
                (_, Some((conv, norm))) => {
                    let (scale, shift) = norm.affine();
                    // A bias with one number per element has a plane for each channel.
                    let own = conv.bias.clone().unwrap_or_else(|| vec![0.0; scale.len()].into());
                    let plane = own.len() / scale.len();
                    let bias = own.iter().enumerate().map(|(i, b)| b * scale[i / plane] + shift[i / plane]).collect();
                    let conv = Conv { weight: conv.weight.scaled(&scale)?, bias: Some(bias), ..conv.clone() };
                    builder.push(node.name.clone(), Op::Conv(conv), &inputs)?
                }
                (Op::BatchNorm(_), None) if merges(node.inputs[0]).is_some() => inputs[0],
                (Op::BatchNorm(norm), None) => {
                    let conv = node.conv().map_or_else(|| norm.as_conv(), |conv| Ok(conv.clone()))?;
                    builder.push(node.name.clone(), Op::Conv(conv), &inputs)?
                }
                _ => builder.push(node.name.clone(), node.op.clone(), &inputs)?,
            };
            new_id.push(new);
        }
        self.stages().iter().for_each(|(name, id)| builder.stage(name, new_id[id.index()]));
        builder.finish(new_id[self.output().index()])
    }
}
