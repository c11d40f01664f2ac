//! Draws one map as colours, alone or over its picture.

use serde::Serialize;

use super::colormap::Palette;
use crate::error::{Error, Result};
use crate::image::{Interpolation, Picture};
use crate::map::{self, Map, Sign};
use crate::tensor::resample::{Upsample, upsample};

/// How a map's channels are reduced to one number per pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// The sum for signed maps, the largest magnitude for others.
    #[default]
    Auto,
    /// The sum, with its sign.
    Sum,
    /// The largest magnitude; the sign is lost.
    MaxAbs,
    /// The mean magnitude; the sign is lost.
    MeanAbs,
}

/// The value that gets the colour of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Zero itself.
    #[default]
    Zero,
    /// The smallest value of the map (only for maps without sign).
    Smallest,
}

/// How maps are drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Look {
    /// How channels become one number.
    pub channels: Channels,
    /// Magnitudes above this percentile get the strongest colour; `None`: only the largest does.
    pub percentile: Option<f64>,
    /// The value that gets the colour of zero.
    pub origin: Origin,
    /// `[h, w]` of the result; `None`: the map's own size, or the picture's if drawn over it.
    pub size: Option<[usize; 2]>,
    /// How a map smaller than the result is enlarged; [`Upsample::None`] draws as [`Upsample::Nearest`] does.
    pub upsample: Upsample,
    /// Over a picture: opacity of the map's colour at its strongest value, 0 to 1.
    pub opacity: f64,
    /// Over a picture: desaturation of the picture, 0 to 1, which makes the map's colours stand out.
    pub fade: f64,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            channels: Channels::Auto,
            percentile: Some(99.5),
            origin: Origin::Zero,
            size: None,
            upsample: Upsample::Bilinear,
            opacity: 0.85,
            fade: 0.8,
        }
    }
}

impl Look {
    /// As papers show maps, see [`map::paper_scale`]: magnitude, maximum over channels, clipped at the 95th percentile,
    /// minimum to maximum.
    pub fn paper() -> Self {
        Self { channels: Channels::MaxAbs, percentile: Some(95.0), origin: Origin::Smallest, ..Self::default() }
    }
}

/// A map scaled for its palette.
#[derive(Debug, Clone, PartialEq)]
pub struct Shade {
    /// `[h, w]` values, row by row: -1 to 1 for the diverging palette, 0 to 1 for the sequential one.
    pub values: Vec<f64>,
    /// Rows and columns.
    pub size: [usize; 2],
    /// The palette that fits the map.
    pub palette: Palette,
    /// The map's value at the palette's first colour.
    pub low: f64,
    /// The map's value at the palette's last colour.
    pub high: f64,
}

impl Shade {
    /// The values resized to `size` = `[h, w]`.
    fn at(&self, size: [usize; 2], how: Upsample) -> Result<Vec<f64>> {
        let how = if how == Upsample::None { Upsample::Nearest } else { how };
        if size == self.size { Ok(self.values.clone()) } else { upsample(&self.values, self.size, size, how) }
    }
}

