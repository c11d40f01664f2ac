//! Runs programs by launching kernels on any runtime.

use std::collections::HashSet;
use std::time::Duration;

use super::arguments::{Address, Arguments, ReduceArgs};
use super::choice::{self, StepWay};
use super::constants::{Constants, WeightKey, WeightOrder, packed_len};
use super::layout;
use super::products::ProductKernels;
use super::region::GrowingMemory;
use super::runtime::{Launch, Refusal, Runtime};
use super::source;
use super::tables::Tables;
use crate::cancel::Cancel;
use crate::device::patch::{Moved, PatchTask, Stem};
use crate::device::threads::start_pool;
use crate::device::{Chunk, Description, Device, Harvest, ProgramRoom};
use crate::error::{Error, Result};
use crate::graph::Weight;
use crate::program::{Form, LastAdjoint, Plan, Value};
use crate::tensor::{Precision, Tensor};

/// Number of copies beyond which a chunk gains nothing.
const MOST_COPIES: usize = 256;
/// Arena size beyond which more copies gain nothing, if the device does not report its memory.
const ARENA_BYTES: usize = 256 << 20;

/// A device that computes with CUDA kernels.
pub(super) struct CudaDevice {
    pub runtime: Box<dyn Runtime>,
    pub products: ProductKernels,
    /// Multiprocessors: with fewer blocks, some would be idle.
    pub processors: usize,
    /// Whose kernels they are, if not the library's.
    edited: String,
    /// Whether steps are timed.
    timed: bool,
    pub constants: Constants,
    pub tables: Tables,
    /// Values of the chunk that runs.
    pub(super) arena: GrowingMemory,
    threads: usize,
    pub(super) peak: u64,
    cancel: Cancel,
}

/// A chunk's values in the arena.
pub(super) struct CudaValues<'a> {
    pub plan: &'a Plan,
    pub copies: usize,
    arena: Address,
}

impl CudaValues<'_> {
    /// Address of the first copy's value.
    pub fn at(&self, v: Value) -> Address {
        self.arena.plus(self.plan.place(v).offset * self.copies)
    }

    /// Bytes from one copy's value to the next.
    pub fn bytes(&self, v: Value) -> i32 {
        self.plan.place(v).bytes as i32
    }

    /// Numbers (or words) from one copy's value to the next.
    pub fn stride(&self, v: Value) -> i32 {
        self.bytes(v) / 4
    }

    /// Shape of the numbers, or of the elements that the bits or winners refer to.
    pub fn shape(&self, v: Value) -> crate::tensor::Shape {
        self.plan.form(v).shape()
    }
}

/// Rounded up, because the reported size must suffice.
pub(super) fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", (bytes as f64 / f64::from(1 << 20) * 10.0).ceil() / 10.0)
}

