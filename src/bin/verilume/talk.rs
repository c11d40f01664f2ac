//! Words for people: results on standard output, progress and messages on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use verilume::engine;

use crate::paths::{bounded, harmless, one_line};

/// Standard output that a reader may close at any time.
#[derive(Debug, Default)]
pub struct Answer {
    closed: bool,
}

impl Answer {
    /// Writes text or JSON and a line end; what a terminal would act on is spelled out. Once the reader has gone away nothing is
    /// written any more and nothing fails.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", harmless(text)).and_then(|()| out.flush()) {
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

/// Progress over a known number of input files.
#[derive(Debug)]
pub struct Progress {
    voice: Voice,
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    last: Last,
}

impl Progress {
    /// A bar on a terminal, lines otherwise, nothing when quiet.
    pub fn new(voice: Voice, total: usize) -> Self {
        let bar = (voice == Voice::Normal && total > 0 && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {prefix}{wide_msg}") {
                bar.set_style(style);
            }
            // It ticks on a thread of its own; where none can be had it moves with the steps only.
            if std::thread::Builder::new().spawn(|| {}).is_ok_and(|thread| thread.join().is_ok()) {
                bar.enable_steady_tick(Duration::from_millis(250));
            }
            bar
        });
        Self { voice, bar, total, done: 0, last: Last::now() }
    }

    /// A message that stands by itself.
    pub fn say(&self, text: &str) {
        self.last.set();
        match (&self.bar, self.voice) {
            (_, Voice::Quiet) => {}
            (Some(bar), _) => bar.suspend(|| say(text)),
            (None, _) => say(text),
        }
    }

    /// What is being done now; without a terminal it is said only when nothing has been said for a while.
    pub fn at(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message(text)),
            None if self.last.elapsed() >= SILENCE => self.say(text),
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

    /// One more of many inputs is finished; without a terminal that is said only when nothing has been said for a while.
    pub fn pass(&mut self, text: &str) {
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if self.last.elapsed() >= SILENCE => self.say(&format!("[{}/{}] {text}", self.done, self.total)),
            None => {}
        }
    }

    /// Hears how far long methods have come: on a terminal it stands before what is being done, otherwise it is said when
    /// nothing has been said for a while, and when quiet never.
    pub fn listener(&self) -> engine::Observer {
        let (voice, bar, last) = (self.voice, self.bar.clone(), self.last.clone());
        let mut pace = Pace::default();
        Box::new(move |progress| {
            let text = pace.describe(progress, Instant::now());
            match &bar {
                Some(bar) if progress.done >= progress.total => bar.set_prefix(""),
                Some(bar) => bar.set_prefix(format!("{text}  ")),
                None if voice == Voice::Normal && last.elapsed() >= SILENCE => {
                    last.set();
                    say(&text);
                }
                None => {}
            }
        })
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Runs `f` while no bar is drawn, so that its output is not overwritten.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        self.beside().aside(f)
    }

    /// What [`aside`](Self::aside) needs, for another thread.
    pub fn beside(&self) -> Beside {
        Beside { bar: self.bar.clone() }
    }
}

/// Knows whether a bar is drawn.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    bar: Option<ProgressBar>,
}

impl Beside {
    /// Runs `f` while no bar is drawn.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
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

/// `1 map`, `2 maps`.
pub fn counted(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// Longest message, characters.
const LONGEST: usize = 500;

/// `text` in one line that is not too long.
pub fn message(text: &str) -> String {
    bounded(&one_line(text), LONGEST)
}

/// A line on standard error; a closed standard error is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", message(text));
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
