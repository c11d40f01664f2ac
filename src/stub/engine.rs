use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::tensor::{Precision, Tensor};
use std::sync::Arc;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub device: DeviceChoice,
    pub precision: Precision,
    pub threads: Option<usize>,
    pub memory: Option<u64>,
}
pub struct Engine;
pub struct Batch(pub Tensor);
impl Batch {
    pub fn new(x: Tensor) -> Result<Self> {
        match x.first_not_finite() {
            Some(i) => Err(Error::input(format!("element {i} is not finite"))),
            None => Ok(Self(x)),
        }
    }
}
pub(super) fn weight(class: usize, i: usize) -> f64 {
    if i < 64 { ((class * 31 + i * 7) as f64).sin() } else { 0.0 }
}
impl Engine {
    pub fn new(_: &Settings) -> Result<Self> {
        Ok(Self)
    }
    pub fn forward(&mut self, graph: &Arc<Graph>, x: &Batch) -> Result<Tensor> {
        let (n, classes) = (x.0.dims()[0], graph.classes());
        let mut out = Vec::new();
        for i in 0..n {
            let row = x.0.item(i)?;
            let row = row.to_f64();
            for c in 0..classes {
                out.push(row.iter().enumerate().take(64).map(|(k, v)| v * weight(c, k)).sum::<f64>());
            }
        }
        Tensor::f64([n, classes], out)
    }
    pub fn peak_bytes(&self) -> u64 {
        1 << 20
    }
}
