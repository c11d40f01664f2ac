//! [`Map`]: the raw result of a saliency method, and the named rescalings that pictures and metrics apply to it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Whether a map's sign means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// Positive values are evidence for the target, negative ones against it.
    Signed,
    /// Only the magnitude matters; no value is negative.
    Unsigned,
    /// Only differences between elements matter: all share an offset that does not depend on the position.
    Relative,
}

/// What a map's elements refer to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// The net's input, `[C, H, W]`, or its pixels, `[H, W]`.
    Input,
    /// The positions of the named layer, `[h, w]`.
    Layer(String),
}

/// The axes of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapDims {
    /// `[C, H, W]`: one number for each number of the net's input. Channels come first, whatever the order in the file
    /// of the net or of the input.
    Channels([usize; 3]),
    /// `[H, W]`: one number for each pixel, or `[h, w]`: for each position of a layer.
    Plane([usize; 2]),
}

impl MapDims {
    /// As in [`Tensor::dims`] of the map's values.
    pub fn dims(&self) -> &[usize] {
        match self {
            MapDims::Channels(dims) => dims,
            MapDims::Plane(dims) => dims,
        }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }
}

/// By how much a method missed its promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// What was promised, such as `completeness`.
    pub promise: Cow<'static, str>,
    /// The miss, in the units of the score.
    pub value: f64,
    /// The miss as a share of what was promised; `None` if that is zero.
    pub relative: Option<f64>,
}

/// Where the score distributed by a relevance method went (for excitation backpropagation: the 1 it starts from). The
/// three fields add up to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// What reached the input, in units of the score: the sum of the map.
    pub input: f64,
    /// What biases and other constants kept.
    pub bias: f64,
    /// What reached neither: absorbed by a stabiliser, or arriving where every contribution is zero.
    pub lost: f64,
}

impl Shares {
    /// The total that was distributed.
    #[must_use]
    pub fn whole(&self) -> f64 {
        self.input + self.bias + self.lost
    }

    /// Input, bias and lost as shares of the whole; `None` if that is zero.
    #[must_use]
    pub fn relative(&self) -> Option<[f64; 3]> {
        let whole = self.whole();
        let shares = [self.input, self.bias, self.lost].map(|part| part / whole);
        shares.iter().all(|share| share.is_finite()).then_some(shares)
    }
}

/// A share in percent, with two significant digits.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent.abs() {
        0.0 => "0 %".into(),
        size if size < 0.001 => format!("{percent:.1e} %"),
        size if size < 1.0 => format!("{percent:.*} %", (1.0 - size.log10().floor()) as usize),
        size if size < 10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// A saliency map as computed by its method.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// `[C, H, W]` or `[h, w]`; raw, never rescaled.
    pub values: Tensor,
    /// Whether the sign means something.
    pub sign: Sign,
    /// What the elements refer to.
    pub space: Space,
    /// Index of the explained class.
    pub target: usize,
    /// The measured gap of the method's promise, if it makes one.
    pub gap: Option<Gap>,
    /// Other quantities that the method measured, by name, most important first.
    pub notes: Vec<(String, f64)>,
    /// How the score was distributed, for methods that distribute it.
    pub shares: Option<Shares>,
    /// The method's id.
    pub method: Cow<'static, str>,
}

/// What a map is besides its numbers; the fields are those of [`Map`].
#[derive(Debug, Clone, PartialEq)]
pub struct MapFacts {
    /// Whether the sign means something.
    pub sign: Sign,
    /// What the elements refer to.
    pub space: Space,
    /// The measured gap of the method's promise, if it makes one.
    pub gap: Option<Gap>,
    /// Other quantities that the method measured, by name, most important first.
    pub notes: Vec<(String, f64)>,
    /// How the score was distributed, for methods that distribute it.
    pub shares: Option<Shares>,
}

impl Map {
    /// The numbers, and everything else that is not known before.
    pub(crate) fn into_facts(self) -> (Tensor, MapFacts) {
        let Map { values, sign, space, gap, notes, shares, .. } = self;
        (values, MapFacts { sign, space, gap, notes, shares })
    }

    /// A map without a measured gap, shares or notes.
    #[must_use]
    pub fn new(values: Tensor, sign: Sign, space: Space, target: usize, method: impl Into<Cow<'static, str>>) -> Self {
        Self { values, sign, space, target, gap: None, notes: Vec::new(), shares: None, method: method.into() }
    }

    /// All zero if no magnitude exceeds `bound`, the rounding error of the terms whose difference the map is; else
    /// unchanged.
    #[must_use]
    pub(crate) fn settled(self, bound: f64) -> Self {
        if (0..self.values.len()).all(|i| self.values.at(i).abs() <= bound) { self.blank() } else { self }
    }

