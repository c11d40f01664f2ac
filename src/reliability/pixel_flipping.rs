//! Pixel flipping (Bach, Binder, Montavon, Klauschen, Müller, Samek 2015), as in Quantus.

use super::ranking::ranking;
use super::removal::{RemovalOrder, Way, curves};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, Space};
use crate::program::Score;
use crate::tensor::{Shape, Tensor};

/// Elements of a picture of `shape` in descending order of the map's values; of equal values, the first in C order. A
/// map without channels applies to every channel.
///
/// # Errors
/// When the map does not have the picture's pixels or is not finite.
pub fn element_order(map: &Map, shape: Shape) -> Result<Vec<u32>> {
    let dims = map.values.dims();
    let values = map.values.to_f64();
    let lies_there = map.space == Space::Input && dims.ends_with(&[shape.h, shape.w]);
    if !lies_there || ![shape.len(), shape.plane()].contains(&values.len()) {
        return Err(Error::input(format!(
            "a map of {} has {dims:?} positions: pixel flipping needs one in the picture's space, {shape}",
            map.method
        )));
    }
    if let Some(at) = map.values.first_not_finite() {
        return Err(Error::input(format!("element {at} of a map of {} is not a finite number", map.method)));
    }
    if values.len() == shape.len() { Ok(ranking(&values)) } else { Ok(ranking(&values.repeat(shape.c))) }
}

/// For each picture, the target's softmax probability after each step of `step` elements (a channel of a pixel is an
/// element) that are set to the picture's baseline, most important first. The untouched picture is not among the
/// points.
///
/// `baselines` are `[C, H, W]`, one per picture. Quantus gives the same numbers for maps without ties; its area under
/// the curve is in units of steps: [`super::removal::area`] times the number of points minus 1.
///
/// # Errors
/// As [`element_order`] and [`curves`], and when there is not one of everything per picture.
pub fn pixel_flipping(
    engine: &mut Engine,
    graph: &Graph,
    [x, baselines]: [&[Tensor]; 2],
    maps: &[Map],
    step: usize,
) -> Result<Vec<Vec<f64>>> {
    if maps.len() != x.len() || baselines.len() != x.len() {
        return Err(Error::input(format!(
            "{} maps and {} baselines of {} pictures",
            maps.len(),
            baselines.len(),
            x.len()
        )));
    }
    let orders = maps.iter().map(|m| element_order(m, graph.input_shape())).collect::<Result<Vec<_>>>()?;
    let way = |i: usize| {
        let order = RemovalOrder::Elements(&orders[i]);
        Way { from: &x[i], to: &baselines[i], order, step, target: maps[i].target }
    };
    let mut found = curves(engine, graph, Score::Prob, &(0..x.len()).map(way).collect::<Vec<_>>())?;
    for curve in &mut found {
        curve.remove(0);
    }
    Ok(found)
}
