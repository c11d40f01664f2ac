//! The command line as typed: one struct a command, shared groups of options beside them.

pub mod attack;
mod check;
mod detector;
mod eval;
#[cfg(feature = "cuda")]
pub mod kernels;

use std::ffi::OsString;
use std::path::PathBuf;

pub use check::{CheckArgs, ReportFormat};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
pub use detector::{ApplyArgs, DetectorArgs, DetectorCommand, TrainArgs};
pub use eval::EvalArgs;

use crate::cli::values::{self, CropSize, OneOf};
use crate::cli::{listing, talk};
use crate::data::Shard;
use crate::device::Products;
use crate::graph::Dump;
use crate::image::Interpolation;
use crate::program::Score;
use crate::run::Format;
use crate::tensor::Precision;
use crate::text;

/// Explains image classifiers, and tests whether the explanation can be believed.
#[derive(Debug, Parser)]
#[command(name = "verilume", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  verilume explain cat.jpg                         where the built-in net looks, as an overlay
  verilume explain photos/ -m ig -m smoothgrad     two methods, every picture in a folder
  verilume check cat.jpg                           which methods can be believed, as a table and a page
  verilume attack cat.jpg                          an adversarial picture, and the change of its map
  verilume eval --data val/ -m ig -m grad_cam      how good their maps are, with confidence intervals
  verilume model info                              the built-in net, layer by layer
  verilume doctor                                  what this machine offers
  verilume bench -m smoothgrad --batch 1,8         how long a call takes
  verilume profile -m gradient                     where the time goes, step by step

`verilume explain --help` lists every method with its parameters.";

#[derive(Debug, Subcommand)]
pub enum Command {
    Explain(Box<ExplainArgs>),
    Check(Box<CheckArgs>),
    Attack(Box<attack::AttackArgs>),
    Eval(Box<EvalArgs>),
    Bench(Box<BenchArgs>),
    Profile(Box<ProfileArgs>),
    #[cfg(feature = "cuda")]
    Kernels(kernels::KernelsArgs),
    Patterns(PatternsArgs),
    Detector(DetectorArgs),
    Model(ModelArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

/// Draw which pixels a net's decision rests on
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct ExplainArgs {
    /// Pictures, folders, globs, .npy or .safetensors arrays; `-` reads a list of paths
    ///
    /// A folder is searched recursively for pictures, .npy and .safetensors; other files in it are counted and skipped.
    /// Links are inputs of their own. Results of this program in folders, patterns and lists are counted and skipped.
    /// If a file or folder has the exact name of a part, that part is not a pattern, such as 'set [1]' in 'set
    /// [1]/*.png'. A list has one path a line (UTF-8 or UTF-16), or ends each path with a zero byte, as `find -print0`
    /// does.
    ///
    /// A .npy file holds normalised numbers (f16, f32 or f64, [N,C,H,W] or [C,H,W]), or levels (u8, [N,C,H,W] or
    /// [N,H,W,C] with 1 or 3 channels), which are prepared as the model says. A .safetensors file holds a tensor
    /// `input` (normalised numbers, also bf16) or `images` (levels).
    #[arg(value_name = "INPUT", required_unless_present = "list_methods")]
    pub inputs: Vec<OsString>,

    /// Method, `name` or `name:key=value,...`; may repeat [default: grad_cam]
    ///
    /// Put a value that contains `,` or `=` in parentheses. The default is `grad_cam`, coarse but easy to read, or
    /// `gradient` for nets without spatial positions. `--list-methods` and the METHODS section below list the names.
    #[arg(short, long = "method", value_name = "METHOD")]
    pub methods: Vec<String>,

    /// Class to explain: top1, top:K, least, an index, a label, or file:FILE
    ///
    /// `top:K` gives K maps. FILE is a table `file,label` or `file,row,label` (a heading may say the order), a list of
    /// labels for the rows of an array, or a .safetensors file with a tensor `labels`. If the classes are ImageNet's, a
    /// synset (n02123045) is a label too.
    #[arg(short, long, value_name = "TARGET", default_value = "top1")]
    pub target: String,

    /// Score of the class to explain and to report
    #[arg(long, value_parser = SCORES, value_name = "SCORE", default_value = "logit")]
    pub score: Score,

    /// Folder for results
    #[arg(short, long = "out", value_name = "DIR", default_value = "verilume-out")]
    pub out: PathBuf,

    /// Kinds of files to write, separated by commas
    #[arg(long, value_parser = FORMATS, value_delimiter = ',', value_name = "F,...", default_value = "overlay")]
    pub format: Vec<Format>,

    /// Percentile of the magnitude that gets the strongest colour, such as 95 [default: 99.5]
    ///
    /// Larger values get the same colour. Raw maps (npy, safetensors) are never changed.
    #[arg(long, value_name = "PERCENT", value_parser = values::percentile)]
    pub winsorise: Option<f64>,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,

    /// Skip results of an earlier run with the same settings
    #[arg(long)]
    pub resume: bool,

    /// Do the i-th of n parts, such as 1/4; a hash of its path assigns each file to a part
    ///
    /// The hash uses the path below the folder that holds all inputs. So the parts do not depend on how inputs are
    /// named or where the folder is. Give all parts the same inputs.
    #[arg(long, value_name = "i/n", value_parser = Shard::parse)]
    pub shard: Option<Shard>,

    /// List the methods with their parameters and exit (with --json, as JSON)
    #[arg(long)]
    pub list_methods: bool,

    #[command(flatten)]
    pub shared: SharedArgs,
}

const EXPLAIN_EXAMPLES: &str = "Examples:
  verilume explain cat.jpg -m integrated_gradients:steps=128 -m grad_cam --format grid
  verilume explain photos/ -t top:3 --format npy,overlay -o maps --resume
  verilume explain 'photos/**/*.png' -t \"tiger cat\" --score prob --json
  verilume explain digits.safetensors --model mlp.safetensors -t file:digits.safetensors --format npy
  find . -name '*.jpg' -print0 | verilume explain - --shard 1/4

Files are DIR/<stem>.<method>.<ext>, with .<class> (top:K), .<row> (arrays), .heatmap, .grid or -2 where needed;
see docs/formats.md.

Exit code: 0 all done, 1 some inputs failed (each failure is a record), 2 wrong usage or nothing could be done.";

/// What every command has that runs a net over inputs.
#[derive(Debug, Args)]
pub struct SharedArgs {
    /// No progress and no messages on standard error
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub model: ModelChoice,
    #[command(flatten)]
    pub preparation: PreparationArgs,
    #[command(flatten)]
    pub resources: ResourceArgs,

    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = values::at_least_one, help_heading = "Resources")]
    pub threads: Option<usize>,
}

