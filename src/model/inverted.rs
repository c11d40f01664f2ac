//! Inverted residual blocks with squeeze-and-excitation (Howard 2019, Tan & Le 2019) as torchvision names them.

use super::assembly::{Assembly, ConvSpec};
use crate::error::Result;
use crate::graph::{NodeId, Op};

/// An inverted residual block; channels are those of the published net.
pub(super) struct Inverted<'a> {
    /// Channels inside; as many as the input has means that there is no expansion.
    pub(super) expanded: usize,
    pub(super) out: usize,
    /// Side of the depthwise kernel.
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Channels of the squeezed signal, if the block has a gate.
    pub(super) squeezed: Option<usize>,
    pub(super) activation: &'a Op,
    /// Activation and gate of the squeeze-and-excitation.
    pub(super) gate: [&'a Op; 2],
    /// Whether the block begins with an expansion.
    pub(super) expands: bool,
}

impl Inverted<'_> {
    /// The block called `name` on `x`.
    pub(super) fn build(&self, net: &mut Assembly<'_>, name: &str, x: NodeId) -> Result<NodeId> {
        let mut parts = (0..).map(|i| format!("{name}.block.{i}"));
        let mut part = || parts.next().unwrap_or_default();
        let (point, act) = (ConvSpec::plain(Some(1), 1), Some(self.activation));
        let mut y = x;
        if self.expands {
            y = net.conv_012(&part(), y, point.to(self.expanded), act)?;
        }
        let depthwise = ConvSpec::plain(Some(self.kernel), self.stride).depthwise(net.channels(y));
        y = net.conv_012(&part(), y, depthwise, act)?;
        if let Some(squeezed) = self.squeezed {
            y = net.excited(&part(), y, squeezed, self.gate)?;
        }
        y = net.conv_012(&part(), y, point.to(self.out), None)?;
        if self.stride == 1 && net.channels(x) == net.channels(y) {
            y = net.op(format!("{name}.add"), Op::Add, &[y, x])?;
        }
        Ok(y)
    }
}
