//! Enlarges a small map, such as a class activation map, to the size of the picture.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a small map is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upsample {
    /// Linear on each axis with half-pixel centres, the border repeated: PyTorch's `interpolate(mode="bilinear",
    /// align_corners=False)`.
    #[default]
    Bilinear,
    /// The source element `floor(destination * source extent / destination extent)`.
    Nearest,
    /// The map keeps its size.
    None,
}

impl Upsample {
    /// `[rows, columns]` that [`upsample`] returns for a map of `from` rows and columns if `to` are requested.
    pub fn size(self, from: [usize; 2], to: [usize; 2]) -> [usize; 2] {
        match self {
            Upsample::None => from,
            Upsample::Bilinear | Upsample::Nearest => to,
        }
    }
}

impl std::fmt::Display for Upsample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Upsample::Bilinear => "bilinear",
            Upsample::Nearest => "nearest",
            Upsample::None => "none",
        })
    }
}

impl std::str::FromStr for Upsample {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "bilinear" => Ok(Upsample::Bilinear),
            "nearest" => Ok(Upsample::Nearest),
            "none" => Ok(Upsample::None),
            _ => Err(Error::settings(format!("unknown up-sampling `{s}`: bilinear, nearest or none"))),
        }
    }
}

/// Two neighbouring source elements and the weight of the second, for each destination element of one axis.
pub(crate) fn taps(from: usize, to: usize) -> Vec<(usize, usize, f64)> {
    (0..to).map(|i| tap(from, to, i)).collect()
}

/// Element `i` of [`taps`].
fn tap(from: usize, to: usize, i: usize) -> (usize, usize, f64) {
    let scale = from as f64 / to as f64;
    let at = (scale * (i as f64 + 0.5) - 0.5).max(0.0);
    let low = (at as usize).min(from - 1);
    (low, (low + 1).min(from - 1), at - low as f64)
}

/// Resizes `values` (`from` = `[h, w]`, row by row) to `to` = `[H, W]`; the result has the size [`Upsample::size`].
///
/// # Errors
/// When `values` does not fill `from`, or an extent is zero.
pub fn upsample(values: &[f64], from: [usize; 2], to: [usize; 2], how: Upsample) -> Result<Vec<f64>> {
    let mut out = Vec::new();
    upsample_into(values, from, to, how, &mut out)?;
    Ok(out)
}

/// As [`upsample`], with the result behind what `out` holds.
pub(crate) fn upsample_into(
    values: &[f64],
    from: [usize; 2],
    to: [usize; 2],
    how: Upsample,
    out: &mut Vec<f64>,
) -> Result<()> {
    let ([h, w], [to_h, to_w]) = (from, to);
    if h.checked_mul(w) != Some(values.len()) || values.is_empty() {
        return Err(Error::input(format!("{} numbers are not a map of {h}x{w}", values.len())));
    }
    if to_h == 0 || to_w == 0 {
        return Err(Error::settings(format!("a map cannot be enlarged to {to_h}x{to_w}")));
    }
    let [rows, columns] = how.size(from, to);
    out.reserve(rows * columns);
    match how {
        Upsample::None => out.extend_from_slice(values),
        Upsample::Nearest => {
            out.extend((0..to_h).flat_map(|y| (0..to_w).map(move |x| values[y * h / to_h * w + x * w / to_w])));
        }
        Upsample::Bilinear => {
            for (y0, y1, fy) in (0..to_h).map(|y| tap(h, to_h, y)) {
                let (above, below) = (&values[y0 * w..][..w], &values[y1 * w..][..w]);
                out.extend((0..to_w).map(|x| tap(w, to_w, x)).map(|(x0, x1, fx)| {
                    (1.0 - fy) * ((1.0 - fx) * above[x0] + fx * above[x1])
                        + fy * ((1.0 - fx) * below[x0] + fx * below[x1])
                }));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bilinear_has_half_pixel_centres_and_a_clamped_border() {
        let up = upsample(&[0.0, 4.0], [1, 2], [1, 4], Upsample::Bilinear).unwrap();
        assert_eq!(up, [0.0, 1.0, 3.0, 4.0]);
        // torch.nn.functional.interpolate(torch.arange(6.).reshape(1,1,2,3), (3, 5), mode="bilinear")
        let values: Vec<f64> = (0..6).map(f64::from).collect();
        let up = upsample(&values, [2, 3], [3, 5], Upsample::Bilinear).unwrap();
        let row = [0.0, 0.4, 1.0, 1.6, 2.0];
        for (y, base) in [0.0, 1.5, 3.0].into_iter().enumerate() {
            for (x, r) in row.into_iter().enumerate() {
                assert!((up[y * 5 + x] - base - r).abs() < 1e-12, "{y} {x}: {}", up[y * 5 + x]);
            }
        }
    }

    #[test]
    fn the_same_size_is_the_identity() {
        let values: Vec<f64> = (0..35).map(|i| f64::from(i * i % 17)).collect();
        for how in [Upsample::Bilinear, Upsample::Nearest, Upsample::None] {
            assert_eq!(upsample(&values, [5, 7], [5, 7], how).unwrap(), values, "{how}");
        }
    }

    #[test]
    fn nearest_takes_the_floor() {
        let up = upsample(&[1.0, 2.0, 3.0], [1, 3], [2, 7], Upsample::Nearest).unwrap();
        assert_eq!(up[..7], [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(up[7..], up[..7]);
    }

    #[test]
    fn wrong_extents_are_errors() {
        assert!(upsample(&[1.0; 5], [2, 3], [4, 4], Upsample::Bilinear).is_err());
        assert!(upsample(&[], [0, 3], [4, 4], Upsample::Nearest).is_err());
        assert!(upsample(&[1.0; 6], [2, 3], [0, 4], Upsample::Bilinear).is_err());
        assert_eq!("nearest".parse::<Upsample>().unwrap(), Upsample::Nearest);
        assert!("cubic".parse::<Upsample>().is_err());
    }
}
