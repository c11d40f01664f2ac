//! Steps of a profile: what they do, how long they take, and what the machine could do at best.

use serde::{Deserialize, Serialize};

use crate::device::cpu::peaks::Peaks;

/// One step of a program, summed over the chunks of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepRow {
    /// Which of the call's programs.
    pub program: usize,
    /// Which of its steps.
    pub position: usize,
    pub pass: String,
    pub primitive: String,
    pub fused: Vec<String>,
    pub layer: Option<String>,
    pub kernel: String,
    pub input: [usize; 3],
    pub output: [usize; 3],
    /// Median over the calls.
    pub ms: f64,
    #[serde(flatten)]
    pub rate: Rate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_ms: Option<f64>,
    /// Time now by time then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl StepRow {
    /// The primitive with what is fused to it, such as `conv+bias+clamp`.
    pub fn name(&self) -> String {
        let fused = self.fused.iter().map(|f| format!("+{f}"));
        std::iter::once(self.primitive.clone()).chain(fused).collect()
    }

    /// What a step is recognised by in another profile.
    pub fn key(&self) -> StepKey {
        (self.pass.clone(), self.primitive.clone(), self.layer.clone(), self.input, self.output)
    }
}

/// What a step is recognised by.
pub type StepKey = (String, String, Option<String>, [usize; 3], [usize; 3]);

/// Work and time, held against the machine's limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rate {
    pub flops: u64,
    pub bytes: u64,
    pub gflop_s: f64,
    pub gb_s: f64,
    /// Time that the limits would take, by the time taken, where they are known.
    pub roofline_share: Option<f64>,
    /// The limit that takes longer: `fma` or `memory`.
    pub bound: Option<String>,
}

impl Rate {
    pub fn new(flops: u64, bytes: u64, seconds: f64, peaks: Option<&Peaks>) -> Self {
        let limits = peaks.map(|peaks| limits(flops, bytes, peaks));
        let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Self {
            flops,
            bytes,
            gflop_s: rate(flops as f64 / 1e9),
            gb_s: rate(bytes as f64 / 1e9),
            roofline_share: limits.map(|(arithmetic, traffic)| rate(arithmetic.max(traffic))),
            bound: limits.map(|(arithmetic, traffic)| if arithmetic > traffic { "fma" } else { "memory" }.into()),
        }
    }
}

/// Seconds that arithmetic and traffic take at best.
fn limits(flops: u64, bytes: u64, peaks: &Peaks) -> (f64, f64) {
    (flops as f64 / (peaks.fma_gflop_s * 1e9), bytes as f64 / (peaks.memory_gb_s() * 1e9))
}
