//! From options to a session: the net, its preparation, its class names, and the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::cli::args::{ModelChoice, PreparationArgs, SharedArgs};
use crate::cli::computing;
use crate::cli::talk::Voice;
use crate::data::{Room, Source, holds_fit, load};
use crate::engine::{Engine, Settings};
use crate::image::Preprocess;
use crate::model::{EMBEDDED, Labels, Model, Reading, Setting};
use crate::program::Score;
use crate::run::{Named, methods};
use crate::session::{Options, Session};
use crate::{Error, ErrorKind};

/// Used when no `-m` is given: coarse but easy to read, where the net's last stage has positions.
const DEFAULT_METHOD: &str = "grad_cam";
/// Used when no `-m` is given on a net without positions.
const DEFAULT_METHOD_OF_VECTORS: &str = "gradient";

impl SharedArgs {
    /// How much is said.
    pub fn voice(&self) -> Voice {
        if self.quiet { Voice::Quiet } else { Voice::Normal }
    }

    /// What inputs may take.
    pub fn room(&self) -> Room {
        Room { allowed: self.resources.memory }
    }

    /// What the user has set of the net's preparation.
    pub fn given(&self) -> Vec<Setting> {
        let p = &self.preparation;
        let settings = [
            (Setting::Mean, p.mean.is_some()),
            (Setting::Std, p.std.is_some()),
            (Setting::Size, p.size.is_some()),
            (Setting::Interpolation, p.interpolation.is_some()),
            (Setting::Labels, p.labels.is_some()),
        ];
        settings.into_iter().filter(|(_, given)| *given).map(|(setting, _)| setting).collect()
    }

    /// Files that are read besides the inputs.
    pub fn read(&self) -> Vec<PathBuf> {
        self.model.model.iter().map(Into::into).chain(self.preparation.labels.clone()).collect()
    }

    /// The net on an engine, and the engine's settings.
    pub fn open(&self, score: Score) -> Result<(Session, Settings)> {
        let settings = computing::settings(&self.resources, self.threads)?;
        let engine = |settings: &Settings| computing::open(settings, self.voice());
        Ok((self.open_on(score, &settings, engine)?, settings))
    }

    /// The net on the engine that `open` makes of `settings`.
    pub fn open_on(
        &self,
        score: Score,
        settings: &Settings,
        open: impl FnOnce(&Settings) -> Result<Engine>,
    ) -> Result<Session> {
        let model = open_model(&self.model)?;
        let room = self.room();
        let preparation = preparation(&model, &self.preparation, room)?;
        let labels = labels(&model, &self.preparation)?;
        let engine = open(settings)?;
        let options = Options {
            engine: settings.clone(),
            preparation: Some(preparation),
            labels: Some(labels),
            score,
            seed: self.resources.seed,
        };
        let session = Session::with_engine(model, engine, &options)?;
        Ok(session.reading_with(Arc::new(move |path, preprocess| load(path, preprocess, room))))
    }
}

/// Refuses to write what was fitted over an input, the model, or a file that holds nothing fitted.
pub fn spare(out: &Path, model: &ModelChoice, data: &[&[Source]]) -> Result<()> {
    let Some(own) = out.canonicalize().ok() else { return Ok(()) };
    if own.is_dir() {
        bail!("--out {}: this is a folder; give the name of a file", out.display());
    }
    let is_own = |path: &Path| path.canonicalize().ok().as_ref() == Some(&own);
    if model.model.as_deref().is_some_and(|name| is_own(Path::new(name))) {
        bail!("--out {}: this is the model's file", out.display());
    }
    if own.is_file() && !holds_fit(&own) {
        if data.iter().any(|sources| sources.iter().any(|source| is_own(&source.path))) {
            bail!("--out {}: the input and the output are the same file", out.display());
        }
        bail!("--out {}: this file holds neither patterns nor a detector; give another name", out.display());
    }
    Ok(())
}

/// Whether the net's last stage has positions.
pub fn has_positions(model: &Model) -> bool {
    let net = model.unfolded();
    net.stages().last().is_some_and(|(_, node)| net.node(*node).shape.plane() > 1)
}

/// The methods used when none is named.
pub fn default_methods(model: &Model) -> Result<Vec<Named>> {
    Ok(methods(&[if has_positions(model) { DEFAULT_METHOD } else { DEFAULT_METHOD_OF_VECTORS }.to_string()])?)
}

/// A weights file, a folder that holds one, or a built-in net by name. A file of that name goes first.
fn named(name: &str, reading: &Reading) -> Result<Model> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(Model::open_as(path, reading)?);
    }
    if name == EMBEDDED {
        return embedded();
    }
    if name.contains("://") {
        bail!("--model {name}: nothing is fetched from the network; download the files and give their folder");
    }
    let why = format!("--model {name}: neither a file, nor a folder, nor a built-in net (built in: {EMBEDDED})");
    Err(Error::new(ErrorKind::Io, why).into())
}

/// The net inside this program.
#[cfg(feature = "embedded-model")]
pub fn embedded() -> Result<Model> {
    Ok(Model::embedded()?)
}

/// The net inside this program.
#[cfg(not(feature = "embedded-model"))]
pub fn embedded() -> Result<Model> {
    bail!("this build has no embedded net (feature `embedded-model` is off); give --model FILE")
}

/// The net that was asked for.
pub fn open_model(choice: &ModelChoice) -> Result<Model> {
    let reading = Reading { arch: choice.arch.as_deref(), output: choice.output.as_deref(), head: choice.head };
    match &choice.model {
        None if choice.arch.is_some() => bail!("--arch needs --model FILE; the embedded net's architecture is known"),
        None if choice.output.is_some() => bail!("--output needs --model FILE; the embedded net has one output"),
        None if choice.head.is_some() => bail!("--head needs --model FILE; the embedded net has a softmax"),
        None => embedded(),
        Some(name) => named(name, &reading),
    }
}

/// The net's preparation of pictures, with the parts given on the command line in place of its own.
fn preparation(model: &Model, args: &PreparationArgs, room: Room) -> Result<Preprocess> {
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
    p.interpolation = args.interpolation.unwrap_or(p.interpolation);
    if matches!(p.channels, 1 | 3) {
        p.check()?;
        room.check_prepared(&p)?;
    }
    Ok(p)
}

/// Class names: the net's own or those of `--labels`.
fn labels(model: &Model, args: &PreparationArgs) -> Result<Labels> {
    Ok(match &args.labels {
        Some(path) => model.read_labels(path)?,
        None => model.labels().clone(),
    })
}
