//! Guided Grad-CAM (Selvaraju et al. 2017): guided backpropagation times the Grad-CAM map.

use super::grad_cam::MeanGradient;
use crate::engine::{Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign};
use crate::method::shared::cam::{self, Cam, GradientCam};
use crate::method::{Entry, Method, When, input_maps, numbers_of};
use crate::program::Score;
use crate::rule::Composite;
use crate::tensor::Tensor;
use crate::tensor::resample::Upsample;

pub(crate) const ENTRY: Entry = Entry {
    id: "guided_grad_cam",
    aliases: &["guided_gradcam"],
    title: "Guided Grad-CAM",
    paper: "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017: Grad-CAM, ICCV, section 3.1",
    summary: "guided_backprop ∘ grad_cam up-sampled to the input, the same for all channels",
    passes: "2 forward, 1 backward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &[],
    draws: When::Never,
    caution: "its fine lines are guided backpropagation's and hardly depend on the class (Adebayo 2018); only where they \
              show does. upsample=none makes no sense and is refused",
    build: |values, context| {
        let cam = Cam::new(ENTRY.id, values)?;
        if cam.upsample == Upsample::None {
            return Err(Error::settings(
                "guided_grad_cam:upsample=none: a map of the layer's size cannot be multiplied by one of the picture's; \
                 there are bilinear and nearest",
            ));
        }
        let cam = GradientCam::new(ENTRY.id, MeanGradient, values, context)?;
        Ok(Box::new(GuidedGradCam { score: context.score, cam }))
    },
};

struct GuidedGradCam {
    score: Score,
    cam: GradientCam<MeanGradient>,
}

impl Method for GuidedGradCam {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let coarse = self.cam.explain(engine, graph, x, targets)?;
        let job = Job { rules: Composite::guided(), ..Job::gradient(self.score) };
        let mut maps = input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)?;
        for (map, coarse) in maps.iter_mut().zip(&coarse) {
            map.notes.clone_from(&coarse.notes);
            let (mut numbers, mask) = (map.values.to_f64().into_owned(), coarse.values.to_f64());
            for plane in numbers.chunks_mut(mask.len()) {
                plane.iter_mut().zip(mask.iter()).for_each(|(v, m)| *v *= m);
            }
            map.values = Tensor::rounded(map.values.dims(), numbers, map.values.precision())?;
        }
        Ok(maps)
    }
}
