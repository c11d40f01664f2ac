//! How logits become probabilities, and nets with one output.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Conv, Graph, Linear, NodeId, Op};
use crate::error::{Error, Result};

/// How a net's logits become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// The softmax of all logits.
    #[default]
    Softmax,
    /// The sigmoid of each logit: for a net whose classes do not exclude each other, and for a net with one output. The
    /// logit of the latter is `z` alone, or the pair `−z`, `z` ([`Graph::two_classes`]).
    Sigmoid,
}

impl Link {
    /// `softmax` or `sigmoid`.
    pub const fn name(self) -> &'static str {
        match self {
            Link::Softmax => "softmax",
            Link::Sigmoid => "sigmoid",
        }
    }
}

impl Graph {
    /// The layer whose channels the logits are, behind nodes that treat every channel alike.
    fn last_layer(&self) -> NodeId {
        let mut last = self.output();
        while matches!(self.node(last).op, Op::Flatten | Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. }) {
            last = self.node(last).inputs[0];
        }
        last
    }

    /// Whether both logits are made of one output, `−z` and `z` ([`Graph::two_classes`]).
    pub fn is_paired(&self) -> bool {
        self.link() == Link::Sigmoid
            && match &self.node(self.last_layer()).op {
                Op::Linear(linear) => linear.weight.is_mirrored(),
                Op::Conv(conv) => conv.weight.is_mirrored(),
                _ => false,
            }
    }

    /// Turns a net with one output `z` into one with two classes: class 0 ("not") has the logit `−z`, class 1 ("yes")
    /// the logit `z`. For this, the layer that produces `z` contains its weights twice, first with the sign changed;
    /// all other nodes stay. Other nets are unchanged.
    ///
    /// # Errors
    /// Model when the output comes from anything but a convolution or a linear layer, for example a ReLU; the message
    /// names the node.
    pub fn two_classes(&self) -> Result<Graph> {
        if self.classes() != 1 {
            return Ok(self.clone());
        }
        let last = self.last_layer();
        let both = |bias: &Option<Arc<[f64]>>| {
            bias.as_ref().map(|b| b.iter().map(|v| -v).chain(b.iter().copied()).collect::<Arc<[f64]>>())
        };
        let node = self.node(last);
        let op = match &node.op {
            Op::Linear(l) => Op::Linear(Linear { weight: l.weight.mirrored()?, bias: both(&l.bias) }),
            Op::Conv(c) if c.groups == 1 => {
                Op::Conv(Conv { weight: c.weight.mirrored()?, bias: both(&c.bias), ..c.clone() })
            }
            op => {
                return Err(Error::model(format!(
                    "the net has one output, which node '{}' ({}) gives; expected a linear layer or a convolution",
                    node.name,
                    op.kind()
                )));
            }
        };
        let mut builder = self.like(self.input_shape());
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let (op, norm) = if id == last { (op.clone(), None) } else { (node.op.clone(), node.norm.clone()) };
            builder.add(node.name.clone(), op, &node.inputs, norm)?;
        }
        self.stages().iter().for_each(|(name, id)| builder.stage(name, *id));
        builder.finish(self.output())
    }
}
