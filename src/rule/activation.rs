//! Common code of rules for activations, each of which refuses all other nodes.

use crate::error::{Error, Result};
use crate::graph::{Activation, NodeId};
use crate::program::Builder;

/// Node `id` as an activation; for other nodes an error that names `rule`.
pub(super) fn activation(b: &Builder<'_>, id: NodeId, rule: &str) -> Result<Activation> {
    let node = b.graph().node(id);
    node.op
        .activation()
        .ok_or_else(|| Error::model(format!("{rule} is a rule for activations, '{}' is {}", node.name, node.op.kind())))
}
