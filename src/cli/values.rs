//! Values of options: sizes, shards, devices, kernels.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};

use crate::device::cpu::Kernels;
use crate::engine::DeviceChoice;
use crate::graph::Link;

/// The words that an option accepts: each with its help text and its meaning.
#[derive(Clone, Copy)]
pub struct OneOf<T: 'static>(pub &'static [(&'static str, &'static str, T)]);

impl<T: Clone + Send + Sync> TypedValueParser for OneOf<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, typed: &OsStr) -> Result<T, clap::Error> {
        let words = PossibleValuesParser::new(self.possible_values().into_iter().flatten());
        let word = words.parse_ref(command, arg, OsStr::new(&*typed.to_string_lossy()))?;
        let chosen = self.0.iter().find(|(name, ..)| *name == word);
        chosen.map(|(.., meant)| meant.clone()).ok_or_else(|| clap::Error::new(ErrorKind::InvalidValue))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(|(name, help, _)| match *help {
            "" => PossibleValue::new(*name),
            help => PossibleValue::new(*name).help(help),
        })))
    }
}

/// Crop of the prepared picture and, when given, the short side before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropSize {
    /// Short side before the crop.
    pub resize: Option<usize>,
    /// Rows and columns.
    pub crop: [usize; 2],
}

impl CropSize {
    /// From `N`, `HxW`, `RESIZE:N` or `RESIZE:HxW`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |t: &str| match t.parse::<usize>() {
            Ok(n) if (1..=1 << 14).contains(&n) => Ok(n),
            _ => Err(format!("'{t}' is not a size from 1 to {}", 1 << 14)),
        };
        let (resize, crop) = match text.split_once(':') {
            Some((resize, crop)) => (Some(number(resize)?), crop),
            None => (None, text),
        };
        let crop = match crop.split_once('x') {
            Some((h, w)) => [number(h)?, number(w)?],
            None => [number(crop)?; 2],
        };
        Ok(Self { resize, crop })
    }
}

/// A number of bytes: `4096`, `512MiB`, `1.5GB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("'{unit}' is not a unit of bytes; use B, KiB, MiB, GiB, KB, MB or GB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is not a size such as 512MiB"))?;
    let bytes = number * factor as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("'{text}' is not a positive number of bytes"))
    }
}

/// `auto`, `cpu`, `cuda`, `cuda:1`.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse().map_err(|e: crate::Error| e.to_string())
}

/// `auto`, `avx512`, `avx2`, `portable`.
pub fn kernels(text: &str) -> Result<Kernels, String> {
    text.parse().map_err(|e: crate::Error| e.to_string())
}

/// `relu`, `linear`.
pub fn estimator(text: &str) -> Result<crate::method::patterns::Estimator, String> {
    text.parse().map_err(|e: crate::Error| e.to_string())
}

/// A percentile in the upper half.
pub fn percentile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (50.0..=100.0).contains(&p) => Ok(p),
        _ => Err(format!("'{text}' is not a percentile from 50 to 100")),
    }
}

/// A count that is not zero.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| format!("'{text}' is not a whole number of at least 1"))
}

/// How logits become probabilities.
pub fn head(text: &str) -> Result<Link, String> {
    let known = [Link::Softmax, Link::Sigmoid];
    let found = known.into_iter().find(|link| link.name() == text);
    found.ok_or_else(|| format!("'{text}' is no head; there are softmax and sigmoid"))
}

/// Calls that are timed at most: their times, and in a profile all their steps, are kept.
const MOST_CALLS: usize = 10_000;

/// A number of calls to time.
pub fn calls(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MOST_CALLS).contains(&n) => Ok(n),
        _ => Err(format!("'{text}' is not a number of calls from 1 to {MOST_CALLS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded() {
        assert_eq!((calls("1"), calls("10000")), (Ok(1), Ok(10_000)));
        assert!(["0", "10001", "-1", "1e3", "1000000000000000000", ""].iter().all(|t| calls(t).is_err()));
    }

    #[test]
    fn sizes_of_memory() {
        for (text, want) in [("512MiB", 512 << 20), ("1GB", 1_000_000_000), ("4096", 4096), ("1.5k", 1536)] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "MiB", "0", "-1", "12 parsecs", "1e400", "NaN"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn crops() {
        assert_eq!(CropSize::parse("256:224"), Ok(CropSize { resize: Some(256), crop: [224; 2] }));
        assert_eq!(CropSize::parse("96x128"), Ok(CropSize { resize: None, crop: [96, 128] }));
        assert!(CropSize::parse("0").is_err() && CropSize::parse("9x").is_err());
    }

    #[test]
    fn devices() {
        assert_eq!(device("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        assert!(device("cuda:x").is_err() && device("tpu").is_err());
    }
}
