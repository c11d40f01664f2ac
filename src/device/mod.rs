//! What carries out programs.
//!
//! Tensors enter and leave a device as dense host arrays; how it lays them out inside is its secret.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod mask;
pub(crate) mod patch;
mod products;
pub(crate) mod threads;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;

pub use mask::{Boxes, GridMask, Masks, Rectangle};
pub use products::Products;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Form, LastAdjoint, Plan, Statistic};
use crate::tensor::{Precision, Tensor, differ_by_rounding, rounding};

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `cpu`, `cuda:0`, `emulated`.
    pub device: String,
    /// Which kernels it uses: `avx512`, `avx2`, `portable`; on a GPU its architecture and how it multiplies.
    pub kernels: String,
    /// In which numbers it computes.
    pub precision: Precision,
    /// Worker threads.
    pub threads: usize,
}

/// One copy of one picture in a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// Which picture, an index into [`Chunk::pictures`].
    pub item: usize,
    /// Which copy of it.
    pub copy: usize,
    /// Class explained.
    pub target: usize,
    /// Weight of the copy in the picture's map.
    pub weight: f64,
}

/// How copies differ from their picture, resolved to numbers.
#[derive(Debug, Clone, Default)]
pub enum Perturbation {
    /// Not at all.
    #[default]
    None,
    /// `x + sigma · z` with standard normal `z` drawn by (seed, image, first + copy, element).
    Noise {
        /// Of the whole run.
        seed: u64,
        /// Number of the first copy's draw.
        first: u32,
        /// Key of each picture.
        images: Vec<u64>,
        /// Standard deviation for each picture, in units of the input.
        sigmas: Vec<f64>,
    },
    /// `b + alpha · (x − b)`.
    Path {
        /// One for each copy.
        alphas: Vec<f64>,
        /// One `[C, H, W]` a picture.
        baselines: Vec<Tensor>,
    },
    /// The picture with a rectangle of other pixels.
    Boxes(Boxes),
    /// The picture times a mask.
    Masks(Masks),
    /// Other pictures in its place: by picture and copy, `[C, H, W]` each.
    Others(Vec<Vec<Tensor>>),
}

/// Decisions of a forward pass on one picture: for an activation 1 where active, for a max-pool the winning tap
/// `ky · kw + kx`; each in the node's C order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// By node.
    pub nodes: BTreeMap<NodeId, Vec<u16>>,
}

impl Decisions {
    /// `(differing, all)` decisions between two forward passes of the same graph.
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

/// What a chunk is made from.
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

/// Running statistic of one picture's signals, dense, in double precision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    /// Sum, mean so far (variance), or largest (range).
    pub first: Vec<f64>,
    /// Sum of squared deviations (variance) or smallest (range).
    pub second: Vec<f64>,
    /// Copies folded in.
    pub count: usize,
}

impl Sum {
    /// Nothing yet, for maps of `len` elements.
    pub fn new(statistic: Statistic, len: usize) -> Self {
        Self::within(&mut Spare::default(), statistic, len)
    }

    /// As [`Sum::new`], in memory that is to spare.
    pub fn within(spare: &mut Spare, statistic: Statistic, len: usize) -> Self {
        let second = if statistic.has_two() { len } else { 0 };
        Self { first: spare.zeros(len), second: spare.zeros(second), count: 0 }
    }

    /// The statistic of signals in `precision`; no spread where rounding explains all of it.
    pub fn finish(self, statistic: Statistic, precision: Precision) -> Vec<f64> {
        let n = self.count.saturating_sub(1) as f64;
        let settled = match statistic {
            Statistic::Sum | Statistic::SumOfSquares => false,
            Statistic::Variance => {
                let explained = |(mean, s): (&f64, &f64)| (s / n).sqrt() <= rounding(*mean, precision);
                self.first.iter().zip(&self.second).all(explained)
            }
            Statistic::Range => {
                differ_by_rounding(self.first.iter().copied().zip(self.second.iter().copied()), precision)
            }
        };
        match statistic {
            _ if settled => vec![0.0; self.first.len()],
            Statistic::Sum | Statistic::SumOfSquares => self.first,
            Statistic::Variance => self.second.into_iter().map(|s| s / n).collect(),
            Statistic::Range => {
                self.first.iter().zip(&self.second).map(|(largest, smallest)| largest - smallest).collect()
            }
        }
    }
}

/// Memory of statistics that were read out, kept for the next ones: fresh memory comes from the system page by page, which
/// takes longer than a copy's statistic.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<f64>>);

impl Spare {
    /// Bytes that are kept, at most: a dozen maps of a usual picture.
    const MOST_BYTES: usize = 16 << 20;

