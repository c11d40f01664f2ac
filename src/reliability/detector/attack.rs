//! Attacks on the prediction, with which a detector is trained and measured.

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::reliability::attack::{self, Adversarial, AttackContext, AttackKind, AttackSpec, Wanted, quantise};
use crate::score::{least, top};
use crate::tensor::Tensor;

/// Whether attacked versions are rounded to levels of 0 to 255, as in picture files. Clean pictures consist of levels;
/// unrounded versions could be recognised by that alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// They are rounded.
    Levels,
    /// They stay as the attack computed them.
    None,
}

/// An attack with all its parameters.
#[derive(Debug, Clone)]
pub struct SpecimenAttack {
    name: String,
    attack: attack::Attack,
    /// The class that it aims for, if that is the same for all pictures.
    class: Option<usize>,
    rounding: Rounding,
}

impl std::fmt::Display for SpecimenAttack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl SpecimenAttack {
    /// Parses `name` or `name:key=value,…` as [`AttackSpec::parse`]; `seed` is for random starts.
    ///
    /// # Errors
    /// When the text is not an attack, is an attack on the map, or has a target class that is not an index.
    pub fn parse(text: &str, rounding: Rounding, seed: u64) -> Result<Self> {
        let spec = AttackSpec::parse(text)?;
        if spec.entry.kind != AttackKind::Prediction {
            let known = attack::registry().iter().filter(|e| e.kind == AttackKind::Prediction);
            return Err(Error::settings(format!(
                "{} leaves the prediction as it is; a detector is for attacks on the prediction: {}",
                spec.entry.id,
                known.map(|e| e.id).collect::<Vec<_>>().join(", ")
            )));
        }
        let none = |_: &std::path::Path| Err(Error::settings("attacks on the prediction read no files"));
        let attack = spec.build(&AttackContext { seed, load: &none, load_map: &none })?;
        let class = match attack.wanted() {
            Some(Wanted::Class(class)) => Some(class.parse().map_err(|_| {
                Error::settings(format!("{}:target={class}: give the class by its index", spec.entry.id))
            })?),
            _ => None,
        };
        let name = match rounding {
            Rounding::Levels => spec.to_string(),
            Rounding::None => format!("{spec} (not rounded)"),
        };
        Ok(Self { name, attack, class, rounding })
    }

    /// The remark on an ε so large that it contains every picture, `None` for a smaller one.
    pub fn beyond(&self, preprocess: &Preprocess) -> Option<String> {
        Some(format!("{}: {}", self.name, self.attack.beyond(preprocess)?))
    }

    /// The attacked version of each picture, whether or not the attack succeeded; `logits` are the net's on the
    /// pictures.
    ///
    /// # Errors
    /// When the result is to be rounded but the pictures do not consist of levels, or the attack fails.
    pub fn run(
        &self,
        engine: &mut Engine,
        (graph, preprocess): (&Graph, &Preprocess),
        x: &Batch,
        logits: &[Vec<f64>],
    ) -> Result<Vec<Tensor>> {
        let classes: Vec<usize> = logits.iter().map(|l| self.class(l)).collect();
        let found = self.attack.run(engine, graph, preprocess, x, &classes)?;
        let rounded = |(found, original): (Adversarial, &Tensor)| {
            if self.rounding == Rounding::None {
                return Ok(found.picture);
            }
            let picture = quantise(original, &found.picture, self.attack.epsilon(), preprocess);
            picture.map(|p| p.tensor).map_err(|e| e.within("rounding an attacked picture to levels"))
        };
        found.into_iter().zip(x.items()).map(rounded).collect()
    }

    /// The class to move away from, or to aim for.
    fn class(&self, logits: &[f64]) -> usize {
        match (self.class, self.attack.wanted()) {
            (Some(class), _) => class,
            (None, Some(Wanted::Least)) => least(logits).unwrap_or(0),
            _ => top(logits).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SpecimenAttack> {
        SpecimenAttack::parse(text, Rounding::Levels, 0)
    }

    #[test]
    fn attacks_on_the_prediction_are_read_and_others_refused() {
        let attack = parse("pgd:epsilon=4/255,target=least").unwrap();
        assert_eq!(parse(&attack.to_string()).unwrap().to_string(), attack.to_string());
        let message = |s: &str| parse(s).unwrap_err().to_string();
        assert!(message("fgms").contains("fgsm"));
        assert!(message("top_k").contains("fgsm, pgd"));
        assert!(message("fgsm:target=cat").contains("by its index"));
        assert!(message("pgd:epsilon=0").contains("above 0"));
    }

    #[test]
    fn classes_by_logits() {
        let class = |s: &str, logits: &[f64]| parse(s).unwrap().class(logits);
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(class("fgsm", &logits), 1);
        assert_eq!(class("fgsm:target=least", &logits), 2);
        assert_eq!(class("pgd:target=3", &logits), 3);
    }
}
