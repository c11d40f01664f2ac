//! Runtime, shim and compiler, on small kernels; planted mistakes must be found.

use tempfile::TempDir;

use super::super::arguments::{Argument, Arguments, CountArgs, In, Out};
use super::super::source::{COUNT, Kernel};
use super::*;
use crate::error::ErrorKind;

/// What all kernels here take.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct TrialArgs {
    input: In<f32>,
    out: Out<f32>,
    n: i32,
    other: i32,
}

impl Arguments for TrialArgs {
    const NAME: &'static str = "TrialArgs";

    fn definition() -> String {
        let fields = [In::<f32>::declare("in"), Out::<f32>::declare("out"), i32::declare("n"), i32::declare("other")];
        format!("struct TrialArgs {{ {}; }};\n", fields.join("; "))
    }
}

/// Kernels that are right.
const SOUND: &str = r#"
DEVICE u32* words(float* p) { return reinterpret_cast<u32*>(p); }
DEVICE const u32* words(const float* p) { return reinterpret_cast<const u32*>(p); }

// Sum of a block's numbers. Without its barriers when planted.
template <bool BARRIERS> DEVICE void tree(const TrialArgs& a) {
    SHARED(memory);
    float* const sums = reinterpret_cast<float*>(memory);
    const u32 i = threadIdx.x;
    sums[i] = a.in[blockIdx.x * blockDim.x + i];
    for (u32 step = blockDim.x / 2; step > 0; step /= 2) {
        if (BARRIERS) sync();
        if (i < step) sums[i] += sums[i + step];
    }
    if (i == 0) a.out[blockIdx.x] = sums[0];
}
KERNEL(tree_sum, 256, 1, TrialArgs) { tree<true>(a); }
KERNEL(tree_without_barriers, 256, 1, TrialArgs) { tree<false>(a); }

// Sums over a warp in three types, and who is odd: four words for each thread.
KERNEL(warp_sums, 64, 1, TrialArgs) {
    const u32 i = threadIdx.x;
    float single = a.in[i];
    double twice = a.in[i] * 0x1p40;
    u32 whole = u32(a.in[i]);
    const u32 odd = ballot(whole % 2 == 1);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        single += shuffle_xor(single, step);
        twice += shuffle_xor(twice, step);
        whole += shuffle_xor(whole, step);
    }
    a.out[4 * i] = single;
    a.out[4 * i + 1] = float(twice * 0x1p-40);
    words(a.out)[4 * i + 2] = whole;
    words(a.out)[4 * i + 3] = odd;
}

// Sums of n numbers by 64 threads, 256 in a stage, two stages; PENDING groups may be on their way when one is read,
// and a BARRIER comes before one is written again.
template <int PENDING, bool BARRIER> DEVICE void stages(const TrialArgs& a) {
    SHARED(memory);
    float* const stage = reinterpret_cast<float*>(memory);
    const int i = threadIdx.x, all = (a.n + 255) / 256;
    auto fetch = [&](int s) {
        float* const to = stage + s % 2 * 256 + 4 * i;
        const int from = s * 256 + 4 * i;
        if (from + 4 <= a.n) {
            copy16(to, a.in + from, true);
        } else {
            for (int k = 0; k < 4; k++) copy4(to + k, a.in + (from + k < a.n ? from + k : 0), from + k < a.n);
        }
    };
    float sum = 0;
    fetch(0);
    copies_commit();
    for (int s = 0; s < all; s++) {
        if (s + 1 < all) fetch(s + 1);
        copies_commit();
        copies_wait<PENDING>();
        sync();
        for (int k = 0; k < 4; k++) sum += stage[s % 2 * 256 + k * 64 + (i + 17) % 64];
        if (BARRIER) sync();
    }
    a.out[i] = sum;
}
KERNEL(staged_sum, 64, 1, TrialArgs) { stages<1, true>(a); }
KERNEL(staged_sum_early, 64, 1, TrialArgs) { stages<2, true>(a); }
KERNEL(staged_sum_over, 64, 1, TrialArgs) { stages<1, false>(a); }

