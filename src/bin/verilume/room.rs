//! How much memory inputs may take before the engine sees them: what `--memory` allows, and what there is.

use std::path::Path;
use std::sync::OnceLock;

use verilume::image::{DecodeLimits, Picture, Preprocess};
use verilume::memory::Memory;
use verilume::{Error, ErrorKind, Result};

/// What `--memory` said.
static ALLOWED: OnceLock<u64> = OnceLock::new();
/// Who bounds an input where `--memory` does not.
const MACHINE: &str = "this machine has left";
/// What is taken without a question.
const LITTLE: u64 = 1 << 20;

/// Remembers what `--memory` says, for the rest of the process.
pub fn allow(bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        // The options are read once.
        let _ = ALLOWED.set(bytes);
    }
}

/// Bytes that an input may take, and who says so.
fn room() -> (u64, &'static str) {
    // As the engine does, a fifth is left to others.
    let left = Memory::now().left().map_or(u64::MAX, |left| left / 5 * 4);
    match ALLOWED.get() {
        Some(&allowed) if allowed <= left => (allowed, "--memory allows"),
        _ => (left, MACHINE),
    }
}

/// Refuses what takes more than there is.
///
/// # Errors
/// Limit, naming `what` and what bounds it.
pub fn check(what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
    if bytes <= LITTLE {
        return Ok(());
    }
    match room() {
        (room, says) if bytes > room => {
            Err(Error::limit(format!("{}: {} do not fit into the {} that {says}", what(), size(bytes), size(room))))
        }
        _ => Ok(()),
    }
}

/// The picture at `path`. What it may cost follows `--memory`; without it the library's limits hold, and what there is.
///
/// # Errors
/// As [`Picture::open`]; where a limit is exceeded, naming the option that sets it, or what there is where that is less.
pub fn open_picture(path: &Path) -> Result<Picture> {
    let (limits, why) = limits(room(), ALLOWED.get().is_some());
    Picture::open(path, &limits).map_err(|e| match e.kind() {
        ErrorKind::Limit => Error::limit(format!("{e}; {why}")),
        _ => e,
    })
}

/// What a picture may cost within what `says` bounds, and what there is to say where that is exceeded.
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

/// Refuses a preparation whose inputs take more than there is.
///
/// # Errors
/// As [`check`].
pub fn check_prepared(preprocess: &Preprocess) -> Result<()> {
    let [channels, height, width] = preprocess.dims().map(|n| n as u64);
    // Beside the numbers there are the resized levels, their planes, and the picture that maps are drawn over.
    let bytes = height.saturating_mul(width).saturating_mul(6 * channels + 3);
    check(|| format!("an input of {height}x{width} pixels"), bytes)
}

/// Bytes as people write them.
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
        // More was allowed than there is.
        assert_eq!(said(2 * gib, MACHINE, true), (2 * gib, "this machine has left 2.0 GiB".into()));
    }
}
