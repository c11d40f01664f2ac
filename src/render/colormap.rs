//! The two palettes, interpolated between a few colours in Oklab, where equal steps look equal.
//!
//! Oklab: Björn Ottosson, "A perceptual color space for image processing", 2020.

use std::sync::LazyLock;

use serde::Serialize;

/// Colours for a map's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Palette {
    /// Blue through near-white to red, for -1 to 1: equal magnitudes are equally light, whatever their sign.
    Diverging,
    /// Near-black through violet and orange to pale yellow, for 0 to 1: lightness increases evenly.
    Sequential,
}

/// Entries of a table; odd, so that zero has its own entry in the middle of the diverging palette.
const ENTRIES: usize = 257;

type ColourTable = [[u8; 3]; ENTRIES];

/// Lightness, chroma and hue (degrees) in Oklab.
type Lch = [f64; 3];

/// From blue to the neutral middle; the red arm mirrors its lightness.
const COLD: [Lch; 4] = [[0.38, 0.150, 264.0], [0.56, 0.150, 256.0], [0.77, 0.095, 244.0], [0.97, 0.0, 0.0]];
const WARM: [Lch; 4] = [[0.38, 0.150, 24.0], [0.56, 0.180, 28.0], [0.77, 0.110, 44.0], [0.97, 0.0, 0.0]];
const HEAT: [Lch; 6] = [
    [0.13, 0.030, 285.0],
    [0.30, 0.130, 295.0],
    [0.47, 0.180, 340.0],
    [0.64, 0.190, 25.0],
    [0.80, 0.150, 65.0],
    [0.97, 0.070, 105.0],
];

fn lab([l, c, h]: Lch) -> [f64; 3] {
    let (sin, cos) = h.to_radians().sin_cos();
    [l, c * cos, c * sin]
}

fn srgb([l, a, b]: [f64; 3]) -> [u8; 3] {
    let cone = |p: f64, q: f64| (l + p * a + q * b).powi(3);
    let (l, m, s) = (
        cone(0.396_337_777_4, 0.215_803_757_3),
        cone(-0.105_561_345_8, -0.063_854_172_8),
        cone(-0.089_484_177_5, -1.291_485_548_0),
    );
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ];
    linear.map(|v| {
        let v = v.clamp(0.0, 1.0);
        let coded = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (coded * 255.0).round() as u8
    })
}

/// The colour at lightness `l` between `anchors`, whose lightness increases.
fn between(anchors: &[Lch], l: f64) -> [u8; 3] {
    let i = anchors[1..anchors.len() - 1].iter().take_while(|a| a[0] < l).count();
    let (from, to) = (lab(anchors[i]), lab(anchors[i + 1]));
    let t = (l - from[0]) / (to[0] - from[0]);
    srgb([0, 1, 2].map(|k| from[k] + t * (to[k] - from[k])))
}

fn along(anchors: &[Lch], t: f64) -> [u8; 3] {
    let (dark, light) = (anchors[0][0], anchors[anchors.len() - 1][0]);
    between(anchors, dark + t * (light - dark))
}

static DIVERGING: LazyLock<ColourTable> = LazyLock::new(|| {
    let middle = (ENTRIES / 2) as f64;
    std::array::from_fn(|i| {
        let t = i as f64 / middle - 1.0;
        along(if t < 0.0 { &COLD } else { &WARM }, 1.0 - t.abs())
    })
});

static SEQUENTIAL: LazyLock<ColourTable> =
    LazyLock::new(|| std::array::from_fn(|i| along(&HEAT, i as f64 / (ENTRIES - 1) as f64)));

impl Palette {
    /// The colour of `value`: -1 to 1 for [`Diverging`](Palette::Diverging), 0 to 1 for
    /// [`Sequential`](Palette::Sequential); values outside get the end's colour.
    pub fn colour(self, value: f64) -> [u8; 3] {
        let (table, t) = match self {
            Palette::Diverging => (&*DIVERGING, (value + 1.0) / 2.0),
            Palette::Sequential => (&*SEQUENTIAL, value),
        };
        // A NaN becomes entry 0.
        table[((t * (ENTRIES - 1) as f64).round() as usize).min(ENTRIES - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oklab lightness of an sRGB colour.
    fn lightness(colour: [u8; 3]) -> f64 {
        let [r, g, b] = colour.map(|v| {
            let v = f64::from(v) / 255.0;
            if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        });
        let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s
    }

    #[test]
    fn lightness_is_monotone_on_each_arm() {
        let light: Vec<f64> = (0..ENTRIES).map(|i| lightness(SEQUENTIAL[i])).collect();
        assert!(light.is_sorted(), "{light:?}");
        let step = (light[ENTRIES - 1] - light[0]) / (ENTRIES - 1) as f64;
        assert!(light.windows(9).all(|w| ((w[8] - w[0]) / step - 8.0).abs() < 2.0));
        let light: Vec<f64> = (0..ENTRIES).map(|i| lightness(DIVERGING[i])).collect();
        let (cold, warm) = (&light[..=128], &light[128..]);
        assert!(cold.is_sorted());
        assert!(warm.is_sorted_by(|a, b| a >= b));
        for k in 0..=128 {
            assert!((light[128 - k] - light[128 + k]).abs() < 0.008, "{k}: {} {}", light[128 - k], light[128 + k]);
        }
    }

    #[test]
    fn zero_is_neutral_and_ends_hold() {
        let [r, g, b] = Palette::Diverging.colour(0.0);
        assert!(r == g && g == b && r > 240);
        let (cold, warm) = (Palette::Diverging.colour(-1.0), Palette::Diverging.colour(1.0));
        assert!(cold[2] > cold[0] && warm[0] > warm[2]);
        for palette in [Palette::Diverging, Palette::Sequential] {
            assert_eq!(palette.colour(7.0), palette.colour(1.0));
            assert_eq!(palette.colour(f64::NAN), palette.colour(-1.0));
        }
    }
}
