//! How far a picture may be moved: the L∞ ball around it, intersected with the range of valid pixels.

use crate::error::{Error, Result};
use crate::image::Preprocess;
use crate::tensor::{Precision, Tensor};

/// A length in the space of pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PictureLength {
    /// In the net's normalised units, the same in every channel.
    Normalised(f64),
    /// In pixel levels (0 to 255): `levels / (255 · std)` of each channel in normalised units.
    Levels(f64),
}

impl PictureLength {
    /// The number, in its own unit.
    pub fn number(self) -> f64 {
        match self {
            PictureLength::Normalised(v) | PictureLength::Levels(v) => v,
        }
    }

    /// The size, checked to be finite and above 0.
    ///
    /// # Errors
    /// When it is not; `name` is the parameter's name for the message.
    pub fn positive(self, name: &str) -> Result<Self> {
        let v = self.number();
        if v > 0.0 && v.is_finite() {
            return Ok(self);
        }
        Err(Error::settings(format!("{name}={self}: it must be a finite number above 0")))
    }

    /// In normalised units, one number per channel.
    pub fn normalised(self, preprocess: &Preprocess) -> Vec<f64> {
        let of = |std: &f64| match self {
            PictureLength::Normalised(v) => v,
            PictureLength::Levels(v) => v / 255.0 / f64::from(*std as f32),
        };
        preprocess.std.iter().map(of).collect()
    }
}

/// `0.03` are normalised units, `8/255` are levels.
impl std::str::FromStr for PictureLength {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let number = |t: &str| {
            t.trim().parse::<f64>().map_err(|_| {
                Error::settings(format!(
                    "'{s}' is neither a number of normalised units nor one of levels such as 8/255"
                ))
            })
        };
        match s.split_once('/') {
            None => Ok(PictureLength::Normalised(number(s)?)),
            Some((levels, "255")) => Ok(PictureLength::Levels(number(levels)?)),
            Some((levels, of)) => {
                let levels = number(levels)?;
                Err(Error::settings(format!("'{s}': levels are written {levels}/255, not {levels}/{of}")))
            }
        }
    }
}

impl std::fmt::Display for PictureLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PictureLength::Normalised(v) => write!(f, "{v}"),
            PictureLength::Levels(v) => write!(f, "{v}/255"),
        }
    }
}

/// Elements per channel of `preprocess` in a picture of `len` numbers.
///
/// # Errors
/// When `len` is not divisible by the channels.
pub(super) fn plane(preprocess: &Preprocess, len: usize) -> Result<usize> {
    let channels = preprocess.std.len().min(preprocess.mean.len());
    if channels > 0 && len > 0 && len.is_multiple_of(channels) {
        return Ok(len / channels);
    }
    Err(Error::settings(format!("a preparation of {channels} channels for an input of {len} numbers")))
}

/// All inputs that differ from a picture by at most ε in every element and hold only valid pixels: each channel between
/// preprocessed 0 and 255. An element of the picture outside this range may stay, or move inwards.
///
/// Bounds have the picture's precision and are rounded towards the picture, so that a projected input satisfies `|x′ −
/// x| ≤ ε` exactly, not just up to rounding.
#[derive(Debug, Clone)]
pub struct Ball {
    dims: Vec<usize>,
    centre: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
    precision: Precision,
}

impl Ball {
    /// The ball around `picture`, `[C, H, W]` in the net's space.
    ///
    /// # Errors
    /// When ε is not a finite number above 0, or the picture's channels differ from those of `preprocess`.
    pub fn around(picture: &Tensor, epsilon: PictureLength, preprocess: &Preprocess) -> Result<Self> {
        let epsilon = epsilon.positive("epsilon")?.normalised(preprocess);
        let plane = plane(preprocess, picture.len())?;
        let (black, white) = (preprocess.black(), preprocess.white());
        let precision = picture.precision();
        let centre = picture.to_f64().into_owned();
        let (mut low, mut high) = (Vec::with_capacity(centre.len()), Vec::with_capacity(centre.len()));
        for (i, &x) in centre.iter().enumerate() {
            let c = i / plane;
            low.push(-inward(-x, epsilon[c], (-black[c]).max(-x), precision));
            high.push(inward(x, epsilon[c], white[c].max(x), precision));
        }
        Ok(Self { dims: picture.dims().to_vec(), centre, low, high, precision })
    }

    /// The picture's numbers.
    pub fn centre(&self) -> &[f64] {
        &self.centre
    }

    /// Rounds `values` to the picture's precision and moves them to the nearest input in the ball.
    pub fn project(&self, values: &mut [f64]) {
        for (v, (&low, &high)) in values.iter_mut().zip(self.low.iter().zip(&self.high)) {
            let rounded = match self.precision {
                Precision::F32 => f64::from(*v as f32),
                Precision::F64 => *v,
            };
            *v = rounded.clamp(low, high);
        }
    }

    /// `values` as a tensor of the picture's shape and precision.
    ///
    /// # Errors
    /// When the number of values is not the picture's.
    pub fn tensor(&self, values: &[f64]) -> Result<Tensor> {
        Tensor::rounded(self.dims.clone(), values.to_vec(), self.precision)
    }

