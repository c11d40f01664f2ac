//! Options of `verilume eval`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ModelChoice, Preparation, Resources, ScoreArg};
use crate::values;

/// Measure methods over a labelled set of pictures: metrics, means, confidence intervals
///
/// Every method explains every picture and every metric measures every map. Results grow in DIR/eval.jsonl, a line a
/// picture; at the end DIR/summary.json holds, for each method and number, the mean over pictures with its 95 % bootstrap
/// interval (percentiles of 2000 resamples) and the paired difference from the first method.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// Labelled pictures: a .safetensors array, a folder, pictures, globs; may repeat
    ///
    /// A .safetensors file holds `images` (u8 [N,C,H,W]) or `input` (as the net sees it), and `labels`. In a folder a
    /// picture's class is the name of the sub-folder that it is in, or else of its file: an index (207, or 207_1.jpg), a label
    /// (golden_retriever, golden_retriever_12.jpg), or a synset with a label or alone (n02099601_golden_retriever, n02099601).
    /// Where the classes are ImageNet's the synset decides.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "list_metrics")]
    pub data: Vec<OsString>,

    /// Classes from a table: `file,label` or `file,row,label` a line, the label an index, a name or a synset
    ///
    /// ./a.png is a.png, accents may be composed or not; a file with two classes is an error.
    #[arg(long, value_name = "FILE", conflicts_with = "unlabelled")]
    pub labels_csv: Option<PathBuf>,

    /// Boxes from a table: `file,class,left,top,right,bottom` (or `file,row,class,…`) a line
    ///
    /// Edges count pixels from the upper left corner of the upright original picture: its whole is 0,0,width,height. Boxes are
    /// resized and cropped as the picture is; one that the crop leaves nothing of is reported.
    #[arg(long, value_name = "FILE", conflicts_with = "mosaics")]
    pub boxes: Option<PathBuf>,

    /// Take pictures without a class too; nothing that needs one is measured on them
    #[arg(long, conflicts_with = "mosaics")]
    pub unlabelled: bool,

    /// Pictures to take at most, the first in order
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub limit: Option<usize>,

    /// Take pictures in an order drawn by --seed instead of that of the files
    #[arg(long)]
    pub shuffle: bool,

    /// Measure on N mosaics of the pictures instead of on the pictures
    ///
    /// A mosaic shows one picture each of four classes drawn by --seed, made as the net sees them. The class asked for is that
    /// of each cell in turn: of the upper left one on the first mosaic, of the upper right one on the second, and so on.
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub mosaics: Option<usize>,

    /// Mosaics as large as one picture, or twice as wide and high
    #[arg(long, value_enum, value_name = "SIZE", default_value = "native", requires = "mosaics")]
    pub mosaic_size: MosaicSize,

    /// Method, `name` or `name:key=value,...`; may repeat [default: grad_cam]
    ///
    /// Others are compared with the first. `verilume explain --list-methods` lists the names.
    #[arg(short, long = "method", value_name = "METHOD")]
    pub methods: Vec<String>,

    /// Metric, `name` or `name:key=value,...`; may repeat [default: a quick set that suits the data]
    ///
    /// `--list-metrics` and the METRICS section below list the names. Pictures get fidelity, deletion and insertion, with --boxes
    /// pointing, energy_in_box and wsol too; mosaics get grid_pointing, pointing and dwsol.
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,

    /// Which class to explain [default: predicted, on mosaics label]
    #[arg(short, long, value_enum, value_name = "CLASS")]
    pub target: Option<TargetArg>,

    /// Which number to explain
    #[arg(long, value_enum, value_name = "SCORE", default_value = "logit")]
    pub score: ScoreArg,

    /// Folder for results
    #[arg(short, long = "out", value_name = "DIR", default_value = "verilume-eval")]
    pub out: PathBuf,

    /// Print one JSON object for each method and number instead of a table
    ///
    /// Keys: method, metric, output, better (lower, higher or neither), estimate (mean, low, high, n), failed, difference
    /// (against, estimate). The first line is the net's accuracy, without method and metric.
    #[arg(long)]
    pub json: bool,

    /// No progress and no messages on standard error
    #[arg(short, long)]
    pub quiet: bool,

    /// Skip pictures that an earlier run with the same settings has done
    #[arg(long)]
    pub resume: bool,

    /// List the metrics with their parameters and leave (with --json, as JSON)
    #[arg(long)]
    pub list_metrics: bool,

    #[command(flatten)]
    pub model: ModelChoice,
    #[command(flatten)]
    pub preparation: Preparation,
    #[command(flatten)]
    pub resources: Resources,

    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = values::at_least_one, help_heading = "Resources")]
    pub threads: Option<usize>,
}

/// Which class of a picture is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// The one that the net gives the highest score
    Predicted,
    /// The true one; on a mosaic the one asked for
    Label,
}

/// How large mosaics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MosaicSize {
    /// As one picture, each of the four at half its sides; any net takes them
    Native,
    /// Twice a picture's sides, each of the four whole: the standard form of the grid pointing game, for nets that take any size
    Double,
}

pub(super) const EXAMPLES: &str = "Examples:
  verilume eval --data photos/ -m gradient -m smoothgrad -m grad_cam --limit 200 --shuffle
  verilume eval --data cifar10-test.safetensors --model resnet20.safetensors -m ig --metric deletion --metric insertion
  verilume eval --data val/ --boxes boxes.csv -m grad_cam -m lrp --metric wsol --target label
  verilume eval --data val/ --mosaics 100 -m grad_cam -m occlusion --resume -o mosaics

Exit code: 0 all measured, 1 something failed (each failure is recorded), 2 wrong usage or nothing could be measured.";
