//! Options of `verilume eval`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{SCORES, SharedArgs};
use crate::cli::values::{self, OneOf};
use crate::program::Score;
use crate::reliability::mosaic::MosaicSize;

/// Measure methods over a labelled set of pictures: metrics, means, confidence intervals
///
/// Every method explains every picture, and every metric measures every map. DIR/eval.jsonl gets one line a picture. At
/// the end DIR/summary.json holds, for each method and number, the mean over pictures with its 95 % bootstrap interval
/// (percentiles of 2000 resamples) and the paired difference from the first method.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// Labelled pictures: a .safetensors array, a folder, pictures, globs; may repeat
    ///
    /// A .safetensors file holds `images` (u8 levels, [N,C,H,W] or [N,H,W,C]) or `input` (normalised numbers,
    /// [N,C,H,W]), and `labels`. In a folder a picture's class is the name of its sub-folder, or else of its file: an
    /// index (207, or 207_1.jpg), a label (golden_retriever, golden_retriever_12.jpg), or a synset with or without a
    /// label (n02099601_golden_retriever, n02099601). If the classes are ImageNet's, a synset always decides.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "list_metrics")]
    pub data: Vec<OsString>,

    /// Classes from a table: `file,label` or `file,row,label` a line, the label an index, a name or a synset
    ///
    /// ./a.png equals a.png; accents may be composed or not. A file with two classes is an error.
    #[arg(long, value_name = "FILE", conflicts_with = "unlabelled")]
    pub labels_csv: Option<PathBuf>,

    /// Boxes from a table: `file,class,left,top,right,bottom` (or `file,row,class,…`) a line
    ///
    /// Edges are pixels from the upper left corner of the upright original picture: the whole picture is
    /// 0,0,width,height. Boxes are resized and cropped with the picture; a box outside the crop is reported.
    #[arg(long, value_name = "FILE", conflicts_with = "mosaics")]
    pub boxes: Option<PathBuf>,

    /// Use pictures without a class too; metrics that need one skip them
    #[arg(long, conflicts_with = "mosaics")]
    pub unlabelled: bool,

    /// Maximum number of pictures, the first in order
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub limit: Option<usize>,

    /// Use pictures in a random order, drawn by --seed, instead of that of the files
    #[arg(long)]
    pub shuffle: bool,

    /// Measure on N mosaics of the pictures instead of on the pictures
    ///
    /// A mosaic shows one prepared picture from each of four classes drawn by --seed. The target class changes from
    /// mosaic to mosaic: the upper left cell's class on the first mosaic, the upper right cell's on the second, and so
    /// on.
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub mosaics: Option<usize>,

    /// Mosaics as large as one picture, or twice as wide and high
    #[arg(long, value_parser = SIZES, value_name = "SIZE", default_value = "native", requires = "mosaics")]
    pub mosaic_size: MosaicSize,

    /// Method, `name` or `name:key=value,...`; may repeat [default: grad_cam]
    ///
    /// All others are compared with the first. `verilume explain --list-methods` lists the names.
    #[arg(short, long = "method", value_name = "METHOD")]
    pub methods: Vec<String>,

    /// Metric, `name` or `name:key=value,...`; may repeat [default: a quick set that suits the data]
    ///
    /// `--list-metrics` and the METRICS section below list the names. The default for pictures is fidelity, deletion
    /// and insertion, with --boxes also pointing, energy_in_box and wsol; for mosaics it is grid_pointing, pointing and
    /// dwsol.
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,

    /// Class to explain [default: predicted; on mosaics label]
    #[arg(short, long, value_parser = TARGETS, value_name = "CLASS")]
    pub target: Option<bool>,

    /// Score of the class to explain
    #[arg(long, value_parser = SCORES, value_name = "SCORE", default_value = "logit")]
    pub score: Score,

    /// Folder for results
    #[arg(short, long = "out", value_name = "DIR", default_value = "verilume-eval")]
    pub out: PathBuf,

    /// Print one JSON object for each method and number instead of a table
    ///
    /// Keys: method, metric, output, better (lower, higher or neither), estimate (mean, low, high, n), failed,
    /// difference (against, estimate). The first line is the net's accuracy, without method and metric.
    #[arg(long)]
    pub json: bool,

    /// Skip pictures that an earlier run with the same settings has measured
    #[arg(long)]
    pub resume: bool,

    /// List the metrics with their parameters and exit (with --json, as JSON)
    #[arg(long)]
    pub list_metrics: bool,

    #[command(flatten)]
    pub shared: SharedArgs,
}

/// Which class of a picture is explained: true for the labelled one.
const TARGETS: OneOf<bool> = OneOf(&[
    ("predicted", "The class with the highest score", false),
    ("label", "The true class; on a mosaic its target class", true),
]);

/// How large mosaics are.
const SIZES: OneOf<MosaicSize> = OneOf(&[
    (
        "native",
        "The size of one picture, with each of the four at half its width and height; any net accepts it",
        MosaicSize::Native,
    ),
    (
        "double",
        "Twice a picture's width and height, with each of the four whole: the standard grid pointing game; the net must \
         accept any size",
        MosaicSize::Double,
    ),
]);

pub(super) const EXAMPLES: &str = "Examples:
  verilume eval --data photos/ -m gradient -m smoothgrad -m grad_cam --limit 200 --shuffle
  verilume eval --data cifar10-test.safetensors --model resnet20.safetensors -m ig --metric deletion --metric insertion
  verilume eval --data val/ --boxes boxes.csv -m grad_cam -m lrp --metric wsol --target label
  verilume eval --data val/ --mosaics 100 -m grad_cam -m occlusion --resume -o mosaics

Exit code: 0 all measured, 1 something failed (each failure is recorded), 2 wrong usage or nothing could be measured.";
