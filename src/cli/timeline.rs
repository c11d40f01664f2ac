//! A profile as a timeline in the trace-event format that Perfetto and chrome://tracing read.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::steps::StepRow;
use crate::engine::Profile;
use crate::program::Plan;

/// One call: a row of chunks and a row of steps. `steps` are the rows of `plans`, program after program.
pub fn json(title: &str, call: &Profile, plans: &[Arc<Plan>], steps: &[StepRow]) -> Value {
    let named = |what: &str, thread: u32, name: &str| json!({ "ph": "M", "name": what, "pid": 1, "tid": thread, "args": { "name": name } });
    let mut events = vec![
        named("process_name", 0, title),
        named("thread_name", 1, "chunks"),
        named("thread_name", 2, "steps"),
        event("call", "call", 1, Duration::ZERO, call.elapsed, json!({})),
    ];
    for chunk in &call.chunks {
        let program = plans.iter().position(|p| Arc::ptr_eq(p, &chunk.plan)).unwrap_or_default();
        let name = format!("program {program}, {} copies", chunk.copies);
        events.push(event(&name, "chunk", 1, chunk.start, chunk.steps.iter().sum(), json!({ "copies": chunk.copies })));
        let rows = steps.iter().filter(|r| r.program == program);
        let mut start = chunk.start;
        for (row, &duration) in rows.zip(&chunk.steps) {
            let name = row.layer.as_ref().map_or_else(|| row.name(), |layer| format!("{} {layer}", row.name()));
            let facts = json!({
                "position": row.position, "kernel": row.kernel, "input": row.input, "output": row.output,
                "copies": chunk.copies, "bound": row.rate.bound,
            });
            events.push(event(&name, &row.pass, 2, start, duration, facts));
            start += duration;
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}

/// A complete event; times in microseconds.
fn event(name: &str, category: &str, thread: u32, start: Duration, duration: Duration, facts: Value) -> Value {
    json!({
        "ph": "X", "name": name, "cat": category, "pid": 1, "tid": thread,
        "ts": start.as_secs_f64() * 1e6, "dur": duration.as_secs_f64() * 1e6, "args": facts,
    })
}