/// The net, its preparation of pictures and its class names.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelChoice {
    /// Weights (.safetensors), a graph (.onnx), a folder that holds one, or the name of a built-in net [default: the
    /// embedded efficientnet-lite0]
    ///
    /// Of weights in shards it is the folder or model.safetensors.index.json. Files beside the weights say more of the net:
    /// preprocessor_config.json, config.json, labels.txt; docs/nets.md has the keys. A file of another
    /// kind is recognised by its first bytes; the error says how to convert it.
    #[arg(long, value_name = "FILE|DIR|NAME")]
    pub model: Option<String>,

    /// Architecture, if the weights do not determine it; see `verilume model list`
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,

    /// Output of an ONNX graph, or any tensor in it, whose numbers are the logits
    #[arg(long, value_name = "NAME")]
    pub output: Option<String>,

    /// How logits become probabilities: sigmoid for nets with several labels a picture [default: softmax, or what the
    /// graph ends with]
    #[arg(long, value_name = "HEAD", value_parser = values::head)]
    pub head: Option<crate::graph::Link>,
}

/// How pictures become numbers; the defaults are the model's.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Preparation of pictures (default: as the model was trained)")]
pub struct PreparationArgs {
    /// Size of the crop, N or HxW; RESIZE:N also sets the short side before cropping
    #[arg(long, value_name = "SIZE", value_parser = CropSize::parse)]
    pub size: Option<CropSize>,

    /// Mean of each channel, for levels from 0 to 1 (one number is for all channels)
    #[arg(long, value_name = "M,...", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f64>>,

    /// Standard deviation of each channel, for levels from 0 to 1 (one number is for all channels)
    #[arg(long, value_name = "S,...", value_delimiter = ',')]
    pub std: Option<Vec<f64>>,

    /// Interpolation for resizing pictures
    #[arg(long, value_parser = INTERPOLATIONS, value_name = "HOW")]
    pub interpolation: Option<Interpolation>,

