//! What `verilume check` found: tests, verdicts, the numbers behind them, and the pictures that show them.

use serde::{Deserialize, Serialize};

use super::{ModelUsed, Prediction};

/// What a test says of a method on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The method keeps to what the test asks for.
    Pass,
    /// It does not.
    Fail,
    /// The test asks nothing of this method, net or picture, or could not be made; the detail says why.
    NotApplicable,
}

/// A bound that a number is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Passes when it is not above this.
    AtMost(f64),
    /// Passes when it is not below this.
    AtLeast(f64),
}

/// One test of one method on one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// [`Test::id`].
    pub test: String,
    /// The method's id, as in [`MethodChecked`].
    pub method: String,
    /// What it says.
    pub verdict: Verdict,
    /// The number behind the verdict.
    pub value: Option<f64>,
    /// The bound it was held against.
    pub threshold: Option<Threshold>,
    /// The number's name and unit, such as `max |E′−E| / max |E|`.
    pub measure: String,
    /// One sentence: what was seen, or why the test does not apply.
    pub detail: String,
    /// Further numbers, by name.
    pub notes: Vec<(String, f64)>,
}

/// A kind of test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Name in records.
    pub id: String,
    /// Name in prose.
    pub title: String,
    /// The question that it answers, in one sentence.
    pub question: String,
    /// Authors, year, title, venue.
    pub paper: String,
}

/// A method that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChecked {
    /// Its name, `-2`, `-3` … behind it when it was asked for again.
    pub id: String,
    /// With all parameters.
    pub spec: String,
}

/// One picture, its verdicts and what they were seen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureChecked {
    /// Path as it was given or found.
    pub input: String,
    /// Row of an array.
    pub index: Option<usize>,
    /// The best five classes, best first.
    pub prediction: Vec<Prediction>,
    /// What the tests said; empty where `error` is set.
    pub findings: Vec<Finding>,
    /// Why the picture could not be checked.
    pub error: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Of the program.
    pub version: String,
    /// The net.
    pub model: ModelUsed,
    /// Where and in which numbers it was computed.
    pub device: String,
    /// Of every draw.
    pub seed: u64,
    /// Of the whole run.
    pub seconds: f64,
    /// The tests made, in order.
    pub tests: Vec<Test>,
    /// The methods, in order.
    pub methods: Vec<MethodChecked>,
    /// The pictures, in order.
    pub pictures: Vec<PictureChecked>,
}
