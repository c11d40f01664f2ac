//! The registry of attacks, and the parsing of `name:key=value,…` into an attack.

use std::path::Path;

use super::map::{Base, MapAttack};
use super::objective::{Magnitude, MapTarget, Objective, PixelRegion};
use super::prediction::{Goal, Pgd, Stop, fgsm, pgd};
use super::{Adversarial, PictureLength, StartPoint};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::method::{Parameter, ParameterValues, Registered, read};
use crate::perturb::baseline::Baseline;
use crate::reliability::localisation::Bounds;
use crate::tensor::Tensor;

/// The target of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttackKind {
    /// The prediction.
    Prediction,
    /// The map, while the prediction is preserved.
    Map,
}

/// An attack's entry in the registry.
#[derive(Debug)]
pub struct AttackEntry {
    /// Name in commands, files and records.
    pub id: &'static str,
    /// Name in running text.
    pub title: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The definition in one line.
    pub summary: &'static str,
    /// Its target.
    pub kind: AttackKind,
    /// Parameters in order of importance.
    pub parameters: &'static [Parameter],
}

const SIZE: &str = "normalised units|N/255 (levels)";

const EPSILON: Parameter =
    Parameter { key: "epsilon", unit: SIZE, default: "8/255", help: "the most that any number of the picture changes" };

const WANTED: Parameter = Parameter {
    key: "target",
    unit: "none|least|class",
    default: "none",
    help: "the class to be predicted, by index or name, or the least likely one; none: any other than now",
};

const fn step(default: &'static str) -> Parameter {
    Parameter { key: "step", unit: SIZE, default, help: "change of each number in a step" }
}

const fn iterations(default: &'static str) -> Parameter {
    Parameter { key: "iterations", unit: "steps", default, help: "steps along the sign of the gradient" }
}

const fn start(default: &'static str) -> Parameter {
    Parameter {
        key: "start",
        unit: "picture|random",
        default,
        help: "where the attack begins: at the picture, or at a point drawn from the ball around it",
    }
}

const BASE: Parameter = Parameter {
    key: "base",
    unit: "gradient|input_x_gradient|integrated_gradients",
    default: "gradient",
    help: "the method whose map is attacked",
};

const STEPS: Parameter =
    Parameter { key: "steps", unit: "points", default: "16", help: "points on the path of integrated_gradients" };

const BASELINE: Parameter = Parameter {
    key: "baseline",
    unit: "zero|black|white|value:V",
    default: "zero",
    help: "where the path of integrated_gradients begins",
};

const CHANNELS: Parameter = Parameter {
    key: "channels",
    unit: "sum|max",
    default: "sum",
    help: "how the magnitudes of a pixel's channels become one number",
};

const BETA: Parameter = Parameter {
    key: "beta",
    unit: "1/activation",
    default: "30",
    help: "sharpness of the softplus that stands for ReLU where the objective is differentiated",
};

const GHORBANI: &str = "Ghorbani, Abid, Zou 2019: Interpretation of neural networks is fragile, AAAI";

