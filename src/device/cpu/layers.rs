//! Steps with weights, and decisions (masks and argmax indices) passed from or to the host.

use super::conv::{self, PassDirection};
use super::isa::Isa;
use super::memory::Shared;
use super::pointwise::{Activate, bounds};
use super::{Cpu, CpuValues, layout, linear};
use crate::device::{Device, Spare};
use crate::program::{ConvLayer, Epilogue, Form, LinearLayer, Range, Value, WinnerWidth};
use crate::tensor::Scalar;

/// Tasks per thread for a linear layer; small enough that all threads finish together.
const ROW_TASKS: usize = 8;
/// Most rows in a task of a linear layer, whatever the number of threads.
const MOST_ROWS: usize = 256;

impl<I: Isa> Cpu<I> {
    pub(super) fn conv(
        &mut self,
        (layer, direction): (&ConvLayer, PassDirection),
        read: Value,
        out: Value,
        e: &Epilogue,
        v: &CpuValues<'_, I>,
        spare: &mut Spare,
    ) {
        let plan = self.conv_plan(layer, direction, v.plan.zeros(read));
        debug_assert!(plan.scratch_len <= self.scratch_share, "the program was not fitted");
        let weights = match self.resident.get(&plan.key) {
            Some(buffer) => Shared(buffer.pointer().cast::<I::T>()),
            None => {
                let out = &mut self.transient.as_mut_slice::<I::T>()[..plan.packed_len];
                plan.pack::<I>(layer, direction, self.pool.as_ref(), out);
                Shared(self.transient.pointer().cast::<I::T>())
            }
        };
        let bias = match (&layer.bias, direction) {
            (Some(bias), PassDirection::Forward) => padded::<I>(bias, spare),
            _ => Vec::new(),
        };
        let finish = |n: usize| conv::Finish {
            bias: if bias.is_empty() { std::ptr::null() } else { bias.as_ptr() },
            add: e.add.map_or(std::ptr::null(), |a| v.at::<I::T>(a, n).cast_const()),
            clamp: e.clamp.map(bounds),
            clamped_infinity: &raw const self.clamped_infinity,
            bits: e.bits.map_or(std::ptr::null_mut(), |(b, _)| v.at(b, n)),
            bits_range: bounds(e.bits.map_or(Range::POSITIVE, |(_, r)| r)),
            gate: e.gate.map_or(std::ptr::null(), |g| v.at::<u8>(g, n).cast_const()),
            times: e.times.map_or(std::ptr::null(), |t| v.at::<I::T>(t, n).cast_const()),
            smooth: e.smooth.map(|(f, _)| f),
            slopes: e.smooth.and_then(|(_, slope)| slope).map_or(std::ptr::null_mut(), |slope| v.at(slope, n)),
        };
        let views = spare.of((0..v.copies).map(|n| conv::CopyView {
            read: v.at::<I::T>(read, n).cast_const(),
            written: v.at(out, n),
            finish: finish(n),
        }));
        let work = conv::ConvWork::<I>::new(&plan, weights, &views, self.threads);
        self.each_listing(work.tasks(), |t, scratch, lists| {
            // SAFETY: values, weights and scratch were laid out for this plan; features were detected.
            unsafe { work.run(t, scratch, lists) };
        });
        if let (Some((f, slope)), false) = (e.smooth, work.activates()) {
            self.vectors(out, v, |n, first, count| {
                let part = |value: Value| {
                    // SAFETY: the vectors lie inside all values.
                    unsafe { v.at::<I::T>(value, n).add(first * I::LANES) }
                };
                let (numbers, slopes) = (part(out), slope.map_or(std::ptr::null_mut(), part));
                // SAFETY: as above; features were detected.
                unsafe { I::run(Activate::<I> { f, numbers, slopes, count: count * I::LANES }) };
            });
        }
        spare.keep(views);
        spare.keep(bias);
    }

