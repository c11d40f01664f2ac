//! Random numbers that depend only on (seed, image, sample, element).
//!
//! Philox4x32-10 (Salmon, Moraes, Dror & Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): element `e` of
//! sample `s` of an image is word `e mod 4` of the block whose key is the seed (low word, high word) and whose counter is
//! `(e / 4, s, image low, image high)`. There is no state, so batches, chunks, threads and shards cannot change a bit.
//!
//! The step to normal deviates uses additions, multiplications, fused multiply-adds, square roots and integer operations
//! only, all of them correctly rounded by IEEE 754 and in the order written here: a device that performs the same list
//! of operations gets the same bits.
//!
//! Everything is `#[inline(always)]` and free of branches: a caller compiled for AVX2 or AVX-512 gets vector code.

mod stream;

use sha2::{Digest, Sha256};
pub use stream::{COPIES, Stream};

use crate::tensor::Tensor;

/// Blocks computed side by side by the `fill` functions.
const LANES: usize = 16;

/// One block of Philox4x32-10: four words of 32 random bits.
#[inline(always)]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let p0 = u64::from(c0) * 0xD251_1F53;
        let p1 = u64::from(c2) * 0xCD9E_8D57;
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// The bits of elements `4 * block .. 4 * block + 4` of one sample of one image.
#[inline(always)]
fn bits(seed: u64, image: u64, sample: u32, block: u32) -> [u32; 4] {
    philox([block, sample, image as u32, (image >> 32) as u32], [seed as u32, (seed >> 32) as u32])
}

