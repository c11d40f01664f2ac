//! Options of `verilume detector`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SharedArgs;
use crate::cli::values;

/// Distinguish attacked pictures from clean ones by the saliency maps of their predicted class
#[derive(Debug, Args)]
pub struct DetectorArgs {
    #[command(subcommand)]
    pub command: DetectorCommand,
}

#[derive(Debug, Subcommand)]
pub enum DetectorCommand {
    Train(Box<TrainArgs>),
    Apply(Box<ApplyArgs>),
}

/// Train a small net on the maps of pictures and of their attacked versions
///
/// The command makes attacked versions (--attack) or reads them (--attacked). Only those whose predicted class differs
/// from the picture's count. Three fifths of the pictures are for training, a fifth for choosing the best epoch and a
/// fifth for measuring, without overlap. The area under the ROC curve (AUC) is measured on pictures that the detector
/// has not seen. The net (two convolutions, one linear layer) and the training are this project's own; the idea is from
/// Wang, Su, Zhang, Hu 2020.
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES)]
pub struct TrainArgs {
    /// Clean pictures, folders, globs, .npy or .safetensors arrays, as `explain` takes them; may repeat
    #[arg(long, value_name = "FOLDER|FILE", required = true)]
    pub data: Vec<OsString>,

    /// Method whose maps the detector uses; for haf the masks of all stages
    #[arg(short, long = "method", value_name = "METHOD", default_value = "haf")]
    pub method: String,

    /// Attack on the prediction to learn (fgsm, pgd), as `verilume attack` takes it; may repeat
    #[arg(long, value_name = "ATTACK")]
    pub attack: Vec<String>,

    /// Attack that is only measured, on pictures of the test part, not learnt; may repeat
    #[arg(long, value_name = "ATTACK")]
    pub holdout_attack: Vec<String>,

    /// Do not round attacked pictures to levels
    ///
    /// By default they are rounded to levels of 0 to 255, as in picture files, within the attack's epsilon. Only those
    /// whose predicted class still differs count. Arrays that are not made of levels need this option.
    #[arg(long)]
    pub unrounded: bool,

    /// Attacked versions of --data, the same number in the same order; may repeat
    #[arg(long, value_name = "FOLDER|FILE")]
    pub attacked: Vec<OsString>,

    /// Maximum number of pictures, the first in order
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub limit: Option<usize>,

    /// Maximum number of passes over the training examples
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "60")]
    pub epochs: usize,

    /// Number of epochs without improvement after which training ends
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "12")]
    pub patience: usize,

    /// Learning rate of Adam
    #[arg(long, value_name = "RATE", default_value = "0.001")]
    pub lr: f64,

    /// File to write
    #[arg(short, long = "out", value_name = "FILE", default_value = "detector.safetensors")]
    pub out: PathBuf,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub shared: SharedArgs,
}

const TRAIN_EXAMPLES: &str = "Examples:
  verilume detector train --data photos/ --attack pgd:epsilon=2/255,step=0.5/255 --holdout-attack fgsm
  verilume detector train --data cifar.safetensors --model resnet20.safetensors -m gradient --attack fgsm --limit 500
  verilume detector train --data clean.npy --attacked attacked.npy --model net.safetensors

Exit code: 0 all used, 1 some inputs were skipped (each is named), 2 wrong usage or nothing could be done.";

/// Give the probability that each picture was attacked
///
/// The probability assumes equal numbers of attacked and clean pictures; AUC does not. A detector knows the attacks
/// that it was trained on. An attack made to deceive it will succeed.
#[derive(Debug, Args)]
#[command(after_help = APPLY_EXAMPLES)]
pub struct ApplyArgs {
    /// Pictures, folders, globs, .npy or .safetensors arrays; `-` reads a list of paths
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<OsString>,

    /// Detector for this net, from `verilume detector train`
    #[arg(long, value_name = "FILE")]
    pub detector: PathBuf,

    /// Probability from which a picture is called attacked
    #[arg(long, value_name = "P", default_value = "0.5")]
    pub threshold: f64,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub shared: SharedArgs,
}

const APPLY_EXAMPLES: &str = "Examples:
  verilume detector apply --detector detector.safetensors cat.jpg
  verilume detector apply --detector d.safetensors --model resnet20.safetensors suspects.npy --json

Exit code: 0 all done, 1 some inputs failed (each failure is a record), 2 wrong usage or nothing could be done.";
