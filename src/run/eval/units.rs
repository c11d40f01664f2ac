//! The units of an evaluation: pictures, or mosaics of them.

use crate::data::LabelledData;
use crate::error::{Error, Result};
use crate::reliability::mosaic::{self, Pool};
use crate::report::Stamp;
use crate::run::settings::fingerprint;
use serde_json::json;

/// The kind of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// The data.
    Pictures,
    /// The data, with boxes.
    Boxed,
    /// Mosaics of the data.
    Mosaics {
        /// Number of mosaics.
        count: usize,
        /// Size of a mosaic.
        size: mosaic::MosaicSize,
    },
}

impl UnitKind {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            UnitKind::Pictures | UnitKind::Boxed => "pictures",
            UnitKind::Mosaics { size: mosaic::MosaicSize::Native, .. } => "mosaics, native size",
            UnitKind::Mosaics { size: mosaic::MosaicSize::Double, .. } => "mosaics, double size",
        }
    }
}

/// The origin of a unit's pixels, as positions in the data.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// One picture.
    Picture(usize),
    /// Four pictures in one.
    Mosaic {
        /// Number of the mosaic.
        number: usize,
        /// Top left, top right, bottom left, bottom right.
        cells: [usize; mosaic::CELLS],
        /// Size of the mosaic.
        size: mosaic::MosaicSize,
    },
}

/// One picture to evaluate.
#[derive(Debug)]
pub struct Unit {
    /// Its name in its line.
    pub input: String,
    /// Row of an array, or number of the mosaic.
    pub index: Option<usize>,
    /// The pictures of a mosaic.
    pub parts: Vec<String>,
    /// The origin of its pixels.
    pub content: Content,
    /// Fingerprint of everything that its results depend on, except its pixels.
    pub settings: String,
    /// Its files' stamps when they were found.
    pub stamps: Vec<Option<Stamp>>,
}

impl Unit {
    /// Its name in messages.
    pub fn name(&self) -> String {
        self.index.map_or_else(|| self.input.clone(), |i| format!("{}[{i}]", self.input))
    }
}

/// All units, in order.
#[derive(Debug)]
pub struct Units {
    /// The units.
    pub all: Vec<Unit>,
}

impl Units {
    /// Lists the units; `common` are the settings that all results depend on.
    ///
    /// # Errors
    /// When there are no pictures, or too few classes for mosaics.
    pub fn new(data: &LabelledData, kind: UnitKind, seed: u64, common: &serde_json::Value) -> Result<Self> {
        if data.examples.is_empty() {
            return Err(Error::settings("--data: there is no picture"));
        }
        let all = match kind {
            UnitKind::Pictures | UnitKind::Boxed => {
                (0..data.examples.len()).map(|at| Self::picture(data, at, common)).collect()
            }
            UnitKind::Mosaics { count, size } => Self::mosaics(data, count, size, seed, common)?,
        };
        Ok(Self { all })
    }

    fn picture(data: &LabelledData, at: usize, common: &serde_json::Value) -> Unit {
        let example = &data.examples[at];
        let source = &data.sources[example.source];
        let boxes = data.boxes.as_ref().map(|boxes| {
            let drawn = boxes.of(source, example.row);
            drawn.map(|all| all.iter().map(|b| format!("{}:{:?}", b.class, b.edges)).collect::<Vec<_>>())
        });
        let own = json!({ "common": common, "class": example.class, "boxes": boxes });
        Unit {
            input: source.shown.clone(),
            index: example.row,
            parts: Vec::new(),
            content: Content::Picture(at),
            settings: fingerprint(&own),
            stamps: vec![source.stamp],
        }
    }

    fn mosaics(
        data: &LabelledData,
        count: usize,
        size: mosaic::MosaicSize,
        seed: u64,
        common: &serde_json::Value,
    ) -> Result<Vec<Unit>> {
        let usable = data.examples.iter().enumerate();
        let usable: Vec<(usize, usize)> =
            usable.filter_map(|(at, e)| Some((at, e.class.clone().ok().flatten()?))).collect();
        let classes: Vec<usize> = usable.iter().map(|&(_, class)| class).collect();
        let pool = Pool::new(&classes).map_err(|e| {
            // The first error is the likely cause.
            match data.examples.iter().find_map(|e| e.class.clone().err()) {
                Some(why) => Error::settings(format!("{e}; {why}")),
                None => e,
            }
        })?;
        let unit = |number: usize| {
            let drawn = pool.draw(number as u32, seed);
            let cells = drawn.map(|i| usable[i].0);
            let own = json!({ "common": common, "classes": drawn.map(|i| usable[i].1) });
            Unit {
                input: "mosaic".into(),
                index: Some(number),
                parts: cells.iter().map(|&at| data.name(&data.examples[at])).collect(),
                content: Content::Mosaic { number, cells, size },
                settings: fingerprint(&own),
                stamps: cells.iter().map(|&at| data.sources[data.examples[at].source].stamp).collect(),
            }
        };
        Ok((0..count).map(unit).collect())
    }
}
