//! A net, an engine and their settings, held together: from a picture to a map in a few lines.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::cancel::Cancel;
use crate::engine::{Batch, Engine, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::image::{Picture, Prepared, Preprocess};
use crate::map::{Map, MapDims, MapFacts};
use crate::method::{Context, Method, Spec};
use crate::model::{Labels, Model};
use crate::program::Score;
use crate::report::{ModelUsed, Prediction};
use crate::score;
use crate::tensor::{Shape, Tensor};

/// Number of classes that [`Session::prediction`] lists.
const LISTED: usize = 5;

/// How a session is set up. By default: the fastest device, the net's own preparation and labels, logits, seed 0.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Device and precision.
    pub engine: Settings,
    /// How pictures become inputs; the net's own preparation if not given.
    pub preparation: Option<Preprocess>,
    /// Names of the classes; the net's own if not given.
    pub labels: Option<Labels>,
    /// The class score that is explained.
    pub score: Score,
    /// Seed of everything random.
    pub seed: u64,
}

/// Remarks made while a file was read; each sentence names the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noticed {
    /// What the file left unsaid and was assumed.
    pub assumed: Vec<String>,
    /// Possible mistakes in the file.
    pub warnings: Vec<String>,
    /// Why its numbers look like levels although they are taken as normalised. Not a fault for a net that scales them
    /// itself.
    pub doubts: Vec<String>,
}

impl Noticed {
    /// Adds the remarks of another file, each sentence once.
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

/// Reads a file named by a method's parameter, as `[C, H, W]` in the net's space, with remarks on it.
pub type Loader = Arc<dyn Fn(&Path, &Preprocess) -> Result<(Tensor, Noticed)> + Send + Sync>;

/// Explains pictures with one net. It may move to another thread, but does one thing at a time.
pub struct Session {
    model: Arc<Model>,
    engine: Engine,
    preparation: Preprocess,
    labels: Labels,
    score: Score,
    seed: u64,
    load: Loader,
    /// Remarks on files named by parameters.
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

/// The net's output for one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One logit per class.
    pub logits: Vec<f64>,
    /// The score that the session explains, one per class.
    pub scores: Vec<f64>,
    /// All classes by falling logit; of equal logits, the smaller index first.
    pub best: Vec<usize>,
}

impl Scored {
    /// The class with the highest logit.
    pub fn top(&self) -> usize {
        self.best.first().copied().unwrap_or_default()
    }
}

impl Session {
    /// Opens a session on `model`: a [`Model`], or an [`Arc`] of one that other sessions use too.
    ///
    /// # Errors
    /// When the device or its kernels do not exist here, or the preparation is not for pictures.
    pub fn open(model: impl Into<Arc<Model>>, options: &Options) -> Result<Self> {
        let engine = Engine::new(&options.engine)?;
        Self::with_engine(model, engine, options)
    }