impl CudaDevice {
    /// A device on `runtime`, with `threads` threads of the host.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn new(runtime: Box<dyn Runtime>, products: ProductKernels, threads: usize) -> Result<Self> {
        let processors = runtime.machine().processors;
        Ok(Self {
            runtime,
            products,
            processors,
            edited: String::new(),
            timed: false,
            constants: Constants::new(start_pool(threads)?),
            tables: Tables::default(),
            arena: GrowingMemory::default(),
            threads,
            peak: 0,
            cancel: Cancel::default(),
        })
    }

    /// The same, saying that its kernels are those of `folder`.
    #[must_use]
    pub fn edited(mut self, folder: Option<&std::path::Path>) -> Self {
        self.edited = folder.map_or_else(String::new, |folder| format!(", kernels of {}", folder.display()));
        self
    }

    /// Queues one kernel on a grid of blocks; `shared_bytes` in place of those of the registry, if given.
    pub(super) fn launch<A: Arguments>(
        &mut self,
        kernel: &'static str,
        grid: [usize; 3],
        shared_bytes: Option<usize>,
        arguments: &A,
    ) -> Result<()> {
        let (unit, found) =
            source::find(kernel).ok_or_else(|| Error::device(format!("there is no kernel {kernel}")))?;
        if grid.contains(&0) {
            return Ok(());
        }
        let number =
            |n: usize| u32::try_from(n).map_err(|_| Error::device(format!("{kernel}: {n} blocks are too many")));
        let launch = Launch {
            grid: [number(grid[0])?, number(grid[1])?, number(grid[2])?],
            threads: found.threads,
            shared_bytes: shared_bytes.map_or(found.shared_bytes, |b| b as u32),
        };
        self.runtime.launch(unit, kernel, launch, arguments.packed())
    }

    /// Queues a kernel that writes `elements` numbers of each of `copies`, one a thread.
    pub(super) fn each<A: Arguments>(
        &mut self,
        kernel: &'static str,
        elements: usize,
        copies: usize,
        arguments: &A,
    ) -> Result<()> {
        let threads = source::find(kernel).map_or(128, |(_, k)| k.threads as usize);
        self.launch(kernel, [elements.div_ceil(threads), copies, 1], None, arguments)
    }

    /// Weights that the plan needs, each order once.
    fn weights<'p>(&self, plan: &'p Plan) -> Vec<(&'p Weight, usize, WeightOrder)> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for step in plan.steps() {
            if let Some((weight, groups, order)) = choice::weight_of(step)
                && seen.insert(WeightKey::new(weight, groups, order))
            {
                all.push((weight, groups, order));
            }
        }
        all
    }

    /// As [`Device::run`]; `after_step` may end the run.
    fn walk(
        &mut self,
        plan: &Plan,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
        after_step: &mut dyn FnMut(&mut Self, usize, &CudaValues<'_>) -> Result<bool>,
    ) -> Result<()> {
        let copies = chunk.slots.len();
        if copies * plan.copy_bytes() > self.arena.bytes() {
            return Err(Error::device(format!("a chunk of {copies} copies was not made room for")));
        }
        harvest.begin(copies, plan.slots());
        let ways = choice::ways(plan);
        self.tables.fill(self.runtime.as_mut(), plan, chunk, harvest)?;
        if self.timed {
            self.runtime.mark()?;
        }
        let values = CudaValues { plan, copies, arena: self.arena.at() };
        for (i, step) in plan.steps().iter().enumerate() {
            self.cancel.check()?;
            self.step(step, ways[i], &values, chunk, harvest)?;
            if !after_step(self, i, &values)? {
                return Ok(());
            }
        }
        self.note_peak();
        self.tables.read(self.runtime.as_mut(), plan, chunk, harvest)
    }

    fn note_peak(&mut self) {
        let held = self.arena.bytes() + self.tables.bytes() + self.constants.bytes();
        self.peak = self.peak.max(held as u64);
    }

    /// Copies every copy's value to the host.
    pub(super) fn read_value(&mut self, v: Value, values: &CudaValues<'_>) -> Result<Vec<Vec<u8>>> {
        let (stride, bytes) = (values.bytes(v) as usize, layout::bytes(values.plan.form(v)));
        let mut raw = vec![0u8; stride * (values.copies - 1) + bytes];
        self.runtime.download(values.at(v), &mut raw)?;
        Ok((0..values.copies).map(|n| raw[n * stride..n * stride + bytes].to_vec()).collect())
    }

    /// Copies one number array a copy to the device.
    pub(super) fn write_value(&mut self, v: Value, values: &CudaValues<'_>, copies: &[Vec<u8>]) -> Result<()> {
        let stride = values.bytes(v) as usize;
        let mut raw = vec![0u8; stride * copies.len()];
        for (n, bytes) in copies.iter().enumerate() {
            raw[n * stride..n * stride + bytes.len()].copy_from_slice(bytes);
        }
        self.runtime.upload(values.at(v), &raw)
    }

    /// Whether all numbers of a value are finite.
    fn is_finite(&mut self, v: Value, values: &CudaValues<'_>) -> Result<bool> {
        let shape = values.shape(v);
        let flag = self.tables.flag(self.runtime.as_mut())?;
        self.runtime.upload(flag, &0u32.to_ne_bytes())?;
        let arguments = ReduceArgs {
            x: values.at(v).into(),
            bits: flag.into(),
            x_stride: values.stride(v),
            channels: shape.c as i32,
            plane: shape.plane() as i32,
            ..ReduceArgs::default()
        };
        self.each("not_finite", shape.len(), values.copies, &arguments)?;
        let mut found = [0u8; 4];
        self.runtime.download(flag, &mut found)?;
        Ok(u32::from_ne_bytes(found) == 0)
    }
}

