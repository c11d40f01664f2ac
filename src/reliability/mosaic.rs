//! Mosaics of four pictures of different classes, in which the location of each class is known without annotated boxes
//! (grid pointing game: Böhle, Fritz, Schiele 2021: Convolutional dynamic alignment networks, CVPR).

use std::collections::BTreeMap;

use super::localisation::{Bounds, Region};
use crate::error::{Error, Result};
use crate::image::{Interpolation, Picture};
use crate::random::Stream;

/// Pictures of a mosaic: top left, top right, bottom left, bottom right.
pub const CELLS: usize = 4;

/// The size of a mosaic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MosaicSize {
    /// The size of one picture, each of the four at half its sides; suits every net.
    #[default]
    Native,
    /// Twice a picture's sides, each of the four unscaled: the usual form of the grid pointing game, only for nets that
    /// take any size.
    Double,
}

/// Pictures by class, from which mosaics are drawn.
#[derive(Debug, Clone)]
pub struct Pool {
    by_class: BTreeMap<usize, Vec<usize>>,
}

impl Pool {
    /// A pool of pictures 0, 1, 2 … with classes `classes[0]`, `classes[1]` …
    ///
    /// # Errors
    /// Settings when there are fewer than four classes.
    pub fn new(classes: &[usize]) -> Result<Self> {
        let mut by_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (picture, &class) in classes.iter().enumerate() {
            by_class.entry(class).or_default().push(picture);
        }
        match by_class.len() {
            n if n < CELLS => {
                Err(Error::settings(format!("a mosaic needs pictures of {CELLS} different classes; there are {n}")))
            }
            _ => Ok(Self { by_class }),
        }
    }

    /// The pictures of mosaic `number`: four different classes, each equally likely, and one picture of each. It does
    /// not depend on how many mosaics are drawn.
    pub fn draw(&self, number: u32, seed: u64) -> [usize; CELLS] {
        let mut order = vec![0.0f32; self.by_class.len()];
        Stream::MosaicClasses.uniforms(seed, 0, number, &mut order);
        let mut classes: Vec<(f32, &Vec<usize>)> = order.into_iter().zip(self.by_class.values()).collect();
        // Stable: of equal numbers, the smaller class comes first.
        classes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut which = [0.0f32; CELLS];
        Stream::MosaicPictures.uniforms(seed, 0, number, &mut which);
        std::array::from_fn(|cell| {
            let pictures = classes[cell].1;
            pictures[((f64::from(which[cell]) * pictures.len() as f64) as usize).min(pictures.len() - 1)]
        })
    }
}

