//! From settings to a device.

use super::{DeviceChoice, Settings};
use crate::device::cpu::Kernels;
use crate::device::{Device, Products, cpu};
use crate::error::{Error, Result};
use crate::tensor::Precision;

impl Settings {
    /// The reference settings: double precision on the CPU.
    pub fn twin(&self) -> Settings {
        Settings {
            device: DeviceChoice::Cpu,
            precision: Precision::F64,
            kernels: Kernels::Auto,
            products: Products::F32,
            kernel_dir: None,
            ..self.clone()
        }
    }
}

/// A device, and how it was chosen.
pub(super) struct OpenedDevice {
    pub device: Box<dyn Device>,
    /// Why the apparent GPU is not used.
    pub fallback: Option<String>,
    /// Whether it uses host memory.
    pub on_host: bool,
}

/// Opens the device that `settings` ask for.
pub(super) fn open(settings: &Settings) -> Result<OpenedDevice> {
    match settings.device {
        DeviceChoice::Cpu => cpu_only(settings, None),
        DeviceChoice::Auto => auto(settings),
        DeviceChoice::Cuda(index) => cuda(settings, index),
        DeviceChoice::Emulated(seed) => emulated(settings, seed),
    }
}

fn cpu_only(settings: &Settings, fallback: Option<String>) -> Result<OpenedDevice> {
    if settings.products != Products::F32 {
        let why = fallback.map_or_else(String::new, |why| format!(" ({why})"));
        return Err(Error::no_device(format!("tf32, bf16 and f16 are computed on CUDA devices only{why}")));
    }
    if let Some(dir) = &settings.kernel_dir {
        let why = fallback.map_or_else(String::new, |why| format!(" ({why})"));
        return Err(Error::settings(format!("{}: kernels of a GPU, and the CPU computes{why}", dir.display())));
    }
    let device = cpu::open(settings.precision, settings.kernels, settings.convolution, settings.threads)?;
    Ok(OpenedDevice { device, fallback, on_host: true })
}

#[cfg(feature = "cuda")]
mod with_cuda {
    use super::{OpenedDevice, Settings, cpu_only};
    use crate::device::cpu::Kernels;
    use crate::device::cuda::{self, Wish};
    use crate::error::{Error, Result};
    use crate::tensor::Precision;

    fn wish(settings: &Settings) -> Wish<'_> {
        Wish {
            products: settings.products,
            convolution: settings.convolution,
            kernel_dir: settings.kernel_dir.as_deref(),
            threads: settings.threads,
        }
    }

    fn single(settings: &Settings) -> Result<()> {
        match settings.precision {
            Precision::F32 => Ok(()),
            Precision::F64 => Err(Error::settings("double precision is computed on the CPU only")),
        }
    }

    pub fn cuda(settings: &Settings, index: usize) -> Result<OpenedDevice> {
        single(settings)?;
        Ok(OpenedDevice { device: cuda::open(index, &wish(settings))?, fallback: None, on_host: false })
    }

    pub fn emulated(settings: &Settings, seed: u64) -> Result<OpenedDevice> {
        single(settings)?;
        Ok(OpenedDevice { device: cuda::open_emulated(seed, &wish(settings))?, fallback: None, on_host: true })
    }

    pub fn auto(settings: &Settings) -> Result<OpenedDevice> {
        // An option that only a CPU supports selects the CPU.
        if settings.precision == Precision::F64 || settings.kernels != Kernels::Auto {
            return cpu_only(settings, None);
        }
        match cuda::usable(0) {
            Ok(()) => match cuda(settings, 0) {
                Ok(opened) => Ok(opened),
                Err(e) => cpu_only(settings, Some(e.to_string())),
            },
            Err(why) => cpu_only(settings, why),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod with_cuda {
    use super::{OpenedDevice, Settings, cpu_only};
    use crate::error::{Error, Result};

    pub fn cuda(_: &Settings, _: usize) -> Result<OpenedDevice> {
        Err(Error::no_device(
            "this build has no CUDA (feature `cuda` is off); `--device cpu` or `auto` computes on the CPU",
        ))
    }

    pub fn emulated(_: &Settings, _: u64) -> Result<OpenedDevice> {
        Err(Error::no_device("this build has no CUDA kernels (feature `cuda` is off)"))
    }

    pub fn auto(settings: &Settings) -> Result<OpenedDevice> {
        cpu_only(settings, None)
    }
}

use with_cuda::{auto, cuda, emulated};
