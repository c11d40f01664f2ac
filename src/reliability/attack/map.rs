//! Attacks on maps that preserve the prediction (Ghorbani, Abid, Zou 2019; Dombrowski et al. 2019).

use super::ball::{Ball, PictureLength, linf, plane};
use super::field::{Slope, gradients, logits};
use super::objective::{Aim, Magnitude, MapTarget, Objective};
use super::{Adversarial, StartPoint, bytes, check_iterations, start_draws, step};
use crate::device::Perturbation;
use crate::engine::{self, Batch, Copies, Engine, Pullback};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::method::{Course, in_groups};
use crate::perturb::baseline::Baseline;
use crate::perturb::quadrature::Quadrature;
use crate::program::Score;
use crate::rule::Composite;
use crate::score::top;
use crate::tensor::{Precision, Shape, Tensor};

/// The method whose map is attacked, as a function of `ḡ`, a gradient of the score or a mean of gradients.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// `E = g(x)`.
    Gradient,
    /// `E = x ∘ g(x)`.
    InputXGradient,
    /// `E = (x − b) ∘ ḡ(x)`, where `ḡ` is the mean of the gradients at the midpoints of `steps` parts of the path from
    /// `b` to `x`.
    IntegratedGradients {
        /// Points on the path.
        steps: usize,
        /// `b`; it must not depend on the picture.
        baseline: Baseline,
    },
}

impl Base {
    /// The method as written on the command line.
    pub fn spec(&self) -> String {
        match self {
            Base::Gradient => "gradient".into(),
            Base::InputXGradient => "input_x_gradient".into(),
            Base::IntegratedGradients { steps, baseline } => {
                let baseline = match baseline {
                    Baseline::Black => "black".into(),
                    Baseline::White => "white".into(),
                    Baseline::Value(v) => format!("value:{v}"),
                    _ => "zero".to_string(),
                };
                format!("integrated_gradients:steps={steps},baseline={baseline}")
            }
        }
    }
}

/// Takes steps along the sign of the gradient of an [`Objective`] of the map, within the ball of ε, and preserves the
/// prediction.
///
/// The objective is a function `D(s)` of the map `s` of one class: magnitudes of `E` (see [`Base`]), reduced over
/// channels and normalised to sum 1. ReLUs have no second derivatives, so it is differentiated on [`Graph::softened`],
/// the net with softplus in place of ReLU, as in both papers. With `v = ∂D/∂E` and `u = v ∘ ∂E/∂ḡ` the gradient is
///
/// `∂D/∂x = v ∘ ∂E/∂x|_ḡ + [ḡ(x + h u) − ḡ(x − h u)] / 2h`,
///
/// where the second term is a central difference, because the Hessian of a score is symmetric: no second-order
/// differentiation is needed. `h` is chosen such that the root mean square of `h u` is 2⁻⁸ of the picture's in single
/// precision, 2⁻¹³ in double.
///
/// Predictions and maps of the iterates are those of the original net. The result is the iterate with the best
/// objective among those whose predicted class is the original picture's. If none improves on the original picture, the
/// result is that picture, marked as not succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct MapAttack {
    /// The objective.
    pub objective: Objective,
    /// The attacked method.
    pub base: Base,
    /// How its channels are reduced.
    pub magnitude: Magnitude,
    /// The class score that the map explains.
    pub score: Score,
    /// Sharpness of the softplus.
    pub beta: f64,
    /// ε, radius of the L∞ ball.
    pub epsilon: PictureLength,
    /// Step size of each element.
    pub step: PictureLength,
    /// Number of steps.
    pub iterations: usize,
    /// The starting point.
    pub start: StartPoint,
    /// Seed of the random start.
    pub seed: u64,
}

impl MapAttack {
    /// Attacks the gradient of the logit, with radius 8/255, 100 steps of 1/255 from the picture, and β = 30.
    pub fn new(objective: Objective) -> Self {
        Self {
            objective,
            base: Base::Gradient,
            magnitude: Magnitude::Sum,
            score: Score::Logit,
            beta: 30.0,
            epsilon: PictureLength::Levels(8.0),
            step: PictureLength::Levels(1.0),
            iterations: 100,
            start: StartPoint::Picture,
            seed: 0,
        }
    }

