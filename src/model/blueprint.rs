//! Names and tensor shapes of well-known nets, and such nets with random weights, to measure speed without a file.
//!
//! The tensors are those that the family's `build` asks for when there is no file ([`Tensors::draft`]).

use std::sync::Arc;

use super::tensors::{Blueprint, Tensors, WeightFill};
use super::{ARCHITECTURES, Architecture, Model};
use crate::error::{Error, Result};
use crate::near;

/// Names of the nets with a blueprint.
pub fn known_nets() -> Vec<&'static str> {
    ARCHITECTURES.iter().flat_map(|family| (family.drafts)()).collect()
}

/// The family and the published name of the well-known net called `net`; case, `-`, `_` and spaces are ignored.
fn known(net: &str) -> Result<(&'static Architecture, &'static str)> {
    let nets = || ARCHITECTURES.iter().flat_map(|family| (family.drafts)().into_iter().map(move |name| (family, name)));
    near::find(net, nets().collect::<Vec<_>>().into_iter(), |(_, name)| [*name])
        .ok_or_else(|| Error::settings(format!("no net is named '{net}'; known are {}", known_nets().join(", "))))
}

/// The tensors of a well-known net, under their original names (torchvision, timm).
///
/// # Errors
/// When no net of that name is known; the message lists the known ones.
pub fn blueprint(net: &str) -> Result<Vec<Blueprint>> {
    let (family, net) = known(net)?;
    let mut tensors = Tensors::draft(net);
    (family.build)(&mut tensors)?;
    Ok(tensors.blueprint())
}

/// Uniform numbers in [−1, 1): SplitMix64 (Steele 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn draw(&mut self, fill: WeightFill) -> f32 {
        match fill {
            // A uniform number has a variance of a third.
            WeightFill::Spread(deviation) => self.next() * deviation * 3f32.sqrt(),
            // The sum of twelve has a variance of four and is close to normal; it needs no mathematical library.
            WeightFill::Normal(deviation) => (0..12).map(|_| self.next()).sum::<f32>() * deviation / 2.0,
            WeightFill::Around => 1.0 + 0.5 * self.next(),
        }
    }
}

impl Model {
    /// A well-known net with random weights (f32), to measure speed: activations stay of order one, the results mean
    /// nothing. Scales, shifts, means and variances of its norms are drawn as well. Equal seeds give equal weights.
    /// [`known_nets`] lists the names.
    ///
    /// # Errors
    /// When no net of that name is known.
    pub fn random(net: &str, seed: u64) -> Result<Self> {
        let (family, net) = known(net)?;
        let tensors = blueprint(net)?;
        let (mut header, mut bytes) = (serde_json::Map::new(), 0usize);
        for t in &tensors {
            let end = bytes + 4 * t.shape.iter().product::<usize>();
            let entry = serde_json::json!({ "dtype": "F32", "shape": t.shape, "data_offsets": [bytes, end] });
            header.insert(t.name.clone(), entry);
            bytes = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        // The numbers start at a multiple of 64 bytes.
        while !(8 + header.len()).is_multiple_of(64) {
            header.push(' ');
        }
        let mut file = Vec::with_capacity(8 + header.len() + bytes);
        file.extend_from_slice(&(header.len() as u64).to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        let mut uniform = SplitMix(seed);
        for t in &tensors {
            for _ in 0..t.shape.iter().product() {
                file.extend_from_slice(&uniform.draw(t.fill).to_le_bytes());
            }
        }
        Self::from_bytes(net, Arc::new(file), Some(family.name))
    }
}
