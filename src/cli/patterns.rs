//! `verilume patterns`: fits what `pattern_net` and `pattern_attribution` need.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::ErrorKind;
use crate::cli::args::{FitArgs, PatternsArgs, PatternsCommand};
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::plan;
use crate::cli::talk::InputProgress;
use crate::data::{ItemStream, NetInput, Source, files, find, paths};
use crate::program::Score;
use crate::report::replace;
use crate::run::{self, Fitting, Gather, Listener, Paired, Said};
use crate::text::counted;

/// Runs the command.
pub fn run(args: &PatternsArgs) -> Result<ExitCode> {
    match &args.command {
        PatternsCommand::Fit(args) => fit(args),
    }
}

fn fit(args: &FitArgs) -> Result<ExitCode> {
    let shared = &args.shared;
    let (mut session, _) = shared.open(Score::Logit)?;
    let mut found = find(&args.data, &args.out, shared.room());
    plan::spare(&args.out, &args.shared.model, &[&found.sources])?;
    // The file of an earlier fit is no data.
    let own = args.out.canonicalize().ok();
    found.sources.retain(|s| own.is_none() || s.path.canonicalize().ok() != own);
    let progress = InputProgress::new(shared.voice());
    progress.begin(found.sources.len());
    found.left_out().iter().for_each(|sentence| progress.say(sentence));
    let said = Said::new(&session, &shared.given());
    said.tell(&progress);
    let sources: Arc<[Source]> = found.sources.into();
    let preprocess = session.preparation().clone();
    let net = NetInput { preprocess: &preprocess, input: session.model().input_form(), room: shared.room() };
    let stream = Paired::new(ItemStream::new(Arc::clone(&sources), net), None);
    let mut work = Gather::new(&mut session, sources, net, args.limit, said, Fitting::new(args.estimator));
    run::drive(stream, &mut work, &progress)?;
    progress.finish();
    let Gather { graph, counts: [_, failed], mut said, sink, .. } = work;
    said.judge(session.model().classes(), &progress);
    let data: Vec<String> = args.data.iter().map(|name| paths::shown(Path::new(name))).collect();
    let notes = [
        ("model", session.model().name().to_string()),
        ("architecture", session.model().architecture().to_string()),
        ("model_sha256", session.model().sha256().to_string()),
        ("data", data.join(", ")),
        ("preprocessing", serde_json::to_string(&preprocess)?),
    ];
    let mut notes: BTreeMap<String, String> = notes.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    notes.extend(said.notes());
    let Some((graph, fit)) = graph.zip(sink.fit) else { bail!("--data: there is no picture that can be used") };
    let patterns = fit.finish(&graph, notes).map_err(|e| match e.kind() {
        ErrorKind::Input => e.within("--data"),
        _ => e,
    })?;
    files::make_room(&args.out)?;
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
        session.model().name(),
        counted(patterns.provenance.pictures, "picture"),
        args.out.display()
    ));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::SOME_FAILED) })
}
