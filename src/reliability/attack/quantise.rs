//! Rounds adversarial inputs to pictures of levels.

use super::ball::{PictureLength, linf, plane};
use crate::error::{Error, Result};
use crate::image::{Picture, Preprocess};
use crate::tensor::Tensor;

/// An adversarial input that a picture file can hold.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// The picture, at the net's input size.
    pub picture: Picture,
    /// The net's input made from it: `[C, H, W]`, single precision.
    pub tensor: Tensor,
    /// `max |x′ − x|` in normalised units.
    pub linf: f64,
    /// `max |x′ − x|` in levels.
    pub linf_levels: f64,
}

/// Tolerance for whole levels: the preparation rounds to single precision.
const ROUNDING: f64 = 1e-3;

/// `adversarial` (`[C, H, W]` in the net's space, near `original`) with every element rounded to a level of 0 to 255,
/// towards `original`, so that ε holds for the picture too: in levels if ε is given in levels, else in normalised
/// units.
///
/// # Errors
/// When the tensors are not pictures of equal shape, ε is not a finite number above 0, or some element has no level
/// within ε, which can happen if `original` does not consist of levels.
pub fn quantise(
    original: &Tensor,
    adversarial: &Tensor,
    epsilon: PictureLength,
    preprocess: &Preprocess,
) -> Result<Quantised> {
    preprocess.check()?;
    epsilon.positive("epsilon")?;
    let &[channels, h, w] = original.dims() else {
        return Err(Error::input(format!("an input of shape {:?} is not a picture [C,H,W]", original.dims())));
    };
    if adversarial.dims() != original.dims() || channels != preprocess.channels {
        return Err(Error::input(format!(
            "pictures of shapes {:?} and {:?}, prepared with {} channels",
            original.dims(),
            adversarial.dims(),
            preprocess.channels
        )));
    }
    let plane = plane(preprocess, original.len())?;
    let mut values = Vec::with_capacity(original.len());
    let mut levels: f64 = 0.0;
    for i in 0..original.len() {
        let c = i / plane;
        let (x, y) = (original.at(i), adversarial.at(i));
        let level = toward(x, y, epsilon, c, preprocess).ok_or_else(|| {
            Error::input(format!(
                "element {i} of the input is not made of levels 0 to 255: none lies within {epsilon} of it"
            ))
        })?;
        values.push(preprocess.normalise(c, level));
        levels = levels.max((f64::from(level) - snapped(x, c, preprocess)).abs());
    }
    let tensor = Tensor::f32([channels, h, w], values)?;
    let picture = preprocess.picture(&tensor)?;
    Ok(Quantised { linf: linf(&tensor, original), picture, tensor, linf_levels: levels })
}

/// The level, not necessarily whole, whose preparation gives `v`.
fn snapped(v: f64, c: usize, preprocess: &Preprocess) -> f64 {
    let t = preprocess.denormalise(c, v);
    if (t - t.round()).abs() < ROUNDING { t.round() } else { t }
}

/// The level nearest to `y` among those between `x` and `y` and within ε of `x`; if there is none, the one nearest to
/// `x`.
fn toward(x: f64, y: f64, epsilon: PictureLength, c: usize, preprocess: &Preprocess) -> Option<u8> {
    let (from, to) = (snapped(x, c, preprocess), snapped(y, c, preprocess));
    let within = |level: f64| {
        (0.0..=255.0).contains(&level)
            && match epsilon {
                PictureLength::Levels(most) => (level - from).abs() <= most,
                PictureLength::Normalised(most) => (f64::from(preprocess.normalise(c, level as u8)) - x).abs() <= most,
            }
    };
    let nearest = from.round().clamp(0.0, 255.0);
    let (mut level, back) = if to >= from { (to.floor(), -1.0) } else { (to.ceil(), 1.0) };
    // An element that moved by less than a level stays.
    if (level - from) * back > 0.0 {
        level = nearest;
    }
    level = level.clamp(0.0, 255.0);
    // One step is enough, because only rounding can put a level outside.
    [level, level + back, nearest].into_iter().find(|&l| within(l)).map(|l| l as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess() -> Preprocess {
        Preprocess { resize: 0, crop: [16, 16], ..Preprocess::imagenet() }
    }

    #[test]
    fn epsilon_holds_for_levels_and_whole_steps_are_kept() {
        let p = preprocess();
        let levels: Vec<u8> = (0..768).map(|i| (i % 256) as u8).collect();
        let original = p.from_u8(&levels, 16, 16).unwrap().tensor;
        for (epsilon, whole) in
            [(PictureLength::Levels(8.0), 8.0), (PictureLength::Levels(2.5), 2.0), (PictureLength::Levels(0.5), 0.0)]
        {
            let ball = super::super::Ball::around(&original, epsilon, &p).unwrap();
            for push in [-1.0, 1.0] {
                let mut moved: Vec<f64> = original.to_f64().iter().map(|v| v + push).collect();
                ball.project(&mut moved);
                let q = quantise(&original, &ball.tensor(&moved).unwrap(), epsilon, &p).unwrap();
                let back = p.from_u8(
                    &(0..3).flat_map(|c| q.picture.rgb().iter().skip(c).step_by(3).copied()).collect::<Vec<u8>>(),
                    16,
                    16,
                );
                assert_eq!(back.unwrap().tensor, q.tensor);
                for (i, &level) in levels.iter().enumerate() {
                    let now = f64::from(q.picture.rgb()[(i % 256) * 3 + i / 256]);
                    let expected = (f64::from(level) + push * whole).clamp(0.0, 255.0);
                    assert_eq!(now, expected, "{level}");
                }
                assert!((q.linf_levels - whole).abs() < 1e-3, "{}", q.linf_levels);
            }
        }
    }

    #[test]
    fn normalised_sizes_hold_exactly() {
        let p = preprocess();
        let levels: Vec<u8> = (0..768).map(|i| (i % 256) as u8).collect();
        let original = p.from_u8(&levels, 16, 16).unwrap().tensor;
        for e in [0.0171, 0.05, 0.137, 3.0 / 255.0 / 0.225] {
            let epsilon = PictureLength::Normalised(e);
            let ball = super::super::Ball::around(&original, epsilon, &p).unwrap();
            for push in [-1.0, 1.0, 0.01] {
                let mut moved: Vec<f64> = original.to_f64().iter().map(|v| v + push).collect();
                ball.project(&mut moved);
                let q = quantise(&original, &ball.tensor(&moved).unwrap(), epsilon, &p).unwrap();
                assert!(q.linf <= e, "{} > {e}", q.linf);
            }
        }
    }

    #[test]
    fn numbers_between_levels_are_refused_where_no_level_is_near() {
        let p = preprocess();
        let off = Tensor::f32([3, 1, 1], [0, 1, 2].map(|c| (p.normalise(c, 7) + p.normalise(c, 8)) / 2.0).to_vec());
        let off = off.unwrap();
        let error = quantise(&off, &off, PictureLength::Levels(0.25), &p).unwrap_err();
        assert!(error.to_string().contains("levels"), "{error}");
        let near = quantise(&off, &off, PictureLength::Levels(0.75), &p).unwrap();
        assert!(near.linf_levels < 0.51);
        assert!(quantise(&off, &Tensor::f32([3], vec![0.0; 3]).unwrap(), PictureLength::Levels(1.0), &p).is_err());
    }
}
