//! From options to an engine, and what results say of it.

use anyhow::{Result, bail};

use crate::cli::args::ResourceArgs;
use crate::cli::talk::{InputProgress, Voice};
use crate::device::Products;
use crate::device::cpu::Kernels;
use crate::engine::{DeviceChoice, Engine, Settings};
use crate::run::{Listener, precision_name};
use crate::tensor::Precision;
use crate::{Error, ErrorKind};

/// The engine's settings; refuses what contradicts itself.
pub fn settings(args: &ResourceArgs, threads: Option<usize>) -> Result<Settings> {
    let (precision, products) = args.precision;
    if args.kernels != Kernels::Auto && !matches!(args.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        bail!("--kernels chooses vector instructions of the CPU; leave --device at auto or cpu");
    }
    let settings = Settings {
        device: args.device,
        kernels: args.kernels,
        precision,
        products,
        threads,
        memory: args.memory,
        convolution: args.convolution,
        kernel_dir: args.kernel_dir.clone(),
    };
    let name = precision_name(&settings);
    match args.device {
        DeviceChoice::Cpu if products != Products::F32 => {
            bail!("--precision {name} needs a CUDA device; on the CPU there are f32 and f64")
        }
        DeviceChoice::Cuda(_) | DeviceChoice::Emulated(_) if precision == Precision::F64 => {
            bail!("--precision f64 is computed on the CPU only; leave --device at auto or cpu")
        }
        _ => {}
    }
    let on_cpu = args.device == DeviceChoice::Cpu || precision == Precision::F64;
    if let (Some(dir), true) = (&args.kernel_dir, on_cpu) {
        bail!(
            "--kernel-dir {}: these are kernels of a GPU, and the CPU computes; use --device cuda or emulated",
            dir.display()
        );
    }
    Ok(settings)
}

/// The engine; says why it is not on a GPU where one would be expected.
pub fn open(settings: &Settings, voice: Voice) -> Result<Engine> {
    let engine = Engine::new(settings).map_err(|e| match settings.device {
        DeviceChoice::Cuda(index) if e.kind() == ErrorKind::NoDevice => missing(index).unwrap_or(e),
        DeviceChoice::Emulated(_) => e.within("--device emulated"),
        _ => e,
    })?;
    if let Some(why) = engine.fallback() {
        InputProgress::new(voice).say(&format!("computing on the CPU: {why}"));
    }
    Ok(engine)
}

/// Everything that a GPU lacks to be used.
#[cfg(feature = "cuda")]
fn missing(index: usize) -> Option<Error> {
    let why = crate::device::cuda::probe().missing(index)?;
    Some(Error::no_device(format!("--device cuda:{index}: {why}")))
}

#[cfg(not(feature = "cuda"))]
fn missing(_: usize) -> Option<Error> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: (Precision, Products) = (Precision::F32, Products::F32);
    const F64: (Precision, Products) = (Precision::F64, Products::F32);

    fn resources(device: DeviceChoice, precision: (Precision, Products)) -> ResourceArgs {
        let convolution = Default::default();
        ResourceArgs { device, memory: None, precision, convolution, kernels: Kernels::Auto, kernel_dir: None, seed: 0 }
    }

    #[test]
    fn precisions_belong_to_devices() {
        use DeviceChoice::{Auto, Cpu, Cuda, Emulated};
        let [tf32, bf16, f16] = [Products::Tf32, Products::Bf16, Products::F16].map(|p| (Precision::F32, p));
        for (device, precision, name) in [
            (Auto, F32, Some("f32")),
            (Auto, F64, Some("f64")),
            (Auto, tf32, Some("tf32")),
            (Cpu, F64, Some("f64")),
            (Cpu, f16, None),
            (Cpu, bf16, None),
            (Cuda(1), F64, None),
            (Emulated(3), F64, None),
            (Emulated(3), bf16, Some("bf16")),
            (Cuda(0), f16, Some("f16")),
        ] {
            let got = settings(&resources(device, precision), Some(1));
            assert_eq!(got.as_ref().ok().map(precision_name), name, "{device:?} {precision:?}");
        }
    }

    #[test]
    fn kernels_of_a_gpu_are_not_for_the_cpu_nor_the_other_way_round() {
        let with_dir =
            |device, precision| ResourceArgs { kernel_dir: Some("kernels".into()), ..resources(device, precision) };
        assert!(settings(&with_dir(DeviceChoice::Cpu, F32), None).is_err());
        assert!(settings(&with_dir(DeviceChoice::Auto, F64), None).is_err());
        assert!(settings(&with_dir(DeviceChoice::Emulated(0), F32), None).is_ok());
        let emulated = resources(DeviceChoice::Emulated(0), F32);
        assert!(settings(&emulated, None).is_ok());
        assert!(settings(&ResourceArgs { kernels: Kernels::Avx2, ..emulated }, None).is_err());
    }
}
