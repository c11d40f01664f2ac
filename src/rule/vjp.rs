//! The gradient: every node sends back its vector-Jacobian product.
//!
//! At a kink (ReLU at 0, ReLU6 at 0 or 6) the derivative is 0, as in PyTorch; a max-pool's first maximum takes all.
//! Keeps one bit per ReLU or clamp, the slope of other activations, the operands of products, and one small index per
//! pooled element.

use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Deviation, Elementwise, Value};
use crate::tensor::Shape;

/// The gradient.
#[derive(Debug, Clone, Copy)]
pub struct Vjp;

impl Rule for Vjp {
    fn id(&self) -> String {
        "vjp".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let graph = b.graph();
        let node = graph.node(id);
        let down = match &node.op {
            Op::Relu | Op::Clamp { .. } => {
                let bits = b.active(id)?;
                vec![b.gate(up, bits)?]
            }
            Op::Smooth(f) => {
                let slope = b.elementwise(Elementwise::Slope(*f), vec![b.input(id, 0)])?;
                vec![b.mul(up, slope)?]
            }
            Op::PRelu(_) => vec![b.prelu_adjoint(id, up)?],
            Op::Conv(_) | Op::BatchNorm(_) | Op::Affine(_) => vec![b.conv_adjoint(id, up)?],
            Op::Linear(_) => vec![b.linear_adjoint(id, up)?],
            Op::Standardise(_) => vec![b.standardise_adjoint(id, up, Deviation::Follows)?],
            Op::MaxPool(_) | Op::GlobalMaxPool | Op::ChannelMax => vec![b.max_pool_adjoint(id, up)?],
            Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Flatten
            | Op::Subsample { .. }
            | Op::Resize(_)
            | Op::Reduce(_)
            | Op::Slice { .. }
            | Op::Shuffle { .. }
            | Op::Pad { .. }
            | Op::PadChannels { .. } => {
                vec![b.fixed_adjoint(id, up)?]
            }
            Op::Add => {
                let shapes = node.inputs.iter().map(|&i| graph.node(i).shape);
                shapes.map(|shape| b.contract(vec![up], shape)).collect::<Result<_>>()?
            }
            Op::Softmax { groups } => {
                let (y, small) = (b.output(id), Shape::new(*groups, node.shape.h, node.shape.w));
                let along = b.contract(vec![up, y], small)?;
                let rest = b.repeated(Elementwise::Sub, vec![up, along], node.shape)?;
                vec![b.mul(y, rest)?]
            }
            Op::Divide => {
                let [over, under] = [0, 1].map(|i| graph.node(node.inputs[i]).shape);
                let share = b.repeated(Elementwise::Quotient, vec![up, b.input(id, 1)], node.shape)?;
                let back = b.contract(vec![share, b.output(id)], under)?;
                vec![b.contract(vec![share], over)?, b.scale(back, -1.0)?]
            }
            Op::Mul => {
                let [left, right] = [0, 1].map(|i| (b.input(id, i), graph.node(node.inputs[i]).shape));
                vec![b.product_adjoint(up, right.0, left.1)?, b.product_adjoint(up, left.0, right.1)?]
            }
            Op::Concat => {
                let mut first = 0;
                let shapes: Vec<Shape> = node.inputs.iter().map(|&i| graph.node(i).shape).collect();
                let mut down = Vec::with_capacity(shapes.len());
                for shape in shapes {
                    down.push(b.channels(up, first, shape)?);
                    first += shape.c;
                }
                down
            }
            Op::Input => {
                return Err(Error::model(format!("no derivative is defined for {}", node.op.kind())));
            }
        };
        Ok(down.into())
    }
}
