//! Tests of trust: what `verilume check` tests about a method on a picture, with a verdict, the number behind it and
//! its bound.
//!
//! Each test is one file with its registry entry [`Test`]. Bounds that no paper gives are this project's own; each test
//! says so.

mod completeness;
mod deletion;
mod map_attack;
mod noise;
mod randomisation;
mod shift;
mod wrong_class;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::invariance::Shifted;
use crate::cancel::Cancel;
use crate::engine::{Batch, Engine, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, Reduction};
use crate::method::{Context, Method, Spec};
use crate::near;
use crate::program::Score;
use crate::score::{least, top};
use crate::tensor::Tensor;

/// The result of a test of a method on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The method satisfies the test.
    Pass,
    /// It does not.
    Fail,
    /// The test does not apply to this method, net or picture, or could not be run; the detail says why.
    NotApplicable,
}

/// The bound of a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Passes up to this value.
    AtMost(f64),
    /// Passes from this value on.
    AtLeast(f64),
}

impl Threshold {
    /// The verdict for `value`; a NaN fails.
    pub fn judge(self, value: f64) -> Verdict {
        let holds = match self {
            Threshold::AtMost(most) => value <= most,
            Threshold::AtLeast(least) => value >= least,
        };
        if holds { Verdict::Pass } else { Verdict::Fail }
    }
}

/// One test of one method on one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// [`Test::id`].
    pub test: String,
    /// The method's id, as given by the caller.
    pub method: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The number behind the verdict.
    pub value: Option<f64>,
    /// Its bound.
    pub threshold: Option<Threshold>,
    /// The number's name and unit, such as `max |E′−E| / max |E|`.
    pub measure: String,
    /// One sentence: the observation, or why the test does not apply.
    pub detail: String,
    /// Further numbers, by name.
    pub notes: Vec<(String, f64)>,
}

/// The result of a test before it is judged.
#[derive(Default)]
struct Measurement {
    /// The number that [`Test::threshold`] judges; `None` if the test does not apply.
    value: Option<f64>,
    /// The sentence if it passes, or why the test does not apply; and the sentence if it fails.
    sentences: [String; 2],
    notes: Vec<(String, f64)>,
    panels: Vec<Panel>,
}

impl Measurement {
    /// `sentences` state what passing and failing mean.
    fn number(value: f64, sentences: [impl Into<String>; 2]) -> Self {
        Self { value: Some(value), sentences: sentences.map(Into::into), ..Self::default() }
    }

    fn not_applicable(why: impl Into<String>) -> Self {
        Self { sentences: [why.into(), String::new()], ..Self::default() }
    }

    fn note(mut self, name: &str, value: f64) -> Self {
        self.notes.push((name.into(), value));
        self
    }

    /// Adds a note if there is a number.
    fn note_of(self, name: &str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.note(name, value),
            None => self,
        }
    }

    fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }
}

/// A test's entry in the registry.
pub struct Test {
    /// Name in commands and records.
    pub id: &'static str,
    /// Name in running text.
    pub title: &'static str,
    /// The question that it answers, as one sentence.
    pub question: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The number's name and unit.
    pub measure: &'static str,
    /// Its bound.
    pub threshold: Threshold,
    run: fn(&mut Bench<'_>, &CheckedMethod<'_>) -> Result<Measurement>,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Test").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The test called `name`; case, `-`, `_` and spaces are ignored.
///
/// # Errors
/// When there is none; the message suggests near misses.
pub fn test(name: &str) -> Result<&'static Test> {
    near::find(name, registry().iter(), |test| [test.id]).ok_or_else(|| {
        let near = near::nearest(name, registry().iter().map(|test| test.id));
        Error::settings(format!("there is no test '{name}'; {near}"))
    })
}

/// All tests.
pub fn registry() -> &'static [Test] {
    &[
        shift::CONSTANT,
        shift::PICTURE,
        wrong_class::TEST,
        randomisation::CASCADING,
        randomisation::INDEPENDENT,
        completeness::TEST,
        noise::TEST,
        map_attack::TEST,
        deletion::TEST,
    ]
}

/// The kind of map in a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PanelKind {
    /// The map of the picture, for the predicted class.
    Original,
    /// The map of the shifted picture, by the net for shifted data.
    Shifted,
    /// The map of the picture, for the class with the lowest score.
    WrongClass,
    /// The map of the picture, by the randomised net.
    Randomised,
    /// The map of the noisy picture.
    Noisy,
    /// The map of the picture after the attack.
    Attacked,
}

