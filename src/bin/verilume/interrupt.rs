//! Signals. Ctrl-C: the first ends the run in order, so that it can be resumed, the second at once.

use std::process::exit;
use std::sync::LazyLock;

use verilume::Cancel;

/// The exit code of a program that was interrupted, as a shell has it.
pub const INTERRUPTED: u8 = 130;

static CANCEL: LazyLock<Cancel> = LazyLock::new(|| {
    let cancel = Cancel::default();
    let flag = cancel.clone();
    let handler = move || {
        if flag.is_cancelled() {
            exit(i32::from(INTERRUPTED));
        }
        flag.cancel();
    };
    // Where the system does not allow it, Ctrl-C ends the program as it does any other.
    let _ = ctrlc::set_handler(handler);
    cancel
});

/// Makes a write beyond `ulimit -f` an error of that write, instead of a signal that ends the program without a word. Threads
/// that start later inherit it.
pub fn outlive_limits() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let mut set = SigSet::empty();
        set.add(Signal::SIGXFSZ);
        // Where it cannot be held back, it ends the program as it does any other.
        let _ = set.thread_block();
    }
}

/// What Ctrl-C sets from now on.
pub fn cancel() -> Cancel {
    CANCEL.clone()
}
