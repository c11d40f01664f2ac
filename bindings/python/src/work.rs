//! Runs work without the interpreter's lock: Ctrl-C stops it, and a Python function hears how far it is.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use pyo3::prelude::*;
use verilume::engine::{Observer, Progress};
use verilume::run::Listener;
use verilume::{Cancel, Error, Result};

use crate::errors::raised;

/// Longest time until Ctrl-C is seen.
const PATIENCE: Duration = Duration::from_millis(20);

/// What work says of itself.
enum Heard {
    /// So many inputs are to come.
    Begin(usize),
    /// An input is done.
    Step,
    /// What is being done.
    At(String),
    /// The work has ended.
    End,
}

/// Sends that the work has ended, also when it panics.
struct End(Sender<Heard>);

impl Drop for End {
    fn drop(&mut self) {
        // Nobody waits if the receiver is gone.
        let _ = self.0.send(Heard::End);
    }
}

/// The listener of work.
pub struct Told {
    heard: Sender<Heard>,
    /// Whether a Python function listens.
    shown: bool,
    cancel: Cancel,
}

impl Told {
    fn tell(&self, what: Heard) {
        if self.shown {
            // The work goes on if nobody listens any more.
            let _ = self.heard.send(what);
        }
    }
}

impl Listener for Told {
    fn begin(&self, sources: usize) {
        self.tell(Heard::Begin(sources));
    }

    fn at(&self, what: &str) {
        self.tell(Heard::At(what.to_owned()));
    }

    fn step(&self, _: &str) {
        self.tell(Heard::Step);
    }

    fn pass(&self, _: &str) {
        self.tell(Heard::Step);
    }

    fn observer(&self) -> Option<Observer> {
        let heard = self.heard.clone();
        let observer = move |progress: &Progress<'_>| {
            let text = format!("{} {} of {}", progress.method, progress.done, progress.total);
            // The engine outlives the call.
            let _ = heard.send(Heard::At(text));
        };
        self.shown.then(|| Box::new(observer) as Observer)
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

/// Runs `work` on a thread of its own while this one waits for signals. `progress`, if given, is called with `total`, `done`
/// or `text`.
///
/// # Errors
/// Those of `work`, of `progress`, and what Python's handlers of signals raise; the work has ended by then.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&Told) -> Result<T> + Send,
) -> PyResult<T> {
    let (tell, heard) = mpsc::channel();
    let cancel = Cancel::default();
    let told = Told { heard: tell.clone(), shown: progress.is_some(), cancel: cancel.clone() };
    let call = |py: Python<'_>, what: &Heard| -> PyResult<()> {
        let Some(progress) = &progress else { return Ok(()) };
        match what {
            Heard::Begin(total) => progress.call1(py, ("total", *total))?,
            Heard::Step => progress.call1(py, ("done", 1))?,
            Heard::At(text) => progress.call1(py, ("text", text))?,
            Heard::End => return Ok(()),
        };
        Ok(())
    };
    let (stopped, made) = py.detach(move || {
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("verilume".into()).spawn_scoped(scope, move || {
                let _end = End(tell);
                work(&told)
            });
            let worker = match worker {
                Ok(worker) => worker,
                Err(e) => return (Ok(()), Ok(Err(Error::device(format!("the system refuses a thread: {e}"))))),
            };
            let mut stopped = Ok(());
            loop {
                let what = match heard.recv_timeout(PATIENCE) {
                    Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => break,
                    Ok(what) => Some(what),
                    Err(RecvTimeoutError::Timeout) => None,
                };
                if stopped.is_ok() {
                    stopped = Python::attach(|py| {
                        py.check_signals()?;
                        what.map_or(Ok(()), |what| call(py, &what))
                    });
                    if stopped.is_err() {
                        cancel.cancel();
                    }
                }
            }
            (stopped, worker.join())
        })
    });
    stopped?;
    match made {
        Ok(made) => made.map_err(|e| raised(py, &e)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
