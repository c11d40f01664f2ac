//! Similarity of two maps.
//!
//! Every function takes maps as `[H, W]`; the caller chooses one of the reductions of [`crate::map`]. Sums are in
//! double precision. A quantity that is undefined because a map is constant is `None`.

use std::f64::consts::PI;

use super::ranking::{average_ranks, ranking};
use crate::error::{Error, Result};
use crate::map::unit_range;
use crate::tensor::Tensor;

/// `[H, W]` and the values of a map.
fn plane(map: &Tensor) -> Result<([usize; 2], std::borrow::Cow<'_, [f64]>)> {
    let &[h, w] = map.dims() else {
        return Err(Error::input(format!("maps are compared as [H, W], not {:?}", map.dims())));
    };
    if let Some(at) = map.first_not_finite() {
        return Err(Error::input(format!("element {at} of a map is not a finite number")));
    }
    if h * w == 0 {
        return Err(Error::input(format!("a map of {h}x{w} is empty")));
    }
    Ok(([h, w], map.to_f64()))
}

/// Values of two maps of equal size.
type ValuePair<'a> = ([usize; 2], std::borrow::Cow<'a, [f64]>, std::borrow::Cow<'a, [f64]>);

fn pair<'a>(a: &'a Tensor, b: &'a Tensor) -> Result<ValuePair<'a>> {
    let ((dims, a), (other, b)) = (plane(a)?, plane(b)?);
    if dims != other {
        return Err(Error::input(format!("maps of {dims:?} and {other:?} cannot be compared")));
    }
    Ok((dims, a, b))
}

