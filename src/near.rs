//! Matches names as people type them: which known name is meant, and which ones are similar.

/// The form in which names are compared: lower case, without spaces, `-` and `_`, except that one of them between two
/// digits is kept as `_` (`1_6gf` is not `16gf`); `+` becomes the letter p, as in `grad_cam_pp`.
pub(crate) fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut separated = false;
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_whitespace() || matches!(c, '-' | '_') {
            separated = true;
            continue;
        }
        let between = c.is_ascii_digit() && plain.ends_with(|last: char| last.is_ascii_digit());
        if separated && between {
            plain.push('_');
        }
        separated = false;
        plain.push(if c == '+' { 'p' } else { c });
    }
    plain
}

/// The item named `wanted`: by an exact match with one of its `names`, else by a match in [`plain`] form.
pub(crate) fn find<T, N>(wanted: &str, items: impl Iterator<Item = T> + Clone, names: impl Fn(&T) -> N) -> Option<T>
where
    N: IntoIterator<Item = &'static str>,
{
    let named = |suits: &dyn Fn(&str) -> bool| items.clone().find(|item| names(item).into_iter().any(suits));
    let form = plain(wanted);
    named(&|name| name == wanted).or_else(|| named(&|name| !form.is_empty() && plain(name) == form))
}

/// `did you mean …?` with the most similar names, or all names if none is similar.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let form = plain(name);
    let mut scored: Vec<(usize, &str)> = names.map(|n| (edits(&form, &plain(n)), n)).collect();
    scored.sort_unstable();
    let near: Vec<&str> =
        scored.iter().filter(|(d, n)| *d <= n.len().max(name.len()) / 2).take(3).map(|s| s.1).collect();
    match near[..] {
        _ if scored.is_empty() => "it takes none".into(),
        [] => format!("there are {}", scored.iter().map(|s| s.1).collect::<Vec<_>>().join(", ")),
        _ => format!("did you mean {}?", near.join(", ")),
    }
}

/// The Levenshtein distance of `a` and `b`.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
    }

    #[test]
    fn case_and_separators_do_not_count() {
        let known = ["grad_cam", "grad_cam_pp", "integrated_gradients"];
        let meant = |wanted| find(wanted, known.into_iter(), |name| [*name]);
        assert_eq!(meant("GradCAM"), Some("grad_cam"));
        assert_eq!(meant("Grad-CAM++"), Some("grad_cam_pp"));
        assert_eq!(meant("Integrated Gradients"), Some("integrated_gradients"));
        assert_eq!(meant("gradcams"), None);
        let sizes = ["regnet_y_1_6gf", "regnet_y_3_2gf"];
        let meant_size = |wanted| find(wanted, sizes.into_iter(), |name| [*name]);
        assert_eq!((meant_size("RegNet-Y 1-6gf"), meant_size("regnet_y_16gf")), (Some("regnet_y_1_6gf"), None));
        assert_eq!(meant(" -"), None);
        // An exact match takes precedence.
        assert_eq!(find("A", ["a", "A"].into_iter(), |name| [*name]), Some("A"));
    }
}
