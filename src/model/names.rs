//! Names of tensors: prefixes that wrappers add, what training keeps beside a net, names that other projects give to the
//! same layers, and the order of layers.

use std::collections::BTreeMap;

use super::extras::root;
use super::tensors::{StoredTensor, Tensors};
use crate::error::{Error, Result};

/// Most prefixes that are tried, one part longer each.
const MOST_PREFIXES: usize = 8;

/// Most linear layers that are ordered by their sizes.
const MOST_CHAINED: usize = 6;

/// Names that a project other than the family's own gives to the tensors of the same nets.
pub(super) struct Dialect {
    /// Who writes them, for messages and for what differs besides the names.
    pub(super) name: &'static str,
    /// Names that tell it.
    pub(super) tells: &'static [&'static str],
    /// What is replaced by what, one rule after the other, see [`replaced`].
    pub(super) rules: &'static [(&'static str, &'static str)],
}

/// Matches `pattern` at the start of `text`; `#` stands for digits, which go to `numbers`. Returns the rest.
fn matched<'a>(pattern: &str, text: &'a str, numbers: &mut Vec<usize>) -> Option<&'a str> {
    let Some((literal, tail)) = pattern.split_once('#') else { return text.strip_prefix(pattern) };
    let rest = text.strip_prefix(literal)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    numbers.push(rest[..end].parse().ok()?);
    matched(tail, &rest[end..], numbers)
}

