//! Formats a check's numbers for people, the same way on a page and in a terminal.

use super::check::{Finding, Threshold};

/// A measured number, with three digits.
pub fn measured(value: f64) -> String {
    rounded(value, 3)
}

/// The number of `finding`, with enough digits to show on which side of its bound it lies; empty if there is no number.
pub fn number(finding: &Finding) -> String {
    let Some(value) = finding.value else { return String::new() };
    let bound = finding.threshold.map(|threshold| match threshold {
        Threshold::AtMost(bound) | Threshold::AtLeast(bound) => bound,
    });
    let tells = |text: &String| match (bound, text.parse::<f64>()) {
        (Some(bound), Ok(shown)) => shown.partial_cmp(&bound) == value.partial_cmp(&bound),
        _ => true,
    };
    (3..17).map(|digits| rounded(value, digits)).find(tells).unwrap_or_else(|| value.to_string())
}

/// `value` with that many significant digits.
fn rounded(value: f64, digits: usize) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() { "no number" } else { "∞" }.into();
    }
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.*e}", digits - 2);
    }
    let decimals = (digits as i32 - 1 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// A chosen number, in its shortest form.
pub fn chosen(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) { format!("{value}") } else { format!("{value:e}") }
}

/// The requirement: `≤ 0.5`.
pub fn asked(threshold: Threshold) -> String {
    match threshold {
        Threshold::AtMost(value) => format!("≤ {}", chosen(value)),
        Threshold::AtLeast(value) => format!("≥ {}", chosen(value)),
    }
}

/// The relation of `finding`'s number to its bound: `≤ 0.5`, `> 0.5`; empty if there is no bound.
pub fn relation(finding: &Finding) -> String {
    match (finding.value, finding.threshold) {
        (Some(value), Some(Threshold::AtMost(bound))) if value > bound => format!("> {}", chosen(bound)),
        (Some(value), Some(Threshold::AtLeast(bound))) if value < bound => format!("< {}", chosen(bound)),
        (Some(value), Some(threshold)) if value.is_nan() => format!("not {}", asked(threshold)),
        (_, threshold) => threshold.map(asked).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::check::Verdict;

    #[test]
    fn numbers_have_the_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.42, "0.42"),
            (0.98765, "0.988"),
            (-3.0, "-3"),
            (17.25, "17.2"),
            (1234.5, "1234"),
            (1.04e-14, "1.0e-14"),
            (0.0004, "4.0e-4"),
            (2.5e7, "2.5e7"),
            (f64::NAN, "no number"),
            (f64::INFINITY, "∞"),
        ] {
            assert_eq!(measured(value), text, "{value}");
        }
        assert_eq!(asked(Threshold::AtMost(1e-6)), "≤ 1e-6");
        assert_eq!(asked(Threshold::AtLeast(0.5)), "≥ 0.5");
        assert_eq!(measured(1230.0), "1230");
    }

    #[test]
    fn a_number_and_its_relation_are_a_true_sentence() {
        let finding = |value, threshold| Finding {
            test: String::new(),
            method: String::new(),
            verdict: Verdict::Fail,
            value: Some(value),
            threshold: Some(threshold),
            measure: String::new(),
            detail: String::new(),
            notes: Vec::new(),
        };
        assert_eq!(relation(&finding(0.5, Threshold::AtMost(0.5))), "≤ 0.5");
        assert_eq!(relation(&finding(0.6, Threshold::AtMost(0.5))), "> 0.5");
        assert_eq!(relation(&finding(0.4, Threshold::AtLeast(0.5))), "< 0.5");
        assert_eq!(number(&finding(0.5004, Threshold::AtMost(0.5))), "0.5004");
        assert_eq!(number(&finding(0.4996, Threshold::AtMost(0.5))), "0.4996");
        assert_eq!(number(&finding(0.5, Threshold::AtMost(0.5))), "0.5");
        assert_eq!(number(&finding(1.04e-6, Threshold::AtMost(1e-6))), "1.04e-6");
        assert_eq!(number(&finding(3.0, Threshold::AtMost(0.5))), "3");
        assert_eq!(relation(&finding(f64::NAN, Threshold::AtLeast(0.5))), "not ≥ 0.5");
    }
}
