//! `verilume attack`: opens the net, attacks the inputs, says what became of them.

use anyhow::Result;

use crate::cli::args::attack::AttackArgs;
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::listing;
use crate::cli::records::{Reply, attacks};
use crate::cli::talk::{InputProgress, StandardOutput};
use crate::program::Score;
use crate::run::{self, AttackOptions, AttackRun, Listener, Totals};
use crate::text::counted;

/// Runs the command.
pub fn run(args: &AttackArgs) -> Result<ExitCode> {
    if args.list_attacks {
        let text = if args.json { listing::attacks_json().to_string() } else { listing::attacks_text() };
        StandardOutput::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shared = &args.shared;
    let methods = run::methods(&args.methods)?;
    let (mut session, settings) = shared.open(Score::Logit)?;
    let progress = InputProgress::new(shared.voice());
    progress.observer().into_iter().for_each(|observer| session.engine().observe(observer));
    let options = AttackOptions {
        inputs: args.inputs.clone(),
        attacks: args.attacks.clone(),
        methods,
        target: args.target.clone(),
        formats: args.format.clone().unwrap_or_default(),
        out: args.out.clone(),
        settings,
        given: shared.given(),
        read: shared.read(),
    };
    let reply = if args.json { Reply::Json } else { Reply::Table };
    let show = |sources: &[_], ids: &[&str]| attacks(reply, progress.bar(), sources, ids);
    let mut work = AttackRun::open(&mut session, options, show, &progress)?;
    let ended = run::drive(work.stream(), &mut work, &progress);
    let inputs = work.inputs();
    let totals = work.close(ended, &progress);
    progress.finish();
    let Totals { made, succeeded, failed, .. } = totals?;
    let failures = if failed > 0 { format!(", {failed} of {inputs} inputs failed") } else { String::new() };
    progress.say(&format!("{} in {}, {succeeded} succeeded{failures}", counted(made, "attack"), args.out.display()));
    Ok(exit::of(made, failed))
}
