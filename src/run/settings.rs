//! The settings that results depend on: named methods, and fingerprints.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::device::Products;
use crate::device::cpu::Kernels;
use crate::engine::{Engine, Settings};
use crate::error::{Error, Result, read_file};
use crate::method::{Context, Method, Spec};
use crate::report::{Manifest, MethodUsed, RECORD_VERSION};
use crate::session::Session;
use crate::tensor::Precision;
use crate::text::hex;

/// A method with the id that its files and records carry.
#[derive(Debug, Clone)]
pub struct Named {
    /// The method's name, followed by `-2`, `-3` … for repeats.
    pub id: String,
    /// The method and its parameters.
    pub spec: Spec,
}

/// Numbers repeated names.
#[derive(Debug, Default)]
pub(super) struct Numbered(HashMap<&'static str, usize>);

impl Numbered {
    /// The suffix for this use of `name`: empty, `-2`, `-3` …
    pub fn ending(&mut self, name: &'static str) -> String {
        let time = self.0.entry(name).and_modify(|n| *n += 1).or_insert(1);
        if *time == 1 { String::new() } else { format!("-{time}") }
    }
}

/// Parses methods and numbers repeated names.
///
/// # Errors
/// When a text is not the name of a method with valid parameters.
pub fn methods(texts: &[String]) -> Result<Vec<Named>> {
    let mut numbered = Numbered::default();
    let named = |text: &String| {
        let spec = Spec::parse(text)?;
        let id = format!("{}{}", spec.entry.id, numbered.ending(spec.entry.id));
        Ok(Named { id, spec })
    };
    texts.iter().map(named).collect()
}

/// A method that is ready to run.
pub(super) struct BuiltMethod {
    pub method: Box<dyn Method>,
    /// Hash of the files named by its parameters.
    pub files: String,
}

/// Builds `methods`, in order.
pub(super) fn build(session: &Session, methods: &[Named]) -> Result<Vec<BuiltMethod>> {
    // The contents of a parameter's file matter, not its name.
    let loaded = RefCell::new(Sha256::new());
    let load = |path: &Path| {
        let tensor = session.read(path)?;
        let mut hash = loaded.borrow_mut();
        hash.update(format!("{:?}", tensor.dims()));
        tensor.to_f64().iter().for_each(|v| hash.update(v.to_le_bytes()));
        Ok(tensor)
    };
    let (seed, score, preprocess) = (session.seed(), session.explained(), session.preparation());
    let context = Context { seed, score, preprocess, load: &load };
    let mut built = Vec::new();
    for named in methods {
        let method = named.spec.build(&context).map_err(|e| e.within(format!("-m {}", named.spec)))?;
        // A file that the method reads itself matters too.
        if let Ok(path) = named.spec.values().text("patterns") {
            loaded.borrow_mut().update(read_file(Path::new(path))?);
        }
        built.push(BuiltMethod { method, files: hex(&loaded.take().finalize()) });
    }
    Ok(built)
}

/// 16 digits that differ if the `settings` do.
pub(super) fn fingerprint(settings: &Value) -> String {
    hex(&Sha256::digest(settings.to_string().as_bytes())[..8])
}

/// The requested precision.
pub fn precision_name(settings: &Settings) -> &'static str {
    match (settings.precision, settings.products) {
        (Precision::F64, _) => "f64",
        (Precision::F32, Products::F32) => "f32",
        (Precision::F32, Products::Tf32) => "tf32",
        (Precision::F32, Products::F16) => "f16",
        (Precision::F32, Products::Bf16) => "bf16",
    }
}

/// The settings that all results of a session depend on.
pub(super) fn common(session: &mut Session, settings: &Settings) -> Result<Value> {
    let mut common = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": session.model().sha256(),
        "architecture": session.model().architecture(), "preprocessing": session.preparation(), "seed": session.seed(),
    });
    note(&mut common, settings, session.engine())?;
    Ok(common)
}

/// Adds everything about the computation that results depend on.
///
/// # Errors
/// When the folder of kernels cannot be read.
pub fn note(settled: &mut Value, settings: &Settings, engine: &Engine) -> Result<()> {
    let device = engine.describe().device;
    settled["precision"] = precision_name(settings).into();
    settled["conv"] = json!(settings.convolution);
    // GPUs of one machine are alike, and the thread order of an emulated GPU changes nothing.
    settled["device"] = device.split(':').next().unwrap_or_default().into();
    if settings.kernels != Kernels::Auto {
        // Other instructions round differently.
        settled["kernels"] = settings.kernels.set().name.into();
    }
    if let Some(dir) = &settings.kernel_dir {
        settled["kernel_dir"] = digest(dir)?.into();
    }
    Ok(())
}

/// Hash of the names and contents of a folder's files.
fn digest(dir: &Path) -> Result<String> {
    let fail = |e| Error::io(dir, e);
    let mut files = std::fs::read_dir(dir).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    files.retain(|file| file.path().is_file());
    files.sort_by_key(|file| file.file_name());
    let mut hash = Sha256::new();
    for file in files {
        let text = read_file(&file.path())?;
        hash.update(file.file_name().as_encoded_bytes());
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(hex(&hash.finalize()))
}

/// The manifest of a starting run.
pub(super) fn manifest(
    session: &mut Session,
    command: &str,
    settings: &Settings,
    (methods, target, score): (Vec<MethodUsed>, &str, &str),
    formats: Vec<String>,
    shard: Option<String>,
) -> Result<Manifest> {
    let description = session.engine().describe();
    let preprocessing = serde_json::to_value(session.preparation());
    Ok(Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        command: command.into(),
        model: session.model_used(),
        preprocessing: preprocessing.map_err(|e| Error::settings(format!("the preparation is not JSON: {e}")))?,
        methods,
        target: target.into(),
        score: score.into(),
        seed: session.seed(),
        device: description.device,
        kernels: description.kernels,
        precision: precision_name(settings).into(),
        threads: description.threads,
        memory_bytes: settings.memory,
        formats,
        shard,
        record_version: RECORD_VERSION,
        ..Manifest::default()
    })
}

/// Passes per picture above which a method's cost is reported before the work begins.
const MANY_PASSES: f64 = 1000.0;

/// Sentences about methods that run the net very often per picture.
pub fn many_passes(methods: &[Named]) -> impl Iterator<Item = String> {
    let many = methods.iter().filter(|m| m.spec.base().is_some() && m.spec.passes() >= MANY_PASSES);
    many.map(|m| format!("{}: about {:.0} passes of the net for each map", m.id, m.spec.passes()))
}
