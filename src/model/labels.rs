//! Names of classes.

use std::path::Path;

use crate::error::{Error, Result};
use crate::{near, text};

/// English names of the ImageNet-1k classes, one per line.
const IMAGENET: &str = include_str!("../../weights/imagenet-labels.txt");

/// WordNet ids of the same classes, one per line, in class order, which is also their sorted order.
const SYNSETS: &str = include_str!("../../weights/imagenet-synsets.txt");

const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Most near misses that an error lists.
const NEAR_MISSES: usize = 5;

/// Names of a net's classes in order. A name may hold synonyms, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// Whether the user supplied them.
    given: bool,
    /// Whether one of them is a number.
    has_numbers: bool,
}

/// The form in which names are compared: lower case, single spaces.
fn plain(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c == '_')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

/// Whether `word` looks like a synset id: n and eight digits.
pub fn is_synset(word: &str) -> bool {
    let digits = word.strip_prefix(['n', 'N']);
    digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

impl Labels {
    /// `class 0`, `class 1` …
    pub fn numbered(classes: usize) -> Self {
        Self::of((0..classes).map(|i| format!("class {i}")).collect())
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
        if names.len() == classes { Self::of(names) } else { Self::numbered(classes) }
    }

    /// Name of the set, if it is one of those built in.
    pub(super) fn set(&self) -> Option<&'static str> {
        let n = self.len();
        let sets = [("ImageNet", Self::for_pictures(n)), ("CIFAR-10", Self::cifar(n)), ("digits", Self::digits(n))];
        sets.into_iter().find(|(_, set)| set == self && *set != Self::numbered(n)).map(|(name, _)| name)
    }

    /// These names in class order.
    pub(crate) fn of(names: Vec<String>) -> Self {
        let is_number = |name: &str| name.trim().parse::<usize>().is_ok();
        let has_numbers = names.iter().any(|name| name.split(',').any(is_number));
        Self { names, given: false, has_numbers }
    }

    /// The classes whose name is this number.
    pub fn called_by_number(&self, number: &str) -> Vec<usize> {
        if self.has_numbers { self.called(number) } else { Vec::new() }
    }

    /// Whether the user supplied them in a file; such names take precedence over indices.
    pub fn are_given(&self) -> bool {
        self.given
    }

    /// A remark on names that are numbers and take precedence over other classes' indices.
    pub fn numbers(&self) -> Option<String> {
        let name = |i: usize| self.names[i].parse::<usize>().ok().filter(|&n| n != i && n < self.len());
        let all = 0..if self.given && self.has_numbers { self.len() } else { 0 };
        let (class, number) = all.into_iter().find_map(|i| Some((i, name(i)?)))?;
        Some(format!("--labels: a number that is the name of a class means this class: {number} is class {class}"))
    }

    /// Reads names from a text file in UTF-8 or UTF-16, one per line, for a net of `classes` classes; trailing empty
    /// lines are ignored.
    ///
    /// # Errors
    /// When the file cannot be read, the number of names is not `classes`, or a name is empty.
    pub fn from_file(path: &Path, classes: usize) -> Result<Self> {
        Self::read(path, classes, false)
    }

    /// Names for a net with one output: class 1 is `yes`, class 0 its opposite.
    pub(super) fn yes_or_not(yes: Option<&str>) -> Self {
        let not = yes.map_or_else(|| "not".to_string(), |yes| format!("not {yes}"));
        Self::of(vec![not, yes.unwrap_or("yes").to_string()])
    }

    /// As [`Labels::from_file`]; for a net with one output, a single line names class 1.
    pub(super) fn read(path: &Path, classes: usize, one_output: bool) -> Result<Self> {
        let text = text::read(path)?;
        let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_string()).collect();
        if let (true, [yes]) = (one_output, names.as_slice())
            && !yes.is_empty()
        {
            return Ok(Self { given: true, ..Self::yes_or_not(Some(yes)) });
        }
        if names.len() != classes {
            let either = if one_output { ", or the name of class 1 alone" } else { "" };
            return Err(Error::input(format!(
                "{}: {} names for a net of {classes} classes; expected one a line{either}",
                path.display(),
                names.len()
            )));
        }
        match names.iter().position(String::is_empty) {
            Some(line) => Err(Error::input(format!("{}: line {} is empty", path.display(), line + 1))),
            None => Ok(Self { given: true, ..Self::of(names) }),
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

    /// The class of the synset that occurs as a word in `text`, such as 134 in `n02012849_crane_7`. `None` without a
    /// synset, or if the names are not those of ImageNet-1k.
    ///
    /// # Errors
    /// When the synset is not among the 1000, or there are two.
    pub fn of_synset(&self, text: &str) -> Result<Option<usize>> {
        let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| is_synset(word));
        let Some(first) = words.next() else { return Ok(None) };
        if !self.iter().eq(IMAGENET.lines()) {
            return Ok(None);
        }
        if let Some(other) = words.find(|word| !word.eq_ignore_ascii_case(first)) {
            return Err(Error::settings(format!("'{text}' names two synsets, {first} and {other}")));
        }
        let class = SYNSETS.lines().position(|id| id.eq_ignore_ascii_case(first));
        class.map(Some).ok_or_else(|| Error::settings(format!("the synset {first} is not one of ImageNet's 1000")))
    }

    /// The classes with that name: exactly, else ignoring case, else by a synonym, ignoring case.
    pub fn called(&self, name: &str) -> Vec<usize> {
        let wanted = plain(name);
        let all = |suits: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..self.len()).filter(|&i| suits(&self.names[i])).collect()
        };
        let passes: [&dyn Fn(&str) -> bool; 3] =
            [&|n| n == name, &|n| plain(n) == wanted, &|n| n.split(',').any(|synonym| plain(synonym) == wanted)];
        passes.iter().map(|suits| all(suits)).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The class with that name: exactly, else ignoring case, else by a synonym, else by its synset
    /// ([`Self::of_synset`]).
    ///
    /// # Errors
    /// When no class or more than one has the name; the message lists near misses or the classes.
    pub fn find(&self, name: &str) -> Result<usize> {
        match self.called(name).as_slice() {
            [class] => Ok(*class),
            several @ [_, ..] => {
                let several: Vec<String> = several.iter().map(usize::to_string).collect();
                Err(Error::settings(format!(
                    "the classes {} are all named '{name}'; give the index",
                    several.join(" and ")
                )))
            }
            [] => {
                if let Some(class) = self.of_synset(name)? {
                    return Ok(class);
                }
                let near = self.near(&plain(name));
                let hint = if near.is_empty() { String::new() } else { format!("; near misses: {}", near.join("; ")) };
                Err(Error::settings(format!("no class is named '{name}'{hint}")))
            }
        }
    }

    /// Names that contain `wanted` or a word of it, or differ from it by few letters, nearest first.
    fn near(&self, wanted: &str) -> Vec<&str> {
        // The distance costs the product of both lengths, so a very long text gets no near misses.
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
    fn synsets_are_classes_of_imagenet() {
        assert_eq!(SYNSETS.lines().count(), 1000);
        assert!(SYNSETS.lines().all(is_synset) && SYNSETS.lines().is_sorted());
        let labels = Labels::for_pictures(1000);
        for (text, class) in [
            ("n02012849", 134),
            ("n03126707_crane", 517),
            ("n03710637_maillot-12", 638),
            ("N03710721", 639),
            ("ILSVRC2012_val_00000293_n01440764", 0),
            ("n01440764_10026_n01440764", 0),
            ("n15075141", 999),
        ] {
            assert_eq!(labels.find(text).unwrap(), class, "{text}");
        }
        let why = |text: &str| labels.find(text).unwrap_err().to_string();
        assert!(why("n00000001_tench").contains("n00000001"));
        assert!(why("n01440764_n02012849").contains("two synsets"));
        // Names of another net do not stand for ImageNet's synsets, but may be synsets themselves.
        let labels = Labels::named(["n02012849", "b"], 2);
        assert_eq!(labels.of_synset("n02012849").unwrap(), None);
        assert_eq!(labels.find("n02012849").unwrap(), 0);
        assert!(labels.find("n03126707").is_err());
    }

    #[test]
    fn a_word_in_common_is_near() {
        let labels = Labels::named(["tabby", "tiger cat", "lorry"], 3);
        assert_eq!(labels.near("tabby cat"), ["tabby", "tiger cat"]);
    }
}
