//! How much memory a program gets: arena, scratch, and which packed weights stay.

use std::collections::HashSet;

use super::conv::Direction;
use super::isa::Isa;
use super::memory::Buffer;
use super::{ConvKey, Cpu, PackKey, linear};
use crate::error::{Error, Result};
use crate::program::{ConvLayer, Plan, Step};

/// Arena bytes beyond which more copies in a chunk gain nothing.
const ARENA_BYTES: usize = 192 << 20;
/// Copies beyond which a chunk gains nothing.
const MOST_COPIES: usize = 64;

/// What a program needs besides its arena.
struct Needs<'a> {
    /// Each convolution and direction once, with the bytes of its packed weights.
    packed: Vec<(&'a ConvLayer, Direction, usize)>,
    /// Scratch of one thread, in elements.
    scratch: usize,
}

impl<I: Isa> Cpu<I> {
    fn needs<'a>(&mut self, plan: &'a Plan) -> Needs<'a> {
        let mut needs = Needs { packed: Vec::new(), scratch: 0 };
        let mut seen = HashSet::new();
        for step in plan.steps() {
            let (layer, direction) = match step {
                Step::Conv { layer, .. } => (layer, Direction::Forward),
                Step::ConvAdjoint { layer, .. } => (layer, Direction::Adjoint),
                Step::Linear { layer, .. } => {
                    if layer.weight.in_place::<I::T>().is_none() {
                        needs.scratch = needs.scratch.max(linear::ROWS * layer.weight.row_len());
                    }
                    continue;
                }
                Step::LinearAdjoint { .. } => {
                    needs.scratch = needs.scratch.max(linear::ADJOINT_SCRATCH);
                    continue;
                }
                _ => continue,
            };
            let conv = self.conv_plan(layer, direction);
            needs.scratch = needs.scratch.max(conv.scratch_len);
            if seen.insert(ConvKey::new(layer, direction).pack) {
                needs.packed.push((layer, direction, conv.packed_len * size_of::<I::T>()));
            }
        }
        needs.scratch = needs.scratch.next_multiple_of(16);
        needs
    }

    pub(super) fn make_room(&mut self, plan: &Plan, wanted: usize, limit: Option<u64>) -> Result<usize> {
        let limit = limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
        let needs = self.needs(plan);
        let copy = plan.copy_bytes;
        let scratch = needs.scratch * self.threads * size_of::<I::T>();
        let all: usize = needs.packed.iter().map(|p| p.2).sum();
        let largest = needs.packed.iter().map(|p| p.2).max().unwrap_or(0);
        let least = scratch.saturating_add(copy).saturating_add(largest);
        if limit < least {
            return Err(Error::limit(format!(
                "{} of memory do not suffice: one copy of the picture needs {} ({} for feature maps, {} for scratch, {} for \
                 the largest layer's packed weights)",
                mebibytes(limit),
                mebibytes(least),
                mebibytes(copy),
                mebibytes(scratch),
                mebibytes(largest)
            )));
        }
        let useful = (ARENA_BYTES / copy.max(1)).clamp(1, wanted.clamp(1, MOST_COPIES));
        // Weights of other programs stay as long as this one is not in want.
        let mine: HashSet<PackKey> = needs.packed.iter().map(|(l, d, _)| ConvKey::new(l, *d).pack).collect();
        let others: usize = self.resident.iter().filter(|(k, _)| !mine.contains(k)).map(|(_, b)| b.len()).sum();
        let comfortable = scratch.saturating_add(copy.saturating_mul(useful)).saturating_add(all);
        let others = if comfortable.saturating_add(others) > limit {
            self.resident.retain(|k, _| mine.contains(k));
            0
        } else {
            others
        };
        // Old buffers that are too small or would break the limit go before new ones come.
        let weights = if scratch + copy + all <= limit {
            self.transient = Buffer::empty();
            self.keep(&needs, usize::MAX)?
        } else {
            if self.transient.len() != largest {
                self.transient = Buffer::empty();
            }
            let kept = self.keep(&needs, limit - least)?;
            if self.transient.len() != largest {
                self.transient = Buffer::new(largest)?;
            }
            kept + self.transient.len()
        };
        let too_much = weights + others + self.scratch.len() + copy > limit;
        if self.scratch_share < needs.scratch || too_much {
            self.scratch = Buffer::empty();
            self.scratch = Buffer::new(scratch)?;
            self.scratch_share = needs.scratch;
        }
        let besides = weights + others + self.scratch.len();
        let room = limit.saturating_sub(besides);
        let copies = useful.min(room / copy.max(1)).max(1);
        let arena = copies * copy;
        if self.arena.len() < arena || self.arena.len() > room {
            self.arena = Buffer::empty();
            self.arena = Buffer::new(arena)?;
        }
        let held = besides + self.arena.len();
        self.peak = self.peak.max(held as u64);
        Ok(copies)
    }

    /// Packs weights, layer by layer, as long as they fit into `room` bytes, and drops those that do not; returns the bytes
    /// that stay.
    fn keep(&mut self, needs: &Needs<'_>, room: usize) -> Result<usize> {
        let mut kept = 0;
        for &(layer, direction, bytes) in &needs.packed {
            let key = ConvKey::new(layer, direction).pack;
            if kept + bytes > room {
                self.resident.remove(&key);
                continue;
            }
            kept += bytes;
            if self.resident.contains_key(&key) {
                continue;
            }
            let plan = self.conv_plan(layer, direction);
            let mut buffer = Buffer::new(bytes)?;
            let out = &mut buffer.as_mut_slice::<I::T>()[..plan.packed_len];
            match &self.pool {
                Some(pool) => pool.install(|| plan.pack::<I>(layer, direction, out)),
                None => plan.pack::<I>(layer, direction, out),
            }
            self.resident.insert(key, buffer);
        }
        Ok(kept)
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
