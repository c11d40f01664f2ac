//! Training: cross-entropy, Adam, mini-batches in an order determined by the seed; the best epoch is selected.

use serde::{Deserialize, Serialize};

use super::net::{ATTACKED, CLEAN, Net};
use crate::engine::{Engine, Progress};
use crate::error::{Error, Result};
use crate::optimiser::Adam;
use crate::random::Stream;
use crate::reliability::auc::{ScoredCase, auc};
use crate::tensor::{Shape, Tensor};

/// A stack of maps and its class.
#[derive(Debug, Clone)]
pub struct Example {
    /// `[T, side, side]`.
    pub maps: Tensor,
    /// Whether the picture was attacked.
    pub attacked: bool,
}

/// How a detector is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Most passes over the training samples.
    pub epochs: usize,
    /// Samples per step.
    pub batch: usize,
    /// Learning rate of Adam.
    pub lr: f64,
    /// Training stops after this many epochs without improvement.
    pub patience: usize,
    /// Seed of the initial weights and of the order of samples.
    pub seed: u64,
}

impl Default for Training {
    /// At most 60 epochs in steps of 32 samples, learning rate 0.001, patience 12.
    fn default() -> Self {
        Self { epochs: 60, batch: 32, lr: 1e-3, patience: 12, seed: 0 }
    }
}

/// Mean and standard deviation of each map in a stack over all training samples and positions; stacks are standardised
/// with them before they enter the net.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// One number per map.
    pub mean: Vec<f64>,
    /// One number per map; 1 for a map that never varies.
    pub std: Vec<f64>,
}

impl Scaling {
    /// From `examples`, which all have the shape `[T, h, w]`; duplicates count each time.
    fn of(examples: &[Example], shape: Shape) -> Self {
        let (plane, count) = (shape.plane(), (examples.len() * shape.plane()) as f64);
        let moment = |f: &dyn Fn(usize, f64) -> f64| {
            let mut sums = vec![0.0; shape.c];
            for example in examples {
                for (t, map) in example.maps.to_f64().chunks(plane).enumerate() {
                    sums[t] += map.iter().map(|&v| f(t, v)).sum::<f64>();
                }
            }
            sums.into_iter().map(|s| s / count).collect::<Vec<_>>()
        };
        let mean = moment(&|_, v| v);
        let variance = moment(&|t, v| (v - mean[t]) * (v - mean[t]));
        let std = variance.into_iter().map(|v| if v > 0.0 && v.sqrt() > 0.0 { v.sqrt() } else { 1.0 }).collect();
        Self { mean, std }
    }

    /// `maps` minus the mean, divided by the standard deviation.
    ///
    /// # Errors
    /// When the number of maps in the stack differs.
    pub fn apply(&self, maps: &Tensor) -> Result<Tensor> {
        let &[t, h, w] = maps.dims() else {
            return Err(Error::input(format!("a stack of maps has axes [T, H, W], not {:?}", maps.dims())));
        };
        if t != self.mean.len() {
            return Err(Error::input(format!("a stack of {t} maps where the detector takes {}", self.mean.len())));
        }
        let plane = h * w;
        let values = maps.to_f64();
        let scaled = values.iter().enumerate().map(|(i, v)| (v - self.mean[i / plane]) / self.std[i / plane]).collect();
        Tensor::rounded(maps.dims(), scaled, maps.precision())
    }
}

/// The results of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Mean cross-entropy of the training samples during the epoch, with both classes weighted equally.
    pub loss: f64,
    /// Mean cross-entropy of the validation samples after it, with both classes weighted equally.
    pub validation_loss: f64,
    /// AUC on the validation samples after it.
    pub validation_auc: f64,
}

/// A trained net and its history.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The net after the best epoch.
    pub net: Net,
    /// From the training samples.
    pub scaling: Scaling,
    /// Every epoch that was run.
    pub epochs: Vec<Epoch>,
    /// Index of the best one: largest AUC on the validation samples; of equal ones, the smallest loss.
    pub best: usize,
}

/// Trains a detector on `examples` until the AUC on `validation` has not improved for [`Training::patience`] epochs.
///
/// Clean and attacked samples are weighted equally, whatever their numbers, so the probabilities are those at even
/// odds. The result depends on the samples, their order and the seed, and in the last digits on the engine's kernels;
/// not on threads or memory.
///
/// # Errors
/// When either list lacks clean or attacked samples, shapes differ, a setting is meaningless, or a number is not
/// finite.
pub fn train(
    engine: &mut Engine,
    examples: &[Example],
    validation: &[Example],
    settings: &Training,
) -> Result<Trained> {
    // The samples, and the standardised validation samples.
    let bytes =
        |examples: &[Example]| examples.iter().map(|e| e.maps.len() * e.maps.precision().bytes()).sum::<usize>();
    let kept = bytes(examples) + 2 * bytes(validation);
    engine.keeping(("training", kept), |engine| train_on(engine, examples, validation, settings))
}

