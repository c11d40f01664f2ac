//! Merges batch norms and affine layers into the convolutions before them (Graph → Graph).

use super::affine::scale_shift;
use super::{Affine, Conv, Graph, NodeId, Op};
use crate::error::Result;

impl Graph {
    /// The same function without batch norms.
    ///
    /// A batch norm or an affine layer that is its convolution's only consumer is merged into it (scales in double
    /// precision, exact up to rounding), several in a row too; any other batch norm becomes an affine layer. A merged
    /// convolution keeps its own name; stages at the batch norm move to the convolution.
    ///
    /// # Errors
    /// Never for a graph that was built by [`super::GraphBuilder`].
    pub fn fold(&self) -> Result<Graph> {
        let folded = self.fold_once()?;
        let merged = folded.nodes().len() < self.nodes().len();
        if merged { folded.fold() } else { Ok(folded) }
    }

    fn fold_once(&self) -> Result<Graph> {
        let consumers = self.consumers();
        let mut builder = self.like(self.input_shape());
        let mut new_id: Vec<NodeId> = Vec::with_capacity(self.nodes().len());
        new_id.push(builder.input());
        // A convolution followed by a batch norm waits for it.
        let merges = |id: NodeId| match consumers[id.index()][..] {
            [reader] => match &self.node(id).op {
                Op::Conv(conv) => {
                    let numbers = scale_shift(&self.node(reader).op, self.node(id).shape.c);
                    // A constant per element has no place in a bias per channel.
                    numbers.filter(|(scale, shift)| shift.len() == scale.len()).map(|numbers| (conv, numbers))
                }
                _ => None,
            },
            _ => None,
        };
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| new_id[i.index()]).collect();
            let new = match (&node.op, merges(id)) {
                (_, Some((conv, (scale, shift)))) => {
                    // A bias with one number per element has a plane for each channel.
                    let own = conv.bias.clone().unwrap_or_else(|| vec![0.0; scale.len()].into());
                    let plane = own.len() / scale.len();
                    let bias = own.iter().enumerate().map(|(i, b)| b * scale[i / plane] + shift[i / plane]).collect();
                    let conv = Conv { weight: conv.weight.scaled(&scale)?, bias: Some(bias), ..conv.clone() };
                    builder.push(node.name.clone(), Op::Conv(conv), &inputs)?
                }
                (Op::BatchNorm(_) | Op::Affine(_), None) if merges(node.inputs[0]).is_some() => inputs[0],
                (Op::BatchNorm(norm), None) => {
                    let (scale, shift) = norm.affine();
                    let affine = Affine { scale: scale.into(), shift: shift.into() };
                    builder.add(node.name.clone(), Op::Affine(affine), &inputs, node.norm.clone())?
                }
                _ => builder.push(node.name.clone(), node.op.clone(), &inputs)?,
            };
            new_id.push(new);
        }
        self.stages().iter().for_each(|(name, id)| builder.stage(name, new_id[id.index()]));
        builder.finish(new_id[self.output().index()])
    }
}
