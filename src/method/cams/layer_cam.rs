//! LayerCAM (Jiang et al. 2021): activations times positive gradients, position by position; suited to early layers
//! too.

use crate::error::Result;
use crate::method::shared::cam::{self, GradientCam, Reading};
use crate::method::{Entry, When};
use crate::program::{Builder, Value};

pub(crate) const ENTRY: Entry = Entry {
    id: "layer_cam",
    aliases: &["layercam"],
    title: "LayerCAM",
    paper: "Jiang, Zhang, Hou, Cheng, Wei 2021: LayerCAM: Exploring hierarchical class activation maps for localization, IEEE TIP",
    summary: "relu Σ_k relu(G_k) ∘ A_k with G = ∂f/∂A",
    passes: "1 forward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "evidence against the class is left out position by position, so what cancels in the net does not cancel here",
    build: |values, context| Ok(Box::new(GradientCam::new(ENTRY.id, Rising, values, context)?)),
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rising;

impl Reading for Rising {
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value> {
        let rising = b.positive(gradient)?;
        let product = b.mul(rising, activation)?;
        cam::channel_sum(b, product)
    }
}
