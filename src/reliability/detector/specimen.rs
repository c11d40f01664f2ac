//! Samples for a detector: pictures, their attacked versions, and the maps of both.

use super::attack::SpecimenAttack;
use super::features::Features;
use super::split::{SplitPart, part};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::score::top;
use crate::tensor::Tensor;

/// The origin of attacked versions.
#[derive(Debug, Clone)]
pub enum SpecimenOrigin {
    /// They are made by this attack.
    Made(SpecimenAttack),
    /// They are supplied with the pictures.
    Given(String),
}

impl std::fmt::Display for SpecimenOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SpecimenOrigin::Made(attack) => attack.fmt(f),
            SpecimenOrigin::Given(name) => f.write_str(name),
        }
    }
}

/// One kind of attacked versions.
#[derive(Debug, Clone)]
pub struct SpecimenKind {
    /// Their origin.
    pub origin: SpecimenOrigin,
    /// Whether they are held out from training and epoch selection: made only from pictures of the test part.
    pub held_out: bool,
}

/// Computes samples.
#[derive(Debug)]
pub struct Laboratory<'a> {
    /// The net whose predictions are explained.
    pub graph: &'a Graph,
    /// How pictures became inputs.
    pub preprocess: &'a Preprocess,
    /// Computes the maps.
    pub features: &'a Features,
    /// Kinds of attacked versions.
    pub kinds: &'a [SpecimenKind],
    /// Seed of the split.
    pub seed: u64,
}

/// One picture with its maps.
#[derive(Debug, Clone)]
pub struct Specimen {
    /// Identifies the picture: equal pictures have equal keys.
    pub key: u64,
    /// Its part of the split.
    pub part: SplitPart,
    /// The class that the net predicts on it.
    pub predicted: usize,
    /// Maps for that class.
    pub clean: Tensor,
    /// By kind: maps for the class predicted on the attacked version, if it differs from that of the picture; `None` if
    /// the prediction stayed or there is no such version.
    pub attacked: Vec<Option<Tensor>>,
    /// By kind: whether there was an attacked version.
    pub tried: Vec<bool>,
}

impl Laboratory<'_> {
    /// One specimen per picture; `given` are the supplied attacked versions, one per picture, for kinds that are given.
    ///
    /// A detector sees only a picture, so each is explained for its own predicted class. Attacked versions with the
    /// picture's prediction do not count as attacked.
    ///
    /// # Errors
    /// When shapes do not match, the attacks or the method fail, or a number is not finite.
    pub fn specimens(&self, engine: &mut Engine, x: &Batch, given: Option<&[Tensor]>) -> Result<Vec<Specimen>> {
        if given.is_some_and(|g| g.len() != x.len()) {
            return Err(Error::input(format!(
                "{} attacked versions of {} pictures",
                given.map_or(0, <[_]>::len),
                x.len()
            )));
        }
        let logits = logits(engine, self.graph, x)?;
        let predicted: Vec<usize> = logits.iter().filter_map(|l| top(l)).collect();
        let clean = self.features.of(engine, self.graph, x, &predicted)?;
        let new = |((clean, key), &predicted)| {
            let (attacked, tried) = (vec![None; self.kinds.len()], vec![false; self.kinds.len()]);
            Specimen { key, part: part(key, self.seed), predicted, clean, attacked, tried }
        };
        let mut found: Vec<Specimen> = clean.into_iter().zip(x.keys()).zip(&predicted).map(new).collect();
        for (k, kind) in self.kinds.iter().enumerate() {
            let chosen: Vec<usize> =
                (0..x.len()).filter(|&i| !kind.held_out || found[i].part == SplitPart::Test).collect();
            if chosen.is_empty() {
                continue;
            }
            let versions = match (&kind.origin, given) {
                (SpecimenOrigin::Given(_), Some(given)) => chosen.iter().map(|&i| given[i].clone()).collect(),
                (SpecimenOrigin::Given(_), None) => continue,
                (SpecimenOrigin::Made(attack), _) => {
                    let items = Batch::of(chosen.iter().map(|&i| x.items()[i].clone()).collect())?;
                    let logits: Vec<Vec<f64>> = chosen.iter().map(|&i| logits[i].clone()).collect();
                    attack.run(engine, (self.graph, self.preprocess), &items, &logits)?
                }
            };
            let versions = Batch::of(versions)?;
            let now = self::logits(engine, self.graph, &versions)?;
            let (mut flipped, mut classes, mut pictures) = (Vec::new(), Vec::new(), Vec::new());
            for ((&i, logits), version) in chosen.iter().zip(&now).zip(versions.items()) {
                found[i].tried[k] = true;
                if let Some(class) = top(logits).filter(|&class| class != predicted[i]) {
                    flipped.push(i);
                    classes.push(class);
                    pictures.push(version.clone());
                }
            }
            if pictures.is_empty() {
                continue;
            }
            let maps = self.features.of(engine, self.graph, &Batch::of(pictures)?, &classes)?;
            flipped.into_iter().zip(maps).for_each(|(i, maps)| found[i].attacked[k] = Some(maps));
        }
        Ok(found)
    }
}

fn logits(engine: &mut Engine, graph: &Graph, x: &Batch) -> Result<Vec<Vec<f64>>> {
    let all = engine.forward(graph, x)?;
    (0..x.len()).map(|i| Ok(all.item(i)?.to_f64().into_owned())).collect()
}
