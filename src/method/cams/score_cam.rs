//! Score-CAM (Wang et al. 2020): channels weighted by the class probability of the picture masked by them.

use crate::device::{GridMask, Masks, Perturbation};
use crate::engine::{self, Batch, Engine, Progress};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, MapDims};
use crate::method::shared::cam::{self, Cam};
use crate::method::shared::probe::{BLOCK, scores};
use crate::method::{Entry, Method, When};
use crate::program::Score;
use crate::tensor::resample::{Upsample, upsample};
use crate::tensor::{Precision, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "score_cam",
    aliases: &["scorecam"],
    title: "Score-CAM",
    paper: "Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu 2020: Score-CAM, CVPR workshop, equations 6 to 8",
    summary: "relu Σ_k w_k A_k with w_k = p(x ∘ M_k), M_k the channel up-sampled bilinearly and scaled to 0 to 1",
    passes: "1 forward a channel, 1 forward",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "weights are probabilities whatever --score says, and none is negative; a second softmax over channels and the \
              score of a black picture, which the paper's algorithm 1 also has, are left out: this project's own choice. A \
              channel that is the same everywhere has weight 0",
    build: |values, _| Ok(Box::new(ScoreCam(Cam::new(ENTRY.id, values)?))),
};

/// `Σ_k p(x ∘ M_k) A_k`.
struct ScoreCam(Cam);

/// The mask made from a channel: its values scaled to run from 0 to 1 over the picture; `None` for a channel that is
/// constant up to rounding.
fn mask(channel: &[f64], from: [usize; 2], to: [usize; 2], precision: Precision) -> Result<Option<GridMask>> {
    let large = upsample(channel, from, to, Upsample::Bilinear)?;
    let (lo, hi) = large.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let range = hi - lo;
    let values = channel.iter().map(|v| (v - lo) / range).collect();
    Ok((!differ_by_rounding([(lo, hi)], precision)).then_some(GridMask { values, corner: [0, 0] }))
}

impl Method for ScoreCam {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.0.dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let layer = self.0.layer(graph)?;
        let (grid, size) = ([layer.shape.h, layer.shape.w], [x.shape().h, x.shape().w]);
        let activations = engine.node_outputs(graph, x, &[layer.node])?.remove(0);
        let activations = (0..x.len()).map(|i| activations.item(i)).collect::<Result<Vec<_>>>()?;
        let channels = layer.shape.c;
        let mut progress = Progress { method: ENTRY.id, done: 0, total: channels * x.len(), objective: None };
        engine.progress(&progress);
        let mut weights = vec![Vec::with_capacity(channels); x.len()];
        for first in (0..channels).step_by(BLOCK) {
            let block = first..channels.min(first + BLOCK);
            let count = block.len();
            let of = |activation: &Tensor| {
                let numbers = activation.to_f64();
                block
                    .clone()
                    .map(|k| {
                        let channel = &numbers[k * layer.shape.plane()..][..layer.shape.plane()];
                        mask(channel, grid, size, activation.precision())
                    })
                    .collect()
            };
            let made = activations.iter().map(of).collect::<Result<Vec<Vec<Option<GridMask>>>>>()?;
            let flat = GridMask { values: vec![0.0; layer.shape.plane()], corner: [0, 0] };
            let masks = made.iter().map(|m| m.iter().map(|m| m.as_ref().unwrap_or(&flat).clone()).collect()).collect();
            let perturbation = Perturbation::Masks(Masks { grid, size, masks });
            let scored = scores(engine, graph, x, targets, Score::Prob, (perturbation, count))?;
            for ((weights, made), scored) in weights.iter_mut().zip(&made).zip(&scored) {
                weights.extend(made.iter().zip(scored).map(|(m, p)| if m.is_some() { p.score } else { 0.0 }));
            }
            progress.done += count * x.len();
            engine.progress(&progress);
        }
        let weights = weights.into_iter().map(|w| Tensor::f64([channels], w)).collect::<Result<Vec<_>>>()?;
        let planes = cam::weighted(engine, graph, layer, x, targets, [activations, weights])?;
        self.0.maps(engine.spare(), &planes, graph, layer, x, targets)
    }
}