/// A map for display.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The test that produced it; `None` for the original.
    pub test: Option<&'static str>,
    /// The method's id.
    pub method: String,
    /// Which map it is.
    pub kind: PanelKind,
    /// A few words about it.
    pub caption: String,
    /// The map.
    pub map: Map,
    /// Its picture, normalised, if that is not the original.
    pub picture: Option<Tensor>,
}

/// Options of a check.
pub struct TestOptions<'a> {
    /// Seed of every draw.
    pub seed: u64,
    /// The class score that is explained.
    pub score: Score,
    /// How pictures became inputs.
    pub preprocess: &'a Preprocess,
    /// Loads a picture or array named by a method's parameter.
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
    /// The tests to run, in order.
    pub tests: Vec<&'static Test>,
}

/// The findings for a picture, and their maps.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// The net's logits.
    pub logits: Vec<f64>,
    /// The explained class: the one with the largest logit.
    pub target: usize,
    /// By method, then by test.
    pub findings: Vec<Finding>,
    /// By method; the original comes first.
    pub panels: Vec<Panel>,
}

/// Checks methods on pictures of one size.
pub struct Checker<'a> {
    graph: Arc<Graph>,
    options: TestOptions<'a>,
    engine: Engine,
    /// Input invariance can be judged only in double precision.
    double: Engine,
    nets: Nets,
}

/// Name under which the memory of randomised nets is counted.
const RANDOMISED: &str = "the test of randomised nets";

/// Nets derived from the checked one; cached, because all pictures and methods need them.
#[derive(Default)]
struct Nets {
    shifted: HashMap<&'static str, Arc<Shifted>>,
    /// By draw and positions of the randomised layers.
    randomised: HashMap<(u64, Vec<usize>), Arc<Graph>>,
    /// Bytes of their weights.
    bytes: usize,
    /// Those of them that the engine already accounts for.
    counted: usize,
}

/// A method applied to the picture.
struct CheckedMethod<'s> {
    id: &'s str,
    spec: &'s Spec,
    method: &'s dyn Method,
    map: &'s Map,
}

/// The resources of a test.
struct Bench<'b> {
    graph: &'b Graph,
    options: &'b TestOptions<'b>,
    engine: &'b mut Engine,
    double: &'b mut Engine,
    nets: &'b mut Nets,
    scene: &'b mut Scene,
}

/// The picture, and results that all methods share.
struct Scene {
    x: Batch,
    target: usize,
    least: usize,
    /// The result of the attack on the gradient's map, or why there is none.
    attacked: Option<std::result::Result<super::attack::Adversarial, String>>,
    /// Mean area under the deletion curves of random orders.
    random_deletion: Option<f64>,
}