/// The key of a preprocessed image in the generator: the first 64 bits (big endian) of the SHA-256 of its numbers as
/// little-endian f32 in C order.
pub fn image_key(tensor: &Tensor) -> u64 {
    let mut hash = Sha256::new();
    if cfg!(target_endian = "little") {
        hash.update(bytemuck::cast_slice::<f32, u8>(&tensor.to_f32()));
    } else {
        tensor.to_f32().iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    hash.finalize().iter().take(8).fold(0, |key, &byte| key << 8 | u64::from(byte))
}

/// An odd number below 2^24: the upper 23 bits, plus one half.
#[inline(always)]
fn odd24(word: u32) -> i32 {
    ((word >> 8) | 1) as i32
}

/// Uniform in (0, 1): an odd multiple of 2^-24, so neither end occurs and the distribution is symmetric about 1/2.
#[inline(always)]
fn uniform(word: u32) -> f32 {
    odd24(word) as f32 * (1.0 / 16_777_216.0)
}

/// Four uniform numbers in (0, 1) from the bits of a block.
#[inline(always)]
fn uniforms(block: [u32; 4]) -> [f32; 4] {
    let [a, b, c, d] = block;
    [uniform(a), uniform(b), uniform(c), uniform(d)]
}

/// Natural logarithm of a normal number in (0, 1]; relative error below 2e-7.
#[inline(always)]
fn ln(x: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3F35_04F3;
    // x = m 2^e with m in [sqrt(1/2), sqrt(2)), so that near x = 1, ln x is a polynomial in the exact m - 1.
    let ix = x.to_bits().wrapping_add(0x3F80_0000 - ROOT_HALF);
    let e = ((ix >> 23) as i32 - 127) as f32;
    let f = f32::from_bits((ix & 0x007F_FFFF) + ROOT_HALF) - 1.0;
    let z = f * f;
    let mut p = f32::from_bits(0xBD9C_5531);
    p = p.mul_add(f, f32::from_bits(0x3E02_AC96));
    p = p.mul_add(f, f32::from_bits(0xBE06_C327));
    p = p.mul_add(f, f32::from_bits(0x3E11_6D3F));
    p = p.mul_add(f, f32::from_bits(0xBE2A_3919));
    p = p.mul_add(f, f32::from_bits(0x3E4C_D002));
    p = p.mul_add(f, f32::from_bits(0xBE80_0114));
    p = p.mul_add(f, f32::from_bits(0x3EAA_AAAA));
    p = p.mul_add(f, -0.5);
    // ln 2 in two parts; the first has few enough bits for its product with e to be exact.
    let low = z.mul_add(p, e * f32::from_bits(0xB95E_8083));
    e.mul_add(f32::from_bits(0x3F31_8000), f + low)
}

/// Sine and cosine of `uniform(word)` turns; absolute error below 1.2e-7.
#[inline(always)]
fn sin_cos_turns(word: u32) -> (f32, f32) {
    // Whole quarter turns are split off exactly, in integers; the rest is in [-1/2, 1/2] quarter turns.
    let v = odd24(word);
    let quarter = (v + (1 << 21)) >> 22;
    let d = (v - (quarter << 22)) as f32 * (1.0 / 4_194_304.0);
    let t = d * d;
    let mut s = f32::from_bits(0xBB96_C981);
    s = s.mul_add(t, f32::from_bits(0x3DA3_2F49));
    s = s.mul_add(t, f32::from_bits(0xBF25_5DDD));
    s = s.mul_add(t, f32::from_bits(0x3FC9_0FDB));
    let s = s * d;
    let mut c = f32::from_bits(0x3A6C_FBDA);
    c = c.mul_add(t, f32::from_bits(0xBCAA_E332));
    c = c.mul_add(t, f32::from_bits(0x3E81_E0EF));
    c = c.mul_add(t, f32::from_bits(0xBF9D_E9E6));
    let c = c.mul_add(t, 1.0);
    let (sin, cos) = if quarter & 1 == 0 { (s, c) } else { (c, s) };
    let sin = f32::from_bits(sin.to_bits() ^ ((quarter & 2) as u32) << 30);
    let cos = f32::from_bits(cos.to_bits() ^ (((quarter + 1) & 2) as u32) << 30);
    (sin, cos)
}

/// Two standard normal deviates by the Box–Muller transform: `sqrt(-2 ln u)` times cosine and sine of `v` turns.
#[inline(always)]
fn normal_pair(u: u32, v: u32) -> [f32; 2] {
    let radius = (-2.0 * ln(uniform(u))).sqrt();
    let (sin, cos) = sin_cos_turns(v);
    [radius * cos, radius * sin]
}

/// Four standard normal deviates from the bits of a block: words 0 and 1 give the first two, words 2 and 3 the others.
///
/// Their magnitude is at most 5.77 = `sqrt(48 ln 2)`.
#[inline(always)]
fn normals(block: [u32; 4]) -> [f32; 4] {
    let [a, b, c, d] = block;
    let [x, y] = normal_pair(a, b);
    let [z, w] = normal_pair(c, d);
    [x, y, z, w]
}

/// Standard normal deviates of elements `start ..` of one sample of one image.
///
/// Element `e` is `normals(bits(seed, image, sample, e / 4))[e % 4]`, whatever `start` is and however the elements are
/// split among calls. Element indices are modulo 2^34.
#[inline(always)]
pub fn fill_normals(seed: u64, image: u64, sample: u32, start: usize, out: &mut [f32]) {
    fill::<Normal>([seed, image], sample, start, out);
}

/// Numbers uniform in (0, 1) for elements `start ..` of one sample of one image, as [`fill_normals`].
#[inline(always)]
pub fn fill_uniforms(seed: u64, image: u64, sample: u32, start: usize, out: &mut [f32]) {
    fill::<Uniform>([seed, image], sample, start, out);
}

/// Converts the bits of a block; a trait, because a closure is not compiled with its caller's vector instructions.
trait Distribution {
    fn of(block: [u32; 4]) -> [f32; 4];
}

struct Normal;

impl Distribution for Normal {
    #[inline(always)]
    fn of(block: [u32; 4]) -> [f32; 4] {
        normals(block)
    }
}

struct Uniform;

impl Distribution for Uniform {
    #[inline(always)]
    fn of(block: [u32; 4]) -> [f32; 4] {
        uniforms(block)
    }
}

#[inline(always)]
fn fill<D: Distribution>([seed, image]: [u64; 2], sample: u32, start: usize, out: &mut [f32]) {
    let head = (start.next_multiple_of(4) - start).min(out.len());
    let (head, body) = out.split_at_mut(head);
    if !head.is_empty() {
        let values = D::of(bits(seed, image, sample, (start / 4) as u32));
        head.copy_from_slice(&values[start % 4..start % 4 + head.len()]);
    }
    let mut block = start.div_ceil(4) as u32;
    let (groups, tail) = body.as_chunks_mut::<{ 4 * LANES }>();
    for group in groups {
        // Lanes are grouped by word, so that a vector holds the same word of many blocks.
        let mut words = [[0.0f32; LANES]; 4];
        #[expect(clippy::needless_range_loop, reason = "four arrays are indexed")]
        for lane in 0..LANES {
            let [x, y, z, w] = D::of(bits(seed, image, sample, block.wrapping_add(lane as u32)));
            words[0][lane] = x;
            words[1][lane] = y;
            words[2][lane] = z;
            words[3][lane] = w;
        }
        for (lane, four) in group.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = [words[0][lane], words[1][lane], words[2][lane], words[3][lane]];
        }
        block = block.wrapping_add(LANES as u32);
    }
    for four in tail.chunks_mut(4) {
        four.copy_from_slice(&D::of(bits(seed, image, sample, block))[..four.len()]);
        block = block.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// From the file `kat_vectors` of the authors' library Random123.
    #[test]
    fn philox_gives_the_published_answers() {
        let ones = u32::MAX;
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([ones; 4], [ones; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn the_key_is_the_seed_and_the_counter_the_rest() {
        assert_eq!(
            bits(0x299f31d0_a4093822, 0x03707344_13198a2e, 0x85a308d3, 0x243f6a88),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn the_image_key_is_the_head_of_sha_256() {
        // SHA-256 of the four bytes 00 00 80 3f, and of nothing.
        let one = Tensor::f32([1], vec![1.0]).unwrap();
        assert_eq!(image_key(&one), IMAGE_KEY_OF_ONE);
        assert_eq!(image_key(&Tensor::f64([1, 1], vec![1.0]).unwrap()), IMAGE_KEY_OF_ONE);
        assert_eq!(image_key(&Tensor::f32([0], vec![]).unwrap()), 0xe3b0c442_98fc1c14);
    }
    const IMAGE_KEY_OF_ONE: u64 = 0xe00e_5eb9_4441_82f3;

    #[test]
    fn uniform_numbers_stay_inside_the_open_interval() {
        assert_eq!(uniform(0), 2f32.powi(-24));
        assert_eq!(uniform(u32::MAX), 1.0 - 2f32.powi(-24));
        assert_eq!(uniform(0x8000_0000), 0.5 + 2f32.powi(-24));
    }

    /// Words that cover every exponent and the ends, then many others.
    fn words() -> impl Iterator<Item = u32> {
        let ends = (0..32).flat_map(|k| [1u32 << k, (1 << k) - 1, !(1 << k), u32::MAX >> k]);
        ends.chain((0..200_000u32).map(|i| i.wrapping_mul(0x9E37_79B9)))
    }

    #[test]
    fn logarithm_sine_and_cosine_are_accurate() {
        let (mut worst_ln, mut worst_trig) = (0f64, 0f64);
        for word in words() {
            let u = f64::from(uniform(word));
            let d = (f64::from(ln(uniform(word))) - u.ln()).abs() / u.ln().abs();
            assert!(d <= 2e-7, "ln({u}): relative error {d:e}");
            worst_ln = worst_ln.max(d);
            let (sin, cos) = sin_cos_turns(word);
            let (s, c) = (TAU * u).sin_cos();
            for d in [(f64::from(sin) - s).abs(), (f64::from(cos) - c).abs()] {
                assert!(d <= 1.2e-7, "sin or cos of {u} turns: error {d:e}");
                worst_trig = worst_trig.max(d);
            }
        }
        assert!(worst_ln > 0.0 && worst_trig > 0.0);
        println!("worst relative error of ln {worst_ln:e}, absolute of sin and cos {worst_trig:e}");
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn deviates_are_those_of_box_and_muller() {
        for pair in words().collect::<Vec<_>>().windows(2) {
            let (u, v) = (f64::from(uniform(pair[0])), f64::from(uniform(pair[1])));
            let radius = (-2.0 * u.ln()).sqrt();
            let want = [radius * (TAU * v).cos(), radius * (TAU * v).sin()];
            for (got, want) in normal_pair(pair[0], pair[1]).into_iter().zip(want) {
                let d = (f64::from(got) - want).abs();
                assert!(d <= 1e-6, "{got} for {want}: error {d:e}");
                assert!(got.abs() <= 5.77);
            }
        }
    }

    #[test]
    fn any_split_gives_the_same_bits() {
        let (seed, image, sample) = (0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210, 5);
        let one_by_one = |of: fn([u32; 4]) -> [f32; 4], e: usize| of(bits(seed, image, sample, (e / 4) as u32))[e % 4];
        for start in [0, 1, 2, 3, 4, 61, 4 * ((1 << 32) - 3) + 1] {
            for len in [0, 1, 2, 3, 4, 5, 63, 64, 65, 131, 200] {
                let mut out = vec![f32::NAN; len];
                fill_normals(seed, image, sample, start, &mut out);
                for (i, x) in out.iter().enumerate() {
                    assert_eq!(x.to_bits(), one_by_one(normals, start + i).to_bits(), "element {i} from {start}");
                }
                fill_uniforms(seed, image, sample, start, &mut out);
                for (i, x) in out.iter().enumerate() {
                    assert_eq!(x.to_bits(), one_by_one(uniforms, start + i).to_bits(), "element {i} from {start}");
                }
            }
        }
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let (n, sum) = values.fold((0usize, 0.0), |(n, sum), v| (n + 1, sum + v));
        sum / n as f64
    }

    #[test]
    fn deviates_are_standard_normal() {
        let n = 1usize << 18;
        let root = (n as f64).sqrt();
        let draw = |seed, image, sample| {
            let mut out = vec![0.0f32; n];
            fill_normals(seed, image, sample, 0, &mut out);
            out.into_iter().map(f64::from).collect::<Vec<f64>>()
        };
        let z = draw(1, 2, 3);
        // Five standard errors of each moment.
        for (power, expected, sd) in
            [(1, 0.0, 1.0), (2, 1.0, 2f64.sqrt()), (3, 0.0, 15f64.sqrt()), (4, 3.0, 96f64.sqrt())]
        {
            let moment = mean(z.iter().map(|z| z.powi(power)));
            assert!((moment - expected).abs() <= 5.0 * sd / root, "moment {power} is {moment}");
        }
        // Kolmogorov-Smirnov distance at the deciles and in the tails.
        let table = [
            (-3.090_232_306_2, 0.001),
            (-2.326_347_874_0, 0.01),
            (-1.281_551_565_5, 0.1),
            (-0.841_621_233_6, 0.2),
            (-0.524_400_512_7, 0.3),
            (-0.253_347_103_1, 0.4),
        ];
        let below = |x: f64| z.iter().filter(|&&z| z < x).count() as f64 / n as f64;
        for (x, p) in table {
            for (x, p) in [(x, p), (-x, 1.0 - p)] {
                let sd = (p * (1.0f64 - p)).sqrt() / root;
                assert!((below(x) - p).abs() <= 5.0 * sd, "{} of the deviates lie below {x}, {p} should", below(x));
            }
        }
        let pairs = |other: &[f64]| mean(z.iter().zip(other).map(|(a, b)| a * b));
        let squares = |other: &[f64]| mean(z.iter().zip(other).map(|(a, b)| (a * a - 1.0) * (b * b - 1.0)));
        let others = [draw(2, 2, 3), draw(1 << 32 | 1, 2, 3), draw(1, 3, 3), draw(1, 1 << 32 | 2, 3), draw(1, 2, 4)];
        let shifted = (1..=8).map(|lag| z[lag..].to_vec());
        for (i, other) in others.into_iter().chain(shifted).enumerate() {
            assert!(pairs(&other).abs() <= 5.0 / root, "correlation with stream {i}: {}", pairs(&other));
            assert!(squares(&other).abs() <= 10.0 / root, "squares correlate with stream {i}: {}", squares(&other));
        }
    }

    #[test]
    fn uniform_numbers_fill_their_bins_evenly() {
        let n = 1usize << 18;
        let mut out = vec![0.0f32; n];
        fill_uniforms(7, 8, 9, 0, &mut out);
        let mut bins = [0usize; 64];
        out.iter().for_each(|u| bins[(u * 64.0) as usize] += 1);
        let expected = n as f64 / 64.0;
        let chi2: f64 = bins.iter().map(|&b| (b as f64 - expected).powi(2) / expected).sum();
        // 63 degrees of freedom: five standard deviations are 56.
        assert!((chi2 - 63.0).abs() <= 56.0, "chi squared is {chi2}");
    }

    /// Every device and build must produce these bits; they were confirmed by the same operations in exact rational
    /// arithmetic, rounded once each.
    #[test]
    fn the_bits_of_deviates_are_pinned() {
        let mut normal = [0.0f32; 16];
        fill_normals(42, 0x0123_4567_89AB_CDEF, 3, 0, &mut normal);
        let mut uniform = [0.0f32; 4];
        fill_uniforms(42, 0x0123_4567_89AB_CDEF, 3, 0, &mut uniform);
        let hex = |v: &[f32]| v.iter().map(|x| format!("{:08x}", x.to_bits())).collect::<Vec<_>>().join(" ");
        assert_eq!(hex(&normal), NORMAL_BITS);
        assert_eq!(hex(&uniform), UNIFORM_BITS);
    }
    const NORMAL_BITS: &str = "bfae2612 bca2e13b 3f367938 3f9169dd 3d7ed3cf 3f1a9bb5 bf24aa9f 3f4179d7 \
        befef91c 3f8e645c 3f912143 3f5bb9d2 3f25eebf beec8463 3f177a33 bf2aa30d";
    const UNIFORM_BITS: &str = "3ecae05a 3f00986b 3ed04da2 3e24ad94";
}
