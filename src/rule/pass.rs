//! Relevance unchanged: LRP for activations of any kind (Bach et al. 2015, section 2).

use super::activation::activation;
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Builder, Value};

/// `R_in = R`; for activations only.
#[derive(Debug, Clone, Copy)]
pub struct Pass;

impl Rule for Pass {
    fn id(&self) -> String {
        "pass".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        activation(b, id, "pass").map(|_| vec![up].into())
    }
}
