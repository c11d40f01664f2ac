//! Exit codes, the same for all commands.

/// Some inputs failed, or something is not as it was asked to be.
pub const SOME_FAILED: u8 = 1;
/// Wrong usage, or nothing could be done.
pub const UNUSABLE: u8 = 2;

/// What the process returns to whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// All is done.
    pub const SUCCESS: Self = Self(0);

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl From<u8> for ExitCode {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

/// Of a run with so many results and so many failures.
pub fn of(made: usize, failed: usize) -> ExitCode {
    match (made, failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNUSABLE),
        _ => ExitCode::from(SOME_FAILED),
    }
}
