//! Expected gradients (Erion et al. 2021): integrated gradients averaged over baselines, with one random path point per
//! baseline.

use std::path::{Path, PathBuf};

use crate::engine::{self, Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::from_baseline::{self, Gaps};
use crate::method::{Entry, Method, Parameter, When, numbers_of};
use crate::perturb::baseline;
use crate::program::Score;
use crate::random::{self, Stream};
use crate::tensor::{Tensor, are_equal_but_for_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "expected_gradients",
    aliases: &[],
    title: "Expected gradients",
    paper: "Erion, Janizek, Sturmfels, Lundberg, Lee 2021: Improving performance of deep learning models with axiomatic \
            attribution priors and expected gradients, Nature Machine Intelligence, equation 3",
    summary: "mean over n of (x − b) ∘ g(b + α(x − b)), baseline b drawn anew and α uniform on 0..1 for each",
    passes: "n forward, n backward; n + 1 forward with gap=yes",
    parameters: &[
        Parameter {
            key: "n",
            unit: "samples",
            default: "100",
            help: "pairs of a baseline and a point on the path from it",
        },
        Parameter {
            key: "baselines",
            unit: "noise|FOLDER",
            default: "noise",
            help: "where they are drawn from: uniform noise between black and white, or the pictures and arrays of a folder \
                   (at most 1024; drawn with replacement)",
        },
        from_baseline::gap("measure the completeness gap, n + 1 more forward passes"),
    ],
    promises: &from_baseline::PROMISES,
    draws: When::Always,
    caution: "the gap is a sampling error: it shrinks as one over the root of n; f(baseline) is the mean over the baselines \
              drawn. Noise as the source is our choice",
    build: |values, context| {
        let n = values.count("n")?;
        if n == 0 {
            return Err(Error::settings("expected_gradients:n=0: at least one sample is needed"));
        }
        let source = match values.text("baselines")? {
            "noise" => BaselineSource::Noise,
            folder => BaselineSource::Files(
                files(Path::new(folder))?
                    .into_iter()
                    .map(|path| {
                        let tensor = (context.load)(&path)?;
                        Ok((path, tensor))
                    })
                    .collect::<Result<_>>()?,
            ),
        };
        let (score, seed, gaps) = (context.score, context.seed, Gaps::new(ENTRY.id, values)?);
        Ok(Box::new(ExpectedGradients { score, seed, n, source, preprocess: context.preprocess.clone(), gaps }))
    },
};

/// The source of baselines.
enum BaselineSource {
    Noise,
    Files(Vec<(PathBuf, Tensor)>),
}

struct ExpectedGradients {
    score: Score,
    seed: u64,
    n: usize,
    source: BaselineSource,
    preprocess: Preprocess,
    gaps: Gaps,
}

/// Most pictures in a folder of baselines; all are held in memory.
const MOST_FILES: usize = 1024;

/// Extensions of the files that are taken from a folder; others are ignored.
const EXTENSIONS: &[&str] = &[
    "png",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "jfi",
    "jif",
    "webp",
    "bmp",
    "dib",
    "gif",
    "tif",
    "tiff",
    "ppm",
    "pgm",
    "pbm",
    "pam",
    "pnm",
    "npy",
    "safetensors",
];

/// Pictures and arrays directly in `folder`, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let refuse = |why: String| Error::settings(format!("expected_gradients:baselines={}: {why}", folder.display()));
    if !folder.is_dir() {
        return Err(refuse("neither `noise` nor a folder".into()));
    }
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        // Anything that is not a file is refused when it is read, so nothing is skipped silently.
        if extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    match found.len() {
        0 => Err(refuse("the folder has no picture and no array".into())),
        n if n > MOST_FILES => Err(refuse(format!("{n} files; there can be {MOST_FILES} at most"))),
        _ => Ok(found),
    }
}

/// Samples per call, which bounds the memory however large n is.
const CHUNK: usize = 16;

