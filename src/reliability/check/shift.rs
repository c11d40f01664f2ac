//! Input invariance: does the explanation stay the same when all data are shifted and the net compensates the shift?

use std::path::Path;
use std::sync::Arc;

use super::{Bench, CheckedMethod, Measurement, PanelKind, RANDOMISED, Test, Threshold, ZERO};
use crate::error::{Error, Result};
use crate::method::Context;
use crate::reliability::invariance::{SAME_MAP, SAME_OUTPUT, Shift, Shifted, shifted_preprocess};
use crate::tensor::Tensor;

const PAPER: &str = "Kindermans, Hooker, Adebayo, Alber, Schütt, Dähne, Erhan, Kim 2017: The (un)reliability of saliency methods, \
                     arXiv:1711.00867";
const MEASURE: &str = "max |E'(x+m) - E(x)| / max |E(x)|, in double precision";

pub(super) const CONSTANT: Test = Test {
    id: "constant_shift",
    title: "Constant shift",
    question: "Does the map stay when 1 is taken from every number of every picture and the first biases take that back?",
    paper: PAPER,
    measure: MEASURE,
    threshold: Threshold::AtMost(SAME_MAP),
    run: |bench, examined| {
        run(bench, examined, "constant_shift", "shifted by a constant", &|_| Ok(Shift::Constant(-1.0)))
    },
};

pub(super) const PICTURE: Test = Test {
    id: "picture_shift",
    title: "Picture shift",
    question: "Does the map stay when one drawing is added to every picture and the first biases take it back?",
    paper: PAPER,
    measure: MEASURE,
    threshold: Threshold::AtMost(SAME_MAP),
    run: |bench, examined| {
        run(bench, examined, "picture_shift", "shifted by a drawing", &|b| Shift::drawing(b.graph.input_shape()))
    },
};

fn run(
    bench: &mut Bench<'_>,
    examined: &CheckedMethod<'_>,
    test: &'static str,
    caption: &str,
    shift: &dyn Fn(&Bench<'_>) -> Result<Shift>,
) -> Result<Measurement> {
    let shifted = match bench.nets.shifted.get(test) {
        Some(shifted) => Arc::clone(shifted),
        None => {
            let shifted = Arc::new(Shifted::new(bench.graph, &shift(bench)?)?);
            bench.nets.shifted.insert(test, Arc::clone(&shifted));
            shifted
        }
    };
    let options = bench.options;
    let preprocess = shifted_preprocess(options.preprocess, shifted.shift());
    // A picture named by a parameter belongs to the shifted data too.
    let load = |path: &Path| {
        let (tensor, shift) = ((options.load)(path)?, shifted.shift());
        if tensor.len() != shift.len() {
            return Err(Error::input(format!("{}: {:?} numbers in place of a picture", path.display(), tensor.dims())));
        }
        let sum = tensor.to_f64().iter().zip(shift.to_f64().iter()).map(|(a, b)| a + b).collect();
        Tensor::f64(tensor.dims(), sum)
    };
    let context = Context { seed: options.seed, score: options.score, preprocess: &preprocess, load: &load };
    let after = match examined.spec.build(&context) {
        Ok(after) => after,
        Err(e) => return Ok(Measurement::not_applicable(format!("it cannot be made for the shifted data: {e}"))),
    };
    let targets = [bench.scene.target];
    let methods = [examined.method, &*after];
    if examined.spec.values().text("patterns").is_ok() {
        return Ok(Measurement::not_applicable(
            "its patterns were fitted to the data as they are; `check --kindermans` fits them to the shifted data too",
        ));
    }
    let mut compare = |double: bool| {
        // Both engines have the same memory bound.
        let (engine, other) = match double {
            true => (&mut *bench.double, &mut *bench.engine),
            false => (&mut *bench.engine, &mut *bench.double),
        };
        other.make_way(engine.peak_bytes());
        let randomised = if double { bench.nets.bytes } else { 0 };
        let mut compared = engine
            .keeping((RANDOMISED, randomised), |engine| shifted.compare(engine, &bench.scene.x, &targets, methods))?;
        compared.pop().ok_or_else(|| Error::device("a method without a map"))
    };
    let compared = compare(true)?;
    if compared.output > SAME_OUTPUT {
        return Ok(Measurement::not_applicable(format!(
            "the shift was not undone: the logits differ by {:.1e} of the largest",
            compared.output
        )));
    }
    let Some(change) = compared.change.filter(|_| !examined.map.is_zero()) else {
        return Ok(Measurement::not_applicable(ZERO));
    };
    let single = compare(false)?;
    let moved = shifted.pictures(&bench.scene.x)?.items().first().cloned();
    let sentences = [
        "the map of the shifted picture is the map of the picture",
        "the net says the same of the shifted picture, the map does not",
    ];
    let measured = Measurement::number(change, sentences)
        .note("in single precision", single.change.unwrap_or(0.0))
        .note("max |f'(x+m) - f(x)| / max |f(x)|", compared.output);
    Ok(measured.panel(examined.panel(test, PanelKind::Shifted, caption, compared.after, moved)))
}
