//! The kernels' text, and which kernels are made from which part of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::arguments;
use crate::error::{Error, Result};
use crate::text;

/// One translation unit: a file, what is defined for it, and the kernels in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TranslationUnit {
    /// Names the instantiation; unique.
    pub name: &'static str,
    /// In `kernels/`.
    pub file: &'static str,
    /// Macros and their values.
    pub defines: &'static [(&'static str, &'static str)],
    /// Names are unique among all units.
    pub kernels: &'static [Kernel],
}

/// One `__global__` function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As in the source.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// Texts of `kernels/`: those compiled into the library, or files of a folder in their place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    folder: Option<PathBuf>,
}

macro_rules! embedded {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../kernels/", $file)))),+]
    };
}

/// Files of `kernels/`.
pub(crate) const EMBEDDED: &[(&str, &str)] = embedded![
    "dialect.cuh",
    "mma.cuh",
    "conv.cu",
    "count.cu",
    "direct.cu",
    "first.cu",
    "functions.cuh",
    "last.cu",
    "move.cu",
    "patches.cu",
    "pointwise.cu",
    "pool.cu",
    "reduce.cu",
    "selftest.cu",
    "smooth.cu",
    "weights.cu",
];

/// Headers that units include, in the order in which they need each other; `arguments.cuh` is made.
pub(crate) const HEADERS: [&str; 4] = ["arguments.cuh", "dialect.cuh", "functions.cuh", "mma.cuh"];

impl Sources {
    /// Files of `folder` in place of the embedded ones that have their names.
    ///
    /// # Errors
    /// When it is no folder or holds none of the files.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        if EMBEDDED.iter().any(|(file, _)| folder.join(file).is_file()) {
            return Ok(Self { folder: Some(folder.to_path_buf()) });
        }
        let names: Vec<&str> = EMBEDDED.iter().map(|(file, _)| *file).collect();
        Err(Error::settings(format!("{}: no kernel is here; the files are {}", folder.display(), names.join(", "))))
    }

    /// Text of a file.
    ///
    /// # Errors
    /// When it cannot be read or there is none of this name.
    pub fn text(&self, file: &str) -> Result<Cow<'static, str>> {
        if file == "arguments.cuh" {
            return Ok(arguments::header().into());
        }
        if let Some(path) = self.folder.as_ref().map(|f| f.join(file)).filter(|p| p.is_file()) {
            return text::read(&path).map(Cow::from);
        }
        let known = EMBEDDED.iter().find(|(name, _)| *name == file);
        known
            .map(|(_, text)| Cow::from(*text))
            .ok_or_else(|| Error::settings(format!("there is no kernel file {file}")))
    }

    /// Names and texts of all headers.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn headers(&self) -> Result<Vec<(&'static str, Cow<'static, str>)>> {
        HEADERS.iter().map(|&name| Ok((name, self.text(name)?))).collect()
    }
}

/// Every unit there is.
pub(crate) const UNITS: &[&TranslationUnit] = &[
    &CONV_TF32X3,
    &CONV_TF32,
    &CONV_F16,
    &CONV_BF16,
    &CONV_TF32_WIDE,
    &CONV_F16_WIDE,
    &CONV_BF16_WIDE,
    &DIRECT,
    &FIRST,
    &LAST,
    &MOVE,
    &PATCHES,
    &POINTWISE,
    &POOL,
    &REDUCE,
    &SMOOTH,
    &WEIGHTS,
    &SELFTEST,
    &COUNT,
];

/// The unit that has `kernel`, and the kernel.
pub(crate) fn find(kernel: &str) -> Option<(&'static TranslationUnit, &'static Kernel)> {
    UNITS.iter().find_map(|unit| Some((*unit, unit.kernels.iter().find(|k| k.name == kernel)?)))
}

/// Kernels with 128 threads and no shared memory.
macro_rules! plain {
    ($($name:literal),+ $(,)?) => {
        &[$(Kernel { name: $name, threads: 128, shared_bytes: 0 }),+]
    };
}

/// Three stages of a square tile's rows and columns, of 16 numbers and four of padding each.
const fn conv_shared(tile: u32) -> u32 {
    3 * 2 * tile * 20 * 4
}

macro_rules! conv {
    ($unit:ident, $name:literal, $products:literal, $tile:literal, $rows:literal, $columns:literal, $blocks:literal) => {
        /// Convolutions on tensor cores.
        pub(crate) const $unit: TranslationUnit = TranslationUnit {
            name: $name,
            file: "conv.cu",
            defines: &[
                ("NAME", $name),
                ("PRODUCTS", $products),
                ("ROWS", $rows),
                ("COLUMNS", $columns),
                ("BLOCKS", $blocks),
            ],
            kernels: &[Kernel { name: $name, threads: 128, shared_bytes: conv_shared($tile) }],
        };
    };
}

