//! Signals, without a thread. The first Ctrl-C ends the run in order, so that it can be resumed, the second at once.

use std::sync::LazyLock;

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::Cancel;

/// The exit code of a program that was interrupted, as a shell has it.
pub const INTERRUPTED: u8 = 130;

static CANCEL: LazyLock<Cancel> = LazyLock::new(|| {
    let cancel = Cancel::default();
    // The order matters: what is set already ends the program. Where the system allows neither, Ctrl-C ends it as any other.
    let _ = flag::register_conditional_shutdown(SIGINT, i32::from(INTERRUPTED), cancel.flag());
    let _ = flag::register(SIGINT, cancel.flag());
    cancel
});

/// Makes a write beyond `ulimit -f` an error of that write, instead of a signal that ends the program without a word.
pub fn outlive_limits() {
    // Where the signal cannot be caught, it ends the program as it does any other.
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGXFSZ, Cancel::default().flag());
}

/// What Ctrl-C sets from now on.
pub fn cancel() -> Cancel {
    CANCEL.clone()
}
