//! The vector instruction sets of the CPU kernels.
//!
//! A kernel is one generic function over [`Isa`]; [`Isa::run`] compiles it with the instruction set's features enabled.
//! There are three instruction sets: AVX-512 (16 lanes of f32), AVX2 with FMA (8 lanes of f32), and a portable one (8
//! lanes of f32 or f64) written in plain Rust.

use super::sets::Kernels;
use crate::tensor::Scalar;
use crate::tensor::functions::Elementary;

/// Work that runs with an instruction set's features enabled.
pub(crate) trait CpuKernel<I: Isa> {
    /// Does the work. Implementations are `#[inline(always)]`, so that they inherit the caller's features.
    ///
    /// # Safety
    /// The machine has the features of `I` (checked when the device was opened); pointers inside are valid as the
    /// implementation requires.
    unsafe fn call(self);
}

/// An instruction set: a vector of [`Isa::LANES`] numbers and its operations.
///
/// # Safety
/// All functions need the instruction set's features; pointers are valid for `LANES` elements, of any alignment.
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    /// Element type.
    type T: Elementary;
    /// Vector.
    type V: Copy;
    /// Elements of a vector: 8 or 16, also the width of a channel block.
    const LANES: usize;
    /// Name in reports.
    const NAME: &'static str;
    /// Whether [`Isa::load_f16`] and [`Isa::load_bf16`] are instructions.
    const LOADS_HALF: bool;
    /// Number of vector registers.
    const REGISTERS: usize;
    /// Width of the widest register tile, in pixels.
    const PIXELS: usize;
    /// Whether large 3×3 convolutions may be computed by Winograd's transforms.
    const WINOGRAD: bool;
    /// Most channel blocks the zero-skipping kernel can accumulate in registers (two pixels at a time), at most 8. 0 disables
    /// it.
    const SKIP_BLOCKS: usize;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: Self::T) -> Self::V;
    unsafe fn load(p: *const Self::T) -> Self::V;
    unsafe fn store(p: *mut Self::T, v: Self::V);
    /// Loads half-precision numbers, converted exactly; `p` is valid for `LANES` of them, at any alignment.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Loads bfloat16 numbers, converted exactly; `p` is valid for `LANES` of them, at any alignment.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Prefetches the cache line of `p` into the first-level cache, if there is an instruction for it. Any address is
    /// allowed.
    unsafe fn prefetch_near(p: *const u8);
    /// As [`Isa::prefetch_near`], into the second-level cache.
    unsafe fn prefetch_far(p: *const u8);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`; rounded once if the instruction set has FMA.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `min(max(v, lo), hi)`; NaN stays NaN.
    unsafe fn clamp(v: Self::V, lo: Self::V, hi: Self::V) -> Self::V;
    /// Bit `i` is set if `v[i]` is not 0. A NaN is not 0.
    unsafe fn nonzero(v: Self::V) -> u32;
    /// Bit `i` is set if `lo < v[i] < hi`.
    unsafe fn between(v: Self::V, lo: Self::V, hi: Self::V) -> u32;
    /// `v[i]` if bit `i` is set, else 0.
    unsafe fn keep(v: Self::V, bits: u32) -> Self::V;
    /// Lane `i < 4` is the sum of the lanes of `v[i]`, in one fixed order; other lanes are 0.
    unsafe fn sum_lanes(v: [Self::V; 4]) -> Self::V;
    /// Bit `i` is set if `bytes[i]` is `byte`.
    unsafe fn equal_bytes(bytes: *const u8, byte: u8) -> u32;
    /// Runs `k` with the features of this instruction set.
    ///
    /// # Safety
    /// As [`CpuKernel::call`].
    unsafe fn run<K: CpuKernel<Self>>(k: K);

    /// Reads the `LANES` bits at bit-vector index `i` (in units of vectors).
    #[inline(always)]
    unsafe fn load_bits(p: *const u8, i: usize) -> u32 {
        // SAFETY: the caller's bit vector holds vector `i`.
        unsafe {
            if Self::LANES == 16 { u32::from(p.cast::<u16>().add(i).read_unaligned()) } else { u32::from(*p.add(i)) }
        }
    }

    /// Writes the `LANES` bits at bit-vector index `i`.
    #[inline(always)]
    unsafe fn store_bits(p: *mut u8, i: usize, bits: u32) {
        // SAFETY: the caller's bit vector holds vector `i`.
        unsafe {
            if Self::LANES == 16 {
                p.cast::<u16>().add(i).write_unaligned(bits as u16);
            } else {
                *p.add(i) = bits as u8;
            }
        }
    }
}

/// Plain Rust, 8 lanes. Multiplications and additions are rounded separately on every machine, so its results are the
/// same everywhere; the compiler may use wider vectors if the machine has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable<T>(std::marker::PhantomData<T>);

/// At most one cache line; keeps the lanes together for the vectoriser.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Lanes<T>([T; 8]);

impl<T: Elementary> Isa for Portable<T> {
    type T = T;
    type V = Lanes<T>;
    const LANES: usize = 8;
    const NAME: &'static str = Kernels::Portable.set().name;
    const LOADS_HALF: bool = false;
    const REGISTERS: usize = 16;
    const PIXELS: usize = 4;
    const WINOGRAD: bool = false;
    const SKIP_BLOCKS: usize = 0;

    #[inline(always)]
    unsafe fn zero() -> Lanes<T> {
        Lanes([T::ZERO; 8])
    }
    #[inline(always)]
    unsafe fn splat(x: T) -> Lanes<T> {
        Lanes([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Lanes<T> {
        // SAFETY: the caller's pointer holds 8 elements.
        Lanes(unsafe { p.cast::<[T; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(p: *mut T, v: Lanes<T>) {
        // SAFETY: the caller's pointer holds 8 elements.
        unsafe { p.cast::<[T; 8]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Lanes<T> {
        // SAFETY: the caller's pointer holds 8 numbers.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        Lanes(bits.map(|bits| T::from_f64(half::f16::from_bits(bits).to_f64())))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Lanes<T> {
        // SAFETY: the caller's pointer holds 8 numbers.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        Lanes(bits.map(|bits| T::from_f64(half::bf16::from_bits(bits).to_f64())))
    }
    #[inline(always)]
    unsafe fn prefetch_near(_: *const u8) {}
    #[inline(always)]
    unsafe fn prefetch_far(_: *const u8) {}
    #[inline(always)]
    unsafe fn add(mut a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
        for i in 0..8 {
            a.0[i] += b.0[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn sub(mut a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
        for i in 0..8 {
            a.0[i] = a.0[i] - b.0[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn mul(mut a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
        for i in 0..8 {
            a.0[i] = a.0[i] * b.0[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn fma(a: Lanes<T>, b: Lanes<T>, mut c: Lanes<T>) -> Lanes<T> {
        for i in 0..8 {
            c.0[i] = a.0[i] * b.0[i] + c.0[i];
        }
        c
    }
    #[inline(always)]
    unsafe fn clamp(mut v: Lanes<T>, lo: Lanes<T>, hi: Lanes<T>) -> Lanes<T> {
        for i in 0..8 {
            let x = v.0[i];
            let x = if x < lo.0[i] { lo.0[i] } else { x };
            v.0[i] = if x > hi.0[i] { hi.0[i] } else { x };
        }
        v
    }
    #[inline(always)]
    unsafe fn nonzero(v: Lanes<T>) -> u32 {
        v.0.iter().enumerate().fold(0, |bits, (i, &x)| bits | u32::from(x != T::ZERO) << i)
    }
    #[inline(always)]
    unsafe fn between(v: Lanes<T>, lo: Lanes<T>, hi: Lanes<T>) -> u32 {
        let mut bits = 0;
        for i in 0..8 {
            bits |= u32::from(v.0[i] > lo.0[i] && v.0[i] < hi.0[i]) << i;
        }
        bits
    }
    #[inline(always)]
    unsafe fn keep(mut v: Lanes<T>, bits: u32) -> Lanes<T> {
        for i in 0..8 {
            v.0[i] = if bits >> i & 1 == 1 { v.0[i] } else { T::ZERO };
        }
        v
    }
    #[inline(always)]
    unsafe fn sum_lanes(v: [Lanes<T>; 4]) -> Lanes<T> {
        let mut sums = Lanes([T::ZERO; 8]);
        for (sum, v) in sums.0.iter_mut().zip(&v) {
            for &x in &v.0 {
                *sum += x;
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn equal_bytes(bytes: *const u8, byte: u8) -> u32 {
        // SAFETY: the caller's pointer holds 8 bytes.
        let bytes = unsafe { bytes.cast::<[u8; 8]>().read() };
        bytes.iter().enumerate().fold(0, |bits, (i, &b)| bits | u32::from(b == byte) << i)
    }
    #[inline(always)]
    unsafe fn run<K: CpuKernel<Self>>(k: K) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma,f16c")]
            unsafe fn widest<I: Isa, K: CpuKernel<I>>(k: K) {
                // SAFETY: the caller's promise.
                unsafe { k.call() }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn wide<I: Isa, K: CpuKernel<I>>(k: K) {
                // SAFETY: the caller's promise.
                unsafe { k.call() }
            }
            if Kernels::Avx512.run_here() {
                // SAFETY: the features were detected; the kernel's pointers are the caller's promise.
                return unsafe { widest(k) };
            }
            if Kernels::Avx2.run_here() {
                // SAFETY: the features were detected; the kernel's pointers are the caller's promise.
                return unsafe { wide(k) };
            }
        }
        // SAFETY: no features are needed; the kernel's pointers are the caller's promise.
        unsafe { k.call() }
    }
}

/// Whether every lane holds a finite number.
///
/// # Safety
/// The caller has the instruction set's features.
#[inline(always)]
pub(super) unsafe fn all_finite<I: Isa>(v: I::V) -> bool {
    // SAFETY: the caller's promise.
    let finite =
        unsafe { I::between(v, I::splat(I::T::from_f64(f64::NEG_INFINITY)), I::splat(I::T::from_f64(f64::INFINITY))) };
    finite == 2u32.pow(I::LANES as u32) - 1
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CpuKernel, Isa, Kernels};

    /// AVX-512 F, BW, DQ, VL: 16 lanes of f32.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512;

    // SAFETY (whole block): every function is called only with the features enabled, through `run`; pointers as the
    // trait requires.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Isa for Avx512 {
        type T = f32;
        type V = __m512;
        const LANES: usize = 16;
        const NAME: &'static str = Kernels::Avx512.set().name;
        const LOADS_HALF: bool = true;
        const REGISTERS: usize = 32;
        const PIXELS: usize = 14;
        const WINOGRAD: bool = true;
        const SKIP_BLOCKS: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m512 {
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn prefetch_near(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m512, lo: __m512, hi: __m512) -> __m512 {
            // The instruction returns its second operand when either is NaN.
            unsafe { _mm512_min_ps(hi, _mm512_max_ps(lo, v)) }
        }
        #[inline(always)]
        unsafe fn nonzero(v: __m512) -> u32 {
            unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps())) }
        }
        #[inline(always)]
        unsafe fn between(v: __m512, lo: __m512, hi: __m512) -> u32 {
            unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(v, lo);
                u32::from(_mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, v, hi))
            }
        }
        #[inline(always)]
        unsafe fn keep(v: __m512, bits: u32) -> __m512 {
            unsafe { _mm512_maskz_mov_ps(bits as u16, v) }
        }
        #[inline(always)]
        unsafe fn sum_lanes([a, b, c, d]: [__m512; 4]) -> __m512 {
            unsafe {
                let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
                let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
                let quarters = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
                let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps::<1>(quarters));
                let whole = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm512_zextps128_ps512(whole)
            }
        }
        #[inline(always)]
        unsafe fn equal_bytes(bytes: *const u8, byte: u8) -> u32 {
            unsafe { u32::from(_mm_cmpeq_epi8_mask(_mm_loadu_si128(bytes.cast()), _mm_set1_epi8(byte as i8))) }
        }
        #[inline(always)]
        unsafe fn run<K: CpuKernel<Self>>(k: K) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")]
            unsafe fn inner<K: CpuKernel<Avx512>>(k: K) {
                unsafe { k.call() }
            }
            unsafe { inner(k) }
        }
    }

    /// AVX2 and FMA: 8 lanes of f32.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY (whole block): every function is called only with the features enabled, through `run`; pointers as the
    // trait requires.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Isa for Avx2 {
        type T = f32;
        type V = __m256;
        const LANES: usize = 8;
        const NAME: &'static str = Kernels::Avx2.set().name;
        const LOADS_HALF: bool = true;
        const REGISTERS: usize = 16;
        const PIXELS: usize = 6;
        const WINOGRAD: bool = true;
        const SKIP_BLOCKS: usize = 6;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m256 {
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn prefetch_near(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m256, lo: __m256, hi: __m256) -> __m256 {
            // The instruction returns its second operand when either is NaN.
            unsafe { _mm256_min_ps(hi, _mm256_max_ps(lo, v)) }
        }
        #[inline(always)]
        unsafe fn nonzero(v: __m256) -> u32 {
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(v, _mm256_setzero_ps())) as u32 }
        }
        #[inline(always)]
        unsafe fn between(v: __m256, lo: __m256, hi: __m256) -> u32 {
            unsafe {
                let inside = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(v, lo), _mm256_cmp_ps::<_CMP_LT_OQ>(v, hi));
                _mm256_movemask_ps(inside) as u32
            }
        }
        #[inline(always)]
        unsafe fn keep(v: __m256, bits: u32) -> __m256 {
            unsafe {
                let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), lane), lane);
                _mm256_and_ps(v, _mm256_castsi256_ps(set))
            }
        }
        #[inline(always)]
        unsafe fn sum_lanes([a, b, c, d]: [__m256; 4]) -> __m256 {
            unsafe {
                let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
                let (low, high) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
                let halves = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
                let whole = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm256_zextps128_ps256(whole)
            }
        }
        #[inline(always)]
        unsafe fn equal_bytes(bytes: *const u8, byte: u8) -> u32 {
            unsafe {
                let equal = _mm_cmpeq_epi8(_mm_loadl_epi64(bytes.cast()), _mm_set1_epi8(byte as i8));
                _mm_movemask_epi8(equal) as u32 & 0xff
            }
        }
        #[inline(always)]
        unsafe fn run<K: CpuKernel<Self>>(k: K) {
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn inner<K: CpuKernel<Avx2>>(k: K) {
                unsafe { k.call() }
            }
            unsafe { inner(k) }
        }
    }
}
