//! Collects inputs of one size for work that needs many of them: pattern fits, a detector's training samples, shifted
//! data.

use std::sync::Arc;

use super::said::Said;
use super::{InputWork, Listener};
use crate::cancel::Cancel;
use crate::data::{Event, Item, ItemPosition, ItemStream, NetInput, Source, usual_shape};
use crate::engine::Batch;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::method::patterns::{Estimator, Fit};
use crate::reliability::detector::{Features, Laboratory, Specimen, SpecimenKind};
use crate::score::top;
use crate::session::Session;
use crate::tensor::{Shape, Tensor};

/// Pictures of known class for which a fit compares the net's predictions; enough to detect a wrong preparation.
const COMPARED: usize = 256;

/// An input and its attacked version, if any.
pub type InputPair = (Item, Option<Item>);

/// Consumes the collected inputs.
pub trait Sink {
    /// Most inputs that are processed together.
    fn together(&self, at: ItemPosition) -> usize;

    /// Takes inputs of the net's size, with their attacked versions and, if known, their classes.
    ///
    /// # Errors
    /// When the run cannot go on.
    fn take(&mut self, session: &mut Session, graph: &Arc<Graph>, inputs: Vec<Gathered>, said: &mut Said)
    -> Result<()>;
}

/// An input of the net's size.
pub struct Gathered {
    /// As the net takes it.
    pub input: Tensor,
    /// Its attacked version.
    pub attacked: Option<Tensor>,
    /// Its class.
    pub label: Option<usize>,
}

/// Collects inputs of the most frequent size; others are left out with a warning.
pub struct Gather<'a, S> {
    session: &'a mut Session,
    sources: Arc<[Source]>,
    /// The net for inputs of that size.
    pub graph: Option<Arc<Graph>>,
    /// Inputs still wanted.
    left: usize,
    /// Numbers of inputs used and left out.
    pub counts: [usize; 2],
    /// Remarks on the run.
    pub said: Said,
    /// The consumer.
    pub sink: S,
    /// Inputs used before the current source.
    before: usize,
}

impl<'a, S: Sink> Gather<'a, S> {
    /// Collects at most `limit` inputs.
    pub fn new(
        session: &'a mut Session,
        sources: Arc<[Source]>,
        net: NetInput<'_>,
        limit: Option<usize>,
        said: Said,
        sink: S,
    ) -> Self {
        let graph = usual_shape(&sources, net).and_then(|shape| session.model().graph(shape).ok());
        Self { session, sources, graph, left: limit.unwrap_or(usize::MAX), counts: [0; 2], said, sink, before: 0 }
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        self.session
    }

    /// Returns the input if it has the common size; if no size is set yet, the first input sets it.
    fn fitting(&mut self, input: Tensor) -> Result<Tensor> {
        let &[c, h, w] = input.dims() else {
            return Err(Error::input(format!("an input of shape {:?}", input.dims())));
        };
        let graph = match &self.graph {
            Some(graph) => graph,
            None => self.graph.insert(self.session.model().graph(Shape::new(c, h, w))?),
        };
        match graph.input_shape() {
            shape if input.dims() == shape.dims() => Ok(input),
            shape => Err(Error::input(format!("an input of shape {:?} among those of {shape}", input.dims()))),
        }
    }

    fn gathered(&mut self, (item, attacked): InputPair, listener: &dyn Listener) -> Result<Gathered> {
        std::iter::once(&item).chain(&attacked).for_each(|item| self.said.hear(item, listener));
        let (label, input) = (item.label, self.fitting(item.input)?);
        let attacked = attacked.map(|item| self.fitting(item.input)).transpose()?;
        Ok(Gathered { input, attacked, label })
    }

    fn leave_out(&mut self, why: &Error, listener: &dyn Listener) {
        self.counts[1] += 1;
        listener.say(&format!("left out: {why}"));
    }
}

