//! Examples for a detector: pictures, their attacked versions, and the maps of both.

use super::attack::SpecimenAttack;
use super::features::Features;
use super::split::{SplitPart, part};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::score::top;
use crate::tensor::Tensor;

/// Where attacked versions come from.
#[derive(Debug, Clone)]
pub enum SpecimenOrigin {
    /// They are made.
    Made(SpecimenAttack),
    /// They are given beside the pictures.
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
    /// Where they come from.
    pub origin: SpecimenOrigin,
    /// Whether no weight and no epoch is chosen by them: they are made of pictures of the test part only.
    pub held_out: bool,
}

/// How examples are made.
#[derive(Debug)]
pub struct Laboratory<'a> {
    /// The net whose predictions are explained.
    pub graph: &'a Graph,
    /// How pictures became inputs.
    pub preprocess: &'a Preprocess,
    /// Makes the maps.
    pub features: &'a Features,
    /// Kinds of attacked versions.
    pub kinds: &'a [SpecimenKind],
    /// Seed of the split.
    pub seed: u64,
}

/// One picture and what became of it.
#[derive(Debug, Clone)]
pub struct Specimen {
    /// Names the picture: equal pictures have equal keys.
    pub key: u64,
    /// What it is used for.
    pub part: SplitPart,
    /// The class that the net predicts on it.
    pub predicted: usize,
    /// Maps of that class.
    pub clean: Tensor,
    /// By kind: maps of the class that the net predicts on the attacked version, if that is another class than on the picture;
    /// `None` where the prediction stayed or there is no such version.
    pub attacked: Vec<Option<Tensor>>,
    /// By kind: whether there was an attacked version.
    pub tried: Vec<bool>,
}

impl Laboratory<'_> {
    /// One specimen a picture; `given` are attacked versions, one a picture, for kinds that are given.
    ///
    /// A detector sees nothing but a picture, so each is explained for the class predicted on it. Attacked versions whose
    /// prediction is the picture's do not count as attacked.
    ///
    /// # Errors
    /// When shapes do not suit, the attacks or the method fail, or a number is not finite.
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
