//! A net, an engine, and what both take for granted, held together: from a picture to a map in a few lines.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::cancel::Cancel;
use crate::engine::{Batch, Engine, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::image::{Picture, Prepared, Preprocess};
use crate::map::Map;
use crate::method::{Context, Method, Spec};
use crate::model::{Labels, Model};
use crate::program::Score;
use crate::report::{ModelUsed, Prediction};
use crate::score;
use crate::tensor::{Shape, Tensor};

/// Classes that [`Session::prediction`] lists.
const LISTED: usize = 5;

/// How a session is set up; the default is the fastest device, the net's own preparation and labels, logits, seed 0.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where and how precisely to compute.
    pub engine: Settings,
    /// How pictures become inputs; the net's own way if not given.
    pub preparation: Option<Preprocess>,
    /// Names of the classes; the net's own if not given.
    pub labels: Option<Labels>,
    /// Which score of a class is explained.
    pub score: Score,
    /// Seed of everything random.
    pub seed: u64,
}

/// What was noticed of a file while it was read; each sentence names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noticed {
    /// What was taken from the file without being told.
    pub assumed: Vec<String>,
    /// What the file may have got wrong.
    pub warnings: Vec<String>,
    /// Why its numbers look like levels although they are taken as normalised: nothing odd for a net that scales them itself.
    pub doubts: Vec<String>,
}

impl Noticed {
    /// Adds what was noticed of another, each sentence once.
    pub fn extend(&mut self, more: Noticed) {
        let pairs =
            [(&mut self.assumed, more.assumed), (&mut self.warnings, more.warnings), (&mut self.doubts, more.doubts)];
        for (sentences, more) in pairs {
            for sentence in more {
                if !sentences.contains(&sentence) {
                    sentences.push(sentence);
                }
            }
        }
    }
}

/// Reads a file that a method's parameter names, as `[C, H, W]` in the net's space, and says what it notices.
pub type Loader = Arc<dyn Fn(&Path, &Preprocess) -> Result<(Tensor, Noticed)> + Send + Sync>;

/// Explains pictures with one net. It may move to another thread; it does one thing at a time.
pub struct Session {
    model: Model,
    engine: Engine,
    preparation: Preprocess,
    labels: Labels,
    score: Score,
    seed: u64,
    load: Loader,
    /// What was noticed of files that parameters name.
    noticed: RefCell<Noticed>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model.name())
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// What the net makes of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One number a class.
    pub logits: Vec<f64>,
    /// The score that the session explains, one number a class.
    pub scores: Vec<f64>,
    /// All classes, the one with the highest logit first; of equal logits the smaller index goes first.
    pub best: Vec<usize>,
}

impl Scored {
    /// The class with the highest logit.
    pub fn top(&self) -> usize {
        self.best.first().copied().unwrap_or_default()
    }
}

impl Session {
    /// Opens a session on `model`.
    ///
    /// # Errors
    /// When the device or its kernels do not exist here, or the preparation is not one for pictures.
    pub fn open(model: Model, options: &Options) -> Result<Self> {
        let engine = Engine::new(&options.engine)?;
        Self::with_engine(model, engine, options)
    }

    /// As [`Session::open`], on an engine that exists already; `options.engine` is not looked at.
    ///
    /// # Errors
    /// When the preparation is not one for pictures.
    pub fn with_engine(model: Model, engine: Engine, options: &Options) -> Result<Self> {
        let preparation = options.preparation.clone().unwrap_or_else(|| model.preprocess().clone());
        if preparation.takes_pictures() {
            preparation.check()?;
        }
        let labels = options.labels.clone().unwrap_or_else(|| model.labels().clone());
        let load = Arc::new(load);
        Ok(Self {
            model,
            engine,
            preparation,
            labels,
            score: options.score,
            seed: options.seed,
            load,
            noticed: RefCell::default(),
        })
    }

    /// The session with another way to read files that methods' parameters name: without one, pictures.
    #[must_use]
    pub fn reading_with(self, load: Loader) -> Self {
        Self { load, ..self }
    }