    /// One result per picture of `x`; `classes[i]` is the class whose map is attacked on picture `i`.
    ///
    /// # Errors
    /// When a setting is meaningless or does not match the pictures, the net's input has no positions, shapes, channels
    /// or classes do not match, memory is not enough or a number is not finite.
    pub fn attack(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        preprocess: &Preprocess,
        x: &Batch,
        classes: &[usize],
    ) -> Result<Vec<Adversarial>> {
        check_iterations(self.iterations)?;
        self.epsilon.positive("epsilon")?;
        self.step.positive("step")?;
        engine::check(graph, x, classes)?;
        let smooth = graph.softened(self.beta)?;
        let what = (self.objective.name(), self.iterations);
        in_groups(what, engine, (x, classes), bytes(x), |engine, x, classes, course| {
            self.group(engine, [graph, &smooth], preprocess, (x, classes), course)
        })
    }

    /// The objective on the softened net at `points`, one per picture of `x`, whose own maps are the objective's
    /// reference; and its gradient with respect to the point, by the central difference.
    ///
    /// # Errors
    /// As [`MapAttack::attack`].
    pub fn objective(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        preprocess: &Preprocess,
        (x, classes): (&Batch, &[usize]),
        points: &[Tensor],
    ) -> Result<Vec<MapEvaluation>> {
        engine::check(graph, x, classes)?;
        let smooth = graph.softened(self.beta)?;
        let victims = self.victims(engine, [graph, &smooth], preprocess, (x, classes))?;
        let points = Batch::of(points.to_vec())?;
        engine::check(graph, &points, classes)?;
        self.evaluate(engine, &smooth, (&points, classes), &victims)
    }

    fn group(
        &self,
        engine: &mut Engine,
        [graph, smooth]: [&Graph; 2],
        preprocess: &Preprocess,
        (x, classes): (&Batch, &[usize]),
        course: Course,
    ) -> Result<Vec<Adversarial>> {
        let plane = plane(preprocess, x.shape().len())?;
        let length = self.step.normalised(preprocess);
        let mut victims = self.victims(engine, [graph, smooth], preprocess, (x, classes))?;
        if self.start == StartPoint::Random {
            let radius = self.epsilon.normalised(preprocess);
            for (victim, key) in victims.iter_mut().zip(x.keys()) {
                let draws = start_draws(self.seed, key, victim.point.len());
                victim.point = victim.ball.at(&radius, plane, &draws);
            }
        }
        for done in 1..=self.iterations {
            let here = victims.iter().map(|v| v.ball.tensor(&v.point)).collect::<Result<Vec<_>>>()?;
            let evaluations = self.evaluate(engine, smooth, (&Batch::of(here)?, classes), &victims)?;
            for (victim, evaluation) in victims.iter_mut().zip(&evaluations) {
                step(&mut victim.point, &evaluation.gradient, &length, plane);
                victim.ball.project(&mut victim.point);
            }
            let there = victims.iter().map(|v| v.ball.tensor(&v.point)).collect::<Result<Vec<_>>>()?;
            let there = Batch::of(there)?;
            let maps = self.maps(engine, graph, (&there, classes), &victims)?;
            for ((victim, (e, logits)), picture) in victims.iter_mut().zip(maps).zip(there.items()) {
                let s = self.magnitude.normalised(&e, x.shape().plane());
                victim.judge(&s, logits, picture, done);
            }
            course.report(engine, done, victims.iter().map(|v| v.best.value));
        }
        let originals = x.items().iter();
        Ok(victims.into_iter().zip(originals).map(|(victim, original)| victim.finish(original)).collect())
    }

