//! Common code of metrics under attack: the attack as parameters, and maps of pictures before and after.

use std::sync::{Arc, Mutex, PoisonError};

use super::Case;
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::map::Map;
use crate::method::{Parameter, ParameterValues};
use crate::reliability::attack::{Goal, Pgd, PictureLength, StartPoint, Stop, pgd};
use crate::score::top;

pub(super) const EPSILON: Parameter = Parameter {
    key: "epsilon",
    unit: "normalised units, or levels such as 8/255",
    default: "0.07",
    help: "radius of the L∞ ball that the attack (PGD) stays in",
};
pub(super) const STEP: Parameter = Parameter {
    key: "step",
    unit: "normalised units, or levels such as 2/255",
    default: "0.01",
    help: "length of one of its steps",
};
pub(super) const ITERATIONS: Parameter =
    Parameter { key: "iterations", unit: "steps", default: "40", help: "how many steps it makes" };
pub(super) const START: Parameter = Parameter {
    key: "start",
    unit: "random|picture",
    default: "random",
    help: "where it begins: anywhere in the ball, or at the picture",
};

/// Builds the attack from the parameters.
pub(super) fn attack(values: &ParameterValues) -> Result<RememberedAttack> {
    let size = |key: &str| values.parse::<PictureLength>(key)?.positive(key).map_err(|e| e.within(values));
    let iterations = values.count("iterations")?;
    if iterations == 0 {
        return Err(Error::settings(format!("{values}: there must be at least 1 iteration")));
    }
    let start = match values.text("start")? {
        "random" => StartPoint::Random,
        "picture" => StartPoint::Picture,
        other => return Err(Error::settings(format!("{values}: start={other}: there are random and picture"))),
    };
    let (epsilon, step) = (size("epsilon")?, size("step")?);
    let pgd = Pgd { epsilon, step, iterations, start, stop: Stop::Last, seed: 0 };
    Ok(RememberedAttack { pgd, last: Mutex::new(None) })
}

/// An attack on the prediction, and its last results.
pub(super) struct RememberedAttack {
    pgd: Pgd,
    /// Results for the last case's pictures: the attack does not depend on the method, and methods take turns on the
    /// same pictures.
    last: Mutex<Option<(Victims, Arc<Attacked>)>>,
}

/// Net, seed and keys of the pictures: everything that an attack's result depends on.
type Victims = (u64, u64, Vec<u64>);

/// Pictures that an attack has moved as far from their predictions as it could.
pub(super) struct Attacked {
    /// Class predicted on each picture before.
    pub clean: Vec<usize>,
    /// Class predicted on each picture after; the same where the attack failed.
    pub after: Vec<usize>,
    /// The moved pictures.
    pub x: Batch,
}

impl RememberedAttack {
    /// Attacks a case's pictures, away from the class predicted on each.
    pub fn on(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Arc<Attacked>> {
        let victims = (case.graph.id(), case.seed, case.x.keys());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, attacked)) = &*last
            && *of == victims
        {
            return Ok(Arc::clone(attacked));
        }
        let logits = engine.forward(case.graph, case.x)?.to_f64().into_owned();
        let clean: Vec<usize> = logits.chunks(case.graph.classes()).filter_map(top).collect();
        let settings = Pgd { seed: case.seed, ..self.pgd };
        let found = pgd(engine, case.graph, case.preprocess, case.x, Goal::Untargeted(&clean), &settings)?;
        let after = found.iter().map(|a| a.predicted()[1]).collect();
        let x = Batch::of(found.into_iter().map(|a| a.picture).collect())?;
        let attacked = Arc::new(Attacked { clean, after, x });
        *last = Some((victims, Arc::clone(&attacked)));
        Ok(attacked)
    }
}

/// Maps of `x` for `classes`; those in `known` are not recomputed.
pub(super) fn explain(
    engine: &mut Engine,
    case: &Case<'_>,
    x: &Batch,
    classes: &[usize],
    known: Vec<Option<Map>>,
) -> Result<Vec<Map>> {
    let missing: Vec<usize> = (0..known.len()).filter(|&i| known[i].is_none()).collect();
    let mut made = if missing.is_empty() {
        Vec::new()
    } else {
        let items = missing.iter().map(|&i| x.items()[i].clone()).collect();
        let targets: Vec<usize> = missing.iter().map(|&i| classes[i]).collect();
        case.method.explain(engine, case.graph, &Batch::of(items)?, &targets)?
    };
    if made.len() != missing.len() {
        return Err(Error::device(format!("{} maps of {} pictures", made.len(), missing.len())));
    }
    let mut made = made.drain(..);
    Ok(known.into_iter().filter_map(|map| map.or_else(|| made.next())).collect())
}

/// The case's maps, if they are for `classes`.
pub(super) fn known(case: &Case<'_>, classes: &[usize]) -> Vec<Option<Map>> {
    let pairs = case.maps.iter().zip(case.targets.iter().zip(classes));
    pairs.map(|(map, (target, class))| (target == class).then(|| map.clone())).collect()
}
