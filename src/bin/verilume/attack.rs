//! `verilume attack`: opens the net, attacks the inputs, says what became of them.

use std::process::ExitCode;

use anyhow::Result;
use verilume::program::Score;
use verilume::run::{self, AttackOptions, AttackRun, Listener, Totals};
use verilume::text::counted;

use crate::args::attack::AttackArgs;
use crate::exit;
use crate::listing;
use crate::records::{Reply, attacks};
use crate::talk::{InputProgress, StandardOutput};

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
