//! DANCE (Lu, Guo, Xing, Noble 2021): how much a method's map varies over decoys, i.e. pictures that one of the net's
//! first layers cannot distinguish from the original.

use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, Job, Progress};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Gap, Map, MapDims, Sign, Space};
use crate::method::shared::base::{self, BaseMethod, TOGETHER};
use crate::method::{Context, Entry, METHOD, Method, Parameter, ParameterValues, Promise, When};
use crate::perturb::decoy::{Decoy, DecoyMasks, Generator, Recipe, first_activation};
use crate::program::Statistic;
use crate::tensor::{Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "decoy",
    aliases: &["dance"],
    title: "Decoy-enhanced saliency (DANCE)",
    paper: "Lu, Guo, Xing, Noble 2021: DANCE: Enhancing saliency maps using decoys, ICML",
    summary: "max − min of a method's maps over decoys x̃, which move patches of x as far as ‖F(x̃)−F(x)‖∞ ≤ ε at a layer F \
              allows; the paper leaves solver, layer, ε and stride open: they are this project's own choice, and so is the \
              mask `lattice`",
    passes: "2 of the base for each mask: 8 in all where the layer sees 3×3 pixels, 18 for 7×7 with stride 2, 200 for \
             ConvNeXt; and `iterations` forward and backward up to the layer",
    parameters: &[
        Parameter {
            key: "base",
            unit: METHOD,
            default: "gradient",
            help: "whose maps are compared, with its own parameters in parentheses: base=(smoothgrad:n=8)",
        },
        Parameter {
            key: "layer",
            unit: "a stage or node",
            default: "first",
            help: "whose outputs decoys may hardly change; `first` is the first activation after a convolution, our choice; \
                   where that sees many pixels, as in ConvNeXt, an earlier layer needs far fewer masks",
        },
        Parameter { key: "patch", unit: "pixels", default: "3", help: "side of a patch; 3 is the paper's" },
        Parameter {
            key: "stride",
            unit: "pixels",
            default: "3",
            help: "from one patch to the next; 3 is our choice (the paper: a certain stride)",
        },
        Parameter {
            key: "masks",
            unit: "lattice|patch",
            default: "lattice",
            help: "lattice (ours): patches that the layer sees apart move together, so that few decoys cover the picture; \
                   patch (the paper's form): one patch a decoy",
        },
        Parameter {
            key: "n",
            unit: "patches or all",
            default: "all",
            help: "with masks=patch: all places, or so many of them, drawn",
        },
        Parameter {
            key: "arm",
            unit: "decoys|constant|mean|noise|none",
            default: "decoys",
            help: "for comparison: constant: patches in the picture's mean colour; mean: of the maps over decoys, not their \
                   range; noise: random moves as long as the decoys'; none: the base's own map",
        },
        Parameter {
            key: "epsilon",
            unit: "share of max |F(x)|",
            default: "0.05",
            help: "largest change of an output of the layer, more than 0; our choice",
        },
        Parameter { key: "iterations", unit: "steps", default: "60", help: "of Adam on a patch's pixels; our choice" },
        Parameter { key: "lr", unit: "step size", default: "0.1", help: "of Adam, at most 1e12; our choice" },
    ],
    promises: &[
        (Promise::NotNegative, When::Of(not_negative, "except with arm=mean or none, where the base decides")),
        (Promise::Constraint, When::Of(has_decoys, "except with arm=constant, noise or none")),
    ],
    draws: When::Of(draws, "with arm=noise, with masks=patch and n, and where the base's do"),
    caution: "the range does not say which way a pixel counts; masks=lattice is this project's instance of the paper's masks, \
              not the paper's small set, masks=patch is nearer to it and needs hundreds of times as many decoys; whether \
              decoys do better than noise of their size (arm=noise) is an open question",
    build,
};

