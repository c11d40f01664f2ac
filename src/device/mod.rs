//! Devices run programs.
//!
//! Tensors enter and leave a device as dense host arrays; its internal layout is private.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod mask;
pub(crate) mod patch;
mod products;
mod spare;
pub(crate) mod threads;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;

pub use mask::{Boxes, GridMask, Masks, Rectangle};
pub use products::Products;
pub(crate) use spare::{Lists, Spare};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Form, LastAdjoint, Plan, Statistic};
use crate::tensor::{Precision, Tensor, differ_by_rounding, rounding};

/// Properties of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `cpu`, `cuda:0`, `emulated`.
    pub device: String,
    /// Its kernels: `avx512`, `avx2`, `portable`; on a GPU, the architecture and the product format.
    pub kernels: String,
    /// Precision of the computation.
    pub precision: Precision,
    /// Worker threads.
    pub threads: usize,
}

/// One copy of one picture in a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// Index of the picture in [`Chunk::pictures`].
    pub item: usize,
    /// Number of its copy.
    pub copy: usize,
    /// The explained class.
    pub target: usize,
    /// Weight of the copy in the picture's map.
    pub weight: f64,
}

/// How copies differ from their picture, with all parameters as numbers.
#[derive(Debug, Clone, Default)]
pub enum Perturbation {
    /// No difference.
    #[default]
    None,
    /// `x + sigma · z` with standard normal `z` drawn by (seed, image, first + copy, element).
    Noise {
        /// Seed of the whole run.
        seed: u64,
        /// Number of the first copy's draw.
        first: u32,
        /// Key of each picture.
        images: Vec<u64>,
        /// Standard deviation per picture, in units of the input.
        sigmas: Vec<f64>,
    },
    /// `b + alpha · (x − b)`.
    Path {
        /// One per copy.
        alphas: Vec<f64>,
        /// One `[C, H, W]` per picture.
        baselines: Vec<Tensor>,
    },
    /// The picture with a rectangle of other pixels.
    Boxes(Boxes),
    /// The picture times a mask.
    Masks(Masks),
    /// Other pictures in its place: `[C, H, W]`, by picture and copy.
    Others(Vec<Vec<Tensor>>),
}

/// Decisions of a forward pass on one picture: for an activation, 1 where it is active; for a max-pool, the winning tap
/// `ky · kw + kx`; each in the node's C order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// By node.
    pub nodes: BTreeMap<NodeId, Vec<u16>>,
}

impl Decisions {
    /// `(different, all)` decisions of two forward passes of the same graph.
    pub fn flips(&self, other: &Decisions) -> (usize, usize) {
        let mut counts = (0, 0);
        for (node, mine) in &self.nodes {
            counts.1 += mine.len();
            counts.0 += match other.nodes.get(node) {
                Some(theirs) => mine.iter().zip(theirs).filter(|(a, b)| a != b).count(),
                None => mine.len(),
            };
        }
        counts
    }
}

/// The input of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    /// Copies to compute, in order.
    pub slots: &'a [Slot],
    /// `[C, H, W]` each.
    pub pictures: &'a [Tensor],
    /// How copies differ.
    pub perturbation: &'a Perturbation,
    /// Tensors for `Load` steps: by slot of the step, then by picture.
    pub loads: &'a [Vec<Tensor>],
    /// Decisions for `LoadDecisions` steps, by picture.
    pub decisions: &'a [Decisions],
}

/// Running statistic of one picture's signals: dense, in double precision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    /// Sum, running mean (variance), or maximum (range).
    pub first: Vec<f64>,
    /// Sum of squared deviations (variance), or minimum (range).
    pub second: Vec<f64>,
    /// Number of copies included.
    pub count: usize,
}

impl Sum {
    /// Empty, for maps of `len` elements.
    pub fn new(statistic: Statistic, len: usize) -> Self {
        Self::within(&mut Spare::default(), statistic, len)
    }

    /// As [`Sum::new`], in reused memory.
    pub fn within(spare: &mut Spare, statistic: Statistic, len: usize) -> Self {
        let second = if statistic.has_two() { len } else { 0 };
        Self { first: spare.zeros(len), second: spare.zeros(second), count: 0 }
    }

    /// The statistic of signals in `precision`; a spread that rounding can explain becomes zero.
    pub fn finish(self, statistic: Statistic, precision: Precision, spare: &mut Spare) -> Vec<f64> {
        let Self { mut first, mut second, count } = self;
        let n = count.saturating_sub(1) as f64;
        let settled = match statistic {
            Statistic::Sum | Statistic::SumOfSquares => false,
            Statistic::Variance => {
                let explained = |(mean, s): (&f64, &f64)| (s / n).sqrt() <= rounding(*mean, precision);
                first.iter().zip(&second).all(explained)
            }
            Statistic::Range => differ_by_rounding(first.iter().copied().zip(second.iter().copied()), precision),
        };
        let (mut made, rest) = match statistic {
            Statistic::Variance => {
                second.iter_mut().for_each(|s| *s /= n);
                (second, first)
            }
            // Of sums there is no second part.
            Statistic::Sum | Statistic::SumOfSquares | Statistic::Range => {
                first.iter_mut().zip(&second).for_each(|(largest, smallest)| *largest -= smallest);
                (first, second)
            }
        };
        if settled {
            made.fill(0.0);
        }
        spare.keep(rest);
        made
    }
}

