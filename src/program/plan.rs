//! Where each value lies in the arena.

use super::{Form, Program, Step, Value};

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
    /// What to do.
    pub program: Program,
    /// Where each value lies; values that are never written lie nowhere (0 bytes).
    pub places: Vec<Place>,
    /// Arena bytes of one copy.
    pub copy_bytes: usize,
}

impl Plan {
    /// Lays out `program` for a device that stores a value of some form in `bytes_of(form)` bytes.
    pub fn new(program: Program, bytes_of: impl Fn(Form) -> usize) -> Self {
        let mut last_use = vec![0; program.forms.len()];
        for (i, step) in program.steps.iter().enumerate() {
            step.reads().iter().chain(&step.writes()).for_each(|v| last_use[v.index()] = i);
        }
        let mut places = vec![Place { offset: 0, bytes: 0 }; program.forms.len()];
        let mut free = FreeList::default();
        for (i, step) in program.steps.iter().enumerate() {
            let dies = |v: Value| last_use[v.index()] == i;
            let mut taken_over = None;
            for (n, out) in step.writes().into_iter().enumerate() {
                let bytes = bytes_of(program.forms[out.index()]).next_multiple_of(ALIGN);
                let reuse =
                    step.overwrites().into_iter().find(|&v| n == 0 && dies(v) && places[v.index()].bytes == bytes);
                let offset = match reuse {
                    Some(v) => {
                        taken_over = Some(v);
                        places[v.index()].offset
                    }
                    None => free.take(bytes),
                };
                places[out.index()] = Place { offset, bytes };
            }
            let mut ended: Vec<Value> = step.reads().into_iter().chain(step.writes()).filter(|&v| dies(v)).collect();
            ended.sort_unstable();
            ended.dedup();
            for v in ended.into_iter().filter(|&v| Some(v) != taken_over) {
                free.give(places[v.index()]);
            }
        }
        Self { program, places, copy_bytes: free.top }
    }

    /// Form of a value.
    pub fn form(&self, v: Value) -> Form {
        self.program.forms[v.index()]
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.program.steps
    }
}

/// Holes in the arena, sorted by offset, none touching another.
#[derive(Debug, Default)]
struct FreeList {
    holes: Vec<Place>,
    top: usize,
}

impl FreeList {
    /// The smallest hole that holds `bytes`, or new room at the top.
    fn take(&mut self, bytes: usize) -> usize {
        let fits = self.holes.iter().enumerate().filter(|(_, h)| h.bytes >= bytes);
        if let Some(i) = fits.min_by_key(|(_, h)| h.bytes).map(|(i, _)| i) {
            let hole = &mut self.holes[i];
            let offset = hole.offset;
            hole.offset += bytes;
            hole.bytes -= bytes;
            if hole.bytes == 0 {
                self.holes.remove(i);
            }
            return offset;
        }
        // A hole that ends at the top can grow.
        let offset = match self.holes.last() {
            Some(h) if h.offset + h.bytes == self.top => {
                let offset = h.offset;
                self.holes.pop();
                offset
            }
            _ => self.top,
        };
        self.top = offset + bytes;
        offset
    }

    fn give(&mut self, place: Place) {
        if place.bytes == 0 {
            return;
        }
        let i = self.holes.partition_point(|h| h.offset < place.offset);
        self.holes.insert(i, place);
        let touches = |a: Place, b: Place| a.offset + a.bytes == b.offset;
        if i + 1 < self.holes.len() && touches(self.holes[i], self.holes[i + 1]) {
            self.holes[i].bytes += self.holes[i + 1].bytes;
            self.holes.remove(i + 1);
        }
        if i > 0 && touches(self.holes[i - 1], self.holes[i]) {
            self.holes[i - 1].bytes += self.holes[i].bytes;
            self.holes.remove(i);
        }
    }
}
