//! Nets from ONNX graphs, and nets for inputs of other sizes.

#[cfg(feature = "onnx")]
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use super::Model;
#[cfg(feature = "onnx")]
use super::{
    ARCHITECTURES, BuiltNet, Labels, Reading, Setting,
    config::{self, Sizes},
    onnx, preprocess,
};
#[cfg(feature = "onnx")]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::graph::Bytes;
use crate::graph::Graph;
use crate::tensor::Shape;

impl Model {
    /// Reads an ONNX graph in memory; as [`Model::open_as`]. Messages call it `name`.
    ///
    /// # Errors
    /// As [`Model::open_as`]; also when its numbers are in another file.
    #[cfg(feature = "onnx")]
    pub fn from_graph(name: impl Into<String>, bytes: Bytes, reading: &Reading) -> Result<Self> {
        let name = name.into();
        Self::read_graph(name.clone(), bytes, None, reading).map_err(|e| e.within(name))
    }

    /// Reads an ONNX graph; `folder` holds numbers in other files, and files that say how pictures are prepared.
    #[cfg(feature = "onnx")]
    pub(super) fn read_graph(name: String, bytes: Bytes, folder: Option<&Path>, reading: &Reading) -> Result<Self> {
        if let Some(arch) = reading.arch {
            return Err(Error::settings(format!("an ONNX graph says itself what net it is; --arch {arch} has no use")));
        }
        let (mut statements, mut warnings) = (Vec::new(), Vec::new());
        for file in folder.map(config::beside).unwrap_or_default() {
            match file {
                Ok(statement) => statements.extend(statement),
                Err(e) => warnings.push(format!("{e}; it is ignored")),
            }
        }
        let size = statements.iter().find_map(config::Statement::size);
        let net = onnx::read(&bytes, folder, reading, size)?;
        warnings.extend(net.warnings);
        match config::of_metadata(&net.metadata) {
            Ok(statement) => statements.splice(0..0, statement).for_each(drop),
            Err(e) => warnings.push(format!("{e}; it is ignored")),
        }
        let input = net.graph.input_shape();
        let preparation = preprocess::of_graph(input, net.levels);
        let mut built = BuiltNet::of_pictures(net.graph, "onnx", net.assumed, preparation);
        let (mut told, mut read, mut sizes) = (Vec::new(), net.read, Sizes::default());
        let scaled = net.levels != onnx::Levels::Unknown;
        if scaled {
            // What a graph computes itself is not assumed.
            told.extend([Setting::Mean, Setting::Std]);
        }
        let mut used: Vec<config::Statement> = Vec::new();
        for statement in statements {
            let (statement, left_out) = statement.beside_graph(net.fixed.then_some([input.h, input.w]), scaled);
            warnings.extend(left_out);
            if let Err(e) = statement.check(ARCHITECTURES, None, &built) {
                warnings.push(format!("{e}; it is ignored"));
                continue;
            }
            statement.apply(&mut built, &mut told, &mut sizes);
            read.extend(statement.read(&used.iter().collect::<Vec<_>>()));
            warnings.extend(statement.warnings.iter().cloned());
            used.push(statement);
        }
        let assumed_size = sizes.apply(&mut built, &mut told)?;
        let BuiltNet { mut graph, preparation, mut labels, assumed, .. } = built;
        if graph.classes() == 1 {
            graph = graph.two_classes()?;
            labels = Labels::yes_or_not(labels.get(0).filter(|_| told.contains(&Setting::Labels)));
        }
        if preparation.preprocess.takes_pictures() {
            preparation.preprocess.check()?;
        }
        Ok(Self {
            name,
            architecture: "onnx".to_owned(),
            channels_last: net.layout == onnx::Layout::ChannelsLast,
            files: std::iter::once(bytes).chain(net.beside).collect(),
            folded: Arc::new(graph.fold()?),
            unfolded: graph,
            source: Some(net.source),
            resized: Mutex::new(HashMap::new()),
            preprocess: preparation.preprocess,
            labels,
            assumed,
            preparation: preparation.name,
            told,
            assumed_size,
            read,
            warnings,
            encodings: net.encodings,
            sha256: OnceLock::new(),
        })
    }

    /// Whether the net is a graph that scales the levels of pictures itself.
    pub fn scales_pictures(&self) -> bool {
        #[cfg(feature = "onnx")]
        let scales = self.source.as_ref().is_some_and(|source| source.scales);
        #[cfg(not(feature = "onnx"))]
        let scales = false;
        scales
    }

    /// The net as stored, for inputs of shape `input`; batch norms are not folded.
    ///
    /// # Errors
    /// As [`Model::graph`].
    pub fn unfolded_at(&self, input: Shape) -> Result<Graph> {
        #[cfg(feature = "onnx")]
        if let Some(source) = &self.source {
            return source.resized(input, &self.unfolded)?.two_classes();
        }
        self.unfolded.resized(input)
    }

    /// The net for inputs of another size; a graph from a file may compute other numbers then, so it is read again.
    pub(super) fn other_size(&self, graph: &Graph, input: Shape) -> Result<Graph> {
        #[cfg(feature = "onnx")]
        if self.source.is_some() {
            let again = self.unfolded_at(input)?.fold()?;
            let same = graph.resized(input).ok().filter(|resized| resized.is_like(&again));
            // Weights that are shared are packed once.
            return Ok(same.unwrap_or(again));
        }
        graph.resized(input)
    }
}
