//! Grad-CAM (Selvaraju et al. 2017): a layer's activations, each channel weighted by its mean gradient.

use super::{Entry, Method, Parameter, Promise, When};
use crate::engine::{At, Batch, Engine, Job, Reading};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::map::{Map, Sign, Space};
use crate::program::Score;
use crate::tensor::Tensor;
use crate::tensor::resample::{Upsample, upsample};

pub(super) const ENTRY: Entry = Entry {
    id: "grad_cam",
    aliases: &["gradcam"],
    title: "Grad-CAM",
    paper: "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017: Grad-CAM, ICCV, equations 1 and 2",
    summary: "relu Σ_k ⟨∂f/∂A_k⟩ A_k over the channels of a layer",
    passes: "1 forward, 1 backward to the layer",
    parameters: &[
        Parameter {
            key: "layer",
            unit: "a stage or node",
            default: "last",
            help: "whose activations; `model info` lists them, `last` is the last stage",
        },
        Parameter {
            key: "upsample",
            unit: "bilinear|nearest|none",
            default: "bilinear",
            help: "to the input's size, or the layer's own positions",
        },
        Parameter { key: "relu", unit: "yes|no", default: "yes", help: "no: the signed sum" },
    ],
    promises: &[(Promise::NotNegative, When::With("relu", "yes"))],
    draws: When::Never,
    caution: "as coarse as the layer; with relu=yes all zero where the evidence is negative",
    build: |values, context| {
        let rectify = match values.text("relu")? {
            "yes" => Rectify::Yes,
            "no" => Rectify::No,
            other => return Err(Error::settings(format!("grad_cam:relu={other}: there are yes and no"))),
        };
        Ok(Box::new(GradCam {
            score: context.score,
            layer: values.text("layer")?.into(),
            upsample: values.parse("upsample")?,
            rectify,
        }))
    },
};

#[derive(Clone, Copy, PartialEq)]
enum Rectify {
    Yes,
    No,
}

/// `relu Σ_k ⟨∂f/∂A_k⟩ A_k`.
struct GradCam {
    score: Score,
    layer: String,
    upsample: Upsample,
    rectify: Rectify,
}

impl Method for GradCam {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let node = match self.layer.as_str() {
            "last" => graph
                .stages()
                .last()
                .map(|s| s.1)
                .ok_or_else(|| Error::settings("this net has no stages; name a layer"))?,
            name => graph.find(name)?,
        };
        let name = graph.node(node).name.clone();
        let shape = graph.node(node).shape;
        if !has_positions(graph, node) {
            return Err(Error::settings(format!(
                "grad_cam needs a layer with positions; '{name}' gives a vector ({shape}), because it follows a flattening"
            )));
        }
        let job = Job { at: At::Node(node), reading: Reading::MeanWeightedActivation, ..Job::gradient(self.score) };
        let answer = engine.explain(graph, &job, x, targets)?;
        let (from, to) = ([shape.h, shape.w], [x.shape().h, x.shape().w]);
        answer
            .maps
            .into_iter()
            .zip(targets)
            .map(|(values, &target)| {
                let precision = values.precision();
                let mut numbers = values.to_f64().into_owned();
                if self.rectify == Rectify::Yes {
                    numbers.iter_mut().for_each(|v| *v = v.max(0.0));
                }
                let [h, w] = self.upsample.size(from, to);
                let numbers = upsample(&numbers, from, to, self.upsample)?;
                let space = if self.upsample == Upsample::None { Space::Layer(name.clone()) } else { Space::Input };
                let sign = if self.rectify == Rectify::Yes { Sign::Unsigned } else { Sign::Signed };
                let values = Tensor::rounded([h, w], numbers, precision)?;
                Ok(Map { values, sign, space, target, gap: None, notes: Vec::new(), method: ENTRY.id.into() })
            })
            .collect()
    }
}

/// Whether the node's rows and columns are places of the picture: nothing before it flattened them.
fn has_positions(graph: &Graph, node: NodeId) -> bool {
    let mut flattened = vec![false; graph.nodes().len()];
    for id in graph.ids().take(node.index() + 1) {
        let here = graph.node(id);
        let before = here.inputs.iter().any(|input| flattened[input.index()]);
        flattened[id.index()] = before || matches!(here.op, Op::Flatten | Op::Linear(_));
    }
    !flattened[node.index()]
}
