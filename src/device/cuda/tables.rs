//! A chunk's inputs and results besides its values: pictures, copies, statistics, scores.

use super::arguments::{Address, CopyArgs, PerturbArgs, SumArgs};
use super::region::GrowingMemory;
use super::runtime::{Refusal, Runtime};
use crate::device::{Chunk, Harvest, Perturbation, Sum};
use crate::error::{Error, Result};
use crate::program::{Form, Plan, Statistic, Step};
use crate::tensor::resample::taps;
use crate::tensor::{Shape, Tensor};

/// Regions of the device's memory.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// `[item][c][h][w]`.
    pictures: GrowingMemory,
    /// Baselines or fills.
    others: GrowingMemory,
    /// One [`CopyArgs`] per copy.
    copies: GrowingMemory,
    /// Grids, one per copy.
    masks: GrowingMemory,
    /// Neighbours in an enlarged grid.
    neighbours: GrowingMemory,
    /// Weights of the second of them.
    shares: GrowingMemory,
    /// Running statistics, `[item][c][h][w]`.
    sums: GrowingMemory,
    squares: GrowingMemory,
    /// One per copy.
    scores: GrowingMemory,
    /// `[copy][class]`.
    logits: GrowingMemory,
    flag: GrowingMemory,
    /// The perturbation of the current chunk.
    perturb: Option<PerturbArgs>,
    /// The statistics of the current chunk.
    sum: Option<SumArgs>,
}

/// Shape of the program's pictures.
fn picture_shape(plan: &Plan) -> Option<Shape> {
    plan.steps().iter().find_map(|s| match s {
        Step::Perturb { out } => Some(plan.form(*out).shape()),
        _ => None,
    })
}

/// What the program aggregates.
fn aggregated(plan: &Plan) -> Option<(Statistic, Shape)> {
    plan.steps().iter().find_map(|s| match s {
        Step::Aggregate { x, statistic } => Some((*statistic, plan.form(*x).shape())),
        _ => None,
    })
}

/// Classes of the program's heads.
fn classes(plan: &Plan) -> usize {
    let of = |s: &Step| match s {
        Step::Head { logits, .. } => plan.form(*logits).shape().c,
        _ => 0,
    };
    plan.steps().iter().map(of).max().unwrap_or(0)
}

/// Statistics to run `plan` with where what they come to does not matter.
pub(super) fn empty_sums(plan: &Plan, chunk: &Chunk<'_>) -> Vec<Sum> {
    let one = match plan.steps().iter().find_map(|s| match s {
        Step::Aggregate { x, statistic } => Some((*statistic, plan.form(*x))),
        _ => None,
    }) {
        Some((statistic, Form::Dense(shape))) => Sum::new(statistic, shape.len()),
        _ => Sum::default(),
    };
    vec![one; chunk.pictures.len()]
}

impl Tables {
    /// Bytes that a chunk takes however many copies it has: a flag, and how grids are enlarged, which is at most to twice
    /// the picture.
    pub fn chunk_bytes(plan: &Plan) -> usize {
        let enlarged = picture_shape(plan).map_or(0, |s| 2 * (s.h + s.w));
        size_of::<u32>() + enlarged * (2 * size_of::<i32>() + size_of::<f32>())
    }

    /// Bytes that one copy takes; its grid has at most as many cells as the picture has pixels.
    pub fn copy_bytes(plan: &Plan) -> usize {
        let picture = picture_shape(plan).map_or(0, |s| (2 * s.len() + s.plane()) * size_of::<f32>());
        let sums = aggregated(plan).map_or(0, |(_, s)| 2 * s.len() * size_of::<f64>());
        picture + sums + (classes(plan) + 1) * size_of::<f64>() + size_of::<CopyArgs>()
    }

    /// Reserves memory for `copies`.
    pub fn reserve(&mut self, runtime: &mut dyn Runtime, plan: &Plan, copies: usize) -> Result<(), Refusal> {
        let picture = picture_shape(plan).map_or(0, |s| copies * s.len() * size_of::<f32>());
        let sums = aggregated(plan).map_or(0, |(_, s)| copies * s.len() * size_of::<f64>());
        self.pictures.reserve(runtime, picture)?;
        self.others.reserve(runtime, picture)?;
        self.copies.reserve(runtime, copies * size_of::<CopyArgs>())?;
        self.sums.reserve(runtime, sums)?;
        self.squares.reserve(runtime, sums)?;
        self.scores.reserve(runtime, copies * size_of::<f64>())?;
        self.logits.reserve(runtime, copies * classes(plan) * size_of::<f64>())
    }

