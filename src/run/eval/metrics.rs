//! Selects the metrics to measure, and their names.

use super::units::UnitKind;
use crate::error::{Error, Result};
use crate::reliability::metric::{Better, Metric, MetricSpec, Needs, Output};
use crate::report::eval::{Asked, Direction};
use crate::run::settings::Numbered;

/// Used when no `--metric` is given: a few passes per map, none of them random.
const DEFAULT: &[&str] = &["fidelity", "deletion", "insertion"];
/// Used in addition if there are boxes.
const DEFAULT_BOXED: &[&str] = &["pointing", "energy_in_box", "wsol"];
/// Used when no `--metric` is given for mosaics.
const DEFAULT_MOSAICS: &[&str] = &["grid_pointing", "pointing", "dwsol"];

/// One number of a metric.
pub struct MetricColumn {
    /// Its name in records and tables.
    pub name: String,
    pub better: Direction,
}

/// A metric to measure.
pub struct Measure {
    /// Its name, followed by `-2`, `-3` … for repeats.
    pub id: String,
    /// The metric and its parameters.
    pub spec: MetricSpec,
    /// The metric itself.
    pub metric: Box<dyn Metric>,
    /// Its numbers.
    pub columns: Vec<MetricColumn>,
}

impl Measure {
    /// Its entry in the summary.
    pub fn asked(&self) -> Asked {
        Asked { id: self.id.clone(), spec: self.spec.to_string(), paper: self.spec.entry.paper.into() }
    }
}

/// The requested metrics, or the defaults for the data.
///
/// # Errors
/// When a text is not the name of a metric with valid parameters, or the data lack what it needs.
pub fn choose(texts: &[String], kind: UnitKind, unlabelled: bool) -> Result<Vec<Measure>> {
    let texts: Vec<String> = match (texts, kind) {
        ([], UnitKind::Mosaics { .. }) => DEFAULT_MOSAICS.iter().map(|t| (*t).to_owned()).collect(),
        ([], UnitKind::Boxed) => DEFAULT.iter().chain(DEFAULT_BOXED).map(|t| (*t).to_owned()).collect(),
        ([], UnitKind::Pictures) => DEFAULT.iter().map(|t| (*t).to_owned()).collect(),
        (texts, _) => texts.to_vec(),
    };
    let mut numbered = Numbered::default();
    let mut measures = Vec::new();
    for text in &texts {
        let spec = MetricSpec::parse(text)?;
        let entry = spec.entry;
        let refused = |why: &str| Err(Error::settings(format!("--metric {}: {why}", entry.id)));
        match (entry.needs, kind) {
            (Needs::Regions, UnitKind::Pictures) => {
                return refused("it needs to know what is where; give --boxes FILE or --mosaics N");
            }
            (Needs::Mosaic, UnitKind::Pictures | UnitKind::Boxed) => {
                return refused("it is measured on mosaics; give --mosaics N");
            }
            (Needs::Labels, _) if unlabelled => return refused("it needs the true classes"),
            _ => {}
        }
        let behind = numbered.ending(entry.id);
        let column = |output: &Output| MetricColumn {
            name: format!("{}{behind}", output.key),
            better: match output.better {
                Better::Lower => Direction::Lower,
                Better::Higher => Direction::Higher,
                Better::Neither => Direction::Neither,
            },
        };
        measures.push(Measure {
            id: format!("{}{behind}", entry.id),
            metric: spec.build()?,
            columns: entry.outputs.iter().map(column).collect(),
            spec,
        });
    }
    Ok(measures)
}
