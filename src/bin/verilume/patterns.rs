//! `verilume patterns`: fits what `pattern_net` and `pattern_attribution` need.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use verilume::engine::{Batch, Engine};
use verilume::graph::Graph;
use verilume::method::patterns::{Estimator, Fit};
use verilume::model::Model;
use verilume::report::replace;
use verilume::tensor::{Shape, Tensor};
use verilume::{Error, ErrorKind};

use crate::args::{FitArgs, PatternsArgs, PatternsCommand};
use crate::arrays::ArrayFile;
use crate::computing;
use crate::inputs::{self, Source};
use crate::items::{Item, Net};
use crate::outputs;
use crate::paths;
use crate::plan;
use crate::said::Said;
use crate::stream::usual_shape;
use crate::talk::{Progress, Voice, counted};
use crate::targets::best_first;

/// Some inputs could not be used.
const SOME_FAILED: u8 = 1;

/// Pictures of known class that are held against the net's predictions: enough to tell a wrong preparation.
const COMPARED: usize = 256;

/// Rows of an array read at a time.
const ROWS: usize = 32;

/// Runs the command.
pub fn run(args: &PatternsArgs) -> Result<ExitCode> {
    match &args.command {
        PatternsCommand::Fit(args) => fit(args),
    }
}

/// A fit that is under way.
struct Run<'a> {
    model: &'a Model,
    estimator: Estimator,
    engine: Engine,
    /// The net for inputs of the size that most have.
    fit: Option<(Arc<Graph>, Fit)>,
    /// Pictures still wanted.
    left: usize,
    failed: usize,
    said: Said,
    /// Pictures whose class was held against the net's prediction.
    compared: usize,
}

impl Run<'_> {
    fn pictures(&self) -> usize {
        self.fit.as_ref().map_or(0, |(_, fit)| fit.pictures())
    }

    /// Adds what could be read of `items`; the rest is said and counted.
    fn add(&mut self, items: Vec<verilume::Result<Item>>, progress: &Progress) -> Result<()> {
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        for item in items {
            let fitting = item.and_then(|item| {
                self.said.hear(&item, progress);
                Ok((self.fitting(item.input)?, item.label))
            });
            match fitting {
                Ok((input, label)) => {
                    inputs.push(input);
                    labels.push(label);
                }
                Err(e) => {
                    self.failed += 1;
                    progress.say(&format!("left out: {e}"));
                }
            }
        }
        inputs.truncate(self.left);
        self.left -= inputs.len();
        let Some((graph, fit)) = self.fit.as_mut().filter(|_| !inputs.is_empty()) else { return Ok(()) };
        let x = Batch::of(inputs)?;
        if self.compared < COMPARED && labels.iter().any(Option::is_some) {
            let logits = self.engine.forward(graph, &x)?;
            for (i, label) in labels.into_iter().take(x.len()).enumerate() {
                let Some(label) = label else { continue };
                let predicted = best_first(&logits.item(i)?.to_f64()).first().copied();
                self.said.count(predicted == Some(label));
                self.compared += 1;
            }
        }
        Ok(fit.add(&mut self.engine, graph, &x)?)
    }

    /// `input` if it has the size of those before it; the first makes the net.
    fn fitting(&mut self, input: Tensor) -> verilume::Result<Tensor> {
        let &[c, h, w] = input.dims() else {
            return Err(Error::input(format!("an input of shape {:?}", input.dims())));
        };
        let (graph, _) = match &mut self.fit {
            Some(fit) => fit,
            None => {
                let graph = self.model.graph(Shape::new(c, h, w))?;
                let fit = Fit::new(&graph, self.estimator, self.engine.describe().threads)?;
                self.fit.insert((graph, fit))
            }
        };
        let shape = graph.input_shape();
        if input.dims() == shape.dims() {
            return Ok(input);
        }
        Err(Error::input(format!("an input of shape {:?} among those of {shape}", input.dims())))
    }

    fn source(&mut self, at: usize, source: &Source, net: Net, progress: &Progress) -> Result<()> {
        if !source.is_array() || source.refused.is_some() {
            return self.add(vec![Item::picture(at, source, net)], progress);
        }
        let mut array = match ArrayFile::open(&source.path) {
            Ok(array) => array,
            Err(e) => return self.add(vec![Err(e)], progress),
        };
        let rows = array.rows();
        for first in (0..rows).step_by(ROWS) {
            if self.left == 0 {
                break;
            }
            progress.at(&format!("{} [{first} of {rows}]", source.shown));
            let last = rows.min(first + ROWS.min(self.left));
            let items = (first..last).map(|row| Item::row(at, source, &mut array, row, net)).collect();
            self.add(items, progress)?;
        }
        Ok(())
    }
}