impl Device for CudaDevice {
    fn cancel_with(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
    }

    fn pool(&self) -> Option<&rayon::ThreadPool> {
        self.constants.pool.as_ref()
    }

    fn describe(&self) -> Description {
        let machine = self.runtime.machine();
        Description {
            device: machine.device,
            kernels: format!("{} {}{}", machine.architecture, self.products.name(), self.edited),
            precision: Precision::F32,
            threads: self.threads,
        }
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn bytes_of(&self, form: Form) -> usize {
        layout::bytes(form)
    }

    fn last_adjoint(&self) -> LastAdjoint {
        // One kernel takes it and sums up.
        LastAdjoint::EachCopy
    }

    fn fit(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize> {
        let (all_of_it, limit) = room.bytes();
        let copy = plan.copy_bytes() + Tables::copy_bytes(plan);
        if plan.program().forms().iter().any(|f| i32::try_from(layout::bytes(*f)).is_err()) {
            return Err(Error::limit("a feature map of this net has more than 2^31 bytes"));
        }
        self.constants.tidy(self.runtime.as_mut());
        let needed = self.weights(plan);
        let size = |(w, g, o): &(&Weight, usize, WeightOrder)| packed_len(w, *g, *o) * size_of::<f32>();
        let vectors = choice::vector_bytes(plan) + Tables::chunk_bytes(plan);
        let mine: usize = needed.iter().map(size).sum::<usize>() + vectors;
        let least = mine.saturating_add(copy);
        if limit < least {
            return Err(Error::limit(format!(
                "{} of memory is not enough: one copy needs {} ({} for weights, {} for feature maps and pictures{})",
                mebibytes(all_of_it),
                mebibytes(least.saturating_add(room.kept)),
                mebibytes(mine),
                mebibytes(copy),
                // The host's memory counts where it is the device's.
                if room.kept > 0 {
                    format!(", {} for what is kept beside", mebibytes(room.kept))
                } else {
                    String::new()
                }
            )));
        }
        let keys: HashSet<WeightKey> = needed.iter().map(|(w, g, o)| WeightKey::new(w, *g, *o)).collect();
        let others = self.constants.bytes_besides(&keys);
        if least.saturating_add(others) > limit {
            self.constants.keep(self.runtime.as_mut(), &keys);
        }
        let before = self.arena.bytes() + self.tables.bytes() + self.constants.bytes();
        if before.saturating_add(mine) > limit {
            self.arena.release(self.runtime.as_mut());
            self.tables.release(self.runtime.as_mut());
        }
        for (weight, groups, order) in needed {
            let first = self.constants.weight(self.runtime.as_mut(), weight, groups, order);
            if first.as_ref().is_err_and(|e| e.kind() == crate::ErrorKind::Limit) {
                // Memory of earlier programs is freed first.
                self.arena.release(self.runtime.as_mut());
                self.tables.release(self.runtime.as_mut());
                self.constants.keep(self.runtime.as_mut(), &keys);
                self.constants.weight(self.runtime.as_mut(), weight, groups, order)?;
            } else {
                first?;
            }
        }
        // Vectors are uploaded when a step first needs them.
        let held = self.constants.bytes() + vectors;
        let free = self.runtime.machine().free_bytes.map(|free| free as usize + self.arena.bytes());
        let arena = free.map_or(ARENA_BYTES, |free| free / 2).min(limit.saturating_sub(held));
        let most = (arena / copy.max(1)).clamp(1, wanted.clamp(1, MOST_COPIES));
        // Chunks of nearly equal size: weights are read once per chunk, however few copies it has.
        let mut copies = wanted.max(1).div_ceil(wanted.max(1).div_ceil(most));
        // What earlier programs made room for counts as well.
        let arena = self.arena.bytes().max(copies * plan.copy_bytes());
        let tables = self.tables.bytes() + copies * Tables::copy_bytes(plan);
        if arena.saturating_add(tables).saturating_add(held) > limit {
            self.arena.release(self.runtime.as_mut());
            self.tables.release(self.runtime.as_mut());
        }
        loop {
            let room = self.arena.reserve(self.runtime.as_mut(), copies * plan.copy_bytes());
            let room = match room {
                Ok(()) => self.tables.reserve(self.runtime.as_mut(), plan, copies),
                Err(refusal) => Err(refusal),
            };
            match room {
                Ok(()) => break,
                Err(Refusal::Failed(e)) => return Err(e),
                // Fewer copies need less.
                Err(Refusal::OutOfMemory) if copies > 1 => {
                    self.arena.release(self.runtime.as_mut());
                    self.tables.release(self.runtime.as_mut());
                    copies = copies.div_ceil(2);
                }
                Err(Refusal::OutOfMemory) => {
                    return Err(Error::limit(format!(
                        "the device has too little memory left: one copy needs {} besides {} of weights",
                        mebibytes(copy),
                        mebibytes(held)
                    )));
                }
            }
        }
        self.note_peak();
        Ok(copies)
    }

    fn run(&mut self, plan: &Plan, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()> {
        self.walk(plan, chunk, harvest, &mut |_, _, _| Ok(true))
    }

    fn run_timed(
        &mut self,
        plan: &Plan,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
        observe: &mut dyn FnMut(usize, Duration),
    ) -> Result<()> {
        // Marks of a run that failed are not this one's.
        self.runtime.elapsed()?;
        self.timed = true;
        let walked = self.walk(plan, chunk, harvest, &mut |device, _, _| device.runtime.mark().map(|()| true));
        self.timed = false;
        walked?;
        self.runtime.elapsed()?.into_iter().enumerate().for_each(|(i, time)| observe(i, time));
        Ok(())
    }

    fn kernel(&self, plan: &Plan, position: usize) -> &'static str {
        choice::kernel(&plan.steps()[position], &self.products)
    }

    fn first_not_finite(&mut self, plan: &Plan, chunk: &Chunk<'_>) -> Result<Option<usize>> {
        let mut found = None;
        let mut harvest = Harvest { sums: super::tables::empty_sums(plan, chunk), ..Harvest::default() };
        let ways = choice::ways(plan);
        self.walk(plan, chunk, &mut harvest, &mut |device, i, values| {
            // What a later step computes as well was not written.
            if matches!(ways[i], StepWay::Elsewhere | StepWay::Folding(_)) {
                return Ok(true);
            }
            for v in plan.steps()[i].writes() {
                if matches!(plan.form(v), Form::Dense(_)) && !device.is_finite(v, values)? {
                    found = Some(i);
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }

    fn largest_output(&mut self, stem: &Stem, pictures: &[Tensor], limit: Option<u64>) -> Result<Vec<f64>> {
        self.stem_largest(stem, pictures, limit)
    }

    fn move_patches(&mut self, task: &PatchTask<'_>, limit: Option<u64>) -> Result<Vec<Moved>> {
        self.patches(task, limit)
    }

    fn forget(&mut self, weights: &HashSet<u64>) {
        self.constants.forget(self.runtime.as_mut(), weights);
    }

    fn peak_bytes(&self) -> u64 {
        self.peak
    }
}

#[cfg(test)]
mod tests;