    /// The net.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What computes.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Most memory that was held so far, bytes ([`Engine::peak_bytes`]).
    pub fn peak_bytes(&self) -> u64 {
        self.engine.peak_bytes()
    }

    /// How pictures become inputs.
    pub fn preparation(&self) -> &Preprocess {
        &self.preparation
    }

    /// Names of the classes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Which score of a class is explained.
    pub fn explained(&self) -> Score {
        self.score
    }

    /// Seed of everything random.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Lets `cancel` stop what the session computes.
    pub fn cancel_with(&mut self, cancel: &Cancel) {
        self.engine.cancel_with(cancel);
    }

    /// The net as records name it.
    pub fn model_used(&self) -> ModelUsed {
        ModelUsed {
            name: self.model.name().into(),
            architecture: self.model.architecture().into(),
            sha256: self.model.sha256().into(),
        }
    }

    /// A picture as the net takes it, and as a person sees it.
    ///
    /// # Errors
    /// When the net takes no pictures.
    pub fn prepare(&self, picture: &Picture) -> Result<Prepared> {
        self.preparation.apply(picture)
    }

    /// A method by its name and parameters, such as `smoothgrad:n=8`.
    ///
    /// # Errors
    /// When there is none of that name, a parameter has no meaning, or a file that it names cannot be read.
    pub fn method(&self, spec: &str) -> Result<Box<dyn Method>> {
        self.build(&Spec::parse(spec)?)
    }

    /// As [`Session::method`], of what was parsed already.
    ///
    /// # Errors
    /// As [`Session::method`].
    pub fn build(&self, spec: &Spec) -> Result<Box<dyn Method>> {
        let load = |path: &Path| self.read(path);
        spec.build(&Context { seed: self.seed, score: self.score, preprocess: &self.preparation, load: &load })
    }