/// The mosaic of four pictures of one size, and the cell of each class. If a side is odd, the lower and right cells get
/// the extra pixel.
///
/// # Errors
/// Input when the pictures differ in size or are too small to be halved.
pub fn compose(
    pictures: [&Picture; CELLS],
    classes: [usize; CELLS],
    size: MosaicSize,
    interpolation: Interpolation,
) -> Result<(Picture, Vec<Region>)> {
    let (h, w) = (pictures[0].height(), pictures[0].width());
    if let Some(odd) = pictures.iter().find(|p| (p.height(), p.width()) != (h, w)) {
        return Err(Error::input(format!("pictures of {h}x{w} and {}x{} in one mosaic", odd.height(), odd.width())));
    }
    if size == MosaicSize::Native && (h < 2 || w < 2) {
        return Err(Error::input(format!("a picture of {h}x{w} has no half")));
    }
    let [rows, columns] = match size {
        MosaicSize::Native => [[h / 2, h - h / 2], [w / 2, w - w / 2]],
        MosaicSize::Double => [[h, h], [w, w]],
    };
    let (height, width) = (rows[0] + rows[1], columns[0] + columns[1]);
    let mut rgb = vec![0; height * width * 3];
    let mut regions = Vec::with_capacity(CELLS);
    for (cell, (picture, class)) in pictures.into_iter().zip(classes).enumerate() {
        let (y, x) = (cell / 2, cell % 2);
        let bounds = Bounds {
            top: if y == 0 { 0 } else { rows[0] },
            left: if x == 0 { 0 } else { columns[0] },
            height: rows[y],
            width: columns[x],
        };
        let part = picture.resized(bounds.width, bounds.height, interpolation)?;
        for (row, line) in part.rgb().chunks_exact(3 * bounds.width).enumerate() {
            let at = ((bounds.top + row) * width + bounds.left) * 3;
            rgb[at..at + line.len()].copy_from_slice(line);
        }
        regions.push(Region { class, bounds });
    }
    Ok((Picture::new(width, height, rgb)?, regions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize, seed: u32) -> Picture {
        let level = |i: usize| ((i as u32 + 7919 * seed).wrapping_mul(2_654_435_761) >> 24) as u8;
        Picture::new(width, height, (0..width * height * 3).map(level).collect()).unwrap()
    }

    /// The contents of a region of the mosaic.
    fn cut(mosaic: &Picture, b: Bounds) -> Vec<[u8; 3]> {
        (0..b.height * b.width).map(|i| mosaic.pixel(b.top + i / b.width, b.left + i % b.width).unwrap()).collect()
    }

    #[test]
    fn regions_hold_what_they_say() {
        let pictures: [Picture; 4] = std::array::from_fn(|i| noise(9, 6, i as u32));
        let all = std::array::from_fn(|i| &pictures[i]);
        let classes = [5, 3, 8, 1];
        let (double, regions) = compose(all, classes, MosaicSize::Double, Interpolation::Bilinear).unwrap();
        assert_eq!((double.height(), double.width()), (12, 18));
        for (picture, (region, class)) in pictures.iter().zip(regions.iter().zip(classes)) {
            assert_eq!(region.class, class);
            assert_eq!(cut(&double, region.bounds).concat(), picture.rgb());
        }
        let (native, regions) = compose(all, classes, MosaicSize::Native, Interpolation::Bilinear).unwrap();
        assert_eq!((native.height(), native.width()), (6, 9));
        let covered: usize = regions.iter().map(|r| r.bounds.height * r.bounds.width).sum();
        assert_eq!(covered, 6 * 9);
        for (picture, region) in pictures.iter().zip(&regions) {
            let b = region.bounds;
            let small = picture.resized(b.width, b.height, Interpolation::Bilinear).unwrap();
            assert_eq!(cut(&native, b).concat(), small.rgb());
        }
        assert_eq!(regions[3].bounds, Bounds { top: 3, left: 4, height: 3, width: 5 });
        let other = noise(8, 6, 9);
        assert!(
            compose([&pictures[0], &other, &other, &other], classes, MosaicSize::Native, Interpolation::Nearest)
                .is_err()
        );
    }

    #[test]
    fn four_classes_are_drawn_evenly_and_by_number() {
        let classes: Vec<usize> = (0..60).map(|i| [0, 2, 2, 4, 7, 7, 7, 9][i % 8]).collect();
        let pool = Pool::new(&classes).unwrap();
        let mut times = [0usize; 10];
        for number in 0..2000 {
            let mut drawn = pool.draw(number, 11).map(|picture| classes[picture]);
            drawn.iter().for_each(|&class| times[class] += 1);
            drawn.sort_unstable();
            assert!(drawn.windows(2).all(|w| w[0] < w[1]), "{drawn:?}");
        }
        // Each of five classes is in four of five mosaics; five standard deviations are 90.
        for class in [0, 2, 4, 7, 9] {
            assert!(times[class].abs_diff(1600) < 90, "{times:?}");
        }
        assert_eq!(pool.draw(5, 11), pool.draw(5, 11));
        assert_ne!(
            (0..9).map(|n| pool.draw(n, 11)).collect::<Vec<_>>(),
            (0..9).map(|n| pool.draw(n, 12)).collect::<Vec<_>>()
        );
        let why = Pool::new(&[1, 2, 3, 3]).unwrap_err();
        assert_eq!(why.kind(), crate::ErrorKind::Settings, "{why}");
    }
}
