//! `verilume check`: puts methods to the tests of trust, picture by picture, and writes the reports.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::Error;
use crate::cli::args::{CheckArgs, ReportFormat};
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::kindermans;
use crate::cli::plan;
use crate::cli::talk::{InputProgress, StandardOutput, say};
use crate::cli::tests_of_trust;
use crate::cli::verdicts;
use crate::data::{Event, Item, ItemStream, NetInput, Source, files, find};
use crate::engine::Settings;
use crate::image::Picture;
use crate::map::showing_nothing;
use crate::model::{Model, Setting};
use crate::reliability::check::{self, Checked, PanelKind, Test, Verdict};
use crate::render::{self, Look};
use crate::report::check::{CheckReport, MethodChecked, PictureChecked};
use crate::report::html::{Drawing, LARGEST_SIDE, Page, PagePanel, Plate};
use crate::report::{Partial, RECORD_VERSION, replace};
use crate::run::{self, Checks, Listener, Named, Said, precision_name};
use crate::session::{Noticed, Session};
use crate::text::counted;

/// Checked when no method is named; the last one where the net has positions.
const DEFAULT_METHODS: [&str; 6] =
    ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "guided_backprop", "grad_cam"];

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    if args.list_tests {
        let text = if args.json { tests_of_trust::json().to_string() } else { tests_of_trust::text() };
        StandardOutput::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.kindermans {
        return kindermans::run(args);
    }
    let shared = &args.shared;
    let tests = tests_of_trust::named(&args.tests)?;
    let named = run::methods(&args.methods)?;
    let (mut session, settings) = shared.open(args.score)?;
    let named = if named.is_empty() { default_methods(session.model())? } else { named };
    for method in &named {
        // What can be refused before the first picture is.
        session.build(&method.spec).map_err(|e| e.within(format!("-m {}", method.spec)))?;
    }
    let found = find(&args.inputs, &args.out, shared.room());
    let left_out = found.left_out();
    let sources: Arc<[Source]> = found.sources.into();
    if sources.is_empty() {
        bail!("no inputs");
    }
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    let _lock = run::lock(&args.out.join(".check.lock"), &args.out)?;

    let progress = InputProgress::new(shared.voice());
    progress.begin(sources.len());
    let said = Said::new(&session, &shared.given());
    said.tell(&progress);
    run::many_passes(&named).for_each(|line| progress.say(&line));
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let mut answer = StandardOutput::default();
    let bar = progress.bar();
    let hears = |checked: &PictureChecked, said: &Noticed| {
        if args.json {
            for line in verdicts::lines(checked, said)? {
                bar.aside(|| answer.line(&line))?;
            }
        }
        Ok(())
    };
    let drawn = if args.format.contains(&ReportFormat::Html) { args.drawn } else { 0 };
    let net = NetInput { preprocess: session.preparation(), input: session.model().input_form(), room: shared.room() };
    let stream = ItemStream::new(Arc::clone(&sources), net);
    let asked = Asked { named, tests, settings, drawn };
    let (report, plates) = examine(&mut session, asked, (sources, stream), said, &progress, hears)?;
    let written = write(args, &report, &plates, &progress)?;
    progress.finish();
    let usable = report.pictures.iter().filter(|p| p.error.is_none()).count();
    if !args.json && usable > 0 {
        answer.line(&verdicts::table(&report))?;
    }
    if !written.is_empty() {
        progress.say(&format!("{}: {}", args.out.display(), written.join(", ")));
    }
    Ok(exit_code(args, &report, usable))
}

/// What is checked, and how.
struct Asked {
    named: Vec<Named>,
    tests: Vec<&'static Test>,
    settings: Settings,
    /// How many pictures are drawn.
    drawn: usize,
}

/// Puts the methods to the tests on every input of a stream.
fn examine(
    session: &mut Session,
    Asked { named, tests, settings, drawn }: Asked,
    (sources, stream): (Arc<[Source]>, impl Iterator<Item = Event<Item>>),
    said: Said,
    listener: &dyn Listener,
    mut hears: impl FnMut(&PictureChecked, &Noticed) -> crate::Result<()>,
) -> crate::Result<(CheckReport, Vec<Option<Plate>>)> {
    let started = Instant::now();
    let (on, precision) = (session.engine().describe(), precision_name(&settings));
    let session = &*session;
    let load = |path: &Path| session.read(path);
    let device = format!("{}, {} kernels, {precision}, {}", on.device, on.kernels, counted(on.threads, "thread"));
    let (mut plates, mut left) = (Vec::new(), drawn);
    let each = |checked: &PictureChecked, found: Option<(&Item, &Checked)>, said: &Noticed| {
        hears(checked, said)?;
        let plate = found.filter(|_| left > 0).and_then(|(item, found)| plate(session, item, found));
        left -= usize::from(plate.is_some());
        plates.push(plate);
        Ok(())
    };
    let mut work = Checks::new(session, &load, (&named, tests.clone(), settings), (sources, said), Box::new(each))?;
    run::drive(stream, &mut work, listener)?;
    let (pictures, mut said) = work.close();
    said.judge(session.model().classes(), listener);
    let report = CheckReport {
        version: env!("CARGO_PKG_VERSION").into(),
        model: session.model_used(),
        device,
        seed: session.seed(),
        seconds: started.elapsed().as_secs_f64(),
        tests: tests.iter().map(|test| tests_of_trust::described(test)).collect(),
        methods: named.iter().map(|n| MethodChecked { id: n.id.clone(), spec: n.spec.to_string() }).collect(),
        pictures,
        warnings: said.all(),
        assumed: said.all_assumed(),
        record_version: RECORD_VERSION,
    };
    Ok((report, plates))
}

