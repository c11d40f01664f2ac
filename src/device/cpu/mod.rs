//! The CPU device: channel-blocked layout, explicit AVX-512 and AVX2 kernels with run-time detection, and a portable
//! fallback that is generic over the scalar.
//!
//! Each step is divided into tasks that write disjoint parts of its result; threads take tasks one by one. Results do
//! not depend on the division, so maps are bit-identical for any number of threads, chunk size and batch.

mod arrange;
mod choice;
mod conv;
mod fitting;
mod isa;
mod layers;
mod layout;
mod linear;
mod masked;
mod memory;
mod naming;
mod patches;
pub mod peaks;
mod pointwise;
mod pool;
mod quantile;
mod repeated;
mod sets;
mod source;
mod standardise;
mod steps;
mod weights;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use choice::Convolution;
pub use sets::{InstructionSet, Kernels};

use conv::{ConvPlan, PackKey, PassDirection};
use fitting::Fitted;
use isa::{Isa, Portable};
use memory::{Buffer, Shared};
use rayon::prelude::*;

use super::patch::{Moved, PatchTask, Stem};
use super::threads::start_pool;
use super::{Chunk, Description, Device, Harvest, Perturbation, ProgramRoom, Spare, Sum};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::graph::WeightId;
use crate::program::{ConvLayer, Form, LastAdjoint, Plan, Step, Value, Zeros};
use crate::tensor::{Precision, Scalar, Shape, Tensor, Window};

/// Number of vectors or pixels that justifies a task.
const PIECE: usize = 2048;

/// More threads than any machine has.
const MOST_THREADS: usize = 4096;

/// Opens a CPU device.
///
/// # Errors
/// When the machine lacks the requested kernels or threads cannot be started.
pub(crate) fn open(
    precision: Precision,
    kernels: Kernels,
    convolution: Convolution,
    threads: Option<usize>,
) -> Result<Box<dyn Device>> {
    let threads = match threads {
        Some(0) => return Err(Error::settings("at least one thread is needed")),
        Some(n) if n > MOST_THREADS => {
            return Err(Error::settings(format!("{n} threads; at most {MOST_THREADS} are of use")));
        }
        Some(n) => n,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    with_isa(precision, kernels, Open { threads, convolution })
}

struct Open {
    threads: usize,
    convolution: Convolution,
}

impl WithIsa for Open {
    type Out = Box<dyn Device>;

    fn with<I: Isa>(self) -> Result<Box<dyn Device>> {
        Ok(Box::new(Cpu::<I>::new(self.threads, self.convolution)?))
    }
}

/// Work that is generic over the instruction set.
trait WithIsa {
    /// Its result.
    type Out;
    /// Does the work; the machine has the features of `I`.
    fn with<I: Isa>(self) -> Result<Self::Out>;
}

/// Runs `work` with the selected instruction set; an error if the machine lacks it.
fn with_isa<W: WithIsa>(precision: Precision, kernels: Kernels, work: W) -> Result<W::Out> {
    let missing = || Error::settings(format!("this machine has no {}", kernels.set().needs));
    match (precision, kernels) {
        (Precision::F64, Kernels::Auto | Kernels::Portable) => work.with::<Portable<f64>>(),
        (Precision::F64, _) => Err(Error::settings("double precision has portable kernels only")),
        (Precision::F32, _) => match kernels.here().ok_or_else(missing)? {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512 => work.with::<isa::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => work.with::<isa::Avx2>(),
            _ => work.with::<Portable<f32>>(),
        },
    }
}

/// Identifies a convolution on one input shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ConvKey {
    weight: WeightId,
    direction: PassDirection,
    window: Window,
    groups: usize,
    input: Shape,
    zeros: Zeros,
}

impl ConvKey {
    fn new(layer: &ConvLayer, direction: PassDirection, zeros: Zeros) -> Self {
        let (window, groups, input) = (layer.window, layer.groups, layer.input);
        Self { weight: layer.weight.id(), direction, window, groups, input, zeros }
    }
}