    /// Class names, one a line (UTF-8 or UTF-16)
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

/// Where and how precisely to compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub struct ResourceArgs {
    /// auto, cpu, cuda, cuda:i, or emulated (for work on kernels) [:SEED]
    ///
    /// `auto` is the first NVIDIA GPU if it is usable, else the CPU. `emulated` runs the GPU's kernels on the CPU, with
    /// their threads in an order that SEED chooses. It is slow and needs a C++ compiler.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    pub device: crate::engine::DeviceChoice,

    /// Memory bound beyond the weights file, such as 512MiB, 1GB or plain bytes
    ///
    /// It bounds the sum of packed weights, feature maps, scratch, and what methods, tests and fits keep. It also
    /// bounds the decoding of a picture. What does not fit is refused before it is computed. The default is four fifths
    /// of what the machine, or the container's limit, has left.
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub memory: Option<u64>,

    /// Number type of the computation; f64 is the reference (CPU), tf32, bf16 and f16 need a CUDA device
    ///
    /// On a GPU it sets how tensor cores multiply; sums are f32 in any case. f32 is as accurate as single precision (but see
    /// --conv).
    #[arg(long, value_parser = PRECISIONS, value_name = "P", default_value = "f32")]
    pub precision: (Precision, Products),

    /// Convolutions: fast, exact, or auto (fast on the CPU, exact on a GPU)
    ///
    /// On the CPU `fast` uses Winograd's transforms for large 3x3 convolutions (at least 16 channels on both sides,
    /// results of 4x4 or more). `exact` uses plain sums in the forward pass. Portable kernels and f64 have plain sums
    /// only. On a GPU `exact` is as accurate as single precision in both passes; `fast` multiplies signals of the
    /// backward pass in TF32.
    #[arg(long = "conv", value_name = "HOW", default_value = "auto")]
    pub convolution: crate::device::cpu::Convolution,

    /// Vector instructions of the CPU: auto, avx512, avx2 or portable
    ///
    /// `avx2` and `portable` give the bits of a machine without the other instructions.
    #[arg(long, value_name = "KERNELS", default_value = "auto", value_parser = values::kernels)]
    pub kernels: crate::device::cpu::Kernels,

    /// Folder of CUDA kernels that replace the built-in kernels of the same names
    #[arg(long, value_name = "DIR")]
    pub kernel_dir: Option<PathBuf>,

    /// Seed of all random draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// Measure how long a call takes: one row for every combination of method, batch and threads
///
/// The input is normal noise, the target class 281 modulo the number of classes. The first call is not timed: it packs
/// weights and lays out memory. Seconds are for the whole batch, from prepared input to finished maps.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// Method, `name` or `name:key=value,...`; may repeat
    #[arg(short, long = "method", value_name = "METHOD", default_value = "gradient")]
    pub methods: Vec<String>,

    /// Number of pictures in a call; may repeat or be a list
    ///
    /// The pictures and their maps must fit into the free memory, or --memory.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = values::at_least_one, default_value = "1")]
    pub batch: Vec<usize>,

    /// Threads; may repeat or be a list [default: all cores]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = values::at_least_one)]
    pub threads: Vec<usize>,

    /// Number of timed calls, at most 10000
    #[arg(long, value_name = "R", value_parser = values::calls, default_value = "10")]
    pub repeat: usize,

    /// Print one JSON object a line instead of a table
    ///
    /// Keys: model, method, spec (the method with all its parameters), batch, threads, device, kernels, precision,
    /// median_s, p10_s, p90_s, peak_bytes.
    #[arg(long)]
    pub json: bool,

    /// No progress and no messages on standard error
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub measured: MeasuredArgs,
    #[command(flatten)]
    pub resources: ResourceArgs,
}

const BENCH_EXAMPLES: &str = "Examples:
  verilume bench -m gradient -m smoothgrad:n=16 --batch 1,8 --threads 1,2
  verilume bench --random-weights resnet50 -m ig:steps=16 --repeat 20 --json
  verilume bench --model vgg16.safetensors --memory 256MiB --kernels avx2

Exit code: 0 all measured, 1 some combinations failed, 2 wrong usage or all failed.";

/// Show where the time of a call goes, step by step
///
/// Shows every step of a method's programs, with its kernel, shapes, median time, arithmetic, traffic, and its share of
/// this machine's peak. The peak is measured first, with three arrays of 128 MiB outside --memory. Input and class are
/// those of `bench`.
#[derive(Debug, Args)]
#[command(after_help = PROFILE_EXAMPLES)]
pub struct ProfileArgs {
    /// Method, `name` or `name:key=value,...`
    #[arg(short, long = "method", value_name = "METHOD", default_value = "gradient")]
    pub method: String,

