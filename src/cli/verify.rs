//! `verilume model verify`: whether a net is read as the program that trained it has it.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::args::{PreparationArgs, SharedArgs, VerifyArgs};
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::talk::{InputProgress, StandardOutput};
use crate::data::{ArrayFile, Item, NetInput, Room, Row, Source, paths};
use crate::model::Model;
use crate::program::Score;
use crate::report::Versioned;
use crate::run::Said;
use crate::score::top;
use crate::text::counted;

/// What was found.
#[derive(Debug, Serialize)]
struct VerifyReport<'a> {
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
    /// What the other program's numbers are: `logits`, `probabilities` or `log-probabilities`. Numbers that are not the logits
    /// are compared with what the net's head makes of its own.
    compared: &'static str,
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
    let (model, preparation, resources) = (args.model.clone(), PreparationArgs::default(), args.resources.clone());
    let shared = SharedArgs { model, preparation, resources, threads: args.threads, quiet: args.quiet };
    let (mut session, _) = shared.open(Score::Logit)?;
    let progress = InputProgress::new(shared.voice());
    let mut said = Said::new(&session, &[]);
    said.tell(&progress);

    let room = shared.room();
    let source = Source::named(args.input.clone());
    let mut array = ArrayFile::open(&args.input, room).map_err(|e| e.within("--input"))?;
    let inputs = array.rows();
    let mut logits = Logits::open(&args.logits, session.model(), inputs, room)?;
    if inputs != logits.rows {
        bail!(
            "--logits {}: logits of {}, but {} has {inputs}",
            paths::shown(&args.logits),
            counted(logits.rows, "input"),
            paths::shown(&args.input)
        );
    }
    let preprocess = session.preparation().clone();
    let net = NetInput { preprocess: &preprocess, input: session.model().input_form(), room };
    let (mut agree, mut largest) = (0, 0.0f64);
    // A file may hold what comes out of the softmax or sigmoid at the end, as the other program does.
    let forms = [("logits", Score::Logit), ("probabilities", Score::Prob), ("log-probabilities", Score::LogProb)];
    let mut apart = forms.map(|(name, score)| Apart { name, score, worst: 0.0, at: [0, 0] });
    for row in 0..inputs {
        let wanted = logits.of(row)?;
        let item = Item::row(0, &source, &mut array, row, net).map_err(|e| e.within("--input"))?;
        said.hear(&item, &progress);
        let Some(scored) = session.score(&[&item.input]).pop() else { continue };
        let found = scored.map_err(|e| e.within("--input"))?.logits;
        let link = session.model().link();
        for form in &mut apart {
            let own = form.score.of_all(link, &found);
            // Of a net with one output the file gives one number, the one of class 1.
            let first = usize::from(form.score != Score::Logit && logits.has_one_number());
            for (class, (a, b)) in own.iter().zip(&wanted).enumerate().skip(first) {
                if (a - b).abs() > form.worst {
                    (form.worst, form.at) = ((a - b).abs(), [row, class]);
                }
            }
        }
        agree += usize::from(top(&found) == top(&wanted));
        largest = wanted.iter().fold(largest, |largest, v| largest.max(v.abs()));
    }
    if largest == 0.0 {
        bail!("--logits {}: all logits are 0, there is nothing to compare with", paths::shown(&args.logits));
    }
    let model = session.model();
    let passes = |form: &&Apart| form.worst / largest <= args.tolerance;
    let Apart { name: compared, worst, at, .. } = *apart.iter().find(passes).unwrap_or(&apart[0]);
    let relative = worst / largest;
    let report = VerifyReport {
        model: model.name(),
        architecture: model.architecture(),
        sha256: model.sha256(),
        inputs,
        classes: model.classes(),
        largest_difference: worst,
        at,
        largest_logit: largest,
        relative_difference: relative,
        tolerance: args.tolerance,
        passed: relative <= args.tolerance,
        compared,
        classes_agree: agree,
        assumed: &said.all_assumed(),
        warnings: &said.all(),
    };
    let text = if args.json { serde_json::to_string(&Versioned::new(&report))? } else { text(&report, model) };
    StandardOutput::default().line(&text)?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(exit::SOME_FAILED) })
}