/// `map` reduced to one number per pixel and scaled for its palette. A map of zeros stays one.
///
/// # Errors
/// Input when the map is empty, is neither `[C, H, W]` nor `[H, W]`, or holds a NaN or infinity; settings when the
/// look's percentile is invalid.
pub fn shade(map: &Map, look: &Look) -> Result<Shade> {
    if let Some(at) = map.values.first_not_finite() {
        return Err(Error::input(format!("element {at} of the {} map is not a finite number", map.method)));
    }
    let (plane, palette) = match (look.channels, map.sign) {
        (Channels::Sum | Channels::Auto, Sign::Signed) => (map::channel_sum(&map.values)?, Palette::Diverging),
        (Channels::Sum, Sign::Unsigned) | (Channels::Sum | Channels::Auto, Sign::Relative) => {
            (map::channel_sum(&map.values)?, Palette::Sequential)
        }
        (Channels::MaxAbs, _) | (Channels::Auto, Sign::Unsigned) => {
            (map::channel_max_abs(&map.values)?, Palette::Sequential)
        }
        (Channels::MeanAbs, _) => (map::channel_mean_abs(&map.values)?, Palette::Sequential),
    };
    let &[h, w] = plane.dims() else {
        return Err(Error::input(format!("a map plane of shape {:?}", plane.dims())));
    };
    let values = plane.to_f64();
    let (smallest, largest) =
        values.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &v| (low.min(v), high.max(v.abs())));
    let high = match look.percentile {
        // For a map with few non-zero elements, a percentile may be zero.
        Some(percent) => Some(map::percentile_abs(&plane, percent)?).filter(|&v| v > 0.0).unwrap_or(largest),
        None => largest,
    };
    if map.sign == Sign::Relative {
        let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scaled = |v: f64| if top > smallest { (v - smallest) / (top - smallest) } else { 0.0 };
        let values = values.iter().map(|&v| scaled(v)).collect();
        return Ok(Shade { values, size: [h, w], palette: Palette::Sequential, low: smallest, high: top });
    }
    let low = match (palette, look.origin) {
        (Palette::Diverging, _) => -high,
        (Palette::Sequential, Origin::Zero) => 0.0,
        (Palette::Sequential, Origin::Smallest) => smallest.min(high),
    };
    let scaled = |v: f64| match palette {
        _ if high <= low => 0.0,
        Palette::Diverging => (v / high).clamp(-1.0, 1.0),
        Palette::Sequential => ((v - low) / (high - low)).clamp(0.0, 1.0),
    };
    Ok(Shade { values: values.iter().map(|&v| scaled(v)).collect(), size: [h, w], palette, low, high })
}

/// Largest side that is drawn.
const LARGEST_SIDE: usize = 16_384;

fn checked_size(size: [usize; 2]) -> Result<[usize; 2]> {
    if size.iter().all(|n| (1..=LARGEST_SIDE).contains(n)) {
        return Ok(size);
    }
    Err(Error::settings(format!("a map is drawn at 1 to {LARGEST_SIDE} pixels a side, not at {}x{}", size[0], size[1])))
}

/// `map` as colours alone. Errors as [`shade`], and when the look's size is empty or too large.
pub fn heatmap(map: &Map, look: &Look) -> Result<Picture> {
    let shade = shade(map, look)?;
    let size = checked_size(look.size.unwrap_or(shade.size))?;
    let rgb = shade.at(size, look.upsample)?.iter().flat_map(|&v| shade.palette.colour(v)).collect();
    Picture::new(size[1], size[0], rgb)
}

/// `map` over `view`, the picture in the net's size: the picture is desaturated, and the map's colour covers it more
/// where its magnitude is larger. Errors as [`heatmap`], and when opacity or fade is not within 0 to 1.
pub fn overlay(view: &Picture, map: &Map, look: &Look) -> Result<Picture> {
    for (name, share) in [("opacity", look.opacity), ("fade", look.fade)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::settings(format!("{name} lies between 0 and 1, not at {share}")));
        }
    }
    let shade = shade(map, look)?;
    let [h, w] = checked_size(look.size.unwrap_or([view.height(), view.width()]))?;
    let mut picture = view.resized(w, h, Interpolation::Bicubic)?;
    let grey = picture.grey();
    let values = shade.at([h, w], look.upsample)?;
    for ((pixel, &grey), &value) in picture.rgb_mut().chunks_exact_mut(3).zip(&grey).zip(&values) {
        // Faint values keep a clear hue and are transparent; they do not turn into the palette's neutral colour.
        let size = value.abs();
        let hue = value.signum() * (FAINTEST + (1.0 - FAINTEST) * size);
        let share = look.opacity * size.powf(0.7);
        for (level, tint) in pixel.iter_mut().zip(shade.palette.colour(hue)) {
            let faded = f64::from(*level) + look.fade * (f64::from(grey) - f64::from(*level));
            *level = (faded + share * (f64::from(tint) - faded)).round() as u8;
        }
    }
    Ok(picture)
}

