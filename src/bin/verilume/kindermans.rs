//! `verilume check --kindermans`: which methods keep their explanation when all data are shifted.

use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde_json::json;
use verilume::engine::{Batch, Engine, Settings};
use verilume::reliability::invariance::{SAME_MAP, Shift};
use verilume::reliability::kindermans::{self, Cell, Subject};
use verilume::report::RECORD_VERSION;
use verilume::report::figures::{chosen, measured};
use verilume::tensor::{Precision, Shape, Tensor};

use crate::args::CheckArgs;
use crate::arrays::ArrayFile;
use crate::computing;
use crate::inputs::{self, Source};
use crate::items::{Item, Net};
use crate::plan;
use crate::said::Said;
use crate::stream::usual_shape;
use crate::talk::{Answer, Progress, Voice, counted};
use crate::verdicts;

/// Some inputs could not be used, or an outcome is not the expected one and that was asked about.
const SOME_FAILED: u8 = 1;

/// Pictures that patterns are fitted to together.
const TOGETHER: usize = 32;

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let model = plan::open_model(&args.model)?;
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let settings = computing::settings(&args.resources, args.threads)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut double = Engine::new(&settings.twin())?;
    let mut single = computing::open(&Settings { precision: Precision::F32, ..settings }, voice)?;

    let found = inputs::find(&args.data, &args.out);
    let mut progress = Progress::new(voice, found.sources.len());
    let said = Said::new(&model, &preprocess, &args.preparation);
    said.tell(&progress);
    found.left_out().iter().for_each(|sentence| progress.say(sentence));
    let net = Net { preprocess: &preprocess, input: model.default_input() };
    let usual = usual_shape(&found.sources, net).filter(|&shape| model.graph(shape).is_ok());
    let mut reader = Reader { said, dims: usual.map(|shape| shape.dims().to_vec()), ..Reader::default() };
    for (at, source) in found.sources.iter().enumerate() {
        progress.at(&source.shown);
        let before = reader.inputs.len();
        reader.source(at, source, net, &progress);
        progress.step(&format!("{}: {}", source.shown, counted(reader.inputs.len() - before, "picture")));
    }
    let Reader { inputs, failed, said, .. } = reader;
    let Some(first) = inputs.first() else { bail!("--data: there is no picture that can be used") };
    let graph = model.graph(shape(first)?)?;
    let x = Batch::of(inputs.iter().take(args.explained).cloned().collect())?;
    let data: Vec<Batch> =
        inputs.chunks(TOGETHER).map(|some| Batch::of(some.to_vec())).collect::<verilume::Result<_>>()?;
    let subject = Subject { graph: &graph, preprocess: &preprocess, x: &x, data: &data, seed: args.resources.seed };
    let shifts = [Shift::Constant(-1.0), Shift::CheckeredBox, Shift::drawing(graph.input_shape())?];
    progress.say(&format!("{} shifted, {} explained", counted(inputs.len(), "picture"), x.len()));
    double.observe(progress.listener());
    let cells = kindermans::table(&mut double, &mut single, &subject, &shifts);
    progress.finish();
    let cells = cells?;

    let mut answer = Answer::default();
    if args.json {
        cells.iter().try_for_each(|cell| answer.line(&line(cell, &said).to_string()))?;
    } else {
        answer.line(&table(&cells))?;
    }
    let odd = cells.iter().filter(|cell| cell.stayed != Some(cell.expected)).count();
    if odd > 0 {
        progress.say(&format!("{odd} of {} are not as expected", counted(cells.len(), "outcome")));
    }
    Ok(if failed > 0 || (odd > 0 && args.fail_on_verdict) { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS })
}

fn shape(input: &Tensor) -> verilume::Result<Shape> {
    match *input.dims() {
        [c, h, w] => Ok(Shape::new(c, h, w)),
        _ => Err(verilume::Error::input(format!("an input of shape {:?}", input.dims()))),
    }
}

/// Reads data of one size.
#[derive(Default)]
struct Reader {
    inputs: Vec<Tensor>,
    /// The size, once it is known.
    dims: Option<Vec<usize>>,
    failed: usize,
    said: Said,
}

impl Reader {
    fn source(&mut self, at: usize, source: &Source, net: Net, progress: &Progress) {
        if !source.is_array() || source.refused.is_some() {
            return self.add(Item::picture(at, source, net), progress);
        }
        match ArrayFile::open(&source.path) {
            Ok(mut array) => {
                (0..array.rows()).for_each(|row| self.add(Item::row(at, source, &mut array, row, net), progress));
            }
            Err(e) => self.add(Err(e), progress),
        }
    }

    fn add(&mut self, item: verilume::Result<Item>, progress: &Progress) {
        let dims = &mut self.dims;
        let mut fits = |input: Tensor| match dims.get_or_insert_with(|| input.dims().to_vec()) {
            dims if dims != input.dims() => {
                Err(verilume::Error::input(format!("an input of shape {:?} among those of {dims:?}", input.dims())))
            }
            _ => Ok(input),
        };
        if let Ok(item) = &item {
            self.said.hear(item, progress);
        }
        match item.and_then(|item| fits(item.input)) {
            Ok(input) => self.inputs.push(input),
            Err(e) => {
                self.failed += 1;
                progress.say(&format!("left out: {e}"));
            }
        }
    }
}

fn line(cell: &Cell, said: &Said) -> serde_json::Value {
    json!({
        "method": cell.method, "shift": cell.shift, "stayed": cell.stayed, "expected": cell.expected,
        "change": cell.change, "least_change": cell.least_change, "change_f32": cell.change_f32, "output": cell.output,
        "assumed": said.all_assumed(), "warnings": said.all(), "record_version": RECORD_VERSION,
    })
}

/// Methods by shifts: whether the map stayed, the change that decides, and the same in single precision.
fn table(cells: &[Cell]) -> String {
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
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

fn outcome(cell: &Cell) -> String {
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
        let cell = |stayed, expected| Cell {
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
        let text = table(&[cell(Some(true), true), Cell { shift: "constant", ..cell(Some(true), true) }]);
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
