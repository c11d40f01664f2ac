//! Properties of a model that can be reported without running it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Model;
use crate::error::Result;
use crate::graph::Link;
use crate::image::Preprocess;
use crate::tensor::Shape;

/// One node of the net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Name of the node.
    pub name: String,
    /// Kind of operation.
    pub op: String,
    /// Names of the nodes it reads.
    pub inputs: Vec<String>,
    /// Output `[c, h, w]`.
    pub output: [usize; 3],
    /// Number of parameters.
    pub parameters: usize,
    /// Multiply-adds of a forward pass.
    pub macs: usize,
}

/// A model in figures, for one input size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// Name of the file or of the built-in model.
    pub name: String,
    /// The architecture, from the names and shapes of the tensors.
    pub architecture: String,
    /// Input `[c, h, w]`.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// How logits become probabilities: a net with one output has a sigmoid.
    pub link: Link,
    /// How pictures are prepared.
    pub preprocess: Preprocess,
    /// All nodes in order, before batch norms are folded.
    pub layers: Vec<LayerInfo>,
    /// Names of the stages, shallow to deep.
    pub stages: Vec<String>,
    /// Number of parameters in total.
    pub parameters: usize,
    /// Multiply-adds of one forward pass.
    pub macs: usize,
    /// Two per multiply-add.
    pub flops: usize,
    /// Bytes of the weights file.
    pub file_bytes: usize,
    /// SHA-256 of the weights file, hexadecimal.
    pub sha256: String,
    /// How many numbers are stored in each encoding.
    pub encodings: BTreeMap<&'static str, usize>,
    /// What was read besides the tensors, one line per source.
    pub read: Vec<String>,
    /// Settings that neither the file nor its companions give.
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    pub warnings: Vec<String>,
}

impl Model {
    /// The model in figures for inputs of shape `input`.
    ///
    /// # Errors
    /// When the net does not take inputs of that shape.
    pub fn info(&self, input: Shape) -> Result<ModelInfo> {
        let graph = self.fitted(self.unfolded(), input)?;
        let layer = |node: &crate::graph::Node| LayerInfo {
            name: node.name.clone(),
            op: node.op.kind().to_string(),
            inputs: node.inputs.iter().map(|&i| graph.node(i).name.clone()).collect(),
            output: node.shape.dims(),
            parameters: node.op.parameters(),
            macs: node.op.macs(node.shape),
        };
        Ok(ModelInfo {
            name: self.name().to_string(),
            architecture: self.architecture().to_string(),
            input: input.dims(),
            classes: graph.classes(),
            link: graph.link(),
            preprocess: self.preprocess().clone(),
            layers: graph.nodes().iter().map(layer).collect(),
            stages: graph.stages().iter().map(|(name, _)| name.clone()).collect(),
            parameters: graph.parameters(),
            macs: graph.macs(),
            flops: 2 * graph.macs(),
            file_bytes: self.file_bytes(),
            sha256: self.sha256().to_string(),
            encodings: self.encodings().clone(),
            read: self.read_beside().to_vec(),
            assumed: self.assumed(&[]),
            warnings: self.warnings().to_vec(),
        })
    }
}