    /// All zero, because there is nothing to explain and nothing that the gap could be relative to.
    #[must_use]
    pub(crate) fn blank(mut self) -> Self {
        self.clear();
        self
    }

    /// As [`Map::blank`], in place.
    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
        if let Some(gap) = &mut self.gap {
            gap.relative = None;
        }
    }

    /// Whether every value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        (0..self.values.len()).all(|i| self.values.at(i) == 0.0)
    }

    /// The notes, including [`ALL_ZERO`] or [`CONSTANT`] if the map is one of these.
    #[must_use]
    pub fn all_notes(&self) -> Vec<(String, f64)> {
        let mut notes = self.notes.clone();
        if self.is_zero() {
            notes.push((ALL_ZERO.into(), 0.0));
        } else if let Some(value) = self.constant() {
            notes.push((CONSTANT.into(), value));
        }
        notes
    }

    /// Refuses a map whose numbers raw files, in single precision, cannot hold.
    #[cfg(any(test, feature = "files"))]
    pub(crate) fn fits_single_precision(&self) -> Result<()> {
        let largest = self.values.to_f64().iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        if (largest as f32).is_finite() && (largest == 0.0 || largest as f32 > 0.0) {
            return Ok(());
        }
        Err(Error::device(format!("the map's numbers reach {largest:e}; raw files are in single precision")))
    }

    /// The value of a map that is equal at all positions, summed over channels if these differ.
    fn constant(&self) -> Option<f64> {
        let [c, h, w] = extents(&self.values).ok()?;
        let (plane, first) = (h * w, |k: usize| self.values.at(k * h * w));
        let flat = plane > 1 && (0..c).all(|k| (1..plane).all(|i| self.values.at(k * plane + i) == first(k)));
        let equal = (1..c).all(|k| first(k) == first(0));
        flat.then(|| if equal { first(0) } else { (0..c).map(first).sum() })
    }
}

/// Note on a map that is zero everywhere; its number is 0.
pub const ALL_ZERO: &str = "all_zero";
/// Note on a map that is equal everywhere but not zero; its number is that value.
pub const CONSTANT: &str = "constant";
/// Note on a map read from a layer with a single position, which cannot localise anything; its number is the value
/// there.
pub const ONE_POSITION: &str = "one_position";

/// How the notes describe a map that highlights nothing: `blank`, `one position` or `the same everywhere`.
#[must_use]
pub fn showing_nothing(notes: &[(String, f64)]) -> Option<&'static str> {
    [(ALL_ZERO, "blank"), (ONE_POSITION, "one position"), (CONSTANT, "the same everywhere")]
        .into_iter()
        .find(|(note, _)| notes.iter().any(|(name, _)| name == note))
        .map(|(_, words)| words)
}

/// `[channels, h, w]` of a map's tensor.
fn extents(values: &Tensor) -> Result<[usize; 3]> {
    let dims = match *values.dims() {
        [h, w] => [1, h, w],
        [c, h, w] => [c, h, w],
        _ => return Err(Error::input(format!("a map has the shape [C,H,W] or [H,W], not {:?}", values.dims()))),
    };
    if dims.contains(&0) {
        return Err(Error::input(format!("a map of shape {:?} is empty", values.dims())));
    }
    Ok(dims)
}

/// One number per pixel: folds the channels with `step`, starting at 0, then applies `finish` with the number of
/// channels.
fn over_channels(
    values: &Tensor,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, usize) -> f64,
) -> Result<Tensor> {
    let [c, h, w] = extents(values)?;
    let numbers = values.to_f64();
    let plane = (0..h * w).map(|i| finish((0..c).fold(0.0, |sum, k| step(sum, numbers[k * h * w + i])), c)).collect();
    Tensor::f64([h, w], plane)
}

/// `[H, W]` in double precision: the sum over channels, sign kept.
///
/// # Errors
/// When `values` is neither `[C, H, W]` nor `[H, W]` (which is returned unchanged), or is empty.
pub fn channel_sum(values: &Tensor) -> Result<Tensor> {
    over_channels(values, |sum, v| sum + v, |sum, _| sum)
}

/// `[H, W]` in double precision: the largest magnitude among the channels. Errors as [`channel_sum`].
pub fn channel_max_abs(values: &Tensor) -> Result<Tensor> {
    over_channels(
        values,
        |max, v| {
            if max.is_nan() {
                max
            } else if v.abs() > max || v.is_nan() {
                v.abs()
            } else {
                max
            }
        },
        |max, _| max,
    )
}

/// `[H, W]` in double precision: the mean magnitude over channels. Errors as [`channel_sum`].
pub fn channel_mean_abs(values: &Tensor) -> Result<Tensor> {
    over_channels(values, |sum, v| sum + v.abs(), |sum, c| sum / c as f64)
}

