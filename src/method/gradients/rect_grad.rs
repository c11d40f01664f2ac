//! RectGrad (Kim et al. 2019): the gradient restricted to signals with a large product of activation and gradient.

use crate::engine::{Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign};
use crate::method::{Entry, Method, Parameter, When, input_maps, numbers_of};
use crate::program::Score;
use crate::rule::{Composite, Select};

pub(crate) const ENTRY: Entry = Entry {
    id: "rect_grad",
    aliases: &["rectgrad"],
    title: "RectGrad",
    paper: "Kim, Seo, Jeon, Koo, Choe, Jeon 2019: Why are saliency maps noisy? Cause of and solution to noisy saliency maps, \
            ICCV workshops, equation 3",
    summary: "g with each ReLU passing its signal only where activation · signal lies above its q-quantile over the layer of \
              one picture (between two numbers by linear interpolation: our choice); a ReLU6 that is cut off counts as 0",
    passes: "1 forward, 1 backward",
    parameters: &[Parameter {
        key: "q",
        unit: "share of a layer, from 0 and below 1",
        default: "0.98",
        help: "how much of each layer passes nothing",
    }],
    promises: &[],
    draws: When::Never,
    caution: "not a derivative of anything; small layers pass one or two signals with the default q",
    build: |values, context| {
        let q: f64 = values.parse("q")?;
        if !(0.0..=1.0).contains(&q) {
            return Err(Error::settings(format!("rect_grad:q={q:?}: a quantile lies between 0 and 1")));
        }
        if q == 1.0 {
            return Err(Error::settings(
                "rect_grad:q=1: nothing lies above a layer's largest number, so the map can only be blank",
            ));
        }
        Ok(Box::new(RectGrad { score: context.score, q }))
    },
};

/// The gradient under a threshold.
struct RectGrad {
    score: Score,
    q: f64,
}

impl Method for RectGrad {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        if !graph.ids().any(|id| Select::Activations.matches(graph, id)) {
            return Err(Error::settings("rect_grad changes what ReLUs do, and this net has none"));
        }
        let job = Job { rules: Composite::rectified(self.q), ..Job::gradient(self.score) };
        input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)
    }
}
