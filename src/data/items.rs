//! Inputs, both in the net's space and as viewable pictures.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::{Picture, Placement, Preprocess};
use crate::map::Map;
use crate::model::InputForm;
use crate::tensor::{Shape, Tensor};

use super::arrays::{ArrayFile, Row};
use super::paths;
use super::room::Room;
use super::source::{Source, usable};
use crate::session::Noticed;

/// Largest magnitude of a normalised input that raises no doubt; normalised values are much smaller.
const LARGEST_NORMALISED: f64 = 16.0;

/// The inputs that a net takes.
#[derive(Clone, Copy)]
pub struct NetInput<'a> {
    /// How pictures become inputs.
    pub preprocess: &'a Preprocess,
    /// The inputs for which it was made.
    pub input: InputForm,
    /// The memory bound on inputs.
    pub room: Room,
}

/// One picture or one row of an array.
pub struct Item {
    /// Position of its source.
    pub source: usize,
    /// Row of an array.
    pub row: Option<usize>,
    /// Path relative to the output folder, with which the file names of its results begin.
    pub stem: PathBuf,
    /// Shape of the original, channels first.
    pub dims: Vec<usize>,
    /// Whether the original has its channels last, as the net's file does.
    pub channels_last: bool,
    /// The net's input.
    pub input: Tensor,
    /// The picture over which maps are drawn.
    pub view: Option<Picture>,
    /// Where the picture's pixels are in the net's input; `None` for numbers that were never a picture.
    pub placement: Option<Placement>,
    /// Its class, if the array's file gives it.
    pub label: Option<usize>,
    /// Remarks made while it was read.
    pub noticed: Noticed,
}

impl Item {
    /// Decodes and prepares a picture file.
    pub fn picture(at: usize, source: &Source, net: NetInput) -> Result<Self> {
        usable(source)?;
        takes_pictures(net.preprocess)?;
        Self::decoded(at, source, &net.room.open_picture(&source.path)?, net)
    }

    /// Prepares a picture that is in memory; `source` names it.
    ///
    /// # Errors
    /// When the net takes no pictures.
    pub fn decoded(at: usize, source: &Source, picture: &Picture, net: NetInput) -> Result<Self> {
        takes_pictures(net.preprocess)?;
        let prepared = net.preprocess.apply(picture)?;
        let dims = prepared.tensor.dims().to_vec();
        let input = prepared.tensor.reshape(fit(&dims, net.input.channels_first())?.shape.dims())?;
        let (stem, view, placement) = (source.stem.clone(), Some(prepared.view), Some(prepared.placement));
        let noticed = damage(&source.shown, picture);
        Ok(Self {
            source: at,
            row: None,
            stem,
            dims,
            channels_last: false,
            input,
            view,
            placement,
            label: None,
            noticed,
        })
    }

    /// Row `row` of an array.
    pub fn row(at: usize, source: &Source, array: &mut ArrayFile, row: usize, net: NetInput) -> Result<Self> {
        let within = |e: Error| e.within(format!("{}, row {row}", source.shown));
        let (tensor, shown) = numbers(array, row, net.preprocess).map_err(within)?;
        finite(&tensor).map_err(within)?;
        let form = fit(tensor.dims(), net.input).map_err(within)?;
        let tensor = if form.channels_last { tensor.turned([2, 0, 1]).map_err(within)? } else { tensor };
        let (dims, channels_last) = (tensor.dims().to_vec(), form.channels_last);
        let input = tensor.reshape(form.shape.dims()).map_err(within)?;
        let mut stem = source.stem.clone().into_os_string();
        if !array.is_single() {
            stem.push(format!(".{row}"));
        }
        let (view, placement) = shown.unzip();
        let labels = array.labels().ok().flatten();
        let label = labels.and_then(|labels| usize::try_from(*labels.get(row)?).ok());
        let assumed = array.assumed().map(|what| format!("{}: {what}", source.shown)).into_iter().collect();
        let doubts = if view.is_none() { doubt(&source.shown, &input).into_iter().collect() } else { Vec::new() };
        let noticed = Noticed { assumed, doubts, ..Noticed::default() };
        let stem = stem.into();
        Ok(Self { source: at, row: Some(row), stem, dims, channels_last, input, view, placement, label, noticed })
    }

