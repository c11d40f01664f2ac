//! Parses `name:key=value,…` into a registry entry with all its parameters.

use super::preset;
use crate::error::{Error, Result};
use crate::method::{Context, Entry, METHOD, Method, Parameter, Promise, registry};
use crate::near;
use crate::perturb::MOST_COPIES;

/// A method with all its parameters, given or default.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The method.
    pub entry: &'static Entry,
    values: ParameterValues,
}

/// The value of every parameter of a method or metric.
#[derive(Debug, Clone)]
pub struct ParameterValues {
    owner: &'static str,
    /// In the order of the registry.
    values: Vec<(&'static str, String)>,
}

impl ParameterValues {
    /// The value of `key` as written.
    ///
    /// # Errors
    /// When there is no such parameter.
    pub fn text(&self, key: &str) -> Result<&str> {
        let found = self.values.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str());
        found.ok_or_else(|| Error::settings(format!("{} has no parameter '{key}'", self.owner)))
    }

    /// Parses the value of `key`.
    ///
    /// # Errors
    /// When it does not parse; the message names owner and key.
    pub fn parse<T: std::str::FromStr>(&self, key: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(key)?;
        let wrong = |why: String| Error::settings(format!("{}:{key}={text}: {why}", self.owner));
        text.parse().map_err(|e: T::Err| {
            wrong(match std::any::type_name::<T>() {
                "usize" | "u32" | "u64" => "not a whole number of at least 0".into(),
                "f32" | "f64" => "not a number".into(),
                _ => e.to_string(),
            })
        })
    }

    /// Parses the value of `key` as a number of copies or points.
    ///
    /// # Errors
    /// When it is not such a number or exceeds 2²⁰; the message names owner and key.
    pub fn count(&self, key: &str) -> Result<usize> {
        match self.parse(key)? {
            n if n <= MOST_COPIES => Ok(n),
            n => Err(Error::settings(format!("{}:{key}={n}: there can be {MOST_COPIES} at most", self.owner))),
        }
    }

    /// Parses the value of `key` as a finite number of at least 0.
    ///
    /// # Errors
    /// When it is not one; the message names owner and key.
    pub fn not_negative(&self, key: &str) -> Result<f64> {
        match self.parse::<f64>(key)? {
            v if v >= 0.0 && v.is_finite() => Ok(v),
            v => Err(Error::settings(format!("{}:{key}={v}: not a finite number of at least 0", self.owner))),
        }
    }

    /// Parses the value of `key` as the weight of an objective or the length of a step: a finite number from 0 to 1e12.
    ///
    /// # Errors
    /// When it is not one; the message names owner and key.
    pub fn weight(&self, key: &str) -> Result<f64> {
        match self.not_negative(key)? {
            v if v <= MOST_WEIGHT => Ok(v),
            v => Err(Error::settings(format!("{}:{key}={v:e}: it can be {MOST_WEIGHT:e} at most", self.owner))),
        }
    }

    /// Parses the value of `key` as a length or factor: more than 0 and at most 10000.
    ///
    /// # Errors
    /// When it is not one; the message names owner and key.
    pub(crate) fn positive(&self, key: &str) -> Result<f64> {
        match self.not_negative(key)? {
            v if v > 0.0 && v <= 1e4 => Ok(v),
            _ => Err(self.refused(key, "it must be more than 0 and at most 10000")),
        }
    }

    /// The error that refuses the value of `key`, with the reason.
    pub(crate) fn refused(&self, key: &str, why: &str) -> Error {
        Error::settings(format!("{}:{key}={}: {why}", self.owner, self.text(key).unwrap_or_default()))
    }

    /// Values for `owner`, in the order of its parameters.
    pub(crate) fn new(owner: &'static str, values: Vec<(&'static str, String)>) -> Self {
        Self { owner, values }
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(k, v)| (*k, v.as_str()))
    }
}

/// `name:key=value,…` with every parameter.
impl std::fmt::Display for ParameterValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.owner)?;
        for (i, (key, value)) in self.iter().enumerate() {
            let separator = if i == 0 { ':' } else { ',' };
            if value.contains([',', '=', '(']) {
                write!(f, "{separator}{key}=({value})")?;
            } else {
                write!(f, "{separator}{key}={value}")?;
            }
        }
        Ok(())
    }
}

