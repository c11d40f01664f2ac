//! `verilume kernels`: the kernels of the GPU, listed, compiled, written out, tested and timed.

mod cases;
mod compile;
mod grad;
mod measure;
mod perf;
mod test;

use anyhow::{Result, bail};

use crate::cli::args::ResourceArgs;
use crate::cli::args::kernels::{KernelDeviceArgs, KernelsArgs, KernelsCommand, ListArgs, SourceArgs};
use crate::cli::computing;
use crate::cli::exit::ExitCode;
use crate::cli::tables::table;
use crate::cli::talk::{StandardOutput, say};
use crate::device::cuda::kernels;
use crate::engine::{DeviceChoice, Settings};
use crate::tensor::Precision;

/// Something did not compile, or is wrong.
const SOME_FAILED: u8 = 1;

/// Runs the command.
pub fn run(args: &KernelsArgs) -> Result<ExitCode> {
    match &args.command {
        KernelsCommand::List(args) => list(args).map(|()| ExitCode::SUCCESS),
        KernelsCommand::Source(args) => source(args).map(|()| ExitCode::SUCCESS),
        KernelsCommand::Compile(args) => compile::run(args),
        KernelsCommand::Test(args) => test::run(args),
        KernelsCommand::Grad(args) => grad::run(args),
        KernelsCommand::Perf(args) => perf::run(args).map(|()| ExitCode::SUCCESS),
    }
}

fn list(args: &ListArgs) -> Result<()> {
    let mut answer = StandardOutput::default();
    let all = kernels::list();
    if args.json {
        for kernel in &all {
            answer.line(&serde_json::to_string(kernel)?)?;
        }
        return Ok(());
    }
    let rows = all.iter().map(|k| {
        let defines: Vec<String> = k.defines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let [threads, shared] = [k.threads, k.shared_bytes].map(|n| n.to_string());
        [k.kernel.into(), k.unit.into(), k.file.into(), defines.join(" "), threads, shared]
    });
    Ok(answer.line(&table(["kernel", "unit", "file", "defines", "threads", "shared bytes"], rows, 4))?)
}

fn source(args: &SourceArgs) -> Result<()> {
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).map_err(|e| crate::Error::io(out, e))?;
        for (name, text) in kernels::files() {
            let path = out.join(name);
            let file = std::fs::File::create_new(&path).map_err(|e| crate::Error::io(&path, e))?;
            std::io::Write::write_all(&mut { file }, text.as_bytes()).map_err(|e| crate::Error::io(&path, e))?;
        }
        say(&format!("{} files in {}", kernels::files().len(), out.display()));
        return Ok(());
    }
    let wanted: Vec<String> = args.unit.iter().cloned().collect();
    let mut answer = StandardOutput::default();
    for unit in units(&wanted)? {
        answer.line(kernels::source(unit, args.kernel_dir.as_deref())?.trim_end())?;
    }
    Ok(())
}

/// Units that are named or have a kernel that is; all if none is named.
fn units(names: &[String]) -> Result<Vec<&'static str>> {
    let all = kernels::list();
    if let Some(name) = names.iter().find(|n| !all.iter().any(|k| k.kernel == n.as_str() || k.unit == n.as_str())) {
        bail!("no kernel or unit is named '{name}'; `verilume kernels list` names them");
    }
    let mut units = kernels::units();
    units.retain(|unit| {
        let wanted = |k: &kernels::Listed| names.iter().any(|n| n == k.kernel || n == k.unit);
        names.is_empty() || all.iter().any(|k| k.unit == *unit && wanted(k))
    });
    Ok(units)
}

/// Settings of the device under test.
fn settings(on: &KernelDeviceArgs) -> Result<Settings> {
    if !matches!(on.device, DeviceChoice::Cuda(_) | DeviceChoice::Emulated(_)) {
        bail!("--device: kernels of a GPU are tried on emulated, cuda or cuda:i");
    }
    if on.precision.0 == Precision::F64 {
        bail!("--precision f64: a GPU multiplies in f32, tf32, bf16 or f16");
    }
    let resources = ResourceArgs {
        device: on.device,
        memory: None,
        precision: on.precision,
        convolution: Default::default(),
        kernels: Default::default(),
        kernel_dir: on.kernel_dir.clone(),
        seed: 0,
    };
    computing::settings(&resources, None)
}
