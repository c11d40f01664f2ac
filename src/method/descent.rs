//! What methods share that descend on an objective: pictures in groups, and word of how far they have come.

use crate::engine::{Batch, Engine, Progress};
use crate::error::Result;

/// Where one group of pictures stands within a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    method: &'static str,
    /// Iterations of the groups before.
    before: usize,
    /// Iterations of all groups.
    total: usize,
}

impl Course {
    /// Tells that `done` iterations of this group are done and what its pictures' objectives are.
    pub(super) fn report(&self, engine: &mut Engine, done: usize, objectives: impl Iterator<Item = f64>) {
        let (sum, count) = objectives.fold((0.0, 0), |(sum, count), o| (sum + o, count + 1));
        let objective = (count > 0).then(|| sum / f64::from(count));
        let &Self { method, before, total } = self;
        engine.progress(&Progress { method, done: before + done, total, objective });
    }
}

/// Runs `explain` on at most `most` pictures at a time, so that what it holds does not grow with the batch; each group takes
/// `iterations`.
pub(super) fn in_groups<T>(
    (method, iterations): (&'static str, usize),
    engine: &mut Engine,
    (x, targets): (&Batch, &[usize]),
    most: usize,
    mut explain: impl FnMut(&mut Engine, &Batch, &[usize], Course) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let most = most.max(1);
    // A wrong number of targets is for the engine to refuse.
    let groups = if targets.len() == x.len() { x.len().div_ceil(most) } else { 1 };
    let course = |group: usize| Course { method, before: group * iterations, total: groups * iterations };
    course(0).report(engine, 0, std::iter::empty());
    if groups == 1 {
        return explain(engine, x, targets, course(0));
    }
    let mut all = Vec::with_capacity(x.len());
    for (group, (items, targets)) in x.items().chunks(most).zip(targets.chunks(most)).enumerate() {
        all.extend(explain(engine, &Batch::of(items.to_vec())?, targets, course(group))?);
    }
    Ok(all)
}