    pub(super) fn linear(&self, layer: &LinearLayer, x: Value, out: Value, v: &CpuValues<'_, I>, spare: &mut Spare) {
        let rows = layer.weight.rows();
        let bias = layer.bias.as_ref().map_or(Vec::new(), |b| padded::<I>(b, spare));
        let piece = rows.div_ceil(ROW_TASKS * self.threads).next_multiple_of(linear::BLOCK_ROWS).min(MOST_ROWS);
        // SAFETY: the value holds the layer's columns and was written by an earlier step.
        let live = unsafe { linear::live::<I>(&layer.weight, v.at(x, 0), v.step(x), v.copies, spare) };
        self.each(rows.div_ceil(piece), |t, scratch| {
            let kernel = linear::LinearForward::<I> {
                weight: &layer.weight,
                bias: if bias.is_empty() { std::ptr::null() } else { bias.as_ptr() },
                x: v.at(x, 0),
                x_step: v.step(x),
                out: v.at(out, 0),
                out_step: v.step(out),
                copies: v.copies,
                rows: t * piece..rows.min((t + 1) * piece),
                live: &live,
                scratch,
            };
            // SAFETY: vectors have the layer's lengths; scratch was made for it; features were detected.
            unsafe { I::run(kernel) };
        });
        spare.keep(bias);
        spare.keep(live);
        self.zero_tail(out, v);
    }

    pub(super) fn linear_adjoint(&self, layer: &LinearLayer, s: Value, out: Value, v: &CpuValues<'_, I>) {
        let columns = layer.weight.row_len();
        self.each(columns.div_ceil(linear::COLUMNS), |t, scratch| {
            let kernel = linear::Adjoint::<I> {
                weight: &layer.weight,
                s: v.at(s, 0),
                s_step: v.step(s),
                out: v.at(out, 0),
                out_step: v.step(out),
                copies: v.copies,
                columns: t * linear::COLUMNS..columns.min((t + 1) * linear::COLUMNS),
                scratch,
            };
            // SAFETY: vectors have the layer's lengths; scratch was made for it; features were detected.
            unsafe { I::run(kernel) };
        });
        self.zero_tail(out, v);
    }

    /// Zeros the unused lanes of a vector.
    fn zero_tail(&self, out: Value, v: &CpuValues<'_, I>) {
        let used = v.shape(out).len();
        for n in 0..v.copies {
            // SAFETY: no other task runs.
            let numbers = unsafe { v.slice_mut(out, n) };
            numbers[used..].fill(I::T::ZERO);
        }
    }

    pub(super) fn load_decisions(&self, given: &[u16], out: Value, n: usize, v: &CpuValues<'_, I>) {
        let shape = v.shape(out);
        let bytes = self.bytes_of(v.plan.form(out));
        // SAFETY: no other task runs; the value holds the form's bytes.
        let raw = unsafe { std::slice::from_raw_parts_mut(v.at::<u8>(out, n), bytes) };
        raw.fill(0);
        for (i, &d) in given.iter().enumerate() {
            let at = layout::index(shape, I::LANES, i / shape.plane(), i % shape.plane());
            match v.plan.form(out) {
                Form::Bits(_) => raw[at / 8] |= ((d & 1) as u8) << (at % 8),
                Form::Winners(_, WinnerWidth::One) => raw[at] = d as u8,
                _ => raw[2 * at..2 * at + 2].copy_from_slice(&d.to_ne_bytes()),
            }
        }
    }

    pub(super) fn read_decisions(&self, x: Value, n: usize, v: &CpuValues<'_, I>) -> Vec<u16> {
        let shape = v.shape(x);
        let bytes = self.bytes_of(v.plan.form(x));
        // SAFETY: no other task runs; the value holds the form's bytes.
        let raw = unsafe { std::slice::from_raw_parts(v.at::<u8>(x, n).cast_const(), bytes) };
        let one = |i: usize| {
            let at = layout::index(shape, I::LANES, i / shape.plane(), i % shape.plane());
            match v.plan.form(x) {
                Form::Bits(_) => u16::from(raw[at / 8] >> (at % 8) & 1),
                Form::Winners(_, WinnerWidth::One) => u16::from(raw[at]),
                _ => u16::from_ne_bytes([raw[2 * at], raw[2 * at + 1]]),
            }
        };
        (0..shape.len()).map(one).collect()
    }
}

/// One number per channel, padded with zeros to whole blocks.
fn padded<I: Isa>(values: &[f64], spare: &mut Spare) -> Vec<I::T> {
    let mut out = spare.take(values.len().next_multiple_of(I::LANES));
    out.extend(values.iter().map(|&x| I::T::from_f64(x)));
    out.resize(values.len().next_multiple_of(I::LANES), I::T::ZERO);
    out
}