fn fit(args: &FitArgs) -> Result<ExitCode> {
    let model = plan::open_model(&args.model)?;
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let engine = computing::open(&computing::settings(&args.resources, args.threads)?, voice)?;
    let mut found = inputs::find(&args.data, &args.out);
    // The file of an earlier fit is no data.
    let own = args.out.canonicalize().ok();
    found.sources.retain(|s| own.is_none() || s.path.canonicalize().ok() != own);
    let model_file = args.model.model.as_deref().and_then(|name| Path::new(name).canonicalize().ok());
    if own.is_some() && own == model_file {
        bail!("--out {}: this is the model's file", args.out.display());
    }
    let mut progress = Progress::new(voice, found.sources.len());
    found.left_out().iter().for_each(|sentence| progress.say(sentence));
    let left = args.limit.unwrap_or(usize::MAX);
    let said = Said::new(&model, &preprocess, &args.preparation);
    said.tell(&progress);
    let mut run =
        Run { model: &model, estimator: args.estimator, engine, fit: None, left, failed: 0, said, compared: 0 };
    let net = Net { preprocess: &preprocess, input: model.default_input() };
    if let Some(graph) = usual_shape(&found.sources, net).and_then(|shape| model.graph(shape).ok()) {
        let fit = Fit::new(&graph, run.estimator, run.engine.describe().threads)?;
        run.fit = Some((graph, fit));
    }
    for (at, source) in found.sources.iter().enumerate() {
        if run.left == 0 {
            break;
        }
        progress.at(&source.shown);
        let before = run.pictures();
        run.source(at, source, net, &progress)?;
        progress.step(&format!("{}: {}", source.shown, counted(run.pictures() - before, "picture")));
    }
    progress.finish();
    run.said.judge(model.classes(), &progress);
    let data: Vec<String> = args.data.iter().map(|name| paths::shown(Path::new(name))).collect();
    let notes = [
        ("model", model.name().to_string()),
        ("architecture", model.architecture().to_string()),
        ("model_sha256", model.sha256().to_string()),
        ("data", data.join(", ")),
        ("preprocessing", serde_json::to_string(&preprocess)?),
    ];
    let mut notes: BTreeMap<String, String> = notes.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    notes.extend(run.said.notes());
    let Some((graph, fit)) = run.fit.filter(|(_, fit)| fit.pictures() > 0) else {
        bail!("--data: there is no picture that can be used")
    };
    let patterns = fit.finish(&graph, notes).map_err(|e| match e.kind() {
        ErrorKind::Input => e.within("--data"),
        _ => e,
    })?;
    outputs::make_room(&args.out)?;
    if own.is_some() {
        progress.say(&format!("{}: the file of an earlier run is replaced", args.out.display()));
    }
    replace(&args.out, &patterns.to_bytes()?)?;
    let dead: usize = patterns.provenance.dead.values().sum();
    if dead > 0 {
        progress.say(&format!(
            "{} never varied ({} estimator) and got the pattern 0: {}",
            counted(dead, "neuron"),
            args.estimator,
            patterns.provenance.dead.iter().map(|(name, n)| format!("{n} of {name}")).collect::<Vec<_>>().join(", ")
        ));
    }
    progress.say(&format!(
        "patterns of {}, fitted to {}, in {}",
        model.name(),
        counted(patterns.provenance.pictures, "picture"),
        args.out.display()
    ));
    Ok(if run.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}