impl ExpectedGradients {
    /// The baseline of sample `s` for picture `i`, and the position of the point on its path.
    ///
    /// Random elements after those of the picture decide: the first the position, the second the file.
    fn draw(&self, x: &Batch, i: usize, s: u32) -> Result<(Vec<f64>, f64)> {
        let len = x.shape().len();
        let mut behind = [0f32; 2];
        random::fill_uniforms(self.seed, x.draws()[i].key, s, len, &mut behind);
        let [alpha, which] = behind.map(f64::from);
        let values = match &self.source {
            BaselineSource::Noise => baseline::noise(x, i, &self.preprocess, Stream::Copies, (self.seed, s))?,
            BaselineSource::Files(files) => {
                let (path, tensor) = &files[((which * files.len() as f64) as usize).min(files.len() - 1)];
                if tensor.len() != len || (tensor.dims() != x.shape().dims() && tensor.dims().len() > 1) {
                    return Err(Error::input(format!(
                        "{}: a baseline of shape {:?} for inputs of {}",
                        path.display(),
                        tensor.dims(),
                        x.shape()
                    )));
                }
                tensor.to_f64().into_owned()
            }
        };
        Ok((values, alpha))
    }
}

impl Method for ExpectedGradients {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let (dims, precision) = (x.shape().dims(), engine.describe().precision);
        let job = Job::gradient(self.score);
        let len = x.shape().len();
        // Per sample: the point, its baseline and the gradient.
        let chunk = engine.together(3 * len * precision.bytes(), CHUNK);
        let mut maps = Vec::with_capacity(x.len());
        for (i, &target) in targets.iter().enumerate() {
            let picture = x.items()[i].to_f64();
            let mut sum = vec![0.0; picture.len()];
            let (mut here, mut there) = (0.0, 0.0);
            let mut all_equal = true;
            for first in (0..self.n).step_by(chunk) {
                let samples = first..self.n.min(first + chunk);
                // The samples, and picture and sum in double precision.
                let kept = 3 * samples.len() * len * precision.bytes() + 4 * len * size_of::<f64>();
                let (gradients, starts) = engine.keeping((ENTRY.id, kept), |engine| {
                    let (mut points, mut starts) = (Vec::new(), Vec::new());
                    for s in samples.clone() {
                        let (start, alpha) = self.draw(x, i, s as u32)?;
                        let point = picture.iter().zip(&start).map(|(x, b)| b + alpha * (x - b)).collect();
                        points.push(Tensor::rounded(dims, point, precision)?);
                        starts.push(Tensor::rounded(dims, start, precision)?);
                    }
                    let all = vec![target; samples.len()];
                    Ok((engine.explain(graph, &job, &Batch::of(points)?, &all)?.maps, starts))
                })?;
                all_equal = all_equal && starts.iter().all(|start| are_equal_but_for_rounding(&x.items()[i], start));
                for (gradient, start) in gradients.iter().zip(&starts) {
                    let (gradient, start) = (gradient.to_f64(), start.to_f64());
                    let terms = picture.iter().zip(start.iter()).zip(gradient.iter());
                    sum.iter_mut().zip(terms).for_each(|(sum, ((x, b), g))| *sum += (x - b) * g);
                }
                if self.gaps == Gaps::Unmeasured {
                    continue;
                }
                // The picture itself is computed together with its first baselines.
                let picture = (first == 0).then_some(&x.items()[i]);
                let ends: Vec<&Tensor> = starts.iter().chain(picture).collect();
                let scores = engine.keeping((ENTRY.id, kept), |engine| {
                    from_baseline::scores(engine, graph, self.score, ends.iter().copied(), |_| target)
                })?;
                let (of_starts, of_picture) = scores.split_at(starts.len());
                there = of_starts.iter().fold(there, |there, score| there + score);
                here = of_picture.first().copied().unwrap_or(here);
            }
            let n = self.n as f64;
            sum.iter_mut().for_each(|v| *v /= n);
            let whole = vec![sum.iter().sum()];
            let gap = self.gaps.of(engine, whole, |_| Ok(vec![here - there / n]))?.pop().flatten();
            let values = Tensor::rounded(dims, sum, precision)?;
            let map = Map { gap, ..Map::new(values, Sign::Signed, Space::Input, target, ENTRY.id) };
            maps.push(if all_equal { map.blank() } else { map });
        }
        Ok(maps)
    }
}
