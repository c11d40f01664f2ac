//! Names of classes.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result, open_file};
use crate::near;

/// English names of the ImageNet-1k classes, one a line.
const IMAGENET: &str = include_str!("../../weights/imagenet-labels.txt");

const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Near misses that an error lists at most.
const NEAR_MISSES: usize = 5;

/// Names of a net's classes in order. A name may hold synonyms, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
}

/// Form in which names are compared: lower case, one space between words.
fn plain(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c == '_')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

impl Labels {
    /// `class 0`, `class 1` …
    pub fn numbered(classes: usize) -> Self {
        Self { names: (0..classes).map(|i| format!("class {i}")).collect() }
    }

    /// ImageNet's names for 1000 classes, numbers for any other count.
    pub fn for_pictures(classes: usize) -> Self {
        Self::named(IMAGENET.lines(), classes)
    }

    /// CIFAR-10's names for 10 classes, numbers for any other count.
    pub fn cifar(classes: usize) -> Self {
        Self::named(CIFAR10, classes)
    }

    /// `0` … `9` for 10 classes, numbers for any other count.
    pub fn digits(classes: usize) -> Self {
        Self::named(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], classes)
    }

    fn named<'a>(names: impl IntoIterator<Item = &'a str>, classes: usize) -> Self {
        let names: Vec<String> = names.into_iter().map(str::to_string).collect();
        if names.len() == classes { Self { names } } else { Self::numbered(classes) }
    }

    /// The set of names that this is, where it is one of those known here.
    pub(super) fn set(&self) -> Option<&'static str> {
        let n = self.len();
        let sets = [("ImageNet", Self::for_pictures(n)), ("CIFAR-10", Self::cifar(n)), ("digits", Self::digits(n))];
        sets.into_iter().find(|(_, set)| set == self && *set != Self::numbered(n)).map(|(name, _)| name)
    }

    /// These names in class order.
    pub(super) fn of(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Names from a text file, one a line, for a net of `classes` classes; empty lines at the end do not count.
    ///
    /// # Errors
    /// When the file cannot be read, has not one name a class, or a name is empty.
    pub fn from_file(path: &Path, classes: usize) -> Result<Self> {
        let mut text = String::new();
        open_file(path)?.read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
        let names: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
        if names.len() != classes {
            return Err(Error::input(format!(
                "{}: {} names for a net of {classes} classes; expected one a line",
                path.display(),
                names.len()
            )));
        }
        match names.iter().position(String::is_empty) {
            Some(line) => Err(Error::input(format!("{}: line {} is empty", path.display(), line + 1))),
            None => Ok(Self { names }),
        }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Name of a class.
    pub fn get(&self, class: usize) -> Option<&str> {
        self.names.get(class).map(String::as_str)
    }

    /// All names in class order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The class of that name: as written, else in any case, else one of its synonyms in any case.
    ///
    /// # Errors
    /// When no class or more than one has the name; lists near misses or the classes.
    pub fn find(&self, name: &str) -> Result<usize> {
        let wanted = plain(name);
        let all = |suits: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..self.len()).filter(|&i| suits(&self.names[i])).collect()
        };
        let passes = [
            all(&|n| n == name),
            all(&|n| plain(n) == wanted),
            all(&|n| n.split(',').any(|synonym| plain(synonym) == wanted)),
        ];
        match passes.into_iter().find(|found| !found.is_empty()).as_deref() {
            Some([class]) => Ok(*class),
            Some(several) => {
                let several: Vec<String> = several.iter().map(usize::to_string).collect();
                Err(Error::settings(format!(
                    "the classes {} are all named '{name}'; give the index",
                    several.join(" and ")
                )))
            }
            None => {
                let near = self.near(&wanted);
                let hint = if near.is_empty() { String::new() } else { format!("; near misses: {}", near.join("; ")) };
                Err(Error::settings(format!("no class is named '{name}'{hint}")))
            }
        }
    }

    /// Names that hold `wanted` or a word of it or differ from it by few letters, nearest first.
    fn near(&self, wanted: &str) -> Vec<&str> {
        // Distances cost the product of both lengths: a very long text has no near miss.
        if wanted.is_empty() || wanted.len() > 200 {
            return Vec::new();
        }
        let distance = |synonym: &str| {
            let synonym = plain(synonym);
            let edits = near::edits(wanted, &synonym);
            let shares_word = wanted.split(' ').any(|word| word.len() > 2 && synonym.split(' ').any(|w| w == word));
            let near = edits <= wanted.chars().count().div_ceil(3) || shares_word || synonym.contains(wanted);
            near.then_some(edits)
        };
        let mut found: Vec<(usize, &str)> = self
            .iter()
            .filter(|name| name.len() <= 200)
            .filter_map(|name| Some((name.split(',').filter_map(distance).min()?, name)))
            .collect();
        found.sort_by_key(|&(distance, _)| distance);
        found.into_iter().take(NEAR_MISSES).map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_in_common_is_near() {
        let labels = Labels::named(["tabby", "tiger cat", "lorry"], 3);
        assert_eq!(labels.near("tabby cat"), ["tabby", "tiger cat"]);
    }
}
