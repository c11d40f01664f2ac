//! Tests of trust: what `verilume check` asks of a method on a picture, with a verdict, the number behind it and the bound it
//! was held against.
//!
//! A test lives in one file with its registry [`Test`]. Bounds that no paper gives are this project's own; each test says so.

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

/// What a test says of a method on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The method keeps to what the test asks for.
    Pass,
    /// It does not.
    Fail,
    /// The test asks nothing of this method, net or picture, or could not be made; the detail says why.
    NotApplicable,
}

/// A bound that a number is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Passes when it is not above this.
    AtMost(f64),
    /// Passes when it is not below this.
    AtLeast(f64),
}

impl Threshold {
    /// What it says of `value`; what is no number fails.
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
    /// The method's id, as the caller names it.
    pub method: String,
    /// What it says.
    pub verdict: Verdict,
    /// The number behind the verdict.
    pub value: Option<f64>,
    /// The bound it was held against.
    pub threshold: Option<Threshold>,
    /// The number's name and unit, such as `max |E′−E| / max |E|`.
    pub measure: String,
    /// One sentence: what was seen, or why the test does not apply.
    pub detail: String,
    /// Further numbers, by name.
    pub notes: Vec<(String, f64)>,
}

/// What a test measured, before it is judged.
#[derive(Default)]
struct Measurement {
    /// The number that [`Test::threshold`] judges; none where the test does not apply.
    value: Option<f64>,
    /// What is said where it passes, or why the test does not apply; and where it fails.
    sentences: [String; 2],
    notes: Vec<(String, f64)>,
    panels: Vec<Panel>,
}

impl Measurement {
    /// `sentences` say what it means where it passes and where it fails.
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

    /// A note where there is such a number.
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

/// A kind of test.
pub struct Test {
    /// Name in commands and records.
    pub id: &'static str,
    /// Name in prose.
    pub title: &'static str,
    /// The question that it answers, in one sentence.
    pub question: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The number's name and unit.
    pub measure: &'static str,
    /// The bound it is held against.
    pub threshold: Threshold,
    run: fn(&mut Bench<'_>, &CheckedMethod<'_>) -> Result<Measurement>,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Test").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The test that `name` names; case, `-`, `_` and spaces do not count.
///
/// # Errors
/// When there is none; says which is near.
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

/// Which of a method's maps a panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PanelKind {
    /// Of the picture for the class predicted.
    Original,
    /// Of the shifted picture, by the net for shifted data.
    Shifted,
    /// Of the picture for the least likely class.
    WrongClass,
    /// Of the picture, by the net with weights drawn anew.
    Randomised,
    /// Of the noisy picture.
    Noisy,
    /// Of the picture whose map was attacked.
    Attacked,
}

/// A map to be looked at.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The test that made it; none for the original.
    pub test: Option<&'static str>,
    /// The method's id.
    pub method: String,
    /// Which map it is.
    pub kind: PanelKind,
    /// In a few words.
    pub caption: String,
    /// The map.
    pub map: Map,
    /// The picture it belongs to, normalised, where that is not the original.
    pub picture: Option<Tensor>,
}

/// How a picture is checked.
pub struct TestOptions<'a> {
    /// Seed of every draw.
    pub seed: u64,
    /// Which number of the class is explained.
    pub score: Score,
    /// How pictures became inputs.
    pub preprocess: &'a Preprocess,
    /// Loads a picture or array that a method's parameter names.
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
    /// The tests to make, in order.
    pub tests: Vec<&'static Test>,
}

/// What the tests said of a picture, and the maps they said it of.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// The net's logits.
    pub logits: Vec<f64>,
    /// Class explained: the one with the largest logit.
    pub target: usize,
    /// By method, within it by test.
    pub findings: Vec<Finding>,
    /// By method; the original comes first.
    pub panels: Vec<Panel>,
}

/// Checks methods on pictures of one size.
pub struct Checker<'a> {
    graph: Arc<Graph>,
    options: TestOptions<'a>,
    engine: Engine,
    /// Input invariance can only be told in double precision.
    double: Engine,
    nets: Nets,
}

/// What keeps the nets with weights drawn anew.
const RANDOMISED: &str = "the test of randomised nets";

/// Nets made from the one that is checked; kept, since all pictures and methods need them.
#[derive(Default)]
struct Nets {
    shifted: HashMap<&'static str, Arc<Shifted>>,
    /// By draw and places in the net of the layers drawn anew.
    randomised: HashMap<(u64, Vec<usize>), Arc<Graph>>,
    /// Bytes of their weights.
    bytes: usize,
    /// Of these, what the engine knows of already.
    counted: usize,
}

/// A method on the picture.
struct CheckedMethod<'s> {
    id: &'s str,
    spec: &'s Spec,
    method: &'s dyn Method,
    map: &'s Map,
}

/// What tests work with.
struct Bench<'b> {
    graph: &'b Graph,
    options: &'b TestOptions<'b>,
    engine: &'b mut Engine,
    double: &'b mut Engine,
    nets: &'b mut Nets,
    scene: &'b mut Scene,
}

/// The picture, and what all methods share of it.
struct Scene {
    x: Batch,
    target: usize,
    least: usize,
    /// The picture whose gradient's map was attacked, or why there is none.
    attacked: Option<std::result::Result<super::attack::Adversarial, String>>,
    /// Mean area under the deletion curves of random orders.
    random_deletion: Option<f64>,
}

impl<'a> Checker<'a> {
    /// For pictures of the size that `graph` takes; `settings` are those of the engine that explains. A second engine works in
    /// double precision.
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

    /// Makes every test of every method, each under the name that findings call it by, on the picture `x`, `[C, H, W]`.
    /// `told(method, test)` hears what comes next.
    ///
    /// What a method or test refuses (of kind input, model or settings) is a finding that does not apply and says why.
    ///
    /// # Errors
    /// When `x` does not suit the net, or memory, device or files fail.
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

/// Whether an error says that a method or test has no meaning here.
fn refused(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Input | ErrorKind::Model | ErrorKind::Settings | ErrorKind::Shape)
}

/// The measure and what [`Test::threshold`] says of it.
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
    /// The examined method's map of some picture, for some class, by some net.
    fn map(&mut self, examined: &CheckedMethod<'_>, graph: &Graph, x: &Batch, target: usize) -> Result<Map> {
        let maps = examined.method.explain(self.engine, graph, x, &[target])?;
        maps.into_iter().next().ok_or_else(|| Error::device("a method without a map"))
    }
}

impl CheckedMethod<'_> {
    fn panel(&self, test: &'static str, kind: PanelKind, caption: &str, map: Map, picture: Option<Tensor>) -> Panel {
        Panel { test: Some(test), method: self.id.into(), kind, caption: caption.into(), map, picture }
    }

    /// Why nothing can be compared with the map, where its magnitudes are the same everywhere.
    fn shows_nothing(&self) -> Result<Option<Measurement>> {
        shows_nothing(self.map, Reduction::MaxAbs)
    }
}

/// Why a map puts no pixel before another, as `reduction` makes it one number a pixel; nothing where it does.
fn shows_nothing(map: &Map, reduction: Reduction) -> Result<Option<Measurement>> {
    let plane = reduction.apply(&map.values)?;
    let flat = (1..plane.len()).all(|i| plane.at(i) == plane.at(0));
    Ok(flat.then(|| Measurement::not_applicable(if map.is_zero() { ZERO } else { "the map is the same everywhere" })))
}

/// Said of a map without anything in it.
const ZERO: &str = "the map is zero everywhere";
