//! Distinguishes attacked from clean pictures by the saliency maps of a net's predictions (Wang, Su, Zhang, Hu 2020:
//! Learning reliable visual saliency for model explanations, IEEE Transactions on Multimedia; the text is not public,
//! so net, training and input format are this project's own).
//!
//! [`Features`] computes a stack of maps of a picture; a [`Laboratory`], those of pictures and their attacked versions;
//! [`train`] fits a small net ([`Net`]) to them. A [`Detector`] is that net with its standardisation and its
//! provenance.

mod attack;
mod features;
mod net;
mod specimen;
mod split;
mod train;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub use attack::{Rounding, SpecimenAttack};
pub use features::{Features, SIDE};
pub use net::{ATTACKED, CLEAN, Net};
pub use specimen::{Laboratory, Specimen, SpecimenKind, SpecimenOrigin};
pub use split::{SplitPart, part};
pub use train::{Epoch, Example, Scaling, Trained, Training, train};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::auc::{Interval, ScoredCase, interval};
use super::bootstrap::Bootstrap;
use crate::engine::Engine;
use crate::error::{Error, Result, read_file};
use crate::image::Preprocess;
use crate::tensor::{Shape, Tensor, check_safetensors};

/// The origin of a detector, stored with its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorProvenance {
    /// Version of the program that trained it.
    pub version: String,
    /// The method that computes its maps, with all parameters.
    pub method: String,
    /// Seed of the method's draws, the split and the training.
    pub seed: u64,
    /// Name and architecture of the explained net.
    pub model: [String; 2],
    /// SHA-256 of that net's weights file; maps of another net have another meaning.
    pub model_sha256: String,
    /// Shape of that net's input, `[C, H, W]`.
    pub input: [usize; 3],
    /// How pictures become inputs.
    pub preprocess: Preprocess,
    /// The attacks it was trained on.
    pub attacks: Vec<String>,
    /// Number of pictures in the training, validation and test parts.
    pub pictures: [usize; 3],
    /// Clean and attacked samples in each part.
    pub examples: [[usize; 2]; 3],
    /// How it was trained.
    pub training: Training,
    /// Epochs that were run, and the number (from 1) of the selected one.
    pub epochs: [usize; 2],
    /// AUC on the validation part after the selected epoch.
    pub validation_auc: f64,
    /// AUC on the test part, by attack.
    pub test: BTreeMap<String, Interval>,
    /// Precision and kernels used in training.
    pub computed_in: [String; 2],
    /// Data, and other notes of the caller.
    pub notes: BTreeMap<String, String>,
}

/// A trained net with its standardisation and provenance.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// Its origin.
    pub provenance: DetectorProvenance,
    net: Net,
    scaling: Scaling,
}

/// Key of the provenance in a file's metadata.
const PROVENANCE: &str = "verilume.detector";

impl Detector {
    /// From the result of a training.
    pub fn new(trained: Trained, provenance: DetectorProvenance) -> Self {
        Self { provenance, net: trained.net, scaling: trained.scaling }
    }

    /// Shape of its stacks of maps.
    pub fn maps(&self) -> Shape {
        self.net.input()
    }

    /// For each stack of maps: the probability that its picture was attacked, if clean and attacked ones are equally
    /// frequent, and the log-odds, which still distinguish pictures when the probability is rounded to 0 or 1.
    ///
    /// # Errors
    /// When a stack does not have the shape used in training, or a number is not finite.
    pub fn scores(&self, engine: &mut Engine, stacks: &[Tensor]) -> Result<Vec<DetectorVerdict>> {
        let scaled = stacks.iter().map(|s| self.scaling.apply(s)).collect::<Result<Vec<_>>>()?;
        let logs = self.net.log_probabilities(engine, &scaled)?;
        let verdict =
            |log: [f64; 2]| DetectorVerdict { probability: log[ATTACKED].exp(), log_odds: log[ATTACKED] - log[CLEAN] };
        Ok(logs.into_iter().map(verdict).collect())
    }

    /// AUC on the test part's pictures and their attacked versions of one kind, with its interval over pictures; `None`
    /// if one of the two is missing.
    ///
    /// # Errors
    /// As [`Detector::scores`].
    pub fn test(
        &self,
        engine: &mut Engine,
        specimens: &[Specimen],
        kind: usize,
        bootstrap: &Bootstrap,
    ) -> Result<Option<Interval>> {
        let tested: Vec<&Specimen> = specimens.iter().filter(|s| s.part == SplitPart::Test).collect();
        let mut cases = Vec::with_capacity(2 * tested.len());
        for positive in [false, true] {
            let maps =
                |s: &Specimen| if positive { s.attacked.get(kind).cloned().flatten() } else { Some(s.clean.clone()) };
            // Equal pictures are resampled together.
            let (keys, stacks): (Vec<u64>, Vec<Tensor>) = tested.iter().filter_map(|s| Some((s.key, maps(s)?))).unzip();
            let verdicts = self.scores(engine, &stacks)?;
            let case =
                |(key, v): (u64, DetectorVerdict)| ScoredCase { group: key as usize, positive, score: v.log_odds };
            cases.extend(keys.into_iter().zip(verdicts).map(case));
        }
        interval(&cases, bootstrap)
    }