// out(16, 8) = other + in(16, k) in(k, 8), of 16 k numbers and then 8 k.
template <typename Pack, typename Multiply>
DEVICE void fragments(const TrialArgs& a, int k, int each, Pack pack, Multiply multiply) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const float* const left = a.in;
    const float* const right = a.in + 16 * k;
    u32 x[4], y[2];
    for (int i = 0; i < 4; i++) {
        const float* const p = left + (g + i % 2 * 8) * k + each * t + i / 2 * (k / 2);
        x[i] = pack(p[0], p[each - 1]);
    }
    for (int i = 0; i < 2; i++) {
        const float* const p = right + (each * t + i * (k / 2)) * 8 + g;
        y[i] = pack(p[0], p[(each - 1) * 8]);
    }
    float d[4] = {float(a.other), float(a.other), float(a.other), float(a.other)};
    multiply(d, x, y);
    for (int i = 0; i < 4; i++) a.out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
KERNEL(product_tf32, 32, 1, TrialArgs) {
    fragments(a, 8, 1, [](float v, float) { return to_tf32(v); },
              [](float (&d)[4], const u32 (&x)[4], const u32 (&y)[2]) { mma_tf32(d, x, y); });
}
KERNEL(product_f16, 32, 1, TrialArgs) {
    fragments(a, 16, 2, [](float v, float w) { return pack_f16(v, w); },
              [](float (&d)[4], const u32 (&x)[4], const u32 (&y)[2]) { mma_f16(d, x, y); });
}
KERNEL(product_bf16, 32, 1, TrialArgs) {
    fragments(a, 16, 2, [](float v, float w) { return pack_bf16(v, w); },
              [](float (&d)[4], const u32 (&x)[4], const u32 (&y)[2]) { mma_bf16(d, x, y); });
}

// Each number as tf32, and with its negative as halves.
KERNEL(round, 128, 1, TrialArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.n) return;
    words(a.out)[3 * i] = to_tf32(a.in[i]);
    words(a.out)[3 * i + 1] = pack_f16(a.in[i], -a.in[i]);
    words(a.out)[3 * i + 2] = pack_bf16(a.in[i], -a.in[i]);
}

// How many threads of the block came before.
KERNEL(arrivals, 64, 1, TrialArgs) {
    SHARED(memory);
    u32* const count = reinterpret_cast<u32*>(memory);
    *count = 0;
    sync();
    words(a.out)[blockIdx.x * 64 + threadIdx.x] = add_to_shared(count, 1);
}

// Word 0: a bit for each block. Then each block's count of threads, and the high word of a product.
KERNEL(together, 96, 1, TrialArgs) {
    SHARED(memory);
    u32* const count = reinterpret_cast<u32*>(memory);
    const u32 block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    if (threadIdx.x == 0) *count = 0;
    sync();
    const u32 before = add_to_shared(count, 1);
    if (before == 95) or_into(words(a.out), 1u << block);
    sync();
    if (threadIdx.x == 95) words(a.out)[1 + 2 * block] = *count;
    if (threadIdx.x == 0) words(a.out)[2 + 2 * block] = high_product(0x80000000u + block, 6);
}
"#;

