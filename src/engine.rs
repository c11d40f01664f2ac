//! Runs programs over pictures: chunking, caching, checks.

mod copies;
mod forget;
mod keep;
mod open;
mod profile;
mod progress;
mod reach;
mod run;
mod script;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use open::open;
pub use profile::{ChunkTimes, Profile};
pub use progress::{Observer, Progress};
use run::ProgramRun;
pub use script::Script;
use script::{PlanKey, Plans};

use crate::cancel::Cancel;
use crate::device::cpu::{Convolution, Kernels};
use crate::device::patch::{Moved, PatchTask, Stem};
use crate::device::{Decisions, Description, Device, Perturbation, Products, Spare, threads};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::memory::Memory;
use crate::program::{Builder, Decided, LastAdjoint, Plan, Score, Statistic, Step, Times, Value};
use crate::random;
use crate::rule::{Composite, pull_back};
use crate::tensor::{Precision, Shape, Tensor};

/// Which device to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// An NVIDIA GPU if one is usable, else the CPU; [`Engine::fallback`] says why.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU by number.
    Cuda(usize),
    /// The GPU kernels, run on the CPU, with the threads in an order chosen by the number. Slow; for developing kernels
    /// without a GPU. Needs a C++ compiler.
    Emulated(u64),
}

impl std::str::FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let unknown = || {
            Error::settings(format!(
                "no device is named '{s}'; there are auto, cpu, cuda, cuda:N and, for work on kernels, emulated"
            ))
        };
        match s {
            "emulated" => Ok(DeviceChoice::Emulated(0)),
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                if let Some(seed) = s.strip_prefix("emulated:") {
                    return Ok(DeviceChoice::Emulated(seed.parse().map_err(|_| unknown())?));
                }
                let number = s.strip_prefix("cuda:").ok_or_else(unknown)?;
                Ok(DeviceChoice::Cuda(number.parse().map_err(|_| unknown())?))
            }
        }
    }
}

/// An engine's device, precision and limits.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which device computes.
    pub device: DeviceChoice,
    /// Precision of the computation; double precision has only the portable kernels.
    pub precision: Precision,
    /// Which vector instructions the CPU uses.
    pub kernels: Kernels,
    /// How accurately the CPU computes large 3×3 convolutions, and a GPU backward signals.
    pub convolution: Convolution,
    /// The number format in which a GPU multiplies.
    pub products: Products,
    /// Folder of kernels to use instead of the library's own.
    pub kernel_dir: Option<std::path::PathBuf>,
    /// Worker threads of the CPU; all cores if not given. Results do not depend on their number.
    pub threads: Option<usize>,
    /// Bytes allowed for weights, feature maps, scratch and memory that methods hold, together. If not given: four
    /// fifths of the memory that the machine and the limits on this process leave when the engine is opened (where that
    /// is known). On a GPU: bytes of GPU memory; all of it if not given.
    pub memory: Option<u64>,
}

/// Pictures of one shape, normalised.
#[derive(Debug, Clone)]
pub struct Batch {
    items: Vec<Tensor>,
    /// Computed on first use: most batches are copies and need no draws.
    draws: OnceLock<AllDraws>,
    shape: Shape,
}

/// What the random draws of a picture depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// The first 64 bits of the SHA-256 of its numbers.
    pub key: u64,
    /// Its largest number minus its smallest: noise is given as a share of this range.
    pub range: f64,
}

/// The draws of a batch; those of one picture need no memory of their own.
#[derive(Debug, Clone)]
enum AllDraws {
    One([Draws; 1]),
    Many(Vec<Draws>),
}

impl FromIterator<Draws> for AllDraws {
    fn from_iter<D: IntoIterator<Item = Draws>>(draws: D) -> Self {
        let mut draws = draws.into_iter();
        match (draws.next(), draws.next()) {
            (Some(one), None) => AllDraws::One([one]),
            (first, second) => AllDraws::Many(first.into_iter().chain(second).chain(draws).collect()),
        }
    }
}

