//! Memory layout: the place of each value in the arena.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Closing, Form, Program, Step, Value, Zeros};

/// Alignment of values, in bytes.
const ALIGN: usize = 64;

/// The place of a value: its offset from the start of the arena and its size, in bytes for one copy. A chunk multiplies
/// both by its number of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset for a chunk of one copy; in a chunk of `n` copies the value starts at `n` times this.
    pub offset: usize,
    /// Size for one copy.
    pub bytes: usize,
}

/// A program and its memory: a chunk of `n` copies needs `copy_bytes · n` bytes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Different for any two plans, except copies of one.
    pub(crate) id: u64,
    program: Program,
    /// The place of each value; values that are never written have none (0 bytes).
    pub(crate) places: Vec<Place>,
    pub(crate) copy_bytes: usize,
    zeros: Vec<Zeros>,
    closing: Option<Closing>,
}

/// Memory that is in use from one step to another, by one value or by several that reuse it in turn.
#[derive(Debug)]
struct Block {
    bytes: usize,
    steps: RangeInclusive<usize>,
    offset: usize,
}

impl Block {
    fn meets(&self, other: &Block) -> bool {
        self.steps.start() <= other.steps.end() && other.steps.start() <= self.steps.end()
    }
}

impl Plan {
    /// Lays out `program` for a device that stores a value of a given form in `bytes_of(form)` bytes.
    pub fn new(program: Program, bytes_of: impl Fn(Form) -> usize) -> Self {
        let mut last_use = vec![0; program.forms.len()];
        for (i, step) in program.steps.iter().enumerate() {
            step.reads().iter().chain(&step.writes()).for_each(|v| last_use[v.index()] = i);
        }
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of: Vec<Option<usize>> = vec![None; program.forms.len()];
        for (i, step) in program.steps.iter().enumerate() {
            for (n, out) in step.writes().into_iter().enumerate() {
                let form = program.forms[out.index()];
                let bytes = bytes_of(form).next_multiple_of(ALIGN);
                let last = last_use[out.index()];
                // An operand of another shape is repeated: its elements are read again after they were written.
                let dying = step.overwrites().into_iter().filter(|v| n == 0 && last_use[v.index()] == i);
                let mut alike = dying.filter(|v| program.forms[v.index()] == form);
                let taken_over = alike.find_map(|v| block_of[v.index()]);
                block_of[out.index()] = Some(match taken_over {
                    Some(b) => {
                        blocks[b].steps = *blocks[b].steps.start()..=last;
                        b
                    }
                    None => {
                        blocks.push(Block { bytes, steps: i..=last, offset: 0 });
                        blocks.len() - 1
                    }
                });
            }
        }
        let copy_bytes = lay_out(&mut blocks);
        let place = |b: &Option<usize>| match b {
            Some(b) => Place { offset: blocks[*b].offset, bytes: blocks[*b].bytes },
            None => Place { offset: 0, bytes: 0 },
        };
        let places = block_of.iter().map(place).collect();
        let zeros = Zeros::of(&program);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, program, places, copy_bytes, zeros, closing: None }
    }

    /// As [`Plan::new`], with the last adjoint run once per picture if [`Program::closed`] can split it off.
    pub fn closed(program: Program, bytes_of: impl Fn(Form) -> usize, least_products: usize) -> Self {
        let (program, last) = program.closed(least_products);
        let closing = last.map(|last| {
            let plan = Arc::new(Self::new(last, &bytes_of));
            let [signal, map] = [Value(0), Value(1)].map(|v| plan.form(v).shape());
            Closing { plan, signal, map }
        });
        Self { closing, ..Self::new(program, bytes_of) }
    }

    /// The part that runs once per picture, on the sum over its copies.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Form of a value.
    pub fn form(&self, v: Value) -> Form {
        self.program.forms[v.index()]
    }

    /// How many of a value's numbers are expected to be zero.
    pub fn zeros(&self, v: Value) -> Zeros {
        self.zeros[v.index()]
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The place of a value; a value that is never written has none (0 bytes).
    pub fn place(&self, v: Value) -> Place {
        self.places[v.index()]
    }

    /// Arena bytes of one copy.
    pub fn copy_bytes(&self) -> usize {
        self.copy_bytes
    }

    /// Slots of its stores, those that are watched among them.
    pub(crate) fn slots(&self) -> usize {
        let slot = |step: &Step| if let Step::Store { slot, .. } = step { slot + 1 } else { 0 };
        self.steps().iter().map(slot).max().unwrap_or(0)
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.program.steps
    }
}

/// Gives each block its offset: largest block first, each at the lowest free offset. Returns the total size.
fn lay_out(blocks: &mut [Block]) -> usize {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(blocks[b].bytes), b));
    let mut top = 0;
    for (n, &b) in order.iter().enumerate() {
        let mut taken: Vec<(usize, usize)> = order[..n]
            .iter()
            .map(|&o| &blocks[o])
            .filter(|o| o.meets(&blocks[b]))
            .map(|o| (o.offset, o.offset + o.bytes))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + blocks[b].bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        blocks[b].offset = offset;
        top = top.max(offset + blocks[b].bytes);
    }
    top
}