/// Kernels with a mistake each.
const PLANTED: &str = r#"
KERNEL(divergent, 64, 1, TrialArgs) {
    if (threadIdx.x % 32 < 16) a.out[threadIdx.x] = shuffle_xor(1.0f, 1);
    else a.out[threadIdx.x] = shuffle_xor(2.0f, 1);
}
KERNEL(absent_lane, 64, 1, TrialArgs) {
    if (threadIdx.x == 37) return;
    a.out[threadIdx.x] = float(ballot(true));
}
KERNEL(absent_thread, 64, 1, TrialArgs) {
    if (threadIdx.x == 37) return;
    sync();
}
KERNEL(crossed, 64, 1, TrialArgs) {
    if (threadIdx.x < 32 || threadIdx.x == 63) sync();
    else ballot(true);
}
KERNEL(two_barriers, 64, 1, TrialArgs) {
    if (threadIdx.x < 32) sync();
    else
        sync();
}
KERNEL(small_warp, 64, 1, TrialArgs) { ballot(true); }
KERNEL(wide_mask, 64, 1, TrialArgs) { shuffle_xor(1u, 32); }
KERNEL(misaligned_to, 64, 1, TrialArgs) {
    SHARED(memory);
    copy16(memory + 4 * threadIdx.x, a.in, true);
}
KERNEL(misaligned_from, 64, 1, TrialArgs) {
    SHARED(memory);
    copy16(memory + 16 * threadIdx.x, a.in + 1, true);
}
KERNEL(copy_past_shared, 64, 1, TrialArgs) {
    SHARED(memory);
    copy4(memory + 4 * threadIdx.x + 4, a.in, true);
}
KERNEL(copy_elsewhere, 64, 1, TrialArgs) { copy4(a.out + threadIdx.x, a.in, true); }
KERNEL(past_end, 64, 1, TrialArgs) { a.out[a.n] = 1; }
KERNEL(before_start, 64, 1, TrialArgs) { a.out[-1] = 1; }
KERNEL(past_shared, 64, 1, TrialArgs) {
    SHARED(memory);
    reinterpret_cast<float*>(memory)[threadIdx.x + 1] = 1;
}
KERNEL(before_shared, 64, 1, TrialArgs) {
    SHARED(memory);
    reinterpret_cast<float*>(memory)[int(threadIdx.x) - 1] = 1;
}
KERNEL(nowhere, 64, 1, TrialArgs) { *reinterpret_cast<volatile int*>(size_t(8 * a.other)) = 1; }
KERNEL(by_zero, 64, 1, TrialArgs) { a.out[0] = float(a.n / a.other); }
KERNEL(endless_alone, 64, 1, TrialArgs) {
    volatile const float* const in = a.in;
    while (in[0] == 1.0f) {}
}
KERNEL(endless_last, 64, 1, TrialArgs) {
    volatile const float* const in = a.in;
    while (threadIdx.x == 63 && blockIdx.x == 2 && in[0] == 1.0f) {}
}
KERNEL(endless_together, 64, 1, TrialArgs) {
    for (;;) sync();
}
KERNEL(endless_copies, 64, 1, TrialArgs) {
    SHARED(memory);
    for (;;) {
        copy16(memory + 16 * threadIdx.x, a.in, true);
        copies_commit();
        if (ballot(true) == 0) return;
        copies_wait<0>();
    }
}
KERNEL(piled_copies, 64, 1, TrialArgs) {
    SHARED(memory);
    for (;;) copy4(memory + 4 * threadIdx.x, a.in, true);
}
KERNEL(unwritten, 64, 1, TrialArgs) {
    SHARED(memory);
    a.out[threadIdx.x] = reinterpret_cast<float*>(memory)[threadIdx.x];
}
"#;

const TRIAL: TranslationUnit =
    TranslationUnit { name: "trial", file: "trial.cu", defines: &[("TRIAL", "1")], kernels: &[] };
const BROKEN: TranslationUnit = TranslationUnit {
    name: "broken",
    file: "broken.cu",
    defines: &[],
    kernels: &[Kernel { name: "broken", threads: 32, shared_bytes: 0 }],
};
const SEEDS: u64 = 8;

/// A device whose kernels are those above.
struct TrialDevice {
    device: Emulated,
    launch: Launch,
    _folder: TempDir,
}

impl TrialDevice {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "#include \"mma.cuh\"\n#if TRIAL != 1\n#error a macro is missing\n#endif\n{}{SOUND}{PLANTED}",
            TrialArgs::definition()
        );
        std::fs::write(folder.path().join("trial.cu"), text).unwrap();
        std::fs::write(folder.path().join("broken.cu"), "#include \"dialect.cuh\"\nint x = no_such_name;\n").unwrap();
        std::fs::write(folder.path().join("count.cu"), Sources::default().text("count.cu").unwrap().as_bytes())
            .unwrap();
        let sources = Sources::of_folder(folder.path()).unwrap();
        let device = Emulated::new(sources, 2, seed).unwrap();
        let launch = Launch { grid: [1, 1, 1], threads: 64, shared_bytes: 0 };
        Self { device, launch, _folder: folder }
    }

    fn grid(mut self, grid: [u32; 3]) -> Self {
        self.launch.grid = grid;
        self
    }

    fn threads(mut self, threads: u32) -> Self {
        self.launch.threads = threads;
        self
    }

    fn shared(mut self, bytes: u32) -> Self {
        self.launch.shared_bytes = bytes;
        self
    }

    /// Runs a kernel on `input`; what it made of `out`, which starts as zeros.
    fn run(&mut self, kernel: &'static str, input: &[f32], out: usize, other: i32) -> Result<Vec<f32>> {
        let from = self.device.allocate(size_of_val(input)).unwrap();
        let to = self.device.allocate(4 * out).unwrap();
        self.device.upload(from, bytemuck::cast_slice(input)).unwrap();
        self.device.upload(to, &vec![0; 4 * out]).unwrap();
        let n = if input.is_empty() { out } else { input.len() };
        let args = TrialArgs { input: from.into(), out: to.into(), n: n as i32, other };
        let done = self.device.launch(&TRIAL, kernel, self.launch, args.packed());
        let mut numbers = vec![0f32; out];
        self.device.download(to, bytemuck::cast_slice_mut(&mut numbers)).unwrap();
        self.device.free(from);
        self.device.free(to);
        done.map(|()| numbers)
    }
}