impl Draws {
    fn of(picture: &Tensor) -> Self {
        let ends = |(lo, hi): (f64, f64), v: f64| (lo.min(v), hi.max(v));
        let (lo, hi) = picture.each().fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        Self { key: random::image_key(picture), range: hi - lo }
    }
}

impl Batch {
    /// From `[N, C, H, W]`, normalised as the net expects.
    ///
    /// # Errors
    /// When there are no pictures, the rank is not 4, or a number is NaN or infinite (the message names the first).
    pub fn new(tensor: &Tensor) -> Result<Self> {
        let &[n, c, h, w] = tensor.dims() else {
            return Err(Error::input(format!("a batch has axes [N, C, H, W], not {:?}", tensor.dims())));
        };
        Shape::new(c, h, w).checked().map_err(|e| Error::input(e.to_string()))?;
        Self::of((0..n).map(|i| tensor.item(i)).collect::<Result<Vec<_>>>()?)
    }

    /// From `[C, H, W]` each; errors as [`Batch::new`].
    pub fn of(items: Vec<Tensor>) -> Result<Self> {
        let Some(&[c, h, w]) = items.first().map(Tensor::dims) else {
            return Err(Error::input("a batch needs pictures with axes [C, H, W]"));
        };
        let shape = Shape::new(c, h, w).checked().map_err(|e| Error::input(e.to_string()))?;
        for (i, item) in items.iter().enumerate() {
            if item.dims() != shape.dims() {
                return Err(Error::input(format!("pictures of shapes {shape} and {:?} in one batch", item.dims())));
            }
            if let Some(at) = item.first_not_finite() {
                let [channel, row, column] = [at / (h * w), at / w % h, at % w];
                return Err(Error::input(format!(
                    "picture {i} holds {} at channel {channel}, row {row}, column {column}",
                    item.at(at)
                )));
            }
        }
        Ok(Self { items, draws: OnceLock::new(), shape })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Always false.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// `[C, H, W]` of each picture.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The pictures without their draws.
    pub(crate) fn into_items(self) -> Vec<Tensor> {
        self.items
    }

    /// The pictures.
    pub fn items(&self) -> &[Tensor] {
        &self.items
    }

    /// The draws of each picture.
    pub fn draws(&self) -> &[Draws] {
        match self.draws.get_or_init(|| self.items.iter().map(Draws::of).collect()) {
            AllDraws::One(one) => one,
            AllDraws::Many(many) => many,
        }
    }

    /// The key of each picture's random draws.
    pub fn keys(&self) -> Vec<u64> {
        self.draws().iter().map(|d| d.key).collect()
    }

    /// The same pictures with `others`' random seeds, so that maps differ only because the pictures do.
    ///
    /// # Errors
    /// When the number of pictures differs.
    pub fn drawn_as(self, others: &Batch) -> Result<Self> {
        if others.len() != self.len() {
            return Err(Error::settings(format!("draws of {} pictures for {}", others.len(), self.len())));
        }
        Ok(Self { draws: AllDraws::from_iter(others.draws().iter().copied()).into(), ..self })
    }

    /// The pictures in `range`, with their draws.
    ///
    /// # Errors
    /// When `range` is empty or extends beyond the last picture.
    pub fn part(&self, range: std::ops::Range<usize>) -> Result<Self> {
        match (self.items.get(range.clone()), self.draws().get(range.clone())) {
            (Some(items), Some(draws)) if !items.is_empty() => Ok(Self {
                items: items.to_vec(),
                draws: AllDraws::from_iter(draws.iter().copied()).into(),
                shape: self.shape,
            }),
            _ => Err(Error::settings(format!("pictures {range:?} of {}", self.len()))),
        }
    }
}

/// Where the explained signal is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// The picture.
    Input,
    /// The output of a node.
    Node(NodeId),
}

