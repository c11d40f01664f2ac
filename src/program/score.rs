//! Scores of logits and the gradient that starts the backward pass, in double precision.

use serde::{Deserialize, Serialize};

use crate::graph::Link;
use crate::tensor::functions::{exp, log};

/// The class score that is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// The target's logit.
    #[default]
    Logit,
    /// The target's probability: softmax, or sigmoid for a net with one output.
    Prob,
    /// The logarithm of the target's probability.
    LogProb,
    /// The logarithm of the other classes' total probability, `log(1 − p_t + 1e-7)`; an objective that suppresses the
    /// target maximises it.
    LogOthers,
}

/// Keeps [`Score::LogOthers`] finite when the target is certain (Lim, Lee, Kim, CVPR 2021).
const CERTAIN: f64 = 1e-7;

impl Score {
    /// The name in options and records.
    pub const fn name(self) -> &'static str {
        match self {
            Score::Logit => "logit",
            Score::Prob => "prob",
            Score::LogProb => "logprob",
            Score::LogOthers => "logothers",
        }
    }

    /// `(score, gradient with respect to the logits)` of `target`, with softmax probabilities; for a single logit a
    /// sigmoid, as the softmax of one number is always 1.
    ///
    /// # Panics
    /// When `target` is not an index of a logit.
    pub fn evaluate(self, logits: &[f64], target: usize) -> (f64, Vec<f64>) {
        self.linked(if logits.len() == 1 { Link::Sigmoid } else { Link::Softmax }, logits, target)
    }

    /// `(score, gradient with respect to the logits)` of `target`, with the probabilities of `link`. A sigmoid depends
    /// only on the target's logit.
    ///
    /// # Panics
    /// When `target` is not an index of a logit.
    pub fn linked(self, link: Link, logits: &[f64], target: usize) -> (f64, Vec<f64>) {
        let mut gradient = Vec::with_capacity(logits.len());
        let score = self.linked_into(link, logits, target, &mut gradient);
        (score, gradient)
    }

    /// As [`Score::linked`], with the gradient in place of what `gradient` held.
    pub(crate) fn linked_into(self, link: Link, logits: &[f64], target: usize, gradient: &mut Vec<f64>) -> f64 {
        gradient.clear();
        if self == Score::Logit {
            gradient.resize(logits.len(), 0.0);
            gradient[target] = 1.0;
            return logits[target];
        }
        if link == Link::Sigmoid {
            // σ(z) is the softmax of z against 0.
            gradient.reserve(logits.len().max(2));
            let score = self.linked_into(Link::Softmax, &[logits[target], 0.0], 0, gradient);
            let slope = gradient[0];
            gradient.clear();
            gradient.resize(logits.len(), 0.0);
            gradient[target] = slope;
            return score;
        }
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Probabilities first; each is replaced by its slope.
        softmax_into(logits, gradient);
        let p = gradient[target];
        // 1 − p_t summed from its parts: a subtraction would lose all digits if the target is certain.
        let others: f64 = gradient.iter().enumerate().filter(|(j, _)| *j != target).map(|(_, p)| p).sum();
        let scale = match self {
            Score::Prob => p,
            Score::LogOthers => -p / (others + CERTAIN),
            Score::Logit | Score::LogProb => 1.0,
        };
        for (j, g) in gradient.iter_mut().enumerate() {
            *g = scale * if j == target { others } else { -*g };
        }
        match self {
            Score::Prob => p,
            Score::LogOthers => log(others + CERTAIN),
            Score::Logit | Score::LogProb => {
                let total: f64 = logits.iter().map(|l| exp(l - top)).sum();
                logits[target] - top - log(total)
            }
        }
    }

    /// The score of every class.
    pub fn of_all(self, link: Link, logits: &[f64]) -> Vec<f64> {
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match (self, link) {
            (Score::Logit, _) => logits.to_vec(),
            (Score::Prob, Link::Softmax) => softmax(logits),
            (Score::LogProb, Link::Softmax) => {
                let sum: f64 = logits.iter().map(|l| exp(l - top)).sum();
                logits.iter().map(|l| l - top - log(sum)).collect()
            }
            _ => (0..logits.len()).map(|target| self.linked(link, logits, target).0).collect(),
        }
    }
}

/// Softmax probabilities of `logits`.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let mut p = Vec::with_capacity(logits.len());
    softmax_into(logits, &mut p);
    p
}

fn softmax_into(logits: &[f64], p: &mut Vec<f64>) {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    p.extend(logits.iter().map(|l| exp(l - top)));
    let total: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_match_differences() {
        let logits = [0.3, -1.2, 2.5, 0.0];
        for kind in [Score::Logit, Score::Prob, Score::LogProb, Score::LogOthers] {
            for target in 0..4 {
                let (_, gradient) = kind.evaluate(&logits, target);
                for j in 0..4 {
                    let at = |d: f64| {
                        let mut l = logits;
                        l[j] += d;
                        kind.evaluate(&l, target).0
                    };
                    let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                    assert!((gradient[j] - difference).abs() < 1e-8, "{kind:?} {target} {j}");
                }
            }
        }
    }

    #[test]
    fn a_sigmoid_is_of_its_logit_alone() {
        let z = 0.2349f64;
        let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
        for (target, z) in [(0, -z), (1, z)] {
            let (p, q) = (sigma(z), sigma(-z));
            let want = [
                (Score::Logit, z, 1.0),
                (Score::Prob, p, p * q),
                (Score::LogProb, p.ln(), q),
                (Score::LogOthers, (q + CERTAIN).ln(), -p * q / (q + CERTAIN)),
            ];
            for (score, value, slope) in want {
                let (found, gradient) = score.linked(Link::Sigmoid, &[-0.2349, 0.2349], target);
                assert!((found - value).abs() <= 1e-15, "{score:?} {target}: {found} for {value}");
                assert!((gradient[target] - slope).abs() <= 1e-15, "{score:?} {target}");
                assert_eq!(gradient[1 - target], 0.0, "{score:?} {target}");
                assert_eq!(score.of_all(Link::Sigmoid, &[-0.2349, 0.2349])[target], found);
                assert_eq!(score.evaluate(&[z], 0), (found, vec![gradient[target]]), "one logit, {score:?}");
            }
        }
        let (far, gradient) = Score::LogProb.linked(Link::Sigmoid, &[1000.0, -1000.0], 1);
        assert_eq!((far, gradient), (-1000.0, vec![0.0, 1.0]));
    }

    #[test]
    fn a_certain_answer_keeps_its_gradient() {
        let (p, gradient) = Score::Prob.evaluate(&[60.0, 0.0], 0);
        assert_eq!(p, 1.0);
        assert!((gradient[0] / (-60f64).exp() - 1.0).abs() < 1e-12);
        let (score, gradient) = Score::LogOthers.evaluate(&[60.0, 0.0], 0);
        assert!((score - 1e-7f64.ln()).abs() < 1e-12);
        assert!((gradient[1] / ((-60f64).exp() / 1e-7) - 1.0).abs() < 1e-12);
    }
}
