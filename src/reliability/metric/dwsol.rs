//! D-WSOL: localisation that must discriminate between classes, also under attack. The task is that of Wang, Su, Zhang,
//! Hu 2020, whose protocol is not public; the definition here is this project's own.

use super::attacked::{self, EPSILON, ITERATIONS, RememberedAttack, START, STEP};
use super::{Better, Bounds, Case, Metric, MetricEntry, Needs, Output, Readings, plane, reduce, within};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::map::{Map, Reduction, Sign};
use crate::method::Parameter;
use crate::random::Stream;
use crate::reliability::draws::MetricDraws;
use crate::reliability::localisation::largest_component;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "dwsol",
    title: "Discriminative localisation (D-WSOL)",
    paper: "the task: Wang, Su, Zhang, Hu 2020: Learning reliable visual saliency for model explanations, IEEE Transactions \
            on Multimedia; the protocol: this project's own",
    summary: "a: asked for a class that is there (the explained one, else that of the first region), 1 where the box around the \
              largest component of the map at the threshold overlaps a region of it by an intersection over union above 0.5. \
              b: asked for a class drawn from those that are not there, 1 where the raw map's energy (sum of magnitudes) is at \
              most a share of that for the class that is; none where that has none. c: the share of the same two questions answered rightly where PGD has \
              changed the top class; none where it could not. dwsol: the share of all questions answered rightly",
    parameters: &[
        Parameter {
            key: "threshold",
            unit: "share of the maximum",
            default: "0.2",
            help: "from which number on a pixel counts, as in wsol",
        },
        reduce("channel_sum"),
        Parameter {
            key: "share",
            unit: "of the energy",
            default: "0.5",
            help: "how much of the energy a class that is not there may have",
        },
        EPSILON,
        STEP,
        ITERATIONS,
        START,
    ],
    outputs: &[
        Output { key: "dwsol", better: Better::Higher },
        Output { key: "dwsol_a", better: Better::Higher },
        Output { key: "dwsol_b", better: Better::Higher },
        Output { key: "dwsol_c", better: Better::Higher },
    ],
    needs: Needs::Regions,
    build: |values| {
        Ok(Box::new(DWsol {
            threshold: within(values, "threshold", |v| (0.0..=1.0).contains(&v), "a share from 0 to 1")?,
            reduction: values.parse("reduce")?,
            share: within(values, "share", |v| v >= 0.0 && v.is_finite(), "a finite share of at least 0")?,
            attack: attacked::attack(values)?,
        }))
    },
};

/// Overlap above which an object counts as found (Russakovsky et al. 2015).
const FOUND: f64 = 0.5;

struct DWsol {
    threshold: f64,
    reduction: Reduction,
    share: f64,
    attack: RememberedAttack,
}

/// The question about one picture.
struct Question {
    present: usize,
    /// Boxes of the present class.
    boxes: Vec<Bounds>,
    /// An absent class; `None` if every class is present.
    absent: Option<usize>,
}