    /// As [`Session::open`], on an existing engine; `options.engine` is ignored.
    ///
    /// # Errors
    /// When the preparation is not for pictures.
    pub fn with_engine(model: impl Into<Arc<Model>>, engine: Engine, options: &Options) -> Result<Self> {
        let model = model.into();
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

    /// The session with another reader for files named by methods' parameters; the default reads pictures.
    #[must_use]
    pub fn reading_with(self, load: Loader) -> Self {
        Self { load, ..self }
    }

    /// The net.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Ends the session; its engine, with its packed weights and plans, may serve another one.
    #[must_use]
    pub fn into_engine(self) -> Engine {
        self.engine
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Peak memory so far, in bytes ([`Engine::peak_bytes`]).
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

    /// The class score that is explained.
    pub fn explained(&self) -> Score {
        self.score
    }

    /// Seed of everything random.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Lets `cancel` stop the session's work.
    pub fn cancel_with(&mut self, cancel: &Cancel) {
        self.engine.cancel_with(cancel);
    }

    /// The net as records name it.
    pub fn model_used(&self) -> ModelUsed {
        ModelUsed {
            name: self.model.name().into(),
            architecture: self.model.architecture().into(),
            sha256: self.model.sha256().into(),
            head: self.model.link().name().into(),
            read: self.model.read_beside().to_vec(),
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
    /// When no method has that name, a parameter has no meaning, or a file that it names cannot be read.
    pub fn method(&self, spec: &str) -> Result<Box<dyn Method>> {
        self.build(&Spec::parse(spec)?)
    }

    /// As [`Session::method`], from a parsed [`Spec`].
    ///
    /// # Errors
    /// As [`Session::method`].
    pub fn build(&self, spec: &Spec) -> Result<Box<dyn Method>> {
        let load = |path: &Path| self.read(path);
        spec.build(&Context { seed: self.seed, score: self.score, preprocess: &self.preparation, load: &load })
    }

    /// Reads a file named by a parameter, as `[C, H, W]` in the net's space.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &Path) -> Result<Tensor> {
        let (tensor, noticed) = (self.load)(path, &self.preparation)?;
        self.notice(noticed);
        Ok(tensor)
    }

    /// Adds remarks on a file named by a parameter.
    pub fn notice(&self, noticed: Noticed) {
        self.noticed.borrow_mut().extend(noticed);
    }

    /// The remarks on files named by parameters.
    pub fn noticed(&self) -> Noticed {
        self.noticed.borrow().clone()
    }

    /// The net for inputs of shape `dims`.
    ///
    /// # Errors
    /// When the net does not take such inputs.
    pub fn graph(&self, dims: &[usize]) -> Result<Arc<Graph>> {
        match *dims {
            [c, h, w] => self.model.graph(Shape::new(c, h, w)),
            _ => Err(Error::input(format!("an input of shape {dims:?}"))),
        }
    }

    /// Runs the net on each input, `[C, H, W]` in its space. Inputs of one shape go through the net together; each
    /// input has its own error.
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

    /// One map per input, of class `targets[i]` on `inputs[i]`. Inputs of one shape are computed together; each input
    /// has its own error.
    pub fn explain(&mut self, method: &dyn Method, inputs: &[&Tensor], targets: &[usize]) -> Vec<Result<Map>> {
        self.explain_timed(method, inputs, targets).into_iter().map(|(map, _)| map).collect()
    }

    /// As [`Session::explain`], with the seconds per input; a batch's time is divided equally among its inputs.
    pub fn explain_timed(
        &mut self,
        method: &dyn Method,
        inputs: &[&Tensor],
        targets: &[usize],
    ) -> Vec<(Result<Map>, f64)> {
        if targets.len() != inputs.len() {
            let why = format!("every input needs one class: {} inputs, {} classes", inputs.len(), targets.len());
            return inputs.iter().map(|_| (Err(Error::settings(why.clone())), 0.0)).collect();
        }
        self.together(inputs, |engine, graph, x, at| {
            let targets: Vec<usize> = at.iter().map(|&i| targets[i]).collect();
            method.explain(engine, graph, x, &targets)
        })
    }

    /// The axes of a method's maps for inputs of shape `dims`, without computing one.
    ///
    /// # Errors
    /// When the net does not take such inputs, or the method has no meaning on it or does not say.
    pub fn map_dims(&self, method: &dyn Method, dims: &[usize]) -> Result<MapDims> {
        method.map_dims(&*self.graph(dims)?)
    }

    /// Writes the map of class `target` on `input`, `[C, H, W]` in the net's space, into `out`, in C order and single
    /// precision. What the map is besides its numbers is returned.
    ///
    /// The session keeps the memory of each call for the next. With one thread, the methods `gradient`,
    /// `input_x_gradient`, `smoothgrad`, `integrated_gradients`, `grad_cam` and `lrp` allocate none after a few calls.
    ///
    /// # Errors
    /// As [`Session::explain`], and when `out` has not the map's number of elements ([`Session::map_dims`]).
    pub fn explain_into(
        &mut self,
        method: &dyn Method,
        input: &Tensor,
        target: usize,
        out: &mut [f32],
    ) -> Result<MapFacts> {
        let graph = self.graph(input.dims())?;
        let spare = self.engine.spare();
        let mut items = spare.take(1);
        items.push(spare.copy(input)?);
        let x = Batch::of(items)?;
        let mut maps = method.explain(&mut self.engine, &graph, &x, &[target])?;
        let map = maps.pop().ok_or_else(|| Error::device("no result for the input"))?;
        let spare = self.engine.spare();
        spare.keep(maps);
        spare.keep_tensors(x.into_items());
        let (values, facts) = map.into_facts();
        if values.len() != out.len() {
            let (dims, n) = (values.dims(), values.len());
            return Err(Error::settings(format!("the map {dims:?} has {n} numbers, and `out` holds {}", out.len())));
        }
        values.write_to(out);
        spare.keep_tensor(values);
        Ok(facts)
    }

    /// Results of `work` and seconds for each input. Neighbours of one shape are passed together; if that fails, each
    /// is passed alone, so that one bad input does not fail its neighbours. `work` gets the inputs' positions.
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

    /// The name of a class, if it has one.
    pub fn label(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    /// The five classes with the largest logits, with their `score`.
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
