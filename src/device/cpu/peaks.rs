//! Peak performance of the machine: multiply-adds in registers, and sequential memory reads and writes.
//!
//! Measured with the instructions of the kernels in question, so that a step's time can be compared with it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use serde::Serialize;

use super::isa::{CpuKernel, Isa};
use super::memory::{Buffer, Shared};
use super::{Kernels, WithIsa, with_isa};
use crate::device::threads::start_pool;
use crate::error::Result;
use crate::tensor::{Precision, Scalar};

/// Independent chains of multiply-adds: enough to hide the latency of two units, few enough for 16 registers.
const CHAINS: usize = 12;
/// Multiply-adds of each chain per loop iteration.
const UNROLLED: usize = 4;
/// Minimum duration of an arithmetic measurement.
const SHORTEST: Duration = Duration::from_millis(8);
/// Number of measurements, of which the best counts: on a shared machine, the others include foreign load.
const ROUNDS: usize = 9;
/// Bytes of each of the three arrays; exceeds the caches of common machines.
const ARRAY_BYTES: usize = 128 << 20;
/// Partial sums of the reading loop.
const SUMS: usize = 8;

/// Measured limits for a number of threads and one set of kernels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peaks {
    /// `avx512`, `avx2`, `portable`.
    pub kernels: &'static str,
    /// Precision of the computation.
    pub precision: Precision,
    /// Number of threads working at the same time.
    pub threads: usize,
    /// Billions of floating-point operations per second, two per multiply-add, with operands in registers.
    pub fma_gflop_s: f64,
    /// Billions of bytes per second read from an array far larger than the caches.
    pub read_gb_s: f64,
    /// Billions of bytes per second read and written by `a = b + s · c` on three such arrays.
    pub triad_gb_s: f64,
}

impl Peaks {
    /// The higher of the two bandwidths, in billions of bytes per second.
    pub fn memory_gb_s(&self) -> f64 {
        self.read_gb_s.max(self.triad_gb_s)
    }
}

/// Measures the limits of `threads` threads; takes about a second and 384 MiB of memory.
///
/// # Errors
/// When the machine lacks the kernels, threads cannot be started, or there is not enough memory.
pub fn measure(precision: Precision, kernels: Kernels, threads: usize) -> Result<Peaks> {
    with_isa(precision, kernels, PeakMeasure { threads })
}

struct PeakMeasure {
    threads: usize,
}

impl WithIsa for PeakMeasure {
    type Out = Peaks;

    fn with<I: Isa>(self) -> Result<Peaks> {
        let team = Team { pool: start_pool(self.threads)?, threads: self.threads };
        let memory = Arrays::<I>::new(&team)?;
        Ok(Peaks {
            kernels: I::NAME,
            precision: I::T::PRECISION,
            threads: self.threads,
            fma_gflop_s: fma::<I>(&team),
            read_gb_s: memory.read(&team),
            triad_gb_s: memory.triad(&team),
        })
    }
}

struct Team {
    pool: Option<ThreadPool>,
    threads: usize,
}

impl Team {
    /// Runs `work(thread)` on every thread and returns the time of the slowest.
    fn time(&self, work: impl Fn(usize) + Sync) -> Duration {
        let start = Instant::now();
        match &self.pool {
            Some(pool) => {
                pool.broadcast(|context| work(context.index()));
            }
            None => work(0),
        }
        start.elapsed()
    }

    /// The shortest of several runs, in seconds.
    fn best(&self, work: impl Fn(usize) + Sync) -> f64 {
        let shortest = (0..ROUNDS).map(|_| self.time(&work)).min().unwrap_or_default();
        shortest.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Chains of dependent multiply-adds in registers.
struct Chains<T> {
    rounds: usize,
    factor: T,
    term: T,
}

impl<I: Isa> CpuKernel<I> for Chains<I::T> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: no memory but the local array is touched.
        unsafe {
            let (factor, term) = (I::splat(self.factor), I::splat(self.term));
            // Chains with equal starts could be merged by the compiler.
            let mut chains: [I::V; CHAINS] = std::array::from_fn(|i| I::splat(I::T::from_f64(i as f64)));
            for _ in 0..self.rounds {
                for _ in 0..UNROLLED {
                    for chain in &mut chains {
                        *chain = I::fma(*chain, factor, term);
                    }
                }
            }
            keep::<I>(&chains);
        }
    }
}

/// Uses the sum of some vectors, so that their computation cannot be optimised away.
///
/// # Safety
/// As for [`Isa`].
#[inline(always)]
unsafe fn keep<I: Isa>(vectors: &[I::V]) {
    let mut out = [I::T::ZERO; 16];
    // SAFETY: no vector has more than 16 lanes.
    unsafe {
        let sum = vectors.iter().fold(I::zero(), |sum, &v| I::add(sum, v));
        I::store(out.as_mut_ptr(), sum);
    }
    black_box(&out);
}

