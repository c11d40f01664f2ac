//! Runs one program over one batch, in chunks, and reports results that are not finite.

use std::sync::Arc;

use super::{Batch, Copies, Engine};
use crate::device::{Chunk, Decisions, Harvest, Perturbation, Slot, Sum};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::program::{Closing, Plan, Statistic};
use crate::tensor::Tensor;

/// One program over one batch.
pub(super) struct ProgramRun<'a> {
    pub plan: &'a Arc<Plan>,
    pub graph: &'a Graph,
    pub x: &'a Batch,
    pub targets: &'a [usize],
    pub copies: &'a Copies,
    pub loads: &'a [Vec<Tensor>],
    pub decisions: &'a [Decisions],
}

impl<'a> ProgramRun<'a> {
    /// No loads, and no decisions from another pass.
    pub fn plain(
        plan: &'a Arc<Plan>,
        graph: &'a Graph,
        x: &'a Batch,
        targets: &'a [usize],
        copies: &'a Copies,
    ) -> Self {
        Self { plan, graph, x, targets, copies, loads: &[], decisions: &[] }
    }
}

impl Engine {
    /// Runs every copy of every picture, chunk by chunk in order, and hands each chunk's results to `gather`. `sums`
    /// are the statistic and the length of each picture's map; a picture's map is finished once its last copy's chunk
    /// is done.
    pub(super) fn run(
        &mut self,
        run: &ProgramRun<'_>,
        sums: Vec<(Statistic, usize)>,
        gather: impl FnMut(&mut Harvest, &[Slot]) -> Result<()>,
    ) -> Result<()> {
        self.refuse_hidden_overflow(run)?;
        self.run_all(run, sums, gather)
    }

    /// As [`Engine::run`], without the check for clipped overflows.
    pub(super) fn run_all(
        &mut self,
        run: &ProgramRun<'_>,
        sums: Vec<(Statistic, usize)>,
        mut gather: impl FnMut(&mut Harvest, &[Slot]) -> Result<()>,
    ) -> Result<()> {
        let copies = run.copies.weights.len();
        let total = run.x.len() * copies;
        let room = self.chunk(run, &sums, total)?;
        let spare = std::mem::take(&mut self.spare);
        let mut harvest = Harvest { sums: vec![Sum::default(); sums.len()], spare, ..Harvest::default() };
        let closing = run.plan.closing();
        let mut done = 0;
        while done < total {
            self.cancel.check()?;
            let slots: Vec<Slot> = (done..total.min(done + room))
                .map(|i| {
                    let (item, copy) = (i / copies, i % copies);
                    Slot { item, copy, target: run.targets[item], weight: run.copies.weights[copy] }
                })
                .collect();
            for slot in slots.iter().filter(|s| s.copy == 0) {
                if let Some(&(statistic, len)) = sums.get(slot.item) {
                    let len = closing.map_or(len, |closing| closing.signal.len());
                    harvest.sums[slot.item] = Sum::within(&mut harvest.spare, statistic, len);
                }
            }
            let chunk = Chunk {
                slots: &slots,
                pictures: &run.x.items,
                perturbation: &run.copies.perturbation,
                loads: run.loads,
                decisions: run.decisions,
            };
            self.run_chunk(run.graph, run.plan, &chunk, &mut harvest)?;
            if let Some(closing) = closing {
                let ended: Vec<Slot> = slots.iter().filter(|s| s.copy + 1 == copies).copied().collect();
                self.close(run.graph, closing, &ended, &mut harvest)?;
            }
            done += slots.len();
            gather(&mut harvest, &slots)?;
        }
        self.spare = harvest.spare;
        Ok(())
    }

    /// Turns summed signals into maps, for pictures that fit into one chunk.
    fn close(&mut self, graph: &Graph, closing: &Closing, ended: &[Slot], harvest: &mut Harvest) -> Result<()> {
        if ended.is_empty() {
            return Ok(());
        }
        let precision = self.device.describe().precision;
        let signal = |slot: &Slot| {
            let sum = std::mem::take(&mut harvest.sums[slot.item]);
            harvest.spare.round(closing.signal.dims(), sum.finish(Statistic::Sum, precision), precision)
        };
        let signals = [ended.iter().map(signal).collect::<Result<Vec<_>>>()?];
        let of_signal = |(item, slot): (usize, &Slot)| Slot { item, copy: 0, target: slot.target, weight: 1.0 };
        let slots: Vec<Slot> = ended.iter().enumerate().map(of_signal).collect();
        let perturbation = Perturbation::None;
        let chunk =
            Chunk { slots: &slots, pictures: &[], perturbation: &perturbation, loads: &signals, decisions: &[] };
        let mut closed = Harvest::default();
        self.run_chunk(graph, &closing.plan, &chunk, &mut closed)?;
        for (slot, map) in ended.iter().zip(closed.stores.iter().flatten()) {
            harvest.sums[slot.item].first = map.to_f64().into_owned();
        }
        Ok(())
    }

    /// Runs one chunk and checks its results.
    fn run_chunk(&mut self, graph: &Graph, plan: &Arc<Plan>, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()> {
        match &mut self.recorder {
            None => self.device.run(plan, chunk, harvest)?,
            Some(recorder) => recorder.run(self.device.as_mut(), plan, chunk, harvest)?,
        }
        if finite(harvest) {
            harvest.stores.truncate(plan.program().stores());
            return Ok(());
        }
        Err(self.explain_not_finite(graph, plan, chunk))
    }

    fn explain_not_finite(&mut self, graph: &Graph, plan: &Plan, chunk: &Chunk<'_>) -> Error {
        match self.device.first_not_finite(plan, chunk) {
            Err(e) => e,
            Ok(at) => {
                let place = at.map_or("the result".to_string(), |i| step_name(graph, plan, i));
                Error::device(format!("a number overflowed or became NaN; it began at {place}"))
            }
        }
    }
}

fn finite(harvest: &Harvest) -> bool {
    !harvest.clamped_infinity
        && harvest.logits.iter().flatten().all(|x| x.is_finite())
        && harvest.scores.iter().all(|x| x.is_finite())
        && harvest.sums.iter().all(|s| s.first.iter().chain(&s.second).all(|x| x.is_finite()))
        && harvest.stores.iter().flatten().all(|t| t.first_not_finite().is_none())
}

/// Describes a step: its primitive and the layer it belongs to.
fn step_name(graph: &Graph, plan: &Plan, i: usize) -> String {
    let kind = plan.steps()[i].kind();
    match plan.program().node(i) {
        Some(node) => format!("layer '{}' ({kind})", graph.node(node).name),
        None => format!("step {} of {} ({kind})", i + 1, plan.steps().len()),
    }
}
