//! `verilume check`: puts methods to the tests of trust, picture by picture, and writes the reports.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use verilume::Error;
use verilume::engine::Settings;
use verilume::image::{Picture, Preprocess};
use verilume::map::showing_nothing;
use verilume::method::{Context, Spec};
use verilume::model::{Labels, Model};
use verilume::program::Score;
use verilume::reliability::check::{self, Checked, Checker, Options, PanelKind, Test, Verdict};
use verilume::render::{self, Look};
use verilume::report::check::{CheckReport, MethodChecked, PictureChecked};
use verilume::report::html::{Drawing, LARGEST_SIDE, Page, Panel, Plate};
use verilume::report::{ModelUsed, Partial, Prediction, replace};
use verilume::tensor::{Shape, Tensor};

use crate::args::{CheckArgs, ReportFormat};
use crate::arrays::ArrayFile;
use crate::computing;
use crate::explain::lock;
use crate::inputs::{self, Source};
use crate::items::{self, Item, Net};
use crate::kindermans;
use crate::outputs;
use crate::plan::{self, Named};
use crate::said::{Noticed, Said};
use crate::talk::{Answer, Progress, Voice, counted};
use crate::targets::best_first;
use crate::tests_of_trust;
use crate::verdicts;

/// Nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Some inputs failed, or a method failed and that was asked about.
const SOME_FAILED: u8 = 1;
/// Classes that a report lists.
const LISTED: usize = 5;

/// Checked when no method is named; the last one where the net has positions.
const DEFAULT_METHODS: [&str; 6] =
    ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "guided_backprop", "grad_cam"];

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    if args.list_tests {
        let text = if args.json { tests_of_trust::json().to_string() } else { tests_of_trust::text() };
        Answer::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.kindermans {
        return kindermans::run(args);
    }
    let started = Instant::now();
    let tests = tests_of_trust::named(&args.tests)?;
    let named = plan::methods(&args.methods)?;
    let model = plan::open_model(&args.model)?;
    let named = if named.is_empty() { default_methods(&model)? } else { named };
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let labels = plan::labels(&model, &args.preparation)?;
    let settings = computing::settings(&args.resources, args.threads)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let on = computing::open(&settings, voice)?.describe();
    let score = plan::score(args.score);
    let seed = args.resources.seed;
    let noticed = RefCell::default();
    let load = |path: &Path| items::load(path, &preprocess, &noticed);
    let context = Context { seed, score, preprocess: &preprocess, load: &load };
    for method in &named {
        // What can be refused before the first picture is.
        method.spec.build(&context).map_err(|e| e.within(format!("-m {}", method.spec)))?;
    }
    let found = inputs::find(&args.inputs, &args.out);
    let left_out = found.left_out();
    let sources = found.sources;
    if sources.is_empty() {
        bail!("no inputs");
    }
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    let _lock = lock(&args.out.join(".check.lock"), &args.out)?;

    let mut progress = Progress::new(voice, sources.len());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed.borrow().clone());
    said.tell(&progress);
    plan::many_passes(&named).for_each(|line| progress.say(&line));
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let precision = computing::precision_name(&settings);
    let device = format!("{}, {} kernels, {precision}, {}", on.device, on.kernels, counted(on.threads, "thread"));
    let mut run = Run {
        args,
        model: &model,
        preprocess: &preprocess,
        labels: &labels,
        settings,
        score,
        seed,
        load: &load,
        methods: named.iter().map(|n| (n.id.clone(), n.spec.clone())).collect(),
        tests: &tests,
        checkers: HashMap::new(),
        pictures: Vec::new(),
        plates: Vec::new(),
        answer: Answer::default(),
        said,
    };
    for (at, source) in sources.iter().enumerate() {
        progress.at(&source.shown);
        let before = run.pictures.len();
        run.source(at, source, &progress)?;
        progress.step(&summary(source, &run.pictures[before..]));
    }
    let Run { pictures, plates, mut answer, mut said, .. } = run;
    said.judge(model.classes(), &progress);
    let report = CheckReport {
        version: env!("CARGO_PKG_VERSION").into(),
        model: ModelUsed {
            name: model.name().into(),
            architecture: model.architecture().into(),
            sha256: model.sha256().into(),
        },
        device,
        seed,
        seconds: started.elapsed().as_secs_f64(),
        tests: tests.iter().map(|test| tests_of_trust::described(test)).collect(),
        methods: named.iter().map(|n| MethodChecked { id: n.id.clone(), spec: n.spec.to_string() }).collect(),
        pictures,
        warnings: said.all(),
        assumed: said.all_assumed(),
        record_version: verilume::report::RECORD_VERSION,
    };
    let files = write(args, &report, &plates, &progress)?;
    progress.finish();
    let usable = report.pictures.iter().filter(|p| p.error.is_none()).count();
    if !args.json && usable > 0 {
        answer.line(&verdicts::table(&report))?;
    }
    if !files.is_empty() {
        progress.say(&format!("{}: {}", args.out.display(), files.join(", ")));
    }
    Ok(exit_code(args, &report, usable))
}

