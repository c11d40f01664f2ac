//! Words for people: results on standard output, progress and messages on standard error.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::paths::one_line;

/// Standard output that a reader may close at any time.
#[derive(Debug, Default)]
pub struct Answer {
    closed: bool,
}

impl Answer {
    /// Writes a line. Once the reader has gone away nothing is written any more and nothing fails.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            other => other.map_err(|e| anyhow::anyhow!("standard output: {e}"))?,
        }
        Ok(())
    }
}

/// Longest silence without a terminal.
const SILENCE: Duration = Duration::from_secs(10);

/// How much to say on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Progress and messages.
    Normal,
    /// Nothing.
    Quiet,
}

/// Progress over a known number of input files.
#[derive(Debug)]
pub struct Progress {
    voice: Voice,
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    last: Cell<Instant>,
}

impl Progress {
    /// A bar on a terminal, lines otherwise, nothing when quiet.
    pub fn new(voice: Voice, total: usize) -> Self {
        let bar = (voice == Voice::Normal && total > 0 && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { voice, bar, total, done: 0, last: Cell::new(Instant::now()) }
    }

    /// A message that stands by itself.
    pub fn say(&self, text: &str) {
        self.last.set(Instant::now());
        match (&self.bar, self.voice) {
            (_, Voice::Quiet) => {}
            (Some(bar), _) => bar.suspend(|| say(&one_line(text))),
            (None, _) => say(&one_line(text)),
        }
    }

    /// What is being done now; without a terminal it is said only when nothing has been said for a while.
    pub fn at(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(one_line(text)),
            None if self.last.get().elapsed() >= SILENCE => self.say(text),
            None => {}
        }
    }

    /// One more input is finished.
    pub fn step(&mut self, text: &str) {
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => self.say(&format!("[{}/{}] {text}", self.done, self.total)),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Runs `f` while no bar is drawn, so that its output is not overwritten.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }
}

/// `1 map`, `2 maps`.
pub fn counted(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A line on standard error; a closed standard error is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
