//! The deconvolutional net (Zeiler & Fergus 2014): an activation passes the positive part of the signal, whether or not
//! it was active itself.

use super::activation::activation;
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Builder, Value};

/// `max(up, 0)`, at activations of any kind.
#[derive(Debug, Clone, Copy)]
pub struct Deconvnet;

impl Rule for Deconvnet {
    fn id(&self) -> String {
        "deconvnet".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        activation(b, id, "deconvnet")?;
        Ok(vec![b.positive(up)?].into())
    }
}
