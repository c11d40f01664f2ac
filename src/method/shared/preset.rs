//! Presets: a name for several values of a method's parameters.
//!
//! A preset sets only the parameters that are not given explicitly.

use crate::error::{Error, Result};
use crate::method::PRESETS;

/// Values of the named preset of a method, by key; empty if the method has no presets or no preset is named.
///
/// # Errors
/// When the method has presets, but not this one.
pub(crate) fn values(method: &str, name: Option<&str>) -> Result<&'static [(&'static str, &'static str)]> {
    let (Some(&(_, presets)), Some(name)) = (PRESETS.iter().find(|(id, _)| *id == method), name) else {
        return Ok(&[]);
    };
    presets.iter().find(|(n, _)| *n == name).map(|&(_, values)| values).ok_or_else(|| {
        let names: Vec<&str> = presets.iter().map(|(n, _)| *n).collect();
        Error::settings(format!("{method}:preset={name}: there are {}", names.join(" and ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Spec, registry};

    #[test]
    fn what_is_given_overrides_the_preset() {
        for (id, presets) in PRESETS {
            let plain = Spec::parse(id).unwrap();
            for (name, overlay) in presets {
                let spec = Spec::parse(&format!("{id}:preset={name}")).unwrap();
                for (key, value) in spec.values().iter() {
                    let by_preset = overlay.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
                    let want =
                        if key == "preset" { name } else { by_preset.unwrap_or(plain.values().text(key).unwrap()) };
                    assert_eq!(value, want, "{id}:preset={name}, {key}");
                }
                // The printed form parses to the same.
                assert_eq!(Spec::parse(&spec.to_string()).unwrap().to_string(), spec.to_string());
                for (key, value) in *overlay {
                    let default = plain.values().text(key).unwrap();
                    assert_ne!(default, *value, "{id}: preset {name} repeats the default of {key}");
                    let spec = Spec::parse(&format!("{id}:{key}={default},preset={name}")).unwrap();
                    assert_eq!(spec.values().text(key).unwrap(), default, "{id}: {key} is given");
                }
            }
        }
    }

    /// The help of `preset` names each value.
    #[test]
    fn presets_are_documented() {
        for (id, presets) in PRESETS {
            let entry = registry().iter().find(|e| e.id == id).unwrap();
            let parameter = entry.parameters.iter().find(|p| p.key == "preset").unwrap();
            assert_eq!(presets[0], (parameter.default, &[][..]), "{id}: the defaults are the first preset");
            for (name, overlay) in presets {
                assert!(parameter.unit.split('|').any(|n| n == *name) && parameter.help.contains(name), "{id} {name}");
                for (key, value) in *overlay {
                    assert!(parameter.help.contains(&format!("{key}={value}")), "{id}: {key}={value}");
                }
            }
        }
    }

    #[test]
    fn unknown_presets_are_refused() {
        for (id, _) in PRESETS {
            let message = Spec::parse(&format!("{id}:preset=slow")).unwrap_err().to_string();
            assert_eq!(message, format!("{id}:preset=slow: there are paper and quick"));
        }
    }
}
