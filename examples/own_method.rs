//! Explains every picture of a folder with a method of its own: the gradient, halved where it speaks against the class.
//!
//! `cargo run --release --example own_method -- FOLDER [OUT]`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use verilume::data::{Event, Item, ItemStream, NetInput, Room, Source, files, find};
use verilume::engine::{Batch, Engine, Job};
use verilume::graph::Graph;
use verilume::map::{Map, Sign, Space};
use verilume::method::Method;
use verilume::model::Model;
use verilume::program::Score;
use verilume::render;
use verilume::session::{Options, Session};
use verilume::tensor::{Precision, Tensor};
use verilume::{Error, Result};

/// `g⁺ − g⁻ / 2`, `g` the gradient of the target's logit.
struct MostlyFor;

impl Method for MostlyFor {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let answer = engine.explain(graph, &Job::gradient(Score::Logit), x, targets)?;
        let map = |(gradient, &target): (Tensor, &usize)| {
            let values = gradient.to_f64().iter().map(|&g| if g < 0.0 { g / 2.0 } else { g }).collect();
            let values = Tensor::rounded(gradient.dims(), values, Precision::F32)?;
            Ok(Map::new(values, Sign::Signed, Space::Input, target, "mostly_for"))
        };
        answer.maps.into_iter().zip(targets).map(map).collect()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(folder) = arguments.first() else { return Err(Error::settings("usage: own_method FOLDER [OUT]")) };
    let out = arguments.get(1).map_or_else(|| PathBuf::from("verilume-out"), PathBuf::from);
    let mut session = Session::open(Model::embedded()?, &Options::default())?;

    let sources: Arc<[Source]> = find(std::slice::from_ref(folder), &out, Room::default()).sources.into();
    let preprocess = session.preparation().clone();
    let net = NetInput { preprocess: &preprocess, input: session.model().input_form(), room: Room::default() };
    for event in ItemStream::new(Arc::clone(&sources), net) {
        if let Event::Input((at, _), item) = event {
            // A bad picture does not end the run.
            match item.and_then(|item| explain(&mut session, &item, &out)) {
                Ok(line) => println!("{}: {line}", sources[at].shown),
                Err(e) => eprintln!("{}: {e}", sources[at].shown),
            }
        }
    }
    Ok(())
}

/// Draws the map of the best class; says what was drawn where.
fn explain(session: &mut Session, item: &Item, out: &Path) -> Result<String> {
    let top = session.score(&[&item.input]).remove(0)?.top();
    let map = session.explain(&MostlyFor, &[&item.input], &[top]).remove(0)?;
    let path = files::path(out, &item.stem, &["mostly_for", "png"]);
    let view = item.view(session.preparation())?;
    files::write_png(&path, &render::overlay(&view, &map, &Default::default())?)?;
    Ok(format!("{}, {}", session.label(top).unwrap_or_default(), path.display()))
}