/// Copies of each picture.
#[derive(Debug, Clone)]
pub struct Copies {
    /// How they differ.
    pub perturbation: Perturbation,
    /// Weight of each copy in the map; their number is the number of copies.
    pub weights: Vec<f64>,
}

impl Copies {
    /// The picture itself, once.
    pub fn one() -> Self {
        Self { perturbation: Perturbation::None, weights: vec![1.0] }
    }

    /// [`Copies::one`], made once.
    pub(crate) fn single() -> &'static Self {
        static SINGLE: LazyLock<Copies> = LazyLock::new(Copies::one);
        &SINGLE
    }
}

/// The signal at the logits with which the backward pass starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// The gradient of the score.
    Gradient,
    /// The gradient of the score times the logits, i.e. the target's logit at its position; for rules that distribute
    /// relevance.
    Relevance,
}

impl Start {
    /// Writes the score step and the signal at the logits.
    pub(crate) fn signal(self, b: &mut Builder<'_>, score: Score) -> Result<Value> {
        let seed = b.seed(score);
        match self {
            Start::Gradient => Ok(seed),
            Start::Relevance => {
                let logits = b.output(b.graph().output());
                b.mul(seed, logits)
            }
        }
    }
}

/// Perturb → differentiate → aggregate, as plain data.
#[derive(Debug, Clone)]
pub struct Job {
    /// The explained score.
    pub score: Score,
    /// The signal with which the backward pass starts.
    pub start: Start,
    /// Backward rules.
    pub rules: Composite,
    /// Copies of each picture.
    pub copies: Copies,
    /// Where the signal is taken; this fixes the map's positions.
    pub at: At,
    /// How the copies are aggregated into one map.
    pub statistic: Statistic,
    /// Factor applied to the statistic.
    pub times: Times,
}

impl Job {
    /// The plain gradient of `score`.
    pub fn gradient(score: Score) -> Self {
        Self::of_copies(score, Copies::one())
    }

    /// The sum of the copies' gradients of `score`, each times its weight.
    pub(crate) fn of_copies(score: Score, copies: Copies) -> Self {
        Self {
            score,
            start: Start::Gradient,
            rules: Composite::gradient(),
            copies,
            at: At::Input,
            statistic: Statistic::Sum,
            times: Times::One,
        }
    }
}

/// A signal's path backwards through a net.
#[derive(Debug, Clone, Copy)]
pub struct Pullback<'a> {
    /// Node at whose output the signal enters.
    pub from: NodeId,
    /// `[N, c, h, w]`, with the shape of that output.
    pub signal: &'a Tensor,
    /// Rules for the nodes in between.
    pub rules: &'a Composite,
    /// Node at whose output the signal is read.
    pub to: NodeId,
}

/// What a method's own program runs on.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The pictures.
    pub x: &'a Batch,
    /// Class scored on each picture.
    pub targets: &'a [usize],
    /// Copies of each picture.
    pub copies: &'a Copies,
    /// The tensors that the program loads: by slot, one per picture, in the shape in which it is loaded.
    pub loads: &'a [Vec<Tensor>],
}

impl Task<'_> {
    fn check(&self, graph: &Graph) -> Result<()> {
        check(graph, self.x, self.targets)?;
        self.copies.check(self.x)
    }
}

/// The results of a [`Task`].
#[derive(Debug, Clone)]
pub struct Outcome<T = ()> {
    /// The author's notes from writing the program.
    pub notes: Arc<T>,
    /// By slot of the program's stores, then by picture and copy.
    pub stores: Vec<Vec<Tensor>>,
    /// Score of every copy, by picture: the last head's; zeros if there is no head.
    pub scores: Vec<Vec<f64>>,
    /// Logits of every copy, by picture: the last head's; empty if there is no head.
    pub logits: Vec<Vec<Vec<f64>>>,
    /// If the program aggregates: the statistic over each picture's copies.
    pub maps: Vec<Tensor>,
}

