//! Resizes 8-bit pictures bit for bit as Pillow does (rows before columns, as in all versions below 13).
//!
//! The noise generator is keyed by the prepared tensor, so pixels must not depend on the processor's vector
//! instructions: these are integer sums in a fixed order, the same everywhere. Only the required part of the result is
//! computed, so the work is bounded by the crop, however elongated a picture is. It is single-threaded.

use std::f64::consts::PI;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Filter of a resize. All but [`Nearest`](Interpolation::Nearest) widen when a picture shrinks (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Triangle, support 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Windowed sinc, support 3.
    Lanczos,
}

impl Interpolation {
    fn support(self) -> f64 {
        match self {
            Interpolation::Nearest => 0.5,
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
            Interpolation::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        fn sinc(x: f64) -> f64 {
            if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
        }
        const A: f64 = -0.5;
        match self {
            Interpolation::Nearest => 1.0,
            Interpolation::Bilinear => (1.0 - x.abs()).max(0.0),
            Interpolation::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
            Interpolation::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Interpolation::Nearest => "nearest",
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
            Interpolation::Lanczos => "lanczos",
        })
    }
}

impl std::str::FromStr for Interpolation {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "nearest" => Ok(Interpolation::Nearest),
            "bilinear" => Ok(Interpolation::Bilinear),
            "bicubic" => Ok(Interpolation::Bicubic),
            "lanczos" => Ok(Interpolation::Lanczos),
            _ => Err(Error::settings(format!("unknown interpolation `{s}`: nearest, bilinear, bicubic or lanczos"))),
        }
    }
}

/// The required part of a resized picture, axes `[y, x]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResizedPart {
    /// First row and column.
    pub offset: [usize; 2],
    /// Rows and columns.
    pub size: [usize; 2],
}

/// Fractional bits of a weight: of 32 bits, 8 are for the level and 2 are head room, as in Pillow.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// For each required element of an axis: the first source element, and one fixed-point weight per tap.
struct AxisTaps {
    first: Vec<usize>,
    weights: Vec<Vec<i32>>,
}

impl AxisTaps {
    fn new(from: usize, to: usize, wanted: Range<usize>, filter: Interpolation) -> Self {
        let scale = from as f64 / to as f64;
        let widening = scale.max(1.0);
        let support = filter.support() * widening;
        let (mut first, mut weights) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
        for i in wanted {
            let centre = (i as f64 + 0.5) * scale;
            let low = (centre - support + 0.5).max(0.0) as usize;
            let high = ((centre + support + 0.5) as usize).min(from);
            let real: Vec<f64> =
                (low..high).map(|j| filter.weight((j as f64 - centre + 0.5) * (1.0 / widening))).collect();
            let sum: f64 = real.iter().sum();
            let fixed = real.into_iter().map(|w| {
                let w = if sum == 0.0 { w } else { w / sum } * f64::from(1u32 << PRECISION_BITS);
                (w + 0.5f64.copysign(w)) as i32
            });
            first.push(low);
            weights.push(fixed.collect());
        }
        Self { first, weights }
    }

