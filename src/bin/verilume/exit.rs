//! Exit codes, the same for all commands.

use std::process::ExitCode;

/// Some inputs failed, or something is not as it was asked to be.
pub const SOME_FAILED: u8 = 1;
/// Wrong usage, or nothing could be done.
pub const UNUSABLE: u8 = 2;

/// Of a run with so many results and so many failures.
pub fn of(made: usize, failed: usize) -> ExitCode {
    match (made, failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNUSABLE),
        _ => ExitCode::from(SOME_FAILED),
    }
}