static ATTACKS: [AttackEntry; 6] = [
    AttackEntry {
        id: "fgsm",
        title: "Fast gradient sign method",
        paper: "Goodfellow, Shlens, Szegedy 2015: Explaining and harnessing adversarial examples, ICLR",
        summary: "x + ε sign ∇ cross-entropy, one step",
        kind: AttackKind::Prediction,
        parameters: &[EPSILON, WANTED],
    },
    AttackEntry {
        id: "pgd",
        title: "Projected gradient descent",
        paper: "Madry, Makelov, Schmidt, Tsipras, Vladu 2018: Towards deep learning models resistant to adversarial \
                    attacks, ICLR",
        summary: "x ← Π(x + step · sign ∇ cross-entropy) in the ball of ε; the best iterate counts",
        kind: AttackKind::Prediction,
        parameters: &[
            EPSILON,
            step("2/255"),
            iterations("40"),
            start("random"),
            WANTED,
            Parameter {
                key: "stop",
                unit: "last|reached",
                default: "last",
                help: "end after the last step, or as soon as the prediction is what was wanted",
            },
        ],
    },
    AttackEntry {
        id: "top_k",
        title: "Top-k attack",
        paper: GHORBANI,
        summary: "takes the map's mass from the k pixels that have most of it; the prediction stays",
        kind: AttackKind::Map,
        parameters: &[
            Parameter {
                key: "k",
                unit: "pixels|auto",
                default: "auto",
                help: "pixels; auto: 2 per cent of all, as the paper's 1000 of 224x224",
            },
            EPSILON,
            step("1/255"),
            iterations("100"),
            start("picture"),
            BASE,
            STEPS,
            BASELINE,
            CHANNELS,
            BETA,
        ],
    },
    AttackEntry {
        id: "mass_centre",
        title: "Mass-centre attack",
        paper: GHORBANI,
        summary: "moves the centre of the map's mass away; the prediction stays",
        kind: AttackKind::Map,
        parameters: &[
            EPSILON,
            step("1/255"),
            iterations("100"),
            start("picture"),
            BASE,
            STEPS,
            BASELINE,
            CHANNELS,
            BETA,
        ],
    },
    AttackEntry {
        id: "target_region",
        title: "Targeted attack on the map",
        paper: GHORBANI,
        summary: "moves the map's mass into a region; the prediction stays",
        kind: AttackKind::Map,
        parameters: &[
            Parameter {
                key: "region",
                unit: "(TOP,LEFT,HEIGHT,WIDTH)|mask:FILE",
                default: Parameter::REQUIRED,
                help: "pixels of the net's input: a rectangle in parentheses, or what is not 0 in a .npy [H,W], not black \
                           in a picture of that size",
            },
            EPSILON,
            step("1/255"),
            iterations("100"),
            start("picture"),
            BASE,
            STEPS,
            BASELINE,
            CHANNELS,
            BETA,
        ],
    },
    AttackEntry {
        id: "manipulate",
        title: "Manipulation towards another map",
        paper: "Dombrowski, Alber, Anders, Ackermann, Müller, Kessel 2019: Explanations can be manipulated and geometry \
                    is to blame, NeurIPS, equation 3",
        summary: "brings the map near another one by its squared distance; logits and prediction stay",
        kind: AttackKind::Map,
        parameters: &[
            Parameter {
                key: "target",
                unit: "file:FILE|map:FILE",
                default: Parameter::REQUIRED,
                help: "file: a picture or an array of inputs, whose own map is wanted; map: a map (.npy [H,W] or [C,H,W])",
            },
            EPSILON,
            step("1/255"),
            iterations("200"),
            Parameter {
                key: "logits",
                unit: "1",
                default: "1",
                help: "weight of the logits' relative squared change beside the map's",
            },
            start("picture"),
            BASE,
            STEPS,
            BASELINE,
            CHANNELS,
            BETA,
        ],
    },
];

/// All attacks.
pub fn registry() -> &'static [AttackEntry] {
    &ATTACKS
}

impl Registered for AttackEntry {
    const KIND: &'static str = "attack";

    fn registry() -> &'static [Self] {
        registry()
    }

    fn id(&self) -> &'static str {
        self.id
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}

/// The inputs of an attack besides its parameters.
pub struct AttackContext<'a> {
    /// Seed of all random draws.
    pub seed: u64,
    /// Loads a picture or array as `[C, H, W]` in the net's space.
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
    /// Loads an array unchanged.
    pub load_map: &'a dyn Fn(&Path) -> Result<Tensor>,
}

/// An attack with all its parameters, given or default.
#[derive(Debug, Clone)]
pub struct AttackSpec {
    /// The attack.
    pub entry: &'static AttackEntry,
    values: ParameterValues,
}

/// The class that an attack on the prediction aims for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Any class other than the original one.
    Other,
    /// The class with the lowest score on the original picture.
    Least,
    /// The class with this index or name.
    Class(String),
}

/// An attack that is ready to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Attack {
    /// [`fgsm`].
    Fgsm {
        /// ε.
        epsilon: PictureLength,
        /// The class aimed for.
        wanted: Wanted,
    },
    /// [`pgd`].
    Pgd {
        /// Its settings.
        settings: Pgd,
        /// The class aimed for.
        wanted: Wanted,
    },
    /// [`MapAttack`].
    Map(Box<MapAttack>),
}

