//! `verilume check --kindermans`: which methods keep their explanation when all data are shifted.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::args::CheckArgs;
use crate::cli::computing;
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::tables::plain;
use crate::cli::talk::{InputProgress, StandardOutput};
use crate::cli::verdicts;
use crate::data::{ItemStream, NetInput, Source, find};
use crate::engine::{Batch, Engine, Settings};
use crate::program::Score;
use crate::reliability::invariance::{SAME_MAP, Shift};
use crate::reliability::kindermans::{self, ShiftedMethod, Subject};
use crate::report::RECORD_VERSION;
use crate::report::figures::{chosen, measured};
use crate::run::{self, Gather, KeptInputs, Listener, Paired, Said};
use crate::tensor::Precision;
use crate::text::counted;

/// Pictures that patterns are fitted to together.
const TOGETHER: usize = 32;

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let shared = &args.shared;
    let settings = computing::settings(&shared.resources, shared.threads)?;
    let mut double = Engine::new(&settings.twin())?;
    let open = |settings: &Settings| {
        computing::open(&Settings { precision: Precision::F32, ..settings.clone() }, shared.voice())
    };
    let mut session = shared.open_on(Score::Logit, &settings, open)?;

    let found = find(&args.data, &args.out, shared.room());
    let progress = InputProgress::new(shared.voice());
    progress.begin(found.sources.len());
    let said = Said::new(&session, &shared.given());
    said.tell(&progress);
    found.left_out().iter().for_each(|sentence| progress.say(sentence));
    let sources: Arc<[Source]> = found.sources.into();
    let preprocess = session.preparation().clone();
    let net = NetInput { preprocess: &preprocess, input: session.model().input_form(), room: shared.room() };
    let stream = Paired::new(ItemStream::new(Arc::clone(&sources), net), None);
    let mut work = Gather::new(&mut session, sources, net, None, said, KeptInputs::default());
    run::drive(stream, &mut work, &progress)?;
    let Gather { graph, counts: [_, failed], sink: KeptInputs(inputs), said, .. } = work;
    let Some(graph) = graph.filter(|_| !inputs.is_empty()) else {
        bail!("--data: there is no picture that can be used")
    };
    let x = Batch::of(inputs.iter().take(args.explained).cloned().collect())?;
    let data: Vec<Batch> =
        inputs.chunks(TOGETHER).map(|some| Batch::of(some.to_vec())).collect::<crate::Result<_>>()?;
    let subject = Subject { graph: &graph, preprocess: &preprocess, x: &x, data: &data, seed: shared.resources.seed };
    let shifts = [Shift::Constant(-1.0), Shift::CheckeredBox, Shift::drawing(graph.input_shape())?];
    progress.say(&format!("{} shifted, {} explained", counted(inputs.len(), "picture"), x.len()));
    progress.observer().into_iter().for_each(|observer| double.observe(observer));
    double.cancel_with(&progress.cancel());
    let cells = kindermans::table(&mut double, session.engine(), &subject, &shifts);
    progress.finish();
    let cells = cells?;

    let mut answer = StandardOutput::default();
    if args.json {
        cells.iter().try_for_each(|cell| answer.line(&line(cell, &said).to_string()))?;
    } else {
        answer.line(&table(&cells))?;
    }
    let odd = cells.iter().filter(|cell| cell.stayed != Some(cell.expected)).count();
    if odd > 0 {
        progress.say(&format!("{odd} of {} are not as expected", counted(cells.len(), "outcome")));
    }
    let fails = failed > 0 || (odd > 0 && args.fail_on_verdict);
    Ok(if fails { ExitCode::from(exit::SOME_FAILED) } else { ExitCode::SUCCESS })
}

fn line(cell: &ShiftedMethod, said: &Said) -> serde_json::Value {
    json!({
        "method": cell.method, "shift": cell.shift, "stayed": cell.stayed, "expected": cell.expected,
        "change": cell.change, "least_change": cell.least_change, "change_f32": cell.change_f32, "output": cell.output,
        "assumed": said.all_assumed(), "warnings": said.all(), "record_version": RECORD_VERSION,
    })
}

/// Methods by shifts: whether the map stayed, the change that decides, and the same in single precision.
fn table(cells: &[ShiftedMethod]) -> String {
    let mut shifts: Vec<&str> = Vec::new();
    let mut methods: Vec<&str> = Vec::new();
    for cell in cells {
        if !shifts.contains(&cell.shift) {
            shifts.push(cell.shift);
        }
        if !methods.contains(&cell.method) {
            methods.push(cell.method);
        }
    }
    let mut table = plain();
    table.set_header(std::iter::once("method").chain(shifts.iter().copied()));
    for method in methods {
        let of = |shift: &&str| cells.iter().find(|c| c.method == method && c.shift == *shift);
        let row = shifts.iter().map(|shift| of(shift).map(outcome).unwrap_or_default());
        table.add_row(std::iter::once(method.to_string()).chain(row));
    }
    format!(
        "{}\n\npass: max |E'-E| / max |E| at most {} on every picture, in double precision, when all data are shifted and the\n\
         net's first biases take the shift back; in brackets the change in single precision",
        verdicts::flush(&table),
        chosen(SAME_MAP)
    )
}

fn outcome(cell: &ShiftedMethod) -> String {
    let (word, change) = match cell.stayed {
        None => return "n/a".into(),
        Some(true) => ("pass", cell.change),
        // It fails by this much at least.
        Some(false) => ("FAIL", cell.least_change),
    };
    let odd = match cell.expected {
        expected if cell.stayed == Some(expected) => "",
        true => ", expected to pass",
        false => ", expected to FAIL",
    };
    format!("{word} {} ({}){odd}", measured(change), measured(cell.change_f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_expected_is_said() {
        let cell = |stayed, expected| ShiftedMethod {
            method: "gradient",
            shift: "box",
            expected,
            stayed,
            change: 2.0e-15,
            least_change: 1.25,
            change_f32: 3.4e-3,
            output: 1e-16,
        };
        assert_eq!(outcome(&cell(Some(true), true)), "pass 2.0e-15 (0.0034)");
        assert_eq!(outcome(&cell(Some(false), false)), "FAIL 1.25 (0.0034)");
        assert_eq!(outcome(&cell(Some(false), true)), "FAIL 1.25 (0.0034), expected to pass");
        assert_eq!(outcome(&cell(Some(true), false)), "pass 2.0e-15 (0.0034), expected to FAIL");
        assert_eq!(outcome(&cell(None, true)), "n/a");
        let text = table(&[cell(Some(true), true), ShiftedMethod { shift: "constant", ..cell(Some(true), true) }]);
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
