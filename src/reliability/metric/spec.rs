//! A metric with its parameters, as written on the command line.

use super::{Metric, MetricEntry, registry};
use crate::error::{Error, Result};
use crate::method::{Parameter, ParameterValues, Registered, read};

/// A metric with all its parameters, given or default.
#[derive(Debug, Clone)]
pub struct MetricSpec {
    /// The metric.
    pub entry: &'static MetricEntry,
    values: ParameterValues,
}

impl MetricSpec {
    /// Parses `name` or `name:key=value,key=(value with , or =)`.
    ///
    /// # Errors
    /// When the name or a key is unknown (the message lists near misses), a key is given twice, or the text does not
    /// have this form.
    pub fn parse(text: &str) -> Result<Self> {
        let (entry, given) = read::<MetricEntry>(text)?;
        let resolved = given.into_iter().zip(entry.parameters);
        let values = resolved.map(|((key, v), p)| (key, v.unwrap_or_else(|| p.default.into()))).collect();
        Ok(Self { entry, values: ParameterValues::new(entry.id, values) })
    }

    /// The value of every parameter.
    pub fn values(&self) -> &ParameterValues {
        &self.values
    }

    /// Builds the metric.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn build(&self) -> Result<Box<dyn Metric>> {
        (self.entry.build)(&self.values)
    }
}

impl std::str::FromStr for MetricSpec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::parse(s)
    }
}

/// With every parameter, as [`MetricSpec::parse`] reads it.
impl std::fmt::Display for MetricSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.values.fmt(f)
    }
}

impl Registered for MetricEntry {
    const KIND: &'static str = "metric";

    fn registry() -> &'static [Self] {
        registry()
    }

    fn id(&self) -> &'static str {
        self.id
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_parses_and_builds_its_own_defaults() {
        for entry in registry() {
            let spec = MetricSpec::parse(entry.id).unwrap();
            assert_eq!(MetricSpec::parse(&spec.to_string()).unwrap().to_string(), spec.to_string());
            spec.build().unwrap_or_else(|e| panic!("{spec}: {e}"));
            assert!(!entry.paper.is_empty() && !entry.summary.is_empty() && !entry.outputs.is_empty());
            assert_eq!(registry().iter().filter(|e| e.id == entry.id).count(), 1);
        }
        // Keys are unique across metrics.
        let mut keys: Vec<&str> = registry().iter().flat_map(|e| e.outputs).map(|o| o.key).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |s: &str| MetricSpec::parse(s).unwrap_err().to_string();
        assert!(message("deltion").contains("no metric is named 'deltion'; did you mean deletion"));
        assert!(message("deletion:stpe=3").contains("step"));
        assert!(message("deletion:step=1,step=2").contains("twice"));
        assert!(message("fidelity:n=1").contains("takes none"));
    }
}
