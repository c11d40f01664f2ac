//! Common part of methods that probe the net from outside: scores of many copies, and no backward pass.

use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, ScoreScript, Task};
use crate::error::Result;
use crate::graph::{Graph, Link};
use crate::program::Score;
use crate::tensor::{Precision, rounding};

/// Copies of a picture per engine call, which keeps the results of a call small. Results do not depend on it.
pub(crate) const BLOCK: usize = 100;

/// A score and the possible error due to rounding of its logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probed {
    pub score: f64,
    pub rounding: f64,
}

impl Probed {
    /// The score of `target`, from logits computed in `precision`.
    pub fn of((score, link): (Score, Link), logits: &[f64], target: usize, precision: Precision) -> Self {
        let (value, gradient) = score.linked(link, logits, target);
        let terms: f64 = logits.iter().zip(&gradient).map(|(z, g)| (z * g).abs()).sum();
        // A probability near 1 changes by far less than its own magnitude.
        Self { score: value, rounding: rounding(terms, precision).max(rounding(value, Precision::F64)) }
    }

    /// Whether rounding can explain the difference from `other`.
    pub fn equals(self, other: Self) -> bool {
        (self.score - other.score).abs() <= self.rounding.max(other.rounding)
    }
}

/// Score of every copy, by picture.
///
/// # Errors
/// As [`Engine::forward`], and when the perturbation does not describe `n` copies per picture.
pub(crate) fn scores(
    engine: &mut Engine,
    graph: &Graph,
    x: &Batch,
    targets: &[usize],
    score: Score,
    (perturbation, n): (Perturbation, usize),
) -> Result<Vec<Vec<Probed>>> {
    let copies = Copies { perturbation, weights: vec![1.0; n] };
    let outcome = engine.evaluate(graph, &ScoreScript(score), &Task { x, targets, copies: &copies, loads: &[] })?;
    let precision = engine.describe().precision;
    let of = |(copies, &target): (&Vec<Vec<f64>>, &usize)| {
        copies.iter().map(|logits| Probed::of((score, graph.link()), logits, target, precision)).collect()
    };
    Ok(outcome.logits.iter().zip(targets).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certain_probability_hardly_moves_with_its_logits() {
        let [certain, less] =
            [[20.0, 0.0], [19.5, 0.0]].map(|z| Probed::of((Score::Prob, Link::Softmax), &z, 0, Precision::F32));
        assert!((certain.score - less.score).abs() < 2e-9 && !certain.equals(less), "{certain:?} {less:?}");
        let [a, b] =
            [[20.0, 0.0], [20.0001, 0.0]].map(|z| Probed::of((Score::Logit, Link::Softmax), &z, 0, Precision::F32));
        assert!(a.equals(b));
        let [a, b] =
            [[20.0, 0.0], [20.0001, 0.0]].map(|z| Probed::of((Score::Logit, Link::Softmax), &z, 0, Precision::F64));
        assert!(!a.equals(b));
    }
}
