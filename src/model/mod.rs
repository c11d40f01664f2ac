//! From a safetensors file to a graph: the architecture is read from the names and shapes of the tensors.

mod alexnet;
mod assembly;
mod blueprint;
mod cifar;
mod efficientnet_lite;
mod info;
mod labels;
mod mlp;
mod preprocess;
mod resnet;
mod tensors;
mod vgg;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use blueprint::{Blueprint, blueprint, known_nets};
pub use info::{LayerInfo, ModelInfo};
pub use labels::{Labels, is_synset};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::graph::{Bytes, Graph};
use crate::image::Preprocess;
use crate::tensor::Shape;
use tensors::Tensors;

/// Longest side of an input, in elements.
const MAX_SIDE: usize = 1 << 16;

/// Graphs of other sizes that are kept.
const MAX_KEPT_GRAPHS: usize = 64;

/// Names that an error lists at most.
const SHOWN_NAMES: usize = 6;

/// What an architecture makes of a file.
struct Built {
    graph: Graph,
    architecture: String,
    preprocess: Preprocess,
    labels: Labels,
}

/// A family of nets that weights files are read as.
pub struct Architecture {
    /// What `--arch` takes.
    pub name: &'static str,
    /// Which nets it covers.
    pub nets: &'static str,
    recognise: fn(&Tensors) -> bool,
    build: fn(&mut Tensors) -> Result<Built>,
}

impl std::fmt::Debug for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Architecture({})", self.name)
    }
}

/// All known architectures, in the order in which a file is tried.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "resnet",
        nets: "torchvision ResNet-18 to -152, Wide-ResNet, ResNeXt",
        recognise: resnet::recognise,
        build: resnet::build,
    },
    Architecture {
        name: "cifar-resnet",
        nets: "ResNet-20 to -110 for 32x32 pictures, parameter-free shortcuts",
        recognise: cifar::recognise,
        build: cifar::build,
    },
    Architecture {
        name: "vgg",
        nets: "torchvision VGG-11 to -19, with or without batch norm",
        recognise: vgg::recognise,
        build: vgg::build,
    },
    Architecture { name: "alexnet", nets: "torchvision AlexNet", recognise: alexnet::recognise, build: alexnet::build },
    Architecture {
        name: "efficientnet-lite",
        nets: "timm tf_efficientnet_lite0 to 4",
        recognise: efficientnet_lite::recognise,
        build: efficientnet_lite::build,
    },
    Architecture {
        name: "mlp",
        nets: "linear layers with ReLU between them",
        recognise: mlp::recognise,
        build: mlp::build,
    },
];

fn known() -> String {
    let known: Vec<String> = ARCHITECTURES.iter().map(|a| format!("{} ({})", a.name, a.nets)).collect();
    known.join(", ")
}

fn architecture(tensors: &Tensors, wanted: Option<&str>) -> Result<&'static Architecture> {
    if let Some(wanted) = wanted {
        return ARCHITECTURES
            .iter()
            .find(|a| a.name.eq_ignore_ascii_case(wanted))
            .ok_or_else(|| Error::settings(format!("no architecture is named '{wanted}'; known are {}", known())));
    }
    ARCHITECTURES.iter().find(|a| (a.recognise)(tensors)).ok_or_else(|| {
        let names: Vec<&str> = tensors.names().take(SHOWN_NAMES).collect();
        let more = tensors.names().count().saturating_sub(SHOWN_NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let prefixed = tensors.names().next().is_some() && tensors.names().all(|name| name.starts_with("module."));
        let hint = if prefixed { "; weights saved from within DataParallel: take `module.` off the names" } else { "" };
        Error::model(format!(
            "the tensors {}{more} are of no known architecture{hint}; known are {}",
            names.join(", "),
            known()
        ))
    })
}

/// A net with its weights, and what it expects and names.
pub struct Model {
    name: String,
    architecture: String,
    bytes: Bytes,
    unfolded: Graph,
    folded: Arc<Graph>,
    resized: Mutex<HashMap<Shape, Arc<Graph>>>,
    preprocess: Preprocess,
    labels: Labels,
    encodings: BTreeMap<&'static str, usize>,
    sha256: OnceLock<String>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}: {})", self.name, self.architecture)
    }
}

/// Name of the embedded model.
pub const EMBEDDED: &str = "efficientnet-lite0";

/// Aligned so that devices can read the numbers where they are.
#[cfg(feature = "embedded-model")]
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

#[cfg(feature = "embedded-model")]
impl AsRef<[u8]> for Aligned<[u8]> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(feature = "embedded-model")]
static EMBEDDED_WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../weights/efficientnet-lite0.safetensors"));