/// Largest weight of an objective's term: squares of larger ones overflow, and the descent stalls.
pub(crate) const MOST_WEIGHT: f64 = 1e12;

/// Most forward passes per map; more than a hundred days on a fast net.
const MOST_PASSES: f64 = 1e7;

/// Parameters that say how often a net is run.
const COUNTS: [&str; 4] = ["n", "steps", "copies", "iterations"];

/// Assumed number of decoys per picture if the net determines it: that of a 7×7 first layer with stride 2.
const DECOYS: f64 = 18.0;

/// Deepest nesting of methods.
const MOST_NESTED: usize = 4;

impl Spec {
    /// Parses `name` or `name:key=value,key=(value with , or =)`.
    ///
    /// # Errors
    /// When the name or a key is unknown (the message lists near misses), a key is given twice, or the text does not
    /// have this form. A parameter that is a method is parsed in the same way, nested four deep at most.
    pub fn parse(text: &str) -> Result<Self> {
        Self::nested(text, 0)
    }

    fn nested(text: &str, depth: usize) -> Result<Self> {
        if depth > MOST_NESTED {
            return Err(Error::settings(format!("methods nest {MOST_NESTED} deep at most")));
        }
        let (entry, values) = read::<Entry>(text)?;
        let name = values.iter().find(|(k, _)| *k == "preset").and_then(|(_, v)| v.as_deref());
        let by_preset = preset::values(entry.id, name)?;
        let default = |p: &Parameter| by_preset.iter().find(|(k, _)| *k == p.key).map_or(p.default, |(_, v)| *v);
        let resolved = values.into_iter().zip(entry.parameters);
        let resolve = |((key, v), p): ((&'static str, Option<String>), &Parameter)| {
            let mut value = v.unwrap_or_else(|| default(p).into());
            if p.unit == METHOD {
                let inner = Self::nested(&value, depth + 1);
                value = inner.map_err(|e| e.within(format!("{}:{key}", entry.id)))?.to_string();
            }
            Ok((key, value))
        };
        let values = resolved.map(resolve).collect::<Result<_>>()?;
        Ok(Self { entry, values: ParameterValues::new(entry.id, values) })
    }

    /// The value of every parameter.
    pub fn values(&self) -> &ParameterValues {
        &self.values
    }

    /// Forward passes per map, as far as the parameters determine it: copies, steps and iterations; for a method on
    /// copies, times those of its base. Windows, channels and stages, which depend on net and picture, are not counted.
    #[must_use]
    pub fn passes(&self) -> f64 {
        let count = |key: &str| self.values.parse::<usize>(key).ok().map(|n| n as f64);
        match self.base() {
            None => COUNTS.iter().filter_map(|key| count(key)).product(),
            // Decoys are used with both signs and are fitted; noisy copies are not.
            Some(base) => match count("iterations") {
                None => count("n").unwrap_or(1.0) * base.passes(),
                Some(iterations) => count("n").map_or(DECOYS, |n| 2.0 * n) * base.passes() + iterations,
            },
        }
    }

    /// The method with which this one explains copies, if any.
    #[must_use]
    pub fn base(&self) -> Option<Self> {
        let parameter = self.entry.parameters.iter().find(|p| p.unit == METHOD)?;
        Self::parse(self.values.text(parameter.key).ok()?).ok()
    }

    /// Refuses more passes than anyone can wait for.
    fn bounded(&self) -> Result<()> {
        let passes = self.passes();
        if passes <= MOST_PASSES {
            return Ok(());
        }
        let base = self.entry.parameters.iter().filter(|p| p.unit == METHOD).map(|p| p.key);
        let keys = COUNTS.iter().copied().filter(|key| self.values.text(key).is_ok()).chain(base);
        let given = keys.filter_map(|key| Some(format!("{key}={}", self.values.text(key).ok()?)));
        Err(Error::settings(format!(
            "{}:{} takes {passes:.1e} passes of the net for one map; there can be {MOST_PASSES:e} at most",
            self.entry.id,
            given.collect::<Vec<_>>().join(",")
        )))
    }

    /// The method's promises for these values.
    pub fn promises(&self) -> Vec<Promise> {
        self.entry.promises.iter().filter(|(_, when)| when.holds(&self.values)).map(|&(promise, _)| promise).collect()
    }

    /// Whether the method draws random numbers for these values.
    pub fn draws(&self) -> bool {
        self.entry.draws.holds(&self.values)
    }

    /// Builds the method.
    ///
    /// # Errors
    /// When a value is out of its range, or a map would take more than 10⁷ passes.
    pub fn build(&self, context: &Context<'_>) -> Result<Box<dyn Method>> {
        self.bounded()?;
        (self.entry.build)(&self.values, context)
    }
}

impl std::str::FromStr for Spec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::parse(s)
    }
}

