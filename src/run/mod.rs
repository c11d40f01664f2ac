//! Runs over many inputs: one loop, in which a bad input never fails its neighbours, results are written completely or
//! not at all, and records let a stopped run continue.
//!
//! [`drive`] takes inputs from a stream ([`ItemStream`](crate::data::ItemStream), for labelled data [`Pictures`]) and
//! hands them to an [`InputWork`]: [`Explain`], [`AttackRun`], [`Evaluation`], [`Checks`] or [`Gather`].

mod attack;
mod check;
mod collect;
mod drawing;
mod earlier;
mod eval;
mod explain;
mod explained;
mod keeper;
mod ledger;
mod recorded;
mod resume;
mod said;
mod settings;

pub use attack::{AttackFormat, AttackLine, AttackOptions, AttackRecord, AttackRun, MapsCompared};
pub use check::{Checks, Hears};
pub use collect::{Fitting, Gather, Gathered, InputPair, KeptInputs, Paired, Sink, Specimens};
pub use eval::{Content, EvalOptions, Evaluation, Measure, Pictures, ShownPicture, Unit, UnitKind, Units, choose};
pub use explain::{Explain, ExplainOptions, Format, shares_out};
pub use explained::{Explained, explain_items, together};
pub use ledger::{Earlier, Ledger, Show, SourceTally, Totals, lock};
pub use said::Said;
pub use settings::{Named, many_passes, methods, precision_name};

use crate::cancel::Cancel;
use crate::data::{Event, ItemPosition, Source};
use crate::engine::Observer;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::tensor::Shape;

/// Receives the progress of a run. Every method is optional and does nothing by default.
pub trait Listener {
    /// Announces the number of sources to come.
    fn begin(&self, _sources: usize) {}

    /// Reports a sentence that stands alone.
    fn say(&self, _sentence: &str) {}

    /// Reports the current activity.
    fn at(&self, _what: &str) {}

    /// Reports that another source is finished.
    fn step(&self, _what: &str) {}

    /// Reports that another input, of very many, is finished.
    fn pass(&self, _what: &str) {}

    /// The observer for the progress of long methods, if any.
    fn observer(&self) -> Option<Observer> {
        None
    }

    /// The flag by which the run can be stopped.
    fn cancel(&self) -> Cancel {
        Cancel::default()
    }
}

/// A listener that ignores everything.
impl Listener for () {}

/// Processes inputs.
pub trait InputWork {
    /// An input, as read from the stream.
    type Input;

    /// The name of source `at`.
    fn name(&self, at: usize) -> String;

    /// Most inputs in a group whose first is `at`.
    fn together(&self, _at: ItemPosition) -> usize {
        1
    }

    /// Whether `next` can join a group that starts with `first`.
    fn joins(&self, _first: &Self::Input, _next: &Self::Input) -> bool {
        true
    }

    /// Lets `cancel` stop the work.
    fn cancel_with(&mut self, cancel: &Cancel);

    /// Begins a source; for an array, with its number of rows and whether it is a single input without a row axis.
    ///
    /// # Errors
    /// When the run cannot go on.
    fn begin(&mut self, _at: usize, _array: Option<(usize, bool)>) -> Result<()> {
        Ok(())
    }

    /// Processes a group of inputs.
    ///
    /// # Errors
    /// When the run cannot go on. An error in one input is recorded for that input alone.
    fn group(&mut self, inputs: Vec<(ItemPosition, Self::Input)>, listener: &dyn Listener) -> Result<()>;

    /// Handles an input that cannot be used.
    ///
    /// # Errors
    /// When the run cannot go on.
    fn failed(&mut self, at: ItemPosition, why: Error, listener: &dyn Listener) -> Result<()>;

    /// Handles an input that was completed before.
    fn skipped(&mut self, _at: ItemPosition, _listener: &dyn Listener) {}

    /// Ends a source, all of whose inputs have been passed; returns its outcome in one line.
    ///
    /// # Errors
    /// When the run cannot go on.
    fn end(&mut self, at: usize) -> Result<Option<String>>;

    /// Whether more inputs are wanted.
    fn wants_more(&self) -> bool {
        true
    }
}