    fn regions(&mut self) -> [&mut GrowingMemory; 11] {
        [
            &mut self.pictures,
            &mut self.others,
            &mut self.copies,
            &mut self.masks,
            &mut self.neighbours,
            &mut self.shares,
            &mut self.sums,
            &mut self.squares,
            &mut self.scores,
            &mut self.logits,
            &mut self.flag,
        ]
    }

    /// Frees all of it.
    pub fn release(&mut self, runtime: &mut dyn Runtime) {
        self.regions().into_iter().for_each(|r| r.release(runtime));
    }

    /// Bytes held.
    pub fn bytes(&mut self) -> usize {
        self.regions().into_iter().map(|r| r.bytes()).sum()
    }

    /// One word.
    pub fn flag(&mut self, runtime: &mut dyn Runtime) -> Result<Address> {
        reserve(&mut self.flag, runtime, size_of::<u32>())?;
        Ok(self.flag.at())
    }

    /// One [`CopyArgs`] per copy.
    pub const fn copies(&self) -> Address {
        self.copies.at()
    }

    /// Scores and logits, one row per copy.
    pub const fn answers(&self) -> [Address; 2] {
        [self.scores.at(), self.logits.at()]
    }

    /// The perturbation of the current chunk.
    pub fn perturb(&self) -> Result<PerturbArgs> {
        self.perturb.ok_or_else(|| Error::device("a program without pictures reads one"))
    }

    /// The statistics of the current chunk.
    pub fn sum(&self) -> Result<SumArgs> {
        self.sum.ok_or_else(|| Error::device("no statistic was started for a picture"))
    }
}

fn reserve(region: &mut GrowingMemory, runtime: &mut dyn Runtime, bytes: usize) -> Result<()> {
    region.reserve(runtime, bytes).map_err(|refusal| match refusal {
        Refusal::Failed(e) => e,
        Refusal::OutOfMemory => Error::limit("the device has too little memory left for the pictures"),
    })
}

fn upload<T: bytemuck::NoUninit>(region: &mut GrowingMemory, runtime: &mut dyn Runtime, numbers: &[T]) -> Result<()> {
    reserve(region, runtime, size_of_val(numbers))?;
    if numbers.is_empty() {
        return Ok(());
    }
    runtime.upload(region.at(), bytemuck::cast_slice(numbers))
}

/// Pictures of the chunk in order; their numbers in single precision.
fn singles(all: &[Tensor], items: &[usize]) -> Vec<f32> {
    let mut out = Vec::new();
    for &item in items {
        let start = out.len();
        out.resize(start + all[item].len(), 0f32);
        all[item].write_to(&mut out[start..]);
    }
    out
}

