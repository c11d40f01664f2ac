//! The kernels seen from outside: which there are, their text, and what a compiler makes of them.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::nvrtc::{Nvrtc, options};
use super::source::{EMBEDDED, Sources, TranslationUnit, UNITS};
use crate::error::{Error, Result};

/// What kernels are compiled for when nothing else is asked: one of each generation that they know.
pub const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100a"];

/// A kernel instantiation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name; unique.
    pub kernel: &'static str,
    /// The translation unit that has it.
    pub unit: &'static str,
    /// The unit's file.
    pub file: &'static str,
    /// Macros and their values.
    pub defines: &'static [(&'static str, &'static str)],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory beyond what the kernel itself declares. The first layer's depend on the layer.
    pub shared_bytes: u32,
}

/// What the compiler says of a kernel for one architecture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Built {
    /// As in [`Listed`].
    pub kernel: &'static str,
    /// Such as `sm_90a`.
    pub arch: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory of a block, static and dynamic.
    pub shared_bytes: u32,
    /// What a thread writes and reads back since registers are too few.
    pub spill_bytes: u32,
    /// Local memory of a thread.
    pub stack_bytes: u32,
    /// As in [`Listed`].
    pub unit: &'static str,
    /// What the whole unit took.
    pub seconds: f64,
}

/// Every kernel, unit by unit.
pub fn list() -> Vec<Listed> {
    let of_unit = |unit: &&'static TranslationUnit| {
        let &&TranslationUnit { name, file, defines, kernels } = unit;
        kernels.iter().map(move |k| Listed {
            kernel: k.name,
            unit: name,
            file,
            defines,
            threads: k.threads,
            shared_bytes: k.shared_bytes,
        })
    };
    UNITS.iter().flat_map(of_unit).collect()
}

/// Names of all units.
pub fn units() -> Vec<&'static str> {
    UNITS.iter().map(|unit| unit.name).collect()
}

fn unit(name: &str) -> Result<&'static TranslationUnit> {
    let known = UNITS.iter().find(|unit| unit.name == name);
    known
        .copied()
        .ok_or_else(|| Error::settings(format!("no unit is named '{name}'; there are {}", units().join(", "))))
}

fn sources(folder: Option<&Path>) -> Result<Sources> {
    folder.map_or_else(|| Ok(Sources::default()), Sources::of_folder)
}

/// Names and texts of the files of `kernels/`, to be edited.
pub fn files() -> &'static [(&'static str, &'static str)] {
    EMBEDDED
}

/// Everything that the compiler is given for a unit: options, headers in the order in which they need each other (made ones
/// too), and the file itself. Files of `folder` stand in place of the built-in ones.
///
/// # Errors
/// When there is no such unit, or a file cannot be read.
pub fn source(name: &str, folder: Option<&Path>) -> Result<String> {
    let (unit, sources) = (unit(name)?, sources(folder)?);
    let mut text = format!("// {}: {}\n", unit.name, options(unit, ARCHITECTURES[0]).join(" "));
    let own = (unit.file, sources.text(unit.file)?);
    for (file, part) in sources.headers()?.into_iter().chain([own]) {
        text.push_str(&format!("\n// ==== {file}\n{part}"));
    }
    Ok(text)
}

/// NVRTC with kernels to compile.
#[derive(Debug)]
pub struct Compiler {
    nvrtc: Nvrtc,
    sources: Sources,
}

impl Compiler {
    /// The compiler that a device would use; files of `folder` in place of the built-in ones.
    ///
    /// # Errors
    /// When there is no NVRTC, or no kernel in the folder.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        let sources = sources(folder)?;
        Ok(Self { nvrtc: Nvrtc::open(None)?, sources })
    }

    /// CUDA version `[major, minor]`.
    pub fn version(&self) -> [i32; 2] {
        self.nvrtc.version()
    }

    /// Compiles a unit for an architecture such as `sm_90a`, always anew.
    ///
    /// # Errors
    /// When there is no such unit, it does not compile, or the compiler does not tell of every kernel.
    pub fn compile(&self, name: &str, arch: &str) -> Result<Vec<Built>> {
        let unit = unit(name)?;
        let start = Instant::now();
        let compiled = self.nvrtc.compile(unit, &self.sources, arch)?;
        let seconds = start.elapsed().as_secs_f64();
        let told = |kernel: &'static str| compiled.kernels.iter().find(|k| k.kernel == kernel);
        let built = unit.kernels.iter().map(|k| {
            let found = told(k.name).ok_or_else(|| {
                Error::kernel(format!("{name} for {arch}: the compiler says nothing of {}\n{}", k.name, compiled.log))
            })?;
            Ok(Built {
                kernel: k.name,
                arch: arch.into(),
                registers: found.registers,
                shared_bytes: found.shared_bytes + k.shared_bytes,
                spill_bytes: found.spill_stores_bytes + found.spill_loads_bytes,
                stack_bytes: found.stack_bytes,
                unit: unit.name,
                seconds,
            })
        });
        built.collect()
    }
}