impl<S: Sink> InputWork for Gather<'_, S> {
    type Input = InputPair;

    fn name(&self, at: usize) -> String {
        self.sources[at].shown.clone()
    }

    fn together(&self, at: ItemPosition) -> usize {
        self.sink.together(at).min(self.left)
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.session.cancel_with(cancel);
    }

    fn begin(&mut self, _: usize, _: Option<(usize, bool)>) -> Result<()> {
        self.before = self.counts[0];
        Ok(())
    }

    fn group(&mut self, inputs: Vec<(ItemPosition, InputPair)>, listener: &dyn Listener) -> Result<()> {
        let mut fitting = Vec::new();
        for (_, pair) in inputs {
            match self.gathered(pair, listener) {
                Ok(gathered) => fitting.push(gathered),
                Err(e) => self.leave_out(&e, listener),
            }
        }
        self.left -= fitting.len();
        self.counts[0] += fitting.len();
        match self.graph.clone() {
            Some(graph) if !fitting.is_empty() => self.sink.take(self.session, &graph, fitting, &mut self.said),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, _: ItemPosition, why: Error, listener: &dyn Listener) -> Result<()> {
        self.leave_out(&why, listener);
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<Option<String>> {
        let taken = crate::text::counted(self.counts[0] - self.before, "picture");
        Ok(Some(format!("{}: {taken}", self.sources[at].shown)))
    }

    fn wants_more(&self) -> bool {
        self.left > 0
    }
}

/// Stores the inputs.
#[derive(Debug, Default)]
pub struct KeptInputs(pub Vec<Tensor>);

impl Sink for KeptInputs {
    fn together(&self, _: ItemPosition) -> usize {
        1
    }

    fn take(&mut self, _: &mut Session, _: &Arc<Graph>, inputs: Vec<Gathered>, _: &mut Said) -> Result<()> {
        self.0.extend(inputs.into_iter().map(|gathered| gathered.input));
        Ok(())
    }
}

/// Fits patterns to the inputs.
pub struct Fitting {
    /// The estimator.
    pub estimator: Estimator,
    /// The fit; `None` before the first input.
    pub fit: Option<Fit>,
    /// Inputs whose class was compared with the net's prediction.
    compared: usize,
}

impl Fitting {
    /// An empty fit.
    pub fn new(estimator: Estimator) -> Self {
        Self { estimator, fit: None, compared: 0 }
    }
}

impl Sink for Fitting {
    fn together(&self, (_, row): ItemPosition) -> usize {
        if row.is_some() { 32 } else { 1 }
    }

    fn take(
        &mut self,
        session: &mut Session,
        graph: &Arc<Graph>,
        inputs: Vec<Gathered>,
        said: &mut Said,
    ) -> Result<()> {
        let labels: Vec<Option<usize>> = inputs.iter().map(|gathered| gathered.label).collect();
        let x = Batch::of(inputs.into_iter().map(|gathered| gathered.input).collect())?;
        let engine = session.engine();
        if self.compared < COMPARED && labels.iter().any(Option::is_some) {
            let logits = engine.forward(graph, &x)?;
            for (i, label) in labels.into_iter().enumerate() {
                let Some(label) = label else { continue };
                said.count(top(&logits.item(i)?.to_f64()) == Some(label));
                self.compared += 1;
            }
        }
        let fit = match &mut self.fit {
            Some(fit) => fit,
            None => self.fit.insert(Fit::new(graph, self.estimator, engine.describe().threads)?),
        };
        fit.add(engine, graph, &x)
    }
}

/// Turns the inputs into training samples of a detector.
pub struct Specimens<'a> {
    /// How pictures become inputs.
    pub preprocess: &'a Preprocess,
    /// The detector's features.
    pub features: &'a Features,
    /// Kinds of attacked versions to make.
    pub kinds: &'a [SpecimenKind],
    /// Seed for the attacks and the split.
    pub seed: u64,
    /// The samples so far.
    pub all: Vec<Specimen>,
}

impl Sink for Specimens<'_> {
    fn together(&self, _: ItemPosition) -> usize {
        16
    }

    fn take(
        &mut self,
        session: &mut Session,
        graph: &Arc<Graph>,
        inputs: Vec<Gathered>,
        said: &mut Said,
    ) -> Result<()> {
        let labels: Vec<Option<usize>> = inputs.iter().map(|gathered| gathered.label).collect();
        let pairs = inputs.into_iter().map(|gathered| (gathered.input, gathered.attacked));
        let (clean, attacked): (Vec<Tensor>, Vec<Option<Tensor>>) = pairs.unzip();
        let attacked: Option<Vec<Tensor>> = attacked.into_iter().collect();
        let laboratory = Laboratory {
            graph,
            preprocess: self.preprocess,
            features: self.features,
            kinds: self.kinds,
            seed: self.seed,
        };
        let found = laboratory.specimens(session.engine(), &Batch::of(clean)?, attacked.as_deref())?;
        for (specimen, label) in found.iter().zip(labels) {
            label.into_iter().for_each(|label| said.count(label == specimen.predicted));
        }
        self.all.extend(found);
        Ok(())
    }
}

/// Inputs, each with the attacked version at the same position of a second stream, if there is one.
pub struct Paired {
    clean: ItemStream,
    attacked: Option<ItemStream>,
    /// Whether the attacked versions ran out first.
    pub short: bool,
}

impl Paired {
    /// Pairs `attacked` with `clean` one by one.
    pub fn new(clean: ItemStream, attacked: Option<ItemStream>) -> Self {
        Self { clean, attacked, short: false }
    }

    fn partner(&mut self) -> Option<Option<Result<Item>>> {
        let Some(stream) = &mut self.attacked else { return Some(None) };
        stream.find_map(|event| match event {
            Event::Input(_, item) => Some(Some(item)),
            _ => None,
        })
    }

    /// Whether there are surplus attacked versions.
    pub fn is_long(&mut self) -> bool {
        self.attacked.is_some() && self.partner().is_some()
    }
}

impl Iterator for Paired {
    type Item = Event<InputPair>;

    fn next(&mut self) -> Option<Event<InputPair>> {
        Some(match self.clean.next()? {
            Event::Begin(at, array) => Event::Begin(at, array),
            Event::End(at) => Event::End(at),
            Event::Skipped(at) => Event::Skipped(at),
            Event::Input(at, item) => {
                let Some(partner) = self.partner() else {
                    self.short = true;
                    return None;
                };
                Event::Input(at, item.and_then(|item| Ok((item, partner.transpose()?))))
            }
        })
    }
}
