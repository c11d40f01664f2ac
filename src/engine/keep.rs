//! Counts the memory that is held on the host while programs run, so that the bound covers all of it.

use super::{Copies, Engine, Outcome, ProgramRun};
use crate::device::{Perturbation, ProgramRoom, Spare};
use crate::error::{Error, ErrorKind, Result};
use crate::program::{Statistic, Step};
use crate::tensor::Tensor;

/// Copies per chunk on the CPU: at most this many pictures have an unfinished statistic.
const CHUNK: usize = 64;

impl ProgramRun<'_> {
    /// Bytes that the run needs on the host for its inputs and results, without and with the statistics. `elem` is the
    /// number of bytes of one result element.
    pub(super) fn host_bytes(&self, sums: &[(Statistic, usize)], elem: usize) -> [usize; 2] {
        let all = |tensors: &[Tensor]| tensors.iter().map(bytes).sum::<usize>();
        let (copies, pictures) = (self.copies.weights.len(), self.x.len());
        let given = all(self.x.items()) + self.loads.iter().map(|load| all(load)).sum::<usize>();
        let altered = match &self.copies.perturbation {
            Perturbation::None | Perturbation::Noise { .. } => 0,
            Perturbation::Path { baselines, .. } => all(baselines),
            // The device converts the pictures that it masks.
            Perturbation::Boxes(boxes) => all(&boxes.fills) + all(self.x.items()),
            Perturbation::Masks(masks) => {
                let drawn = masks.masks.iter().flatten().map(|m| size_of_val(m) + size_of_val(&m.values[..]));
                drawn.sum::<usize>() + all(self.x.items())
            }
            Perturbation::Others(others) => others.iter().map(|o| all(o)).sum(),
        };
        let stored = self.plan.steps().iter().map(|step| match step {
            // What is watched is dropped after each chunk.
            Step::Store { slot, .. } if *slot >= self.plan.program().stores() => 0,
            Step::Store { x, .. } => self.plan.form(*x).shape().len() * elem,
            Step::StoreDecisions { x, .. } => self.plan.form(*x).shape().len() * size_of::<u16>(),
            _ => 0,
        });
        let stored = stored.sum::<usize>() * copies * pictures;
        // Scores are returned with all their logits, unless they only weight a map.
        let logits = self.plan.steps().iter().filter(|_| sums.is_empty()).map(|step| match step {
            Step::Head { logits, .. } => self.plan.form(*logits).shape().len() * size_of::<f64>(),
            _ => 0,
        });
        let logits = logits.sum::<usize>() * copies * pictures;
        let signal = self.plan.closing().map_or(0, |closing| closing.signal.len());
        let statistic = |&(statistic, len): &(Statistic, usize)| {
            len.max(signal) * size_of::<f64>() * if statistic.has_two() { 2 } else { 1 }
        };
        let running: usize = sums.iter().take(CHUNK).map(statistic).sum();
        let maps: usize = sums.iter().map(|(_, len)| len * elem).sum();
        let rest = given + altered + stored + logits + maps;
        [rest, rest + running]
    }
}

impl Engine {
    /// How many copies a chunk of the run may have within the bound. If it does not fit otherwise, memory of earlier
    /// statistics, kept for reuse, is freed.
    pub(super) fn chunk(&mut self, run: &ProgramRun<'_>, sums: &[(Statistic, usize)], total: usize) -> Result<usize> {
        if !self.on_host {
            return self.device.fit(run.plan, total, ProgramRoom { limit: self.memory, kept: 0 });
        }
        let [rest, all] = run.host_bytes(sums, self.device.precision().bytes());
        let held = usize::try_from(self.kept).unwrap_or(usize::MAX);
        let room = |bytes: usize| ProgramRoom { limit: self.memory, kept: held.saturating_add(bytes) };
        let (tight, roomy) = (room(all), room(all.max(rest + self.spare.bytes())));
        match self.device.fit(run.plan, total, roomy) {
            Err(e) if e.kind() == ErrorKind::Limit && roomy.kept > tight.kept => {
                self.spare = Spare::default();
                self.device.fit(run.plan, total, tight)
            }
            fitted => fitted,
        }
    }
}

impl<T> Outcome<T> {
    /// Leaves the memory of what nobody needs any more.
    pub(crate) fn keep_in(self, spare: &mut Spare) {
        let Self { mut stores, scores, mut logits, maps, .. } = self;
        stores.drain(..).for_each(|tensors| spare.keep_tensors(tensors));
        logits.drain(..).for_each(|logits| spare.keep_all(logits));
        spare.keep(stores);
        spare.keep(logits);
        spare.keep_all(scores);
        spare.keep_tensors(maps);
    }
}

impl Copies {
    /// Leaves their memory.
    pub(crate) fn keep_in(self, spare: &mut Spare) {
        spare.keep(self.weights);
        match self.perturbation {
            Perturbation::Noise { images, sigmas, .. } => {
                spare.keep(images);
                spare.keep(sigmas);
            }
            Perturbation::Path { alphas, baselines } => {
                spare.keep(alphas);
                spare.keep_tensors(baselines);
            }
            _ => {}
        }
    }
}

impl Engine {
    /// Memory for what a method makes, and for the results of its caller.
    pub(crate) fn spare(&mut self) -> &mut Spare {
        &mut self.spare
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.len() * tensor.precision().bytes()
}

impl Engine {
    /// How many objects of `bytes` each a method should hold at a time: a quarter of what the bound leaves, at least
    /// one and at most `most`.
    pub(crate) fn together(&self, bytes: usize, most: usize) -> usize {
        let quarter = self.left().map_or(usize::MAX, |left| usize::try_from(left / 4).unwrap_or(usize::MAX));
        (quarter / bytes.max(1)).clamp(1, most.max(1))
    }

    /// What is left of the host memory bound; `None` if there is no bound.
    pub(crate) fn left(&self) -> Option<u64> {
        self.memory.filter(|_| self.on_host).map(|memory| memory.saturating_sub(self.kept))
    }

    /// Runs `work` while `who` holds `bytes` on the host; the device gets that much less meanwhile.
    ///
    /// # Errors
    /// Limit if they exceed the bound; the errors of `work`.
    pub(crate) fn keeping<T>(
        &mut self,
        (who, bytes): (&str, usize),
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = self.kept;
        self.kept = before.saturating_add(bytes as u64);
        let done = self.make_room(who).and_then(|()| work(self));
        self.kept = before;
        done
    }

    /// Frees device memory that the host now needs.
    fn make_room(&mut self, who: &str) -> Result<()> {
        let Some(memory) = self.memory.filter(|_| self.on_host) else { return Ok(()) };
        if self.kept > memory {
            let mebibytes = |bytes: u64| format!("{:.1} MiB", (bytes as f64 / f64::from(1 << 20) * 10.0).ceil() / 10.0);
            return Err(Error::limit(format!(
                "{} of memory is not enough: one copy needs {} for all that is kept beside the net, the last of it by {who}, \
                 and more for the net",
                mebibytes(memory),
                mebibytes(self.kept)
            )));
        }
        self.device.release(memory - self.kept);
        Ok(())
    }

    /// Frees everything that this engine's device holds if another engine with the same bound, which has held at most
    /// `theirs` bytes, may not fit beside it.
    pub(crate) fn make_way(&mut self, theirs: u64) {
        let both = self.device.held_bytes().saturating_add(2 * theirs.max(self.peak_bytes()));
        if self.memory.is_some_and(|memory| both > memory) {
            self.device.release(0);
        }
    }
}