/// One map per picture, and the scores of its copies.
#[derive(Debug, Clone)]
pub struct Answer {
    /// One per picture: `[C, H, W]` of the node at which the signal was read.
    pub maps: Vec<Tensor>,
    /// Score of every copy, by picture.
    pub scores: Vec<Vec<f64>>,
}

/// The logit score alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ScoreScript(pub Score);

impl Script for ScoreScript {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        b.score(self.0);
        Ok(())
    }
}

/// [`Job`]'s program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct JobScript {
    score: Score,
    start: Start,
    rules: Composite,
    node: NodeId,
    statistic: Statistic,
}

impl Script for JobScript {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let seed = self.start.signal(b, self.score)?;
        let signal = pull_back(b, &self.rules, b.graph().output(), seed, self.node)?;
        b.aggregate(signal, self.statistic)
    }
}

/// Outputs of nodes, one per slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Outputs(Vec<NodeId>);

impl Script for Outputs {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        self.0.iter().enumerate().try_for_each(|(slot, &node)| b.store(b.output(node), slot))
    }
}

/// [`Pullback`]'s program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PulledBack {
    from: NodeId,
    rules: Composite,
    to: NodeId,
}

impl Script for PulledBack {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let up = b.load(0, b.graph().node(self.from).shape)?;
        let down = pull_back(b, &self.rules, self.from, up, self.to)?;
        b.store(down, 0)?;
        // An overflow shows only in the logits: a signal passes through what a NaN decided.
        b.score(Score::Logit);
        Ok(())
    }
}

/// The decisions of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Decides;

impl Script for Decides {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        b.store_decisions()?;
        // An overflow shows only in the logits: a NaN makes decisions too.
        b.score(Score::Logit);
        Ok(())
    }
}

/// A device, its limits, and the programs compiled for it so far.
///
/// Plans and packed weights are kept between calls, so reuse an engine. It may move to another thread; it runs one
/// program at a time. Results do not depend on threads, memory or how pictures are batched.
pub struct Engine {
    device: Box<dyn Device>,
    fallback: Option<String>,
    memory: Option<u64>,
    /// Whether the device uses host memory.
    on_host: bool,
    /// Bytes that methods currently hold on the host ([`Engine::keeping`]).
    kept: u64,
    plans: Plans,
    /// By graph.
    reaches: HashMap<u64, Arc<reach::Reach>>,
    /// Filled while [`Engine::profile`] runs.
    recorder: Option<profile::Recorder>,
    spare: Spare,
    observer: Option<Observer>,
    cancel: Cancel,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("device", &self.device.describe()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with the given settings.
    ///
    /// # Errors
    /// When the device or its kernels do not exist here.
    pub fn new(settings: &Settings) -> Result<Self> {
        let opened = open(settings)?;
        // A GPU knows its own memory. A fifth is left to other processes.
        let memory =
            settings.memory.or_else(|| if opened.on_host { Some(Memory::now().left()? / 5 * 4) } else { None });
        Ok(Self {
            device: opened.device,
            fallback: opened.fallback,
            memory,
            on_host: opened.on_host,
            kept: 0,
            plans: Plans::default(),
            reaches: HashMap::new(),
            recorder: None,
            spare: Spare::default(),
            observer: None,
            cancel: Cancel::default(),
        })
    }

    /// Lets `cancel` stop running work: once it is set, every call ends with an error of kind cancelled.
    pub fn cancel_with(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
        self.device.cancel_with(cancel);
    }

    /// Why the CPU is used although a GPU driver is present; `None` if there was nothing to fall back from.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The device and its settings.
    pub fn describe(&self) -> Description {
        self.device.describe()
    }

    /// Applies `f` to every item on this engine's threads; results in order.
    pub(crate) fn spread<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
        threads::map(items, self.device.pool(), f)
    }