/// With every parameter, as [`Spec::parse`] reads it.
impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.values.fmt(f)
    }
}

impl Registered for Entry {
    const KIND: &'static str = "method";

    fn registry() -> &'static [Self] {
        registry()
    }

    fn id(&self) -> &'static str {
        self.id
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}

/// An entry of a registry, written as `name:key=value,…`.
pub(crate) trait Registered: Sized + 'static {
    /// The kind of entry, as messages call it.
    const KIND: &'static str;

    /// All entries.
    fn registry() -> &'static [Self];

    /// Its name.
    fn id(&self) -> &'static str;

    /// Other names for it.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// In the registry's order.
    fn parameters(&self) -> &'static [Parameter];
}

impl Parameter {
    /// `value`, or the choice of the parameter that it abbreviates.
    fn choice(&self, value: &str) -> String {
        // Words in capitals are placeholders, such as for files.
        let words = self.unit.split('|').filter(|w| {
            // A unit such as `1` is not a word: the sign of a number matters.
            w.starts_with(|c: char| c.is_ascii_lowercase())
                && w.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        });
        near::find(value, words, |word| [*word]).unwrap_or(value).to_string()
    }
}

/// The value of each parameter, in the order of the registry; `None` if not given.
pub(crate) type Given = Vec<(&'static str, Option<String>)>;

/// Parses `text` into an entry and the given parameters.
///
/// # Errors
/// When the name or a key is unknown (the message lists near misses), a key is given twice, or the text does not have
/// the form `name` or `name:key=value,key=(value with , or =)`.
pub(crate) fn read<E: Registered>(text: &str) -> Result<(&'static E, Given)> {
    let kind = E::KIND;
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let names = |e: &&'static E| std::iter::once(e.id()).chain(e.aliases().iter().copied());
    let entry = near::find(name, E::registry().iter(), names).ok_or_else(|| {
        let known = E::registry().iter().flat_map(|e| names(&e));
        Error::settings(format!("no {kind} is named '{name}'; {}", near::nearest(name, known)))
    })?;
    let mut values: Given = entry.parameters().iter().map(|p| (p.key, None)).collect();
    for part in split(rest).map_err(|e| e.within(format!("{kind} '{text}'")))? {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| Error::settings(format!("{kind} '{text}': '{part}' is not of the form key=value")))?;
        let parameter = near::find(key, entry.parameters().iter(), |p| [p.key]).ok_or_else(|| {
            let keys = near::nearest(key, entry.parameters().iter().map(|p| p.key));
            Error::settings(format!("{} has no parameter '{key}'; {keys}", entry.id()))
        })?;
        let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')')).unwrap_or(value);
        let slots = values.iter_mut().filter(|(k, _)| *k == parameter.key);
        if slots.filter_map(|slot| slot.1.replace(parameter.choice(inner))).next().is_some() {
            return Err(Error::settings(format!("{kind} '{text}' gives {key} twice")));
        }
    }
    Ok((entry, values))
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Result<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1).ok_or_else(|| Error::settings("a ')' closes nothing"))?;
            }
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(Error::settings("a '(' is not closed"));
    }
    if start < text.len() || !parts.is_empty() {
        parts.push(&text[start..]);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_parentheses() {
        let spec = Spec::parse("ig:steps=7,baseline=(value:-2),rule=left").unwrap();
        assert_eq!(spec.entry.id, "integrated_gradients");
        assert_eq!(spec.values().text("baseline").unwrap(), "value:-2");
        assert_eq!(spec.values().parse::<usize>("steps").unwrap(), 7);
        let again = Spec::parse(&spec.to_string()).unwrap();
        assert_eq!(again.to_string(), spec.to_string());
    }

    #[test]
    fn names_are_understood_however_they_are_written() {
        for (text, id) in [
            ("GradCAM", "grad_cam"),
            ("IG", "integrated_gradients"),
            ("grad-cam", "grad_cam"),
            ("Integrated Gradients", "integrated_gradients"),
            ("SmoothGrad", "smoothgrad"),
            ("gradcam++", "grad_cam_pp"),
            ("Grad-CAM++", "grad_cam_pp"),
            ("guided-backprop", "guided_backprop"),
            ("LRP", "lrp"),
        ] {
            assert_eq!(Spec::parse(text).unwrap().entry.id, id, "{text}");
        }
        let spec = Spec::parse("Integrated-Gradients:Steps=7,rule=Gauss-Legendre").unwrap();
        assert_eq!(spec.to_string(), Spec::parse("ig:steps=7,rule=gausslegendre").unwrap().to_string());
        assert_eq!(
            Spec::parse("LRP:preset=EpsilonPlus").unwrap().to_string(),
            Spec::parse("lrp:preset=epsilon_plus").unwrap().to_string()
        );
        let quick = Spec::parse("HAF:preset=Quick").unwrap().to_string();
        assert_eq!(quick, Spec::parse("haf:preset=quick").unwrap().to_string());
        let nested = Spec::parse("Smooth:base=(Grad-CAM)").unwrap();
        assert_eq!(nested.to_string(), Spec::parse("smooth:base=grad_cam").unwrap().to_string());
        // A file's name is not a choice.
        assert_eq!(Spec::parse("ig:baseline=(file:Zero)").unwrap().values().text("baseline").unwrap(), "file:Zero");
    }

    /// No two entries are equal when case and separators are ignored.
    #[test]
    fn names_differ_in_more_than_case_and_separators() {
        let mut forms = std::collections::BTreeMap::new();
        for entry in registry() {
            for name in std::iter::once(entry.id).chain(entry.aliases.iter().copied()) {
                let first = *forms.entry(near::plain(name)).or_insert(entry.id);
                assert_eq!(first, entry.id, "{name}");
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let message = |s: &str| Spec::parse(s).unwrap_err().to_string();
        assert!(message("smoothgard").contains("smoothgrad"));
        assert!(message("smoothgrad:sigm=1").contains("sigma"));
        assert!(message("smoothgrad:n=1,n=2").contains("twice"));
        assert!(message("smoothgrad:n").contains("key=value"));
        assert!(message("ig:baseline=(zero").contains("not closed"));
        assert!(message("ig:baseline=zero)").contains("closes nothing"));
        assert!(message("gradient:n=1").contains("takes none"));
        assert!(message("smoothgrad:n=1,").contains("key=value"));
    }

    #[test]
    fn passes_of_methods_on_copies_multiply() {
        let passes = |s: &str| Spec::parse(s).unwrap().passes();
        assert_eq!((passes("gradient"), passes("ig:steps=7"), passes("relex:copies=3,iterations=5")), (1.0, 7.0, 15.0));
        assert_eq!(passes("smooth:n=4,base=(smooth:n=5,base=(ig:steps=6))"), 120.0);
        assert_eq!(passes("decoy:masks=patch,n=3,iterations=9,base=(ig:steps=2)"), 21.0);
        let deep = Spec::parse("smooth:n=1000,base=(smooth:n=1000,base=(smoothgrad:n=1000))").unwrap();
        let why = deep.bounded().unwrap_err().to_string();
        assert!(why.starts_with("smooth:n=1000,base=smooth:") && why.contains("1.0e9 passes"), "{why}");
        for entry in registry() {
            Spec::parse(entry.id).unwrap().bounded().unwrap();
        }
    }

    #[test]
    fn every_entry_parses_its_own_defaults() {
        for entry in registry() {
            let spec = Spec::parse(entry.id).unwrap();
            assert_eq!(Spec::parse(&spec.to_string()).unwrap().to_string(), spec.to_string());
            assert!(!entry.paper.is_empty() && !entry.summary.is_empty() && !entry.passes.is_empty());
            assert!(registry().iter().filter(|e| e.id == entry.id || e.aliases.contains(&entry.id)).count() == 1);
        }
    }
}