impl Attack {
    /// ε.
    pub fn epsilon(&self) -> PictureLength {
        match self {
            Attack::Fgsm { epsilon, .. } => *epsilon,
            Attack::Pgd { settings, .. } => settings.epsilon,
            Attack::Map(attack) => attack.epsilon,
        }
    }

    /// The remark on an ε so large that it contains every picture, `None` for a smaller one.
    pub fn beyond(&self, preprocess: &Preprocess) -> Option<String> {
        let epsilon = self.epsilon();
        let ranges = preprocess.std.iter().map(|std| 1.0 / std);
        let all = preprocess.takes_pictures()
            && epsilon.normalised(preprocess).iter().zip(ranges).all(|(e, range)| *e >= range);
        all.then(|| {
            let unit = match epsilon {
                PictureLength::Normalised(_) => "in normalised units, it",
                PictureLength::Levels(_) => "it",
            };
            format!(
                "epsilon={epsilon}: {unit} is as large as the whole range of levels, so that any picture is allowed; \
                 epsilon=8/255 is 8 levels"
            )
        })
    }

    /// The class aimed for; `None` if the prediction is to be preserved.
    pub fn wanted(&self) -> Option<&Wanted> {
        match self {
            Attack::Fgsm { wanted, .. } | Attack::Pgd { wanted, .. } => Some(wanted),
            Attack::Map(_) => None,
        }
    }

    /// One result per picture. `classes[i]` is, for picture `i`, the class whose map is attacked, the class that the
    /// prediction should leave or, with a target class, that class.
    ///
    /// # Errors
    /// As [`pgd`] and [`MapAttack::attack`].
    pub fn run(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        preprocess: &Preprocess,
        x: &Batch,
        classes: &[usize],
    ) -> Result<Vec<Adversarial>> {
        let goal = match self.wanted() {
            None | Some(Wanted::Other) => Goal::Untargeted(classes),
            Some(Wanted::Least | Wanted::Class(_)) => Goal::Targeted(classes),
        };
        match self {
            Attack::Fgsm { epsilon, .. } => fgsm(engine, graph, preprocess, x, goal, *epsilon),
            Attack::Pgd { settings, .. } => pgd(engine, graph, preprocess, x, goal, settings),
            Attack::Map(attack) => attack.attack(engine, graph, preprocess, x, classes),
        }
    }
}