/// A chunk's inputs and results.
impl Tables {
    /// Uploads the chunk's inputs.
    pub fn fill(&mut self, runtime: &mut dyn Runtime, plan: &Plan, chunk: &Chunk<'_>, harvest: &Harvest) -> Result<()> {
        let mut items: Vec<usize> = chunk.slots.iter().map(|s| s.item).collect();
        items.dedup();
        let aggregated = aggregated(plan);
        let mut copies = Vec::with_capacity(chunk.slots.len());
        let mut local = 0;
        for (n, slot) in chunk.slots.iter().enumerate() {
            local += usize::from(n > 0 && chunk.slots[n - 1].item != slot.item);
            let before = chunk.slots[..n].iter().rev().take_while(|s| s.item == slot.item).count();
            let started = harvest.sums.get(slot.item).map_or(0, |s| s.count);
            let mut copy = CopyArgs {
                weight: slot.weight,
                item: local as i32,
                target: slot.target as i32,
                count: (started + before + 1) as i32,
                ..CopyArgs::default()
            };
            match chunk.perturbation {
                Perturbation::None | Perturbation::Others(_) => {}
                Perturbation::Noise { first, images, sigmas, .. } => {
                    copy.image = images[slot.item];
                    copy.sample = first + slot.copy as u32;
                    copy.amount = sigmas[slot.item] as f32;
                }
                Perturbation::Path { alphas, .. } => copy.amount = alphas[slot.copy] as f32,
                Perturbation::Boxes(boxes) => {
                    let b = boxes.boxes[slot.copy];
                    copy.corner = b.corner.map(|v| v as i32);
                    copy.size = b.size.map(|v| v as i32);
                }
                Perturbation::Masks(masks) => {
                    copy.corner = masks.masks[slot.item][slot.copy].corner.map(|v| v as i32);
                }
            }
            copies.push(copy);
        }
        upload(&mut self.copies, runtime, &copies)?;

        self.perturb = None;
        if let Some(shape) = picture_shape(plan) {
            upload(&mut self.pictures, runtime, &singles(chunk.pictures, &items))?;
            let mut args = PerturbArgs {
                pictures: self.pictures.at().into(),
                copies: self.copies.at().into(),
                extent: [shape.c as i32, shape.h as i32, shape.w as i32],
                ..PerturbArgs::default()
            };
            match chunk.perturbation {
                Perturbation::None => {}
                Perturbation::Others(others) => {
                    let all: Vec<Tensor> = chunk.slots.iter().map(|s| others[s.item][s.copy].clone()).collect();
                    let every: Vec<usize> = (0..all.len()).collect();
                    upload(&mut self.others, runtime, &singles(&all, &every))?;
                    (args.kind, args.others) = (5, self.others.at().into());
                }
                Perturbation::Noise { seed, .. } => (args.kind, args.seed) = (1, *seed),
                Perturbation::Path { baselines, .. } => {
                    upload(&mut self.others, runtime, &singles(baselines, &items))?;
                    (args.kind, args.others) = (2, self.others.at().into());
                }
                Perturbation::Boxes(boxes) => {
                    upload(&mut self.others, runtime, &singles(&boxes.fills, &items))?;
                    (args.kind, args.others) = (3, self.others.at().into());
                }
                Perturbation::Masks(masks) => {
                    let all = chunk.slots.iter().flat_map(|s| &masks.masks[s.item][s.copy].values);
                    let grids: Vec<f32> = all.map(|&v| v as f32).collect();
                    let axes = [0, 1].map(|a| taps(masks.grid[a], masks.size[a]));
                    let both = || axes.iter().flatten();
                    let neighbours: Vec<[i32; 2]> = both().map(|t| [t.0 as i32, t.1 as i32]).collect();
                    let shares: Vec<f32> = both().map(|t| t.2 as f32).collect();
                    upload(&mut self.masks, runtime, &grids)?;
                    upload(&mut self.neighbours, runtime, &neighbours)?;
                    upload(&mut self.shares, runtime, &shares)?;
                    args.kind = 4;
                    args.masks = self.masks.at().into();
                    args.neighbours = self.neighbours.at().into();
                    args.shares = self.shares.at().into();
                    args.mask_grid = masks.grid.map(|v| v as i32);
                    args.mask_rows = masks.size[0] as i32;
                }
            }
            self.perturb = Some(args);
        }

        self.sum = None;
        if let Some((statistic, shape)) = aggregated {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for &item in &items {
                let sum = harvest.sums.get(item).filter(|s| s.first.len() == shape.len());
                let sum = sum.ok_or_else(|| Error::device("no statistic was started for a picture"))?;
                first.extend_from_slice(&sum.first);
                second.extend_from_slice(&sum.second);
            }
            upload(&mut self.sums, runtime, &first)?;
            upload(&mut self.squares, runtime, &second)?;
            self.sum = Some(SumArgs {
                sums: self.sums.at().into(),
                squares: self.squares.at().into(),
                copies: self.copies.at().into(),
                statistic: match statistic {
                    Statistic::Sum => 0,
                    Statistic::SumOfSquares => 1,
                    Statistic::Variance => 2,
                    Statistic::Range => 3,
                },
                count: chunk.slots.len() as i32,
            });
        }
        Ok(())
    }

    /// Downloads the chunk's results.
    pub fn read(&self, runtime: &mut dyn Runtime, plan: &Plan, chunk: &Chunk<'_>, harvest: &mut Harvest) -> Result<()> {
        let copies = chunk.slots.len();
        let mut heads = plan.steps().iter().filter_map(|s| match s {
            Step::Head { logits, .. } => Some(plan.form(*logits).shape().c),
            _ => None,
        });
        if let Some(classes) = heads.next_back() {
            runtime.download(self.scores.at(), bytemuck::cast_slice_mut(&mut harvest.scores))?;
            let mut logits = vec![0f64; copies * classes];
            runtime.download(self.logits.at(), bytemuck::cast_slice_mut(&mut logits))?;
            harvest.logits = logits.chunks(classes).map(<[f64]>::to_vec).collect();
        }
        let Some((statistic, shape)) = aggregated(plan) else { return runtime.wait() };
        let mut at = 0;
        for (n, slot) in chunk.slots.iter().enumerate() {
            let sum = &mut harvest.sums[slot.item];
            sum.count += 1;
            if chunk.slots.get(n + 1).is_some_and(|next| next.item == slot.item) {
                continue;
            }
            let place = at * shape.len() * size_of::<f64>();
            runtime.download(self.sums.at().plus(place), bytemuck::cast_slice_mut(&mut sum.first))?;
            if statistic.has_two() {
                runtime.download(self.squares.at().plus(place), bytemuck::cast_slice_mut(&mut sum.second))?;
            }
            at += 1;
        }
        Ok(())
    }
}
