//! The command line of `verilume attack`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::SharedArgs;
use crate::cli::values::OneOf;
use crate::run::AttackFormat;

/// Make adversarial pictures: close to the original, but with another prediction or map
///
/// Attacks on the prediction (fgsm, pgd) change the predicted class. Attacks on the map (top_k, mass_centre,
/// target_region, manipulate) keep the prediction and change where a saliency map points. No number of a picture
/// changes by more than epsilon, and levels stay within 0 to 255.
#[derive(Debug, Args)]
#[command(after_help = ATTACK_EXAMPLES)]
pub struct AttackArgs {
    /// Pictures, folders, globs, .npy or .safetensors arrays; `-` reads a list of paths, as `explain` does
    #[arg(value_name = "INPUT", required_unless_present = "list_attacks")]
    pub inputs: Vec<OsString>,

    /// Attack, `name` or `name:key=value,...`; may repeat
    ///
    /// Put a value that contains `,` or `=` in parentheses. epsilon and step are lengths: a plain number is in the
    /// net's normalised units, the same in every channel; N/255 is in levels of a pixel, divided by each channel's
    /// standard deviation. `--list-attacks` and the ATTACKS section below list names and parameters.
    #[arg(short, long = "attack", value_name = "ATTACK", default_value = "pgd")]
    pub attacks: Vec<String>,

    /// Class that the prediction should leave, or whose map is attacked: top1, least, an index, a label, or file:FILE
    #[arg(short, long, value_name = "TARGET", default_value = "top1")]
    pub target: String,

    /// Method whose maps before and after are compared; may repeat [default: the attacked one, or gradient]
    #[arg(short, long = "method", value_name = "METHOD")]
    pub methods: Vec<String>,

    /// Folder for results
    #[arg(short, long = "out", value_name = "DIR", default_value = "verilume-out")]
    pub out: PathBuf,

    /// Kinds of files to write, separated by commas [default: png, or npy for nets that take no pictures]
    #[arg(long, value_parser = FORMATS, value_delimiter = ',', value_name = "F,...")]
    pub format: Option<Vec<AttackFormat>>,

    /// Print one JSON object for each input and attack instead of a table
    ///
    /// Keys: input, index, attack, parameters, target, target_label, wanted, wanted_label, prediction_before,
    /// prediction_after, prediction_png (the best five classes, score: softmax or sigmoid), flipped, succeeded,
    /// flipped_png, succeeded_png, objective_before, objective_after, iterations, linf, linf_png (normalised units),
    /// linf_levels, linf_png_levels, maps (for each method the top-k intersection and Spearman's rank correlation with
    /// the original's map, for the exact numbers and for the picture), seconds, peak_bytes, files, error.
    #[arg(long)]
    pub json: bool,

    /// List the attacks with their parameters and exit (with --json, as JSON)
    #[arg(long)]
    pub list_attacks: bool,

    #[command(flatten)]
    pub shared: SharedArgs,
}

pub(super) const ATTACK_EXAMPLES: &str = "Examples:
  verilume attack cat.jpg                                          another prediction, 8 levels at most
  verilume attack cat.jpg -a pgd:epsilon=4/255,target=\"lion\"       a prediction of your choice
  verilume attack photos/ -a top_k:epsilon=2/255 -m ig --json      the same prediction, another map
  verilume attack cat.jpg -a manipulate:target=file:dog.jpg        the map of another picture
  verilume attack x.npy -a 'target_region:region=(0,0,56,56)' --format npy,png -o attacked

Files are DIR/<stem>.<attack>.<ext>. The .png has the net's input size; its levels are rounded towards the original,
so that epsilon holds for it too. The net's prediction on it is reported separately.

Exit code: 0 all done, whether attacks succeeded or not; 1 some inputs failed (each failure is a record); 2 wrong usage
or nothing could be done.";

const FORMATS: OneOf<AttackFormat> = OneOf(&[
    ("npy", "The adversarial input, exact, f32 (.npy)", AttackFormat::Npy),
    (
        "png",
        "The adversarial picture at the net's input size, rounded to levels within epsilon (.png)",
        AttackFormat::Png,
    ),
    ("safetensors", "The adversarial input, exact, f32, as tensor `input` (.safetensors)", AttackFormat::Safetensors),
]);
