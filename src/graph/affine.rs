//! A factor and a constant for each channel.

use std::sync::Arc;

use super::{BatchNorm, Conv, Op, Weight};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Window};

/// `scale · x + shift`: a layer scale, a normalisation inside a net, or a batch norm that cannot be merged into a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// One number per channel, or one for all.
    pub scale: Arc<[f64]>,
    /// One number per channel, one for all, or one per element.
    pub shift: Arc<[f64]>,
}

impl Affine {
    /// A product with constants, one per channel or one for all.
    pub fn product(scale: impl Into<Arc<[f64]>>) -> Self {
        Self { scale: scale.into(), shift: [0.0].into() }
    }

    /// A sum with constants: one per channel, one for all, or one per element.
    pub fn sum(shift: impl Into<Arc<[f64]>>) -> Self {
        Self { scale: [1.0].into(), shift: shift.into() }
    }

    /// Refuses numbers that do not fill an input of shape `x` or are not finite.
    pub(super) fn check(&self, x: Shape) -> Result<()> {
        let fills = |n: usize, most: bool| n == 1 || n == x.c || (most && n == x.len());
        if !fills(self.scale.len(), false) || !fills(self.shift.len(), true) {
            let (factors, constants) = (self.scale.len(), self.shift.len());
            return Err(Error::model(format!("{factors} factors and {constants} constants do not fill {x}")));
        }
        if self.scale.iter().chain(&*self.shift).any(|v| !v.is_finite()) {
            return Err(Error::model("a factor or constant that is not finite"));
        }
        Ok(())
    }

    /// Factors and constants for `channels`; constants stay one per element where they are.
    fn expanded(&self, channels: usize) -> (Vec<f64>, Vec<f64>) {
        let all = |v: &[f64]| if v.len() == 1 { vec![v[0]; channels] } else { v.to_vec() };
        (all(&self.scale), all(&self.shift))
    }
}

/// Factors and constants of a batch norm or an affine layer on `channels`; `None` for any other operation.
pub(super) fn scale_shift(op: &Op, channels: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    match op {
        Op::BatchNorm(norm) => Some(norm.affine()),
        Op::Affine(affine) => Some(affine.expanded(channels)),
        _ => None,
    }
}

/// The layer as a depthwise 1×1 convolution; `None` for any other operation.
///
/// # Errors
/// When `channels` is 0.
pub(super) fn depthwise(op: &Op, channels: usize) -> Result<Option<Conv>> {
    let Some((scale, shift)) = scale_shift(op, channels) else { return Ok(None) };
    let weight = Weight::owned([channels, 1, 1, 1], &vec![1.0; channels])?.scaled(&scale)?;
    let bias = shift.iter().any(|v| *v != 0.0).then(|| Arc::from(shift));
    let bias =
        if matches!(op, Op::BatchNorm(_)) { Some(bias.unwrap_or_else(|| vec![0.0; channels].into())) } else { bias };
    Ok(Some(Conv { weight, bias, window: Window::square(1, 1, 0), groups: channels }))
}

impl BatchNorm {
    /// `(scale, shift)` per channel, such that the layer is `scale · x + shift`.
    pub fn affine(&self) -> (Vec<f64>, Vec<f64>) {
        let scale: Vec<f64> = self.gamma.iter().zip(&*self.variance).map(|(g, v)| g / (v + self.eps).sqrt()).collect();
        let shift = self.beta.iter().zip(&*self.mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        (scale, shift)
    }
}
