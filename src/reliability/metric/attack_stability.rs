//! `S_S` under an attack on the map.

use std::sync::{Mutex, PoisonError};

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce, within, without};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::method::Parameter;
use crate::reliability::attack::{AttackContext, AttackKind, AttackSpec};
use crate::reliability::stability::{Comparison, Explained, stability};
use crate::tensor::Tensor;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "attack_stability",
    title: "Stability S_S under attack",
    paper: "Lu, Guo, Xing, Noble 2021: DANCE: Enhancing saliency maps using decoys, ICML; attacks as Ghorbani, Abid, Zou 2019: \
            Interpretation of neural networks is fragile, AAAI",
    summary: "‖E(x) − E(x̂)‖₂ / ‖x − x̂‖₂ for the x̂ that an attack on the gradient's map (not on the method's own) ends at, with \
              the prediction as it was; how much of the map's top stays, the rank correlation of the maps and how far the mass \
              centre moves in pixels; none where the attack found nothing or the map is 0 everywhere",
    parameters: &[
        Parameter {
            key: "attack",
            unit: "an attack on maps",
            default: "top_k",
            help: "as `verilume attack` takes it, such as (target_region:region=(0,0,8,8))",
        },
        Parameter {
            key: "scale",
            unit: "paper|raw",
            default: "paper",
            help: "paper scales maps as S_F does, so that methods of different units compare; raw leaves them as they are",
        },
        Parameter { key: "k", unit: "share of the pixels", default: "0.1", help: "how many are a map's top" },
        reduce("channel_mean_abs"),
    ],
    outputs: &[
        Output { key: "attack_stability", better: Better::Lower },
        Output { key: "attack_stability_top_k", better: Better::Higher },
        Output { key: "attack_stability_spearman", better: Better::Higher },
        Output { key: "attack_stability_mass_shift", better: Better::Lower },
    ],
    needs: Needs::Maps,
    build: |values| {
        let attack = AttackSpec::parse(values.text("attack")?).map_err(|e| e.within(values))?;
        if attack.entry.kind != AttackKind::Map {
            return Err(Error::settings(format!("{values}: {} changes the prediction, not the map", attack.entry.id)));
        }
        Ok(Box::new(UnderAttack {
            attack,
            how: Comparison {
                scale: values.parse("scale")?,
                k: within(values, "k", |v| v > 0.0 && v <= 1.0, "a share above 0 and up to 1")?,
                reduction: values.parse("reduce")?,
            },
            last: Mutex::new(None),
        }))
    },
};

/// Pictures after an attack; `None` if it found nothing.
type AttackedPictures = Vec<Option<Tensor>>;

/// Keys of pictures, the classes for which they were attacked, and the results.
type LastAttack = (Vec<u64>, Vec<usize>, AttackedPictures);

struct UnderAttack {
    attack: AttackSpec,
    how: Comparison,
    /// Results for the last case's pictures: an attack does not depend on the method, and methods take turns on the
    /// same pictures.
    last: Mutex<Option<LastAttack>>,
}

impl UnderAttack {
    fn moved(&self, engine: &mut Engine, case: &Case<'_>) -> Result<AttackedPictures> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = case.x.keys();
        if let Some((of, targets, moved)) = &*last
            && (of, targets.as_slice()) == (&keys, case.targets)
        {
            return Ok(moved.clone());
        }
        let load =
            |path: &std::path::Path| Err(Error::settings(format!("{}: a metric reads no pictures", path.display())));
        let attack = self.attack.build(&AttackContext { seed: case.seed, load: &load, load_map: &load })?;
        let found = attack.run(engine, case.graph, case.preprocess, case.x, case.targets)?;
        let moved: AttackedPictures = found.into_iter().map(|f| f.succeeded.then_some(f.picture)).collect();
        *last = Some((keys, case.targets.to_vec(), moved.clone()));
        Ok(moved)
    }
}

impl Metric for UnderAttack {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let moved = self.moved(engine, case)?;
        let mut readings = vec![vec![None; 4]; case.x.len()];
        let found: Vec<usize> = (0..moved.len()).filter(|&i| moved[i].is_some()).collect();
        if found.is_empty() {
            return Ok(readings);
        }
        let of = |i: &usize| case.x.items()[*i].clone();
        let x = Batch::of(found.iter().map(of).collect())?;
        let x_moved = Batch::of(moved.into_iter().flatten().collect())?.drawn_as(&x)?;
        let targets: Vec<usize> = found.iter().map(|&i| case.targets[i]).collect();
        let maps: Vec<_> = found.iter().map(|&i| case.maps[i].clone()).collect();
        let explained = Explained { graph: case.graph, method: case.method, x: &x, targets: &targets, maps: &maps };
        for (i, s) in found.into_iter().zip(stability(engine, &explained, &x_moved, &self.how)?) {
            readings[i] = vec![s.ratio, s.top(), s.spearman, s.mass_shift];
        }
        Ok(without(readings, &case.blank()))
    }
}
