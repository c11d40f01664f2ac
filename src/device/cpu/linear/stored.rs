//! Where a layer's weights are, and how vectors of them are loaded.

use super::super::isa::Isa;
use crate::graph::{Encoding, Weight};

/// How vectors are loaded from stored weights.
pub(super) trait Stored<I: Isa>: Copy {
    /// Bytes of a number.
    const BYTES: usize;

    /// `LANES` numbers.
    ///
    /// # Safety
    /// As [`Isa::load`]; the numbers are stored this way.
    unsafe fn load(p: *const u8) -> I::V;
}

/// The device's number type.
#[derive(Clone, Copy)]
pub(super) struct DeviceNumbers;

impl<I: Isa> Stored<I> for DeviceNumbers {
    const BYTES: usize = size_of::<I::T>();

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I::V {
        // SAFETY: the caller's promise.
        unsafe { I::load(p.cast()) }
    }
}

/// IEEE half precision.
#[derive(Clone, Copy)]
pub(super) struct F16;

impl<I: Isa> Stored<I> for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I::V {
        // SAFETY: the caller's promise.
        unsafe { I::load_f16(p.cast()) }
    }
}

/// bfloat16.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl<I: Isa> Stored<I> for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> I::V {
        // SAFETY: the caller's promise.
        unsafe { I::load_bf16(p.cast()) }
    }
}

/// Where a layer's weights are loaded from.
pub(super) enum WeightSource {
    /// From where they are stored, in the device's number type.
    Numbers(*const u8),
    /// From where they are stored, in half precision.
    F16(*const u8),
    /// From where they are stored, as bfloat16.
    Bf16(*const u8),
    /// From scratch, after conversion.
    Scratch,
}

impl WeightSource {
    pub(super) fn of<I: Isa>(weight: &Weight) -> Self {
        if let Some(numbers) = weight.in_place::<I::T>() {
            return WeightSource::Numbers(numbers.as_ptr().cast());
        }
        match weight.halves() {
            Some((Encoding::F16, raw)) if I::LOADS_HALF => WeightSource::F16(raw.as_ptr()),
            Some((Encoding::Bf16, raw)) if I::LOADS_HALF => WeightSource::Bf16(raw.as_ptr()),
            _ => WeightSource::Scratch,
        }
    }
}
