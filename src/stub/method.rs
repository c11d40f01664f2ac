use crate::engine::{Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Gap, Map, Sign, Space};
pub use crate::program::Score;
use crate::tensor::Tensor;
use std::path::Path;
use std::sync::Arc;
pub struct Parameter {
    pub key: &'static str,
    pub unit: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}
pub struct Entry {
    pub id: &'static str,
    pub aliases: &'static [&'static str],
    pub title: &'static str,
    pub paper: &'static str,
    pub summary: &'static str,
    pub parameters: &'static [Parameter],
}
const N: &[Parameter] = &[Parameter { key: "n", unit: "copies", default: "50", help: "noisy copies" }];
const STEPS: &[Parameter] = &[Parameter { key: "steps", unit: "points", default: "50", help: "points on the path" }];
const CAM: &[Parameter] =
    &[Parameter { key: "upsample", unit: "", default: "bilinear", help: "bilinear, nearest or none" }];
const fn entry(id: &'static str, aliases: &'static [&'static str], parameters: &'static [Parameter]) -> Entry {
    Entry { id, aliases, title: id, paper: "Paper 2020", summary: "what it does", parameters }
}
static REGISTRY: &[Entry] = &[
    entry("gradient", &[], &[]),
    entry("input_x_gradient", &[], &[]),
    entry("integrated_gradients", &["ig"], STEPS),
    entry("smoothgrad", &[], N),
    entry("grad_cam", &[], CAM),
];
pub fn registry() -> &'static [Entry] {
    REGISTRY
}
#[derive(Clone)]
pub struct Spec {
    pub entry: &'static Entry,
    values: Vec<String>,
}
impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> =
            self.entry.parameters.iter().zip(&self.values).map(|(p, v)| format!("{}={v}", p.key)).collect();
        let colon = if all.is_empty() { "" } else { ":" };
        write!(f, "{}{colon}{}", self.entry.id, all.join(","))
    }
}
pub struct Context<'a> {
    pub seed: u64,
    pub score: Score,
    pub preprocess: &'a Preprocess,
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
}
pub trait Method {
    fn explain(&self, engine: &mut Engine, graph: &Arc<Graph>, x: &Batch, targets: &[usize]) -> Result<Vec<Map>>;
}
struct Fake(Spec, Score);
impl Spec {
    pub fn parse(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let entry = REGISTRY
            .iter()
            .find(|e| e.id == name || e.aliases.contains(&name))
            .ok_or_else(|| Error::settings(format!("no method is named '{name}'; near: gradient")))?;
        let mut values: Vec<String> = entry.parameters.iter().map(|p| p.default.to_string()).collect();
        for pair in rest.split(',').filter(|p| !p.is_empty()) {
            let (k, v) = pair.split_once('=').ok_or_else(|| Error::settings(format!("'{pair}' is not key=value")))?;
            let at = entry
                .parameters
                .iter()
                .position(|p| p.key == k)
                .ok_or_else(|| Error::settings(format!("'{name}' has no parameter '{k}'; n, sigma")))?;
            values[at] = v.into();
        }
        Ok(Self { entry, values })
    }
    pub fn build(&self, context: &Context) -> Result<Box<dyn Method>> {
        Ok(Box::new(Fake(self.clone(), context.score)))
    }
}
impl Method for Fake {
    fn explain(&self, engine: &mut Engine, graph: &Arc<Graph>, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let answer = engine.explain(graph, &Job::gradient(self.1), x, targets)?;
        let gap = Some(Gap { promise: "completeness".into(), value: 0.0, relative: 0.0 });
        let (sign, space) = (Sign::Signed, Space::Input);
        let map = |(values, &target)| {
            let values =
                if self.0.values.iter().any(|v| v == "none") { Tensor::f32([1, 1], vec![1.0])? } else { values };
            let (gap, space) = (gap.clone(), space.clone());
            Ok(Map { values, sign, space, target, gap, method: self.0.to_string() })
        };
        answer.maps.into_iter().zip(targets).map(map).collect()
    }
}
