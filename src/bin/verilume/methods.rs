//! Methods made ready, and fingerprints of what results depend on.

use std::cell::RefCell;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest, Sha256};
use verilume::error::read_file;
use verilume::image::Preprocess;
use verilume::method::{Context, Method};
use verilume::program::Score;

use crate::items;
use crate::plan::Named;
use crate::said::Noticed;

/// A method that can run.
pub struct Built {
    pub method: Box<dyn Method>,
    /// Hash of the files that its parameters name.
    pub files: String,
}

/// Builds `methods`, in order, and what is to be said of the files that their parameters name.
pub fn build(methods: &[Named], seed: u64, score: Score, preprocess: &Preprocess) -> Result<(Vec<Built>, Noticed)> {
    // What a parameter's file holds counts, not its name.
    let loaded = RefCell::new(Sha256::new());
    let noticed = RefCell::default();
    let load = |path: &Path| {
        let tensor = items::load(path, preprocess, &noticed)?;
        let mut hash = loaded.borrow_mut();
        hash.update(format!("{:?}", tensor.dims()));
        tensor.to_f64().iter().for_each(|v| hash.update(v.to_le_bytes()));
        Ok(tensor)
    };
    let context = Context { seed, score, preprocess, load: &load };
    let mut built = Vec::new();
    for named in methods {
        let method = named.spec.build(&context).map_err(|e| e.within(format!("-m {}", named.spec)))?;
        // A file that the method itself reads counts too.
        if let Ok(path) = named.spec.values().text("patterns") {
            loaded.borrow_mut().update(read_file(Path::new(path))?);
        }
        built.push(Built { method, files: hex(&loaded.take().finalize()) });
    }
    Ok((built, noticed.into_inner()))
}

/// Hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// 16 digits that differ where `settings` do.
pub fn fingerprint(settings: &serde_json::Value) -> String {
    hex(&Sha256::digest(settings.to_string().as_bytes())[..8])
}