    /// Number of pictures in a call
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "1")]
    pub batch: usize,

    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub threads: Option<usize>,

    /// Number of timed calls, at most 10000; medians are shown
    #[arg(long, value_name = "R", value_parser = values::calls, default_value = "5")]
    pub repeat: usize,

    /// Write everything as JSON: to FILE in addition to the table, or with `-` (the default) instead of it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,

    /// Write the last call as a timeline for Perfetto and chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// JSON file of an earlier profile to compare with; below a ratio of 1 the present run is faster
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// No progress and no messages on standard error
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub measured: MeasuredArgs,
    #[command(flatten)]
    pub resources: ResourceArgs,
}

const PROFILE_EXAMPLES: &str = "Examples:
  verilume profile -m smoothgrad:n=8 --threads 1
  verilume profile --random-weights vgg16 --json before.json
  verilume profile --random-weights vgg16 --compare before.json --trace vgg16.trace.json";

/// What is measured.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct MeasuredArgs {
    #[command(flatten)]
    pub model: ModelChoice,

    /// A well-known net with random weights, such as vgg16, resnet50 or efficientnet-lite0; no file is needed
    #[arg(long, value_name = "NET", conflicts_with_all = ["model", "arch", "output", "head"])]
    pub random_weights: Option<String>,

    /// Input size, N or HxW [default: the net's]
    #[arg(long, value_name = "SIZE", value_parser = CropSize::parse)]
    pub size: Option<CropSize>,
}

/// The score of a class.
pub const SCORES: OneOf<Score> = OneOf(&[
    ("logit", "The output of the net", Score::Logit),
    ("prob", "Its probability: by softmax or sigmoid (see --head)", Score::Prob),
    ("logprob", "The logarithm of its probability", Score::LogProb),
]);

/// Kinds of files that hold maps.
const FORMATS: OneOf<Format> = OneOf(&[
    ("overlay", "The coloured map over the picture (.png)", Format::Overlay),
    ("heatmap", "The coloured map (.png)", Format::Heatmap),
    (
        "grid",
        "One sheet for each input: the picture and the maps of all methods side by side, with their scales (.png)",
        Format::Grid,
    ),
    ("npy", "The raw map, f32 (.npy)", Format::Npy),
    ("safetensors", "The raw map, f32, as tensor `map` (.safetensors)", Format::Safetensors),
]);

const INTERPOLATIONS: OneOf<Interpolation> = OneOf(&[
    ("nearest", "", Interpolation::Nearest),
    ("bilinear", "", Interpolation::Bilinear),
    ("bicubic", "", Interpolation::Bicubic),
    ("lanczos", "", Interpolation::Lanczos),
]);

/// The precision, and the products of a GPU's tensor cores.
pub const PRECISIONS: OneOf<(Precision, Products)> = OneOf(&[
    ("f64", "", (Precision::F64, Products::F32)),
    ("f32", "", (Precision::F32, Products::F32)),
    ("tf32", "", (Precision::F32, Products::Tf32)),
    ("bf16", "", (Precision::F32, Products::Bf16)),
    ("f16", "", (Precision::F32, Products::F16)),
]);

/// Fit the patterns of the methods pattern_net and pattern_attribution to data
#[derive(Debug, Args)]
pub struct PatternsArgs {
    #[command(subcommand)]
    pub command: PatternsCommand,
}

#[derive(Debug, Subcommand)]
pub enum PatternsCommand {
    Fit(Box<FitArgs>),
}

/// Run a net over pictures and write one pattern for every neuron
///
/// Pictures are read one after the other and not kept. The fit needs 32 bytes a weight, which count for --memory. The
/// file is valid for these weights only; other nets refuse it.
#[derive(Debug, Args)]
#[command(after_help = FIT_EXAMPLES)]
pub struct FitArgs {
    /// Pictures, folders, globs, .npy or .safetensors arrays, as `explain` takes them; may repeat
    #[arg(long, value_name = "FOLDER|FILE", required = true)]
    pub data: Vec<OsString>,

    /// Samples that count for a neuron: relu (those with a positive output) or linear (all)
    #[arg(long, value_name = "NAME", default_value = "relu", value_parser = values::estimator)]
    pub estimator: crate::method::patterns::Estimator,

