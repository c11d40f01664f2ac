//! Patches moved through the first layer: what the kernels are given, as many patches at a time as there is room for.

use std::collections::HashSet;

use super::arguments::{Address, LargestArgs, PatchArgs, PlaceArgs, StemArgs};
use super::constants::{VectorKind, WeightOrder, packed_len};
use super::device::{CudaDevice, mebibytes};
use super::geometry::PassDirection;
use super::region::GrowingMemory;
use super::runtime::Refusal;
use crate::device::patch::{BETA, EPSILON, HALVINGS, INSIDE, Moved, PENALTY, PatchMove, PatchTask, Stem, USED};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bytes beyond which more patches at a time gain nothing.
const MOST_BYTES: usize = 64 << 20;
/// Blocks that share the outputs of one picture.
const BLOCKS: usize = 256;
/// Patches, or pictures, of one launch.
const MOST: usize = 1 << 15;
/// How weights of the first layer lie.
const ORDER: WeightOrder = WeightOrder::Rows(PassDirection::Forward);

/// Memory for one task.
#[derive(Default)]
struct TaskParts(Vec<GrowingMemory>);

impl CudaDevice {
    pub(super) fn stem_largest(&mut self, stem: &Stem, pictures: &[Tensor], limit: Option<u64>) -> Result<Vec<f64>> {
        let picture = stem.layer.input.len() * size_of::<f32>();
        let sizes = [picture, BLOCKS * size_of::<f32>()];
        let mut parts = TaskParts::default();
        let done = self.room(stem, limit, 0, &sizes, pictures.len(), &mut parts).and_then(|room| {
            let mut largest = Vec::with_capacity(pictures.len());
            for some in pictures.chunks(room) {
                largest.extend(self.largest_of(stem, some, &parts)?);
            }
            Ok(largest)
        });
        self.give_back(parts);
        let largest = done?;
        if largest.iter().all(|v| v.is_finite()) { Ok(largest) } else { Err(stem.overflow()) }
    }

    fn largest_of(&mut self, stem: &Stem, pictures: &[Tensor], parts: &TaskParts) -> Result<Vec<f64>> {
        let [at, out] = [0, 1].map(|i| parts.0[i].at());
        let all: Vec<&Tensor> = pictures.iter().collect();
        self.runtime.upload(at, bytemuck::cast_slice(&singles(&all)))?;
        let blocks = stem.layer.output.len().div_ceil(128).min(BLOCKS);
        let arguments = LargestArgs { stem: self.stem_arguments(stem, at)?, out: out.into() };
        self.launch("largest_output", [blocks, pictures.len(), 1], None, &arguments)?;
        let mut partial = vec![0f32; blocks * pictures.len()];
        self.runtime.download(out, bytemuck::cast_slice_mut(&mut partial))?;
        let larger = |m: f64, &v: &f32| if f64::from(v) <= m || m.is_nan() { m } else { f64::from(v) };
        Ok(partial.chunks(blocks).map(|of| of.iter().fold(0.0, larger)).collect())
    }

    pub(super) fn patches(&mut self, task: &PatchTask<'_>, limit: Option<u64>) -> Result<Vec<Moved>> {
        let stem = task.stem;
        let (input, outputs) = (stem.layer.input, stem.layer.output.c);
        let most = |of: &dyn Fn(&PatchMove) -> usize| task.places.iter().map(of).max().unwrap_or(0);
        let numbers = most(&|p| p.rows.len() * p.columns.len() * input.c);
        let elements = outputs * most(&|p| positions(stem, 0, p.rows.len()) * positions(stem, 1, p.columns.len()));
        // Of every patch: its picture, itself, scratch, what becomes of it.
        let sizes = [
            input.len() * size_of::<f32>(),
            size_of::<PlaceArgs>(),
            (2 * elements + numbers) * size_of::<f32>(),
            7 * numbers * size_of::<f64>(),
            numbers * size_of::<f32>(),
            size_of::<f64>(),
            size_of::<i32>(),
        ];
        let constants = 2 * input.c + stem.layer.weight.len() + outputs;
        let mut parts = TaskParts::default();
        let wanted = task.places.len();
        let done = self.room(stem, limit, constants * size_of::<f64>(), &sizes, wanted, &mut parts).and_then(|room| {
            let mut moved = Vec::with_capacity(wanted);
            let mut arguments = self.patch_arguments(task, &parts, elements, numbers)?;
            for places in task.places.chunks(room) {
                self.move_some(task, places, &mut arguments, &parts, &mut moved)?;
            }
            Ok(moved)
        });
        self.give_back(parts);
        let moved = done?;
        if moved.iter().all(|m| m.change.is_finite()) { Ok(moved) } else { Err(stem.overflow()) }
    }

