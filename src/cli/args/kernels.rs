//! Options of `verilume kernels`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::values::{self, CropSize};
use crate::device::Products;
use crate::tensor::Precision;

/// List, compile and test the kernels of the GPU; no GPU is needed
#[derive(Debug, Args)]
pub struct KernelsArgs {
    #[command(subcommand)]
    pub command: KernelsCommand,
}

#[derive(Debug, Subcommand)]
pub enum KernelsCommand {
    List(ListArgs),
    Compile(CompileArgs),
    Source(SourceArgs),
    Test(TestArgs),
    Grad(TestArgs),
    Perf(PerfArgs),
}

/// List every kernel with its unit, file, macros, threads and shared memory
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Compile kernels with NVRTC and show their registers, shared memory and spills
#[derive(Debug, Args)]
#[command(after_help = COMPILE_EXAMPLES)]
pub struct CompileArgs {
    /// Architecture, such as sm_90a; may repeat [default: sm_80, sm_90a, sm_100a]
    #[arg(long, value_name = "ARCH")]
    pub arch: Vec<String>,

    /// Kernel or unit; may repeat [default: all]
    #[arg(long, value_name = "NAME")]
    pub kernel: Vec<String>,

    /// Fail where a kernel spills or needs more registers than the table of budgets allows
    #[arg(long)]
    pub check: bool,

    /// Write the measured values as a table of budgets
    #[arg(long, value_name = "FILE")]
    pub write_budget: Option<PathBuf>,

    /// Print one JSON object a line instead of a table
    ///
    /// Keys: kernel, arch, registers, shared_bytes (of a block, static and dynamic), spill_bytes, stack_bytes (of a
    /// thread), unit, seconds (of the whole unit). For a unit that does not compile: unit, arch, error.
    #[arg(long)]
    pub json: bool,

    /// Folder of CUDA kernels that replace the built-in kernels of the same names
    #[arg(long, value_name = "DIR")]
    pub kernel_dir: Option<PathBuf>,
}

const COMPILE_EXAMPLES: &str = "Examples:
  verilume kernels compile --arch sm_90a --kernel conv_tf32x3
  verilume kernels compile --check
  verilume kernels compile --kernel-dir mine --json

Exit code: 0 all compiled, 1 some did not or are above their budget, 2 wrong usage or no NVRTC.";

/// Print the compiler's input for a unit, or write all files for editing
#[derive(Debug, Args)]
#[command(after_help = SOURCE_EXAMPLES)]
pub struct SourceArgs {
    /// Unit, or a kernel in it [default: all units]
    #[arg(value_name = "UNIT")]
    pub unit: Option<String>,

    /// Write all kernel files into this folder, for --kernel-dir
    #[arg(long, value_name = "DIR", conflicts_with = "unit")]
    pub out: Option<PathBuf>,

    /// Folder of CUDA kernels that replace the built-in kernels of the same names
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub kernel_dir: Option<PathBuf>,
}

const SOURCE_EXAMPLES: &str = "Examples:
  verilume kernels source pool
  verilume kernels source --out mine
  verilume kernels test --kernel-dir mine --filter pool";

/// On what kernels are tried.
#[derive(Debug, Args)]
pub struct KernelDeviceArgs {
    /// emulated, cuda or cuda:i
    #[arg(long, value_name = "DEVICE", default_value = "emulated", value_parser = values::device)]
    pub device: crate::engine::DeviceChoice,

    /// How tensor cores multiply: f32, tf32, bf16 or f16
    #[arg(long, value_parser = super::PRECISIONS, value_name = "P", default_value = "f32")]
    pub precision: (Precision, Products),

    /// Folder of CUDA kernels that replace the built-in kernels of the same names
    #[arg(long, value_name = "DIR")]
    pub kernel_dir: Option<PathBuf>,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Compare kernels with the CPU in double precision, case by case
///
/// First on small integers, where results must be equal, then on reals, where they must lie within the rounding error
/// of their sums. `grad` checks instead that each adjoint is the transpose of its operation, and that each gradient is
/// the slope of the double-precision twin.
#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub struct TestArgs {
    #[command(flatten)]
    pub on: KernelDeviceArgs,

    /// Only cases whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,

    /// Emulated device: number of thread orders to test
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "2")]
    pub seeds: usize,
}

const TEST_EXAMPLES: &str = "Examples:
  verilume kernels test --filter pool
  verilume kernels test --device cuda --precision f16
  verilume kernels grad --filter 'conv 3x3'

Exit code: 0 all passed, 1 some failed, 2 wrong usage or no device.";

/// Time the convolutions of a net, forward and backward
///
/// Computes a gradient of a net with random weights on noise. GFLOP/s count the operations of the definition, for every
/// kernel.
#[derive(Debug, Args)]
pub struct PerfArgs {
    #[command(flatten)]
    pub on: KernelDeviceArgs,

    /// The net, such as resnet50, vgg16 or resnet20
    #[arg(long, value_name = "NET", default_value = "resnet50")]
    pub layers: String,

    /// Input size, N or HxW [default: the net's]
    #[arg(long, value_name = "SIZE", value_parser = CropSize::parse)]
    pub size: Option<CropSize>,

    /// Pictures in a call
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "1")]
    pub batch: usize,

    /// Number of timed calls; medians are shown
    #[arg(long, value_name = "R", value_parser = values::at_least_one, default_value = "3")]
    pub repeat: usize,
}
