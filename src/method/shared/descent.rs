//! Common parts of methods and attacks that minimise an objective: pictures in groups, progress reports, gradients of
//! the score at given inputs, and the loop over masks of blurred pictures.

use crate::engine::{Batch, Copies, Engine, Progress, Script, Task};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Gap, Map, Sign, Space};
use crate::program::{Builder, Score};
use crate::rule::{Composite, pull_back};
use crate::tensor::{Precision, Tensor, rounding};

/// Progress of one group of pictures within a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    method: &'static str,
    /// Iterations of the previous groups.
    before: usize,
    /// Iterations of all groups.
    total: usize,
}

impl Course {
    /// Reports that `done` iterations of this group are finished, with its pictures' objectives.
    pub(crate) fn report(&self, engine: &mut Engine, done: usize, objectives: impl Iterator<Item = f64>) {
        let (sum, count) = objectives.fold((0.0, 0), |(sum, count), o| (sum + o, count + 1));
        let objective = (count > 0).then(|| sum / f64::from(count));
        let &Self { method, before, total } = self;
        engine.progress(&Progress { method, done: before + done, total, objective });
    }
}

/// Most bytes on the host for the pictures that are processed together.
const MOST_BYTES: usize = 256 << 20;

/// Runs `explain` on a few pictures at a time, so that its memory (`bytes` per picture) does not grow with the batch
/// and stays within the engine's bound; each group takes `iterations`.
pub(crate) fn in_groups<T>(
    (method, iterations): (&'static str, usize),
    engine: &mut Engine,
    (x, targets): (&Batch, &[usize]),
    bytes: usize,
    mut explain: impl FnMut(&mut Engine, &Batch, &[usize], Course) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let most = engine.together(bytes, MOST_BYTES / bytes.max(1));
    // A wrong number of targets is left for the engine to refuse.
    let groups = if targets.len() == x.len() { x.len().div_ceil(most) } else { 1 };
    let course = |group: usize| Course { method, before: group * iterations, total: groups * iterations };
    course(0).report(engine, 0, std::iter::empty());
    let mut kept = |engine: &mut Engine, x: &Batch, targets: &[usize], group: usize| {
        engine.keeping((method, bytes.saturating_mul(x.len())), |engine| explain(engine, x, targets, course(group)))
    };
    if groups == 1 {
        return kept(engine, x, targets, 0);
    }
    let mut all = Vec::with_capacity(x.len());
    for (group, targets) in targets.chunks(most).enumerate() {
        let first = group * most;
        all.extend(kept(engine, &x.part(first..first + targets.len())?, targets, group)?);
    }
    Ok(all)
}

/// A score's gradient at loaded inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Slopes(Score);

impl Script for Slopes {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let (input, output) = (b.graph().input(), b.graph().output());
        let given = b.load(0, b.graph().input_shape())?;
        b.replace(input, given)?;
        let seed = b.seed(self.0);
        let signal = pull_back(b, &Composite::gradient(), output, seed, input)?;
        b.store(signal, 0)
    }
}

/// The score at loaded inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ScoresOfLoaded(Score);

impl Script for ScoresOfLoaded {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let given = b.load(0, b.graph().input_shape())?;
        b.replace(b.graph().input(), given)?;
        b.score(self.0);
        Ok(())
    }
}

/// Minimises over one vector in [0, 1] per picture, in place. In each iteration, `mixed(iteration, picture, vector)`
/// returns the net's input (`[C, H, W]`) and data for `step`; `step(iteration, picture, vector, …, (score, signal))`
/// updates the vector by the score's gradient at that input and returns the objective before the update.
pub(crate) fn descend<K>(
    engine: &mut Engine,
    graph: &Graph,
    (x, targets): (&Batch, &[usize]),
    (score, iterations, course): (Score, usize, Course),
    vectors: &mut [Vec<f64>],
    mixed: impl Fn(usize, usize, &[f64]) -> (Vec<f64>, K),
    mut step: impl FnMut(usize, usize, &mut [f64], &K, (f64, Vec<f64>)) -> f64,
) -> Result<()> {
    for iteration in 0..iterations {
        let (inputs, kept): (_, Vec<K>) = vectors.iter().enumerate().map(|(i, v)| mixed(iteration, i, v)).unzip();
        let slopes = slopes(engine, graph, score, (x, targets), inputs)?;
        let mut objectives = Vec::with_capacity(x.len());
        for (i, (slope, kept)) in slopes.into_iter().zip(&kept).enumerate() {
            objectives.push(step(iteration, i, &mut vectors[i], kept, slope));
            vectors[i].iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        }
        course.report(engine, iteration + 1, objectives.into_iter());
    }
    Ok(())
}

