//! Scores of logits and the gradient that starts the backward pass, in double precision.

use serde::{Deserialize, Serialize};

/// Which number of the logits is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// The target's logit.
    #[default]
    Logit,
    /// The target's softmax probability.
    Prob,
    /// The logarithm of the target's softmax probability.
    LogProb,
    /// The logarithm of the other classes' probability together, `log(1 − p_t + 1e-7)`: what an objective maximises that
    /// wants the target gone.
    LogOthers,
}

/// Keeps [`Score::LogOthers`] finite where the target is certain (Lim, Lee, Kim, CVPR 2021).
const CERTAIN: f64 = 1e-7;

impl Score {
    /// `(score, gradient with respect to the logits)` of `target`.
    ///
    /// # Panics
    /// When `target` names none of the logits.
    pub fn evaluate(self, logits: &[f64], target: usize) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; logits.len()];
        if self == Score::Logit {
            gradient[target] = 1.0;
            return (logits[target], gradient);
        }
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p = softmax(logits);
        // 1 − p_t summed from its parts: a subtraction would lose all digits of a certain answer.
        let others: f64 = p.iter().enumerate().filter(|(j, _)| *j != target).map(|(_, p)| p).sum();
        let scale = match self {
            Score::Prob => p[target],
            Score::LogOthers => -p[target] / (others + CERTAIN),
            Score::Logit | Score::LogProb => 1.0,
        };
        for (j, g) in gradient.iter_mut().enumerate() {
            *g = scale * if j == target { others } else { -p[j] };
        }
        match self {
            Score::Prob => (p[target], gradient),
            Score::LogOthers => ((others + CERTAIN).ln(), gradient),
            Score::Logit | Score::LogProb => {
                let total: f64 = logits.iter().map(|l| (l - top).exp()).sum();
                (logits[target] - top - total.ln(), gradient)
            }
        }
    }
}

/// Softmax probabilities of `logits`.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
    let total: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / total).collect()
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
    fn a_certain_answer_keeps_its_gradient() {
        let (p, gradient) = Score::Prob.evaluate(&[60.0, 0.0], 0);
        assert_eq!(p, 1.0);
        assert!((gradient[0] / (-60f64).exp() - 1.0).abs() < 1e-12);
        let (score, gradient) = Score::LogOthers.evaluate(&[60.0, 0.0], 0);
        assert!((score - 1e-7f64.ln()).abs() < 1e-12);
        assert!((gradient[1] / ((-60f64).exp() / 1e-7) - 1.0).abs() < 1e-12);
    }
}