    /// The state of the pictures before the attack.
    fn victims(
        &self,
        engine: &mut Engine,
        [graph, smooth]: [&Graph; 2],
        preprocess: &Preprocess,
        (x, classes): (&Batch, &[usize]),
    ) -> Result<Vec<MapVictim>> {
        let Shape { h, w, .. } = x.shape();
        if h * w < 2 {
            let why = format!(
                "{}: an input of {} has no positions that a map could point to",
                self.objective.name(),
                x.shape()
            );
            return Err(Error::shape(why));
        }
        let baselines = self.baselines(preprocess, x)?;
        let maps = self.maps_with(engine, graph, (x, classes), &baselines)?;
        let soft = logits(engine, smooth, x)?;
        let wanted = self.wanted(engine, graph, preprocess)?;
        let mut victims = Vec::with_capacity(x.len());
        for ((picture, baseline), ((e, logits), soft)) in
            x.items().iter().zip(baselines).zip(maps.into_iter().zip(soft))
        {
            let s = self.magnitude.normalised(&e, h * w);
            let aim = Aim::new(&self.objective, [h, w], (&s, &logits), wanted.as_deref())?;
            let still = vec![0.0; logits.len()];
            let best = BestMap {
                picture: picture.clone(),
                value: aim.value(&s, &still),
                rank: aim.rank(&s, &still),
                logits: logits.clone(),
                iterations: 0,
            };
            let ball = Ball::around(picture, self.epsilon, preprocess)?;
            let point = ball.centre().to_vec();
            let value = best.value;
            victims.push(MapVictim { ball, point, aim, baseline, soft, logits, value, best });
        }
        Ok(victims)
    }

    /// The baselines of the paths, if there are paths.
    fn baselines(&self, preprocess: &Preprocess, x: &Batch) -> Result<Vec<Option<Tensor>>> {
        let Base::IntegratedGradients { baseline, .. } = &self.base else { return Ok(vec![None; x.len()]) };
        if !matches!(baseline, Baseline::Zero | Baseline::Black | Baseline::White | Baseline::Value(_)) {
            return Err(Error::settings("the baseline of an attacked map is zero, black, white or value:V"));
        }
        Ok(baseline.tensors(x, preprocess, None, self.seed)?.into_iter().map(Some).collect())
    }

    /// The normalised target map of [`Objective::Manipulate`].
    fn wanted(&self, engine: &mut Engine, graph: &Graph, preprocess: &Preprocess) -> Result<Option<Vec<f64>>> {
        let Objective::Manipulate { target, .. } = &self.objective else { return Ok(None) };
        let shape = graph.input_shape();
        let within = |e: Error| e.within("the target of manipulate");
        let map = match target {
            MapTarget::Map(map) => {
                let suits = match *map.dims() {
                    [h, w] | [_, h, w] => [h, w] == [shape.h, shape.w],
                    _ => false,
                };
                if !suits || map.first_not_finite().is_some() {
                    let why = format!(
                        "the target of manipulate: a map of shape {:?} for an input of {shape}; it must suit and be finite",
                        map.dims()
                    );
                    return Err(if suits { Error::settings(why) } else { Error::shape(why) });
                }
                map.to_f64().into_owned()
            }
            MapTarget::Picture(picture) => {
                if picture.dims() != shape.dims() {
                    return Err(Error::shape(format!(
                        "the target of manipulate: a picture of shape {:?} for an input of {shape}",
                        picture.dims()
                    )));
                }
                let x = Batch::of(vec![picture.clone()]).map_err(within)?;
                let class = logits(engine, graph, &x)?.first().and_then(|logits| top(logits)).unwrap_or(0);
                let baselines = self.baselines(preprocess, &x)?;
                let maps = self.maps_with(engine, graph, (&x, &[class]), &baselines).map_err(within)?;
                maps.into_iter().next().map(|(e, _)| e).unwrap_or_default()
            }
        };
        Ok(Some(self.magnitude.normalised(&map, shape.plane())))
    }

