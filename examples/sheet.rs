//! One picture, five methods, one sheet: what the command line's `--format grid` does, by the library alone.
//!
//! `cargo run --release --example sheet -- examples/chelsea.png sheet.png`

use std::path::Path;

use verilume::engine::{Batch, Engine, Settings};
use verilume::image::{DecodeLimits, Picture};
use verilume::method::{Context, Spec};
use verilume::model::Model;
use verilume::program::Score;
use verilume::render::{self, Cell, Legend, Look, Sheet};
use verilume::score::top;
use verilume::{Error, Result};

const METHODS: [&str; 5] = ["gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam"];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err(Error::settings("usage: sheet PICTURE RESULT.png"));
    };

    let model = Model::embedded()?;
    let prepare = |path: &Path| model.preprocess().apply(&Picture::open(path, &DecodeLimits::default())?);
    let picture = prepare(input.as_ref())?;
    let graph = model.graph(model.default_input())?;
    let x = Batch::of(vec![picture.tensor])?;

    let mut engine = Engine::new(&Settings::default())?;
    let logits = engine.forward(&graph, &x)?;
    let top = top(&logits.to_f64()).unwrap_or(0);
    let label = model.labels().get(top).unwrap_or_default();

    let mut sheet = Sheet::new(format!("{label} (logit {:.3})", logits.at(top)), "");
    (sheet.columns, sheet.cell_size) = (Some(METHODS.len() + 1), [144; 2]);
    let input = Cell { picture: picture.view.clone(), name: "input".into(), caption: String::new(), legend: None };
    sheet.cells.push(input);

    let load = |path: &Path| Ok(prepare(path)?.tensor);
    let context = Context { seed: 0, score: Score::Logit, preprocess: model.preprocess(), load: &load };
    let look = Look::default();
    for name in METHODS {
        let method = Spec::parse(name)?.build(&context)?;
        for map in method.explain(&mut engine, &graph, &x, &[top])? {
            sheet.cells.push(Cell {
                picture: render::overlay(&picture.view, &map, &look)?,
                name: name.into(),
                caption: label.into(),
                legend: Some(Legend::from(&render::shade(&map, &look)?)),
            });
        }
    }
    let bytes = render::png(&render::grid(&sheet)?)?;
    std::fs::write(&output, bytes).map_err(|e| Error::io(&output, e))
}