/// Convolution plans cached before the cache is emptied; a run over pictures of many sizes would otherwise fill it
/// without limit.
const MOST_CONV_PLANS: usize = 4096;

struct Cpu<I: Isa> {
    convolution: Convolution,
    threads: usize,
    pool: Option<rayon::ThreadPool>,
    cancel: Cancel,
    plans: HashMap<ConvKey, Arc<ConvPlan>>,
    /// Packed weights that stay in memory.
    resident: HashMap<PackKey, Buffer>,
    /// Packed weights of the current step, if they do not stay.
    transient: Buffer,
    arena: Buffer,
    /// One share per thread.
    scratch: Buffer,
    scratch_share: usize,
    /// Memory for the lists of tasks, one a worker.
    lists: Vec<Mutex<Spare>>,
    /// Plans for which there is room, as long as `changes` stays.
    fitted: Vec<Fitted>,
    /// Counts changes of what is held.
    changes: u64,
    peak: u64,
    /// Set where a number that is not finite is clamped, since the result does not show it.
    clamped_infinity: AtomicBool,
    isa: std::marker::PhantomData<I>,
}

impl<I: Isa> Cpu<I> {
    fn new(threads: usize, convolution: Convolution) -> Result<Self> {
        Ok(Self {
            convolution,
            threads,
            pool: start_pool(threads)?,
            cancel: Cancel::default(),
            plans: HashMap::new(),
            resident: HashMap::new(),
            transient: Buffer::empty(),
            arena: Buffer::empty(),
            scratch: Buffer::empty(),
            scratch_share: 0,
            lists: (0..threads).map(|_| Mutex::default()).collect(),
            fitted: Vec::new(),
            changes: 0,
            peak: 0,
            clamped_infinity: AtomicBool::new(false),
            isa: std::marker::PhantomData,
        })
    }

    fn conv_plan(&mut self, layer: &ConvLayer, direction: PassDirection, zeros: Zeros) -> Arc<ConvPlan> {
        let key = ConvKey::new(layer, direction, zeros);
        if self.plans.len() >= MOST_CONV_PLANS && !self.plans.contains_key(&key) {
            self.plans.clear();
        }
        let arithmetic = self.convolution.arithmetic(direction);
        let plan = self.plans.entry(key);
        Arc::clone(plan.or_insert_with(|| Arc::new(ConvPlan::new::<I>(layer, direction, arithmetic, zeros))))
    }

    /// Runs `task(index, scratch)` for every index below `tasks`; `scratch` holds `scratch_share` numbers, as computed
    /// by `Cpu::needs` for the last fitted plan. After cancellation, tasks are skipped: their results are not used.
    fn each(&self, tasks: usize, task: impl Fn(usize, *mut I::T) + Sync) {
        self.each_by(tasks, |_, i, scratch| task(i, scratch));
    }

    /// As [`Cpu::each`]; the task also gets memory for lists.
    fn each_listing(&self, tasks: usize, task: impl Fn(usize, *mut I::T, &mut Spare) + Sync) {
        self.each_by(tasks, |worker, i, scratch| {
            // A worker has one task at a time, so nobody waits.
            let mut lists = self.lists[worker].lock().unwrap_or_else(PoisonError::into_inner);
            task(i, scratch, &mut lists);
        });
    }

    /// As [`Cpu::each`]; the task also gets the number of its worker, which is below `threads`.
    fn each_by(&self, tasks: usize, task: impl Fn(usize, usize, *mut I::T) + Sync) {
        let scratch = Shared(self.scratch.pointer().cast::<I::T>());
        let share = self.scratch_share;
        let run = |i| {
            if !self.cancel.is_cancelled() {
                let worker = rayon::current_thread_index().unwrap_or(0);
                // SAFETY: `install` runs tasks on this pool's workers, whose indices are below `threads`, and each has
                // a share of the scratch buffer. A task ends before its worker takes another, since tasks do not use
                // rayon.
                task(worker, i, unsafe { scratch.add(worker * share) });
            }
        };
        match &self.pool {
            Some(pool) if tasks > 1 => pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(run)),
            _ => {
                let tasks = (0..tasks).take_while(|_| !self.cancel.is_cancelled());
                // SAFETY: outside the pool there is one worker.
                tasks.for_each(|i| task(0, i, unsafe { scratch.add(0) }));
            }
        }
    }
}