impl Metric for DWsol {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let regions = case.regions(ENTRY.id)?;
        let draws = MetricDraws { stream: Stream::Dwsol, seed: case.seed };
        let mut questions = Vec::with_capacity(regions.len());
        for (i, regions) in regions.iter().enumerate() {
            let Some(first) = regions.first() else {
                return Err(Error::input(format!("picture {i}: nothing is known to be there")));
            };
            let there = |class: usize| regions.iter().any(|r| r.class == class);
            let present = if there(case.targets[i]) { case.targets[i] } else { first.class };
            let boxes = regions.iter().filter(|r| r.class == present).map(|r| r.bounds).collect();
            // With a single output, the other class is its negative, so there is no absent class to ask about.
            let classes = if case.graph.is_paired() { 0 } else { case.graph.classes() };
            let others: Vec<usize> = (0..classes).filter(|&class| !there(class)).collect();
            let drawn = if others.is_empty() { Vec::new() } else { draws.subset(case.x.keys()[i], 0, others.len(), 1) };
            let absent = drawn.first().and_then(|&k| others.get(k as usize).copied());
            questions.push(Question { present, boxes, absent });
        }
        let present: Vec<usize> = questions.iter().map(|q| q.present).collect();
        let clean = self.ask(engine, case, case.x, &questions, attacked::known(case, &present))?;
        let attacked = self.attack.on(engine, case)?;
        let moved: Vec<usize> = (0..questions.len()).filter(|&i| attacked.clean[i] != attacked.after[i]).collect();
        let mut disturbed: Vec<[Option<bool>; 2]> = vec![[None; 2]; questions.len()];
        if !moved.is_empty() {
            let x = Batch::of(moved.iter().map(|&i| attacked.x.items()[i].clone()).collect())?;
            let some: Vec<&Question> = moved.iter().map(|&i| &questions[i]).collect();
            let answers = self.ask(engine, case, &x, &some, vec![None; moved.len()])?;
            moved.into_iter().zip(answers).for_each(|(i, answer)| disturbed[i] = answer);
        }
        let readings = clean.into_iter().zip(disturbed).map(|(clean, disturbed)| {
            let [a, b] = clean.map(|right| share(&[right]));
            vec![share(&[clean, disturbed].concat()), a, b, share(&disturbed)]
        });
        Ok(readings.collect())
    }
}

impl DWsol {
    /// Whether each picture's present class is localised and its absent class suppressed; `known` are maps of present
    /// classes.
    fn ask<Q: std::borrow::Borrow<Question>>(
        &self,
        engine: &mut Engine,
        case: &Case<'_>,
        x: &Batch,
        questions: &[Q],
        known: Vec<Option<Map>>,
    ) -> Result<Vec<[Option<bool>; 2]>> {
        let questions: Vec<&Question> = questions.iter().map(std::borrow::Borrow::borrow).collect();
        let present: Vec<usize> = questions.iter().map(|q| q.present).collect();
        let shown = attacked::explain(engine, case, x, &present, known)?;
        // If there is no absent class, the present one stands in; its map is known.
        let absent: Vec<usize> = questions.iter().map(|q| q.absent.unwrap_or(q.present)).collect();
        let stands_in = questions.iter().zip(&shown).map(|(q, map)| q.absent.is_none().then(|| map.clone()));
        let hidden = attacked::explain(engine, case, x, &absent, stands_in.collect())?;
        let shape = x.shape();
        let answer = |((question, shown), hidden): ((&&Question, &Map), &Map)| {
            let plane = plane(shown, x, self.reduction)?;
            let found = largest_component(&plane.to_f64(), [shape.h, shape.w], self.threshold);
            let localised = found.is_some_and(|found| question.boxes.iter().any(|b| b.iou(&found) > FOUND));
            // Compared with a blank map, nothing is suppressed.
            let whole = energy(shown);
            let suppressed = (whole > 0.0).then(|| energy(hidden) <= self.share * whole);
            Ok([Some(localised), question.absent.and(suppressed)])
        };
        questions.iter().zip(&shown).zip(&hidden).map(answer).collect()
    }
}

/// Sum of the raw map's magnitudes; for maps with an arbitrary offset, relative to their minimum.
fn energy(map: &Map) -> f64 {
    let values = map.values.to_f64();
    match map.sign {
        Sign::Signed | Sign::Unsigned => values.iter().map(|v| v.abs()).sum(),
        Sign::Relative => {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            values.iter().map(|v| v - least).sum()
        }
    }
}

/// Share of correct answers among the questions that were asked.
fn share(answers: &[Option<bool>]) -> Option<f64> {
    let asked: Vec<bool> = answers.iter().flatten().copied().collect();
    (!asked.is_empty()).then(|| asked.iter().filter(|&&right| right).count() as f64 / asked.len() as f64)
}
