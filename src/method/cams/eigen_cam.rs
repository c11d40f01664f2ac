//! Eigen-CAM (Muhammad & Yeasin 2020): a layer's activations projected on their first principal component.

use crate::engine::{self, Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims};
use crate::method::shared::cam::{self, Cam};
use crate::method::{Entry, Method, Parameter, When};
use crate::tensor::{Precision, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "eigen_cam",
    aliases: &["eigencam"],
    title: "Eigen-CAM",
    paper: "Muhammad, Yeasin 2020: Eigen-CAM: class activation map using principal components, IJCNN",
    summary: "relu O v with O the activations, one row a position, and v the first right singular vector of O, \
              turned so that v · (mean activation) ≥ 0",
    passes: "1 forward",
    parameters: &PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "the same for every class. The paper leaves the sign open; the convention (along the mean activation, or where \
              that is 0 the first number of v that is not zero positive) is this project's own choice",
    build: |values, _| {
        let centre = match values.text("centre")? {
            "no" => Centre::No,
            "yes" => Centre::Yes,
            other => return Err(Error::settings(format!("eigen_cam:centre={other}: there are yes and no"))),
        };
        Ok(Box::new(EigenCam { cam: Cam::new(ENTRY.id, values)?, centre }))
    },
};

const PARAMETERS: [Parameter; 4] = {
    let [layer, upsample, relu] = cam::PARAMETERS;
    let centre = Parameter {
        key: "centre",
        unit: "yes|no",
        default: "no",
        help: "no: O as it is, the paper's equation; yes: O less its mean over positions, the principal component of \
               statistics (this project's own addition)",
    };
    [layer, upsample, relu, centre]
};

/// Whether the mean over positions is subtracted first.
#[derive(Clone, Copy, PartialEq)]
enum Centre {
    Yes,
    No,
}

/// `O v`.
struct EigenCam {
    cam: Cam,
    centre: Centre,
}

/// Number of matrix squarings; it separates eigenvalues with a relative distance of 1e-12. Nearer ones count as equal.
const SQUARINGS: usize = 45;
/// Multiplications by the matrix itself that remove rounding errors of the squarings.
const POLISH: usize = 20;

/// A unit eigenvector for the largest eigenvalue of a symmetric positive semidefinite matrix `[n, n]`; zeros for the
/// zero matrix.
fn first_eigenvector(matrix: &[f64], n: usize) -> Vec<f64> {
    let trace = |m: &[f64]| (0..n).map(|i| m[i * n + i]).sum::<f64>();
    let scaled = |m: &[f64]| {
        let total = trace(m);
        m.iter().map(|v| if total > 0.0 { v / total } else { 0.0 }).collect::<Vec<f64>>()
    };
    // Repeated squaring (scaled to trace 1) turns the matrix into the projector on the eigenvector.
    let mut power = scaled(matrix);
    for _ in 0..SQUARINGS {
        let mut square = vec![0.0; n * n];
        for (i, out) in square.chunks_exact_mut(n).enumerate() {
            for (k, row) in power.chunks_exact(n).enumerate() {
                let factor = power[i * n + k];
                out.iter_mut().zip(row).for_each(|(o, v)| *o += factor * v);
            }
        }
        let rank_one = trace(&square) >= 1.0 - 1e-14;
        power = scaled(&square);
        if rank_one {
            break;
        }
    }
    let unit = |mut v: Vec<f64>| {
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        v.iter_mut().for_each(|v| *v = if norm > 0.0 { *v / norm } else { 0.0 });
        v
    };
    let largest = (0..n).fold(0, |best, i| if power[i * n + i] > power[best * n + best] { i } else { best });
    let mut vector = unit(power[largest * n..][..n].to_vec());
    for _ in 0..POLISH {
        let product = matrix.chunks_exact(n).map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        vector = unit(product);
    }
    vector
}

/// `O v` for activations `[c, plane]`, one number per position.
fn along_first(activation: &[f64], plane: usize, centre: Centre, precision: Precision) -> Vec<f64> {
    let means: Vec<f64> = activation.chunks_exact(plane).map(|a| a.iter().sum::<f64>() / plane as f64).collect();
    let mut o = activation.to_vec();
    if centre == Centre::Yes {
        let rows = activation.chunks_exact(plane).zip(&means);
        if differ_by_rounding(rows.flat_map(|(row, &m)| row.iter().map(move |&v| (v, m))), precision) {
            return vec![0.0; plane];
        }
        o.chunks_exact_mut(plane).zip(&means).for_each(|(row, m)| row.iter_mut().for_each(|v| *v -= m));
    }
    let c = means.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let project = |v: &[f64]| {
        let mut out = vec![0.0; plane];
        o.chunks_exact(plane).zip(v).for_each(|(row, v)| out.iter_mut().zip(row).for_each(|(s, a)| *s += v * a));
        out
    };
    // Uses the smaller of OᵀO and OOᵀ.
    let mut v = if c <= plane {
        let rows = |i: usize| &o[i * plane..][..plane];
        let gram: Vec<f64> = (0..c * c).map(|i| dot(rows(i / c), rows(i % c))).collect();
        first_eigenvector(&gram, c)
    } else {
        let mut gram = vec![0.0; plane * plane];
        for row in o.chunks_exact(plane) {
            for (out, &a) in gram.chunks_exact_mut(plane).zip(row) {
                out.iter_mut().zip(row).for_each(|(g, b)| *g += a * b);
            }
        }
        let left = first_eigenvector(&gram, plane);
        let right: Vec<f64> = o.chunks_exact(plane).map(|row| dot(row, &left)).collect();
        let norm = dot(&right, &right).sqrt();
        right.into_iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }).collect()
    };
    let along = match dot(&v, &means) {
        0.0 => v.iter().copied().find(|&v| v != 0.0).unwrap_or(1.0),
        along => along,
    };
    if along < 0.0 {
        v.iter_mut().for_each(|v| *v = -*v);
    }
    project(&v)
}

impl Method for EigenCam {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.cam.dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let layer = self.cam.layer(graph)?;
        let activations = engine.node_outputs(graph, x, &[layer.node])?.remove(0);
        let plane = |i: usize| {
            let activation = activations.item(i)?;
            let numbers = along_first(&activation.to_f64(), layer.shape.plane(), self.centre, activation.precision());
            Tensor::rounded([1, layer.shape.h, layer.shape.w], numbers, activation.precision())
        };
        let planes = (0..x.len()).map(plane).collect::<Result<Vec<_>>>()?;
        self.cam.maps(engine.spare(), &planes, graph, layer, x, targets)
    }
}
