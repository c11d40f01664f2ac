//! Whether a device does what kernels take for granted: which lane holds which number of a product, how numbers are rounded
//! on their way to the tensor cores. How the cores round their sums is told, not judged: kernels allow for either.

use std::path::Path;

use half::{bf16, f16};
use serde::Serialize;

use super::arguments::{Address, Arguments, ConversionArgs, FragmentArgs, LongSumArgs};
use super::driver::Cuda;
use super::emulated::Emulated;
use super::runtime::{Launch, Refusal, Runtime};
use super::source::{SELFTEST, Sources};
use crate::error::{Error, Result};

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfTest {
    /// What.
    pub name: &'static str,
    /// Whether the device does what is expected of it.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// Tries a GPU, by number, or the emulation of one, with kernels of `folder` in place of the built-in ones.
///
/// # Errors
/// When the device cannot be opened, a kernel does not compile, or a launch fails.
pub fn self_test(gpu: Option<usize>, folder: Option<&Path>) -> Result<Vec<SelfTest>> {
    let sources = folder.map_or_else(|| Ok(Sources::default()), Sources::of_folder)?;
    match gpu {
        Some(index) => run(&mut Cuda::open(index, sources)?),
        None => run(&mut Emulated::new(sources, 1, 1)?),
    }
}

fn run(runtime: &mut dyn Runtime) -> Result<Vec<SelfTest>> {
    let mut all = Vec::new();
    for operands in [Operands::Tf32, Operands::F16, Operands::Bf16] {
        all.push(fragments(runtime, operands)?);
    }
    all.extend(conversions(runtime)?);
    all.push(long_sum(runtime)?);
    Ok(all)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operands {
    Tf32,
    F16,
    Bf16,
}

impl Operands {
    const fn name(self) -> &'static str {
        match self {
            Operands::Tf32 => "fragments of mma m16n8k8 tf32",
            Operands::F16 => "fragments of mma m16n8k16 f16",
            Operands::Bf16 => "fragments of mma m16n8k16 bf16",
        }
    }

    /// Terms of a sum.
    const fn depth(self) -> usize {
        if matches!(self, Operands::Tf32) { 8 } else { 16 }
    }

    /// A word with the numbers at `k` and, if two fit, at `k + 1`.
    fn word(self, at: impl Fn(usize) -> f32, k: usize) -> u32 {
        let two = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match self {
            Operands::Tf32 => at(k).to_bits(),
            Operands::F16 => two(f16::from_f32(at(k)).to_bits(), f16::from_f32(at(k + 1)).to_bits()),
            Operands::Bf16 => two(bf16::from_f32(at(k)).to_bits(), bf16::from_f32(at(k + 1)).to_bits()),
        }
    }

    /// First term of the `i`-th word of a lane whose place in its group of four is `t`, of an operand with `half` words
    /// before its second half.
    const fn first(self, t: usize, second: bool) -> usize {
        match self {
            Operands::Tf32 => t + if second { 4 } else { 0 },
            _ => 2 * t + if second { 8 } else { 0 },
        }
    }
}

/// Small integers, unlike at unlike places.
fn entry(salt: usize, row: usize, column: usize) -> f32 {
    ((row * 7 + column * 13 + salt * 5 + row * column) % 11) as f32 - 5.0
}

/// One product of integers, which must come out exactly, every number in the lane that it belongs to.
fn fragments(runtime: &mut dyn Runtime, operands: Operands) -> Result<SelfTest> {
    let (mut a, mut b, mut c, mut want) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..4 {
            let row = g + i % 2 * 8;
            a.push(operands.word(|k| entry(1, row, k), operands.first(t, i >= 2)));
        }
        for i in 0..2 {
            b.push(operands.word(|k| entry(2, k, g), operands.first(t, i == 1)));
        }
        for i in 0..4 {
            let (row, column) = (g + i / 2 * 8, 2 * t + i % 2);
            let sum = (0..operands.depth()).map(|k| entry(1, row, k) * entry(2, k, column)).sum::<f32>();
            c.push(entry(3, row, column));
            want.push(entry(3, row, column) + sum);
        }
    }
    let mut memory = TrialMemory::new(runtime);
    let arguments = FragmentArgs {
        a: memory.with(&a)?.into(),
        b: memory.with(&b)?.into(),
        c: memory.with(&c)?.into(),
        out: memory.of(128 * size_of::<f32>())?.into(),
        kind: match operands {
            Operands::Tf32 => 0,
            Operands::F16 => 1,
            Operands::Bf16 => 2,
        },
    };
    memory.launch("fragments", 32, 1, &arguments)?;
    let got: Vec<f32> = memory.last(128)?;
    let wrong = got.iter().zip(&want).position(|(g, w)| g != w);
    Ok(SelfTest {
        name: operands.name(),
        passed: wrong.is_none(),
        detail: match wrong {
            None => "128 numbers exact, each in its lane".into(),
            Some(i) => format!("lane {}, number {}: {} for {}", i / 4, i % 4, got[i], want[i]),
        },
    })
}

/// Numbers at the edges of rounding: ties, the smallest and the largest, infinities.
fn edges() -> Vec<f32> {
    let mut all = vec![0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE];
    for bits in [10, 13, 14, 16] {
        for tie in 0..8u32 {
            all.push(f32::from_bits(0x3F80_0000 | tie << (bits - 1)));
            all.push(-f32::from_bits(0x3F80_0000 | tie << (bits - 1) | 1));
        }
    }
    all.extend([65503.0, 65504.0, 65519.0, 65520.0, 65536.0, 6.1e-5, 6.0e-8, 3.0e-8, 2.9e-8, 1e-9]);
    all
}

