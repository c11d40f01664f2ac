//! Memory of a program: arena, scratch, and the packed weights that stay in memory.

use std::collections::HashSet;
use std::sync::Arc;

use super::conv::{ConvPlan, PackKey, PassDirection};
use super::isa::Isa;
use super::memory::Buffer;
use super::{Cpu, linear};
use crate::device::ProgramRoom;
use crate::error::{Error, Result};
use crate::program::{ConvLayer, Plan, Step};

/// Arena size beyond which more copies per chunk gain nothing.
const ARENA_BYTES: usize = 256 << 20;
/// Number of copies beyond which a chunk gains nothing.
const MOST_COPIES: usize = 64;

/// One convolution and direction.
struct PackedConv<'a> {
    layer: &'a ConvLayer,
    direction: PassDirection,
    plan: Arc<ConvPlan>,
    bytes: usize,
}

/// Memory that a program needs besides its arena.
struct ProgramNeeds<'a> {
    /// Each convolution and direction once, with the size of its packed weights.
    packed: Vec<PackedConv<'a>>,
    /// Scratch per thread, in elements.
    scratch: usize,
}

impl<'a> ProgramNeeds<'a> {
    /// The packed weights that stay in memory, layer by layer, as far as they fit into `room` bytes.
    fn staying(&self, room: usize) -> impl Iterator<Item = &PackedConv<'a>> {
        let mut left = room;
        self.packed.iter().filter(move |p| {
            let fits = p.bytes <= left;
            left -= if fits { p.bytes } else { 0 };
            fits
        })
    }
}

/// What was found out about a plan: fitting it again would change nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fitted {
    plan: u64,
    wanted: usize,
    room: ProgramRoom,
    /// The state of the device for which this holds.
    changes: u64,
    copies: usize,
    scratch_share: usize,
}

/// Most plans about which this is remembered.
const MOST_FITTED: usize = 64;