    /// A file that a parameter names, `[C, H, W]` in the net's space.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &Path) -> Result<Tensor> {
        let (tensor, noticed) = (self.load)(path, &self.preparation)?;
        self.notice(noticed);
        Ok(tensor)
    }

    /// Adds what was noticed of a file that a parameter names.
    pub fn notice(&self, noticed: Noticed) {
        self.noticed.borrow_mut().extend(noticed);
    }

    /// What was noticed of files that parameters name.
    pub fn noticed(&self) -> Noticed {
        self.noticed.borrow().clone()
    }

    /// The net for inputs of the extents `dims`.
    ///
    /// # Errors
    /// When the net takes no such inputs.
    pub fn graph(&self, dims: &[usize]) -> Result<Arc<Graph>> {
        match *dims {
            [c, h, w] => self.model.graph(Shape::new(c, h, w)),
            _ => Err(Error::input(format!("an input of shape {dims:?}"))),
        }
    }

    /// What the net makes of each input, `[C, H, W]` in its space. Inputs of one shape go through the net together; what is
    /// wrong with one is its own error.
    pub fn score(&mut self, inputs: &[&Tensor]) -> Vec<Result<Scored>> {
        let score = self.score;
        let scored = self.together(inputs, |engine, graph, x, _| {
            let logits = engine.forward(graph, x)?;
            let of = |i| {
                let logits = logits.item(i)?.to_f64().into_owned();
                let (scores, best) = (score.of_all(graph.link(), &logits), score::best_first(&logits));
                Ok(Scored { logits, scores, best })
            };
            (0..x.len()).map(of).collect()
        });
        scored.into_iter().map(|(scored, _)| scored).collect()
    }

    /// One map an input, of class `targets[i]` on `inputs[i]`. Inputs of one shape go together; what is wrong with one is its
    /// own error.
    pub fn explain(&mut self, method: &dyn Method, inputs: &[&Tensor], targets: &[usize]) -> Vec<Result<Map>> {
        self.explain_timed(method, inputs, targets).into_iter().map(|(map, _)| map).collect()
    }

    /// As [`Session::explain`], with the seconds of each; those of a batch are shared equally by its inputs.
    pub fn explain_timed(
        &mut self,
        method: &dyn Method,
        inputs: &[&Tensor],
        targets: &[usize],
    ) -> Vec<(Result<Map>, f64)> {
        self.together(inputs, |engine, graph, x, at| {
            let targets: Vec<usize> = at.iter().filter_map(|&i| targets.get(i).copied()).collect();
            method.explain(engine, graph, x, &targets)
        })
    }

    /// What `work` makes of inputs, and the seconds of each: of all neighbours of one shape together or, where that fails, of
    /// each by itself, so that one bad input does not take its neighbours along. `work` is told their positions.
    pub fn together<T>(
        &mut self,
        inputs: &[&Tensor],
        mut work: impl FnMut(&mut Engine, &Graph, &Batch, &[usize]) -> Result<Vec<T>>,
    ) -> Vec<(Result<T>, f64)> {
        let mut all = Vec::with_capacity(inputs.len());
        while all.len() < inputs.len() {
            let first = all.len();
            let dims = inputs[first].dims();
            let alike = inputs[first..].iter().take_while(|input| input.dims() == dims).count();
            let at: Vec<usize> = (first..first + alike).collect();
            let graph = match self.graph(dims) {
                Ok(graph) => graph,
                Err(e) => {
                    all.extend(at.iter().map(|_| (Err(again(&e)), 0.0)));
                    continue;
                }
            };
            let mut run = |engine: &mut Engine, at: &[usize]| {
                let started = Instant::now();
                let x = Batch::of(at.iter().map(|&i| inputs[i].clone()).collect());
                let made = x.and_then(|x| work(engine, &graph, &x, at));
                let made = made.and_then(|made| match made.len() {
                    n if n == at.len() => Ok(made),
                    n => Err(Error::device(format!("{n} results for {} inputs", at.len()))),
                });
                (made, started.elapsed().as_secs_f64() / at.len() as f64)
            };
            match run(&mut self.engine, &at) {
                (Ok(made), seconds) => all.extend(made.into_iter().map(|made| (Ok(made), seconds))),
                (Err(e), seconds) if at.len() == 1 => all.push((Err(e), seconds)),
                (Err(e), seconds) if e.kind() == ErrorKind::Cancelled => {
                    all.extend(at.iter().map(|_| (Err(again(&e)), seconds)));
                }
                (Err(_), _) => {
                    for i in at {
                        let (made, seconds) = run(&mut self.engine, &[i]);
                        all.extend(match made {
                            Ok(made) => made.into_iter().map(|made| (Ok(made), seconds)).collect(),
                            Err(e) => vec![(Err(e), seconds)],
                        });
                    }
                }
            }
        }
        all
    }

    /// The name of a class, where it has one.
    pub fn label(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    /// The best five classes of some logits, with their `score`.
    pub fn prediction(&self, logits: &[f64], score: Score) -> Vec<Prediction> {
        let scores = score.of_all(self.model.link(), logits);
        let of = |&index: &usize| Prediction { index, label: self.label(index), score: scores[index] };
        score::best_first(logits).iter().take(LISTED).map(of).collect()
    }
}

/// The same error, for another input.
fn again(e: &Error) -> Error {
    Error::new(e.kind(), e.to_string())
}

#[cfg(feature = "pictures")]
fn load(path: &Path, preparation: &Preprocess) -> Result<(Tensor, Noticed)> {
    let picture = Picture::open(path, &crate::image::DecodeLimits::default())?;
    let warnings = picture.damage().map(|damage| format!("{}: {damage}", path.display())).into_iter().collect();
    Ok((preparation.apply(&picture)?.tensor, Noticed { warnings, ..Noticed::default() }))
}

#[cfg(not(feature = "pictures"))]
fn load(path: &Path, _: &Preprocess) -> Result<(Tensor, Noticed)> {
    Err(Error::settings(format!("{}: this build reads no pictures (feature `pictures` is off)", path.display())))
}
