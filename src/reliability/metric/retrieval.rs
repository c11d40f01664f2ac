//! Class retrieval under attack (Lim, Lee, Kim 2021).

use super::attacked::{self, EPSILON, ITERATIONS, RememberedAttack, START, STEP};
use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, plane};
use crate::engine::{Batch, Engine};
use crate::error::Result;
use crate::map::{Map, Reduction, paper_scale};
use crate::reliability::scores::together;
use crate::score::top;
use crate::tensor::Tensor;

const fn higher(key: &'static str) -> Output {
    Output { key, better: Better::Higher }
}

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "retrieval",
    title: "Class retrieval under attack",
    paper: "Lim, Lee, Kim 2021: Building reliable explanations of unreliable neural networks: locally smoothing perspective \
            of model interpretation, CVPR",
    summary: "1 where the net's top class of a masked picture is the one it predicts on the clean picture x. Four pictures: x \
              and what PGD makes of it (xa), each masked (product as the net sees it) by the map of x (mx) and by that of xa \
              (mxa), maps scaled to 0 to 1 as S_F scales them. The explainer is given the class predicted on x (oracle: the \
              paper's setting) or the one predicted on xa (predicted: all that is known under attack)",
    parameters: &[EPSILON, STEP, ITERATIONS, START],
    outputs: &[
        higher("retrieval_x_mx_oracle"),
        higher("retrieval_xa_mx_oracle"),
        higher("retrieval_xa_mxa_oracle"),
        higher("retrieval_x_mxa_oracle"),
        higher("retrieval_x_mx_predicted"),
        higher("retrieval_xa_mx_predicted"),
        higher("retrieval_xa_mxa_predicted"),
        higher("retrieval_x_mxa_predicted"),
    ],
    needs: Needs::Maps,
    build: |values| Ok(Box::new(Retrieval(attacked::attack(values)?))),
};

struct Retrieval(RememberedAttack);

/// Masked pictures per kind of class: x by mx, xa by mx, xa by mxa, x by mxa.
const PRODUCTS: usize = 4;

impl Metric for Retrieval {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let attacked = self.0.on(engine, case)?;
        let (clean, after, moved) = (&attacked.clean, &attacked.after, &attacked.x);
        let oracle_x = attacked::explain(engine, case, case.x, clean, attacked::known(case, clean))?;
        let oracle_xa = attacked::explain(engine, case, moved, clean, vec![None; clean.len()])?;
        // If the attack failed, both classes are the same, and so are the maps.
        let same = |maps: &[Map], i: usize| (clean[i] == after[i]).then(|| maps[i].clone());
        let each = 0..clean.len();
        let of_targets = attacked::known(case, after);
        let known = each.clone().zip(of_targets).map(|(i, map)| same(&oracle_x, i).or(map)).collect();
        let predicted_x = attacked::explain(engine, case, case.x, after, known)?;
        let known = each.map(|i| same(&oracle_xa, i)).collect();
        let predicted_xa = attacked::explain(engine, case, moved, after, known)?;

        let mut right = Vec::with_capacity(2 * PRODUCTS * clean.len());
        let mut flat = Vec::with_capacity(2 * PRODUCTS * clean.len());
        let mut waiting = Vec::new();
        let room = together(engine, case.x.shape());
        for i in 0..clean.len() {
            let (x, xa) = (&case.x.items()[i], &moved.items()[i]);
            for (mx, mxa) in [(&oracle_x[i], &oracle_xa[i]), (&predicted_x[i], &predicted_xa[i])] {
                let [mx, mxa] = [scaled(mx, case.x)?, scaled(mxa, case.x)?];
                for (picture, mask) in [(x, &mx), (xa, &mx), (xa, &mxa), (x, &mxa)] {
                    waiting.push((masked(picture, mask)?, clean[i]));
                    flat.push(mask.iter().all(|v| *v == mask[0]));
                }
            }
            if waiting.len() >= room {
                agree(engine, case, &mut waiting, &mut right)?;
            }
        }
        agree(engine, case, &mut waiting, &mut right)?;
        // A constant map masks nothing, or everything.
        right.iter_mut().zip(flat).filter(|(_, flat)| *flat).for_each(|(number, _)| *number = None);
        Ok(right.chunks(2 * PRODUCTS).map(<[_]>::to_vec).collect())
    }
}

/// A map as a mask in 0 to 1, one number per pixel.
fn scaled(map: &Map, x: &Batch) -> Result<Vec<f64>> {
    // Refuses maps in another space; paper_scale itself reduces the channels.
    plane(map, x, Reduction::MaxAbs)?;
    Ok(paper_scale(&map.values)?.to_f64().into_owned())
}

/// `picture ∘ mask`, the same for all channels.
fn masked(picture: &Tensor, mask: &[f64]) -> Result<Tensor> {
    let values = picture.to_f64().iter().enumerate().map(|(i, v)| v * mask[i % mask.len()]).collect();
    Tensor::rounded(picture.dims(), values, picture.precision())
}

/// For each waiting picture, whether the net's top class is the given one.
fn agree(engine: &mut Engine, case: &Case<'_>, waiting: &mut Vec<(Tensor, usize)>, right: &mut Readings) -> Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let (pictures, classes): (Vec<Tensor>, Vec<usize>) = waiting.drain(..).unzip();
    let logits = engine.forward(case.graph, &Batch::of(pictures)?)?.to_f64().into_owned();
    let tops = logits.chunks(case.graph.classes()).map(top);
    right.extend(tops.zip(classes).map(|(top, class)| Some(f64::from(u8::from(top == Some(class))))));
    Ok(())
}