/// Puts methods to the tests of trust as `verilume check` does, without writing anything. Without `methods` or `tests`,
/// those of the command are meant; `stream` has the inputs that `sources` name, and the first `drawn` of them are drawn
/// for the page.
///
/// # Errors
/// When a method or a test has no meaning, or the work was asked to stop.
pub fn check_items(
    session: &mut Session,
    (methods, tests): (&[String], &[String]),
    (settings, given, drawn): (Settings, &[Setting], usize),
    inputs: (Arc<[Source]>, impl Iterator<Item = Event<Item>>),
    listener: &dyn Listener,
) -> crate::Result<(CheckReport, Vec<Option<Plate>>)> {
    let tests = tests_of_trust::named(tests).map_err(crate::cli::library_error)?;
    let named = match methods {
        [] => default_methods(session.model()).map_err(crate::cli::library_error)?,
        _ => run::methods(methods)?,
    };
    listener.begin(inputs.0.len());
    let said = Said::new(session, given);
    examine(session, Asked { named, tests, settings, drawn }, inputs, said, listener, |_, _| Ok(()))
}

fn exit_code(args: &CheckArgs, report: &CheckReport, usable: usize) -> ExitCode {
    let failed = |p: &PictureChecked| p.findings.iter().any(|f| f.verdict == Verdict::Fail);
    let says = |p: &PictureChecked| p.findings.iter().any(|f| f.verdict != Verdict::NotApplicable);
    match usable {
        0 => ExitCode::from(exit::UNUSABLE),
        _ if !report.pictures.iter().any(says) => {
            say("error: no test applies to any method on any picture; --json and the reports say why");
            ExitCode::from(exit::UNUSABLE)
        }
        n if n < report.pictures.len() => ExitCode::from(exit::SOME_FAILED),
        _ if args.fail_on_verdict && report.pictures.iter().any(failed) => ExitCode::from(exit::SOME_FAILED),
        _ => ExitCode::SUCCESS,
    }
}

fn default_methods(model: &Model) -> Result<Vec<Named>> {
    let names = &DEFAULT_METHODS[..if plan::has_positions(model) { 6 } else { 5 }];
    Ok(run::methods(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>())?)
}

/// Writes the reports; their names.
fn write(
    args: &CheckArgs,
    report: &CheckReport,
    plates: &[Option<Plate>],
    progress: &InputProgress,
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
fn set_aside(args: &CheckArgs, report: &CheckReport, progress: &InputProgress) -> Result<()> {
    let of_report = || report.pictures.iter().map(|p| p.input.as_str()).collect::<BTreeSet<_>>();
    let is_same = |earlier: &serde_json::Value| {
        let pictures = earlier["pictures"].as_array().map(Vec::as_slice).unwrap_or_default();
        pictures.iter().filter_map(|p| p["input"].as_str()).collect::<BTreeSet<_>>() == of_report()
    };
    let kept = files::set_aside(&args.out.join("check.json"), is_same)?;
    if let Some(kept) = &kept {
        progress.say(&format!("the report on other inputs is kept as {}", kept.display()));
    }
    let page = args.out.join("check.html");
    if page.is_file() && (kept.is_some() || !Page::is_at(&page)) {
        let kept = files::free_beside(&page);
        std::fs::rename(&page, &kept).map_err(|e| Error::io(&page, e))?;
        progress.say(&format!("the page that was here is kept as {}", kept.display()));
    }
    Ok(())
}

/// The command line, as a shell would take it.
fn command() -> String {
    let quoted = |word: String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words = crate::cli::words().map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("verilume".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The picture and its maps, if it can be drawn: a vector has no picture; its numbers are in the report all the same.
fn plate(session: &Session, item: &Item, found: &Checked) -> Option<Plate> {
    let view = item.view(session.preparation()).ok()?;
    let panels = found.panels.iter().filter_map(|seen| panel(session, item, &view, seen).ok());
    Some(Plate { picture: Drawing::of(&view).ok()?, panels: panels.collect() })
}

fn panel(session: &Session, item: &Item, view: &Picture, seen: &check::Panel) -> crate::Result<PagePanel> {
    let view = match &seen.picture {
        Some(numbers) => item.pictured(numbers, session.preparation())?,
        None => view.clone(),
    };
    let map = item.drawn(&seen.map, session.preparation())?;
    let longest = view.height().max(view.width()).max(LARGEST_SIDE);
    let size = [view.height(), view.width()].map(|n| (n * LARGEST_SIDE / longest).max(1));
    let drawn = render::overlay(&view, &map, &Look { size: Some(size), ..Look::default() })?;
    let caption = match seen.kind {
        PanelKind::Original => {
            let class = seen.map.target;
            session.label(class).unwrap_or_else(|| format!("class {class}"))
        }
        _ => seen.caption.clone(),
    };
    let caption = match showing_nothing(&seen.map.all_notes()) {
        Some(words) => format!("{caption}: {words}"),
        None => caption,
    };
    Ok(PagePanel {
        method: seen.method.clone(),
        test: seen.test.unwrap_or_default().into(),
        name: tests_of_trust::caption(seen).into(),
        caption,
        drawing: Drawing::of(&drawn)?,
    })
}