    /// Everything that is the same for all patches; their constants go to the first part.
    fn patch_arguments(
        &mut self,
        task: &PatchTask<'_>,
        parts: &TaskParts,
        elements: usize,
        numbers: usize,
    ) -> Result<PatchArgs> {
        let layer = &task.stem.layer;
        let [k, c, kh, kw] = layer.weight.dims();
        let taps = kh * kw;
        let weight = layer.weight.to_f64();
        let mut constants = [task.low, task.high].concat();
        constants.extend((0..weight.len()).map(|i| weight[(i % k * c + i / k % c) * taps + i / (k * c)]));
        match &layer.bias {
            Some(bias) => constants.extend_from_slice(bias),
            None => constants.resize(constants.len() + k, 0.0),
        }
        let number = |i: usize| parts.0[0].at().plus(i * size_of::<f64>());
        self.runtime.upload(number(0), bytemuck::cast_slice(&constants))?;
        let part = |i: usize| parts.0[i + 1].at();
        Ok(PatchArgs {
            stem: self.stem_arguments(task.stem, part(0))?,
            places: part(1).into(),
            low: number(0).into(),
            high: number(c).into(),
            exact: number(2 * c).into(),
            exact_bias: number(2 * c + weight.len()).into(),
            singles: part(2).into(),
            doubles: part(3).into(),
            pixels: part(4).into(),
            changes: part(5).into(),
            shrunk: part(6).into(),
            elements: elements as i32,
            numbers: numbers as i32,
            iterations: i32::try_from(task.ascent.iterations).unwrap_or(i32::MAX),
            halvings: HALVINGS as i32,
            lr: task.ascent.lr,
            beta: BETA,
            epsilon: EPSILON,
            penalty: PENALTY,
            inside: INSIDE,
            used: USED,
        })
    }

    fn move_some(
        &mut self,
        task: &PatchTask<'_>,
        places: &[PatchMove],
        arguments: &mut PatchArgs,
        parts: &TaskParts,
        moved: &mut Vec<Moved>,
    ) -> Result<()> {
        let part = |i: usize| parts.0[i + 1].at();
        let mut items: Vec<usize> = Vec::new();
        let mut laid = Vec::with_capacity(places.len());
        for p in places {
            // Places of a picture follow one another.
            if items.last() != Some(&p.item) {
                items.push(p.item);
            }
            let span = |r: &std::ops::Range<usize>| [r.start as i32, r.len() as i32];
            laid.push(PlaceArgs {
                sign: p.sign,
                limit: task.limits[p.item],
                rows: span(&p.rows),
                columns: span(&p.columns),
                item: (items.len() - 1) as i32,
                unused: 0,
            });
        }
        let pictures: Vec<&Tensor> = items.iter().map(|&i| &task.pictures[i]).collect();
        self.runtime.upload(part(0), bytemuck::cast_slice(&singles(&pictures)))?;
        self.runtime.upload(part(1), bytemuck::cast_slice(&laid))?;
        self.launch("move_patches", [places.len(), 1, 1], None, arguments)?;
        let numbers = arguments.numbers as usize;
        let mut pixels = vec![0f32; numbers * places.len()];
        let (mut changes, mut shrunk) = (vec![0f64; places.len()], vec![0i32; places.len()]);
        self.runtime.download(part(4), bytemuck::cast_slice_mut(&mut pixels))?;
        self.runtime.download(part(5), bytemuck::cast_slice_mut(&mut changes))?;
        self.runtime.download(part(6), bytemuck::cast_slice_mut(&mut shrunk))?;
        let channels = task.stem.layer.input.c;
        for (n, p) in places.iter().enumerate() {
            let own = &pixels[n * numbers..][..p.rows.len() * p.columns.len() * channels];
            let pixels = own.iter().map(|&v| f64::from(v)).collect();
            moved.push(Moved { pixels, shrunk: shrunk[n] != 0, change: changes[n] });
        }
        Ok(())
    }