/// `to` with `{i}`, `{i+n}` and `{i-n}` replaced by the i-th number, plus or minus n; `None` for a negative number.
fn filled(to: &str, numbers: &[usize]) -> Option<String> {
    let mut out = String::new();
    let mut rest = to;
    while let Some((text, tail)) = rest.split_once('{') {
        let (slot, tail) = tail.split_once('}')?;
        let (index, offset) = slot.split_at(slot.find(['+', '-']).unwrap_or(slot.len()));
        let number = numbers.get(index.parse::<usize>().ok()?)?;
        let by = if offset.is_empty() { 0 } else { offset.parse::<isize>().ok()? };
        out.push_str(text);
        out.push_str(&number.checked_add_signed(by)?.to_string());
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// A name after the rules of a dialect. A rule `(from, to)` replaces whole parts of a name, at its start, or where a
/// part starts if `from` begins with `*.`; `#` in `from` matches a number, `{0+1}` in `to` is the first such number plus
/// one.
fn replaced(name: &str, rules: &[(&str, &str)]) -> String {
    let mut name = name.to_string();
    for (from, to) in rules {
        let (from, anywhere) = from.strip_prefix("*.").map_or((*from, false), |from| (from, true));
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        let found = starts.filter(|&at| at == 0 || anywhere).find_map(|at| {
            let mut numbers = Vec::new();
            let rest = matched(from, &name[at..], &mut numbers)?;
            (rest.is_empty() || rest.starts_with('.')).then_some(())?;
            Some(format!("{}{}{rest}", &name[..at], filled(to, &numbers)?))
        });
        name = found.unwrap_or(name);
    }
    name
}

/// Splits a name into texts and numbers, so that `fc10` sorts after `fc9`.
pub(super) fn parts(name: &str) -> (Vec<&str>, Vec<u64>) {
    let (mut texts, mut numbers, mut rest) = (Vec::new(), Vec::new(), name);
    loop {
        let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        texts.push(text);
        if tail.is_empty() {
            return (texts, numbers);
        }
        let (number, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        numbers.push(number.parse().unwrap_or(u64::MAX));
        rest = tail;
    }
}

/// Orders in which each of `layers` (inputs, outputs) reads what the one before it gives and gives no more, at most two.
fn chains(layers: &[(usize, usize)]) -> Vec<Vec<usize>> {
    fn extend(layers: &[(usize, usize)], chain: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
        if chain.len() == layers.len() {
            found.push(chain.clone());
        }
        for next in 0..layers.len() {
            // A layer that gives more than it reads, and is not the last, may be the end of a gate.
            let (inputs, outputs) = layers[next];
            let narrows = outputs <= inputs || chain.len() + 1 == layers.len();
            let fits = chain.last().is_none_or(|&last| layers[last].1 == inputs && narrows);
            if fits && !chain.contains(&next) && found.len() < 2 {
                chain.push(next);
                extend(layers, chain, found);
                chain.pop();
            }
        }
    }
    let mut found = Vec::new();
    extend(layers, &mut Vec::new(), &mut found);
    found
}

impl Tensors {
    /// Prefixes that most names share, none first, each one part longer than the one before; see [`Tensors::rename`].
    pub(super) fn prefixes(&self) -> Vec<String> {
        let beside_extras: Vec<&str> = self.names().collect();
        let all: Vec<&str> =
            if beside_extras.is_empty() { self.stored.keys().map(String::as_str).collect() } else { beside_extras };
        let mut prefixes = vec![String::new()];
        while prefixes.len() < MOST_PREFIXES {
            let Some(prefix) = prefixes.last() else { break };
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for rest in all.iter().filter_map(|name| name.strip_prefix(prefix.as_str())) {
                if let Some((part, _)) = rest.split_once('.') {
                    *counts.entry(part).or_insert(0) += 1;
                }
            }
            let Some((part, _)) = counts.into_iter().find(|(_, n)| 2 * n > all.len()) else { break };
            prefixes.push(format!("{prefix}{part}."));
        }
        prefixes
    }

    /// The tensors by other names: without `prefix`, then by the rules of `dialect`; what lies outside of the prefix keeps
    /// its names. `None` if two tensors would get one name.
    fn called(&self, prefix: &str, dialect: Option<&Dialect>) -> Option<BTreeMap<String, StoredTensor>> {
        let mut called = BTreeMap::new();
        for (name, tensor) in &self.stored {
            let key = match (name.strip_prefix(prefix), dialect) {
                (Some(inside), Some(dialect)) => replaced(inside, dialect.rules),
                (Some(inside), None) => inside.to_string(),
                (None, _) => name.clone(),
            };
            if called.insert(key, tensor.clone()).is_some() {
                return None;
            }
        }
        Some(called)
    }

    /// Renames the tensors such that `suits` holds, by taking a prefix off and speaking one of `dialects`; the shortest
    /// prefix counts. Returns whether any names do.
    ///
    /// # Errors
    /// Those of `suits`.
    pub(super) fn rename(
        &mut self,
        prefix: &str,
        dialects: &[Dialect],
        suits: fn(&Tensors) -> Result<bool>,
    ) -> Result<bool> {
        // What tells a dialect is more than what tells the family.
        for dialect in dialects.iter().map(Some).chain([None]) {
            let tells = dialect.map_or(&[][..], |dialect| dialect.tells);
            if !tells.iter().all(|name| self.has(&format!("{prefix}{name}"))) {
                continue;
            }
            if prefix.is_empty() && dialect.is_none() {
                if suits(self)? {
                    return Ok(true);
                }
                continue;
            }
            let Some(called) = self.called(prefix, dialect) else { continue };
            let before = std::mem::replace(&mut self.stored, called);
            self.dialect = dialect.map_or("", |dialect| dialect.name);
            match suits(self) {
                Ok(false) => {
                    self.stored = before;
                    self.dialect = "";
                }
                other => return other,
            }
        }
        Ok(false)
    }

    /// The tensors under every prefix and in every dialect that the file may speak.
    pub(super) fn all_names(&self, dialects: &[Dialect]) -> Vec<Tensors> {
        let mut all = Vec::new();
        for prefix in self.prefixes() {
            for dialect in std::iter::once(None).chain(dialects.iter().map(Some)) {
                let tells = dialect.map_or(&[][..], |dialect| dialect.tells);
                let spoken = dialect.is_none() || tells.iter().any(|name| self.has(&format!("{prefix}{name}")));
                let called = spoken.then(|| self.called(&prefix, dialect)).flatten();
                let named = dialect.map_or("", |dialect| dialect.name);
                all.extend(called.map(|stored| self.with(stored, named)));
            }
        }
        all
    }

    /// The layers that are left when the rest of the net has been read, in order: by their numbers, or where names do not
    /// order them, the one order that their sizes allow.
    ///
    /// # Errors
    /// When no linear one is left, or the order is not clear.
    pub(super) fn head(&self) -> Result<Vec<HeadLayer>> {
        let (layers, norms) = (self.unread_layers(), self.unread_norms());
        if layers.is_empty() {
            return Err(Error::model(
                "the net has no head: after its last pool no linear layer is left, so it has no classes; save the whole \
                 net, with its classifier",
            ));
        }
        let all: Vec<&str> = layers.iter().chain(&norms).copied().collect();
        // The head has a part of its own, but for a norm before it.
        let inside = |name: &&&str| self.reads_beside(name) && !["classifier", "head"].contains(&root(name));
        if let Some(name) = all.iter().find(inside) {
            let name = format!("{name}.weight");
            return Err(Error::model(format!("tensor '{}' has no place in the net", self.in_file(&name))));
        }
        let start = |name: &str| parts(name).0[0].to_string();
        if all.iter().all(|name| !parts(name).1.is_empty() && start(name) == start(all[0])) {
            let mut ordered = all;
            ordered.sort_by_cached_key(|name| parts(name).1);
            return activated(&ordered, |name| norms.contains(&name));
        }
        let size = |name: &&str| match self.shape(&format!("{name}.weight")) {
            Some(&[out, inputs]) => (inputs, out),
            _ => (0, 0),
        };
        let sizes: Vec<(usize, usize)> = layers.iter().map(size).collect();
        let found = if layers.len() > MOST_CHAINED || !norms.is_empty() { Vec::new() } else { chains(&sizes) };
        match &found[..] {
            [order] => activated(&order.iter().map(|&i| layers[i]).collect::<Vec<_>>(), |_| false),
            _ => Err(Error::model(format!(
                "the order of the last layers is not clear from their names and sizes: tensors '{}'; export the net as ONNX",
                all.iter().map(|name| format!("{name}.weight")).collect::<Vec<_>>().join("', '")
            ))),
        }
    }
}

/// A layer of a net's head.
pub(super) struct HeadLayer {
    pub(super) name: String,
    pub(super) is_norm: bool,
    /// Whether an activation follows.
    pub(super) active: bool,
}

/// The layers with an activation between each two linear ones: after the norm that follows a linear layer at once, else
/// after the linear layer. Positions in a list must leave place for it.
fn activated(ordered: &[&str], is_norm: impl Fn(&str) -> bool) -> Result<Vec<HeadLayer>> {
    let mut head: Vec<HeadLayer> = ordered
        .iter()
        .map(|name| HeadLayer { name: name.to_string(), is_norm: is_norm(name), active: false })
        .collect();
    let linear: Vec<usize> = (0..head.len()).filter(|&i| !head[i].is_norm).collect();
    let (Some(&first), Some(&last)) = (linear.first(), linear.last()) else { return Ok(head) };
    // Only positions in a list say on which side of a norm the activation is.
    let positioned = |name: &&str| name.rsplit('.').next().is_some_and(|last| last.parse::<usize>().is_ok());
    let unclear = linear.len() != head.len() && !ordered.iter().all(positioned);
    if unclear || first > 1 || last + 1 != head.len() || linear.windows(2).any(|pair| pair[1] > pair[0] + 2) {
        return Err(Error::model(format!(
            "the layers of the head are not clear from their names: '{}'",
            ordered.join("', '")
        )));
    }
    for pair in linear.windows(2) {
        let is_joined = pair[1] == pair[0] + 2 && follows(ordered[pair[0]], ordered[pair[0] + 1]);
        let at = pair[0] + usize::from(is_joined);
        if follows(ordered[at], ordered[at + 1]) {
            return Err(Error::model(format!(
                "the layers '{}' and '{}' leave no place for an activation between them, and names do not say whether \
                 there is one; export the net as ONNX",
                ordered[at],
                ordered[at + 1]
            )));
        }
        head[at].active = true;
    }
    Ok(head)
}

/// Whether two names are neighbours in one list, as `fc.0` and `fc.1` are.
fn follows(first: &str, second: &str) -> bool {
    let split = |name: &str| {
        let (list, last) = name.rsplit_once('.').unwrap_or(("", name));
        Some((list.to_string(), last.parse::<usize>().ok()?))
    };
    split(first).zip(split(second)).is_some_and(|((a, i), (b, j))| a == b && i + 1 == j)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extras::is_extra;

    #[test]
    fn rules_replace_whole_parts_and_count() {
        let rules = [("stages.#.layers.#.layer.#.norm", "layer{0+1}.{1}.bn{2+1}"), ("*.shortcut", "downsample")];
        assert_eq!(replaced("stages.0.layers.11.layer.2.norm.bias", &rules), "layer1.11.bn3.bias");
        assert_eq!(replaced("layer2.0.shortcut.0.weight", &rules), "layer2.0.downsample.0.weight");
        assert_eq!(replaced("layer2.0.shortcuts.0.weight", &rules), "layer2.0.shortcuts.0.weight");
        assert_eq!(replaced("b0.weight", &[("b#", "b{0-1}")]), "b0.weight");
        assert_eq!(replaced("a.b4.weight", &[("b#", "c")]), "a.b4.weight");
    }

    #[test]
    fn sizes_order_layers_only_if_one_order_fits() {
        assert_eq!(chains(&[(8, 10), (512, 64), (64, 8)]), [vec![1, 2, 0]]);
        assert_eq!(chains(&[(8, 8), (8, 8)]).len(), 2);
        // Squeezed and expanded again: no head.
        assert!(chains(&[(512, 32), (32, 512), (512, 10)]).is_empty());
        assert!(chains(&[(512, 8), (512, 2)]).is_empty());
    }

    #[test]
    fn what_training_keeps_is_told_by_the_first_part() {
        for name in ["epoch", "mean", "AuxLogits.fc.weight", "optimizer.state.0.exp_avg", "ema.conv1.weight"] {
            assert!(is_extra(name), "{name}");
        }
        for name in ["conv1.weight", "layer1.0.aux.weight", "fc.mean", "meaning.weight", "norm.weight"] {
            assert!(!is_extra(name), "{name}");
        }
    }
}
