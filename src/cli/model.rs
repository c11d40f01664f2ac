//! `verilume model`.

use anyhow::Result;
use serde_json::json;

use crate::cli::args::{ModelArgs, ModelCommand};
use crate::cli::exit::ExitCode;
use crate::cli::plan;
use crate::cli::tables::{align, plain};
use crate::cli::talk::{InputProgress, StandardOutput, Voice};
use crate::cli::values::CropSize;
use crate::cli::verify;
use crate::model::{ARCHITECTURES, EMBEDDED, ModelInfo};
use crate::report::Versioned;
use crate::run::Said;
use crate::tensor::Shape;

/// Runs the command.
pub fn run(args: &ModelArgs) -> Result<ExitCode> {
    let mut answer = StandardOutput::default();
    match &args.command {
        ModelCommand::Verify(args) => return verify::run(args),
        ModelCommand::Info { model, json } => {
            let model = plan::open_model(model)?;
            let mut info = model.info(model.default_input())?;
            info.warnings = Said::of(&model, model.preprocess(), &[]).all();
            answer.line(&if *json {
                serde_json::to_string_pretty(&Versioned::new(&info))?
            } else {
                described(&info, model.unfolded().is_paired())
            })?;
        }
        ModelCommand::Dump { model, format, size, unfolded } => {
            let model = plan::open_model(model)?;
            let default = model.default_input();
            let shape = size.map_or(default, |CropSize { crop: [h, w], .. }| Shape::new(default.c, h, w));
            let text =
                if *unfolded { model.unfolded_at(shape)?.dump(*format) } else { model.graph(shape)?.dump(*format) };
            Said::of_net(&model).tell(&InputProgress::new(Voice::Normal));
            answer.line(text.trim_end())?;
        }
        ModelCommand::List { json } => answer.line(&list(*json))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(as_json: bool) -> String {
    let built_in: &[&str] = if cfg!(feature = "embedded-model") { &[EMBEDDED] } else { &[] };
    if as_json {
        let known: Vec<_> = ARCHITECTURES.iter().map(|a| json!({ "name": a.name, "nets": a.nets })).collect();
        return json!({ "built_in": built_in, "architectures": known }).to_string();
    }
    let mut table = plain();
    for a in ARCHITECTURES {
        table.add_row([a.name, a.nets]);
    }
    format!(
        "Built in (--model NAME):\n {}\n\nArchitectures of weights files (--arch NAME; usually told from the file):\n{}",
        built_in.join("\n "),
        table.trim_fmt()
    )
}

fn described(info: &ModelInfo, one_output: bool) -> String {
    let [c, h, w] = info.input;
    let p = &info.preprocess;
    let numbers = |v: &[f64]| match v {
        [first, rest @ ..] if rest.iter().all(|x| x == first) => first.to_string(),
        _ => v.iter().map(f64::to_string).collect::<Vec<_>>().join(", "),
    };
    let text = |text: &str| crate::text::one_line(text);
    let interpolation = format!("{:?}", p.interpolation).to_lowercase();
    let encodings: Vec<String> = info.encodings.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let rows = [
        ("name", text(&info.name)),
        ("architecture", info.architecture.clone()),
        ("input", format!("{c} x {h} x {w}")),
        ("classes", if one_output { "2, of one output: 0 is not, 1 is yes".into() } else { info.classes.to_string() }),
        ("head", info.link.name().into()),
        ("parameters", format!("{:.2} million", info.parameters as f64 / 1e6)),
        ("multiplications", format!("{:.1} million a forward pass", info.macs as f64 / 1e6)),
        ("operations", format!("{:.1} million, additions counted", info.flops as f64 / 1e6)),
        ("stages", text(&info.stages.join(", "))),
        ("resize", format!("short side {}, {interpolation}, centre crop {} x {}", p.resize, p.crop[0], p.crop[1])),
        ("mean", numbers(&p.mean)),
        ("std", numbers(&p.std)),
        ("stored numbers", encodings.join(", ")),
        ("file", format!("{} bytes", info.file_bytes)),
        ("sha256", info.sha256.clone()),
        ("read", info.read.join("; ")),
        ("assumed", info.assumed.join("; ")),
        ("warning", info.warnings.join("; ")),
    ];
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let mut table = plain();
    for (name, value) in rows {
        table.add_row([name.to_string(), value]);
    }
    let mut layers = plain();
    layers.set_header(["layer", "operation", "output", "parameters", "multiplications"]);
    for layer in &info.layers {
        let [c, h, w] = layer.output;
        let numbers = [layer.parameters.to_string(), layer.macs.to_string()];
        let [parameters, multiplications] = numbers;
        layers.add_row([text(&layer.name), layer.op.clone(), format!("{c} x {h} x {w}"), parameters, multiplications]);
    }
    align(&mut layers, 3);
    format!("{}\n\n{}", table.trim_fmt(), layers.trim_fmt())
}
