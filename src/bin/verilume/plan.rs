//! From the options of `explain` to plain data that the runner can follow.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};
use verilume::engine;
use verilume::image::{Interpolation, Preprocess};
use verilume::method::Spec;
use verilume::model::{Labels, Model};
use verilume::program::Score;

use crate::args::{ExplainArgs, Format, InterpolationArg, ModelChoice, Preparation, ScoreArg};
use crate::talk::Voice;
use crate::targets::TargetChoice;
use crate::values::Shard;
use crate::{computing, room};

/// Used when no `-m` is given: coarse but easy to read, where the net's last stage has positions.
const DEFAULT_METHOD: &str = "grad_cam";
/// Used when no `-m` is given on a net without positions.
const DEFAULT_METHOD_OF_VECTORS: &str = "gradient";

/// A method under the name that its files and records carry.
pub struct Named {
    /// The method's name, with `-2`, `-3` … behind it when it was asked for again.
    pub id: String,
    /// The method and its parameters.
    pub spec: Spec,
}

/// Passes of a method on copies above which they are said before the work begins.
const MANY_PASSES: f64 = 1000.0;

/// What is said of methods on copies of a picture that run the net very often.
pub fn many_passes(methods: &[Named]) -> impl Iterator<Item = String> {
    let many = methods.iter().filter(|m| m.spec.base().is_some() && m.spec.passes() >= MANY_PASSES);
    many.map(|m| format!("{}: about {:.0} passes of the net for each map", m.id, m.spec.passes()))
}

/// What goes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A table.
    Table,
    /// One JSON object a line.
    Json,
}

/// Whether results of an earlier run count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// They are kept and not made again.
    Resume,
    /// They are forgotten.
    Forget,
}

/// Everything `explain` needs besides the net.
pub struct Plan {
    pub inputs: Vec<OsString>,
    pub methods: Vec<Named>,
    pub target: TargetChoice,
    pub target_text: String,
    pub score: Score,
    pub out: PathBuf,
    pub formats: Vec<Format>,
    pub winsorise: Option<f64>,
    pub reply: Reply,
    pub voice: Voice,
    pub earlier: Earlier,
    pub shard: Option<Shard>,
    pub settings: engine::Settings,
    pub seed: u64,
}

impl Plan {
    /// Checks what can be checked before the net is opened.
    pub fn new(args: &ExplainArgs) -> Result<Self> {
        let mut formats = args.format.clone();
        formats.sort_unstable();
        formats.dedup();
        Ok(Self {
            inputs: args.inputs.clone(),
            methods: methods(&args.methods)?,
            target: TargetChoice::parse(&args.target)?,
            target_text: args.target.clone(),
            score: score(args.score),
            out: args.out.clone(),
            formats,
            winsorise: args.winsorise,
            reply: if args.json { Reply::Json } else { Reply::Table },
            voice: if args.quiet { Voice::Quiet } else { Voice::Normal },
            earlier: if args.resume { Earlier::Resume } else { Earlier::Forget },
            shard: args.shard,
            settings: computing::settings(&args.resources, args.threads)?,
            seed: args.resources.seed,
        })
    }

    /// Whether `format` is wanted.
    pub fn wants(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }

    /// The score's name.
    pub fn score_name(&self) -> &'static str {
        score_name(self.score)
    }
}

/// The score that was asked for.
pub fn score(arg: ScoreArg) -> Score {
    match arg {
        ScoreArg::Logit => Score::Logit,
        ScoreArg::Prob => Score::Prob,
        ScoreArg::Logprob => Score::LogProb,
    }
}

/// A score's name.
pub fn score_name(score: Score) -> &'static str {
    match score {
        Score::Logit => "logit",
        Score::Prob => "prob",
        Score::LogProb => "logprob",
        Score::LogOthers => "logothers",
    }
}

/// Whether the net's last stage has positions.
pub fn has_positions(model: &Model) -> bool {
    let net = model.unfolded();
    net.stages().last().is_some_and(|(_, node)| net.node(*node).shape.plane() > 1)
}

/// The methods used when none is named.
pub fn default_methods(model: &Model) -> Result<Vec<Named>> {
    methods(&[if has_positions(model) { DEFAULT_METHOD } else { DEFAULT_METHOD_OF_VECTORS }.to_string()])
}

/// Methods with their names, repeated names numbered.
pub fn methods(texts: &[String]) -> Result<Vec<Named>> {
    let mut times: HashMap<&'static str, usize> = HashMap::new();
    let mut methods = Vec::new();
    for text in texts {
        let spec = Spec::parse(text)?;
        let name = spec.entry.id;
        let time = times.entry(name).and_modify(|n| *n += 1).or_insert(1);
        let id = if *time == 1 { name.to_string() } else { format!("{name}-{time}") };
        methods.push(Named { id, spec });
    }
    Ok(methods)
}

/// The net that was asked for.
pub fn open_model(choice: &ModelChoice) -> Result<Model> {
    let arch = choice.arch.as_deref();
    match &choice.model {
        None if arch.is_none() => crate::model::embedded(),
        None => bail!("--arch needs --model FILE; the embedded net's architecture is known"),
        Some(name) => crate::model::open(name, arch),
    }
}

/// The net's preparation of pictures, with the parts given on the command line in place of its own.
pub fn preparation(model: &Model, args: &Preparation) -> Result<Preprocess> {
    let mut p = model.preprocess().clone();
    if let Some(size) = args.size {
        // Without a short side of its own a crop keeps the net's margin around it.
        let margin = |n: usize| (n as f64 * p.resize as f64 / p.crop[0].min(p.crop[1]) as f64).round() as usize;
        p.resize = size.resize.unwrap_or_else(|| margin(size.crop[0].max(size.crop[1])));
        p.crop = size.crop;
    }
    let channels = p.channels;
    let each = |name: &str, given: &Vec<f64>| match given.len() {
        1 => Ok(vec![given[0]; channels]),
        n if n == channels => Ok(given.clone()),
        n => bail!("--{name} has {n} numbers, the net has {channels} channels"),
    };
    if let Some(mean) = &args.mean {
        p.mean = each("mean", mean)?;
    }
    if let Some(std) = &args.std {
        p.std = each("std", std)?;
    }
    match args.interpolation {
        None => {}
        Some(InterpolationArg::Nearest) => p.interpolation = Interpolation::Nearest,
        Some(InterpolationArg::Bilinear) => p.interpolation = Interpolation::Bilinear,
        Some(InterpolationArg::Bicubic) => p.interpolation = Interpolation::Bicubic,
        Some(InterpolationArg::Lanczos) => p.interpolation = Interpolation::Lanczos,
    }
    if matches!(p.channels, 1 | 3) {
        p.check()?;
        room::check_prepared(&p)?;
    }
    Ok(p)
}

/// Class names: the net's own or those of `--labels`.
pub fn labels(model: &Model, args: &Preparation) -> Result<Labels> {
    Ok(match &args.labels {
        Some(path) => model.read_labels(path)?,
        None => model.labels().clone(),
    })
}