fn train_on(engine: &mut Engine, examples: &[Example], validation: &[Example], settings: &Training) -> Result<Trained> {
    let Training { epochs, batch, lr, patience, seed } = *settings;
    if epochs == 0 || batch == 0 || patience == 0 || !(lr > 0.0 && lr.is_finite()) {
        return Err(Error::settings("training needs epochs, batch, patience and a learning rate above 0"));
    }
    let shape = shape(examples.iter().chain(validation))?;
    let (own, others) = (Kinds::of(examples, "training")?, Kinds::of(validation, "validation")?);
    let scaling = Scaling::of(examples, shape);
    let mut net = Net::new(shape, seed)?;
    let mut adam = Adam::new(lr, net.parameters().len());
    let scaled = validation.iter().map(|e| scaling.apply(&e.maps)).collect::<Result<Vec<_>>>()?;
    let mut run: Vec<Epoch> = Vec::new();
    let mut best: Option<(usize, Net)> = None;
    engine.progress(&Progress { method: "training", done: 0, total: epochs, objective: None });
    for epoch in 0..epochs {
        let mut loss = 0.0;
        for members in order(examples.len(), seed, epoch).chunks(batch) {
            let maps = members.iter().map(|&i| scaling.apply(&examples[i].maps)).collect::<Result<Vec<_>>>()?;
            let classes: Vec<usize> = members.iter().map(|&i| class(&examples[i])).collect();
            let weights: Vec<f64> = classes.iter().map(|&c| own.weight(c) / members.len() as f64).collect();
            let (mean, gradient) = net.loss(engine, &maps, &classes, &weights)?;
            loss += mean * members.len() as f64 / examples.len() as f64;
            adam.step(net.parameters_mut(), &gradient);
        }
        let logs = net.log_probabilities(engine, &scaled)?;
        let classes = validation.iter().map(class);
        let cross = logs.iter().zip(classes).map(|(log, c)| -others.weight(c) * log[c]);
        let validation_loss = cross.sum::<f64>() / validation.len() as f64;
        let cases: Vec<ScoredCase> = logs
            .iter()
            .zip(validation)
            .enumerate()
            .map(|(group, (log, e))| ScoredCase { group, positive: e.attacked, score: log[ATTACKED] - log[CLEAN] })
            .collect();
        let validation_auc = auc(&cases)?.unwrap_or(0.5);
        let here = Epoch { loss, validation_loss, validation_auc };
        let better = best.as_ref().is_none_or(|(b, _)| {
            let before = &run[*b];
            (here.validation_auc, -here.validation_loss) > (before.validation_auc, -before.validation_loss)
        });
        run.push(here);
        if better {
            best = Some((epoch, net.clone()));
        }
        engine.progress(&Progress { method: "training", done: epoch + 1, total: epochs, objective: Some(loss) });
        if best.as_ref().is_some_and(|(b, _)| epoch - b >= patience) {
            break;
        }
    }
    let Some((best, net)) = best else { return Err(Error::settings("training needs at least one epoch")) };
    Ok(Trained { net, scaling, epochs: run, best })
}

/// The number of samples of each class.
struct Kinds([usize; 2]);

impl Kinds {
    fn of(examples: &[Example], what: &str) -> Result<Self> {
        let attacked = examples.iter().filter(|e| e.attacked).count();
        let clean = examples.len() - attacked;
        if clean == 0 || attacked == 0 {
            return Err(Error::input(format!(
                "a detector learns from both kinds: there are {clean} clean and {attacked} attacked {what} examples"
            )));
        }
        Ok(Self([clean, attacked]))
    }

    /// Weight of a sample, such that both classes count equally and the mean weight is 1.
    fn weight(&self, class: usize) -> f64 {
        (self.0[CLEAN] + self.0[ATTACKED]) as f64 / (2 * self.0[class]) as f64
    }
}

fn class(example: &Example) -> usize {
    if example.attacked { ATTACKED } else { CLEAN }
}

/// The common shape of all stacks.
fn shape<'a>(examples: impl Iterator<Item = &'a Example>) -> Result<Shape> {
    let mut found = None;
    for example in examples {
        let &[t, h, w] = example.maps.dims() else {
            return Err(Error::input(format!("a stack of maps has axes [T, H, W], not {:?}", example.maps.dims())));
        };
        let shape = Shape::new(t, h, w);
        if *found.get_or_insert(shape) != shape {
            return Err(Error::input(format!("stacks of maps of different shapes, {shape} among them")));
        }
    }
    found.ok_or_else(|| Error::input("there is nothing to train a detector on"))
}

/// Order of `n` samples in an epoch.
fn order(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut draws = vec![0f32; n];
    Stream::DetectorOrder.uniforms(seed, 0, epoch as u32, &mut draws);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| draws[a].total_cmp(&draws[b]));
    order
}