impl Model {
    /// Maps a weights file into memory; it must not be changed in place while the model lives. Its architecture is read from names and shapes unless `arch` (a name of
    /// [`ARCHITECTURES`]) is given.
    ///
    /// # Errors
    /// When the file cannot be read, is no safetensors file, is damaged, has missing, surplus or mis-shaped tensors
    /// or a number that is not finite. The message names the file, the tensor and what was expected.
    pub fn open(path: &Path, arch: Option<&str>) -> Result<Self> {
        // Asked of the path: opening a pipe waits for its other end.
        let metadata = path.metadata().map_err(|e| Error::io(path, e))?;
        let shown = path.display().to_string();
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "a folder" } else { "no regular file" };
            return Err(Error::model(format!("{shown}: this is {what}; expected a safetensors file")));
        }
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes: Bytes = if metadata.len() == 0 {
            Arc::new(Vec::new())
        } else {
            // SAFETY: the mapping is shared and read-only; its bytes are only ever read as plain numbers, for which any
            // bit pattern is valid. What others write to the file later shows through, as changed weights; a file
            // that is truncated ends the process with SIGBUS where a page that is gone is read. Not to change the
            // file in place while it is in use is the user's side of the contract.
            let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
            Arc::new(map)
        };
        let name = path.file_stem().map_or(shown.clone(), |stem| stem.to_string_lossy().into_owned());
        Self::read(name, bytes, arch).map_err(|e| e.within(shown))
    }

    /// The embedded EfficientNet-Lite0 (ImageNet-1k).
    ///
    /// # Errors
    /// None in a sound build.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self> {
        Self::from_bytes(EMBEDDED, Arc::new(EMBEDDED_WEIGHTS), None)
    }

    /// A safetensors file in memory; as [`Model::open`], `name` standing for the file.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(name: impl Into<String>, bytes: Bytes, arch: Option<&str>) -> Result<Self> {
        let name = name.into();
        Self::read(name.clone(), bytes, arch).map_err(|e| e.within(name))
    }

    fn read(name: String, bytes: Bytes, arch: Option<&str>) -> Result<Self> {
        let mut tensors = Tensors::parse(bytes.clone())?;
        let built = (architecture(&tensors, arch)?.build)(&mut tensors)?;
        tensors.finish()?;
        Ok(Self {
            name,
            architecture: built.architecture,
            bytes,
            folded: Arc::new(built.graph.fold()?),
            unfolded: built.graph,
            resized: Mutex::new(HashMap::new()),
            preprocess: built.preprocess,
            labels: built.labels,
            encodings: tensors.encodings(),
            sha256: OnceLock::new(),
        })
    }

    /// Name of the file without its extension, or of the embedded model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The architecture with its depths, such as `resnet-bottleneck [3,4,6,3]`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// SHA-256 of the file's bytes, hexadecimal; computed when first asked for.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| {
            let digest = Sha256::digest((*self.bytes).as_ref());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// Bytes of the weights file.
    pub fn file_bytes(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// How many numbers the file stores in each encoding.
    pub fn encodings(&self) -> &BTreeMap<&'static str, usize> {
        &self.encodings
    }

    /// The net for the default input as the file has it, batch norms and all.
    pub fn unfolded(&self) -> &Graph {
        &self.unfolded
    }

    /// The shape that the net was made for.
    pub fn default_input(&self) -> Shape {
        self.unfolded.input_shape()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.unfolded.classes()
    }

    /// The net with its batch norms folded, for inputs of shape `input`. Graphs of all sizes share their weights and
    /// weight ids.
    ///
    /// # Errors
    /// When the net does not take inputs of that shape; names the node that refuses.
    pub fn graph(&self, input: Shape) -> Result<Arc<Graph>> {
        if input == self.default_input() {
            return Ok(self.folded.clone());
        }
        let mut kept = self.resized.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = kept.get(&input) {
            return Ok(graph.clone());
        }
        let graph = Arc::new(self.fitted(&self.folded, input)?);
        if kept.len() >= MAX_KEPT_GRAPHS {
            kept.clear();
        }
        kept.insert(input, graph.clone());
        Ok(graph)
    }

    fn fitted(&self, graph: &Graph, input: Shape) -> Result<Graph> {
        if input.is_empty() || input.h > MAX_SIDE || input.w > MAX_SIDE {
            return Err(Error::input(format!("{}: an input of {input} has no use", self.name)));
        }
        graph.resized(input).map_err(|e| {
            Error::input(format!(
                "{} does not take an input of {input} (made for {}): {e}",
                self.name,
                self.default_input()
            ))
        })
    }

    /// What becomes of a picture.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Names of the classes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Replaces the names of the classes.
    ///
    /// # Errors
    /// When there is not one name a class.
    pub fn set_labels(&mut self, labels: Labels) -> Result<()> {
        if labels.len() != self.classes() {
            return Err(Error::settings(format!("{} names for a net of {} classes", labels.len(), self.classes())));
        }
        self.labels = labels;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "embedded-model")]
    #[test]
    fn embedded_file_is_aligned() {
        assert_eq!(EMBEDDED_WEIGHTS.as_ref().as_ptr().addr() % 64, 0);
    }

    #[test]
    fn single_precision_weights_are_read_in_place() {
        let model = Model::random("resnet20", 1).unwrap();
        let crate::graph::Op::Conv(conv) = &model.unfolded().nodes()[1].op else { panic!("the first layer") };
        let in_place = conv.weight.in_place::<f32>().unwrap();
        assert!(in_place.iter().zip(conv.weight.to_f64()).all(|(a, b)| f64::from(*a) == b));
    }
}
