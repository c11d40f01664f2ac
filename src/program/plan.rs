//! Where each value lies in the arena.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Closing, Form, Program, Step, Value, Zeros};

/// Values start at multiples of this.
const ALIGN: usize = 64;

/// Where a value lies: bytes from the start of the arena and bytes of one copy, both before multiplying by the number of
/// copies in the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Start, for a chunk of one copy; a chunk of `n` copies starts at `n` times this.
    pub offset: usize,
    /// Bytes of one copy.
    pub bytes: usize,
}

/// A program and its memory: `copy_bytes · n` bytes hold a chunk of `n` copies.
#[derive(Debug, Clone)]
pub struct Plan {
    program: Program,
    /// Where each value lies; values that are never written lie nowhere (0 bytes).
    pub(crate) places: Vec<Place>,
    pub(crate) copy_bytes: usize,
    zeros: Vec<Zeros>,
    closing: Option<Closing>,
}

/// Bytes held from one step to another, by a value or by several that take each other over.
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
    /// Lays out `program` for a device that stores a value of some form in `bytes_of(form)` bytes.
    pub fn new(program: Program, bytes_of: impl Fn(Form) -> usize) -> Self {
        let mut last_use = vec![0; program.forms.len()];
        for (i, step) in program.steps.iter().enumerate() {
            step.reads().iter().chain(&step.writes()).for_each(|v| last_use[v.index()] = i);
        }
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of: Vec<Option<usize>> = vec![None; program.forms.len()];
        for (i, step) in program.steps.iter().enumerate() {
            for (n, out) in step.writes().into_iter().enumerate() {
                let bytes = bytes_of(program.forms[out.index()]).next_multiple_of(ALIGN);
                let last = last_use[out.index()];
                let dying = step.overwrites().into_iter().filter(|v| n == 0 && last_use[v.index()] == i);
                let taken_over = dying.filter_map(|v| block_of[v.index()]).find(|&b| blocks[b].bytes == bytes);
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
        Self { program, places, copy_bytes, zeros, closing: None }
    }

    /// As [`Plan::new`], with the last adjoint run once a picture where [`Program::closed`] can split it off.
    pub fn closed(program: Program, bytes_of: impl Fn(Form) -> usize, least_products: usize) -> Self {
        let (program, last) = program.closed(least_products);
        let closing = last.map(|last| {
            let plan = Arc::new(Self::new(last, &bytes_of));
            let [signal, map] = [Value(0), Value(1)].map(|v| plan.form(v).shape());
            Closing { plan, signal, map }
        });
        Self { closing, ..Self::new(program, bytes_of) }
    }

    /// What is left to be done once a picture, on the sum over its copies.
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

    /// What to do.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Where a value lies; one that is never written lies nowhere (0 bytes).
    pub fn place(&self, v: Value) -> Place {
        self.places[v.index()]
    }

    /// Arena bytes of one copy.
    pub fn copy_bytes(&self) -> usize {
        self.copy_bytes
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.program.steps
    }
}

/// Gives each block its offset: the largest first, each as low as those already placed allow. Returns the bytes of all.
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
