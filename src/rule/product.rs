//! LRP at a product of two signals (Arras et al. 2017, section 2.2): the gate only weighs, so the signal takes all
//! relevance.

use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};
use crate::tensor::Shape;

/// How a product divides relevance between its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GateShare {
    /// The gate ([`crate::graph::Graph::gate`]) gets nothing; both get half where there is none.
    #[default]
    Nothing,
    /// Gate and signal get half each.
    Half,
}

impl std::str::FromStr for GateShare {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "zero" => Ok(GateShare::Nothing),
            "split" => Ok(GateShare::Half),
            _ => Err(Error::settings(format!("no share of a gate is named '{s}'; there are zero and split"))),
        }
    }
}

/// `R` to the signal, or `R/2` to each operand; for products, and for quotients, whose divisor is the gate.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// What the gate gets.
    pub gate: GateShare,
}

impl Rule for Product {
    fn id(&self) -> String {
        format!("product({:?})", self.gate)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let graph = b.graph();
        let node = graph.node(id);
        if !matches!(node.op, Op::Mul | Op::Divide) {
            let kind = node.op.kind();
            return Err(Error::model(format!(
                "product is a rule for products and quotients, '{}' is {kind}",
                node.name
            )));
        }
        let gate = graph.gate(id).filter(|_| self.gate == GateShare::Nothing);
        let shapes: Vec<Shape> = node.inputs.iter().map(|&i| graph.node(i).shape).collect();
        let mut down = Vec::with_capacity(shapes.len());
        for (i, &shape) in shapes.iter().enumerate() {
            let share = match gate {
                Some(gate) if gate == i => {
                    down.push(None);
                    continue;
                }
                Some(_) => up,
                None => b.scale(up, 0.5)?,
            };
            down.push(Some(b.contract(vec![share], shape)?));
        }
        Ok(NodeShares { down, bias: None, lost: None })
    }
}