conv!(CONV_TF32X3, "conv_tf32x3", "3", 64, "2", "4", "4");
conv!(CONV_TF32, "conv_tf32", "1", 64, "2", "4", "4");
conv!(CONV_F16, "conv_f16", "16", 64, "2", "4", "4");
conv!(CONV_BF16, "conv_bf16", "17", 64, "2", "4", "4");
conv!(CONV_TF32_WIDE, "conv_tf32_wide", "1", 128, "4", "8", "2");
conv!(CONV_F16_WIDE, "conv_f16_wide", "16", 128, "4", "8", "2");
conv!(CONV_BF16_WIDE, "conv_bf16_wide", "17", 128, "4", "8", "2");

macro_rules! unit {
    ($(#[$doc:meta])* $unit:ident, $name:literal, $kernels:expr) => {
        $(#[$doc])*
        pub(crate) const $unit: TranslationUnit =
            TranslationUnit { name: $name, file: concat!($name, ".cu"), defines: &[], kernels: $kernels };
    };
}

unit!(
    /// Convolutions as plain sums.
    DIRECT, "direct", plain!["conv_direct"]
);
unit!(
    /// Pixels of copies and the first layer; the tile's bytes depend on the layer.
    FIRST, "first", plain!["pixels", "conv_first"]
);
unit!(
    /// Statistics and the first layer's adjoint.
    LAST, "last", plain!["aggregate", "last"]
);
unit!(
    /// Moves between shapes.
    MOVE, "move", plain!["flatten", "unflatten", "move", "append"]
);
unit!(
    /// Patches moved through the first layer.
    PATCHES, "patches", &[
        Kernel { name: "largest_output", threads: 128, shared_bytes: 512 },
        Kernel { name: "move_patches", threads: 128, shared_bytes: 1024 + 16 },
    ]
);
unit!(
    /// Element by element.
    POINTWISE, "pointwise", plain![
        "add", "mul", "sub", "divide", "quotient", "ratio", "scale", "clamp", "gate", "fill", "inside",
    ]
);
unit!(
    /// Activations and their slopes.
    SMOOTH, "smooth", plain![
        "soft_clamp", "soft_clamp_slope", "sigmoid", "sigmoid_slope", "silu", "silu_slope", "hard_sigmoid",
        "hard_sigmoid_slope", "hard_swish", "hard_swish_slope", "hyperbolic_tangent", "tanh_slope", "gelu",
        "gelu_slope", "gelu_tanh", "gelu_tanh_slope", "leaky_relu", "leaky_relu_slope", "elu", "elu_slope",
        "softplus", "softplus_slope", "exponential", "exp_slope", "logarithm", "log_slope", "absolute", "abs_slope",
        "power", "power_slope",
    ]
);
unit!(
    /// Pools and their adjoints.
    POOL, "pool", plain![
        "max_pool", "prefer_winners", "max_pool_adjoint", "avg_pool", "avg_pool_adjoint", "adaptive_avg_pool",
        "adaptive_avg_pool_adjoint", "resample",
    ]
);
unit!(
    /// Sums, quantiles, scores.
    REDUCE, "reduce", &[
        Kernel { name: "spatial_mean", threads: 256, shared_bytes: 1024 },
        Kernel { name: "softmax", threads: 128, shared_bytes: 0 },
        Kernel { name: "standardise", threads: 128, shared_bytes: 512 },
        Kernel { name: "standardise_adjoint", threads: 128, shared_bytes: 512 },
        Kernel { name: "contract", threads: 128, shared_bytes: 512 },
        Kernel { name: "weighted_channel_sum", threads: 128, shared_bytes: 0 },
        Kernel { name: "above_quantile", threads: 256, shared_bytes: 1024 },
        Kernel { name: "head", threads: 256, shared_bytes: 2048 },
        Kernel { name: "not_finite", threads: 128, shared_bytes: 0 },
    ]
);
unit!(
    /// Gradients of weights.
    WEIGHTS, "weights", plain!["weight_adjoint"]
);
unit!(
    /// What is taken for granted of a device.
    SELFTEST, "selftest", &[
        Kernel { name: "fragments", threads: 32, shared_bytes: 0 },
        Kernel { name: "conversions", threads: 128, shared_bytes: 0 },
        Kernel { name: "long_sum", threads: 32, shared_bytes: 0 },
    ]
);
unit!(
    /// A kernel that counts, for tests of runtimes.
    COUNT, "count", plain!["count"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_every_file_is_there() {
        let mut kernels: Vec<&str> = UNITS.iter().flat_map(|u| u.kernels).map(|k| k.name).collect();
        let all = kernels.len();
        kernels.sort_unstable();
        kernels.dedup();
        assert_eq!(kernels.len(), all);
        for unit in UNITS {
            let text = Sources::default().text(unit.file).unwrap();
            assert!(unit.defines.iter().all(|(name, _)| text.contains(name)), "{}", unit.file);
        }
    }
}