impl<'a> Checker<'a> {
    /// A checker for pictures of the size that `graph` takes; `settings` are those of the engine that explains. A
    /// second engine computes in double precision.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(graph: Arc<Graph>, options: TestOptions<'a>, settings: &Settings) -> Result<Self> {
        let (engine, double) = (Engine::new(settings)?, Engine::new(&settings.twin())?);
        Ok(Self { graph, options, engine, double, nets: Nets::default() })
    }

    /// Lets `cancel` stop both engines.
    pub fn cancel_with(&mut self, cancel: &Cancel) {
        self.engine.cancel_with(cancel);
        self.double.cancel_with(cancel);
    }

    /// The engine that explains.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Runs every test of every method on the picture `x`, `[C, H, W]`; the methods come with the names used in
    /// findings. `told(method, test)` is called before each.
    ///
    /// If a method or test refuses (with an input, model or settings error), the finding says that it does not apply,
    /// and why.
    ///
    /// # Errors
    /// When `x` does not match the net, or memory, device or files fail.
    pub fn check(
        &mut self,
        x: &Tensor,
        methods: &[(String, Spec)],
        told: &mut dyn FnMut(&str, &str),
    ) -> Result<Checked> {
        let x = Batch::of(vec![x.clone()])?;
        let logits = self.engine.forward(&self.graph, &x)?.to_f64().into_owned();
        let target = top(&logits).unwrap_or(0);
        let least = least(&logits).unwrap_or(0);
        let mut scene = Scene { x, target, least, attacked: None, random_deletion: None };
        let mut checked = Checked { logits, target, ..Checked::default() };
        for (id, spec) in methods {
            let context = Context {
                seed: self.options.seed,
                score: self.options.score,
                preprocess: self.options.preprocess,
                load: self.options.load,
            };
            told(id, "map");
            let made = spec.build(&context).and_then(|method| {
                let maps = self.engine.keeping((RANDOMISED, self.nets.bytes), |engine| {
                    method.explain(engine, &self.graph, &scene.x, &[target])
                })?;
                maps.into_iter().next().map(|map| (method, map)).ok_or_else(|| Error::device("a method without a map"))
            });
            let (method, map) = match made {
                Ok(made) => made,
                Err(e) if refused(&e) => {
                    let why = |test: &&'static Test| finding(test, id, Measurement::not_applicable(e.to_string()));
                    checked.findings.extend(self.options.tests.iter().map(why));
                    continue;
                }
                Err(e) => return Err(e.within(id.clone())),
            };
            checked.panels.push(Panel {
                test: None,
                method: id.clone(),
                kind: PanelKind::Original,
                caption: "original".into(),
                map: map.clone(),
                picture: None,
            });
            let examined = CheckedMethod { id, spec, method: &*method, map: &map };
            for test in &self.options.tests {
                told(id, test.id);
                self.nets.counted = self.nets.bytes;
                let made = self.engine.keeping((RANDOMISED, self.nets.bytes), |engine| {
                    let mut bench = Bench {
                        graph: &self.graph,
                        options: &self.options,
                        engine,
                        double: &mut self.double,
                        nets: &mut self.nets,
                        scene: &mut scene,
                    };
                    (test.run)(&mut bench, &examined)
                });
                let mut measured = match made {
                    Err(e) if refused(&e) => Measurement::not_applicable(e.to_string()),
                    other => other.map_err(|e| e.within(format!("{id}, {}", test.id)))?,
                };
                checked.panels.append(&mut measured.panels);
                checked.findings.push(finding(test, id, measured));
            }
        }
        Ok(checked)
    }
}

/// Whether an error means that a method or test does not apply here.
fn refused(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Input | ErrorKind::Model | ErrorKind::Settings | ErrorKind::Shape)
}

/// The finding: the measurement and the verdict of [`Test::threshold`].
fn finding(test: &Test, method: &str, measured: Measurement) -> Finding {
    let verdict = measured.value.map_or(Verdict::NotApplicable, |value| test.threshold.judge(value));
    let [passes, fails] = measured.sentences;
    Finding {
        test: test.id.into(),
        method: method.into(),
        verdict,
        value: measured.value,
        threshold: measured.value.map(|_| test.threshold),
        measure: test.measure.into(),
        detail: if verdict == Verdict::Fail { fails } else { passes },
        notes: measured.notes,
    }
}

impl Bench<'_> {
    /// The subject's map of a picture, for a class, by a net.
    fn map(&mut self, examined: &CheckedMethod<'_>, graph: &Graph, x: &Batch, target: usize) -> Result<Map> {
        let maps = examined.method.explain(self.engine, graph, x, &[target])?;
        maps.into_iter().next().ok_or_else(|| Error::device("a method without a map"))
    }
}

impl CheckedMethod<'_> {
    fn panel(&self, test: &'static str, kind: PanelKind, caption: &str, map: Map, picture: Option<Tensor>) -> Panel {
        Panel { test: Some(test), method: self.id.into(), kind, caption: caption.into(), map, picture }
    }

    /// Why nothing can be compared with the map, if its magnitudes are constant.
    fn shows_nothing(&self) -> Result<Option<Measurement>> {
        shows_nothing(self.map, Reduction::MaxAbs)
    }
}

/// Why a map, reduced by `reduction`, does not rank any pixels; `None` if it does.
fn shows_nothing(map: &Map, reduction: Reduction) -> Result<Option<Measurement>> {
    let plane = reduction.apply(&map.values)?;
    let flat = (1..plane.len()).all(|i| plane.at(i) == plane.at(0));
    Ok(flat.then(|| Measurement::not_applicable(if map.is_zero() { ZERO } else { "the map is the same everywhere" })))
}

/// The sentence about a map of zeros.
const ZERO: &str = "the map is zero everywhere";
