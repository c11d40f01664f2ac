//! What rules for activations share: each says what it is for, and refuses the rest.

use crate::error::{Error, Result};
use crate::graph::{Activation, NodeId};
use crate::program::Builder;

/// The activation that `id` is; an error that names `rule` for other nodes.
pub(super) fn activation(b: &Builder<'_>, id: NodeId, rule: &str) -> Result<Activation> {
    let node = b.graph().node(id);
    node.op
        .activation()
        .ok_or_else(|| Error::model(format!("{rule} is a rule for activations, '{}' is {}", node.name, node.op.kind())))
}

/// Refuses activations whose slope changes its sign, for `rule`, which goes by the signs of signals.
pub(super) fn rising(b: &Builder<'_>, id: NodeId, rule: &str) -> Result<()> {
    if activation(b, id, rule)?.rises() {
        return Ok(());
    }
    let node = b.graph().node(id);
    let kind = node.op.kind();
    Err(Error::model(format!("{rule} needs activations that never fall, and '{}' ({kind}) does", node.name)))
}
