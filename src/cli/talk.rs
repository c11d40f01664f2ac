//! Words for people: results on standard output, progress and messages on standard error.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::interrupt;
use crate::engine::{self, Observer};
use crate::run::Listener;
use crate::text::{harmless, message};
use crate::{Cancel, Error, Result};

/// Standard output that a reader may close at any time.
#[derive(Debug, Default)]
pub struct StandardOutput {
    closed: bool,
}

impl StandardOutput {
    /// Writes text or JSON and a line end; what a terminal would act on is spelled out. Once the reader has gone away nothing is
    /// written any more and nothing fails.
    pub fn line(&mut self, text: &str) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", harmless(text)).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            other => other.map_err(|e| Error::io("standard output", e))?,
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

/// When something was last said, whoever said it.
#[derive(Debug, Clone)]
struct Last {
    start: Instant,
    /// Milliseconds after `start`.
    at: Arc<AtomicU64>,
}

impl Last {
    fn now() -> Self {
        Self { start: Instant::now(), at: Arc::default() }
    }

    fn set(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// The bar on a terminal, once it is drawn; shared with the thread that shows records.
#[derive(Debug, Clone, Default)]
pub struct Bar(Arc<OnceLock<ProgressBar>>);

impl Bar {
    /// Runs `f` while no bar is drawn, so that its output is not overwritten.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.0.get() {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }
}

/// Progress over inputs: a bar on a terminal, lines otherwise, nothing when quiet.
#[derive(Debug)]
pub struct InputProgress {
    voice: Voice,
    bar: Bar,
    total: Cell<usize>,
    done: Cell<usize>,
    last: Last,
}

impl InputProgress {
    /// Nothing is said yet.
    pub fn new(voice: Voice) -> Self {
        Self { voice, bar: Bar::default(), total: Cell::default(), done: Cell::default(), last: Last::now() }
    }

    /// What suspends the bar, for another thread.
    pub fn bar(&self) -> Bar {
        self.bar.clone()
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.0.get().into_iter().for_each(ProgressBar::finish_and_clear);
    }

    fn advance(&self) -> usize {
        self.done.set(self.done.get() + 1);
        self.done.get()
    }

    /// Whether nothing has been said for a while.
    fn is_silent(&self) -> bool {
        self.last.elapsed() >= SILENCE
    }
}

impl Listener for InputProgress {
    fn begin(&self, sources: usize) {
        self.total.set(sources);
        if self.voice == Voice::Quiet || sources == 0 || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(sources as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {prefix}{wide_msg}") {
            bar.set_style(style);
        }
        // It ticks on a thread of its own; where none can be had it moves with the steps only.
        if std::thread::Builder::new().spawn(|| {}).is_ok_and(|thread| thread.join().is_ok()) {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        // A second bar would overwrite the first.
        let _ = self.bar.0.set(bar);
    }

    fn say(&self, text: &str) {
        self.last.set();
        if self.voice == Voice::Normal {
            self.bar.aside(|| say(text));
        }
    }

    fn at(&self, text: &str) {
        match self.bar.0.get() {
            Some(bar) => bar.set_message(message(text)),
            None if self.is_silent() => self.say(text),
            None => {}
        }
    }

    fn step(&self, text: &str) {
        let done = self.advance();
        match self.bar.0.get() {
            Some(bar) => bar.inc(1),
            None => self.say(&format!("[{done}/{}] {text}", self.total.get())),
        }
    }

    fn pass(&self, text: &str) {
        let done = self.advance();
        match self.bar.0.get() {
            Some(bar) => bar.inc(1),
            None if self.is_silent() => self.say(&format!("[{done}/{}] {text}", self.total.get())),
            None => {}
        }
    }

    /// On a terminal how far a method has come stands before what is being done; otherwise it is said when nothing has been
    /// said for a while, and when quiet never.
    fn observer(&self) -> Option<Observer> {
        let (voice, bar, last) = (self.voice, self.bar.clone(), self.last.clone());
        let mut pace = Pace::default();
        Some(Box::new(move |progress| {
            let text = pace.describe(progress, Instant::now());
            match bar.0.get() {
                Some(bar) if progress.done >= progress.total => bar.set_prefix(""),
                Some(bar) => bar.set_prefix(format!("{text}  ")),
                None if voice == Voice::Normal && last.elapsed() >= SILENCE => {
                    last.set();
                    say(&text);
                }
                None => {}
            }
        }))
    }

    fn cancel(&self) -> Cancel {
        interrupt::cancel()
    }
}

/// How fast a long method goes.
#[derive(Debug, Default)]
struct Pace {
    /// Method and total of the present call.
    call: (String, usize),
    /// Where it was first heard of: units done and when.
    first: Option<(usize, Instant)>,
    done: usize,
}

impl Pace {
    /// `rise 400 of 4000, 2 minutes left`.
    fn describe(&mut self, progress: &engine::Progress<'_>, now: Instant) -> String {
        let &engine::Progress { method, done, total, objective } = progress;
        if done < self.done || (self.call.0.as_str(), self.call.1) != (method, total) {
            self.call = (method.into(), total);
            self.first = None;
        }
        self.done = done;
        let (since, start) = *self.first.get_or_insert((done, now));
        let mut text = format!("{method} {done} of {total}");
        if let Some(value) = objective {
            text += &format!(", objective {value:.4}");
        }
        if done > since && done < total {
            let share = (total - done) as f64 / (done - since) as f64;
            text += &format!(", {} left", HumanDuration(now.duration_since(start).mul_f64(share)));
        }
        text
    }
}

/// A line on standard error; a closed standard error is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", message(text));
}

/// Several lines on standard error, none of them too long.
pub fn say_lines(text: &str) {
    harmless(text).lines().for_each(say);
}

/// The log of a compiler, line by line and in full.
pub fn say_log(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace_of_the_call() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut at = |seconds: u64, method: &str, done, objective| {
            let progress = engine::Progress { method, done, total: 400, objective };
            pace.describe(&progress, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, "rise", 0, None), "rise 0 of 400");
        assert_eq!(at(20, "rise", 100, None), "rise 100 of 400, 60 seconds left");
        assert_eq!(at(120, "rise", 400, None), "rise 400 of 400");
        // The next call begins anew.
        assert_eq!(at(200, "rise", 0, None), "rise 0 of 400");
        assert_eq!(at(210, "rise", 200, Some(0.5)), "rise 200 of 400, objective 0.5000, 10 seconds left");
        assert_eq!(at(300, "haf", 300, None), "haf 300 of 400");
    }
}