/// Small whole numbers, all different in a row of some.
fn integers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + i / 11 * 5) % 101) as f32 - 50.0).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn count_counts() {
    for seed in 0..3 {
        let mut device = Emulated::new(Sources::default(), 2, seed).unwrap();
        let n = 1000;
        let at = device.allocate(4 * n).unwrap();
        assert_eq!(at.0 % 256, 0);
        let args = CountArgs { out: at.into(), n: n as i32, factor: 0.5 };
        let launch = Launch { grid: [8, 1, 1], threads: 128, shared_bytes: 0 };
        device.mark().unwrap();
        device.launch(&COUNT, "count", launch, args.packed()).unwrap();
        device.mark().unwrap();
        device.wait().unwrap();
        let mut out = vec![0f32; n];
        device.download(at, bytemuck::cast_slice_mut(&mut out)).unwrap();
        assert!(out.iter().enumerate().all(|(i, &v)| v == i as f32 * 0.5));
        assert_eq!(device.elapsed().unwrap().len(), 1);
        assert!(device.elapsed().unwrap().is_empty());
    }
}

#[test]
fn barriers_order_a_tree_of_sums() {
    let input = integers(256 * 5);
    let expected: Vec<f32> = input.chunks(256).map(|c| c.iter().sum()).collect();
    for seed in 0..SEEDS {
        let mut trial = TrialDevice::new(seed).grid([5, 1, 1]).threads(256).shared(1024);
        assert_eq!(trial.run("tree_sum", &input, 5, 0).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn a_missing_barrier_shows() {
    let input = integers(256 * 5);
    let expected: Vec<f32> = input.chunks(256).map(|c| c.iter().sum()).collect();
    let found = (0..SEEDS).filter(|&seed| {
        let mut trial = TrialDevice::new(seed).grid([5, 1, 1]).threads(256).shared(1024);
        trial.run("tree_without_barriers", &input, 5, 0).unwrap() != expected
    });
    assert_eq!(found.count(), SEEDS as usize);
}

#[test]
fn a_seed_fixes_the_order() {
    let run = |seed| bits(&TrialDevice::new(seed).grid([5, 1, 1]).shared(4).run("arrivals", &[], 320, 0).unwrap());
    assert!(run(0).chunks(64).all(|block| *block == run(0)[..64]), "the natural order is the same in all blocks");
    for seed in 1..SEEDS {
        let order = run(seed);
        assert_eq!(order, run(seed));
        assert!(order != run(0) && order[..64] != order[64..128]);
        assert!(order.chunks(64).all(|block| (0..64).all(|i| block.contains(&i))));
    }
}

#[test]
fn warps_exchange_and_vote() {
    let input: Vec<f32> = (0..64).map(|i| ((i * i + 3) % 29) as f32).collect();
    for seed in 0..SEEDS {
        let out = TrialDevice::new(seed).run("warp_sums", &input, 256, 0).unwrap();
        for (i, numbers) in out.chunks(4).enumerate() {
            let warp = &input[i / 32 * 32..][..32];
            let sum: f32 = warp.iter().sum();
            let odd: u32 = warp.iter().enumerate().map(|(lane, &v)| (v as u32 % 2) << lane).sum();
            assert_eq!(numbers[..2], [sum, sum]);
            assert_eq!(bits(&numbers[2..]), [sum as u32, odd]);
        }
    }
}

fn staged(input: &[f32]) -> Vec<f32> {
    let at = |i: usize| input.get(i).copied().unwrap_or(0.0);
    let stages = input.len().div_ceil(256);
    let thread = |i: usize| (0..stages).flat_map(move |s| (0..4).map(move |k| s * 256 + k * 64 + (i + 17) % 64));
    (0..64).map(|i| thread(i).map(at).sum()).collect()
}

#[test]
fn copies_land_when_they_are_waited_for() {
    for n in [1, 255, 256, 1021] {
        let input = integers(n);
        for seed in 0..SEEDS {
            let out = TrialDevice::new(seed).shared(2048).run("staged_sum", &input, 64, 0).unwrap();
            assert_eq!(out, staged(&input), "{n} numbers, seed {seed}");
        }
    }
}

#[test]
fn a_wait_for_too_few_groups_shows() {
    let input = integers(1021);
    let out = TrialDevice::new(0).shared(2048).run("staged_sum_early", &input, 64, 0).unwrap();
    assert!(out.iter().all(|v| v.is_nan()), "the first stage is read before it landed");
    let found = (0..SEEDS).filter(|&seed| {
        TrialDevice::new(seed).shared(2048).run("staged_sum_early", &input, 64, 0).unwrap() != staged(&input)
    });
    assert!(found.count() > 4);
}

#[test]
fn a_copy_onto_what_is_still_read_shows() {
    let input = integers(1021);
    let found = (0..2 * SEEDS).filter(|&seed| {
        TrialDevice::new(seed).shared(2048).run("staged_sum_over", &input, 64, 0).unwrap() != staged(&input)
    });
    assert!(found.count() > 2, "in blocks whose copies land at once");
}

#[test]
fn products_of_integers_are_exact() {
    for (kernel, k) in [("product_tf32", 8), ("product_f16", 16), ("product_bf16", 16)] {
        let input = integers(24 * k);
        let (a, b) = input.split_at(16 * k);
        for seed in [0, 1] {
            let out = TrialDevice::new(seed).threads(32).run(kernel, &input, 128, 7).unwrap();
            for (i, &v) in out.iter().enumerate() {
                let (row, column) = (i / 8, i % 8);
                let sum: f64 = (0..k).map(|j| f64::from(a[row * k + j]) * f64::from(b[j * 8 + column])).sum();
                assert_eq!(f64::from(v), sum + 7.0, "{kernel}, row {row}, column {column}");
            }
        }
    }
}

#[test]
fn products_take_all_that_their_types_hold() {
    // Per type: the least subnormal number, the largest, and what becomes infinite.
    let cases = [
        ("product_tf32", 8, 2f32.powi(-136), f32::from_bits(0x7f7f_e000)),
        ("product_f16", 16, 2f32.powi(-24), 65504.0),
        ("product_bf16", 16, 2f32.powi(-133), f32::from_bits(0x7f7f_0000)),
    ];
    for (kernel, k, least, most) in cases {
        let mut input = vec![0.0; 24 * k];
        for (row, v) in [least, -least, most, -most, f32::INFINITY, f32::NAN].into_iter().enumerate() {
            input[row * k + row] = v;
            input[16 * k + row * 8 + row] = 1.0;
        }
        let out = TrialDevice::new(0).threads(32).run(kernel, &input, 128, 0).unwrap();
        let diagonal: Vec<f32> = (0..5).map(|i| out[i * 9]).collect();
        assert_eq!(diagonal, [least, -least, most, -most, f32::INFINITY], "{kernel}");
        assert!(out[5 * 9].is_nan(), "{kernel}");
    }
}

#[test]
fn numbers_are_rounded_to_the_operands_types() {
    let f = f32::from_bits;
    let one = 1f32.to_bits();
    // Ties, and one more and less; up to the next power of two; the ends of each type's range.
    let mut input =
        vec![0.0, 1.0, 1.5, 3.25, f(1), f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN, f(0x7f80_0001)];
    for tie in [0x1000, 0x3000, 0x8000, 0x1_8000, 0x7f_f000, 0x7f_8000] {
        input.extend([f(one + tie - 1), f(one + tie), f(one + tie + 1)]);
    }
    input.extend([
        65504.0,
        65519.996,
        65520.0,
        65536.0,
        f(0x7f7f_7fff),
        f(0x7f7f_8000),
        f(0x7f7f_efff),
        f(0x7f7f_f000),
    ]);
    for multiple in [0.5, 0.500_001, 1.0, 1.5, 2.5, 1022.5, 1023.5, 1024.5] {
        input.push(multiple * 2f32.powi(-24));
    }
    input.extend((0..3000u32).map(|i| f(i.wrapping_mul(0x9e37_79b9) & 0x7fff_ffff)));
    input.extend(input.clone().iter().map(|v| -v));
    let n = input.len();
    let out =
        TrialDevice::new(0).grid([n.div_ceil(128) as u32, 1, 1]).threads(128).run("round", &input, 3 * n, 0).unwrap();
    for (&v, words) in input.iter().zip(bits(&out).chunks(3)) {
        let two = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let (tf32, f16, bf16) = if v.is_nan() {
            (0x7fff_ffff, two(0x7fff, 0x7fff), two(0x7fff, 0x7fff))
        } else {
            let half = |v| half::f16::from_f32(v).to_bits();
            let brief = |v| half::bf16::from_f32(v).to_bits();
            (nearest_tf32(v).to_bits(), two(half(v), half(-v)), two(brief(v), brief(-v)))
        };
        assert_eq!(words, [tf32, f16, bf16], "{v:e}, bits {:#x}", v.to_bits());
    }
}

/// By division into multiples of the last bit's worth, ties away from zero.
fn nearest_tf32(v: f32) -> f32 {
    if v == 0.0 || v.is_infinite() {
        return v;
    }
    let v = f64::from(v);
    let exponent = (v.abs().log2().floor() as i32).max(-126);
    let unit = 2f64.powi(exponent - 10);
    ((v / unit).round() * unit) as f32
}

#[test]
fn blocks_work_together() {
    for seed in 0..SEEDS {
        let out = TrialDevice::new(seed).grid([3, 2, 4]).threads(96).shared(4).run("together", &[], 49, 0).unwrap();
        let words = bits(&out);
        assert_eq!(words[0], (1 << 24) - 1);
        assert!(words[1..].chunks(2).all(|w| w == [96, 3]));
    }
}

#[test]
fn mistakes_are_told() {
    let mut cases = vec![
        ("divergent", 64, 0, "shuffle_xor (trial.cu:"),
        ("absent_lane", 64, 0, "waits for thread 37, which has ended"),
        ("absent_thread", 64, 0, "waits for thread 37, which has ended"),
        ("crossed", 64, 0, "waits for thread 63, which is in sync (trial.cu:"),
        ("two_barriers", 64, 0, "while others are in another"),
        ("small_warp", 40, 0, "ballot in a warp of 8 threads"),
        ("wide_mask", 64, 0, "shuffle_xor with mask 32"),
        ("misaligned_to", 64, 512, "of shared memory, which is not aligned"),
        ("misaligned_from", 64, 1024, "copy16 from"),
        ("copy_past_shared", 64, 256, "copy4 to byte 256 of 256 bytes of shared memory"),
        ("copy_elsewhere", 64, 1024, "of 1024 bytes of shared memory"),
        ("past_end", 64, 0, "wrote to byte 256 of a buffer of 256 bytes"),
        ("before_start", 64, 0, "wrote to byte -4 of a buffer of 256 bytes"),
        ("past_shared", 64, 256, "byte 256 was written of 256 bytes of shared memory"),
        ("before_shared", 64, 256, "what is before the shared memory was written"),
        ("nowhere", 64, 0, "is no memory"),
    ];
    if cfg!(target_arch = "x86_64") {
        cases.push(("by_zero", 64, 0, "divides an integer by zero"));
    }
    for (kernel, threads, shared, complaint) in cases {
        for seed in 0..3 {
            let mut trial = TrialDevice::new(seed).grid([3, 1, 1]).threads(threads).shared(shared);
            let told = trial.run(kernel, &[1.0; 64], 64, 0).expect_err(kernel).to_string();
            assert!(told.contains(kernel) && told.contains(complaint), "{told}");
            // The device goes on.
            assert!(trial.threads(64).run("warp_sums", &[1.0; 64], 256, 0).is_ok());
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_kernel_that_does_not_end_is_an_error_that_names_it() {
    let kernels = ["endless_alone", "endless_last", "endless_together", "endless_copies"];
    for (kernel, seed) in kernels.into_iter().flat_map(|kernel| [(kernel, 0), (kernel, 3)]) {
        let mut trial = TrialDevice::new(seed).grid([3, 1, 1]).shared(1024);
        trial.device.patience = Duration::from_millis(100);
        let told = trial.run(kernel, &[1.0; 64], 64, 0).expect_err(kernel).to_string();
        assert!(told.contains(kernel) && told.contains("does not end: 0.1 s of processor time"), "{told}");
        // It is not waited for again; others run, also those that take several ticks in all.
        let start = Instant::now();
        assert_eq!(trial.run(kernel, &[1.0; 64], 64, 0).expect_err(kernel).to_string(), told);
        assert!(start.elapsed() < Duration::from_millis(100));
        assert!(trial.run("warp_sums", &[1.0; 64], 256, 0).is_ok());
    }
    // In the natural order copies wait, and would fill the memory.
    let told = TrialDevice::new(0).shared(256).run("piled_copies", &[1.0; 64], 64, 0).unwrap_err().to_string();
    assert!(told.contains("65536 copies that it never waited for"), "{told}");
    let mut trial = TrialDevice::new(0).grid([1 << 16, 1, 1]).threads(256).shared(1024);
    // Time counts for a block, not for all of them together.
    trial.device.patience = Duration::from_millis(500);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(600) {
        let sums = trial.run("tree_sum", &vec![1.0; 256 << 16], 1 << 16, 0).unwrap();
        assert!(sums.iter().all(|&sum| sum == 256.0));
    }
}

#[test]
fn names_of_kept_files_are_known_and_no_others() {
    let key = "0123456789abcdef0123456789abcdef";
    let of = |ending: &str| part(&format!("conv_tf32-{key}{ending}")).map(|part| part == CacheFile::Unfinished);
    for ending in [".so", ".o", ".so.sha256", ".o.sha256"] {
        assert_eq!(of(ending), Some(false), "{ending}");
        assert_eq!(part(&format!("a-{key}{ending}")), Some(CacheFile::Of(&format!("a-{key}"))));
    }
    assert_eq!(of(".4711-0"), Some(true));
    for ending in ["", ".", ".txt", ".sha256", ".4711", ".4711-", ".-1", ".so.bak", "0.so"] {
        assert_eq!(of(ending), None, "{ending}");
    }
    for name in ["notes.so", "a-b.so", "libm-2.31.so", &format!("{key}.so"), &format!("a-{}.so", key.to_uppercase())] {
        assert_eq!(part(name), None, "{name}");
    }
}

#[test]
fn a_folder_of_this_process_goes_with_its_last_device() {
    let first = Arc::new(LibraryFolder { folder: own_folder(), passing: true });
    let (folder, second) = (first.folder.clone(), first.clone());
    std::fs::write(folder.join("kept"), "").unwrap();
    drop(first);
    assert!(folder.exists());
    drop(second);
    assert!(!folder.exists());
}

#[test]
fn memory_starts_as_nan() {
    let out = TrialDevice::new(0).shared(256).run("unwritten", &[], 64, 0).unwrap();
    assert!(out.iter().all(|v| v.is_nan()));
    let mut device = Emulated::new(Sources::default(), 1, 0).unwrap();
    let at = device.allocate(40).unwrap();
    let mut numbers = [0f32; 10];
    device.download(at, bytemuck::cast_slice_mut(&mut numbers)).unwrap();
    assert!(numbers.iter().all(|v| v.is_nan()));
}

#[test]
fn memory_has_its_limit_and_bounds() {
    let mut device = Emulated::new(Sources::default(), 1, 0).unwrap().with_limit(1000);
    let first = device.allocate(600).unwrap();
    assert!(matches!(device.allocate(401), Err(Refusal::OutOfMemory)));
    let second = device.allocate(400).unwrap();
    assert_eq!(device.machine().free_bytes, Some(0));
    device.free(first);
    assert_eq!(device.machine().free_bytes, Some(600));
    device.upload(second.plus(300), &[0; 100]).unwrap();
    assert!(device.upload(second.plus(300), &[0; 101]).is_err());
    assert!(device.download(first, &mut [0; 1]).is_err());
    assert!(device.download(Address::NULL, &mut [0; 1]).is_err());
    assert!(matches!(device.allocate(usize::MAX), Err(Refusal::OutOfMemory)));
}

#[test]
fn launches_that_no_gpu_takes_are_refused() {
    let refused = |trial: TrialDevice, kernel, what: &str| {
        let told = { trial }.run(kernel, &[1.0; 64], 64, 0).expect_err(what).to_string();
        assert!(told.contains(kernel) && told.contains(what), "{told}");
    };
    refused(TrialDevice::new(0).threads(0), "unwritten", "threads");
    refused(TrialDevice::new(0).threads(65), "unwritten", "threads");
    refused(TrialDevice::new(0).shared(227 * 1024 + 1), "unwritten", "227 KiB");
    refused(TrialDevice::new(0).grid([1, 0, 1]), "unwritten", "grid");
    refused(TrialDevice::new(0).grid([1, 65536, 1]), "unwritten", "grid");
    refused(TrialDevice::new(0), "absent", "no such kernel");
    let mut trial = TrialDevice::new(0);
    let args = CountArgs { out: Address::NULL.into(), n: 0, factor: 0.0 };
    assert!(trial.device.launch(&TRIAL, "unwritten", trial.launch, args.packed()).is_err());
}

#[test]
fn a_compilers_log_is_told() {
    let mut trial = TrialDevice::new(0);
    let told = trial.device.prepare(&[&BROKEN]).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Device);
    assert!(["broken.cu", "no_such_name"].iter().all(|part| told.to_string().contains(part)), "{told}");
    assert!(HostCompiler::ask("no-such-compiler -v").is_none());
}

#[test]
fn libraries_are_shared_and_kept() {
    let load = |text: &str, cache: &Path| {
        let sources = tempfile::tempdir().unwrap();
        std::fs::write(sources.path().join("count.cu"), text).unwrap();
        let mut device = Emulated::new(Sources::of_folder(sources.path()).unwrap(), 1, 0).unwrap();
        device.compiler.place = Arc::new(LibraryFolder::kept(cache.to_path_buf()));
        device.prepare(&[&COUNT]).unwrap();
        device.units["count"] as usize
    };
    let files = |cache: &Path, ending: &str| -> Vec<PathBuf> {
        let files = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
    };
    let first = tempfile::tempdir().unwrap();
    let first = first.path();
    // No other test has these texts.
    let text = "#include \"dialect.cuh\"\nKERNEL(count, 128, 1, CountArgs) {}\n";
    let one = load(text, first);
    assert_eq!(load(text, first), one);
    assert_eq!((files(first, ".so").len(), files(first, ".o").len()), (1, 1));
    let name = files(first, ".so")[0].file_name().unwrap().to_os_string();
    assert_ne!(load(&format!("{text}// Changed.\n"), first), one);
    // Each beside its digest.
    assert_eq!((files(first, "").len(), files(first, ".so").len()), (6, 2));

    // As a later process finds them: one that is whole, and one that is not.
    let later = tempfile::tempdir().unwrap();
    let later = later.path();
    let copy = |to: &Path| {
        for file in [first.join(&name), digest_of(&first.join(&name))] {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    };
    copy(later);
    LOADED.lock().unwrap().clear();
    assert_ne!(load(text, later), one);
    assert_eq!(files(later, "").len(), 2, "it was taken as it was");
    // Loading a library that ends early would end this process.
    let broken = tempfile::tempdir().unwrap();
    let broken = broken.path();
    copy(broken);
    let whole = std::fs::read(broken.join(&name)).unwrap();
    std::fs::write(broken.join(&name), &whole[..whole.len() / 2]).unwrap();
    LOADED.lock().unwrap().clear();
    load(text, broken);
    assert!(super::whole(&broken.join(&name)).is_some(), "it was made again");
}