    /// `E` and the logits at each point.
    fn maps(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        points: (&Batch, &[usize]),
        victims: &[MapVictim],
    ) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let baselines: Vec<Option<Tensor>> = victims.iter().map(|v| v.baseline.clone()).collect();
        self.maps_with(engine, graph, points, &baselines)
    }

    fn maps_with(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (points, classes): (&Batch, &[usize]),
        baselines: &[Option<Tensor>],
    ) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let slopes = self.slopes(engine, graph, (points, classes), baselines)?;
        let logits = self.logits(engine, graph, points, &slopes)?;
        let made = points.items().iter().zip(baselines).zip(slopes.into_iter().zip(logits));
        Ok(made
            .map(|((x, b), (slope, logits))| (times(&slope.gradient, &self.factor(x, b.as_ref())), logits))
            .collect())
    }

    /// `ḡ` at each point.
    fn slopes(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        points: (&Batch, &[usize]),
        baselines: &[Option<Tensor>],
    ) -> Result<Vec<Slope>> {
        let copies = match &self.base {
            Base::IntegratedGradients { steps, .. } => {
                let (alphas, weights) = Quadrature::Midpoint.points(*steps)?;
                let baselines = baselines.iter().flatten().cloned().collect();
                Copies { perturbation: Perturbation::Path { alphas, baselines }, weights }
            }
            _ => Copies::one(),
        };
        gradients(engine, graph, self.score, points, &copies)
    }

    /// Logits at points whose slopes are known.
    fn logits(&self, engine: &mut Engine, graph: &Graph, points: &Batch, slopes: &[Slope]) -> Result<Vec<Vec<f64>>> {
        match self.base {
            Base::IntegratedGradients { .. } => logits(engine, graph, points),
            _ => Ok(slopes.iter().map(|s| s.logits.clone()).collect()),
        }
    }

    /// `∂E/∂ḡ`, the factor of `ḡ`; `None` stands for 1.
    fn factor(&self, x: &Tensor, baseline: Option<&Tensor>) -> Option<Vec<f64>> {
        match self.base {
            Base::Gradient => None,
            Base::InputXGradient => Some(x.to_f64().into_owned()),
            Base::IntegratedGradients { .. } => {
                let from = |i: usize| baseline.map_or(0.0, |b| b.at(i));
                Some((0..x.len()).map(|i| x.at(i) - from(i)).collect())
            }
        }
    }

    fn evaluate(
        &self,
        engine: &mut Engine,
        smooth: &Graph,
        (points, classes): (&Batch, &[usize]),
        victims: &[MapVictim],
    ) -> Result<Vec<MapEvaluation>> {
        let pixels = points.shape().plane();
        let precision = engine.describe().precision;
        let baselines: Vec<Option<Tensor>> = victims.iter().map(|v| v.baseline.clone()).collect();
        let slopes = self.slopes(engine, smooth, (points, classes), &baselines)?;
        let logits = self.logits(engine, smooth, points, &slopes)?;

        let mut evaluations = Vec::with_capacity(victims.len());
        let mut probes = Vec::with_capacity(2 * victims.len());
        let mut ways = Vec::with_capacity(victims.len());
        let mut by_logits = Vec::new();
        for (i, (victim, point)) in victims.iter().zip(points.items()).enumerate() {
            let g = &slopes[i].gradient;
            let factor = self.factor(point, victim.baseline.as_ref());
            let e = times(g, &factor);
            let s = self.magnitude.normalised(&e, pixels);
            let moved: Vec<f64> = logits[i].iter().zip(&victim.soft).map(|(a, b)| a - b).collect();
            let v = self.magnitude.back(&e, pixels, &victim.aim.slope(&s));
            let direct =
                if factor.is_some() { v.iter().zip(g).map(|(v, g)| v * g).collect() } else { vec![0.0; g.len()] };
            evaluations.push(MapEvaluation { objective: victim.aim.value(&s, &moved), gradient: direct });
            by_logits.push(victim.aim.logit_slope(&moved));
            let u = times(&v, &factor);
            let h = difference(&u, point, precision);
            let probe = |sign: f64| {
                let values = u.iter().enumerate().map(|(k, u)| point.at(k) + sign * h * u).collect();
                Tensor::f64(point.dims(), values)
            };
            probes.push(probe(1.0)?);
            probes.push(probe(-1.0)?);
            ways.push(h);
        }
        let twice: Vec<usize> = classes.iter().flat_map(|&c| [c, c]).collect();
        let baselines: Vec<Option<Tensor>> = baselines.into_iter().flat_map(|b| [b.clone(), b]).collect();
        let slopes = self.slopes(engine, smooth, (&Batch::of(probes)?, &twice), &baselines)?;
        for ((evaluation, pair), &h) in evaluations.iter_mut().zip(slopes.chunks(2)).zip(&ways) {
            if let [plus, minus] = pair
                && h > 0.0
            {
                for (d, (a, b)) in evaluation.gradient.iter_mut().zip(plus.gradient.iter().zip(&minus.gradient)) {
                    *d += (a - b) / (2.0 * h);
                }
            }
        }
        if by_logits.iter().all(Option::is_some) && !by_logits.is_empty() {
            let shape = smooth.node(smooth.output()).shape;
            let signal = by_logits.into_iter().flatten().flatten().collect();
            let dims = [points.len(), shape.c, shape.h, shape.w];
            let signal = Tensor::f64(dims, signal)?;
            let rules = Composite::gradient();
            let way = Pullback { from: smooth.output(), signal: &signal, rules: &rules, to: smooth.input() };
            let back = engine.pullback(smooth, points, &way)?;
            let len = points.shape().len();
            for (i, evaluation) in evaluations.iter_mut().enumerate() {
                evaluation.gradient.iter_mut().enumerate().for_each(|(k, d)| *d += back.at(i * len + k));
            }
        }
        Ok(evaluations)
    }
}

