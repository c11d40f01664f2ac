//! HiResCAM (Draelos & Carin 2020): activations times gradients, position by position.

use crate::error::Result;
use crate::method::shared::cam::{self, GradientCam, Reading};
use crate::method::{Entry, When};
use crate::program::{Builder, Value};

pub(crate) const ENTRY: Entry = Entry {
    id: "hires_cam",
    aliases: &["hirescam"],
    title: "HiResCAM",
    paper: "Draelos, Carin 2020: Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks, arXiv 2011.08891",
    summary: "relu Σ_k G_k ∘ A_k with G = ∂f/∂A",
    passes: "1 forward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "the paper's map is the signed sum (relu=no); faithful only where the layers behind are linear (one pool and \
              one linear layer)",
    build: |values, context| Ok(Box::new(GradientCam::new(ENTRY.id, HiResCamReading, values, context)?)),
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HiResCamReading;

impl Reading for HiResCamReading {
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value> {
        let product = b.mul(gradient, activation)?;
        cam::channel_sum(b, product)
    }
}