    /// Peak bytes of packed weights, feature maps, scratch and memory that methods hold.
    pub fn peak_bytes(&self) -> u64 {
        self.device.peak_bytes()
    }

    /// The plan of `script` for that many copies per picture, from the cache if possible.
    fn plan<S: Script>(
        &mut self,
        graph: &Graph,
        decided: Decided,
        copies: usize,
        script: &S,
    ) -> Result<(Arc<Plan>, Arc<S::Notes>)> {
        let last = LastAdjoint::paying(self.device.last_adjoint(), copies);
        let key = PlanKey { graph: graph.id(), decided, last };
        if let Some(kept) = self.plans.get(key, script)? {
            return Ok(kept);
        }
        let (plan, notes) = self.lay_out(graph, decided, last, |b| script.write(b))?;
        self.plans.keep(key, script, &plan, &notes);
        Ok((plan, notes))
    }

    fn lay_out<T>(
        &mut self,
        graph: &Graph,
        decided: Decided,
        last: LastAdjoint,
        build: impl FnOnce(&mut Builder<'_>) -> Result<T>,
    ) -> Result<(Arc<Plan>, Arc<T>)> {
        let mut b = Builder::new(graph, decided)?;
        let notes = build(&mut b)?;
        let program = b.finish_watching(&self.reach(graph).watched);
        let bytes_of = |form| self.device.bytes_of(form);
        let plan = match last {
            LastAdjoint::EachCopy => Plan::new(program, bytes_of),
            LastAdjoint::EachPicture { least_products, .. } => Plan::closed(program, bytes_of, least_products),
        };
        Ok((Arc::new(plan), Arc::new(notes)))
    }

    /// Runs `script` on each unperturbed picture, whose target does not matter.
    fn evaluate_plainly<S: Script>(
        &mut self,
        graph: &Graph,
        x: &Batch,
        loads: &[Vec<Tensor>],
        script: &S,
    ) -> Result<Outcome<S::Notes>> {
        let targets = self.spare.of((0..x.len()).map(|_| 0));
        let outcome = self.evaluate(graph, script, &Task { x, targets: &targets, copies: Copies::single(), loads });
        self.spare.keep(targets);
        outcome
    }

    /// Logits of each picture, `[N, classes]` in double precision.
    ///
    /// # Errors
    /// When shapes do not match, memory is not enough or a result is not finite.
    pub fn forward(&mut self, graph: &Graph, x: &Batch) -> Result<Tensor> {
        let outcome = self.evaluate_plainly(graph, x, &[], &ScoreScript(Score::Logit))?;
        let classes = graph.classes();
        let mut logits = self.spare.take(x.len() * classes);
        logits.extend(outcome.logits.iter().flatten().flatten());
        outcome.keep_in(&mut self.spare);
        self.spare.round(&[x.len(), classes], logits, Precision::F64)
    }

    /// One raw map per picture; `targets[i]` is the class explained on picture `i`.
    ///
    /// Statistics are summed in double precision and rounded to the engine's precision at the end.
    ///
    /// # Errors
    /// When shapes or targets do not match, memory is not enough or a result is not finite.
    pub fn explain(&mut self, graph: &Graph, job: &Job, x: &Batch, targets: &[usize]) -> Result<Answer> {
        self.explain_decided(graph, job, x, targets, None)
    }

    /// As [`Engine::explain`], but the backward pass uses the given decisions (one set per picture) of another forward
    /// pass.
    ///
    /// # Errors
    /// As [`Engine::explain`], and when decisions are missing.
    pub fn explain_under(
        &mut self,
        graph: &Graph,
        job: &Job,
        x: &Batch,
        targets: &[usize],
        decisions: &[Decisions],
    ) -> Result<Answer> {
        self.explain_decided(graph, job, x, targets, Some(decisions))
    }

    fn explain_decided(
        &mut self,
        graph: &Graph,
        job: &Job,
        x: &Batch,
        targets: &[usize],
        decisions: Option<&[Decisions]>,
    ) -> Result<Answer> {
        check(graph, x, targets)?;
        let node = match job.at {
            At::Input => graph.input(),
            At::Node(node) => node,
        };
        graph.check(node)?;
        if decisions.is_some_and(|d| d.len() != x.len()) {
            return Err(Error::settings(format!("{} pictures need decisions each", x.len())));
        }
        let copies = job.copies.weights.len();
        if copies == 0 || (job.statistic == Statistic::Variance && copies < 2) {
            return Err(Error::settings(format!("{copies} copies are too few for this statistic")));
        }
        job.copies.check(x)?;
        let shape = graph.node(node).shape;
        check_factor(job, shape, x)?;
        let decided = if decisions.is_some() { Decided::Elsewhere } else { Decided::Here };
        let &Job { score, start, statistic, .. } = job;
        let script = JobScript { score, start, rules: job.rules.clone(), node, statistic };
        let (plan, _) = self.plan(graph, decided, copies, &script)?;
        let decisions = decisions.unwrap_or(&[]);
        let run = ProgramRun { decisions, ..ProgramRun::plain(&plan, graph, x, targets, &job.copies) };
        let (mut scores, mut maps) = (self.spare.take(x.len()), self.spare.take(x.len()));
        (0..x.len()).for_each(|_| scores.push(self.spare.take(copies)));
        let precision = self.device.precision();
        let sums = self.spare.of((0..x.len()).map(|_| (job.statistic, shape.len())));
        self.run(&run, sums, |harvest, slots| {
            for (slot, &score) in slots.iter().zip(&harvest.scores) {
                scores[slot.item].push(score);
                if slot.copy + 1 == copies {
                    let sum = std::mem::take(&mut harvest.sums[slot.item]);
                    let mut values = sum.finish(job.statistic, precision, &mut harvest.spare);
                    multiply(&mut values, job, x, slot.item);
                    let map = harvest.spare.round(&shape.dims(), values, precision)?;
                    if map.first_not_finite().is_some() {
                        return Err(Error::device(format!("the map of picture {} overflowed", slot.item)));
                    }
                    // Pictures end in order.
                    maps.push(map);
                }
            }
            Ok(())
        })?;
        Ok(Answer { maps, scores })
    }

    /// Outputs of some nodes on each picture: `[N, c, h, w]` per node.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn node_outputs(&mut self, graph: &Graph, x: &Batch, nodes: &[NodeId]) -> Result<Vec<Tensor>> {
        nodes.iter().try_for_each(|&node| graph.check(node))?;
        let outcome = self.evaluate_plainly(graph, x, &[], &Outputs(nodes.to_vec()))?;
        // One at a time: stacking holds each tensor twice.
        outcome.stores.into_iter().map(|o| Tensor::stack(&o)).collect()
    }

