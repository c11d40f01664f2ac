//! Gradients of a score at the points of an attack.

use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::program::{Builder, Score, Statistic};
use crate::rule::{Composite, pull_back};
use crate::tensor::Tensor;

/// A score's gradient at a point, and the logits there.
#[derive(Debug, Clone)]
pub(super) struct Slope {
    /// One number per element of the point, in its C order.
    pub gradient: Vec<f64>,
    /// Logits of the last copy; with one copy, of the point itself.
    pub logits: Vec<f64>,
}

/// A score's gradient, summed over copies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SummedGradient(Score);

impl Script for SummedGradient {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let (input, output) = (b.graph().input(), b.graph().output());
        let seed = b.seed(self.0);
        let signal = pull_back(b, &Composite::gradient(), output, seed, input)?;
        b.aggregate(signal, Statistic::Sum)
    }
}

/// For each point, the gradient of the `score` of its class, as a weighted sum over copies.
///
/// # Errors
/// When shapes or classes do not match, memory is not enough or a number is not finite.
pub(super) fn gradients(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    (points, classes): (&Batch, &[usize]),
    copies: &Copies,
) -> Result<Vec<Slope>> {
    let task = Task { x: points, targets: classes, copies, loads: &[] };
    let outcome = engine.evaluate(graph, &SummedGradient(score), &task)?;
    let logits = outcome.logits.into_iter().map(|mut of_copies| of_copies.pop().unwrap_or_default());
    let slopes = outcome.maps.iter().zip(logits).map(|(map, logits)| {
        if let Some(i) = map.first_not_finite() {
            return Err(Error::device(format!("element {i} of a gradient overflowed")));
        }
        Ok(Slope { gradient: map.to_f64().into_owned(), logits })
    });
    slopes.collect()
}

/// Logits at each point.
///
/// # Errors
/// As [`gradients`].
pub(super) fn logits(engine: &mut Engine, graph: &Graph, points: &Batch) -> Result<Vec<Vec<f64>>> {
    let all: Tensor = engine.forward(graph, points)?;
    (0..points.len()).map(|i| Ok(all.item(i)?.to_f64().into_owned())).collect()
}