impl AttackSpec {
    /// Parses `name` or `name:key=value,key=(value with , or =)`.
    ///
    /// # Errors
    /// When the name or a key is unknown (the message lists near misses), a key is given twice, a required one is
    /// missing, or the text does not have this form.
    pub fn parse(text: &str) -> Result<Self> {
        let (entry, given) = read::<AttackEntry>(text)?;
        let resolve = |((key, value), p): ((&'static str, Option<String>), &Parameter)| match value {
            None if p.default == Parameter::REQUIRED => {
                Err(Error::settings(format!("{} needs {key}={}: {}", entry.id, p.unit, p.help)))
            }
            value => Ok((key, value.unwrap_or_else(|| p.default.into()))),
        };
        let values = given.into_iter().zip(entry.parameters).map(resolve).collect::<Result<_>>()?;
        Ok(Self { entry, values: ParameterValues::new(entry.id, values) })
    }

    /// The value of every parameter.
    pub fn values(&self) -> &ParameterValues {
        &self.values
    }

    /// Builds the attack.
    ///
    /// # Errors
    /// When a value is out of its range, or a file cannot be read.
    pub fn build(&self, context: &AttackContext<'_>) -> Result<Attack> {
        let epsilon = self.size("epsilon")?;
        if self.entry.id == "fgsm" {
            return Ok(Attack::Fgsm { epsilon, wanted: self.wanted()? });
        }
        let (step, iterations) = (self.size("step")?, self.count("iterations")?);
        let start = match self.values.text("start")? {
            "picture" => StartPoint::Picture,
            "random" => StartPoint::Random,
            other => return Err(self.unknown("start", other)),
        };
        let seed = context.seed;
        if self.entry.kind == AttackKind::Prediction {
            let stop = match self.values.text("stop")? {
                "last" => Stop::Last,
                "reached" => Stop::Reached,
                other => return Err(self.unknown("stop", other)),
            };
            let settings = Pgd { epsilon, step, iterations, start, stop, seed };
            return Ok(Attack::Pgd { settings, wanted: self.wanted()? });
        }
        let beta = match self.values.parse::<f64>("beta")? {
            beta if beta > 0.0 && beta.is_finite() => beta,
            beta => return Err(self.wrong("beta", &format!("{beta} is not a finite number above 0"))),
        };
        Ok(Attack::Map(Box::new(MapAttack {
            objective: self.objective(context)?,
            base: self.base()?,
            magnitude: self.values.parse::<Magnitude>("channels")?,
            score: crate::program::Score::Logit,
            beta,
            epsilon,
            step,
            iterations,
            start,
            seed,
        })))
    }

    fn size(&self, key: &str) -> Result<PictureLength> {
        self.values.parse::<PictureLength>(key)?.positive(&format!("{}:{key}", self.entry.id))
    }

    /// Parses a number of at least 1.
    fn count(&self, key: &str) -> Result<usize> {
        match self.values.count(key)? {
            0 => Err(self.wrong(key, "there must be at least 1")),
            n => Ok(n),
        }
    }

    fn wanted(&self) -> Result<Wanted> {
        Ok(match self.values.text("target")? {
            "none" => Wanted::Other,
            "least" => Wanted::Least,
            "" => return Err(self.wrong("target", "no class")),
            class => Wanted::Class(class.into()),
        })
    }

    fn base(&self) -> Result<Base> {
        match self.values.text("base")? {
            "gradient" => Ok(Base::Gradient),
            "input_x_gradient" => Ok(Base::InputXGradient),
            "integrated_gradients" | "ig" => {
                let baseline: Baseline = self.values.parse("baseline")?;
                if !matches!(baseline, Baseline::Zero | Baseline::Black | Baseline::White | Baseline::Value(_)) {
                    return Err(self.unknown("baseline", self.values.text("baseline")?));
                }
                Ok(Base::IntegratedGradients { steps: self.count("steps")?, baseline })
            }
            other => Err(self.unknown("base", other)),
        }
    }

    fn objective(&self, context: &AttackContext<'_>) -> Result<Objective> {
        match self.entry.id {
            "top_k" => match self.values.text("k")? {
                "auto" => Ok(Objective::TopK { k: None }),
                _ => Ok(Objective::TopK { k: Some(self.values.parse("k")?) }),
            },
            "mass_centre" => Ok(Objective::MassCentre),
            "target_region" => self.region(context).map(Objective::TargetRegion),
            _ => {
                let text = self.values.text("target")?;
                let target = match text.split_once(':') {
                    Some(("file", path)) if !path.is_empty() => MapTarget::Picture((context.load)(Path::new(path))?),
                    Some(("map", path)) if !path.is_empty() => MapTarget::Map((context.load_map)(Path::new(path))?),
                    _ => return Err(self.unknown("target", text)),
                };
                Ok(Objective::Manipulate { target, logits: self.values.not_negative("logits")? })
            }
        }
    }

    fn region(&self, context: &AttackContext<'_>) -> Result<PixelRegion> {
        let text = self.values.text("region")?;
        if let Some(path) = text.strip_prefix("mask:").filter(|path| !path.is_empty()) {
            return Ok(PixelRegion::Mask((context.load_map)(Path::new(path))?));
        }
        let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[top, left, height, width]) => Ok(PixelRegion::Bounds(Bounds { top, left, height, width })),
            _ => Err(self.unknown("region", text)),
        }
    }

    fn wrong(&self, key: &str, why: &str) -> Error {
        Error::settings(format!("{}:{key}: {why}", self.entry.id))
    }

    fn unknown(&self, key: &str, value: &str) -> Error {
        let unit = self.entry.parameters.iter().find(|p| p.key == key).map_or("", |p| p.unit);
        Error::settings(format!("{}:{key}={value}: it is one of {unit}", self.entry.id))
    }
}

impl std::str::FromStr for AttackSpec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::parse(s)
    }
}

/// With every parameter, as [`AttackSpec::parse`] reads it.
impl std::fmt::Display for AttackSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.values.fmt(f)
    }
}
