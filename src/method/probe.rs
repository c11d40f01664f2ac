//! What methods share that look at the net from outside: scores of many copies, nothing backward.

use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, Task};
use crate::error::Result;
use crate::graph::Graph;
use crate::program::Score;

/// Copies of a picture in one call of the engine, so that what a call leaves behind stays small. Results do not depend on
/// it.
pub(super) const BLOCK: usize = 100;

/// Score of every copy, by picture.
///
/// # Errors
/// As [`Engine::forward`], and when the perturbation does not describe `n` copies of each picture.
pub(super) fn scores(
    engine: &mut Engine,
    graph: &Graph,
    x: &Batch,
    targets: &[usize],
    score: Score,
    (perturbation, n): (Perturbation, usize),
) -> Result<Vec<Vec<f64>>> {
    let copies = Copies { perturbation, weights: vec![1.0; n] };
    let name = format!("scores {score:?}");
    let task = Task { name: &name, x, targets, copies: &copies, loads: &[] };
    let outcome = engine.evaluate(graph, &task, |b| {
        b.score(score);
        Ok(())
    })?;
    Ok(outcome.scores)
}