    /// Refuses a net or a picture preparation other than the one used in training.
    ///
    /// # Errors
    /// When they differ.
    pub fn check(&self, model_sha256: &str, preprocess: &Preprocess) -> Result<()> {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        if model_sha256 != self.provenance.model_sha256 {
            return Err(Error::settings(format!(
                "this detector was trained on maps of another net ({}, weights {}) than the one given ({}); train one with \
                 `verilume detector train`",
                self.provenance.model[0],
                short(&self.provenance.model_sha256),
                short(model_sha256)
            )));
        }
        if *preprocess != self.provenance.preprocess {
            return Err(Error::settings(
                "this detector was trained on pictures that were prepared in another way (size, mean, std or interpolation)",
            ));
        }
        Ok(())
    }

    /// Serialises to safetensors: the net's weights and biases, `scaling.mean` and `scaling.std`, in double precision.
    ///
    /// # Errors
    /// Never for a detector that was trained or read.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let broken = |e: &dyn std::fmt::Display| Error::model(format!("the detector cannot be written: {e}"));
        let raw = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut rest = self.net.parameters();
        for layer in self.net.layers()? {
            let (weight, after) = rest.split_at(layer.weights());
            let (bias, after) = after.split_at(layer.dims[0]);
            rest = after;
            tensors.push((format!("{}.weight", layer.name), layer.dims.to_vec(), raw(weight)));
            tensors.push((format!("{}.bias", layer.name), vec![bias.len()], raw(bias)));
        }
        for (name, values) in [("scaling.mean", &self.scaling.mean), ("scaling.std", &self.scaling.std)] {
            tensors.push((name.into(), vec![values.len()], raw(values)));
        }
        // The weights alone do not determine the size of the stacks.
        let Shape { c, h, w } = self.net.input();
        let header = DetectorHeader { maps: [c, h, w], provenance: self.provenance.clone() };
        let header = serde_json::to_string(&header).map_err(|e| broken(&e))?;
        let views = tensors.iter().map(|(name, dims, raw)| {
            TensorView::new(Dtype::F64, dims.clone(), raw).map(|v| (name.as_str(), v)).map_err(|e| broken(&e))
        });
        let metadata = HashMap::from([(PROVENANCE.to_string(), header)]);
        safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata)).map_err(|e| broken(&e))
    }

    /// Reads the output of [`Detector::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are not such a file, or hold numbers that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let broken = |e: &dyn std::fmt::Display| Error::model(format!("not a file of a detector: {e}"));
        check_safetensors(bytes).map_err(|e| broken(&e))?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| broken(&e))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(PROVENANCE));
        let header = header.ok_or_else(|| broken(&"its metadata does not say how it was trained"))?;
        let header: DetectorHeader = serde_json::from_str(header).map_err(|e| broken(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| broken(&e))?;
        let read = |name: &str, dims: &[usize]| -> Result<Vec<f64>> {
            let view = file.tensor(name).map_err(|e| broken(&e))?;
            if view.dtype() != Dtype::F64 || view.shape() != dims {
                return Err(broken(&format!(
                    "tensor '{name}' is {:?} {:?}, expected F64 {dims:?}",
                    view.dtype(),
                    view.shape()
                )));
            }
            let values: Vec<f64> = view.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect();
            match values.iter().all(|v| v.is_finite()) {
                true => Ok(values),
                false => Err(broken(&format!("tensor '{name}' holds a number that is not finite"))),
            }
        };
        let [c, h, w] = header.maps;
        let input = Shape::new(c, h, w).checked().map_err(|e| broken(&e))?;
        let mut parameters = Vec::new();
        for layer in net::layers(input).map_err(|e| broken(&e))? {
            parameters.extend(read(&format!("{}.weight", layer.name), &layer.dims)?);
            parameters.extend(read(&format!("{}.bias", layer.name), &layer.dims[..1])?);
        }
        let scaling = Scaling { mean: read("scaling.mean", &[c])?, std: read("scaling.std", &[c])? };
        if scaling.std.iter().any(|&s| s <= 0.0) {
            return Err(broken(&"a standard deviation is not above 0"));
        }
        Ok(Self { provenance: header.provenance, net: Net::with(input, parameters)?, scaling })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As [`Detector::from_bytes`], and when the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        Self::from_bytes(&bytes).map_err(|e| e.within(path.display()))
    }
}

/// A detector's verdict on one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorVerdict {
    /// Probability that the picture was attacked, at even prior odds.
    pub probability: f64,
    /// `ln(p / (1 − p))`.
    pub log_odds: f64,
}

/// A file's metadata.
#[derive(Serialize, Deserialize)]
struct DetectorHeader {
    /// Shape of the stacks of maps.
    maps: [usize; 3],
    #[serde(flatten)]
    provenance: DetectorProvenance,
}
