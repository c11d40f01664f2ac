//! Bounds on what a command line may ask of the machine, set before any command runs.

use crate::cli::args::{Command, DetectorCommand, ModelCommand, PatternsCommand};
use crate::cli::talk;

/// Threads a core: more of them only wait for each other, and thousands take minutes to start.
const THREADS_A_CORE: usize = 4;

/// What commands share: the threads they ask for, and whether they are quiet.
fn shared(command: &mut Command) -> Option<(Vec<&mut usize>, bool)> {
    macro_rules! of {
        ($args:expr) => {
            Some(($args.threads.iter_mut().collect(), $args.quiet))
        };
    }
    match command {
        Command::Explain(args) => of!(args.shared),
        Command::Check(args) => of!(args.shared),
        Command::Attack(args) => of!(args.shared),
        Command::Eval(args) => of!(args.shared),
        Command::Bench(args) => of!(args),
        Command::Profile(args) => of!(args),
        Command::Patterns(args) => match &mut args.command {
            PatternsCommand::Fit(args) => of!(args.shared),
        },
        Command::Detector(args) => match &mut args.command {
            DetectorCommand::Train(args) => of!(args.shared),
            DetectorCommand::Apply(args) => of!(args.shared),
        },
        Command::Model(args) => match &mut args.command {
            ModelCommand::Verify(args) => of!(args),
            ModelCommand::Info { .. } | ModelCommand::Dump { .. } | ModelCommand::List { .. } => None,
        },
        #[cfg(feature = "cuda")]
        Command::Kernels(_) => None,
        Command::Doctor(_) | Command::Completions(_) => None,
    }
}

/// Bounds what `--threads` asks for.
pub fn settle(command: &mut Command) {
    let Some((threads, quiet)) = shared(command) else { return };
    let most = THREADS_A_CORE * std::thread::available_parallelism().map_or(1, usize::from);
    for asked in threads {
        if *asked > most {
            if !quiet {
                talk::say(&format!("--threads {asked}: {most} are used, {THREADS_A_CORE} for each core"));
            }
            *asked = most;
        }
    }
}
