//! Numbers that stay on the device between runs: weights in the order in which kernels read them, biases, fills.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::arguments::Address;
use super::geometry::PassDirection;
use super::layout;
use super::runtime::{Refusal, Runtime};
use crate::device::threads::for_each;
use crate::error::{Error, Result};
use crate::graph::{Weight, WeightId};
use crate::tensor::Shape;

/// Rows and columns of the tensor cores' tile.
pub(super) const TILE: usize = 64;
/// Numbers of a row that are loaded together.
pub(super) const DEPTH: usize = 16;
/// Number of biases and fills beyond which unused ones are dropped.
const MOST_VECTORS: usize = 4096;

/// The order of a weight's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WeightOrder {
    /// `[group][tap][k][c]`, `k` and `c` padded to whole tiles with zeros; `k` counts what is written, `c` what is read.
    Tiles(PassDirection),
    /// `[tap][c][all channels written]`.
    Rows(PassDirection),
}

/// A weight in a certain order, for a number of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WeightKey {
    weight: WeightId,
    groups: usize,
    order: WeightOrder,
}

impl WeightKey {
    pub fn new(weight: &Weight, groups: usize, order: WeightOrder) -> Self {
        Self { weight: weight.id(), groups, order }
    }
}

/// The layout of a program's vector on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum VectorKind {
    /// One number per channel.
    Channels,
    /// One number per element, `[c][h][w]` on the host.
    Elements(Shape),
    /// One number per channel or element, expanded to all elements.
    Filled(Shape),
}

/// Where a vector lies; the host's numbers are kept, so that their address names them.
struct Vector {
    at: Address,
    bytes: usize,
    #[allow(dead_code, reason = "its address is the key")]
    numbers: Arc<[f64]>,
}

/// All constants on the device.
#[derive(Default)]
pub(super) struct Constants {
    weights: HashMap<WeightKey, (Address, usize)>,
    vectors: HashMap<(*const f64, VectorKind), Vector>,
    /// Threads of the host, which lay weights out.
    pub pool: Option<rayon::ThreadPool>,
}

// SAFETY: the pointers are keys only; nothing is read through them.
unsafe impl Send for Constants {}

/// Channels written and read by one group in `direction`.
pub(super) fn channels(weight: &Weight, groups: usize, direction: PassDirection) -> [usize; 2] {
    let [k, c, ..] = weight.dims();
    match direction {
        PassDirection::Forward => [k / groups, c],
        PassDirection::Adjoint => [c, k / groups],
    }
}

/// Numbers of a weight in some order.
pub(super) fn packed_len(weight: &Weight, groups: usize, order: WeightOrder) -> usize {
    let [_, _, kh, kw] = weight.dims();
    match order {
        WeightOrder::Rows(_) => weight.len(),
        WeightOrder::Tiles(direction) => {
            let [k, c] = channels(weight, groups, direction);
            groups * kh * kw * k.next_multiple_of(TILE) * c.next_multiple_of(DEPTH)
        }
    }
}

/// A weight's numbers in some order.
fn pack(weight: &Weight, groups: usize, order: WeightOrder, pool: Option<&rayon::ThreadPool>) -> Vec<f32> {
    let [all_k, c, kh, kw] = weight.dims();
    let (taps, row_len, per_group) = (kh * kw, weight.row_len(), all_k / groups);
    let mut dense = vec![0f32; weight.len()];
    for_each(dense.chunks_mut(row_len).enumerate().collect(), pool, |(row, out)| weight.read(row, 0..row_len, out));
    // The number of output channel `k` (of all) and input channel `i` (of its group) under a tap.
    let number = |k: usize, i: usize, tap: usize| dense[k * row_len + i * taps + tap];
    let mut out = vec![0f32; packed_len(weight, groups, order)];
    match order {
        WeightOrder::Tiles(direction) => {
            let [to, from] = channels(weight, groups, direction);
            let (to_padded, from_padded) = (to.next_multiple_of(TILE), from.next_multiple_of(DEPTH));
            for_each(out.chunks_mut(to_padded * from_padded).enumerate().collect(), pool, |(n, out)| {
                let (group, tap) = (n / taps, n % taps);
                for (k, row) in out.chunks_mut(from_padded).take(to).enumerate() {
                    for (i, v) in row.iter_mut().take(from).enumerate() {
                        *v = match direction {
                            PassDirection::Forward => number(group * per_group + k, i, tap),
                            PassDirection::Adjoint => number(group * per_group + i, k, tap),
                        };
                    }
                }
            });
        }
        WeightOrder::Rows(PassDirection::Forward) => {
            for_each(out.chunks_mut(all_k).enumerate().collect(), pool, |(n, out)| {
                let (tap, i) = (n / c, n % c);
                out.iter_mut().enumerate().for_each(|(k, v)| *v = number(k, i, tap));
            });
        }
        WeightOrder::Rows(PassDirection::Adjoint) => {
            for_each(out.chunks_mut(c * groups).enumerate().collect(), pool, |(n, out)| {
                let (tap, i) = (n / per_group, n % per_group);
                out.iter_mut().enumerate().for_each(|(to, v)| *v = number(to / c * per_group + i, to % c, tap));
            });
        }
    }
    out
}