    /// A point of the ball, from draws between 0 (`x − ε`) and 1 (`x + ε`), one per element.
    pub(super) fn at(&self, epsilon: &[f64], plane: usize, draws: &[f32]) -> Vec<f64> {
        let point = |(i, &x): (usize, &f64)| x + epsilon[i / plane] * (2.0 * f64::from(draws[i]) - 1.0);
        let mut values = self.centre.iter().enumerate().map(point).collect::<Vec<f64>>();
        self.project(&mut values);
        values
    }
}

/// The largest number of `precision` that exceeds `x` by at most ε and is at most `most`, which is not below `x`.
fn inward(x: f64, epsilon: f64, most: f64, precision: Precision) -> f64 {
    let goal = (x + epsilon).min(most);
    let fits = |v: f64| v - x <= epsilon && v <= most;
    match precision {
        Precision::F64 => {
            let mut v = goal;
            while !fits(v) && v > x {
                v = v.next_down();
            }
            v.max(x)
        }
        Precision::F32 => {
            let mut v = goal as f32;
            while !fits(f64::from(v)) && f64::from(v) > x {
                v = v.next_down();
            }
            f64::from(v).max(x)
        }
    }
}

/// `max |a − b|`, in the unit of the numbers.
pub fn linf(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64().iter().zip(b.to_f64().iter()).fold(0.0, |most, (a, b)| (a - b).abs().max(most))
}

/// `max |a − b|` in levels of 0 to 255.
///
/// # Errors
/// When the tensors' channels differ from those of `preprocess`.
pub fn linf_levels(a: &Tensor, b: &Tensor, preprocess: &Preprocess) -> Result<f64> {
    let plane = plane(preprocess, a.len())?;
    let scale = |i: usize| f64::from(preprocess.std[i / plane] as f32) * 255.0;
    let (a, b) = (a.to_f64(), b.to_f64());
    let pairs = a.iter().zip(b.iter()).enumerate();
    Ok(pairs.fold(0.0, |most, (i, (a, b))| ((a - b).abs() * scale(i)).max(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess() -> Preprocess {
        Preprocess { resize: 0, crop: [2, 2], ..Preprocess::imagenet() }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!("8/255".parse::<PictureLength>().unwrap(), PictureLength::Levels(8.0));
        assert_eq!("0.03".parse::<PictureLength>().unwrap(), PictureLength::Normalised(0.03));
        assert_eq!(PictureLength::Levels(8.0).to_string(), "8/255");
        for bad in ["8/256", "x", "", "8/", "1e"] {
            assert!(bad.parse::<PictureLength>().is_err(), "{bad}");
        }
        for bad in ["0", "-1/255", "nan", "inf"] {
            assert!(bad.parse::<PictureLength>().unwrap().positive("epsilon").is_err(), "{bad}");
        }
        let sizes = PictureLength::Levels(8.0).normalised(&preprocess());
        assert!((sizes[0] - 8.0 / 255.0 / 0.229).abs() < 1e-8);
    }

    #[test]
    fn projections_keep_to_epsilon_and_to_the_range_exactly() {
        let p = preprocess();
        for precision in [Precision::F32, Precision::F64] {
            let values: Vec<f64> = (0..12).map(|i| f64::from(p.normalise(i / 4, (i * 23) as u8))).collect();
            let picture = Tensor::rounded([3, 2, 2], values, precision).unwrap();
            for epsilon in [
                PictureLength::Levels(8.0),
                PictureLength::Normalised(0.1),
                PictureLength::Normalised(1e-9),
                PictureLength::Normalised(9.0),
            ] {
                let ball = Ball::around(&picture, epsilon, &p).unwrap();
                let each = epsilon.normalised(&p);
                for push in [-1e3, 1e3, -0.0500001, 0.0777777] {
                    let mut moved: Vec<f64> = picture.to_f64().iter().map(|v| v + push).collect();
                    ball.project(&mut moved);
                    let tensor = ball.tensor(&moved).unwrap();
                    assert_eq!(tensor.precision(), precision);
                    for i in 0..12 {
                        let (x, v) = (picture.at(i), tensor.at(i));
                        assert_eq!(v, moved[i]);
                        assert!((v - x).abs() <= each[i / 4], "{v} {x}");
                        assert!(p.black()[i / 4] <= v && v <= p.white()[i / 4]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_outside_may_stay() {
        let p = preprocess();
        let picture = Tensor::f32([3, 1, 1], vec![50.0, -50.0, 0.0]).unwrap();
        let ball = Ball::around(&picture, PictureLength::Normalised(0.5), &p).unwrap();
        let mut up = vec![60.0, 60.0, 60.0];
        ball.project(&mut up);
        assert_eq!(up, [50.0, -49.5, 0.5]);
        assert!(Ball::around(&Tensor::f32([2], vec![0.0; 2]).unwrap(), PictureLength::Normalised(0.5), &p).is_err());
    }
}