/// Takes inputs from `stream` and passes them to `work` in groups, until there are no more.
///
/// # Errors
/// Cancelled when the listener's flag is set; errors of `work` that end a run. Completed results are kept.
pub fn drive<W: InputWork>(
    stream: impl Iterator<Item = Event<W::Input>>,
    work: &mut W,
    listener: &dyn Listener,
) -> Result<()> {
    let cancel = listener.cancel();
    work.cancel_with(&cancel);
    let mut group: Vec<(ItemPosition, W::Input)> = Vec::new();
    // Sources that have ended while their last input is pending.
    let mut ended: Vec<usize> = Vec::new();
    let mut rows = None;
    fn flush<W: InputWork>(
        work: &mut W,
        group: &mut Vec<(ItemPosition, W::Input)>,
        ended: &mut Vec<usize>,
        listener: &dyn Listener,
    ) -> Result<()> {
        if !group.is_empty() {
            work.group(std::mem::take(group), listener)?;
        }
        for at in ended.drain(..) {
            work.end(at)?.into_iter().for_each(|line| listener.step(&line));
        }
        Ok(())
    }
    for event in stream {
        cancel.check()?;
        match event {
            Event::Begin(at, array) => {
                listener.at(&work.name(at));
                // Rows of an array are not grouped with anything else.
                if array.is_some() {
                    flush(work, &mut group, &mut ended, listener)?;
                }
                rows = array;
                work.begin(at, array)?;
            }
            Event::Skipped(at) => work.skipped(at, listener),
            Event::Input(at, Err(e)) => {
                // Records keep the order of the inputs.
                flush(work, &mut group, &mut ended, listener)?;
                work.failed(at, e, listener)?;
            }
            Event::Input(at, Ok(input)) => {
                if group.first().is_some_and(|(_, first)| !work.joins(first, &input)) {
                    flush(work, &mut group, &mut ended, listener)?;
                }
                if let (true, (source, Some(row)), Some((rows, _))) = (group.is_empty(), at, rows) {
                    listener.at(&format!("{} [{row} of {rows}]", work.name(source)));
                }
                group.push((at, input));
                if group.len() >= work.together(group[0].0) {
                    flush(work, &mut group, &mut ended, listener)?;
                }
            }
            Event::End(at) => {
                if rows.take().is_some() {
                    ended.push(at);
                    flush(work, &mut group, &mut ended, listener)?;
                } else if group.iter().any(|((source, _), _)| *source == at) {
                    ended.push(at);
                } else {
                    work.end(at)?.into_iter().for_each(|line| listener.step(&line));
                }
            }
        }
        if !work.wants_more() {
            break;
        }
    }
    flush(work, &mut group, &mut ended, listener)
}

/// The sentence about results that are recomputed.
fn outdated(n: usize) -> String {
    match n {
        1 => "1 earlier result has other settings and is made again".to_owned(),
        n => format!("{n} earlier results have other settings and are made again"),
    }
}

/// Ends a run over pictures before its first success if memory is too small for the net: all pictures are prepared
/// alike, so none would fit.
fn too_small<T>(made: &Result<T>, proven: &mut bool, sources: &[Source]) -> Result<()> {
    match made {
        Err(e) if e.kind() == ErrorKind::Limit && !*proven && !sources.iter().any(Source::is_array) => {
            let way = if e.to_string().contains("--memory") { "" } else { "; --memory SIZE sets the bound" };
            Err(Error::limit(format!("{e}{way}")))
        }
        Err(_) => Ok(()),
        Ok(_) => {
            *proven = true;
            Ok(())
        }
    }
}

/// Ends a run, before its first success, if the failure of one input applies to all `sources`. An error about the
/// input's shape concerns that input alone, unless all have that shape: because the net takes no other, or because all
/// are pictures, which are prepared alike.
fn hopeless<T>(made: &Result<T>, proven: &mut bool, graph: &Graph, sources: &[Source]) -> Result<()> {
    let mut known = *proven;
    too_small(made, &mut known, sources)?;
    let Err(e) = made else {
        *proven = true;
        return Ok(());
    };
    let Shape { c, h, w } = graph.input_shape();
    let always = match e.kind() {
        ErrorKind::Cancelled => return Err(Error::new(e.kind(), e.to_string())),
        ErrorKind::Settings => true,
        ErrorKind::Shape => {
            !sources.iter().any(Source::is_array) || graph.resized(Shape::new(c, 2 * h, 2 * w)).is_err()
        }
        _ => false,
    };
    if always && !*proven { Err(Error::new(e.kind(), e.to_string())) } else { Ok(()) }
}