/// A chunk's values in the arena.
struct CpuValues<'a, I: Isa> {
    plan: &'a Plan,
    arena: Shared<u8>,
    copies: usize,
    isa: std::marker::PhantomData<I>,
}

impl<I: Isa> CpuValues<'_, I> {
    /// Start of the value for copy `n`, which is below `copies`.
    fn at<T>(&self, v: Value, n: usize) -> *mut T {
        debug_assert!(n < self.copies, "copy {n} of {}", self.copies);
        let place = self.plan.places[v.index()];
        // SAFETY: the arena holds `copies` times `copy_bytes`; places are inside.
        unsafe { self.arena.add(place.offset * self.copies + n * place.bytes).cast() }
    }

    fn shape(&self, v: Value) -> Shape {
        match self.plan.form(v) {
            Form::Dense(s) | Form::Bits(s) | Form::Winners(s, _) => s,
        }
    }

    /// Copy `n`'s numbers.
    ///
    /// # Safety
    /// The value is `Form::Dense`, `n` is below `copies`, and nothing writes the value while the slice lives.
    unsafe fn slice(&self, v: Value, n: usize) -> &[I::T] {
        // SAFETY: places hold their form's elements.
        unsafe { std::slice::from_raw_parts(self.at(v, n), layout::elements(self.shape(v), I::LANES)) }
    }

    /// Copy `n`'s numbers, mutable.
    ///
    /// # Safety
    /// The value is `Form::Dense`, `n` is below `copies`, and nothing else reads or writes them while the slice lives.
    #[allow(clippy::mut_from_ref)] // distinct parts of the arena behind one shared pointer
    unsafe fn slice_mut(&self, v: Value, n: usize) -> &mut [I::T] {
        // SAFETY: places hold their form's elements.
        unsafe { std::slice::from_raw_parts_mut(self.at(v, n), layout::elements(self.shape(v), I::LANES)) }
    }

    /// Elements from one copy's value to the next.
    fn step(&self, v: Value) -> usize {
        self.plan.places[v.index()].bytes / size_of::<I::T>()
    }
}

impl<I: Isa> Device for Cpu<I> {
    fn cancel_with(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
    }

    fn notices_clamped_infinities(&self) -> bool {
        true
    }

    fn pool(&self) -> Option<&rayon::ThreadPool> {
        self.pool.as_ref()
    }

    fn describe(&self) -> Description {
        Description { device: "cpu".into(), kernels: I::NAME.into(), precision: I::T::PRECISION, threads: self.threads }
    }

    fn precision(&self) -> Precision {
        I::T::PRECISION
    }

    fn bytes_of(&self, form: Form) -> usize {
        layout::bytes(form, I::LANES, size_of::<I::T>())
    }

    fn last_adjoint(&self) -> LastAdjoint {
        conv::LAST_ADJOINT
    }