    fn stem_arguments(&mut self, stem: &Stem, pictures: Address) -> Result<StemArgs> {
        let layer = &stem.layer;
        let weight = self.constants.weight(self.runtime.as_mut(), &layer.weight, 1, ORDER)?;
        let bias = match &layer.bias {
            Some(bias) if bias.len() != layer.output.c => {
                return Err(Error::device(format!("layer '{}' has a bias for each element", layer.name)));
            }
            Some(bias) => self.constants.vector(self.runtime.as_mut(), bias, VectorKind::Channels)?,
            None => Address::NULL,
        };
        let pads = layer.window.pads(layer.input.h, layer.input.w);
        Ok(StemArgs {
            pictures: pictures.into(),
            weight: weight.into(),
            bias: bias.into(),
            range: stem.clamp.map_or([f64::NEG_INFINITY, f64::INFINITY], |r| [r.lo, r.hi]),
            extent: layer.input.dims().map(|n| n as i32),
            out_extent: layer.output.dims().map(|n| n as i32),
            kernel: layer.window.kernel.map(|n| n as i32),
            stride: layer.window.stride.map(|n| n as i32),
            dilation: layer.window.dilation.map(|n| n as i32),
            pad: [pads[0][0] as i32, pads[1][0] as i32],
        })
    }

    /// Makes parts for as many of `wanted` as there is room for, each with `sizes` bytes, and says how many; before them,
    /// if there are any, one of `fixed` bytes.
    fn room(
        &mut self,
        stem: &Stem,
        limit: Option<u64>,
        fixed: usize,
        sizes: &[usize],
        wanted: usize,
        parts: &mut TaskParts,
    ) -> Result<usize> {
        let limit = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
        let each: usize = sizes.iter().sum();
        // The weights and one bias.
        let weights = (packed_len(&stem.layer.weight, 1, ORDER) + stem.layer.output.c) * size_of::<f32>();
        let least = fixed + weights + each;
        if limit < least {
            return Err(Error::limit(format!(
                "{} of memory is not enough: one copy needs {} to move a patch through layer '{}'",
                mebibytes(limit),
                mebibytes(least),
                stem.layer.name
            )));
        }
        // What the next program needs it makes room for again.
        if self.held() + least > limit {
            self.arena.release(self.runtime.as_mut());
            self.tables.release(self.runtime.as_mut());
        }
        if self.held() + least > limit {
            self.constants.keep(self.runtime.as_mut(), &HashSet::new());
        }
        let free = limit - self.held() - fixed - weights;
        let mut count = (free.min(MOST_BYTES) / each.max(1)).clamp(1, wanted.clamp(1, MOST));
        loop {
            match self.reserve_parts(fixed, sizes, count, parts) {
                Ok(()) => {
                    let all = self.held() + weights + fixed + each * count;
                    self.peak = self.peak.max(all as u64);
                    return Ok(count);
                }
                Err(Refusal::Failed(e)) => return Err(e),
                Err(Refusal::OutOfMemory) => {
                    parts.0.iter_mut().for_each(|r| r.release(self.runtime.as_mut()));
                    parts.0.clear();
                    if self.arena.bytes() > 0 {
                        self.arena.release(self.runtime.as_mut());
                    } else if count > 1 {
                        count = count.div_ceil(2);
                    } else {
                        return Err(Error::limit(format!(
                            "the device has too little memory left: one copy needs {} to move a patch through layer '{}'",
                            mebibytes(least),
                            stem.layer.name
                        )));
                    }
                }
            }
        }
    }

    fn reserve_parts(
        &mut self,
        fixed: usize,
        sizes: &[usize],
        count: usize,
        parts: &mut TaskParts,
    ) -> Result<(), Refusal> {
        let before = (fixed > 0).then_some(fixed);
        for bytes in before.into_iter().chain(sizes.iter().map(|size| size * count)) {
            let mut region = GrowingMemory::default();
            let done = region.reserve(self.runtime.as_mut(), bytes);
            parts.0.push(region);
            done?;
        }
        Ok(())
    }

    fn give_back(&mut self, parts: TaskParts) {
        parts.0.into_iter().for_each(|mut region| region.release(self.runtime.as_mut()));
    }

    /// Bytes that stay between calls.
    fn held(&mut self) -> usize {
        self.constants.bytes() + self.tables.bytes() + self.arena.bytes()
    }
}

/// Positions along `axis` whose windows meet `side` neighbouring pixels, at most.
fn positions(stem: &Stem, axis: usize, side: usize) -> usize {
    let window = &stem.layer.window;
    let extent = [stem.layer.output.h, stem.layer.output.w][axis];
    ((side + (window.kernel[axis] - 1) * window.dilation[axis]).div_ceil(window.stride[axis])).min(extent)
}

/// Numbers of pictures, one after the other.
fn singles(pictures: &[&Tensor]) -> Vec<f32> {
    let mut out = Vec::new();
    for picture in pictures {
        let start = out.len();
        out.resize(start + picture.len(), 0f32);
        picture.write_to(&mut out[start..]);
    }
    out
}
