//! Ablation-CAM (Desai & Ramaswamy 2020): channels weighted by the share of the score that is lost without them.

use crate::engine::{self, Batch, Copies, Engine, Progress, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::map::{Map, MapDims};
use crate::method::shared::cam::{self, Cam, CamLayer};
use crate::method::shared::probe::Probed;
use crate::method::{Entry, Method, When};
use crate::program::{Builder, Score};
use crate::tensor::{Shape, Tensor};

pub(crate) const ENTRY: Entry = Entry {
    id: "ablation_cam",
    aliases: &["ablationcam"],
    title: "Ablation-CAM",
    paper: "Desai, Ramaswamy 2020: Ablation-CAM, WACV, equations 3 and 4",
    summary: "relu Σ_k w_k A_k with w_k = (f − f_k) / f, f_k the score when channel k of the layer is zero",
    passes: "1 forward, and 1 a channel of the layers behind the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "where the score is negative the division by it, which is the paper's, turns all signs round; a score of \
              exactly 0 is refused. Channels that stand in for each other get nothing",
    build: |values, context| Ok(Box::new(AblationCam { cam: Cam::new(ENTRY.id, values)?, score: context.score })),
};

/// Ablated forward passes per program. Results do not depend on it.
const PASSES: usize = 16;

/// `Σ_k (f − f_k)/f A_k`.
struct AblationCam {
    cam: Cam,
    score: Score,
}

impl AblationCam {
    /// Scores by picture: first with the whole layer, then without each of its channels.
    fn scores(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        layer: CamLayer,
        (x, targets): (&Batch, &[usize]),
        activations: &[Tensor],
    ) -> Result<Vec<Vec<Probed>>> {
        let c = layer.shape.c;
        let kept = |pass: usize| {
            let mut kept = vec![1.0; c];
            // Pass 0 keeps all channels; so do the surplus passes that pad the last program.
            if let Some(channel) = pass.checked_sub(1).filter(|&k| k < c) {
                kept[channel] = 0.0;
            }
            Tensor::f64([c], kept)
        };
        let mut progress = Progress { method: ENTRY.id, done: 0, total: (c + 1) * x.len(), objective: None };
        engine.progress(&progress);
        let mut scores = vec![Vec::with_capacity(c + 1); x.len()];
        let mut loads = vec![activations.to_vec()];
        for first in (0..=c).step_by(PASSES) {
            loads.truncate(1);
            for pass in first..first + PASSES {
                loads.push(vec![kept(pass)?; x.len()]);
            }
            let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
            let outcome = engine.evaluate(graph, &Ablated(layer.node), &task)?;
            for logits in outcome.stores.iter().take(c + 1 - first) {
                for ((scores, logits), &target) in scores.iter_mut().zip(logits).zip(targets) {
                    scores.push(Probed::of((self.score, graph.link()), &logits.to_f64(), target, logits.precision()));
                }
            }
            progress.done = (c + 1).min(first + PASSES) * x.len();
            engine.progress(&progress);
        }
        Ok(scores)
    }
}

/// Passes a layer's activations (the first load) on, times the mask of its channels (the other loads); stores logits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ablated(NodeId);

impl Script for Ablated {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let graph = b.graph();
        let shape = graph.node(self.0).shape;
        let activation = b.load(0, shape)?;
        let whole = b.forward();
        for pass in 0..PASSES {
            b.enter(whole);
            let kept = b.load(pass + 1, Shape::vector(shape.c))?;
            let ablated = b.scale_channels(kept, activation)?;
            b.replace(self.0, ablated)?;
            b.store(b.output(graph.output()), pass)?;
        }
        Ok(())
    }
}

impl Method for AblationCam {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.cam.dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let layer = self.cam.layer(graph)?;
        let activations = engine.node_outputs(graph, x, &[layer.node])?.remove(0);
        let activations = (0..x.len()).map(|i| activations.item(i)).collect::<Result<Vec<_>>>()?;
        let scores = self.scores(engine, graph, layer, (x, targets), &activations)?;
        let weigh = |(i, scores): (usize, &Vec<Probed>)| match scores[..] {
            [Probed { score: 0.0, .. }, ..] => Err(Error::input(format!(
                "ablation_cam divides by the score, and that of class {} on picture {i} is 0",
                targets[i]
            ))),
            [whole, ref without @ ..] => {
                let share = |s: &Probed| (whole.score - s.score) / whole.score;
                let still = without.iter().all(|s| s.equals(whole));
                Tensor::f64([layer.shape.c], without.iter().map(|s| if still { 0.0 } else { share(s) }).collect())
            }
            [] => Err(Error::device("no picture was scored")),
        };
        let weights = scores.iter().enumerate().map(weigh).collect::<Result<Vec<_>>>()?;
        let planes = cam::weighted(engine, graph, layer, x, targets, [activations, weights])?;
        self.cam.maps(engine.spare(), &planes, graph, layer, x, targets)
    }
}