/// Ten bits of mantissa, ties away from zero.
fn tf32(v: f32) -> u32 {
    if v.is_finite() { (v.to_bits() + 0x1000) & !0x1FFF } else { v.to_bits() }
}

fn conversions(runtime: &mut dyn Runtime) -> Result<Vec<SelfTest>> {
    let x = edges();
    let n = x.len();
    let mut memory = TrialMemory::new(runtime);
    let arguments =
        ConversionArgs { x: memory.with(&x)?.into(), out: memory.of(3 * n * size_of::<u32>())?.into(), n: n as i32 };
    memory.launch("conversions", 128, n.div_ceil(128) as u32, &arguments)?;
    let got: Vec<u32> = memory.last(3 * n)?;
    let next = |i: usize| x[(i + 1) % n];
    let two = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    let judge = |name, which: usize, want: &dyn Fn(usize) -> u32, mask: u32| {
        let wrong = (0..n).find(|&i| got[3 * i + which] & mask != want(i) & mask);
        SelfTest {
            name,
            passed: wrong.is_none(),
            detail: match wrong {
                None => format!("{n} numbers at the edges of rounding as expected"),
                Some(i) => format!("{:e} became {:#010x}, not {:#010x}", x[i], got[3 * i + which], want(i)),
            },
        }
    };
    Ok(vec![
        // What lies below the mantissa is not read.
        judge("conversion to tf32", 0, &|i| tf32(x[i]), !0x1FFF),
        judge("conversion to f16", 1, &|i| two(f16::from_f32(x[i]).to_bits(), f16::from_f32(next(i)).to_bits()), !0),
        judge("conversion to bf16", 2, &|i| two(bf16::from_f32(x[i]).to_bits(), bf16::from_f32(next(i)).to_bits()), !0),
    ])
}

/// A sum of 4608 products of 1 and 1 + 2⁻¹⁰: its partial sums need more bits than single precision has.
fn long_sum(runtime: &mut dyn Runtime) -> Result<SelfTest> {
    let steps = 576;
    let b = 1.0 + 2f32.powi(-10);
    let mut memory = TrialMemory::new(runtime);
    let arguments = LongSumArgs { out: memory.of(32 * size_of::<f32>())?.into(), a: 1.0 / 3.0, b, steps };
    memory.launch("long_sum", 32, 1, &arguments)?;
    let got: Vec<f32> = memory.last(32)?;
    let exact = f64::from(f32::from_bits(tf32(1.0 / 3.0))) * f64::from(b) * 8.0 * f64::from(steps);
    let error = (f64::from(got[0]) - exact) / exact;
    // Each of the roundings loses half a unit at most, or a whole one where digits are cut off.
    let limit = 8.0 * f64::from(steps) * 2f64.powi(-23);
    let alike = got.iter().all(|v| v.to_bits() == got[0].to_bits());
    Ok(SelfTest {
        name: "a sum of 4608 products",
        passed: alike && error.abs() <= limit,
        detail: format!("relative error {error:.2e}{}", if alike { "" } else { ", not the same in all lanes" }),
    })
}

/// Memory of one trial, given back at its end.
struct TrialMemory<'a> {
    runtime: &'a mut dyn Runtime,
    held: Vec<Address>,
}

impl<'a> TrialMemory<'a> {
    fn new(runtime: &'a mut dyn Runtime) -> Self {
        Self { runtime, held: Vec::new() }
    }

    fn of(&mut self, bytes: usize) -> Result<Address> {
        let at = self.runtime.allocate(bytes).map_err(|refusal| match refusal {
            Refusal::Failed(e) => e,
            Refusal::OutOfMemory => Error::limit("the device has no memory left"),
        })?;
        self.held.push(at);
        Ok(at)
    }

    fn with<T: bytemuck::NoUninit>(&mut self, numbers: &[T]) -> Result<Address> {
        let at = self.of(size_of_val(numbers))?;
        self.runtime.upload(at, bytemuck::cast_slice(numbers))?;
        Ok(at)
    }

    fn launch<A: Arguments>(&mut self, kernel: &'static str, threads: u32, blocks: u32, arguments: &A) -> Result<()> {
        let launch = Launch { grid: [blocks, 1, 1], threads, shared_bytes: 0 };
        self.runtime.launch(&SELFTEST, kernel, launch, arguments.packed())
    }

    /// What lies in the memory that was reserved last.
    fn last<T: bytemuck::Pod>(&mut self, count: usize) -> Result<Vec<T>> {
        let mut out = vec![T::zeroed(); count];
        let at = self.held.last().copied().unwrap_or_default();
        self.runtime.download(at, bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }
}

impl Drop for TrialMemory<'_> {
    fn drop(&mut self) {
        self.held.drain(..).for_each(|at| self.runtime.free(at));
    }
}

#[cfg(test)]
mod tests {
    #[needs::cxx]
    #[test]
    fn the_emulation_does_what_kernels_take_for_granted() {
        for test in super::self_test(None, None).unwrap() {
            assert!(test.passed, "{test:?}");
            println!("{}: {}", test.name, test.detail);
        }
    }
}