fn exit_code(args: &CheckArgs, report: &CheckReport, usable: usize) -> ExitCode {
    let failed = |p: &PictureChecked| p.findings.iter().any(|f| f.verdict == Verdict::Fail);
    let says = |p: &PictureChecked| p.findings.iter().any(|f| f.verdict != Verdict::NotApplicable);
    match usable {
        0 => ExitCode::from(NOTHING_DONE),
        _ if !report.pictures.iter().any(says) => {
            crate::talk::say("error: no test applies to any method on any picture; --json and the reports say why");
            ExitCode::from(NOTHING_DONE)
        }
        n if n < report.pictures.len() => ExitCode::from(SOME_FAILED),
        _ if args.fail_on_verdict && report.pictures.iter().any(failed) => ExitCode::from(SOME_FAILED),
        _ => ExitCode::SUCCESS,
    }
}

fn default_methods(model: &Model) -> Result<Vec<Named>> {
    let names = &DEFAULT_METHODS[..if plan::has_positions(model) { 6 } else { 5 }];
    plan::methods(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

/// What became of a source, in one line.
fn summary(source: &Source, pictures: &[PictureChecked]) -> String {
    let error = pictures.iter().find_map(|p| p.error.as_deref());
    let usable = pictures.iter().filter(|p| p.error.is_none()).count();
    match (error, usable) {
        (Some(why), 0) => format!("failed: {why}"),
        (Some(_), n) => format!("{}: {n} of {} checked", source.shown, counted(pictures.len(), "input")),
        (None, _) => {
            let count = |v| pictures.iter().flat_map(|p| &p.findings).filter(|f| f.verdict == v).count();
            format!("{}: {} passed, {} failed", source.shown, count(Verdict::Pass), count(Verdict::Fail))
        }
    }
}

/// Writes the reports; their names.
fn write(
    args: &CheckArgs,
    report: &CheckReport,
    plates: &[Option<Plate>],
    progress: &Progress,
) -> Result<Vec<&'static str>> {
    set_aside(args, report, progress)?;
    let mut files = Vec::new();
    if args.format.contains(&ReportFormat::Json) {
        let mut bytes = serde_json::to_vec_pretty(report)?;
        bytes.push(b'\n');
        replace(&args.out.join("check.json"), &bytes)?;
        files.push("check.json");
    }
    if args.format.contains(&ReportFormat::Html) {
        let path = args.out.join("check.html");
        let (partial, file) = Partial::create(&path)?;
        let mut file = BufWriter::new(file);
        Page { report, plates, command: &command() }.write(&mut file)?;
        file.flush().map_err(|e| Error::io(&path, e))?;
        drop(file);
        partial.place()?;
        files.push("check.html");
    }
    Ok(files)
}

/// Keeps the reports of an earlier run on other inputs.
fn set_aside(args: &CheckArgs, report: &CheckReport, progress: &Progress) -> Result<()> {
    let of_report = || report.pictures.iter().map(|p| p.input.as_str()).collect::<BTreeSet<_>>();
    let is_same = |earlier: &serde_json::Value| {
        let pictures = earlier["pictures"].as_array().map(Vec::as_slice).unwrap_or_default();
        pictures.iter().filter_map(|p| p["input"].as_str()).collect::<BTreeSet<_>>() == of_report()
    };
    let Some(kept) = outputs::set_aside(&args.out.join("check.json"), is_same)? else { return Ok(()) };
    progress.say(&format!("the report on other inputs is kept as {}", kept.display()));
    let page = args.out.join("check.html");
    if page.exists() {
        let kept = outputs::free_beside(&page);
        std::fs::rename(&page, &kept).map_err(|e| Error::io(&page, e))?;
        progress.say(&format!("its page is kept as {}", kept.display()));
    }
    Ok(())
}

/// The command line, as a shell would take it.
fn command() -> String {
    let quoted = |word: String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words = std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("verilume".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A check under way.
struct Run<'a> {
    args: &'a CheckArgs,
    model: &'a Model,
    preprocess: &'a Preprocess,
    labels: &'a Labels,
    settings: Settings,
    score: Score,
    seed: u64,
    load: &'a dyn Fn(&Path) -> verilume::Result<Tensor>,
    methods: Vec<(String, Spec)>,
    tests: &'a [&'static Test],
    /// One for each input shape.
    checkers: HashMap<Shape, Checker<'a>>,
    pictures: Vec<PictureChecked>,
    plates: Vec<Option<Plate>>,
    answer: Answer,
    said: Said,
}

impl<'a> Run<'a> {
    fn source(&mut self, at: usize, source: &Source, progress: &Progress) -> Result<()> {
        let net = Net { preprocess: self.preprocess, input: self.model.default_input() };
        if !source.is_array() || source.refused.is_some() {
            return self.add(source, None, Item::picture(at, source, net), progress);
        }
        match ArrayFile::open(&source.path) {
            Ok(mut array) => {
                let rows = array.rows();
                for row in 0..rows {
                    progress.at(&format!("{} [{row} of {rows}]", source.shown));
                    self.add(source, Some(row), Item::row(at, source, &mut array, row, net), progress)?;
                }
                Ok(())
            }
            Err(e) => self.add(source, None, Err(e.within(&source.shown)), progress),
        }
    }

    /// Checks one picture, or records why not.
    fn add(
        &mut self,
        source: &Source,
        row: Option<usize>,
        item: verilume::Result<Item>,
        progress: &Progress,
    ) -> Result<()> {
        let mut checked = PictureChecked {
            input: source.shown.clone(),
            index: row,
            prediction: Vec::new(),
            findings: Vec::new(),
            error: None,
        };
        let mut plate = None;
        let (mut assumed, mut warnings) = (Vec::new(), Vec::new());
        if let Ok(item) = &item {
            self.said.hear(item, progress);
            Noticed { assumed, warnings, .. } = self.said.of(item);
        }
        self.said.write(&mut assumed, &mut warnings);
        match item.and_then(|item| Ok((self.examine(&item, source, progress)?, item))) {
            Ok((found, item)) => {
                checked.prediction = self.prediction(&found.logits);
                self.said.compare(&item, None, checked.prediction.first().map(|p| p.index));
                plate = self.drawn(&item, &found);
                checked.findings = found.findings;
            }
            Err(e) => checked.error = Some(e.to_string()),
        }
        if self.args.json {
            for line in verdicts::lines(&checked, (&assumed, &warnings))? {
                progress.aside(|| self.answer.line(&line))?;
            }
        }
        self.pictures.push(checked);
        self.plates.push(plate);
        Ok(())
    }

    fn examine(&mut self, item: &Item, source: &Source, progress: &Progress) -> verilume::Result<Checked> {
        let shape = match *item.input.dims() {
            [c, h, w] => Shape::new(c, h, w),
            _ => return Err(Error::input(format!("an input of shape {:?}", item.input.dims()))),
        };
        let checker = match self.checkers.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let options = Options {
                    seed: self.seed,
                    score: self.score,
                    preprocess: self.preprocess,
                    load: self.load,
                    tests: self.tests.to_vec(),
                };
                let mut checker = Checker::new(self.model.graph(shape)?, options, &self.settings)?;
                checker.engine().observe(progress.listener());
                new.insert(checker)
            }
        };
        let row = item.row.map(|row| format!(" [{row}]")).unwrap_or_default();
        let mut told = |method: &str, test: &str| progress.at(&format!("{}{row}: {method}, {test}", source.shown));
        checker.check(&item.input, &self.methods, &mut told)
    }

    fn prediction(&self, logits: &[f64]) -> Vec<Prediction> {
        let of = |&index: &usize| Prediction {
            index,
            label: self.labels.get(index).map(str::to_owned),
            score: self.score.linked(self.model.unfolded().link(), logits, index).0,
        };
        best_first(logits).iter().take(LISTED).map(of).collect()
    }

    fn class(&self, index: usize) -> String {
        self.labels.get(index).map_or_else(|| format!("class {index}"), str::to_owned)
    }

    fn panel(&self, item: &Item, view: &Picture, seen: &check::Panel) -> verilume::Result<Panel> {
        let view = match &seen.picture {
            Some(numbers) => item.pictured(numbers, self.preprocess)?,
            None => view.clone(),
        };
        let map = item.drawn(&seen.map, self.preprocess)?;
        let longest = view.height().max(view.width()).max(LARGEST_SIDE);
        let size = [view.height(), view.width()].map(|n| (n * LARGEST_SIDE / longest).max(1));
        let drawn = render::overlay(&view, &map, &Look { size: Some(size), ..Look::default() })?;
        let caption = match seen.kind {
            PanelKind::Original => self.class(seen.map.target),
            _ => seen.caption.clone(),
        };
        let caption = match showing_nothing(&seen.map.all_notes()) {
            Some(words) => format!("{caption}: {words}"),
            None => caption,
        };
        Ok(Panel {
            method: seen.method.clone(),
            test: seen.test.unwrap_or_default().into(),
            name: tests_of_trust::caption(seen).into(),
            caption,
            drawing: Drawing::of(&drawn)?,
        })
    }

    /// The picture and its maps, if this one is to be drawn and can be.
    fn drawn(&self, item: &Item, found: &Checked) -> Option<Plate> {
        let wanted = self.args.format.contains(&ReportFormat::Html);
        if !wanted || self.plates.iter().flatten().count() >= self.args.drawn {
            return None;
        }
        // A vector has no picture; its numbers are in the report all the same.
        let view = item.view(self.preprocess).ok()?;
        let panels = found.panels.iter().filter_map(|panel| self.panel(item, &view, panel).ok());
        Some(Plate { picture: Drawing::of(&view).ok()?, panels: panels.collect() })
    }
}
