//! Checks that copies are fully described.

use super::{Batch, Copies};
use crate::device::{Boxes, Perturbation};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Copies {
    /// Whether there are parameters for every copy and picture.
    pub(super) fn check(&self, x: &Batch) -> Result<()> {
        let copies = self.weights.len();
        let fits = match &self.perturbation {
            Perturbation::None => true,
            Perturbation::Noise { first, images, sigmas, .. } => {
                let last = copies.checked_add(*first as usize).and_then(|end| u32::try_from(end).ok());
                images.len() == x.len() && sigmas.len() == x.len() && last.is_some()
            }
            Perturbation::Path { alphas, baselines } => {
                alphas.len() == copies
                    && baselines.len() == x.len()
                    && baselines.iter().all(|b| b.dims() == x.shape.dims())
            }
            Perturbation::Boxes(Boxes { boxes, fills }) => {
                boxes.len() == copies && fills.len() == x.len() && fills.iter().all(|f| f.dims() == x.shape.dims())
            }
            Perturbation::Masks(masks) => masks.cover(x.len(), copies, [x.shape.h, x.shape.w]),
            Perturbation::Others(others) => {
                let fits = |t: &Tensor| t.dims() == x.shape.dims() && t.first_not_finite().is_none();
                others.len() == x.len() && others.iter().all(|o| o.len() == copies && o.iter().all(fits))
            }
        };
        if fits {
            return Ok(());
        }
        Err(Error::settings(format!("the perturbation does not describe {copies} copies of {} pictures", x.len())))
    }
}