/// Over a picture, the palette position of the faintest value.
const FAINTEST: f64 = 0.35;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Space;
    use crate::tensor::Tensor;

    fn map(dims: &[usize], values: Vec<f32>, sign: Sign) -> Map {
        let values = Tensor::f32(dims, values).unwrap();
        Map::new(values, sign, Space::Input, 0, "made_up")
    }

    #[test]
    fn of_a_relative_map_only_differences_are_drawn() {
        let of = |offset: f32| {
            let values = [0.0f32, 1.0, 2.0, 4.0].map(|v| v + offset).to_vec();
            shade(&map(&[2, 2], values, Sign::Relative), &Look::default()).unwrap()
        };
        assert_eq!(of(10.0).values, [0.0, 0.25, 0.5, 1.0]);
        assert_eq!(of(-3.0).values, of(10.0).values);
        assert_eq!((of(-3.0).low, of(-3.0).high), (-3.0, 1.0));
        let flat = shade(&map(&[1, 2], vec![5.0; 2], Sign::Relative), &Look::default()).unwrap();
        assert_eq!(flat.values, [0.0; 2]);
    }

    #[test]
    fn a_map_of_zeros_is_neutral() {
        let view = Picture::filled(4, 3, [10, 200, 90]).unwrap();
        for (sign, palette) in [(Sign::Signed, Palette::Diverging), (Sign::Unsigned, Palette::Sequential)] {
            let zeros = map(&[3, 3, 4], vec![0.0; 36], sign);
            for look in [Look::default(), Look { percentile: None, ..Look::default() }] {
                let drawn = heatmap(&zeros, &look).unwrap();
                assert_eq!(drawn, Picture::filled(4, 3, palette.colour(0.0)).unwrap());
                let plain = overlay(&view, &zeros, &Look { fade: 0.0, ..look }).unwrap();
                assert_eq!(plain, view);
            }
        }
        assert!(heatmap(&map(&[2, 2], vec![0.0; 4], Sign::Signed), &Look::paper()).is_ok());
    }

    #[test]
    fn signs_take_their_colours_and_outliers_are_cut() {
        let mut values = vec![0.0; 400];
        (values[0], values[1], values[2]) = (-2.0, 2.0, 1000.0);
        let shade = shade(&map(&[20, 20], values, Sign::Signed), &Look::default()).unwrap();
        assert_eq!(shade.palette, Palette::Diverging);
        assert_eq!(shade.high, -shade.low);
        assert!(shade.high < 1000.0 && shade.values[2] == 1.0);
        assert_eq!(shade.values[0], -shade.values[1]);
        assert_eq!(shade.values[5], 0.0);
    }

    #[test]
    fn a_sparse_map_falls_back_to_its_largest_value() {
        let mut values = vec![0.0; 900];
        values[7] = -3.0;
        let shade = shade(&map(&[30, 30], values, Sign::Signed), &Look::default()).unwrap();
        assert_eq!((shade.high, shade.values[7]), (3.0, -1.0));
    }

    #[test]
    fn the_papers_look_is_the_papers_scale() {
        let values: Vec<f32> = (0..60).map(|i| ((i * 37 % 61) as f32 - 30.0) / 7.0).collect();
        let map = map(&[3, 4, 5], values, Sign::Signed);
        let shade = shade(&map, &Look::paper()).unwrap();
        let expected = map::paper_scale(&map.values).unwrap();
        assert!(shade.values.iter().zip(expected.to_f64().iter()).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn small_maps_cover_the_picture() {
        let view = Picture::filled(8, 6, [128; 3]).unwrap();
        let cam = map(&[2, 2], vec![0.0, 1.0, 2.0, 3.0], Sign::Unsigned);
        let drawn = overlay(&view, &cam, &Look::default()).unwrap();
        assert_eq!((drawn.width(), drawn.height()), (8, 6));
        assert_eq!(drawn.pixel(0, 0), Some([128; 3]));
        assert_ne!(drawn.pixel(5, 7), Some([128; 3]));
        let sized = heatmap(&cam, &Look { size: Some([5, 7]), ..Look::default() }).unwrap();
        assert_eq!((sized.width(), sized.height()), (7, 5));
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error() {
        let nan = map(&[1, 2], vec![f32::NAN, 1.0], Sign::Signed);
        assert_eq!(heatmap(&nan, &Look::default()).unwrap_err().kind(), crate::ErrorKind::Input);
        let good = map(&[1, 2], vec![2.0, 1.0], Sign::Signed);
        let view = Picture::filled(2, 1, [0; 3]).unwrap();
        for bad in [
            Look { size: Some([0, 4]), ..Look::default() },
            Look { size: Some([usize::MAX, 4]), ..Look::default() },
            Look { percentile: Some(200.0), ..Look::default() },
            Look { opacity: 1.5, ..Look::default() },
        ] {
            let error = overlay(&view, &good, &bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Settings, "{error}");
        }
    }
}