    /// Takes a signal backwards: `[N, c, h, w]` at the node where it ends.
    ///
    /// # Errors
    /// As [`Engine::forward`], and when the end is not upstream of the start.
    pub fn pullback(&mut self, graph: &Graph, x: &Batch, way: &Pullback<'_>) -> Result<Tensor> {
        let &Pullback { from, signal, rules, to } = way;
        check_shapes(graph, x)?;
        graph.check(from)?;
        graph.check(to)?;
        let shape = graph.node(from).shape;
        if signal.dims() != [&[x.len()][..], &shape.dims()[..]].concat() {
            return Err(Error::input(format!("a signal of shape {:?} at a node of {shape}", signal.dims())));
        }
        let loads = [(0..x.len()).map(|i| signal.item(i)).collect::<Result<Vec<_>>>()?];
        let outcome = self.evaluate_plainly(graph, x, &loads, &PulledBack { from, rules: rules.clone(), to })?;
        Tensor::stack(&outcome.stores.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Which activations are active and which pooled elements win, for each picture.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn decisions(&mut self, graph: &Graph, x: &Batch) -> Result<Vec<Decisions>> {
        check_shapes(graph, x)?;
        let (plan, _) = self.plan(graph, Decided::Here, 1, &Decides)?;
        let (targets, copies) = (vec![0; x.len()], Copies::one());
        let run = ProgramRun::plain(&plan, graph, x, &targets, &copies);
        let mut out = Vec::with_capacity(x.len());
        self.run(&run, Vec::new(), |harvest, _| {
            out.append(&mut harvest.decisions);
            Ok(())
        })?;
        Ok(out)
    }

    /// Runs the program that `script` writes, which may combine forward passes, scores, rules, loads and stores. It is
    /// written once per graph and cached.
    ///
    /// # Errors
    /// When the script fails, shapes, targets or loads do not match, memory is not enough or a result is not finite.
    pub fn evaluate<S: Script>(&mut self, graph: &Graph, script: &S, task: &Task<'_>) -> Result<Outcome<S::Notes>> {
        task.check(graph)?;
        let (plan, notes) = self.plan(graph, Decided::Here, task.copies.weights.len(), script)?;
        self.run_task(graph, task, &plan, notes)
    }

    /// As [`Engine::evaluate`], with a program that is written for this call and not cached.
    ///
    /// # Errors
    /// As [`Engine::evaluate`].
    pub fn evaluate_once<T>(
        &mut self,
        graph: &Graph,
        task: &Task<'_>,
        build: impl FnOnce(&mut Builder<'_>) -> Result<T>,
    ) -> Result<Outcome<T>> {
        task.check(graph)?;
        let last = LastAdjoint::paying(self.device.last_adjoint(), task.copies.weights.len());
        let (plan, notes) = self.lay_out(graph, Decided::Here, last, build)?;
        self.run_task(graph, task, &plan, notes)
    }

    fn run_task<T>(&mut self, graph: &Graph, task: &Task<'_>, plan: &Arc<Plan>, notes: Arc<T>) -> Result<Outcome<T>> {
        let &Task { x, targets, copies, loads } = task;
        let mut statistic = None;
        for step in plan.steps() {
            match step {
                Step::Load { slot, out } => {
                    let dims = plan.form(*out).shape().dims();
                    let suits =
                        |given: &Vec<Tensor>| given.len() == x.len() && given.iter().all(|t| is_of(t.dims(), dims));
                    if !loads.get(*slot).is_some_and(suits) {
                        let n = x.len();
                        return Err(Error::settings(format!("load {slot} wants {n} tensors of shape {dims:?}")));
                    }
                }
                Step::Aggregate { x: read, statistic: s } => {
                    let shape = plan.closing().map_or_else(|| plan.form(*read).shape(), |closing| closing.map);
                    if statistic.replace((*s, shape)).is_some() {
                        return Err(Error::settings("a program has one statistic at most"));
                    }
                }
                _ => {}
            }
        }
        let n = copies.weights.len();
        let run = ProgramRun { loads, ..ProgramRun::plain(plan, graph, x, targets, copies) };
        let (spare, pictures) = (&mut self.spare, 0..x.len());
        let (mut scores, mut logits) = (spare.take(x.len()), spare.take(x.len()));
        pictures.clone().for_each(|_| scores.push(spare.take(n)));
        pictures.clone().for_each(|_| logits.push(spare.take(n)));
        let (stores, maps) = (spare.take(plan.program().stores()), spare.take(statistic.map_or(0, |_| x.len())));
        let mut outcome = Outcome { notes, stores, maps, scores, logits };
        let precision = self.device.precision();
        let sums = statistic.map_or(Vec::new(), |(s, shape)| spare.of(pictures.map(|_| (s, shape.len()))));
        self.run(&run, sums, |harvest, slots| {
            for (i, slot) in slots.iter().enumerate() {
                outcome.scores[slot.item].push(harvest.scores[i]);
                outcome.logits[slot.item].push(std::mem::take(&mut harvest.logits[i]));
                if let Some((statistic, shape)) = statistic
                    && slot.copy + 1 == n
                {
                    let sum = std::mem::take(&mut harvest.sums[slot.item]);
                    let values = sum.finish(statistic, precision, &mut harvest.spare);
                    outcome.maps.push(harvest.spare.round(&shape.dims(), values, precision)?);
                }
            }
            while outcome.stores.len() < harvest.stores.len() {
                outcome.stores.push(harvest.spare.take(x.len() * n));
            }
            harvest.stores.iter_mut().zip(&mut outcome.stores).for_each(|(new, all)| all.append(new));
            Ok(())
        })?;
        Ok(outcome)
    }

    /// Largest magnitude of the first layer's outputs, per picture.
    pub(crate) fn largest_output(&mut self, stem: &Stem, pictures: &[Tensor]) -> Result<Vec<f64>> {
        stem.check(pictures)?;
        self.device.largest_output(stem, pictures, self.memory)
    }

    /// Moves patches of pictures through the first layer, each picture independently.
    pub(crate) fn move_patches(&mut self, task: &PatchTask<'_>) -> Result<Vec<Moved>> {
        task.check()?;
        self.device.move_patches(task, self.memory)
    }
}

/// Refuses pictures whose shape is not the net's, and targets that are not one valid class per picture.
pub(crate) fn check(graph: &Graph, x: &Batch, targets: &[usize]) -> Result<()> {
    check_shapes(graph, x)?;
    if targets.len() == x.len() && targets.iter().all(|&t| t < graph.classes()) {
        return Ok(());
    }
    Err(Error::settings(format!("{} pictures need one class each below {}, got {targets:?}", x.len(), graph.classes())))
}

fn check_shapes(graph: &Graph, x: &Batch) -> Result<()> {
    if x.shape() == graph.input_shape() {
        return Ok(());
    }
    Err(Error::input(format!("the net was made for pictures of {}, not {}", graph.input_shape(), x.shape())))
}

/// Whether a tensor of `dims` can be loaded as a value of shape `[c, h, w]`: equal up to leading or trailing ones.
fn is_of(dims: &[usize], shape: [usize; 3]) -> bool {
    let bare = |d: &[usize]| d.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    bare(dims) == bare(&shape)
}

/// Whether maps of `shape` can be multiplied by the job's factor.
fn check_factor(job: &Job, shape: Shape, x: &Batch) -> Result<()> {
    let path = matches!(job.copies.perturbation, Perturbation::Path { .. });
    match job.times {
        Times::One => Ok(()),
        _ if shape != x.shape => Err(Error::settings(format!(
            "a map of {shape} cannot be multiplied by pictures of {}: only one of their shape can",
            x.shape
        ))),
        Times::InputMinusBaseline if !path => {
            Err(Error::settings("only copies on a path from a baseline can be multiplied by the way from it"))
        }
        Times::Input | Times::InputMinusBaseline => Ok(()),
    }
}

/// Multiplies a map by the job's factor, which [`check_factor`] has accepted.
fn multiply(values: &mut [f64], job: &Job, x: &Batch, item: usize) {
    let picture = &x.items[item];
    match (job.times, &job.copies.perturbation) {
        (Times::One, _) => {}
        (Times::InputMinusBaseline, Perturbation::Path { baselines, .. }) => {
            let baseline = &baselines[item];
            values.iter_mut().enumerate().for_each(|(i, v)| *v *= picture.at(i) - baseline.at(i));
        }
        (Times::Input | Times::InputMinusBaseline, _) => {
            values.iter_mut().enumerate().for_each(|(i, v)| *v *= picture.at(i));
        }
    }
}
