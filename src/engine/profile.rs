//! Records which steps ran and how long each took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::device::{Chunk, Device, Harvest};
use crate::error::Result;
use crate::program::Plan;

/// One chunk of a program, timed step by step.
#[derive(Debug, Clone)]
pub struct ChunkTimes {
    /// The program; chunks of one program share it.
    pub plan: Arc<Plan>,
    /// Copies computed.
    pub copies: usize,
    /// From the start of the profile to the start of the chunk.
    pub start: Duration,
    /// Time of each step, in order.
    pub steps: Vec<Duration>,
}

/// Everything that an engine ran during some work.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// In order of execution.
    pub chunks: Vec<ChunkTimes>,
    /// Time of the whole work, including what happened between the steps.
    pub elapsed: Duration,
}

/// A profile being recorded.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    chunks: Vec<ChunkTimes>,
}

impl Recorder {
    pub(super) fn run(
        &mut self,
        device: &mut dyn Device,
        plan: &Arc<Plan>,
        chunk: &Chunk<'_>,
        harvest: &mut Harvest,
    ) -> Result<()> {
        let mut times = ChunkTimes {
            plan: Arc::clone(plan),
            copies: chunk.slots.len(),
            start: self.start.elapsed(),
            steps: Vec::with_capacity(plan.steps().len()),
        };
        device.run_timed(plan, chunk, harvest, &mut |_, duration| times.steps.push(duration))?;
        self.chunks.push(times);
        Ok(())
    }
}

impl Engine {
    /// Runs `work` and times each step of each chunk. Nothing outside it is timed.
    ///
    /// # Errors
    /// The errors of `work`.
    pub fn profile<T>(&mut self, work: impl FnOnce(&mut Engine) -> Result<T>) -> Result<(T, Profile)> {
        self.recorder = Some(Recorder { start: Instant::now(), chunks: Vec::new() });
        let done = work(self);
        let recorder = self.recorder.take();
        let profile = recorder.map(|r| Profile { elapsed: r.start.elapsed(), chunks: r.chunks });
        done.map(|done| (done, profile.unwrap_or_default()))
    }

    /// Name of the kernel that runs step `position` of `plan` on this engine's device.
    pub fn kernel(&self, plan: &Plan, position: usize) -> &'static str {
        self.device.kernel(plan, position)
    }
}
