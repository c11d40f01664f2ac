//! Grad-CAM++ (Chattopadhay et al. 2018): channels weighted by their positive gradients, each position by its share.

use crate::error::Result;
use crate::method::shared::cam::{self, GradientCam, Reading};
use crate::method::{Entry, When};
use crate::program::{Builder, Value};

pub(crate) const ENTRY: Entry = Entry {
    id: "grad_cam_pp",
    aliases: &["grad_cam++", "gradcam++", "gradcampp"],
    title: "Grad-CAM++",
    paper: "Chattopadhay, Sarkar, Howlader, Balasubramanian 2018: Grad-CAM++, WACV, equations 5 and 19",
    summary: "relu Σ_k w_k A_k with w_k = Σ α_k relu(G_k), α_k = G_k² / (2 G_k² + Σ A_k · G_k³ + 1e-7), 0 where G = ∂f/∂A is 0",
    passes: "1 forward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "the paper scores with exp(f); its factor exp(f), the same everywhere, is left out. The 1e-7 is this project's \
              own choice: where gradients are below about 3e-4 (saturated probabilities) it decides the weights",
    build: |values, context| Ok(Box::new(GradientCam::new(ENTRY.id, WeightedRising, values, context)?)),
};

/// Keeps the denominator away from zero.
const EPSILON: f64 = 1e-7;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WeightedRising;

impl Reading for WeightedRising {
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value> {
        let total = cam::spatial_sum(b, activation)?;
        let square = b.mul(gradient, gradient)?;
        let cube = b.mul(square, gradient)?;
        let spread = b.scale_channels(total, cube)?;
        let twice = b.scale(square, 2.0)?;
        let denominator = b.add(twice, spread)?;
        let denominator = cam::plus(b, denominator, EPSILON)?;
        // Where the gradient is zero, so is the numerator, and the share is zero.
        let share = b.divide(square, denominator, 0.0)?;
        let rising = b.positive(gradient)?;
        let weighted = b.mul(share, rising)?;
        let weights = cam::spatial_sum(b, weighted)?;
        b.weighted_channel_sum(weights, activation)
    }
}
