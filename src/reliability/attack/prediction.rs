//! Attacks on the prediction: FGSM (Goodfellow, Shlens, Szegedy 2015) and PGD (Madry et al. 2018).

use super::ball::{Ball, PictureLength, linf, plane};
use super::field::{gradients, logits};
use super::{Adversarial, StartPoint, bytes, check_iterations, start_draws, step};
use crate::engine::{self, Batch, Copies, Engine};
use crate::error::Result;
use crate::graph::{Graph, Link};
use crate::image::Preprocess;
use crate::method::{Course, in_groups};
use crate::program::Score;
use crate::score::top;
use crate::tensor::Tensor;

/// The goal for the prediction; one class per picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal<'a> {
    /// Any class but this one: its cross-entropy is increased.
    Untargeted(&'a [usize]),
    /// This class: its cross-entropy is decreased.
    Targeted(&'a [usize]),
}

impl Goal<'_> {
    fn classes(&self) -> &[usize] {
        match self {
            Goal::Untargeted(classes) | Goal::Targeted(classes) => classes,
        }
    }

    /// Whether the goal is reached by a picture with these logits.
    fn reached(&self, i: usize, logits: &[f64]) -> bool {
        match self {
            Goal::Untargeted(classes) => top(logits) != Some(classes[i]),
            Goal::Targeted(classes) => top(logits) == Some(classes[i]),
        }
    }

    /// The sign of `log p` of the class in the objective.
    fn sign(&self) -> f64 {
        match self {
            Goal::Untargeted(_) => -1.0,
            Goal::Targeted(_) => 1.0,
        }
    }

    /// The objective: the cross-entropy, or `log p`, of the class.
    fn objective(&self, link: Link, i: usize, logits: &[f64]) -> f64 {
        self.sign() * Score::LogProb.linked(link, logits, self.classes()[i]).0
    }
}

/// When an attack on a picture stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// After all iterations.
    #[default]
    Last,
    /// As soon as the goal is reached.
    Reached,
}

/// Projected gradient steps on the cross-entropy (Madry, Makelov, Schmidt, Tsipras, Vladu 2018, section 2.1): `x ← Π(x
/// ± step · sign ∇ log p)`, where `Π` projects onto the ball of ε around the picture, intersected with the range of
/// valid pixels.
///
/// The paper returns the last iterate; here the best one is returned: first by whether the goal is reached, then by the
/// objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pgd {
    /// ε, radius of the L∞ ball.
    pub epsilon: PictureLength,
    /// Step size of each element.
    pub step: PictureLength,
    /// Number of steps.
    pub iterations: usize,
    /// The starting point.
    pub start: StartPoint,
    /// When it stops.
    pub stop: Stop,
    /// Seed of the random start.
    pub seed: u64,
}

impl Default for Pgd {
    /// Radius 8/255, 40 steps of 2/255 from a random start.
    fn default() -> Self {
        Self {
            epsilon: PictureLength::Levels(8.0),
            step: PictureLength::Levels(2.0),
            iterations: 40,
            start: StartPoint::Random,
            stop: Stop::Last,
            seed: 0,
        }
    }
}

/// The fast gradient sign method (Goodfellow, Shlens, Szegedy 2015, section 4): `x + ε · sign ∇ J` with the
/// cross-entropy `J` of the class, or `x − ε · sign ∇ J` for a target class, clipped to valid pixels. One result per
/// picture.
///
/// # Errors
/// When ε is not a finite number above 0, shapes, channels or classes do not match, memory is not enough or a number is
/// not finite.
pub fn fgsm(
    engine: &mut Engine,
    graph: &Graph,
    preprocess: &Preprocess,
    x: &Batch,
    goal: Goal<'_>,
    epsilon: PictureLength,
) -> Result<Vec<Adversarial>> {
    let once = Pgd { epsilon, step: epsilon, iterations: 1, start: StartPoint::Picture, stop: Stop::Last, seed: 0 };
    attack(engine, graph, preprocess, x, goal, &once, KeptIterate::Last)
}

/// Runs [`Pgd`] on every picture: one result each, whether or not the goal is reached.
///
/// # Errors
/// As [`fgsm`], and when there are no iterations or the step is not a finite number above 0.
pub fn pgd(
    engine: &mut Engine,
    graph: &Graph,
    preprocess: &Preprocess,
    x: &Batch,
    goal: Goal<'_>,
    settings: &Pgd,
) -> Result<Vec<Adversarial>> {
    attack(engine, graph, preprocess, x, goal, settings, KeptIterate::Best)
}

/// Which iterate becomes the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptIterate {
    Best,
    Last,
}

fn attack(
    engine: &mut Engine,
    graph: &Graph,
    preprocess: &Preprocess,
    x: &Batch,
    goal: Goal<'_>,
    settings: &Pgd,
    keep: KeptIterate,
) -> Result<Vec<Adversarial>> {
    check_iterations(settings.iterations)?;
    settings.step.positive("step")?;
    settings.epsilon.positive("epsilon")?;
    engine::check(graph, x, goal.classes())?;
    let name = if keep == KeptIterate::Last { "fgsm" } else { "pgd" };
    let run = PgdRun { graph, preprocess, settings, keep };
    in_groups((name, settings.iterations), engine, (x, goal.classes()), bytes(x), |engine, x, classes, course| {
        let goal = match goal {
            Goal::Untargeted(_) => Goal::Untargeted(classes),
            Goal::Targeted(_) => Goal::Targeted(classes),
        };
        run.group(engine, x, goal, course)
    })
}