    fn fit(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize> {
        self.fit_plan(plan, wanted, room)
    }

    fn held_bytes(&self) -> u64 {
        self.held() as u64
    }

    fn release(&mut self, most: u64) {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if self.held() > most {
            self.changes += 1;
            [&mut self.arena, &mut self.transient, &mut self.scratch].into_iter().for_each(|buffer| buffer.shrink(0));
        }
        if self.held() > most {
            self.resident.clear();
        }
    }

    fn run(&mut self, plan: &Plan, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()> {
        self.walk(plan, chunk, harvest, &mut |_, _, _| true)
    }

    fn run_timed(
        &mut self,
        plan: &Plan,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
        observe: &mut dyn FnMut(usize, Duration),
    ) -> Result<()> {
        let mut before = Instant::now();
        self.walk(plan, chunk, harvest, &mut |i, _, _| {
            let now = Instant::now();
            observe(i, now - before);
            before = now;
            true
        })
    }

    fn kernel(&self, plan: &Plan, position: usize) -> &'static str {
        self.kernel_name(plan, &plan.steps()[position])
    }

    fn first_not_finite(&mut self, plan: &Plan, chunk: &Chunk<'_>) -> Result<Option<usize>> {
        let mut found = None;
        // The resulting statistics do not matter here.
        let aggregated = plan.steps().iter().find_map(|s| match s {
            Step::Aggregate { x, statistic } => Some((*statistic, plan.form(*x))),
            _ => None,
        });
        let sum = match aggregated {
            Some((statistic, Form::Dense(shape))) => Sum::new(statistic, shape.len()),
            _ => Sum::default(),
        };
        let mut harvest = Harvest { sums: vec![sum; chunk.pictures.len()], ..Harvest::default() };
        self.walk(plan, chunk, &mut harvest, &mut |i, values, harvest| {
            if harvest.clamped_infinity {
                found = Some(i);
                return false;
            }
            let dense = plan.steps()[i].writes().into_iter().filter(|&v| matches!(plan.form(v), Form::Dense(_)));
            for v in dense {
                for n in 0..chunk.slots.len() {
                    // SAFETY: the step that writes the value has ended.
                    if unsafe { values.slice(v, n) }.iter().any(|x| !x.to_f64().is_finite()) {
                        found = Some(i);
                        return false;
                    }
                }
            }
            true
        })?;
        Ok(found)
    }

    fn largest_output(&mut self, stem: &Stem, pictures: &[Tensor], _limit: Option<u64>) -> Result<Vec<f64>> {
        self.stem_largest(stem, pictures)
    }

    fn move_patches(&mut self, task: &PatchTask<'_>, _limit: Option<u64>) -> Result<Vec<Moved>> {
        self.patches(task)
    }

    fn forget(&mut self, weights: &HashSet<u64>) {
        self.changes += 1;
        self.plans.retain(|key, _| !weights.contains(&key.weight.stored()));
        self.resident.retain(|key, _| !weights.contains(&key.weight().stored()));
    }

    fn peak_bytes(&self) -> u64 {
        self.peak
    }
}

impl<I: Isa> Cpu<I> {
    /// Runs step after step until `after_step(position, values)` returns false.
    fn walk(
        &mut self,
        plan: &Plan,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
        after_step: &mut dyn FnMut(usize, &CpuValues<'_, I>, &Harvest) -> bool,
    ) -> Result<()> {
        let copies = chunk.slots.len();
        if copies * plan.copy_bytes > self.arena.len() {
            return Err(Error::device(format!("a chunk of {copies} copies was not made room for")));
        }
        harvest.begin(copies, plan.slots());
        let values = CpuValues { plan, arena: Shared(self.arena.pointer()), copies, isa: std::marker::PhantomData };
        self.clamped_infinity.store(false, Ordering::Relaxed);
        for (i, step) in plan.steps().iter().enumerate() {
            self.step(step, &values, chunk, harvest)?;
            self.cancel.check()?;
            harvest.clamped_infinity |= self.clamped_infinity.load(Ordering::Relaxed);
            if !after_step(i, &values, harvest) {
                break;
            }
        }
        Ok(())
    }

    /// Runs `task(copy, block)` for each channel block of `out`.
    fn blocks(&self, out: Value, v: &CpuValues<'_, I>, task: impl Fn(usize, usize) + Sync) {
        let blocks = v.shape(out).c.div_ceil(I::LANES);
        self.each(v.copies * blocks, |t, _| task(t / blocks, t % blocks));
    }

    /// As [`Cpu::blocks`]; the task also gets memory for lists.
    fn blocks_listing(&self, out: Value, v: &CpuValues<'_, I>, task: impl Fn(usize, usize, &mut Spare) + Sync) {
        let blocks = v.shape(out).c.div_ceil(I::LANES);
        self.each_listing(v.copies * blocks, |t, _, lists| task(t / blocks, t % blocks, lists));
    }

    /// Runs `task(copy, numbers)` for each copy's numbers of `out`.
    fn copies(&self, out: Value, v: &CpuValues<'_, I>, task: impl Fn(usize, &mut [I::T]) + Sync) {
        // SAFETY: every task writes its own copy.
        self.each(v.copies, |n, _| task(n, unsafe { v.slice_mut(out, n) }));
    }

    /// Runs `task(copy, first vector, vectors)` over pieces of `out` that each justify a task.
    fn vectors(&self, out: Value, v: &CpuValues<'_, I>, task: impl Fn(usize, usize, usize) + Sync) {
        let all = layout::elements(v.shape(out), I::LANES) / I::LANES;
        let pieces = all.div_ceil(PIECE);
        self.each(v.copies * pieces, |t, _| {
            let first = t % pieces * PIECE;
            task(t / pieces, first, PIECE.min(all - first));
        });
    }

    fn perturb(&self, out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>, spare: &mut Spare) {
        match chunk.perturbation {
            Perturbation::Boxes(boxes) => return self.boxes(boxes, out, v, chunk),
            Perturbation::Masks(masks) => return self.masks(masks, out, v, chunk),
            _ => {}
        }
        let shape = v.shape(out);
        if let Perturbation::Others(others) = chunk.perturbation {
            self.copies(out, v, |n, to| {
                let slot = chunk.slots[n];
                arrange::block(&others[slot.item][slot.copy].numbers(), shape, I::LANES, to);
            });
            return;
        }
        let baseline = |item: usize| match chunk.perturbation {
            Perturbation::Path { baselines, .. } => Some(&baselines[item]),
            _ => None,
        };
        // Each picture of another precision is converted once per chunk; its copies are consecutive.
        let mut converted: Vec<(usize, [Vec<I::T>; 2])> = spare.take(v.copies);
        for slot in chunk.slots {
            if converted.last().is_none_or(|(item, _)| *item != slot.item) {
                let tensors = [Some(&chunk.pictures[slot.item]), baseline(slot.item)];
                let convert = |tensor: Option<&Tensor>| {
                    let other = tensor.filter(|tensor| tensor.stored::<I::T>().is_none());
                    other.map_or_else(Vec::new, |tensor| spare.of(tensor.each().map(I::T::from_f64)))
                };
                converted.push((slot.item, tensors.map(convert)));
            }
        }
        let pieces = shape.plane().div_ceil(PIECE);
        self.each(v.copies * pieces, |t, _| {
            let (n, first) = (t / pieces, t % pieces * PIECE);
            let pixels = first..shape.plane().min(first + PIECE);
            let slot = chunk.slots[n];
            let kept = converted.iter().find(|(item, _)| *item == slot.item);
            let kept = |which: usize| kept.map_or(&[][..], |(_, all)| all[which].as_slice());
            let picture = chunk.pictures[slot.item].stored().unwrap_or(kept(0));
            let baseline = baseline(slot.item).and_then(|tensor| tensor.stored()).unwrap_or(kept(1));
            let copy = match chunk.perturbation {
                Perturbation::None | Perturbation::Boxes(_) | Perturbation::Masks(_) | Perturbation::Others(_) => {
                    source::Copy::Same
                }
                Perturbation::Noise { seed, first, images, sigmas } => source::Copy::Noise {
                    seed: *seed,
                    image: images[slot.item],
                    sample: first.wrapping_add(slot.copy as u32),
                    sigma: I::T::from_f64(sigmas[slot.item]),
                },
                Perturbation::Path { alphas, .. } => {
                    source::Copy::Path { alpha: I::T::from_f64(alphas[slot.copy]), baseline }
                }
            };
            let kernel = source::Perturb::<I> { picture, shape, pixels, copy: &copy, out: v.at(out, n) };
            // SAFETY: the copy holds the shape; features were detected.
            unsafe { I::run(kernel) };
        });
        for (_, all) in converted.drain(..) {
            all.into_iter().for_each(|numbers| spare.keep(numbers));
        }
        spare.keep(converted);
    }
}
