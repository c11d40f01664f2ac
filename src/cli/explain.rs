//! `verilume explain`: opens the net, goes through the inputs, says what became of them.

use anyhow::Result;

use crate::cli::args::ExplainArgs;
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::listing;
use crate::cli::plan;
use crate::cli::records::{Reply, maps};
use crate::cli::talk::{InputProgress, StandardOutput};
use crate::run::{self, Earlier, Explain, ExplainOptions, Listener, Totals};
use crate::text::counted;

/// Runs the command.
pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    if args.list_methods {
        let text = if args.json { listing::methods_json().to_string() } else { listing::methods_text() };
        StandardOutput::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shared = &args.shared;
    let mut methods = run::methods(&args.methods)?;
    let (mut session, settings) = shared.open(args.score)?;
    if methods.is_empty() {
        methods = plan::default_methods(session.model())?;
    }
    let progress = InputProgress::new(shared.voice());
    progress.observer().into_iter().for_each(|observer| session.engine().observe(observer));
    let ids: Vec<(String, bool)> = methods.iter().map(|named| (named.id.clone(), run::shares_out(named))).collect();
    let options = ExplainOptions {
        inputs: args.inputs.clone(),
        methods,
        target: args.target.clone(),
        formats: args.format.clone(),
        winsorise: args.winsorise,
        out: args.out.clone(),
        earlier: if args.resume { Earlier::Resume } else { Earlier::Forget },
        shard: args.shard,
        settings,
        given: shared.given(),
        read: shared.read(),
    };
    let reply = if args.json { Reply::Json } else { Reply::Table };
    let show = |sources: &[_]| maps(reply, progress.bar(), sources, &ids);
    let mut work = Explain::open(&mut session, options, show, &progress)?;
    let ended = run::drive(work.stream(), &mut work, &progress);
    let inputs = work.inputs();
    let totals = work.close(ended, &progress);
    progress.finish();
    let Totals { made, skipped, failed, .. } = totals?;
    let skipped_words = if skipped > 0 { format!(", {skipped} done before") } else { String::new() };
    let failed_words = if failed > 0 { format!(", {failed} of {inputs} inputs failed") } else { String::new() };
    progress.say(&format!("{} in {}{skipped_words}{failed_words}", counted(made, "map"), args.out.display()));
    Ok(exit::of(made + skipped, failed))
}
