//! Deletion: do the pixels that the map ranks as important matter more than random ones?

use super::{Bench, CheckedMethod, Measurement, Test, Threshold, shows_nothing};
use crate::error::{Error, Result};
use crate::map::{Reduction, channel_sum};
use crate::program::Score;
use crate::random::Stream;
use crate::reliability::ranking::ranking;
use crate::reliability::removal::{RemovalOrder, Way, area, curves};
use crate::tensor::Tensor;

/// Steps from the picture to the baseline.
const STEPS: usize = 50;

/// Number of random orders with which the map's order is compared.
const RANDOM: u32 = 5;

pub(super) const TEST: Test = Test {
    id: "deletion",
    title: "Deletion",
    question: "Is the class lost sooner when pixels go in the map's order than when they go at random?",
    paper: "Petsiuk, Das, Saenko 2018: RISE, BMVC (deletion to zeros of the net's space; random orders are this project's bound)",
    measure: "area under the deletion curve, less that of random orders",
    threshold: Threshold::AtMost(0.0),
    run,
};

fn run(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>) -> Result<Measurement> {
    let shape = bench.graph.input_shape();
    let plane = channel_sum(&examined.map.values)?;
    if plane.dims() != [shape.h, shape.w] {
        return Err(Error::settings("the map has no positions in the picture"));
    }
    if shape.plane() == 1 {
        return Err(Error::settings("the net takes vectors: there are no pixels to delete"));
    }
    if let Some(nothing) = shows_nothing(examined.map, Reduction::Sum)? {
        return Ok(nothing);
    }
    let mut measure = |orders: &[Vec<u32>]| -> Result<f64> {
        let picture = &bench.scene.x.items()[0];
        let nothing = Tensor::rounded(picture.dims(), vec![0.0; picture.len()], picture.precision())?;
        let way = |order| Way {
            from: picture,
            to: &nothing,
            order: RemovalOrder::Pixels(order),
            step: shape.plane().div_ceil(STEPS),
            target: bench.scene.target,
        };
        let ways: Vec<Way<'_>> = orders.iter().map(|order| way(order)).collect();
        let curves = curves(bench.engine, bench.graph, Score::Prob, &ways)?;
        Ok(curves.iter().map(|curve| area(curve)).sum::<f64>() / curves.len().max(1) as f64)
    };
    let own = measure(&[ranking(&plane.to_f64())])?;
    let by_chance = match bench.scene.random_deletion {
        Some(area) => area,
        None => {
            let (seed, key) = (bench.options.seed, bench.scene.x.draws()[0].key);
            let random = |i: u32| {
                let mut draws = vec![0f32; shape.plane()];
                Stream::DeletionOrders.uniforms(seed, key, i, &mut draws);
                ranking(&draws.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
            };
            measure(&(0..RANDOM).map(random).collect::<Vec<_>>())?
        }
    };
    bench.scene.random_deletion = Some(by_chance);
    let sentences =
        ["its pixels matter more than pixels taken at random", "pixels taken at random matter more than its own"];
    Ok(Measurement::number(own - by_chance, sentences)
        .note("area under its curve", own)
        .note("area under the curves of random orders", by_chance))
}
