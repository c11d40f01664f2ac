//! The picture at which paths start.

use std::path::PathBuf;

use crate::device::Spare;
use crate::engine::Batch;
use crate::error::{Error, Result};
use crate::image::Preprocess;
use crate::random::Stream;
use crate::tensor::{Shape, Tensor};

/// A picture without content.
#[derive(Debug, Clone, PartialEq)]
pub enum Baseline {
    /// 0 in the net's space (the training set's mean colour, if pictures are normalised by it).
    Zero,
    /// A black picture, preprocessed.
    Black,
    /// A white picture, preprocessed.
    White,
    /// The picture's own mean, per channel.
    Mean,
    /// The picture blurred by a Gaussian of this standard deviation in pixels (edge pixels are repeated, the kernel is
    /// cut at 4 σ).
    Blur(f64),
    /// Uniform noise between black and white, drawn by (seed, picture).
    Noise,
    /// One value everywhere, in the net's space.
    Value(f64),
    /// A picture or array of the input's size.
    File(PathBuf),
}

impl std::str::FromStr for Baseline {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let number = |v: &str| {
            v.parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .ok_or_else(|| Error::settings(format!("baseline={s}: '{v}' is not a number")))
        };
        Ok(match s.split_once(':') {
            None => match s {
                "zero" => Baseline::Zero,
                "black" => Baseline::Black,
                "white" => Baseline::White,
                "mean" => Baseline::Mean,
                "noise" => Baseline::Noise,
                _ => {
                    return Err(Error::settings(format!(
                        "no baseline is named '{s}'; there are zero, black, white, mean, noise, blur:SIGMA, value:V, file:PATH"
                    )));
                }
            },
            Some(("blur", v)) => match number(v)? {
                sigma if sigma > 0.0 => Baseline::Blur(sigma),
                sigma => {
                    return Err(Error::settings(format!("baseline=blur:{sigma} needs a positive number of pixels")));
                }
            },
            Some(("value", v)) => Baseline::Value(number(v)?),
            Some(("file", path)) if !path.is_empty() => Baseline::File(path.into()),
            Some((kind, _)) => {
                return Err(Error::settings(format!(
                    "no baseline is named '{kind}:'; there are blur:SIGMA, value:V, file:PATH"
                )));
            }
        })
    }
}

impl Baseline {
    /// One baseline `[C, H, W]` per picture, in the pictures' precision. `file` is the loaded file, if one is named.
    ///
    /// # Errors
    /// When a blur exceeds the pictures' longer side, a file's shape is not the input's, the preprocessing and the
    /// input differ in channels, or a number is not finite in the pictures' precision.
    pub fn tensors(&self, x: &Batch, preprocess: &Preprocess, file: Option<&Tensor>, seed: u64) -> Result<Vec<Tensor>> {
        self.tensors_within(&mut Spare::default(), x, preprocess, file, seed)
    }

