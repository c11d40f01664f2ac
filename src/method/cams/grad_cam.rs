//! Grad-CAM (Selvaraju et al. 2017): a layer's activations, each channel weighted by its mean gradient.

use crate::error::Result;
use crate::method::shared::cam::{self, GradientCam, Reading};
use crate::method::{Entry, When};
use crate::program::{Builder, Value};

pub(crate) const ENTRY: Entry = Entry {
    id: "grad_cam",
    aliases: &["gradcam"],
    title: "Grad-CAM",
    paper: "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017: Grad-CAM, ICCV, equations 1 and 2",
    summary: "relu Σ_k ⟨∂f/∂A_k⟩ A_k over the channels of a layer",
    passes: "1 forward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "as coarse as the layer; with relu=yes all zero where the evidence is negative",
    build: |values, context| Ok(Box::new(GradientCam::new(ENTRY.id, MeanGradient, values, context)?)),
};

/// `Σ_k ⟨G_k⟩ A_k`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MeanGradient;

impl Reading for MeanGradient {
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value> {
        let weights = b.spatial_mean(gradient)?;
        b.weighted_channel_sum(weights, activation)
    }
}