fn text(report: &VerifyReport<'_>, model: &Model) -> String {
    let agree = match (report.classes_agree, report.inputs) {
        (1, 1) => "the class agrees".to_string(),
        (0, 1) => "the classes differ".to_string(),
        (n, all) if n == all => format!("the classes of all {all} inputs agree"),
        (n, all) => format!("the classes of {n} of {all} inputs agree"),
    };
    let what = match report.compared {
        "logits" => String::new(),
        other => format!(" (the file holds {other}, which were compared; logits say more)"),
    };
    let number = if report.compared == "logits" { "logit" } else { "number" };
    let (verdict, relation) = if report.passed { ("equal", "within") } else { ("DIFFERENT", "beyond") };
    format!(
        "{verdict}: {} ({}) differs by {:.1e} of the largest {number}, {relation} the tolerance of {:e}; {agree}{what}",
        model.name(),
        model.architecture(),
        report.relative_difference,
        report.tolerance
    )
}

/// The largest difference if the other program's numbers are of this form.
#[derive(Clone, Copy)]
struct Apart {
    name: &'static str,
    score: Score,
    worst: f64,
    at: [usize; 2],
}

/// The other program's logits, read an input at a time.
struct Logits {
    array: ArrayFile,
    shown: String,
    form: Layout,
    rows: usize,
}

/// How they are laid out.
enum Layout {
    /// A row an input, a number a class.
    Classes,
    /// A row an input: the one output of the net.
    One,
    /// The same of all inputs in one row.
    Flat(Vec<f64>),
}

impl Logits {
    /// Opens the logits of `inputs` inputs.
    fn open(path: &Path, model: &Model, inputs: usize, room: Room) -> Result<Self> {
        let array = ArrayFile::open(path, room).map_err(|e| e.within("--logits"))?;
        let (shown, rows, classes) = (paths::shown(path), array.rows(), model.classes());
        let sigmoid = model.unfolded().is_paired();
        let mut logits = Self { array, shown, form: Layout::Classes, rows };
        match *logits.array.dims() {
            [n] if sigmoid && logits.array.is_single() && n == inputs => {
                (logits.form, logits.rows) = (Layout::Flat(logits.numbers(0)?), n);
            }
            [1] if sigmoid => logits.form = Layout::One,
            [n] if n == classes => {}
            _ => {
                let n = if logits.array.is_single() { String::new() } else { format!("{rows}, ") };
                let dims: Vec<String> = logits.array.dims().iter().map(usize::to_string).collect();
                let one = if sigmoid { " and one output" } else { "" };
                let (shown, dims) = (&logits.shown, dims.join(", "));
                bail!("--logits {shown}: an array of shape [{n}{dims}], the net has {classes} classes{one}");
            }
        }
        Ok(logits)
    }

    /// Whether it gives one number for each input, of a net with one output.
    fn has_one_number(&self) -> bool {
        matches!(self.form, Layout::One | Layout::Flat(_))
    }

    fn numbers(&mut self, row: usize) -> Result<Vec<f64>> {
        let shown = &self.shown;
        let numbers = match self.array.row(row)? {
            Row::Normalised(numbers) => numbers,
            Row::Levels(_) => bail!("--logits {shown}: these are levels of pictures"),
        };
        match numbers.first_not_finite() {
            Some(k) => bail!("--logits {shown}: element {k} of row {row} is not a finite number"),
            None => Ok(numbers.to_f64().into_owned()),
        }
    }

    /// Of input `row`, one logit a class.
    fn of(&mut self, row: usize) -> Result<Vec<f64>> {
        let z = match &self.form {
            Layout::Classes => return self.numbers(row),
            Layout::One => self.numbers(row)?.first().copied(),
            Layout::Flat(all) => all.get(row).copied(),
        };
        Ok(z.map_or_else(Vec::new, |z| vec![-z, z]))
    }
}
