//! The memory that inputs may take before the engine sees them: a given bound, and what the machine has.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{DecodeLimits, Picture, Preprocess};
use crate::memory::Memory;

/// Names the bound on an input when no option sets one.
const MACHINE: &str = "this machine has left";
/// Bytes that are always allowed.
const LITTLE: u64 = 1 << 20;

/// The memory bound on inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes allowed; if not given, what the machine has left.
    pub allowed: Option<u64>,
}

impl Room {
    /// Bytes that an input may take, and what sets this bound.
    fn bytes(self) -> (u64, &'static str) {
        // As in the engine, a fifth is left to other processes.
        let left = Memory::now().left().map_or(u64::MAX, |left| left / 5 * 4);
        match self.allowed {
            Some(allowed) if allowed <= left => (allowed, "--memory allows"),
            _ => (left, MACHINE),
        }
    }

    /// Refuses anything that needs more.
    ///
    /// # Errors
    /// Limit; the message names `what` and the bound.
    pub fn check(self, what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
        if bytes <= LITTLE {
            return Ok(());
        }
        match self.bytes() {
            (room, says) if bytes > room => {
                Err(Error::limit(format!("{}: {} do not fit into the {} that {says}", what(), size(bytes), size(room))))
            }
            _ => Ok(()),
        }
    }

    /// Opens the picture at `path`. The decoding limits follow the bound; without one, the library's limits and the
    /// available memory hold.
    ///
    /// # Errors
    /// As [`Picture::open`]. If a limit is exceeded, the message names the option that sets it, or the available memory
    /// if that is less.
    pub fn open_picture(self, path: &Path) -> Result<Picture> {
        let (limits, why) = limits(self.bytes(), self.allowed.is_some());
        Picture::open(path, &limits).map_err(|e| match e.kind() {
            ErrorKind::Limit => Error::limit(format!("{e}; {why}")),
            _ => e,
        })
    }

    /// Refuses a preparation whose inputs exceed the bound.
    ///
    /// # Errors
    /// As [`Room::check`].
    pub fn check_prepared(self, preprocess: &Preprocess) -> Result<()> {
        let [channels, height, width] = preprocess.dims().map(|n| n as u64);
        // Besides the numbers, the resized levels, their planes and the picture under the maps are in memory.
        let bytes = height.saturating_mul(width).saturating_mul(6 * channels + 3);
        self.check(|| format!("an input of {height}x{width} pixels"), bytes)
    }
}

/// The decoding limits within a bound, and what to say when they are exceeded.
fn limits((bytes, says): (u64, &str), allowed: bool) -> (DecodeLimits, String) {
    let room = bytes.max(LITTLE);
    let short = says == MACHINE && (allowed || room < DecodeLimits::default().decoded_bytes);
    let limits = match allowed {
        true => {
            let any = usize::MAX;
            DecodeLimits { width: any, height: any, pixels: u64::MAX, decoded_bytes: room, file_bytes: room }
        }
        false => {
            let usual = DecodeLimits::default();
            let [decoded_bytes, file_bytes] = [usual.decoded_bytes, usual.file_bytes].map(|bytes| bytes.min(room));
            DecodeLimits { decoded_bytes, file_bytes, ..usual }
        }
    };
    (limits, if short { format!("{MACHINE} {}", size(room)) } else { "--memory SIZE sets it".to_owned() })
}

/// Bytes in human-readable form.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sets_a_limit_is_said() {
        let gib = 1 << 30;
        let usual = DecodeLimits::default();
        let said = |bytes, says, allowed| {
            let (limits, why) = limits((bytes, says), allowed);
            (limits.decoded_bytes, why)
        };
        let option = "--memory SIZE sets it".to_owned();
        assert_eq!(said(8 * gib, MACHINE, false), (usual.decoded_bytes, option.clone()));
        assert_eq!(said(gib / 4, MACHINE, false), (gib / 4, "this machine has left 256.0 MiB".into()));
        assert_eq!(said(8 * gib, "--memory allows", true), (8 * gib, option));
        // More was allowed than is available.
        assert_eq!(said(2 * gib, MACHINE, true), (2 * gib, "this machine has left 2.0 GiB".into()));
    }
}
