//! Fills removed pixels from their neighbours (Rong, Leemann, Borisov, Kasneci, Kasneci 2022).

use crate::error::{Error, Result};

/// Weights of a pixel's neighbours: 1/6 at the sides, 1/12 at the corners.
const NEIGHBOURS: [(isize, isize, f64); 8] = [
    (-1, -1, 1.0 / 12.0),
    (-1, 0, 1.0 / 6.0),
    (-1, 1, 1.0 / 12.0),
    (0, -1, 1.0 / 6.0),
    (0, 1, 1.0 / 6.0),
    (1, -1, 1.0 / 12.0),
    (1, 0, 1.0 / 6.0),
    (1, 1, 1.0 / 12.0),
];

/// Residual, as a share of the right-hand side, at which the solution is accepted.
const TOLERANCE: f64 = 1e-9;

/// The equations of the removed pixels: each is the weighted mean of its neighbours inside the picture.
///
/// `diagonal ∘ v − neighbours v = known`, symmetric, and positive definite if at least one pixel is known.
struct System {
    /// Position of each unknown.
    pixels: Vec<usize>,
    /// Sum of the weights of each unknown's neighbours.
    diagonal: Vec<f64>,
    /// Start of each unknown's neighbours in `neighbours`, and the end of the last one's.
    starts: Vec<usize>,
    /// Unknown and weight.
    neighbours: Vec<(u32, f64)>,
    /// Unknown, position of a known neighbour, weight.
    known: Vec<(usize, usize, f64)>,
}

impl System {
    fn new([h, w]: [usize; 2], removed: &[bool]) -> Self {
        let mut number = vec![u32::MAX; h * w];
        let pixels: Vec<usize> = (0..h * w).filter(|&p| removed[p]).collect();
        pixels.iter().zip(0..).for_each(|(&p, i)| number[p] = i);
        let mut system = Self {
            diagonal: Vec::with_capacity(pixels.len()),
            starts: vec![0],
            neighbours: Vec::with_capacity(8 * pixels.len()),
            known: Vec::new(),
            pixels,
        };
        for (i, &p) in system.pixels.iter().enumerate() {
            let mut sum = 0.0;
            for (dy, dx, weight) in NEIGHBOURS {
                let inside = |at: usize, d: isize, n: usize| at.checked_add_signed(d).filter(|&at| at < n);
                let Some((y, x)) = inside(p / w, dy, h).zip(inside(p % w, dx, w)) else { continue };
                sum += weight;
                let q = y * w + x;
                if removed[q] {
                    system.neighbours.push((number[q], weight));
                } else {
                    system.known.push((i, q, weight));
                }
            }
            system.diagonal.push(sum);
            system.starts.push(system.neighbours.len());
        }
        system
    }

    /// `out = A v`.
    fn apply(&self, v: &[f64], out: &mut [f64]) {
        for (i, out) in out.iter_mut().enumerate() {
            let near = &self.neighbours[self.starts[i]..self.starts[i + 1]];
            *out = self.diagonal[i] * v[i] - near.iter().map(|&(j, weight)| weight * v[j as usize]).sum::<f64>();
        }
    }

    /// Conjugate gradients (Hestenes, Stiefel 1952) with the diagonal as preconditioner, starting at `v`.
    fn solve(&self, right: &[f64], v: &mut [f64]) -> Result<()> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let mut image = vec![0.0; v.len()];
        self.apply(v, &mut image);
        let mut residual: Vec<f64> = right.iter().zip(&image).map(|(b, a)| b - a).collect();
        let limit = TOLERANCE * dot(right, right).sqrt();
        let precondition = |r: &[f64]| -> Vec<f64> { r.iter().zip(&self.diagonal).map(|(r, d)| r / d).collect() };
        let mut z = precondition(&residual);
        let mut direction = z.clone();
        let mut rz = dot(&residual, &z);
        // In exact arithmetic one step per unknown would suffice.
        for _ in 0..10 * v.len() + 10 {
            if dot(&residual, &residual).sqrt() <= limit {
                return Ok(());
            }
            self.apply(&direction, &mut image);
            let step = rz / dot(&direction, &image);
            v.iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
            residual.iter_mut().zip(&image).for_each(|(r, a)| *r -= step * a);
            z.iter_mut().zip(residual.iter().zip(&self.diagonal)).for_each(|(z, (r, d))| *z = r / d);
            let next = dot(&residual, &z);
            let keep = next / rz;
            rz = next;
            direction.iter_mut().zip(&z).for_each(|(d, z)| *d = z + keep * *d);
        }
        Err(Error::device("the equations of the removed pixels were not solved"))
    }
}

