//! `verilume model verify`: whether a net is read as the program that trained it has it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;
use verilume::model::Model;
use verilume::score::best_first;

use crate::args::{Preparation, VerifyArgs};
use crate::arrays::{ArrayFile, Row};
use crate::computing;
use crate::inputs::Source;
use crate::items::{Item, Net};
use crate::paths;
use crate::plan;
use crate::runner::{batch, input_shape};
use crate::said::Said;
use crate::talk::{Answer, Progress, Voice, counted};

/// The logits differ by more than is allowed.
const DIFFERENT: u8 = 1;

/// What was found.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    architecture: &'a str,
    sha256: &'a str,
    inputs: usize,
    classes: usize,
    /// Of any logit of any input.
    largest_difference: f64,
    /// Row of the input that has it, and the class.
    at: [usize; 2],
    /// Largest magnitude among the logits of the other program.
    largest_logit: f64,
    /// The largest difference over the largest logit.
    relative_difference: f64,
    tolerance: f64,
    /// Whether the difference is within the tolerance.
    passed: bool,
    /// Inputs on which both programs predict the same class.
    classes_agree: usize,
    assumed: &'a [String],
    warnings: &'a [String],
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        bail!("--tolerance {}: a finite number of at least 0 is wanted", args.tolerance);
    }
    let model = plan::open_model(&args.model)?;
    let settings = computing::settings(&args.resources, args.threads)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut engine = computing::open(&settings, voice)?;
    let progress = Progress::new(voice, 0);
    let mut said = Said::new(&model, model.preprocess(), &Preparation::default());
    said.tell(&progress);

    let wanted = logits(&args.logits, model.classes())?;
    let source = Source::named(args.input.clone());
    let mut array = ArrayFile::open(&args.input).map_err(|e| e.within("--input"))?;
    if array.rows() != wanted.len() {
        bail!(
            "--logits {}: logits of {}, but {} has {}",
            paths::shown(&args.logits),
            counted(wanted.len(), "input"),
            paths::shown(&args.input),
            array.rows()
        );
    }
    let net = Net { preprocess: model.preprocess(), input: model.default_input() };
    let (mut worst, mut at, mut agree) = (0.0, [0, 0], 0);
    for (row, wanted) in wanted.iter().enumerate() {
        let item = Item::row(0, &source, &mut array, row, net).map_err(|e| e.within("--input"))?;
        said.hear(&item, None, None, &progress);
        let graph = model.graph(input_shape(&item.input)?).map_err(|e| e.within("--input"))?;
        let found = engine.forward(&graph, &batch(&[&item.input])?)?.item(0)?.to_f64().into_owned();
        for (class, (a, b)) in found.iter().zip(wanted).enumerate() {
            if (a - b).abs() > worst {
                (worst, at) = ((a - b).abs(), [row, class]);
            }
        }
        agree += usize::from(best_first(&found).first() == best_first(wanted).first());
    }
    let largest = wanted.iter().flatten().fold(0.0, |largest: f64, v| largest.max(v.abs()));
    if largest == 0.0 {
        bail!("--logits {}: all logits are 0, there is nothing to compare with", paths::shown(&args.logits));
    }
    let relative = worst / largest;
    let report = Report {
        model: model.name(),
        architecture: model.architecture(),
        sha256: model.sha256(),
        inputs: wanted.len(),
        classes: model.classes(),
        largest_difference: worst,
        at,
        largest_logit: largest,
        relative_difference: relative,
        tolerance: args.tolerance,
        passed: relative <= args.tolerance,
        classes_agree: agree,
        assumed: &said.all_assumed(),
        warnings: &said.all(),
    };
    let text = if args.json { serde_json::to_string(&report)? } else { text(&report, &model) };
    Answer::default().line(&text)?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn text(report: &Report<'_>, model: &Model) -> String {
    let agree = match (report.classes_agree, report.inputs) {
        (1, 1) => "the class agrees".to_string(),
        (0, 1) => "the classes differ".to_string(),
        (n, all) if n == all => format!("the classes of all {all} inputs agree"),
        (n, all) => format!("the classes of {n} of {all} inputs agree"),
    };
    let (verdict, relation) = if report.passed { ("equal", "within") } else { ("DIFFERENT", "beyond") };
    format!(
        "{verdict}: {} ({}) differs by {:.1e} of the largest logit, {relation} the tolerance of {:e}; {agree}",
        model.name(),
        model.architecture(),
        report.relative_difference,
        report.tolerance
    )
}

/// The other program's logits, a row an input.
fn logits(path: &Path, classes: usize) -> Result<Vec<Vec<f64>>> {
    let mut array = ArrayFile::open(path).map_err(|e| e.within("--logits"))?;
    let shown = paths::shown(path);
    if array.dims() != [classes] {
        let n = if array.is_single() { String::new() } else { format!("{}, ", array.rows()) };
        let dims: Vec<String> = array.dims().iter().map(usize::to_string).collect();
        bail!("--logits {shown}: an array of shape [{n}{}], the net has {classes} classes", dims.join(", "));
    }
    let mut rows = Vec::with_capacity(array.rows());
    for row in 0..array.rows() {
        let Row::Normalised(numbers) = array.row(row)? else { bail!("--logits {shown}: these are levels of pictures") };
        if let Some(k) = numbers.first_not_finite() {
            bail!("--logits {shown}: element {k} of row {row} is not a finite number");
        }
        rows.push(numbers.to_f64().into_owned());
    }
    Ok(rows)
}