/// The results of chunks.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// Score of each slot in the chunk (from a `Head` step).
    pub scores: Vec<f64>,
    /// Logits of each slot in the chunk (from a `Head` step).
    pub logits: Vec<Vec<f64>>,
    /// Running statistics, by picture.
    pub sums: Vec<Sum>,
    /// Memory for all of them.
    pub spare: Spare,
    /// Whether a number that was not finite was clamped.
    pub clamped_infinity: bool,
    /// Tensors of `Store` steps: by the step's slot number, then by the chunk's slot.
    pub stores: Vec<Vec<Tensor>>,
    /// Decisions, by the chunk's slot.
    pub decisions: Vec<Decisions>,
}

impl Harvest {
    /// Empty, for statistics of so many pictures, in reused memory.
    pub fn within(mut spare: Spare, pictures: usize) -> Self {
        Self { sums: spare.of((0..pictures).map(|_| Sum::default())), spare, ..Self::default() }
    }

    /// Makes it empty for a chunk of so many copies and slots of stores; statistics go on.
    pub fn begin(&mut self, copies: usize, slots: usize) {
        let spare = &mut self.spare;
        self.logits.drain(..).for_each(|logits| spare.keep(logits));
        self.stores.drain(..).for_each(|tensors| spare.keep_tensors(tensors));
        spare.make(&mut self.scores, copies);
        self.scores.resize(copies, 0.0);
        spare.make(&mut self.logits, copies);
        self.logits.resize_with(copies, Vec::new);
        spare.make(&mut self.decisions, copies);
        self.decisions.resize_with(copies, Decisions::default);
        spare.make(&mut self.stores, slots);
        self.stores.extend((0..slots).map(|_| spare.take(copies)));
        self.clamped_infinity = false;
    }

    /// Leaves the memory of everything in it.
    pub fn into_spare(mut self) -> Spare {
        self.begin(0, 0);
        let Self { scores, logits, mut sums, stores, decisions, mut spare, .. } = self;
        for sum in sums.drain(..) {
            spare.keep(sum.first);
            spare.keep(sum.second);
        }
        spare.keep(scores);
        spare.keep(logits);
        spare.keep(sums);
        spare.keep(stores);
        spare.keep(decisions);
        spare
    }
}

/// Memory that a program may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProgramRoom {
    /// Total bytes; `None` for no bound.
    pub limit: Option<u64>,
    /// Bytes of it that are held outside the device.
    pub kept: usize,
}

impl ProgramRoom {
    /// The limit, and the part of it left for the device.
    pub fn bytes(self) -> (usize, usize) {
        let limit = self.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
        (limit, limit.saturating_sub(self.kept))
    }
}

/// Runs programs.
pub(crate) trait Device: Send {
    /// Lets `cancel` stop running work, at the latest between steps.
    fn cancel_with(&mut self, cancel: &Cancel);

    /// Its properties.
    fn describe(&self) -> Description;

    /// Precision of the computation.
    fn precision(&self) -> Precision;

    /// Whether it sets [`Harvest::clamped_infinity`].
    fn notices_clamped_infinities(&self) -> bool {
        false
    }

    /// Its worker threads; `None` if it has only the caller's thread.
    fn pool(&self) -> Option<&rayon::ThreadPool>;

    /// Bytes in which it stores one copy's value of a form.
    fn bytes_of(&self, form: Form) -> usize;

    /// Whether the final adjoint runs per copy, or once on the summed signal, and where that pays. A device that fuses
    /// adjoint and sum says per copy.
    fn last_adjoint(&self) -> LastAdjoint;

    /// Prepares for `plan` and its closing. Returns how many copies (at most `wanted`) a chunk may have such that all
    /// device memory stays within `room`.
    ///
    /// # Errors
    /// When not even one copy fits; the message says how much would suffice.
    fn fit(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize>;

    /// Runs `plan` on one chunk that fits.
    ///
    /// # Errors
    /// When the device fails.
    fn run(&mut self, plan: &Plan, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()>;

    /// As [`Device::run`]; also reports the duration of each step, by position and in order.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn run_timed(
        &mut self,
        plan: &Plan,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
        observe: &mut dyn FnMut(usize, Duration),
    ) -> Result<()>;

    /// Name of the kernel that runs step `position` of `plan` (`direct`, `depthwise`, `linear`, …), for reports.
    fn kernel(&self, plan: &Plan, position: usize) -> &'static str;

    /// Position of the first step of `plan` with a result on this chunk that is not finite, to report where a NaN
    /// arose.
    ///
    /// # Errors
    /// When the device fails.
    fn first_not_finite(&mut self, plan: &Plan, chunk: &Chunk<'_>) -> Result<Option<usize>>;

    /// Largest magnitude of the first layer's outputs, per picture. A device with its own memory stays within `limit`
    /// bytes.
    ///
    /// # Errors
    /// When a number is not finite, or memory is not enough.
    fn largest_output(&mut self, stem: &patch::Stem, pictures: &[Tensor], limit: Option<u64>) -> Result<Vec<f64>>;

    /// Moves patches of pictures, each independently. The stem has one channel group and takes the pictures. A device
    /// with its own memory stays within `limit` bytes.
    ///
    /// # Errors
    /// When a number is not finite, or memory is not enough.
    fn move_patches(&mut self, task: &patch::PatchTask<'_>, limit: Option<u64>) -> Result<Vec<patch::Moved>>;

    /// Frees what it holds for weights with these numbers ([`crate::graph::WeightId::stored`]).
    fn forget(&mut self, weights: &HashSet<u64>);

    /// Bytes of program memory held at present.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Frees memory until at most `most` bytes are held. What is needed later is recreated.
    fn release(&mut self, _most: u64) {}

    /// Peak bytes, including those that [`Device::fit`] was told are held elsewhere.
    fn peak_bytes(&self) -> u64;
}