/// `values` (`[C, H, W]` in C order, planes of `[h, w]`) with every removed pixel (`[H, W]`) replaced by the weighted
/// mean of its neighbours, including removed ones: the solution of a sparse linear system per channel. Neighbours at
/// the sides have weight 1/6, at the corners 1/12; those outside the picture are left out and the weights rescaled to
/// sum 1.
///
/// # Errors
/// Settings when every pixel is removed; input when lengths do not match.
pub fn impute(values: &[f64], [h, w]: [usize; 2], removed: &[bool]) -> Result<Vec<f64>> {
    let plane = h * w;
    if removed.len() != plane || plane == 0 || !values.len().is_multiple_of(plane) {
        return Err(Error::input(format!("{} numbers, {} marks for pixels of {h}x{w}", values.len(), removed.len())));
    }
    let kept = removed.iter().filter(|r| !**r).count();
    if kept == 0 {
        return Err(Error::settings("with every pixel removed there is nothing to fill them from"));
    }
    let system = System::new([h, w], removed);
    let mut out = values.to_vec();
    for out in out.chunks_mut(plane) {
        let mean = out.iter().zip(removed).filter(|(_, r)| !**r).map(|(v, _)| v).sum::<f64>() / kept as f64;
        let mut right = vec![0.0; system.pixels.len()];
        system.known.iter().for_each(|&(i, q, weight)| right[i] += weight * out[q]);
        let mut v = vec![mean; system.pixels.len()];
        system.solve(&right, &mut v)?;
        system.pixels.iter().zip(v).for_each(|(&p, v)| out[p] = v);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaussian elimination with pivoting.
    fn eliminate(mut a: Vec<Vec<f64>>) -> Vec<f64> {
        let n = a.len();
        for k in 0..n {
            let pivot = (k..n).max_by(|&i, &j| a[i][k].abs().total_cmp(&a[j][k].abs())).unwrap();
            a.swap(k, pivot);
            let row = a[k].clone();
            for (_, other) in a.iter_mut().enumerate().filter(|(i, _)| *i != k) {
                let f = other[k] / row[k];
                other.iter_mut().zip(&row).skip(k).for_each(|(v, r)| *v -= f * r);
            }
        }
        (0..n).map(|k| a[k][n] / a[k][k]).collect()
    }

    #[test]
    fn removed_pixels_solve_their_equations() {
        let (h, w) = (6, 7);
        let values: Vec<f64> = (0..2 * h * w).map(|i| f64::from((i * i % 23) as u32) - 9.0).collect();
        // An isolated pixel, a corner, and a hole with pixels that have no known neighbour.
        let removed: Vec<bool> =
            (0..h * w).map(|p| p == 0 || p == 6 || ((2..6).contains(&(p / w)) && p % w < 5)).collect();
        let filled = impute(&values, [h, w], &removed).unwrap();
        for c in 0..2 {
            // Every pixel is an unknown; the known ones have an equation of their own.
            let n = h * w;
            let mut a = vec![vec![0.0; n + 1]; n];
            for p in 0..n {
                a[p][p] = 1.0;
                if !removed[p] {
                    a[p][n] = values[c * n + p];
                    continue;
                }
                let (mut total, mut near) = (0.0, Vec::new());
                for q in 0..n {
                    let (dy, dx) = ((p / w).abs_diff(q / w), (p % w).abs_diff(q % w));
                    let weight = match (dy, dx) {
                        (1, 1) => 1.0 / 12.0,
                        (0, 1) | (1, 0) => 1.0 / 6.0,
                        _ => continue,
                    };
                    total += weight;
                    near.push((q, weight));
                }
                near.iter().for_each(|&(q, weight)| a[p][q] = -weight / total);
            }
            for (p, want) in eliminate(a).iter().enumerate() {
                let is = filled[c * n + p];
                assert!((is - want).abs() < 1e-7, "{c} {p}: {is} {want}");
                assert!(removed[p] || is == values[c * n + p]);
            }
        }
    }

    #[test]
    fn planes_are_continued_and_nothing_is_not() {
        // A ramp satisfies every equation inside the picture.
        let ramp: Vec<f64> = (0..63).map(|i| f64::from(i % 9) * 2.0 + f64::from(i / 9)).collect();
        let removed: Vec<bool> = (0..63).map(|p| (1..6).contains(&(p / 9)) && (1..8).contains(&(p % 9))).collect();
        let filled = impute(&ramp, [7, 9], &removed).unwrap();
        assert!(filled.iter().zip(&ramp).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(impute(&ramp, [7, 9], &[false; 63]).unwrap(), ramp);
        assert!(impute(&ramp, [7, 9], &[true; 63]).is_err());
        assert!(impute(&ramp, [7, 9], &[true; 62]).is_err());
        assert_eq!(impute(&[0.0; 4], [2, 2], &[true, true, true, false]).unwrap(), [0.0; 4]);
        assert_eq!(impute(&[5.0; 4], [2, 2], &[true, true, true, false]).unwrap(), [5.0; 4]);
    }
}