struct PgdRun<'a> {
    graph: &'a Graph,
    preprocess: &'a Preprocess,
    settings: &'a Pgd,
    keep: KeptIterate,
}

/// One picture under attack.
struct PredictionVictim {
    ball: Ball,
    point: Vec<f64>,
    before: Vec<f64>,
    best: Option<BestPrediction>,
}

struct BestPrediction {
    picture: Tensor,
    logits: Vec<f64>,
    reached: bool,
    objective: f64,
    iterations: usize,
}

impl PgdRun<'_> {
    fn group(&self, engine: &mut Engine, x: &Batch, goal: Goal<'_>, course: Course) -> Result<Vec<Adversarial>> {
        let Pgd { epsilon, step: length, iterations, start, stop, seed } = *self.settings;
        let plane = plane(self.preprocess, x.shape().len())?;
        let (radius, length) = (epsilon.normalised(self.preprocess), length.normalised(self.preprocess));
        // An attack that starts at the picture computes its logits in the first step.
        let before = match start {
            StartPoint::Picture => vec![Vec::new(); x.len()],
            StartPoint::Random => logits(engine, self.graph, x)?,
        };
        let mut victims = Vec::with_capacity(x.len());
        for ((picture, key), before) in x.items().iter().zip(x.keys()).zip(before) {
            let ball = Ball::around(picture, epsilon, self.preprocess)?;
            let point = match start {
                StartPoint::Picture => ball.centre().to_vec(),
                StartPoint::Random => ball.at(&radius, plane, &start_draws(seed, key, picture.len())),
            };
            victims.push(PredictionVictim { ball, point, before, best: None });
        }
        for done in 0..iterations {
            let active = self.active(&victims, stop);
            if active.is_empty() {
                break;
            }
            let (points, classes) = self.points(&victims, &active, goal)?;
            let slopes = gradients(engine, self.graph, Score::LogProb, (&points, &classes), &Copies::one())?;
            for ((&i, slope), picture) in active.iter().zip(slopes).zip(points.items()) {
                let victim = &mut victims[i];
                if victim.before.is_empty() {
                    victim.before.clone_from(&slope.logits);
                }
                self.judge(victim, picture, slope.logits, goal, i, done);
                let up: Vec<f64> = slope.gradient.iter().map(|g| goal.sign() * g).collect();
                step(&mut victim.point, &up, &length, plane);
                victim.ball.project(&mut victim.point);
            }
            course.report(engine, done + 1, victims.iter().filter_map(|v| v.best.as_ref().map(|b| b.objective)));
        }
        let active = self.active(&victims, stop);
        if !active.is_empty() {
            let (points, _) = self.points(&victims, &active, goal)?;
            let last = logits(engine, self.graph, &points)?;
            for ((&i, logits), picture) in active.iter().zip(last).zip(points.items()) {
                self.judge(&mut victims[i], picture, logits, goal, i, iterations);
            }
        }
        let found = victims.into_iter().zip(x.items()).enumerate();
        Ok(found.filter_map(|(i, (victim, original))| finish(victim, original, (goal, self.graph.link()), i)).collect())
    }

    /// Pictures whose attack has not stopped.
    fn active(&self, victims: &[PredictionVictim], stop: Stop) -> Vec<usize> {
        let goes_on = |v: &PredictionVictim| stop == Stop::Last || !v.best.as_ref().is_some_and(|b| b.reached);
        (0..victims.len()).filter(|&i| goes_on(&victims[i])).collect()
    }

    fn points(&self, victims: &[PredictionVictim], active: &[usize], goal: Goal<'_>) -> Result<(Batch, Vec<usize>)> {
        let points = active.iter().map(|&i| victims[i].ball.tensor(&victims[i].point)).collect::<Result<Vec<_>>>()?;
        Ok((Batch::of(points)?, active.iter().map(|&i| goal.classes()[i]).collect()))
    }

    /// Stores the iterate if it is the new result.
    fn judge(
        &self,
        victim: &mut PredictionVictim,
        picture: &Tensor,
        logits: Vec<f64>,
        goal: Goal<'_>,
        i: usize,
        done: usize,
    ) {
        let (reached, objective) = (goal.reached(i, &logits), goal.objective(self.graph.link(), i, &logits));
        let better = match &victim.best {
            None => true,
            Some(_) if self.keep == KeptIterate::Last => true,
            Some(best) => (reached, objective) > (best.reached, best.objective),
        };
        if better {
            victim.best =
                Some(BestPrediction { picture: picture.clone(), logits, reached, objective, iterations: done });
        }
    }
}

fn finish(
    victim: PredictionVictim,
    original: &Tensor,
    (goal, link): (Goal<'_>, Link),
    i: usize,
) -> Option<Adversarial> {
    let best = victim.best?;
    // If the original picture fulfils the goal already, that is not the attack's achievement.
    let succeeded = best.reached && !goal.reached(i, &victim.before);
    Some(Adversarial {
        linf: linf(&best.picture, original),
        objective: [goal.objective(link, i, &victim.before), best.objective],
        logits: [victim.before, best.logits],
        picture: best.picture,
        succeeded,
        iterations: best.iterations,
    })
}
