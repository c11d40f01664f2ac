//! Occlusion (Zeiler & Fergus 2014): the drop of the score when a window of the picture is covered.

use crate::device::{Boxes, Perturbation, Rectangle};
use crate::engine::{Batch, Engine, Progress};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::probe::{BLOCK, scores};
use crate::method::{Entry, Method, Parameter, When, numbers_of};
use crate::perturb::MOST_COPIES;
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::tensor::Tensor;

pub(crate) const ENTRY: Entry = Entry {
    id: "occlusion",
    aliases: &[],
    title: "Occlusion",
    paper: "Zeiler, Fergus 2014: Visualizing and understanding convolutional networks, ECCV, section 4.2",
    summary: "f(x) − f(x with a window covered), each pixel the mean over the windows that cover it, the same for all channels",
    passes: "1 forward a window, 1 forward",
    parameters: &[
        Parameter {
            key: "window",
            unit: "pixels",
            default: "16",
            help: "side of the square that is covered in all channels; the size is this project's own choice",
        },
        Parameter {
            key: "stride",
            unit: "pixels",
            default: "8",
            help: "from one window to the next, from 0 on until one reaches the far edge, which may cut it; at most the \
                   window; the size is this project's own choice",
        },
        Parameter {
            key: "fill",
            unit: "V|black|white|mean|noise|blur:SIGMA|file:PATH",
            default: "0",
            help: "what covers: one value in the net's space, preprocessed black or white, the picture's mean colour, \
                   uniform noise, the blurred picture, a picture",
        },
    ],
    promises: &[],
    draws: When::With("fill", "noise"),
    caution: "a covered picture is none that the net has learnt; what two windows hold together stays hidden. Pixels near \
              an edge lie in fewer windows",
    build: |values, context| {
        let (window, stride) = (values.count("window")?, values.count("stride")?);
        if window == 0 || stride == 0 || stride > window {
            return Err(Error::settings(format!(
                "occlusion:window={window},stride={stride}: windows need a side and a stride of at least 1, and with a \
                 stride above the side some pixels would never be covered"
            )));
        }
        let fill = match values.text("fill")? {
            text if text.parse::<f64>().is_ok() => format!("value:{text}"),
            text => text.into(),
        };
        let fill: Baseline = fill.parse().map_err(|e: Error| e.within("occlusion:fill"))?;
        let file = match &fill {
            Baseline::File(path) => Some((context.load)(path)?),
            _ => None,
        };
        Ok(Box::new(Occlusion {
            score: context.score,
            window,
            stride,
            fill,
            file,
            preprocess: context.preprocess.clone(),
            seed: context.seed,
        }))
    },
};

/// `f(x) − f(x covered)`, averaged over windows.
struct Occlusion {
    score: Score,
    window: usize,
    stride: usize,
    fill: Baseline,
    file: Option<Tensor>,
    preprocess: Preprocess,
    seed: u64,
}

impl Occlusion {
    /// Windows over `[H, W]`, rows first.
    fn windows(&self, [h, w]: [usize; 2]) -> Result<Vec<Rectangle>> {
        // Windows follow one another until one reaches the far edge.
        let along = |extent: usize| extent.saturating_sub(self.window).div_ceil(self.stride) + 1;
        let (rows, columns) = (along(h), along(w));
        if rows.checked_mul(columns).is_none_or(|n| n > MOST_COPIES) {
            return Err(Error::shape(format!(
                "occlusion: {rows}x{columns} windows; there can be {MOST_COPIES} at most"
            )));
        }
        let size = [self.window; 2];
        let at = |row: usize, column: usize| Rectangle { corner: [row * self.stride, column * self.stride], size };
        Ok((0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect())
    }
}

impl Method for Occlusion {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let shape = x.shape();
        let [h, w] = [shape.h, shape.w];
        let whole = scores(engine, graph, x, targets, self.score, (Perturbation::None, 1))?;
        let fills =
            self.fill.tensors(x, &self.preprocess, self.file.as_ref(), self.seed).map_err(|e| e.within(ENTRY.id))?;
        let windows = self.windows([h, w])?;
        let mut progress = Progress { method: ENTRY.id, done: 0, total: windows.len() * x.len(), objective: None };
        engine.progress(&progress);
        let mut falls = vec![vec![0.0; h * w]; x.len()];
        let mut still = vec![true; x.len()];
        let mut times = vec![0u32; h * w];
        let mut boxes = Boxes { boxes: Vec::new(), fills };
        for block in windows.chunks(BLOCK) {
            boxes.boxes = block.to_vec();
            let perturbation = Perturbation::Boxes(boxes.clone());
            let covered = scores(engine, graph, x, targets, self.score, (perturbation, block.len()))?;
            for (i, still) in still.iter_mut().enumerate() {
                *still = *still && covered[i].iter().all(|covered| covered.equals(whole[i][0]));
            }
            for (k, window) in block.iter().enumerate() {
                let rows = window.corner[0]..h.min(window.corner[0] + window.size[0]);
                let columns = window.corner[1]..w.min(window.corner[1] + window.size[1]);
                for pixel in rows.flat_map(|y| columns.clone().map(move |x| y * w + x)) {
                    times[pixel] += 1;
                    for (i, fall) in falls.iter_mut().enumerate() {
                        fall[pixel] += whole[i][0].score - covered[i][k].score;
                    }
                }
            }
            progress.done += block.len() * x.len();
            engine.progress(&progress);
        }
        let precision = engine.describe().precision;
        let map = |((fall, &target), still): ((Vec<f64>, &usize), bool)| {
            let plane: Vec<f64> = fall.iter().zip(&times).map(|(fall, &n)| fall / f64::from(n)).collect();
            let values = Tensor::rounded(shape.dims(), plane.repeat(shape.c), precision)?;
            let map = Map::new(values, Sign::Signed, Space::Input, target, ENTRY.id);
            Ok(if still { map.blank() } else { map })
        };
        falls.into_iter().zip(targets).zip(still).map(map).collect()
    }
}