    /// The picture over which maps are drawn, made from the numbers if the input was not a picture.
    pub fn view(&self, preprocess: &Preprocess) -> Result<Picture> {
        if let Some(view) = &self.view {
            return Ok(view.clone());
        }
        self.pictured(&self.input, preprocess)
    }

    /// Renders other numbers of the item's shape as a picture.
    pub fn pictured(&self, input: &Tensor, preprocess: &Preprocess) -> Result<Picture> {
        preprocess.picture(&input.clone().reshape(self.drawn_dims(preprocess)?)?)
    }

    /// `map` in the picture's shape if it has one number per element of the input.
    pub fn drawn(&self, map: &Map, preprocess: &Preprocess) -> Result<Map> {
        let mut map = map.clone();
        if map.values.len() == self.input.len() {
            map.values = map.values.reshape(self.drawn_dims(preprocess)?)?;
        }
        Ok(map)
    }

    /// A map as a file holds it: in the input's own shape if it has one number per element of it.
    ///
    /// # Errors
    /// Never for a map of this item's input.
    pub fn raw(&self, map: &Map) -> Result<Tensor> {
        if map.values.len() != self.input.len() {
            return Ok(map.values.clone());
        }
        let values = map.values.clone().reshape(self.dims.clone())?;
        if self.channels_last { values.turned([1, 2, 0]) } else { Ok(values) }
    }

    /// Shape `[C, H, W]` of the input as a picture.
    ///
    /// # Errors
    /// When the input is not a picture.
    pub fn drawn_dims(&self, preprocess: &Preprocess) -> Result<[usize; 3]> {
        match *self.dims.as_slice() {
            [c, h, w] => Ok([c, h, w]),
            [n] if n == preprocess.dims().iter().product::<usize>() => Ok(preprocess.dims()),
            _ => Err(Error::settings(format!(
                "an input of shape {:?} cannot be drawn; use --format npy or safetensors",
                self.dims
            ))),
        }
    }
}

/// Reads the tensor at `path` for a method's parameter: a picture, or the first row of an array; with remarks on the
/// file.
///
/// # Errors
/// When the file cannot be read, or holds a number that is not finite.
pub fn load(path: &Path, preprocess: &Preprocess, room: Room) -> Result<(Tensor, Noticed)> {
    let shown = paths::shown(path);
    if ArrayFile::is_array(path) {
        let mut array = ArrayFile::open(path, room)?;
        let (tensor, picture) = numbers(&mut array, 0, preprocess).map_err(|e| e.within(&shown))?;
        finite(&tensor).map_err(|e| e.within(&shown))?;
        let doubts = picture.is_none().then(|| doubt(&shown, &tensor)).flatten().into_iter().collect();
        let assumed = array.assumed().map(|what| format!("{shown}: {what}")).into_iter().collect();
        return Ok((tensor, Noticed { assumed, doubts, ..Noticed::default() }));
    }
    takes_pictures(preprocess)?;
    let picture = room.open_picture(path)?;
    Ok((preprocess.apply(&picture)?.tensor, damage(&shown, &picture)))
}

/// Remarks on the file from which a picture was read.
pub fn damage(shown: &str, picture: &Picture) -> Noticed {
    let warnings = picture.damage().map(|damage| format!("{shown}: {damage}")).into_iter().collect();
    Noticed { warnings, ..Noticed::default() }
}

/// Refuses numbers that are NaN or infinite.
///
/// # Errors
/// Input; the message names the first.
pub fn finite(tensor: &Tensor) -> Result<()> {
    match tensor.first_not_finite() {
        None => Ok(()),
        Some(k) => {
            let what = if tensor.at(k).is_nan() { "NaN" } else { "infinite" };
            Err(Error::input(format!("element {k} is {what}")))
        }
    }
}

fn takes_pictures(preprocess: &Preprocess) -> Result<()> {
    if matches!(preprocess.channels, 1 | 3) {
        return Ok(());
    }
    Err(Error::input(format!("the net takes vectors of {} numbers (.npy), not pictures", preprocess.channels)))
}

fn numbers(
    array: &mut ArrayFile,
    row: usize,
    preprocess: &Preprocess,
) -> Result<(Tensor, Option<(Picture, Placement)>)> {
    match array.row(row)? {
        Row::Normalised(tensor) => Ok((tensor, None)),
        Row::Levels(levels) => {
            takes_pictures(preprocess)?;
            let &[_, h, w] = array.dims() else {
                return Err(Error::input(format!("levels of shape {:?} are not a picture", array.dims())));
            };
            let prepared = preprocess.from_u8(&levels, h, w)?;
            Ok((prepared.tensor, Some((prepared.view, prepared.placement))))
        }
    }
}

