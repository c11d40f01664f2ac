//! The flat rule (Lapuschkin et al. 2019): relevance spread evenly over a layer's inputs.

use super::layer::Layer;
use super::w_square::spread;
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Value};

/// As [`super::WSquare`] with every weight 1: `R` divided among the taps inside the picture; for layers with weights.
#[derive(Debug, Clone, Copy)]
pub struct Flat;

impl Rule for Flat {
    fn id(&self) -> String {
        "flat".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        spread(&Layer::of(b, id, "flat")?, Part::Ones, up, b)
    }
}
