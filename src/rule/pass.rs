//! Relevance unchanged: LRP for activations of any kind (Bach et al. 2015, section 2).

use super::activation::activation;
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// `R_in = R`; for activations and softmaxes inside a net.
#[derive(Debug, Clone, Copy)]
pub struct Pass;

impl Rule for Pass {
    fn id(&self) -> String {
        "pass".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        if !matches!(b.graph().node(id).op, Op::Softmax { .. }) {
            activation(b, id, "pass")?;
        }
        Ok(vec![up].into())
    }
}