fn build(values: &ParameterValues, context: &Context<'_>) -> Result<Box<dyn Method>> {
    let n = match values.text("n")? {
        "all" => None,
        _ => Some(values.count("n")?),
    };
    let masks = match (values.text("masks")?, n) {
        ("lattice", None) => DecoyMasks::Lattice,
        ("lattice", Some(_)) => {
            return Err(Error::settings("decoy:n goes with masks=patch: a lattice has all patches"));
        }
        ("patch", n) => DecoyMasks::Patch(n),
        (other, _) => return Err(Error::settings(format!("decoy:masks={other}: there are lattice and patch"))),
    };
    let (arm, epsilon): (Arm, f64) = (Arm::of(values)?, values.parse("epsilon")?);
    if epsilon == 0.0 && matches!(arm, Arm::Decoys | Arm::Noise) {
        return Err(Error::settings(
            "decoy:epsilon=0: decoys that may change nothing are the picture, so the map can only be blank",
        ));
    }
    let lr = match values.weight("lr") {
        Err(e) if values.parse::<f64>("lr").is_ok_and(|lr| lr > 0.0) => return Err(e),
        _ => values.parse("lr")?,
    };
    let preprocess = context.preprocess;
    Ok(Box::new(Dance {
        base: BaseMethod::new(ENTRY.id, values, context)?,
        layer: values.text("layer")?.into(),
        patch: values.parse("patch")?,
        stride: values.parse("stride")?,
        masks,
        arm,
        epsilon,
        iterations: values.count("iterations")?,
        lr,
        range: [preprocess.black(), preprocess.white()],
        seed: context.seed,
    }))
}

/// The pictures that the base explains, and how their maps are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Decoys,
    Constant,
    Mean,
    Noise,
    None,
}

impl Arm {
    fn of(values: &ParameterValues) -> Result<Self> {
        match values.text("arm")? {
            "decoys" => Ok(Arm::Decoys),
            "constant" => Ok(Arm::Constant),
            "mean" => Ok(Arm::Mean),
            "noise" => Ok(Arm::Noise),
            "none" => Ok(Arm::None),
            other => {
                Err(Error::settings(format!("decoy:arm={other}: there are decoys, constant, mean, noise and none")))
            }
        }
    }

    fn is_range(self) -> bool {
        matches!(self, Arm::Decoys | Arm::Constant | Arm::Noise)
    }
}

fn not_negative(values: &ParameterValues) -> bool {
    Arm::of(values).is_ok_and(Arm::is_range) || base::not_negative(values)
}

fn has_decoys(values: &ParameterValues) -> bool {
    matches!(Arm::of(values), Ok(Arm::Decoys | Arm::Mean))
}

fn draws(values: &ParameterValues) -> bool {
    let patches = values.text("masks").is_ok_and(|m| m == "patch") && values.text("n").is_ok_and(|n| n != "all");
    let arm = Arm::of(values);
    (patches && !matches!(arm, Ok(Arm::None))) || matches!(arm, Ok(Arm::Noise)) || base::draws(values)
}

/// `max_j E(x̃ʲ) − min_j E(x̃ʲ)` (equation 4).
struct Dance {
    base: BaseMethod,
    layer: String,
    patch: usize,
    stride: usize,
    masks: DecoyMasks,
    arm: Arm,
    epsilon: f64,
    iterations: usize,
    lr: f64,
    range: [Vec<f64>; 2],
    seed: u64,
}

/// Most decoys of a picture that are held at once.
const MOST_AT_ONCE: usize = 64;

/// The running aggregate of a picture's maps.
#[derive(Clone)]
struct DecoyFold {
    /// Maximum, or mean so far.
    high: Vec<f64>,
    low: Vec<f64>,
    sign: Sign,
    dims: Vec<usize>,
    patches: usize,
    shrunk: usize,
    moved: f64,
    change: f64,
}

impl DecoyFold {
    fn take(&mut self, map: &Map, arm: Arm, count: usize) {
        let values = map.values.to_f64();
        if self.high.is_empty() {
            let start = |v: f64| vec![v; values.len()];
            (self.high, self.low) = match arm.is_range() {
                true => (start(f64::NEG_INFINITY), start(f64::INFINITY)),
                false => (start(0.0), Vec::new()),
            };
            self.dims = map.values.dims().to_vec();
        }
        self.sign = map.sign;
        if arm.is_range() {
            for ((high, low), &v) in self.high.iter_mut().zip(&mut self.low).zip(values.iter()) {
                *high = high.max(v);
                *low = low.min(v);
            }
        } else {
            self.high.iter_mut().zip(values.iter()).for_each(|(mean, v)| *mean += v / count as f64);
        }
    }