impl Constants {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.weights.values().map(|(_, bytes)| bytes).sum::<usize>()
            + self.vectors.values().map(|v| v.bytes).sum::<usize>()
    }

    /// Bytes of weights that `keys` do not name, and of vectors.
    pub fn bytes_besides(&self, keys: &HashSet<WeightKey>) -> usize {
        self.weights.iter().filter(|(key, _)| !keys.contains(key)).map(|(_, (_, bytes))| bytes).sum::<usize>()
            + self.vectors.values().map(|v| v.bytes).sum::<usize>()
    }

    /// Empty; `pool` will pack weights.
    pub fn new(pool: Option<rayon::ThreadPool>) -> Self {
        Self { pool, ..Self::default() }
    }

    /// The weight in this order, uploaded if necessary.
    pub fn weight(
        &mut self,
        runtime: &mut dyn Runtime,
        weight: &Weight,
        groups: usize,
        order: WeightOrder,
    ) -> Result<Address> {
        let key = WeightKey::new(weight, groups, order);
        if let Some((at, _)) = self.weights.get(&key) {
            return Ok(*at);
        }
        let numbers = pack(weight, groups, order, self.pool.as_ref());
        let (at, bytes) = place(runtime, bytemuck::cast_slice(&numbers), "a layer's weights")?;
        self.weights.insert(key, (at, bytes));
        Ok(at)
    }

    /// The vector, uploaded if necessary.
    pub fn vector(&mut self, runtime: &mut dyn Runtime, numbers: &Arc<[f64]>, kind: VectorKind) -> Result<Address> {
        let key = (numbers.as_ptr(), kind);
        if let Some(vector) = self.vectors.get(&key) {
            return Ok(vector.at);
        }
        let single: Vec<f32> = numbers.iter().map(|&v| v as f32).collect();
        let laid: Vec<f32> = match kind {
            VectorKind::Channels => single,
            VectorKind::Elements(shape) => layout::interleave(&single, shape).collect(),
            VectorKind::Filled(shape) if single.len() == shape.c => {
                (0..shape.len()).map(|i| single[i % shape.c]).collect()
            }
            VectorKind::Filled(shape) => layout::interleave(&single, shape).collect(),
        };
        let (at, bytes) = place(runtime, bytemuck::cast_slice(&laid), "a layer's bias")?;
        self.vectors.insert(key, Vector { at, bytes, numbers: Arc::clone(numbers) });
        Ok(at)
    }

    /// Drops all vectors if there are very many.
    pub fn tidy(&mut self, runtime: &mut dyn Runtime) {
        if self.vectors.len() > MOST_VECTORS {
            self.drop_vectors(runtime);
        }
    }

    fn drop_vectors(&mut self, runtime: &mut dyn Runtime) {
        self.vectors.drain().for_each(|(_, v)| runtime.free(v.at));
    }

    /// Drops all vectors, and weights that none of `kept` names.
    pub fn keep(&mut self, runtime: &mut dyn Runtime, kept: &HashSet<WeightKey>) {
        self.drop_vectors(runtime);
        self.weights.retain(|key, (at, _)| kept.contains(key) || drop_one(runtime, *at));
    }

    /// Drops weights with these stored numbers.
    pub fn forget(&mut self, runtime: &mut dyn Runtime, weights: &HashSet<u64>) {
        self.weights.retain(|key, (at, _)| !weights.contains(&key.weight.stored()) || drop_one(runtime, *at));
    }
}

/// Gives memory back; false, for `retain`.
fn drop_one(runtime: &mut dyn Runtime, at: Address) -> bool {
    runtime.free(at);
    false
}

/// Memory for `bytes` with them in it.
fn place(runtime: &mut dyn Runtime, bytes: &[u8], what: &str) -> Result<(Address, usize)> {
    let at = runtime.allocate(bytes.len()).map_err(|refusal| match refusal {
        Refusal::Failed(e) => e,
        Refusal::OutOfMemory => Error::limit(format!(
            "the device has no room for {what} ({:.1} MiB)",
            bytes.len() as f64 / f64::from(1 << 20)
        )),
    })?;
    runtime.upload(at, bytes)?;
    Ok((at, bytes.len()))
}
