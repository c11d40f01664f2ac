//! Attacks that a detector is trained on and measured against, as written on the command line.

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::method::{Parameter, Registered, Values, read};
use crate::reliability::attack::{Goal, Pgd, Size, Start, Stop, fgsm, pgd, quantise};
use crate::tensor::Tensor;

/// An attack on the prediction with all its parameters.
#[derive(Debug, Clone)]
pub struct Attack {
    text: String,
    kind: Kind,
    epsilon: Size,
    wanted: Wanted,
    levels: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fgsm,
    Pgd { step: Size, iterations: usize, start: Start, stop: Stop },
}

/// Which class the net is to predict.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Other,
    Least,
    Second,
}

/// An attack as the registry knows it.
struct Entry {
    id: &'static str,
    parameters: &'static [Parameter],
}

const EPSILON: Parameter =
    Parameter { key: "epsilon", unit: "L/255 or normalised units", default: "8/255", help: "radius of the L∞ ball" };
const GOAL: Parameter = Parameter {
    key: "goal",
    unit: "other|least|second",
    default: "other",
    help: "any other class than the predicted one, the least likely one, or the second best",
};
const LEVELS: Parameter = Parameter {
    key: "levels",
    unit: "yes|no",
    default: "yes",
    help: "whether the result is rounded to levels of 0 to 255, as a picture file holds them",
};

const ATTACKS: [Entry; 2] = [
    Entry { id: "fgsm", parameters: &[EPSILON, GOAL, LEVELS] },
    Entry {
        id: "pgd",
        parameters: &[
            EPSILON,
            Parameter { key: "step", unit: "L/255 or normalised units", default: "2/255", help: "length of a step" },
            Parameter { key: "iterations", unit: "steps", default: "10", help: "number of steps" },
            Parameter { key: "start", unit: "random|picture", default: "random", help: "where it begins" },
            Parameter {
                key: "stop",
                unit: "last|reached",
                default: "last",
                help: "after all steps, or as soon as the prediction is another",
            },
            GOAL,
            LEVELS,
        ],
    },
];

impl Registered for Entry {
    const KIND: &'static str = "attack";

    fn registry() -> &'static [Self] {
        &ATTACKS
    }

    fn id(&self) -> &'static str {
        self.id
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}

/// One of the words that `key` may be.
fn choice<T: Copy>(values: &Values, key: &str, words: &[(&str, T)]) -> Result<T> {
    let text = values.text(key)?;
    words.iter().find(|(word, _)| *word == text).map(|w| w.1).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|w| w.0).collect();
        Error::settings(format!("{key}={text}: there are {}", all.join(", ")))
    })
}

/// `fgsm` or `pgd` with `:key=value,…`.
impl std::str::FromStr for Attack {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (entry, given) = read::<Entry>(text)?;
        let resolved = given.into_iter().zip(entry.parameters);
        let values =
            Values::new(entry.id, resolved.map(|((key, v), p)| (key, v.unwrap_or_else(|| p.default.into()))).collect());
        let within = |e: Error| e.within(format!("attack '{text}'"));
        let kind = match entry.id {
            "fgsm" => Kind::Fgsm,
            _ => Kind::Pgd {
                step: values.parse::<Size>("step")?.positive("step").map_err(within)?,
                iterations: values.count("iterations")?,
                start: choice(&values, "start", &[("random", Start::Random), ("picture", Start::Picture)])
                    .map_err(within)?,
                stop: choice(&values, "stop", &[("last", Stop::Last), ("reached", Stop::Reached)]).map_err(within)?,
            },
        };
        if let Kind::Pgd { iterations: 0, .. } = kind {
            return Err(within(Error::settings("iterations=0: there must be at least 1")));
        }
        let goals = [("other", Wanted::Other), ("least", Wanted::Least), ("second", Wanted::Second)];
        Ok(Self {
            kind,
            epsilon: values.parse::<Size>("epsilon")?.positive("epsilon").map_err(within)?,
            wanted: choice(&values, "goal", &goals).map_err(within)?,
            levels: choice(&values, "levels", &[("yes", true), ("no", false)]).map_err(within)?,
            text: values.to_string(),
        })
    }
}

/// With every parameter, as it can be read again.
impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Attack {
    /// The attacked version of each picture, whatever the net makes of it; `logits` are the net's on the pictures.
    ///
    /// # Errors
    /// When the pictures are not made of levels although the result is to be, or the attack fails.
    pub fn run(
        &self,
        engine: &mut Engine,
        (graph, preprocess): (&Graph, &Preprocess),
        x: &Batch,
        logits: &[Vec<f64>],
        seed: u64,
    ) -> Result<Vec<Tensor>> {
        let classes: Vec<usize> = logits.iter().map(|l| self.class(l)).collect();
        let goal = match self.wanted {
            Wanted::Other => Goal::Untargeted(&classes),
            Wanted::Least | Wanted::Second => Goal::Targeted(&classes),
        };
        let found = match self.kind {
            Kind::Fgsm => fgsm(engine, graph, preprocess, x, goal, self.epsilon)?,
            Kind::Pgd { step, iterations, start, stop } => {
                let settings = Pgd { epsilon: self.epsilon, step, iterations, start, stop, seed };
                pgd(engine, graph, preprocess, x, goal, &settings)?
            }
        };
        let rounded = |(found, original): (crate::reliability::attack::Adversarial, &Tensor)| {
            if !self.levels {
                return Ok(found.picture);
            }
            let picture = quantise(original, &found.picture, self.epsilon, preprocess);
            picture
                .map(|p| p.tensor)
                .map_err(|e| e.within("attacked pictures are rounded to levels (levels=no leaves them)"))
        };
        found.into_iter().zip(x.items()).map(rounded).collect()
    }

    /// The class that the attack leaves, or makes for.
    fn class(&self, logits: &[f64]) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let at = match self.wanted {
            Wanted::Other => 0,
            Wanted::Second => 1.min(order.len().saturating_sub(1)),
            Wanted::Least => order.len().saturating_sub(1),
        };
        order.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_read_and_mistakes_are_named() {
        let parse = |s: &str| s.parse::<Attack>();
        assert_eq!(parse("fgsm").unwrap().to_string(), "fgsm:epsilon=8/255,goal=other,levels=yes");
        let text = parse("pgd:epsilon=4/255,goal=least").unwrap().to_string();
        assert_eq!(parse(&text).unwrap().to_string(), text);
        let message = |s: &str| parse(s).unwrap_err().to_string();
        assert!(message("fgms").contains("fgsm"));
        assert!(message("pgd:epsilom=3").contains("epsilon"));
        assert!(message("pgd:epsilon=0").contains("above 0"));
        assert!(message("pgd:step=-1/255").contains("above 0"));
        assert!(message("pgd:iterations=0").contains("at least 1"));
        assert!(message("pgd:goal=best").contains("other, least, second"));
        assert!(message("fgsm:levels=maybe").contains("yes, no"));
    }

    #[test]
    fn classes_by_logits() {
        let class = |s: &str, logits: &[f64]| s.parse::<Attack>().unwrap().class(logits);
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(class("fgsm", &logits), 1);
        assert_eq!(class("fgsm:goal=second", &logits), 3);
        assert_eq!(class("fgsm:goal=least", &logits), 2);
    }
}