    fn count(&mut self, decoy: &Decoy, count: usize) {
        self.patches += decoy.patches;
        self.shrunk += decoy.shrunk;
        self.moved += decoy.moved / count as f64;
        self.change = self.change.max(decoy.change);
    }
}

impl Method for Dance {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.base.map_dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        if targets.len() != x.len() {
            return Err(Error::settings(format!("{} pictures need one class each, got {targets:?}", x.len())));
        }
        if let Some(target) = targets.iter().find(|t| **t >= graph.classes()) {
            return Err(Error::settings(format!("class {target} of a net with {} classes", graph.classes())));
        }
        if self.arm == Arm::None {
            let maps = self.base.explain(engine, graph, x, targets)?;
            return Ok(maps.into_iter().map(|m| Map::new(m.values, m.sign, m.space, m.target, ENTRY.id)).collect());
        }
        let node = match self.layer.as_str() {
            "first" => first_activation(graph)?,
            name => graph.find(name)?,
        };
        let recipe = Recipe {
            node,
            patch: self.patch,
            stride: self.stride,
            masks: self.masks,
            epsilon: self.epsilon,
            iterations: self.iterations,
            lr: self.lr,
            seed: self.seed,
        };
        let generator = Generator::new(engine, graph, x, self.range.clone(), recipe)?;
        let numbers: Vec<usize> = match self.arm {
            // Both signs of a mask have the same patches.
            Arm::Constant => (0..generator.decoys()).step_by(2).collect(),
            _ => (0..generator.decoys()).collect(),
        };
        let count = numbers.len();
        let all: Vec<(usize, usize)> =
            (0..x.len()).flat_map(|item| numbers.iter().map(move |&number| (item, number))).collect();
        let empty = DecoyFold {
            high: Vec::new(),
            low: Vec::new(),
            sign: Sign::Signed,
            dims: Vec::new(),
            patches: 0,
            shrunk: 0,
            moved: 0.0,
            change: 0.0,
        };
        let mut folds = vec![empty; x.len()];
        // Each copy is made, then explained.
        let mut progress = Progress { method: ENTRY.id, done: 0, total: 2 * all.len(), objective: None };
        engine.progress(&progress);
        // If the device can aggregate, no map of a single decoy needs to be stored.
        let job = self.base.job().filter(|_| self.arm.is_range() && count <= MOST_AT_ONCE);
        if let Some((job, sign)) = job {
            for group in all.chunks((TOGETHER / count).max(1) * count) {
                let first = group.first().map_or(0, |&(item, _)| item);
                let range = first..first + group.len() / count;
                let mut copies = Vec::with_capacity(range.len());
                let bytes = group.len() * x.shape().len() * engine.describe().precision.bytes();
                engine.keeping((ENTRY.id, bytes), |engine| {
                    for decoys in group.chunks(count) {
                        copies.push(self.pictures(engine, &generator, decoys, &mut folds, count)?);
                        progress.done += decoys.len();
                        engine.progress(&progress);
                    }
                    Ok(())
                })?;
                let copies = Copies { perturbation: Perturbation::Others(copies), weights: vec![1.0; count] };
                let job = Job { copies, statistic: Statistic::Range, ..job.clone() };
                // The allocator may still hold the memory of the moved patches, and the device keeps its own while maximum,
                // minimum and their difference are written down.
                let after = 3 * x.len() * x.shape().len() * size_of::<f64>();
                let answer = engine.keeping((ENTRY.id, generator.patch_bytes() + after), |engine| {
                    engine.explain(graph, &job, &x.part(range.clone())?, &targets[range.clone()])
                })?;
                for (fold, map) in folds[range].iter_mut().zip(&answer.maps) {
                    fold.sign = sign;
                    fold.dims = map.dims().to_vec();
                    fold.high = map.to_f64().into_owned();
                    fold.low = vec![0.0; map.len()];
                }
                progress.done += group.len();
                engine.progress(&progress);
            }
            return self.finish(engine, folds, targets, generator.limits(), count);
        }
        // Maximum and minimum of each picture.
        let folded = 2 * x.len() * x.shape().len() * size_of::<f64>();
        let together = engine.together(2 * x.shape().len() * size_of::<f64>(), TOGETHER);
        for chunk in all.chunks(together) {
            let classes: Vec<usize> = chunk.iter().map(|&(item, _)| targets[item]).collect();
            let copies = chunk.len() * x.shape().len() * size_of::<f64>();
            let maps = engine.keeping((ENTRY.id, folded + copies), |engine| {
                let pictures = Batch::of(self.pictures(engine, &generator, chunk, &mut folds, count)?)?;
                progress.done += chunk.len();
                engine.progress(&progress);
                self.base.explain(engine, graph, &pictures, &classes)
            })?;
            for (&(item, _), map) in chunk.iter().zip(&maps) {
                folds[item].take(map, self.arm, count);
            }
            progress.done += chunk.len();
            engine.progress(&progress);
        }
        self.finish(engine, folds, targets, generator.limits(), count)
    }
}