/// How an item of shape `dims` becomes an input of a net that was made for `default`; a net on vectors takes pictures of the
/// same length too.
pub fn fit(dims: &[usize], default: InputForm) -> Result<InputForm> {
    let length: usize = dims.iter().product();
    let InputForm { shape, channels_last } = default;
    let vector = shape == Shape::vector(shape.c);
    let first = |shape| Ok(InputForm { shape, channels_last: false });
    match *dims {
        [_] if channels_last && !vector && shape.c > 1 => Err(Error::input(format!(
            "a flat input of {length} numbers: whether channels come first or last is not clear; give its shape"
        ))),
        [_] | [_, _, _] if length == shape.len() && (vector || dims.len() == 1) => first(shape),
        [h, w] if !vector && shape.c == 1 => first(Shape::new(1, h, w)),
        [h, w, c] if !vector && channels_last && c == shape.c => {
            Ok(InputForm { shape: Shape::new(c, h, w), channels_last: true })
        }
        [h, _, c] if !vector && c == shape.c && h != shape.c => Err(Error::input(format!(
            "an input of shape {dims:?} has its channels last; the net takes {shape}, channel x height x width: \
             transpose it"
        ))),
        [c, h, w] if !vector => first(Shape::new(c, h, w)),
        _ => Err(Error::input(format!("an input of shape {dims:?} where the net takes {shape}"))),
    }
}

/// Why an input's numbers, taken as normalised, look like picture levels. `shown` names the file.
pub fn doubt(shown: &str, input: &Tensor) -> Option<String> {
    let numbers = (0..input.len()).map(|k| input.at(k));
    let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    (low >= 0.0 && high > LARGEST_NORMALISED && high <= 255.0).then(|| {
        format!(
            "{shown}: the numbers look like levels from 0 to 255, but arrays are taken as normalised already; save them as u8, \
             or subtract the mean and divide by the std (see `model info`)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_pictures_fit_nets_on_vectors() {
        let vector = Shape::vector(784);
        let fit =
            |dims: &[usize], shape| super::fit(dims, InputForm { shape, channels_last: false }).map(|form| form.shape);
        assert_eq!(fit(&[1, 28, 28], vector).unwrap(), vector);
        assert_eq!(fit(&[784], vector).unwrap(), vector);
        assert_eq!(fit(&[784], Shape::new(1, 28, 28)).unwrap(), Shape::new(1, 28, 28));
        assert_eq!(fit(&[3, 64, 48], Shape::new(3, 32, 32)).unwrap(), Shape::new(3, 64, 48));
        assert!(fit(&[783], vector).is_err() && fit(&[3, 28, 28], vector).is_err());
        let why = fit(&[64, 48, 3], Shape::new(3, 32, 32)).unwrap_err().to_string();
        assert!(why.contains("channels last") && why.contains("channel x height x width"), "{why}");
        assert_eq!(fit(&[3, 5, 3], Shape::new(3, 32, 32)).unwrap(), Shape::new(3, 5, 3));
        // A net whose file has the channels last takes both; where both fit, its own.
        let last = InputForm { shape: Shape::new(3, 32, 32), channels_last: true };
        let turned = |dims: &[usize]| super::fit(dims, last).map(|form| (form.shape, form.channels_last)).unwrap();
        assert_eq!(turned(&[64, 48, 3]), (Shape::new(3, 64, 48), true));
        assert_eq!(turned(&[3, 64, 48]), (Shape::new(3, 64, 48), false));
        assert_eq!(turned(&[3, 5, 3]), (Shape::new(3, 3, 5), true));
    }

    #[test]
    fn levels_are_told_from_normalised_numbers() {
        let doubted = |values: &[f32]| doubt("x.npy", &Tensor::f32([values.len()], values.to_vec()).unwrap()).is_some();
        assert!(doubted(&[0.0, 17.0, 255.0]) && doubted(&[16.5, 200.0]));
        for fine in [&[-2.1, 2.6][..], &[0.0, 1.0], &[0.0, 16.0], &[-1.0, 200.0], &[0.0, 256.0]] {
            assert!(!doubted(fine), "{fine:?}");
        }
    }
}