impl<I: Isa> Cpu<I> {
    /// Finds or makes room for a plan; [`Device::fit`](crate::device::Device::fit).
    pub(super) fn fit_plan(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize> {
        let before = self.changes;
        let same = |f: &&Fitted| f.plan == plan.id && f.wanted == wanted && f.room == room && f.changes == before;
        if let Some(fitted) = self.fitted.iter().find(same) {
            self.scratch_share = fitted.scratch_share;
            return Ok(fitted.copies);
        }
        let buffers = |cpu: &Self| [&cpu.transient, &cpu.scratch, &cpu.arena].map(Buffer::len);
        let lengths = buffers(self);
        let copies = self.make_room(plan, wanted, room)?;
        self.changes += u64::from(buffers(self) != lengths);
        if self.changes == before {
            self.fitted.retain(|f| f.changes == before);
            if self.fitted.len() >= MOST_FITTED {
                self.fitted.clear();
            }
            let scratch_share = self.scratch_share;
            self.fitted.push(Fitted { plan: plan.id, wanted, room, changes: before, copies, scratch_share });
        }
        Ok(copies)
    }

    fn needs<'a>(&mut self, plan: &'a Plan) -> ProgramNeeds<'a> {
        let mut needs = ProgramNeeds { packed: Vec::new(), scratch: 0 };
        let mut seen = HashSet::new();
        let closing = plan.closing().map(|closing| &*closing.plan);
        let plans = [Some(plan), closing].into_iter().flatten();
        for (plan, step) in plans.flat_map(|plan| plan.steps().iter().map(move |step| (plan, step))) {
            let (layer, direction, read) = match step {
                Step::Conv { layer, x, .. } => (layer, PassDirection::Forward, *x),
                Step::ConvAdjoint { layer, s, .. } => (layer, PassDirection::Adjoint, *s),
                Step::Linear { .. } => {
                    needs.scratch = needs.scratch.max(linear::scratch(I::LANES));
                    continue;
                }
                Step::LinearAdjoint { .. } => {
                    needs.scratch = needs.scratch.max(linear::ADJOINT_SCRATCH);
                    continue;
                }
                _ => continue,
            };
            let conv = self.conv_plan(layer, direction, plan.zeros(read));
            needs.scratch = needs.scratch.max(conv.scratch_len);
            if seen.insert(conv.key.clone()) {
                let bytes = conv.packed_len * size_of::<I::T>();
                needs.packed.push(PackedConv { layer, direction, plan: conv, bytes });
            }
        }
        needs.scratch = needs.scratch.next_multiple_of(16);
        needs
    }

    fn make_room(&mut self, plan: &Plan, wanted: usize, room: ProgramRoom) -> Result<usize> {
        let (all_of_it, limit) = room.bytes();
        let needs = self.needs(plan);
        // Both programs run in the same arena; the closing one, on at most as many pictures as there are copies.
        let copy = plan.closing().map_or(0, |closing| closing.plan.copy_bytes).max(plan.copy_bytes);
        let scratch = needs.scratch * self.threads * size_of::<I::T>();
        let all: usize = needs.packed.iter().map(|p| p.bytes).sum();
        let largest = needs.packed.iter().map(|p| p.bytes).max().unwrap_or(0);
        let least = scratch.saturating_add(copy).saturating_add(largest);
        if limit < least {
            return Err(Error::limit(format!(
                "{} of memory is not enough: one copy needs {} ({} for feature maps, {} for scratch, {} for \
                 the largest layer's packed weights, {} for pictures, maps and what the method keeps)",
                mebibytes(all_of_it),
                mebibytes(least.saturating_add(room.kept)),
                mebibytes(copy),
                mebibytes(scratch),
                mebibytes(largest),
                mebibytes(room.kept)
            )));
        }
        let most = (ARENA_BYTES / copy.max(1)).clamp(1, wanted.clamp(1, MOST_COPIES));
        // Chunks of nearly equal size: weights are read once per chunk, however few copies it has.
        let useful = wanted.max(1).div_ceil(wanted.max(1).div_ceil(most));
        // Weights of other programs stay as long as this one does not need their memory.
        let mine: HashSet<PackKey> = needs.packed.iter().map(|p| p.plan.key.clone()).collect();
        let mut others: usize = self.resident.iter().filter(|(k, _)| !mine.contains(k)).map(|(_, b)| b.len()).sum();
        let comfortable = scratch.saturating_add(copy.saturating_mul(useful)).saturating_add(all);
        if comfortable.saturating_add(others) > limit {
            self.changes += u64::from(others > 0);
            self.resident.retain(|k, _| mine.contains(k));
            others = 0;
        }
        let everything_stays = scratch + copy + all + others <= limit;
        let transient = if everything_stays { 0 } else { largest };
        let weights_room = if everything_stays { usize::MAX } else { limit - least };
        let kept: usize = needs.staying(weights_room).map(|p| p.bytes).sum();
        let copies = useful.min((limit - (scratch + kept + transient + others)) / copy.max(1));
        let arena = copies * copy;
        // Larger buffers of an earlier program stay unless the limit forbids it, and are freed before anything new is
        // allocated.
        let larger =
            self.scratch.len().max(scratch) + self.transient.len().max(transient) + self.arena.len().max(arena);
        if larger.saturating_add(kept + others) > limit {
            self.transient.shrink(transient);
            self.scratch.shrink(scratch);
            self.arena.shrink(arena);
        }
        self.keep(&needs, weights_room)?;
        self.transient.grow(transient)?;
        self.scratch.grow(scratch)?;
        self.arena.grow(arena)?;
        self.scratch_share = needs.scratch;
        let held = kept + others + self.transient.len() + self.scratch.len() + self.arena.len();
        self.peak = self.peak.max(held.saturating_add(room.kept) as u64);
        Ok(copies)
    }

    /// Bytes held at present.
    pub(super) fn held(&self) -> usize {
        let resident: usize = self.resident.values().map(Buffer::len).sum();
        resident + self.transient.len() + self.scratch.len() + self.arena.len()
    }

    /// Packs the weights that stay within `room` bytes, and frees the program's others.
    fn keep(&mut self, needs: &ProgramNeeds<'_>, room: usize) -> Result<()> {
        let staying: HashSet<&PackKey> = needs.staying(room).map(|p| &p.plan.key).collect();
        for dropped in needs.packed.iter().filter(|p| !staying.contains(&p.plan.key)) {
            self.changes += u64::from(self.resident.remove(&dropped.plan.key).is_some());
        }
        for packed in needs.staying(room) {
            if self.resident.contains_key(&packed.plan.key) {
                continue;
            }
            let mut buffer = Buffer::new(packed.bytes)?;
            let out = &mut buffer.as_mut_slice::<I::T>()[..packed.plan.packed_len];
            packed.plan.pack::<I>(packed.layer, packed.direction, self.pool.as_ref(), out);
            self.resident.insert(packed.plan.key.clone(), buffer);
            self.changes += 1;
        }
        Ok(())
    }
}

/// Rounded up, because the reported size must suffice.
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", (bytes as f64 / f64::from(1 << 20) * 10.0).ceil() / 10.0)
}