fn fma<I: Isa>(team: &Team) -> f64 {
    let run = |rounds: usize| {
        // Converges, so that the numbers stay normal; unknown to the compiler.
        let chains = Chains { rounds, factor: black_box(I::T::from_f64(0.75)), term: black_box(I::T::from_f64(0.25)) };
        // SAFETY: features were detected when the instruction set was chosen.
        unsafe { I::run(chains) };
    };
    let mut rounds = 1 << 10;
    while team.time(|_| run(rounds)) < SHORTEST && rounds < 1 << 40 {
        rounds *= 2;
    }
    let operations = 2 * I::LANES * CHAINS * UNROLLED * rounds * team.threads;
    operations as f64 / team.best(|_| run(rounds)) / 1e9
}

/// Three arrays, divided into one part per thread.
struct Arrays<I: Isa> {
    buffers: [Buffer; 3],
    /// Elements of each thread's part.
    part: usize,
    isa: std::marker::PhantomData<I>,
}

impl<I: Isa> Arrays<I> {
    fn new(team: &Team) -> Result<Self> {
        let buffers = [Buffer::new(ARRAY_BYTES)?, Buffer::new(ARRAY_BYTES)?, Buffer::new(ARRAY_BYTES)?];
        let part = ARRAY_BYTES / size_of::<I::T>() / team.threads / (SUMS * I::LANES) * (SUMS * I::LANES);
        let arrays = Self { buffers, part, isa: std::marker::PhantomData };
        // Unwritten pages all map to one zero page, and a page is placed where it is first written.
        let pointers = arrays.pointers();
        team.time(|thread| {
            for pointer in pointers {
                // SAFETY: parts are disjoint and lie inside the buffers.
                let part = unsafe { std::slice::from_raw_parts_mut(pointer.add(thread * part), part) };
                part.fill(I::T::from_f64(0.5));
            }
        });
        Ok(arrays)
    }

    fn pointers(&self) -> [Shared<I::T>; 3] {
        self.buffers.each_ref().map(|b| Shared(b.pointer().cast()))
    }

    fn bytes(&self, team: &Team) -> f64 {
        (3 * self.part * size_of::<I::T>() * team.threads) as f64
    }

    fn read(&self, team: &Team) -> f64 {
        let (pointers, part) = (self.pointers(), self.part);
        let seconds = team.best(|thread| {
            for pointer in pointers {
                // SAFETY: parts are inside the buffers, which nothing writes now; features were detected.
                unsafe {
                    I::run(SumTask::<I> { from: pointer.add(thread * part).cast_const(), vectors: part / I::LANES });
                }
            }
        });
        self.bytes(team) / seconds / 1e9
    }

    fn triad(&self, team: &Team) -> f64 {
        let ([a, b, c], part) = (self.pointers(), self.part);
        let seconds = team.best(|thread| {
            // SAFETY: parts are disjoint and lie inside the buffers; features were detected.
            unsafe {
                I::run(Triad::<I> {
                    a: a.add(thread * part),
                    b: b.add(thread * part).cast_const(),
                    c: c.add(thread * part).cast_const(),
                    factor: black_box(I::T::from_f64(0.25)),
                    vectors: part / I::LANES,
                });
            }
        });
        self.bytes(team) / seconds / 1e9
    }
}

/// Sums an array.
struct SumTask<I: Isa> {
    from: *const I::T,
    vectors: usize,
}

impl<I: Isa> CpuKernel<I> for SumTask<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the array holds `vectors` vectors, a multiple of the partial sums.
        unsafe {
            let mut sums = [I::zero(); SUMS];
            for i in (0..self.vectors).step_by(SUMS) {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = I::add(*sum, I::load(self.from.add((i + k) * I::LANES)));
                }
            }
            keep::<I>(&sums);
        }
    }
}

/// `a = b + factor · c`.
struct Triad<I: Isa> {
    a: *mut I::T,
    b: *const I::T,
    c: *const I::T,
    factor: I::T,
    vectors: usize,
}

impl<I: Isa> CpuKernel<I> for Triad<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the arrays hold `vectors` vectors each.
        unsafe {
            let factor = I::splat(self.factor);
            for i in 0..self.vectors {
                let at = i * I::LANES;
                I::store(self.a.add(at), I::fma(I::load(self.c.add(at)), factor, I::load(self.b.add(at))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_numbers() {
        let peaks = measure(Precision::F32, Kernels::Auto, 2).unwrap();
        for figure in [peaks.fma_gflop_s, peaks.read_gb_s, peaks.triad_gb_s] {
            assert!(figure > 0.0 && figure.is_finite(), "{peaks:?}");
        }
        assert_eq!(peaks.threads, 2);
        assert!(measure(Precision::F64, Kernels::Avx2, 1).is_err());
    }
}