/// Pearson's correlation of two lists; `None` if one is constant.
pub(crate) fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    // The computed mean of equal numbers may differ from them, so constancy is checked directly.
    let constant = |v: &[f64]| v.iter().all(|x| *x == v[0]);
    if a.is_empty() || constant(a) || constant(b) {
        return None;
    }
    // Deviations as shares of the largest: squares of very small or large ones would under- or overflow.
    let deviations = |v: &[f64]| -> Vec<f64> {
        let mean = mean(v);
        let largest = v.iter().fold(0.0f64, |m, x| m.max((x - mean).abs()));
        v.iter().map(|x| (x - mean) / largest).collect()
    };
    let (a, b) = (deviations(a), deviations(b));
    let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(x, y)| x * y).sum::<f64>();
    Some((dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

/// Pearson's correlation over positions, −1 to 1; `None` if a map is constant.
///
/// # Errors
/// When the maps are not `[H, W]`, are empty, differ in size, or hold a number that is not finite.
pub fn pearson(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    let (_, a, b) = pair(a, b)?;
    Ok(correlation(&a, &b))
}

/// Spearman's rank correlation over positions, −1 to 1; equal numbers get their mean rank. `None` if a map is constant.
/// Errors as [`pearson`].
pub fn spearman(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    let (_, a, b) = pair(a, b)?;
    Ok(correlation(&average_ranks(&a), &average_ranks(&b)))
}

/// [`spearman`] of the magnitudes (Adebayo et al. 2018, "rank correlation with absolute values"). Errors as [`pearson`].
pub fn spearman_abs(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    spearman(&a.clone().map(f64::abs), &b.clone().map(f64::abs))
}

/// Side of the window of [`ssim`] for maps that are large enough.
const SSIM_WINDOW: usize = 7;

/// Sums over all windows of `side` by `side` that fit into an `[h, w]` plane.
fn window_sums(values: &[f64], [h, w]: [usize; 2], side: usize) -> Vec<f64> {
    let (rows, columns) = (h - side + 1, w - side + 1);
    let across: Vec<f64> =
        values.chunks(w).flat_map(|row| row.windows(side).map(|run| run.iter().sum::<f64>())).collect();
    let at = |y: usize, x: usize| (0..side).map(|k| across[(y + k) * columns + x]).sum();
    (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect()
}

/// Mean structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004), −1 to 1. Uniform windows of 7×7 (or the largest
/// odd side that fits) at all positions, unbiased variances, K₁ = 0.01, K₂ = 0.03, as in scikit-image by default. The
/// data range is the largest minus the smallest value of both maps; if it is 0 the maps are equal and the result is 1.
///
/// # Errors
/// As [`pearson`].
pub fn ssim(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (dims, a, b) = pair(a, b)?;
    let (low, high) =
        a.iter().chain(b.iter()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let range = high - low;
    if range == 0.0 {
        return Ok(1.0);
    }
    let short = dims[0].min(dims[1]);
    let side = SSIM_WINDOW.min(if short % 2 == 1 { short } else { short - 1 });
    // Scaled before multiplying: maps may be as small as 1e-200.
    let scaled = |v: &[f64]| -> Vec<f64> { v.iter().map(|x| x / range).collect() };
    let (a, b) = (scaled(&a), scaled(&b));
    let product = |u: &[f64], v: &[f64]| -> Vec<f64> { u.iter().zip(v).map(|(x, y)| x * y).collect() };
    let sums = |v: &[f64]| window_sums(v, dims, side);
    let (sa, sb) = (sums(&a), sums(&b));
    let (saa, sbb, sab) = (sums(&product(&a, &a)), sums(&product(&b, &b)), sums(&product(&a, &b)));
    let n = (side * side) as f64;
    let unbiased = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let one = |i: usize| {
        let (ma, mb) = (sa[i] / n, sb[i] / n);
        let variance = |s: f64, m: f64, o: f64| unbiased * (s / n - m * o);
        let (va, vb, vab) = (variance(saa[i], ma, ma), variance(sbb[i], mb, mb), variance(sab[i], ma, mb));
        (2.0 * ma * mb + c1) * (2.0 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    };
    Ok((0..sa.len()).map(one).sum::<f64>() / sa.len() as f64)
}

/// Overlap, 0 to 1, of the two maps' top `share` of pixels; the number of pixels is rounded, and at least one. Of equal
/// values the first in C order counts as larger, so two constant maps overlap completely.
///
/// # Errors
/// As [`pearson`], and when the share is not in (0, 1].
pub fn top_k_intersection(a: &Tensor, b: &Tensor, share: f64) -> Result<f64> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(Error::settings(format!("the top {share} of the pixels: a share lies above 0 and is 1 at most")));
    }
    let (_, a, b) = pair(a, b)?;
    let k = ((share * a.len() as f64).round() as usize).clamp(1, a.len());
    let mut top = vec![false; a.len()];
    ranking(&a)[..k].iter().for_each(|&i| top[i as usize] = true);
    let common = ranking(&b)[..k].iter().filter(|&&i| top[i as usize]).count();
    Ok(common as f64 / k as f64)
}

/// Orientations of [`hog`] per half turn.
const ORIENTATIONS: usize = 9;
/// Side of a block of [`hog`], in cells.
const BLOCK: usize = 3;

/// Side of the cells of [`hog`] for a map of this size: 16 pixels at 224 (Adebayo et al. 2018), in proportion, at least
/// 4.
pub fn hog_cell([h, w]: [usize; 2]) -> usize {
    (h.min(w) / 14).max(4)
}

/// Histogram of oriented gradients (Dalal, Triggs 2005) as in scikit-image: 9 unsigned orientations without
/// interpolation, cells of `cell` by `cell` pixels, overlapping blocks of 3×3 cells (fewer if there are fewer cells),
/// norm L2-Hys. The map is shifted and scaled to 0 to 1 first. Ordered by block, cell and orientation; all 0 for a
/// constant map.
///
/// # Errors
/// As [`pearson`], and when the map is smaller than a cell.
pub fn hog(map: &Tensor, cell: usize) -> Result<Vec<f64>> {
    let ([h, w], _) = plane(map)?;
    let (rows, columns) = (h.checked_div(cell).unwrap_or(0), w.checked_div(cell).unwrap_or(0));
    if rows == 0 || columns == 0 {
        return Err(Error::input(format!("a map of {h}x{w} has no cell of {cell}x{cell} pixels")));
    }
    let values = unit_range(map).to_f64().into_owned();
    let mut cells = vec![0.0; rows * columns * ORIENTATIONS];
    for y in 0..rows * cell {
        for x in 0..columns * cell {
            // Central differences; zero at the edge.
            let inner = |i: usize, n: usize| i > 0 && i + 1 < n;
            let dy = if inner(y, h) { values[(y + 1) * w + x] - values[(y - 1) * w + x] } else { 0.0 };
            let dx = if inner(x, w) { values[y * w + x + 1] - values[y * w + x - 1] } else { 0.0 };
            let degrees = (dy.atan2(dx) * 180.0 / PI).rem_euclid(180.0);
            let bin = (degrees / (180.0 / ORIENTATIONS as f64)) as usize % ORIENTATIONS;
            cells[(y / cell * columns + x / cell) * ORIENTATIONS + bin] += dy.hypot(dx) / (cell * cell) as f64;
        }
    }
    let (tall, wide) = (BLOCK.min(rows), BLOCK.min(columns));
    let mut out = Vec::new();
    for top in 0..=rows - tall {
        for left in 0..=columns - wide {
            let mut block: Vec<f64> = (top..top + tall)
                .flat_map(|row| cells[(row * columns + left) * ORIENTATIONS..][..wide * ORIENTATIONS].iter().copied())
                .collect();
            let normalise = |block: &mut [f64]| {
                let size = (block.iter().map(|v| v * v).sum::<f64>() + 1e-10).sqrt();
                block.iter_mut().for_each(|v| *v /= size);
            };
            normalise(&mut block);
            block.iter_mut().for_each(|v| *v = v.min(0.2));
            normalise(&mut block);
            out.extend(block);
        }
    }
    Ok(out)
}

/// Spearman's rank correlation of the [`hog`] of two maps, with cells of [`hog_cell`] (at most the shorter side);
/// `None` if one has no edges. Errors as [`pearson`].
pub fn hog_spearman(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    let (dims, ..) = pair(a, b)?;
    let cell = hog_cell(dims).min(dims[0]).min(dims[1]);
    Ok(correlation(&average_ranks(&hog(a, cell)?), &average_ranks(&hog(b, cell)?)))
}

/// `[y, x]` of the centre of mass of the magnitudes, in pixels from the centre of the first pixel; `None` if all are 0.
/// Errors as [`pearson`].
pub fn mass_centre(map: &Tensor) -> Result<Option<[f64; 2]>> {
    let ([_, w], values) = plane(map)?;
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return Ok(None);
    }
    let (mut mass, mut y, mut x) = (0.0, 0.0, 0.0);
    for (i, v) in values.iter().enumerate() {
        let m = v.abs() / largest;
        mass += m;
        y += m * (i / w) as f64;
        x += m * (i % w) as f64;
    }
    Ok(Some([y / mass, x / mass]))
}

/// Distance between the centres of mass in pixels (Ghorbani, Abid, Zou 2019); `None` if a map has none. Errors as
/// [`pearson`].
pub fn mass_centre_shift(a: &Tensor, b: &Tensor) -> Result<Option<f64>> {
    pair(a, b)?;
    Ok(mass_centre(a)?.zip(mass_centre(b)?).map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(dims: [usize; 2], values: &[f64]) -> Tensor {
        Tensor::f64(dims, values.to_vec()).unwrap()
    }

    /// Patternless numbers from −1 to 1.
    fn rough(dims: [usize; 2], salt: u64) -> Tensor {
        let value = |i: u64| ((i * 2_654_435_761 + salt * 97_531) % 1009) as f64 / 504.0 - 1.0;
        map(dims, &(0..(dims[0] * dims[1]) as u64).map(value).collect::<Vec<_>>())
    }

    #[test]
    fn correlations_are_scipys() {
        let a = map([2, 3], &[1.0, -2.0, 3.0, 3.0, 5.0, 0.5]);
        let b = map([2, 3], &[2.0, 1.0, 2.0, 9.0, 4.0, -7.0]);
        // scipy.stats.pearsonr, spearmanr, spearmanr of the magnitudes
        assert!((pearson(&a, &b).unwrap().unwrap() - 0.476_620_575_148_526_9).abs() < 1e-12);
        assert!((spearman(&a, &b).unwrap().unwrap() - 0.808_823_529_411_764_7).abs() < 1e-12);
        assert!((spearman_abs(&a, &b).unwrap().unwrap() - 0.102_941_176_470_588_23).abs() < 1e-12);
    }

    #[test]
    fn constant_maps_have_no_correlation() {
        let (flat, other) = (map([2, 2], &[0.1; 4]), rough([2, 2], 1));
        assert_eq!(pearson(&flat, &other).unwrap(), None);
        assert_eq!(spearman(&other, &flat).unwrap(), None);
        assert_eq!(mass_centre(&map([2, 2], &[0.0; 4])).unwrap(), None);
        assert_eq!(top_k_intersection(&flat, &flat, 0.5).unwrap(), 1.0);
        assert_eq!(ssim(&flat, &flat).unwrap(), 1.0);
        assert_eq!(hog_spearman(&flat, &other).unwrap(), None);
        let point = map([1, 1], &[-3.0]);
        assert_eq!(ssim(&point, &point).unwrap(), 1.0);
        assert_eq!(mass_centre(&point).unwrap(), Some([0.0, 0.0]));
        assert_eq!(pearson(&point, &point).unwrap(), None);
    }

    #[test]
    fn scale_does_not_matter_to_correlations() {
        let (a, b) = (rough([5, 7], 3), rough([5, 7], 8));
        let want = pearson(&a, &b).unwrap().unwrap();
        for factor in [1e-160, 1e150] {
            let scaled = pearson(&a.clone().map(|v| v * factor), &b.clone().map(|v| v * factor)).unwrap().unwrap();
            assert!((scaled - want).abs() < 1e-12, "{factor}: {scaled} {want}");
        }
    }

    #[test]
    fn the_top_is_counted() {
        let a = map([2, 2], &[4.0, 3.0, 2.0, 1.0]);
        let b = map([2, 2], &[9.0, -3.0, 7.0, 1.0]);
        assert_eq!(top_k_intersection(&a, &b, 0.5).unwrap(), 0.5);
        assert_eq!(top_k_intersection(&a, &b, 0.01).unwrap(), 1.0);
        assert_eq!(top_k_intersection(&a, &b, 1.0).unwrap(), 1.0);
        for share in [0.0, 1.5, f64::NAN] {
            assert!(top_k_intersection(&a, &b, share).is_err());
        }
    }

    /// Structural similarity window by window, directly from its formula.
    fn naive_ssim(a: &Tensor, b: &Tensor, side: usize) -> f64 {
        let &[h, w] = a.dims() else { panic!() };
        let all: Vec<f64> = a.to_f64().iter().chain(b.to_f64().iter()).copied().collect();
        let range = all.iter().copied().fold(f64::MIN, f64::max) - all.iter().copied().fold(f64::MAX, f64::min);
        let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
        let (mut total, mut count) = (0.0, 0.0);
        for y in 0..=h - side {
            for x in 0..=w - side {
                let window = |t: &Tensor| -> Vec<f64> {
                    (0..side * side).map(|k| t.at((y + k / side) * w + x + k % side)).collect()
                };
                let (u, v) = (window(a), window(b));
                let n = u.len() as f64;
                let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
                let (mu, mv) = (mean(&u), mean(&v));
                let cov = |u: &[f64], mu: f64, v: &[f64], mv: f64| {
                    u.iter().zip(v).map(|(p, q)| (p - mu) * (q - mv)).sum::<f64>() / (n - 1.0)
                };
                let (vu, vv, uv) = (cov(&u, mu, &u, mu), cov(&v, mv, &v, mv), cov(&u, mu, &v, mv));
                total += (2.0 * mu * mv + c1) * (2.0 * uv + c2) / ((mu * mu + mv * mv + c1) * (vu + vv + c2));
                count += 1.0;
            }
        }
        total / count
    }

    #[test]
    fn ssim_follows_its_formula() {
        for (dims, side) in [([9, 11], 7), ([4, 6], 3), ([7, 7], 7)] {
            let (a, b) = (rough(dims, 5), rough(dims, 6));
            let (is, want) = (ssim(&a, &b).unwrap(), naive_ssim(&a, &b, side));
            assert!((is - want).abs() < 1e-12, "{dims:?}: {is} {want}");
            assert!(want < 0.9);
            assert!((ssim(&a, &a).unwrap() - 1.0).abs() < 1e-12);
            let tiny = ssim(&a.map(|v| v * 1e-200), &b.map(|v| v * 1e-200)).unwrap();
            assert!((tiny - want).abs() < 1e-12, "{dims:?}: {tiny} {want}");
        }
    }

    #[test]
    fn edges_fall_into_their_orientation() {
        // In the left half brightness increases to the right: gradients of 0 degrees, bin 0.
        let ramp: Vec<f64> = (0..64).map(|i| f64::from(i % 8)).collect();
        let found = hog(&map([8, 8], &ramp), 4).unwrap();
        assert_eq!(found.len(), 4 * ORIENTATIONS);
        for (i, v) in found.iter().enumerate() {
            assert_eq!(*v > 0.0, i % ORIENTATIONS == 0, "{i}: {v}");
        }
        let down: Vec<f64> = (0..64).map(|i| f64::from(i / 8)).collect();
        let found = hog(&map([8, 8], &down), 4).unwrap();
        // 90 degrees: bin 4 of 20 degrees each.
        assert!(found.iter().enumerate().all(|(i, v)| (*v > 0.0) == (i % ORIENTATIONS == 4)));
        assert!((found.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-6);
        assert!(hog(&map([3, 3], &[0.0; 9]), 4).is_err());
        assert!(hog(&map([3, 3], &[0.0; 9]), 0).is_err());
    }

    #[test]
    fn hog_is_scikit_images() {
        // skimage.feature.hog(image, pixels_per_cell=(4, 4)): its length and some values; it computes partly in single
        // precision.
        let values: Vec<f64> = (0..16 * 20).map(|i| f64::from((i * i + 7 * i) % 101)).collect();
        let found = hog(&map([16, 20], &values), 4).unwrap();
        assert_eq!(found.len(), HOG_LENGTH);
        for (i, want) in HOG_SOME {
            assert!((found[i] - want).abs() < 1e-7, "{i}: {} {want}", found[i]);
        }
    }
    const HOG_LENGTH: usize = 486;
    const HOG_SOME: [(usize, f64); 7] = [
        (0, 0.064_762_958_684_644_45),
        (5, 0.0),
        (40, 0.058_423_940_510_702_68),
        (100, 0.0),
        (243, 0.152_146_304_951_406_1),
        (300, 0.077_552_102_575_448_56),
        (485, 0.064_036_181_908_668_21),
    ];

    #[test]
    fn mass_moves() {
        let a = map([3, 4], &[0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let b = map([3, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0]);
        assert_eq!(mass_centre(&a).unwrap(), Some([0.0, 1.0]));
        assert_eq!(mass_centre(&b).unwrap(), Some([2.0, 2.0]));
        assert_eq!(mass_centre_shift(&a, &b).unwrap(), Some(5.0f64.sqrt()));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let a = map([2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert!(pearson(&a, &map([4, 1], &[1.0, 2.0, 3.0, 4.0])).is_err());
        assert!(ssim(&a, &map([2, 2], &[1.0, f64::NAN, 3.0, 4.0])).is_err());
        assert!(spearman(&Tensor::f64([4], vec![0.0; 4]).unwrap(), &a).is_err());
        assert!(mass_centre(&map([0, 2], &[])).is_err());
    }
}