    /// The range of source elements that any required element reads.
    fn span(&self) -> Range<usize> {
        let start = self.first.iter().copied().min().unwrap_or(0);
        let end = self.first.iter().zip(&self.weights).map(|(f, w)| f + w.len()).max().unwrap_or(0);
        start..end
    }
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Source element of each required element under nearest interpolation.
fn nearest(from: usize, to: usize, wanted: Range<usize>) -> Vec<usize> {
    let scale = from as f64 / to as f64;
    // Pillow accumulates the step instead of multiplying; the rounding of that sum decides ties.
    let mut at = scale * 0.5;
    let mut sources = Vec::with_capacity(wanted.len());
    for i in 0..wanted.end {
        if i >= wanted.start {
            sources.push((at as usize).min(from - 1));
        }
        at += scale;
    }
    sources
}

/// `part` of `pixels` (`[h, w, channels]`, `from` = `[h, w]`) resized to `to` = `[H, W]`.
///
/// The caller has checked that `pixels` fills `from`, that no extent is zero and that `part` lies inside `to`.
pub(super) fn resize(
    pixels: &[u8],
    from: [usize; 2],
    channels: usize,
    to: [usize; 2],
    part: ResizedPart,
    filter: Interpolation,
) -> Vec<u8> {
    let [rows, columns] = [0, 1].map(|a| part.offset[a]..part.offset[a] + part.size[a]);
    if rows.is_empty() || columns.is_empty() {
        return Vec::new();
    }
    let stride = from[1] * channels;
    if filter == Interpolation::Nearest || from == to {
        let [ys, xs] = [(0, rows), (1, columns)].map(|(a, wanted)| nearest(from[a], to[a], wanted));
        return ys
            .iter()
            .flat_map(|y| xs.iter().flat_map(move |x| &pixels[y * stride + x * channels..][..channels]))
            .copied()
            .collect();
    }
    let width = part.size[1] * channels;
    let vertical = (from[0] != to[0]).then(|| AxisTaps::new(from[0], to[0], rows.clone(), filter));
    let span = vertical.as_ref().map_or(rows, AxisTaps::span);
    let mut wide = vec![0u8; span.len() * width];
    // An axis whose extent does not change is copied, not filtered.
    let horizontal = (from[1] != to[1]).then(|| AxisTaps::new(from[1], to[1], columns.clone(), filter));
    wide.chunks_mut(width).zip(span.clone()).for_each(|(out, y)| {
        let row = &pixels[y * stride..][..stride];
        match &horizontal {
            None => out.copy_from_slice(&row[columns.start * channels..][..width]),
            Some(taps) => {
                for ((out, &first), weights) in out.chunks_exact_mut(channels).zip(&taps.first).zip(&taps.weights) {
                    // The same sums, three at a time.
                    if let Ok(out) = <&mut [u8; 3]>::try_from(&mut *out) {
                        let mut sums = [HALF; 3];
                        for (w, pixel) in weights.iter().zip(row[first * 3..].as_chunks::<3>().0) {
                            sums.iter_mut().zip(pixel).for_each(|(s, &p)| *s += w * i32::from(p));
                        }
                        *out = sums.map(level);
                        continue;
                    }
                    for (c, out) in out.iter_mut().enumerate() {
                        let levels = row[first * channels + c..].iter().step_by(channels);
                        *out = level(weights.iter().zip(levels).fold(HALF, |s, (w, &p)| s + w * i32::from(p)));
                    }
                }
            }
        }
    });
    let Some(taps) = vertical else { return wide };
    let mut out = vec![0u8; part.size[0] * width];
    let mut sums = vec![HALF; width];
    out.chunks_mut(width).zip(taps.first.iter().zip(&taps.weights)).for_each(|(out, (&first, weights))| {
        sums.fill(HALF);
        for (row, &w) in wide[(first - span.start) * width..].chunks_exact(width).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(s, &p)| *s += w * i32::from(p));
        }
        out.iter_mut().zip(&sums).for_each(|(out, &s)| *out = level(s));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [Interpolation; 4] =
        [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos];

    fn whole(size: [usize; 2]) -> ResizedPart {
        ResizedPart { offset: [0, 0], size }
    }

    #[test]
    fn a_constant_picture_stays_constant() {
        for filter in FILTERS {
            for to in [[3, 5], [29, 31], [17, 40]] {
                let out = resize(&[200; 17 * 13 * 3], [17, 13], 3, to, whole(to), filter);
                assert_eq!(out, vec![200; to[0] * to[1] * 3], "{filter} to {to:?}");
            }
        }
    }

    #[test]
    fn a_part_equals_the_part_of_the_whole() {
        let pixels: Vec<u8> = (0..23 * 19 * 2u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let from = [23, 19];
        for filter in FILTERS {
            for to in [[7, 11], [31, 37], [23, 40], [50, 19], [23, 19]] {
                let all = resize(&pixels, from, 2, to, whole(to), filter);
                let part = ResizedPart { offset: [2, 3], size: [4, 5] };
                let cut: Vec<u8> = (2..6).flat_map(|y| all[(y * to[1] + 3) * 2..][..5 * 2].to_vec()).collect();
                assert_eq!(resize(&pixels, from, 2, to, part, filter), cut, "{filter} to {to:?}");
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for filter in FILTERS {
            assert_eq!(filter.to_string().parse::<Interpolation>().unwrap(), filter);
        }
        assert!("area".parse::<Interpolation>().is_err());
    }
}
