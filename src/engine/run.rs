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
        let mut harvest = Harvest::within(std::mem::take(&mut self.spare), sums.len());
        let mut slots: Vec<Slot> = harvest.spare.take(total.min(room));
        let closing = run.plan.closing();
        let mut done = 0;
        while done < total {
            self.cancel.check()?;
            slots.clear();
            slots.extend((done..total.min(done + room)).map(|i| {
                let (item, copy) = (i / copies, i % copies);
                Slot { item, copy, target: run.targets[item], weight: run.copies.weights[copy] }
            }));
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
                let mut ended = harvest.spare.take(slots.len());
                ended.extend(slots.iter().filter(|s| s.copy + 1 == copies));
                self.close(run.graph, closing, &ended, &mut harvest)?;
                harvest.spare.keep(ended);
            }
            done += slots.len();
            gather(&mut harvest, &slots)?;
        }
        harvest.spare.keep(slots);
        harvest.spare.keep(sums);
        self.spare = harvest.into_spare();
        Ok(())
    }

    /// Turns summed signals into maps, for pictures that fit into one chunk.
    fn close(&mut self, graph: &Graph, closing: &Closing, ended: &[Slot], harvest: &mut Harvest) -> Result<()> {
        if ended.is_empty() {
            return Ok(());
        }
        let precision = self.device.precision();
        let mut signals = [harvest.spare.take(ended.len())];
        for slot in ended {
            let sum = std::mem::take(&mut harvest.sums[slot.item]);
            let values = sum.finish(Statistic::Sum, precision, &mut harvest.spare);
            signals[0].push(harvest.spare.round(&closing.signal.dims(), values, precision)?);
        }
        let of_signal = |(item, slot): (usize, &Slot)| Slot { item, copy: 0, target: slot.target, weight: 1.0 };
        let slots = harvest.spare.of(ended.iter().enumerate().map(of_signal));
        let perturbation = Perturbation::None;
        let chunk =
            Chunk { slots: &slots, pictures: &[], perturbation: &perturbation, loads: &signals, decisions: &[] };
        let mut closed = Harvest::within(std::mem::take(&mut harvest.spare), 0);
        self.run_chunk(graph, &closing.plan, &chunk, &mut closed)?;
        for (slot, map) in ended.iter().zip(closed.stores.iter().flatten()) {
            harvest.sums[slot.item].first = closed.spare.of(map.each());
        }
        harvest.spare = closed.into_spare();
        harvest.spare.keep(slots);
        signals.into_iter().for_each(|signals| harvest.spare.keep_tensors(signals));
        Ok(())
    }

    /// Runs one chunk and checks its results.
    fn run_chunk(&mut self, graph: &Graph, plan: &Arc<Plan>, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()> {
        match &mut self.recorder {
            None => self.device.run(plan, chunk, harvest)?,
            Some(recorder) => recorder.run(self.device.as_mut(), plan, chunk, harvest)?,
        }
        if finite(harvest) {
            // What was only watched.
            let stores = plan.program().stores().min(harvest.stores.len());
            harvest.stores.drain(stores..).for_each(|tensors| harvest.spare.keep_tensors(tensors));
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