/// The objective at a point.
#[derive(Debug, Clone)]
pub struct MapEvaluation {
    /// Its value.
    pub objective: f64,
    /// Its gradient with respect to the point, in its C order.
    pub gradient: Vec<f64>,
}

/// One picture under attack.
struct MapVictim {
    ball: Ball,
    point: Vec<f64>,
    aim: Aim,
    baseline: Option<Tensor>,
    /// Logits of the softened net on the original picture.
    soft: Vec<f64>,
    /// Logits of the net on it.
    logits: Vec<f64>,
    value: f64,
    best: BestMap,
}

struct BestMap {
    picture: Tensor,
    value: f64,
    rank: f64,
    logits: Vec<f64>,
    iterations: usize,
}

impl MapVictim {
    /// Stores the iterate if its prediction is the original one and it is the best so far.
    fn judge(&mut self, s: &[f64], logits: Vec<f64>, picture: &Tensor, iterations: usize) {
        if top(&logits) != top(&self.logits) {
            return;
        }
        let moved: Vec<f64> = logits.iter().zip(&self.logits).map(|(a, b)| a - b).collect();
        let rank = self.aim.rank(s, &moved);
        if rank > self.best.rank {
            let value = self.aim.value(s, &moved);
            self.best = BestMap { picture: picture.clone(), value, rank, logits, iterations };
        }
    }

    fn finish(self, original: &Tensor) -> Adversarial {
        let best = self.best;
        Adversarial {
            succeeded: best.iterations > 0,
            linf: linf(&best.picture, original),
            objective: [self.value, best.value],
            logits: [self.logits, best.logits],
            picture: best.picture,
            iterations: best.iterations,
        }
    }
}

fn times(values: &[f64], factor: &Option<Vec<f64>>) -> Vec<f64> {
    match factor {
        None => values.to_vec(),
        Some(factor) => values.iter().zip(factor).map(|(v, f)| v * f).collect(),
    }
}

/// `h` of the central difference along `u` at `x`; 0 if `u` is zero.
fn difference(u: &[f64], x: &Tensor, precision: Precision) -> f64 {
    let rms = |squares: f64| (squares / u.len().max(1) as f64).sqrt();
    // Scaled before squaring: `u` may be very small.
    let largest = u.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if !(largest > 0.0) {
        return 0.0;
    }
    let along = largest * rms(u.iter().map(|v| (v / largest).powi(2)).sum());
    let size = rms(x.to_f64().iter().map(|v| v * v).sum());
    // A picture that is 0 almost everywhere has no scale of its own; inputs are normalised to about 1.
    way(precision) * size.max(0.1) / along
}

/// Length of `h u` as a share of the picture's. In single precision it balances rounding, `ε_m / h`, against curvature,
/// `h²`, at about `∛ε_m`. In double precision a much shorter step would do, but it would cross so few of the points
/// where a max-pool changes its winner that single ones dominate, where their mean is wanted.
fn way(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1.0 / 256.0,
        Precision::F64 => 1.0 / 8192.0,
    }
}