/// Maps `[H, W]` from the results for each picture, in [0, 1]. If no mask changes the picture, its map is blank. `gap`
/// measures the promise.
pub(crate) fn maps(
    engine: &Engine,
    method: &'static str,
    (x, targets): (&Batch, &[usize]),
    found: Vec<(Vec<f64>, bool)>,
    gap: impl Fn(&[f64]) -> Option<Gap>,
) -> Result<Vec<Map>> {
    let precision = engine.describe().precision;
    let map = |((values, still), &target): ((Vec<f64>, bool), &usize)| {
        let values = if still { vec![0.0; values.len()] } else { values };
        let gap = gap(&values);
        let values = Tensor::rounded([x.shape().h, x.shape().w], values, precision)?;
        let map = Map { gap, ..Map::new(values, Sign::Unsigned, Space::Input, target, method) };
        Ok(if still { map.blank() } else { map.settled(rounding(1.0, Precision::F64)) })
    };
    found.into_iter().zip(targets).map(map).collect()
}

/// For each input (`[C, H, W]` in double precision, one per picture of `x`): the target's score and its gradient with
/// respect to the input, in its C order.
fn slopes(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    (x, targets): (&Batch, &[usize]),
    inputs: Vec<Vec<f64>>,
) -> Result<Vec<(f64, Vec<f64>)>> {
    let loads = [tensors(x, inputs)?];
    let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
    let outcome = engine.evaluate(graph, &Slopes(score), &task)?;
    let signals = outcome.stores.into_iter().flatten().map(|s| s.to_f64().into_owned());
    Ok(outcome.scores.into_iter().flatten().zip(signals).collect())
}

/// As [`slopes`], but only the scores.
pub(crate) fn scores(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    (x, targets): (&Batch, &[usize]),
    inputs: Vec<Vec<f64>>,
) -> Result<Vec<f64>> {
    let loads = [tensors(x, inputs)?];
    let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
    let outcome = engine.evaluate(graph, &ScoresOfLoaded(score), &task)?;
    Ok(outcome.scores.into_iter().flatten().collect())
}

fn tensors(x: &Batch, inputs: Vec<Vec<f64>>) -> Result<Vec<Tensor>> {
    inputs.into_iter().map(|input| Tensor::f64(x.shape().dims(), input)).collect()
}

/// Side of the pictures for which the papers give lengths in pixels; lengths scale with the longer side.
const SIDE: f64 = 224.0;

/// Length in a picture of this size that corresponds to one pixel at 224 x 224.
pub(crate) fn pixel_scale([h, w]: [usize; 2]) -> f64 {
    h.max(w) as f64 / SIDE
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::engine::Settings;

    #[test]
    fn groups_are_put_together_again_and_tell_of_the_whole() {
        let picture = |v: f32| Tensor::f32([1, 1, 2], vec![v, -v]).unwrap();
        let x = Batch::of((0..5u8).map(|i| picture(f32::from(i))).collect()).unwrap();
        let targets = [3, 1, 4, 1, 5];
        let mut engine = Engine::new(&Settings { memory: Some(8 << 30), ..Settings::default() }).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        engine.observe(Box::new(move |p| ear.lock().unwrap().push((p.done, p.total, p.objective))));
        let mut sizes = Vec::new();
        let found =
            in_groups(("haf", 10), &mut engine, (&x, &targets), MOST_BYTES / 2, |engine, x, targets, course| {
                sizes.push(x.len());
                course.report(engine, 10, targets.iter().map(|&t| t as f64));
                Ok(x.keys().iter().copied().zip(targets.to_vec()).collect())
            });
        assert_eq!(found.unwrap(), x.keys().iter().copied().zip(targets).collect::<Vec<_>>());
        assert_eq!(sizes, [2, 2, 1]);
        let means = [(0, 30, None), (10, 30, Some(2.0)), (20, 30, Some(2.5)), (30, 30, Some(5.0))];
        assert_eq!(*heard.lock().unwrap(), means);
        // At least one at a time; all together if they fit, or if the targets do not match.
        let mut count = |bytes: usize, targets: &[usize]| {
            let mut groups = 0;
            let all = in_groups(("haf", 1), &mut engine, (&x, targets), bytes, |_, x, _, _| {
                groups += 1;
                Ok(x.keys().to_vec())
            });
            assert_eq!(all.unwrap(), x.keys());
            groups
        };
        let counts =
            (count(2 * MOST_BYTES, &targets), count(MOST_BYTES / 5, &targets), count(MOST_BYTES / 2, &targets[..4]));
        assert_eq!(counts, (5, 1, 1));
    }
}