    /// Bytes that are kept now.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|v| v.capacity() * size_of::<f64>()).sum()
    }

    fn zeros(&mut self, len: usize) -> Vec<f64> {
        let fits = self.0.iter().position(|v| len > 0 && v.capacity() >= len);
        let mut zeros = fits.map_or_else(|| Vec::with_capacity(len), |i| self.0.swap_remove(i));
        zeros.clear();
        zeros.resize(len, 0.0);
        zeros
    }

    /// The numbers as a tensor; their memory is kept if the tensor does not take it.
    pub fn round(&mut self, dims: [usize; 3], values: Vec<f64>, precision: Precision) -> Result<Tensor> {
        if precision == Precision::F64 {
            return Tensor::f64(dims, values);
        }
        let tensor = Tensor::f32(dims, values.iter().map(|&v| v as f32).collect());
        let kept: usize = self.0.iter().chain([&values]).map(|v| v.capacity() * size_of::<f64>()).sum();
        if kept <= Self::MOST_BYTES {
            self.0.push(values);
        }
        tensor
    }
}

/// What chunks leave behind.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// Score of each slot of the chunk (from a `Head` step).
    pub scores: Vec<f64>,
    /// Logits of each slot of the chunk (from a `Head` step).
    pub logits: Vec<Vec<f64>>,
    /// Running statistics, by picture.
    pub sums: Vec<Sum>,
    /// Where theirs comes from.
    pub spare: Spare,
    /// Tensors of `Store` steps: by slot of the step, then by slot of the chunk.
    pub stores: Vec<Vec<Tensor>>,
    /// Decisions by slot of the chunk.
    pub decisions: Vec<Decisions>,
}

/// Memory that a program may take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProgramRoom {
    /// Bytes for everything; none where nothing bounds.
    pub limit: Option<u64>,
    /// Bytes of it that are kept outside of the device.
    pub kept: usize,
}

impl ProgramRoom {
    /// The limit, and what is left of it for the device.
    pub fn bytes(self) -> (usize, usize) {
        let limit = self.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
        (limit, limit.saturating_sub(self.kept))
    }
}

/// Carries out programs.
pub(crate) trait Device: Send {
    /// Lets `cancel` stop what runs, between steps or sooner.
    fn cancel_with(&mut self, cancel: &Cancel);

    /// What it is.
    fn describe(&self) -> Description;

    /// Its worker threads; none where it has one thread, the caller's.
    fn pool(&self) -> Option<&rayon::ThreadPool>;

    /// Bytes in which it keeps one copy's value of some form.
    fn bytes_of(&self, form: Form) -> usize;

    /// Whether the final adjoint runs per copy, or once on the summed signal, and where that pays. A device that fuses
    /// adjoint and sum says per copy.
    fn last_adjoint(&self) -> LastAdjoint;

    /// Makes ready for `plan` and its closing and says how many copies (at most `wanted`) a chunk may have so that all memory of the device
    /// stays within `room`.
    ///
    /// # Errors
    /// When not even one copy fits; the message says what would.
    fn fit(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize>;

    /// Runs `plan` on one chunk that fits.
    ///
    /// # Errors
    /// When the device fails.
    fn run(&mut self, plan: &Plan, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()>;

    /// As [`Device::run`]; says of each step, by its position and in order, how long it took.
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

    /// Name of the kernel that carries step `position` of `plan` out (`direct`, `depthwise`, `linear`, …), for reports.
    fn kernel(&self, plan: &Plan, position: usize) -> &'static str;

    /// The first step of `plan` whose numbers on this chunk are not all finite, by its position; for saying where a NaN
    /// began.
    ///
    /// # Errors
    /// When the device fails.
    fn first_not_finite(&mut self, plan: &Plan, chunk: &Chunk<'_>) -> Result<Option<usize>>;

    /// Largest magnitude among the outputs of each picture's first layer. A device with memory of its own stays within
    /// `limit` bytes.
    ///
    /// # Errors
    /// When a number is not finite, or memory is not enough.
    fn largest_output(&mut self, stem: &patch::Stem, pictures: &[Tensor], limit: Option<u64>) -> Result<Vec<f64>>;

    /// Moves patches of pictures, each by itself. The stem has one group of channels and takes the pictures. A device with
    /// memory of its own stays within `limit` bytes.
    ///
    /// # Errors
    /// When a number is not finite, or memory is not enough.
    fn move_patches(&mut self, task: &patch::PatchTask<'_>, limit: Option<u64>) -> Result<Vec<patch::Moved>>;

    /// Gives back what it keeps for weights with these numbers ([`crate::graph::WeightId::stored`]).
    fn forget(&mut self, weights: &HashSet<u64>);

    /// Bytes held now of the memory that programs take.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Gives memory back until at most `most` bytes are held. What is needed again is made again.
    fn release(&mut self, _most: u64) {}

    /// Bytes held at most so far, with those that [`Device::fit`] was told are kept elsewhere.
    fn peak_bytes(&self) -> u64;
}