/// How `[C, H, W]` is reduced to one number per pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// [`channel_sum`].
    Sum,
    /// [`channel_max_abs`].
    MaxAbs,
    /// [`channel_mean_abs`].
    MeanAbs,
}

impl Reduction {
    /// `[H, W]` in double precision; errors as [`channel_sum`].
    pub fn apply(self, values: &Tensor) -> Result<Tensor> {
        match self {
            Reduction::Sum => channel_sum(values),
            Reduction::MaxAbs => channel_max_abs(values),
            Reduction::MeanAbs => channel_mean_abs(values),
        }
    }
}

impl std::fmt::Display for Reduction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reduction::Sum => "channel_sum",
            Reduction::MaxAbs => "channel_max_abs",
            Reduction::MeanAbs => "channel_mean_abs",
        })
    }
}

impl std::str::FromStr for Reduction {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        [Reduction::Sum, Reduction::MaxAbs, Reduction::MeanAbs].into_iter().find(|r| r.to_string() == s).ok_or_else(
            || {
                Error::settings(format!(
                    "no reduction is named '{s}'; there are channel_sum, channel_max_abs and channel_mean_abs"
                ))
            },
        )
    }
}

/// The `percent`-th percentile of the magnitudes, with linear interpolation (NumPy's default).
///
/// # Errors
/// When `values` is empty or holds a NaN, or `percent` is not within 0 to 100.
pub fn percentile_abs(values: &Tensor, percent: f64) -> Result<f64> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(Error::settings(format!("a percentile lies between 0 and 100, not at {percent}")));
    }
    let mut sizes: Vec<f64> = values.to_f64().iter().map(|v| v.abs()).collect();
    if let Some(at) = sizes.iter().position(|v| v.is_nan()) {
        return Err(Error::input(format!("element {at} of the map is not a number")));
    }
    let Some(last) = sizes.len().checked_sub(1) else {
        return Err(Error::input("an empty map has no percentile"));
    };
    let rank = percent / 100.0 * last as f64;
    let below = (rank.floor() as usize).min(last);
    let (_, &mut low, above) = sizes.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Ok(low + (high - low) * (rank - below as f64))
}

/// Clips magnitudes above the `percent`-th percentile to it; signs stay. Errors as [`percentile_abs`].
pub fn winsorise(values: &Tensor, percent: f64) -> Result<Tensor> {
    let limit = percentile_abs(values, percent)?;
    Ok(values.clone().map(|v| v.clamp(-limit, limit)))
}

/// Shifts and scales so that the smallest value becomes 0 and the largest 1; a constant map becomes all 0.
#[must_use]
pub fn unit_range(values: &Tensor) -> Tensor {
    let (low, high) =
        values.to_f64().iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    let range = high - low;
    values.clone().map(|v| if range > 0.0 { (v - low) / range } else { 0.0 })
}

/// Scales so that the largest magnitude becomes 1; zeros stay zero, an all-zero map stays unchanged.
#[must_use]
pub fn symmetric(values: &Tensor) -> Tensor {
    let size = values.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    values.clone().map(|v| if size > 0.0 { v / size } else { 0.0 })
}