impl Dance {
    /// The finished aggregates, as maps.
    fn finish(
        &self,
        engine: &Engine,
        folds: Vec<DecoyFold>,
        targets: &[usize],
        limits: &[f64],
        count: usize,
    ) -> Result<Vec<Map>> {
        let precision = engine.describe().precision;
        let map = |((fold, &target), &limit): ((DecoyFold, &usize), &f64)| {
            let still = self.arm.is_range()
                && differ_by_rounding(fold.high.iter().copied().zip(fold.low.iter().copied()), precision);
            let values = match self.arm.is_range() {
                true => fold.high.iter().zip(&fold.low).map(|(high, low)| high - low).collect(),
                false => fold.high,
            };
            let mut notes = vec![("copies".into(), count as f64)];
            if self.arm != Arm::Constant {
                notes.push(("shrunk_patches_share".into(), fold.shrunk as f64 / fold.patches.max(1) as f64));
                notes.push(("mean_move_share".into(), fold.moved));
            }
            let over = (fold.change - 1.0).max(0.0);
            let decoys = matches!(self.arm, Arm::Decoys | Arm::Mean);
            let gap = Gap { promise: "constraint".into(), value: over * limit, relative: Some(over) };
            let map = Map {
                gap: decoys.then_some(gap),
                notes,
                ..Map::new(
                    Tensor::rounded(fold.dims, values, precision)?,
                    if self.arm.is_range() { Sign::Unsigned } else { fold.sign },
                    Space::Input,
                    target,
                    ENTRY.id,
                )
            };
            Ok(if still { map.blank() } else { map })
        };
        folds.into_iter().zip(targets).zip(limits).map(map).collect()
    }

    /// The pictures that the base explains in place of some copies.
    fn pictures(
        &self,
        engine: &mut Engine,
        generator: &Generator<'_>,
        chunk: &[(usize, usize)],
        folds: &mut [DecoyFold],
        count: usize,
    ) -> Result<Vec<Tensor>> {
        if self.arm == Arm::Constant {
            let precision = engine.describe().precision;
            return chunk.iter().map(|&(item, number)| generator.constant(item, number, precision)).collect();
        }
        let decoys = generator.make(engine, chunk)?;
        chunk.iter().zip(&decoys).for_each(|(&(item, _), decoy)| folds[item].count(decoy, count));
        match self.arm {
            Arm::Noise => {
                let copies = chunk.iter().zip(&decoys);
                copies.map(|(&(item, number), decoy)| generator.random_moves(item, number, decoy)).collect()
            }
            _ => Ok(decoys.into_iter().map(|d| d.picture).collect()),
        }
    }
}
