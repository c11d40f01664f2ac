//! Which operand of a product is its gate, and which its signal.

use super::{Activation, Graph, NodeId, Op, Smooth};

impl Activation {
    /// Whether its values say how much of something else counts: sigmoids and what stands in for them.
    pub const fn is_gate(self) -> bool {
        match self {
            Activation::Smooth(Smooth::Sigmoid | Smooth::HardSigmoid | Smooth::Tanh) => true,
            Activation::Clamp { .. }
            | Activation::PRelu { .. }
            | Activation::Smooth(
                Smooth::SoftClamp(_)
                | Smooth::Silu
                | Smooth::HardSwish
                | Smooth::Gelu
                | Smooth::GeluTanh
                | Smooth::LeakyRelu { .. }
                | Smooth::Elu { .. }
                | Smooth::Softplus { .. }
                | Smooth::Exp
                | Smooth::Log
                | Smooth::Abs
                | Smooth::Power { .. },
            ) => false,
        }
    }
}

impl Graph {
    /// The position among its inputs of a product's gate: the operand that comes out of a sigmoid, a hard sigmoid, a tanh
    /// or a softmax, else the one with fewer elements. The divisor of a quotient. `None` where
    /// that does not decide, and for any other node.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn gate(&self, id: NodeId) -> Option<usize> {
        let node = self.node(id);
        if matches!(node.op, Op::Divide) {
            return Some(1);
        }
        let (Op::Mul, &[a, b]) = (&node.op, &node.inputs[..]) else { return None };
        let [left, right] = [a, b].map(|i| self.comes_from_gate(i));
        match (left, right) {
            (true, false) => return Some(0),
            (false, true) => return Some(1),
            _ => {}
        }
        let [left, right] = [a, b].map(|i| self.node(i).shape.len());
        match left.cmp(&right) {
            std::cmp::Ordering::Less => Some(0),
            std::cmp::Ordering::Greater => Some(1),
            std::cmp::Ordering::Equal => None,
        }
    }

    /// Whether a node's numbers are those of a gate, possibly at other places or in another size.
    fn comes_from_gate(&self, id: NodeId) -> bool {
        let node = self.node(id);
        if node.op.moves().is_some() || matches!(node.op, Op::Flatten | Op::Resize(_)) {
            return self.comes_from_gate(node.inputs[0]);
        }
        matches!(node.op, Op::Softmax { .. }) || node.op.activation().is_some_and(Activation::is_gate)
    }
}