/// `[H, W]` as the papers show and measure maps: magnitude, maximum over channels, winsorised at the 95th percentile,
/// shifted and scaled to 0 to 1 (Lu, Guo, Xing, Noble, ICML 2021). Errors as [`channel_sum`] and [`percentile_abs`].
pub fn paper_scale(values: &Tensor) -> Result<Tensor> {
    Ok(unit_range(&winsorise(&channel_max_abs(values)?, 95.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Precision, rounding};

    fn sample() -> Tensor {
        Tensor::f32([2, 1, 3], vec![1.0, -4.0, 0.0, -3.0, 2.0, 0.0]).unwrap()
    }

    #[test]
    fn channels_reduce() {
        assert_eq!(channel_sum(&sample()).unwrap(), Tensor::f64([1, 3], vec![-2.0, -2.0, 0.0]).unwrap());
        assert_eq!(channel_max_abs(&sample()).unwrap(), Tensor::f64([1, 3], vec![3.0, 4.0, 0.0]).unwrap());
        assert_eq!(channel_mean_abs(&sample()).unwrap(), Tensor::f64([1, 3], vec![2.0, 3.0, 0.0]).unwrap());
        for (name, want) in [("channel_sum", -2.0), ("channel_max_abs", 3.0), ("channel_mean_abs", 2.0)] {
            let reduction: Reduction = name.parse().unwrap();
            assert_eq!((reduction.apply(&sample()).unwrap().at(0), reduction.to_string().as_str()), (want, name));
        }
        assert!("sum".parse::<Reduction>().unwrap_err().to_string().contains("channel_sum"));
        let plane = Tensor::f32([1, 2], vec![-5.0, 6.0]).unwrap();
        assert_eq!(channel_sum(&plane).unwrap().to_f64()[..], [-5.0, 6.0]);
        for dims in [vec![4], vec![0, 3], vec![1, 1, 2, 2]] {
            let n = dims.iter().product();
            assert!(channel_sum(&Tensor::f64(dims, vec![1.0; n]).unwrap()).is_err());
        }
        let nan = Tensor::f64([2, 1, 1], vec![f64::NAN, 1.0]).unwrap();
        assert!(paper_scale(&nan).is_err());
    }

    #[test]
    fn what_rounding_leaves_is_zero_and_what_is_small_is_not() {
        let map = |values: Vec<f64>| {
            let values = Tensor::f64([1, values.len()], values).unwrap();
            Map::new(values, Sign::Signed, Space::Input, 0, "occlusion")
        };
        let left = map(vec![1e-14, -3e-15]).settled(rounding(1.0, Precision::F64));
        assert!(left.is_zero() && left.all_notes() == [("all_zero".to_string(), 0.0)]);
        for kept in [map(vec![2e-14, 0.0]).settled(rounding(1.0, Precision::F64)), map(vec![1e-300, 2e-300])] {
            assert!(!kept.is_zero() && kept.all_notes().is_empty());
        }
        // Raw files are in single precision.
        for (largest, fits) in [(3e38, true), (1e39, false), (1e-45, true), (1e-50, false), (0.0, true)] {
            assert_eq!(map(vec![largest, 0.0]).fits_single_precision().is_ok(), fits, "{largest}");
        }
        let flat =
            Map::new(Tensor::f64([2, 1, 2], vec![3.0, 3.0, -1.0, -1.0]).unwrap(), Sign::Signed, Space::Input, 0, "");
        assert_eq!(flat.all_notes(), [("constant".to_string(), 2.0)]);
        assert_eq!(map(vec![-3.0; 4]).all_notes(), [("constant".to_string(), -3.0)]);
        // A vector has no positions.
        let vector = Map::new(Tensor::f64([2, 1, 1], vec![3.0, 3.0]).unwrap(), Sign::Signed, Space::Input, 0, "");
        assert!(vector.all_notes().is_empty());
        let note = |name: &str| (name.to_string(), 0.5);
        assert_eq!(showing_nothing(&[note("copies")]), None);
        assert_eq!(showing_nothing(&[note(CONSTANT), note(ONE_POSITION)]), Some("one position"));
        assert_eq!(showing_nothing(&[note(ONE_POSITION), note(ALL_ZERO)]), Some("blank"));
    }

    #[test]
    fn shares_have_two_digits() {
        let shown = [1.0, 0.5, 0.0321, 0.0012345, 0.000123, 1e-7, 0.0, -2.5].map(percent);
        assert_eq!(shown, ["100 %", "50 %", "3.2 %", "0.12 %", "0.012 %", "1.0e-5 %", "0 %", "-250 %"]);
        let shares = Shares { input: 3.0, bias: -1.0, lost: 2.0 };
        assert_eq!((shares.whole(), shares.relative()), (4.0, Some([0.75, -0.25, 0.5])));
        assert_eq!(Shares { input: 1.0, bias: -1.0, lost: 0.0 }.relative(), None);
    }

    #[test]
    fn percentiles_are_numpys() {
        let t = Tensor::f64([5], vec![-10.0, 1.0, 3.0, -2.0, 4.0]).unwrap();
        // numpy.percentile([10, 1, 3, 2, 4], [0, 25, 60, 95, 100])
        for (p, expected) in [(0.0, 1.0), (25.0, 2.0), (60.0, 3.4), (95.0, 8.8), (100.0, 10.0)] {
            assert!((percentile_abs(&t, p).unwrap() - expected).abs() < 1e-12, "{p}");
        }
        assert!(percentile_abs(&t, 101.0).is_err());
        assert!(percentile_abs(&t, f64::NAN).is_err());
        assert_eq!(winsorise(&t, 50.0).unwrap().to_f64()[..], [-3.0, 1.0, 3.0, -2.0, 3.0]);
    }

    #[test]
    fn ranges_are_met_and_zero_is_no_division() {
        let t = Tensor::f64([4], vec![-2.0, 0.0, 1.0, 6.0]).unwrap();
        assert_eq!(unit_range(&t).to_f64()[..], [0.0, 0.25, 0.375, 1.0]);
        assert_eq!(symmetric(&Tensor::f64([3], vec![-4.0, 0.0, 2.0]).unwrap()).to_f64()[..], [-1.0, 0.0, 0.5]);
        let zeros = Tensor::f32([1, 2, 2], vec![0.0; 4]).unwrap();
        for flat in [unit_range(&zeros), symmetric(&zeros), paper_scale(&zeros).unwrap()] {
            assert!(flat.to_f64().iter().all(|&v| v == 0.0));
        }
    }
}