    /// As [`Baseline::tensors`], in reused memory as far as one colour goes.
    pub(crate) fn tensors_within(
        &self,
        spare: &mut Spare,
        x: &Batch,
        preprocess: &Preprocess,
        file: Option<&Tensor>,
        seed: u64,
    ) -> Result<Vec<Tensor>> {
        let shape = x.shape();
        if let Baseline::Blur(sigma) = self
            && *sigma > shape.h.max(shape.w) as f64
        {
            return Err(Error::shape(format!(
                "baseline=blur:{sigma:?} blurs over more than the larger side of {shape}"
            )));
        }
        let mut tensors = spare.take(x.len());
        for (i, picture) in x.items().iter().enumerate() {
            let mut values = spare.take(shape.len());
            let mut fill = |colour: &[f64]| colour.iter().for_each(|&v| values.extend((0..shape.plane()).map(|_| v)));
            match self {
                Baseline::Zero => values.resize(shape.len(), 0.0),
                Baseline::Value(v) => values.resize(shape.len(), *v),
                Baseline::Black => fill(&one_a_channel(preprocess.black(), shape)?),
                Baseline::White => fill(&one_a_channel(preprocess.white(), shape)?),
                Baseline::Mean => {
                    for c in 0..shape.c {
                        let plane = || (c * shape.plane()..(c + 1) * shape.plane()).map(|i| picture.at(i));
                        let first = picture.at(c * shape.plane());
                        // Of a constant plane its exact mean, which the sum would miss by rounding.
                        let mean = match plane().all(|v| v == first) {
                            true => first,
                            false => plane().sum::<f64>() / shape.plane() as f64,
                        };
                        fill(&[mean]);
                    }
                }
                Baseline::Blur(sigma) => values.extend(blur(&picture.to_f64(), shape, *sigma)),
                Baseline::Noise => values.extend(noise(x, i, preprocess, Stream::Baseline, (seed, 0))?),
                Baseline::File(path) => {
                    let file = file.ok_or_else(|| Error::settings(format!("{} was not loaded", path.display())))?;
                    if file.dims() != shape.dims() {
                        return Err(Error::input(format!(
                            "{}: a baseline of shape {:?} for inputs of {shape}",
                            path.display(),
                            file.dims()
                        )));
                    }
                    values.extend(file.each());
                }
            }
            let tensor = spare.round(&shape.dims(), values, picture.precision())?;
            if let Some(at) = tensor.first_not_finite() {
                return Err(Error::settings(format!("element {at} of a baseline is {}", tensor.at(at))));
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

fn one_a_channel(values: Vec<f64>, shape: Shape) -> Result<Vec<f64>> {
    if values.len() == shape.c {
        return Ok(values);
    }
    Err(Error::settings(format!("a baseline of {} channels for an input of {}", values.len(), shape.c)))
}

/// Uniform noise between black and white: one draw (seed and number) of a stream for picture `i`, in C order.
///
/// # Errors
/// When the preprocessing and the input differ in channels.
pub(crate) fn noise(
    x: &Batch,
    i: usize,
    preprocess: &Preprocess,
    stream: Stream,
    (seed, n): (u64, u32),
) -> Result<Vec<f64>> {
    let shape = x.shape();
    let (black, white) = (one_a_channel(preprocess.black(), shape)?, one_a_channel(preprocess.white(), shape)?);
    let mut draws = vec![0f32; shape.len()];
    stream.uniforms(seed, x.draws()[i].key, n, &mut draws);
    let draw = |(e, u): (usize, &f32)| {
        let c = e / shape.plane();
        black[c] + (white[c] - black[c]) * f64::from(*u)
    };
    Ok(draws.iter().enumerate().map(draw).collect())
}

/// For each of `size` output elements of a line: the first input element and the weights of it and its successors.
/// Weights beyond an end are added to the end's.
fn line_weights(size: usize, sigma: f64) -> Vec<(usize, Vec<f64>)> {
    let radius = (4.0 * sigma).ceil() as isize;
    let kernel: Vec<f64> = (-radius..=radius).map(|d| (-(d as f64).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let total: f64 = kernel.iter().sum();
    let last = size as isize - 1;
    (0..size as isize)
        .map(|i| {
            let first = (i - radius).max(0);
            let mut weights = vec![0.0; ((i + radius).min(last) - first + 1) as usize];
            for (k, d) in kernel.iter().zip(-radius..) {
                weights[((i + d).clamp(0, last) - first) as usize] += k / total;
            }
            (first as usize, weights)
        })
        .collect()
}

/// The common value of a constant `plane`: its exact mean and blur, which sums would miss by rounding.
fn constant(plane: &[f64]) -> Option<f64> {
    let first = *plane.first()?;
    plane.iter().all(|&v| v == first).then_some(first)
}

/// Separable Gaussian blur; edge pixels are repeated.
pub(crate) fn blur(x: &[f64], shape: Shape, sigma: f64) -> Vec<f64> {
    let (columns, rows) = (line_weights(shape.w, sigma), line_weights(shape.h, sigma));
    let mut out = Vec::with_capacity(x.len());
    for plane in x.chunks(shape.plane()) {
        if constant(plane).is_some() {
            out.extend_from_slice(plane);
            continue;
        }
        let wide: Vec<f64> = plane
            .chunks(shape.w)
            .flat_map(|row| {
                columns
                    .iter()
                    .map(|(first, weights)| weights.iter().zip(&row[*first..]).map(|(k, x)| k * x).sum::<f64>())
            })
            .collect();
        for (first, weights) in &rows {
            let mut row = vec![0.0; shape.w];
            for (k, from) in weights.iter().zip(wide[first * shape.w..].chunks(shape.w)) {
                row.iter_mut().zip(from).for_each(|(sum, x)| *sum += k * x);
            }
            out.extend(row);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess() -> Preprocess {
        let (mean, std) = (vec![0.5, 0.25], vec![0.5, 0.5]);
        Preprocess { resize: 0, crop: [5, 7], mean, std, channels: 2, ..Preprocess::imagenet() }
    }

    fn batch() -> Batch {
        let values = (0..2 * 2 * 35).map(|i| ((i * 37) % 11) as f32 / 4.0 - 1.0).collect();
        Batch::new(&Tensor::f32([2, 2, 5, 7], values).unwrap()).unwrap()
    }

    #[test]
    fn each_baseline_is_what_it_says() {
        let x = batch();
        let of = |s: &str| s.parse::<Baseline>().unwrap().tensors(&x, &preprocess(), None, 3).unwrap();
        assert!(of("zero")[1].to_f64().iter().all(|&v| v == 0.0));
        assert!(of("value:-2")[0].to_f64().iter().all(|&v| v == -2.0));
        assert_eq!(of("black")[0].at(0), -1.0);
        assert_eq!(of("white")[0].at(35), 1.5);
        let noise = of("noise");
        assert_ne!(noise[0], noise[1]);
        assert!(noise[0].to_f64()[35..].iter().all(|&v| (-0.5..=1.5).contains(&v)));
        let mean = of("mean")[1].at(36);
        let want: f64 = x.items()[1].to_f64()[35..].iter().sum::<f64>() / 35.0;
        assert!((mean - want).abs() < 1e-6);
        // Sums of a value that is not a sum of few powers of 2 miss it by rounding.
        let flat = Batch::new(&Tensor::f64([1, 2, 5, 7], vec![0.1; 70]).unwrap()).unwrap();
        let mean = "mean".parse::<Baseline>().unwrap().tensors(&flat, &preprocess(), None, 3).unwrap();
        assert_eq!(mean[0], flat.items()[0]);
    }

    #[test]
    fn blurring_keeps_constants_and_follows_the_definition() {
        let flat = vec![0.75; 2 * 35];
        assert_eq!(blur(&flat, Shape::new(2, 5, 7), 1.3), flat);
        let mut point = vec![0.0; 2 * 35];
        point[35 + 2 * 7 + 3] = 1.0;
        let out = blur(&point, Shape::new(2, 5, 7), 0.5);
        let kernel: Vec<f64> = (-2..=2).map(|d| (-2.0 * f64::from(d * d)).exp()).collect();
        let total: f64 = kernel.iter().sum();
        for y in 0..5 {
            for x in 0..5 {
                let want = kernel[y] * kernel[x] / (total * total);
                assert!((out[35 + y * 7 + x + 1] - want).abs() < 1e-12, "{y} {x}");
            }
        }
        assert!(out[..35].iter().all(|&v| v == 0.0));
    }

    #[test]
    fn unknown_baselines_are_refused() {
        for bad in ["grey", "blur", "blur:0", "blur:x", "value:nan", "file:", "sky:3"] {
            assert!(bad.parse::<Baseline>().is_err(), "{bad}");
        }
    }
}