    /// Maximum number of pictures, the first in order
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub limit: Option<usize>,

    /// File to write
    #[arg(short, long = "out", value_name = "FILE", default_value = "patterns.safetensors")]
    pub out: PathBuf,

    #[command(flatten)]
    pub shared: SharedArgs,
}

const FIT_EXAMPLES: &str = "Examples:
  verilume patterns fit --data photos/ --limit 500 -o lite0.patterns.safetensors
  verilume explain cat.jpg -m pattern_attribution:patterns=lite0.patterns.safetensors
  verilume patterns fit --data digits.safetensors --model mlp.safetensors --estimator linear

Exit code: 0 all used, 1 some inputs were skipped (each is named), 2 wrong usage or nothing could be done.";

/// Describe a net, print its graph, verify its logits, or list known nets
#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    pub command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Architecture, size, preparation of pictures, checksum and every layer
    Info {
        #[command(flatten)]
        model: ModelChoice,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Every node of the graph with its shape
    Dump {
        #[command(flatten)]
        model: ModelChoice,
        /// Output format
        #[arg(long, value_parser = DUMPS, default_value = "text")]
        format: Dump,
        /// Input size, N or HxW [default: the model's]
        #[arg(long, value_name = "SIZE", value_parser = CropSize::parse)]
        size: Option<CropSize>,
        /// Keep batch norms as nodes instead of merging them into convolutions
        #[arg(long)]
        unfolded: bool,
    },
    /// Compare the net's logits with those of another program, to see whether the net is read correctly
    ///
    /// Prints the largest difference over the largest logit. Exit code: 0 within the tolerance, 1 beyond it, 2 wrong
    /// usage.
    Verify(Box<VerifyArgs>),
    /// Built-in nets and known architectures
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What `model verify` compares.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Array of inputs (.npy or .safetensors): [N,C,H,W] or [C,H,W] normalised numbers, or u8 levels; no pictures
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,

    /// Logits of the other program for these inputs: an array [N,CLASSES] or [CLASSES]; of a net with one output also [N,1]
    /// or [N]
    #[arg(long, value_name = "FILE")]
    pub logits: PathBuf,

    /// Largest difference that passes, as a share of the largest logit
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4)]
    pub tolerance: f64,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// No messages on standard error
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub model: ModelChoice,
    #[command(flatten)]
    pub resources: ResourceArgs,

    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = values::at_least_one, help_heading = "Resources")]
    pub threads: Option<usize>,
}

const DUMPS: OneOf<Dump> = OneOf(&[
    ("text", "One line for each node", Dump::Text),
    ("dot", "Graphviz", Dump::Dot),
    ("json", "One JSON object", Dump::Json),
]);

/// Show what this machine and this build offer, and test the engine
///
/// Exit code: 0 if everything needed to explain a picture works, 1 otherwise. A missing GPU is reported but is not an
/// error.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Measure the peaks of one thread and of all threads: arithmetic and memory (takes seconds and 384 MiB)
    #[arg(long)]
    pub peaks: bool,
}

/// Print a completion script for a shell
///
/// Example: verilume completions bash > ~/.local/share/bash-completion/completions/verilume
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

impl Cli {
    /// The parser with the methods and metrics written into its help.
    pub fn parser() -> clap::Command {
        Cli::command()
            .mut_subcommand("explain", |explain| {
                explain.after_long_help(format!("{EXPLAIN_EXAMPLES}\n\n{}", listing::methods_text()))
            })
            .mut_subcommand("eval", |eval| {
                eval.after_long_help(format!("{}\n\n{}", eval::EXAMPLES, listing::metrics_text()))
            })
            .mut_subcommand("attack", |attack| {
                let attacks = listing::attacks_text();
                attack.after_long_help(format!("{}\n\n{attacks}", attack::ATTACK_EXAMPLES))
            })
    }

    /// What `words` mean, the program's name first.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::parser().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches))
    }

    /// What was typed; leaves the process with a message when it has no meaning.
    pub fn read(words: &[OsString]) -> Self {
        Self::parse(words.iter().cloned()).unwrap_or_else(|e| {
            let odd = words.iter().any(|word| text::message(&word.to_string_lossy()) != word.to_string_lossy());
            if odd && e.use_stderr() {
                talk::say_lines(e.render().to_string().trim_end());
                std::process::exit(e.exit_code());
            }
            e.exit()
        })
    }
}
