//! Area under the receiver operating characteristic: how well a score separates two kinds.

use super::bootstrap::{Bootstrap, index, quantile};
use crate::error::{Error, Result};
use crate::random::Stream;

/// Score of one case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredCase {
    /// Origin of the case: cases of one group, such as a picture and its attacked versions, are resampled together.
    pub group: usize,
    /// Whether it should score high.
    pub positive: bool,
    /// The score.
    pub score: f64,
}

/// The probability that a positive case scores higher than a negative one, where equal scores count half (Mann and
/// Whitney's U divided by the number of pairs); exact. `None` without a positive or without a negative case.
///
/// # Errors
/// When a score is NaN.
pub fn auc(cases: &[ScoredCase]) -> Result<Option<f64>> {
    let order = ascending(cases)?;
    Ok(area(cases, &order, |_| 1.0))
}

/// AUC, with the interval between the percentiles `(1 − level) / 2` and `(1 + level) / 2` of its bootstrap
/// distribution.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// AUC of the cases themselves.
    pub auc: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// [`auc`] with its percentile interval. Each resample draws as many groups as there are, with replacement, each with
/// all of its cases; resamples that lack one kind are skipped. `None` without a positive or without a negative case.
///
/// # Errors
/// When a score is NaN, there is no resample, or the level is not between 0 and 1.
pub fn interval(cases: &[ScoredCase], bootstrap: &Bootstrap) -> Result<Option<Interval>> {
    let Bootstrap { resamples, level, seed } = *bootstrap;
    if resamples == 0 || !(level > 0.0 && level < 1.0) {
        return Err(Error::settings(format!("no interval of level {level} comes from {resamples} resamples")));
    }
    let order = ascending(cases)?;
    let Some(auc) = area(cases, &order, |_| 1.0) else { return Ok(None) };
    let mut groups: Vec<usize> = cases.iter().map(|c| c.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let group_of: Vec<usize> = cases.iter().map(|c| groups.partition_point(|&g| g < c.group)).collect();
    let (mut draws, mut counts) = (vec![0f32; 2 * groups.len()], vec![0.0f64; groups.len()]);
    let mut areas = Vec::with_capacity(resamples as usize);
    for resample in 0..resamples {
        Stream::AucBootstrap.uniforms(seed, 0, resample, &mut draws);
        counts.fill(0.0);
        draws.as_chunks::<2>().0.iter().for_each(|&pair| counts[index(pair, groups.len())] += 1.0);
        areas.extend(area(cases, &order, |i| counts[group_of[i]]));
    }
    if areas.is_empty() {
        // Every resample lacked one kind, so nothing is known.
        return Ok(Some(Interval { auc, low: 0.0, high: 1.0 }));
    }
    areas.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Some(Interval { auc, low: quantile(&areas, tail), high: quantile(&areas, 1.0 - tail) }))
}

/// Positions of the cases from the lowest score to the highest.
fn ascending(cases: &[ScoredCase]) -> Result<Vec<usize>> {
    if let Some(i) = cases.iter().position(|c| c.score.is_nan()) {
        return Err(Error::input(format!("score {i} is not a number")));
    }
    let mut order: Vec<usize> = (0..cases.len()).collect();
    // `total_cmp` sets −0 before +0, which are equal.
    order.sort_by(|&a, &b| cases[a].score.partial_cmp(&cases[b].score).unwrap_or(std::cmp::Ordering::Equal));
    Ok(order)
}

/// AUC of cases weighted by `count`.
fn area(cases: &[ScoredCase], order: &[usize], count: impl Fn(usize) -> f64) -> Option<f64> {
    let (mut won, mut below, mut positives) = (0.0, 0.0, 0.0);
    for equal in order.chunk_by(|&a, &b| cases[a].score == cases[b].score) {
        let (mut negative, mut positive) = (0.0, 0.0);
        for &i in equal {
            *(if cases[i].positive { &mut positive } else { &mut negative }) += count(i);
        }
        won += positive * (below + 0.5 * negative);
        below += negative;
        positives += positive;
    }
    (positives > 0.0 && below > 0.0).then(|| won / (positives * below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(negative: &[f64], positive: &[f64]) -> Vec<ScoredCase> {
        let of = |positive: bool| move |(group, &score): (usize, &f64)| ScoredCase { group, positive, score };
        negative.iter().enumerate().map(of(false)).chain(positive.iter().enumerate().map(of(true))).collect()
    }

    fn bootstrap(resamples: u32, level: f64) -> Bootstrap {
        Bootstrap { resamples, level, seed: 3 }
    }

    #[test]
    fn areas_by_hand() {
        let of = |negative: &[f64], positive: &[f64]| auc(&cases(negative, positive)).unwrap();
        assert_eq!(of(&[0.1, 0.2], &[0.3, 0.4]), Some(1.0));
        assert_eq!(of(&[0.3, 0.4], &[0.1, 0.2]), Some(0.0));
        // 0.35 loses one of four pairs.
        assert_eq!(of(&[0.1, 0.4], &[0.35, 0.8]), Some(0.75));
        assert_eq!(of(&[0.5, 0.5], &[0.5]), Some(0.5));
        // 1 wins over 0 and ties with 1; 2 wins over both.
        assert_eq!(of(&[0.0, 1.0], &[1.0, 2.0]), Some(0.875));
        assert_eq!(of(&[-0.0], &[0.0]), Some(0.5));
        assert_eq!(of(&[f64::NEG_INFINITY], &[f64::INFINITY]), Some(1.0));
        assert_eq!(of(&[], &[1.0]), None);
        assert_eq!(of(&[1.0], &[]), None);
        assert!(auc(&cases(&[f64::NAN], &[1.0])).is_err());
    }

    #[test]
    fn an_interval_holds_the_area_and_narrows() {
        let noise = |n: usize, salt: u64| {
            let mut draws = vec![0f32; n];
            crate::random::fill_normals(1, salt, 0, 0, &mut draws);
            draws.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let width = |n: usize| {
            let shifted: Vec<f64> = noise(n, 2).iter().map(|v| v + 1.0).collect();
            let found = interval(&cases(&noise(n, 1), &shifted), &bootstrap(500, 0.95)).unwrap().unwrap();
            assert!(found.low < found.auc && found.auc < found.high, "{found:?}");
            // Two normal distributions whose means differ by one standard deviation: Φ(1/√2).
            let within = found.low < 0.7602 && 0.7602 < found.high;
            assert!(within, "{found:?}");
            found.high - found.low
        };
        let (few, many) = (width(40), width(1000));
        assert!(many < few / 3.0, "{many} {few}");
        assert!(interval(&cases(&[0.0], &[1.0]), &bootstrap(0, 0.95)).is_err());
        assert!(interval(&cases(&[0.0], &[1.0]), &bootstrap(9, 1.0)).is_err());
        assert_eq!(interval(&[], &bootstrap(9, 0.9)).unwrap(), None);
    }

    #[test]
    fn a_group_is_drawn_whole() {
        // Every attacked version scores above its own clean picture, but not above others': pairs within a group always
        // win.
        let cases: Vec<ScoredCase> = (0..50)
            .flat_map(|group| {
                let at = group as f64;
                let case = |positive, score| ScoredCase { group, positive, score };
                [case(false, at), case(true, at + 0.5)]
            })
            .collect();
        let found = interval(&cases, &bootstrap(200, 0.9)).unwrap().unwrap();
        assert_eq!(found.auc, 0.51);
        assert!(found.high - found.low < 0.02, "{found:?}");
    }
}
