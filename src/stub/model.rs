use crate::image::{Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::graph::{Graph, GraphBuilder, Linear, Op, Weight};
use crate::tensor::Shape;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
pub struct Model {
    pre: Preprocess,
    labels: Labels,
    bytes: Vec<u8>,
}
#[derive(Debug, Clone)]
pub struct Labels(pub Vec<String>);
impl Labels {
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }
    pub fn name(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(String::as_str)
    }
    pub fn find(&self, name: &str) -> Result<usize> {
        self.0.iter().position(|n| n == name).ok_or_else(|| Error::settings(format!("no class is named '{name}'")))
    }
}
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    pub name: String,
    pub architecture: String,
    pub sha256: String,
    pub parameters: usize,
}
impl Model {
    pub fn open(path: &Path, _arch: Option<&str>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { bytes, ..Self::embedded()? })
    }
    pub fn embedded() -> Result<Self> {
        Ok(Self {
            pre: Preprocess {
                resize: 36,
                crop: [32, 32],
                interpolation: Interpolation::Bilinear,
                mean: vec![0.5; 3],
                std: vec![0.5; 3],
                channels: 3,
            },
            labels: Labels((0..10).map(|i| format!("class {i}")).collect()),
            bytes: b"stub".to_vec(),
        })
    }
    pub fn name(&self) -> &str {
        "efficientnet-lite0"
    }
    pub fn architecture(&self) -> &str {
        "efficientnet-lite0"
    }
    pub fn sha256(&self) -> &str {
        "0000"
    }
    pub fn graph(&self, shape: Shape) -> Result<Arc<Graph>> {
        let mut b = GraphBuilder::new(shape);
        let pool = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[b.input()])?;
        let weight = Weight::owned([10, shape.c, 1, 1], &vec![0.5; 10 * shape.c])?;
        let flat = b.push("flat", Op::Flatten, &[pool])?;
        let out = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[flat])?;
        b.stage("pool", pool);
        Ok(Arc::new(b.finish(out)?))
    }
    pub fn unfolded(&self, shape: Shape) -> Result<Arc<Graph>> {
        self.graph(shape)
    }
    pub fn default_input(&self) -> Shape {
        Shape::new(3, 32, 32)
    }
    pub fn preprocess(&self) -> &Preprocess {
        &self.pre
    }
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
    pub fn file_bytes(&self) -> &[u8] {
        &self.bytes
    }
    pub fn info(&self) -> Result<ModelInfo> {
        Ok(ModelInfo {
            name: self.name().into(),
            architecture: self.architecture().into(),
            sha256: self.sha256().into(),
            parameters: 0,
        })
    }
}
