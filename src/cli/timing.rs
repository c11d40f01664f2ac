//! Times of calls.

use std::time::Instant;

use anyhow::Result;

/// Seconds of some calls, in ascending order.
#[derive(Debug, Clone)]
pub struct CallSeconds(Vec<f64>);

impl CallSeconds {
    /// Of the given seconds.
    pub fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// Of `repeat` calls after one that is not timed.
    pub fn of(repeat: usize, mut call: impl FnMut() -> crate::Result<()>) -> Result<Self> {
        call()?;
        let mut seconds = Vec::new();
        for _ in 0..repeat {
            let start = Instant::now();
            call()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(Self::new(seconds))
    }

    /// The `share`-quantile, linear between neighbours; 0 of nothing.
    pub fn quantile(&self, share: f64) -> f64 {
        let Some(last) = self.0.len().checked_sub(1) else { return 0.0 };
        let place = share * last as f64;
        let (below, above) = (self.0[place.floor() as usize], self.0[place.ceil() as usize]);
        below + (above - below) * place.fract()
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let times = CallSeconds::new(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((times.median(), times.quantile(0.0), times.quantile(1.0)), (2.5, 1.0, 4.0));
        assert!((times.quantile(0.1) - 1.3).abs() < 1e-12);
        assert_eq!(CallSeconds::new(vec![7.0]).quantile(0.9), 7.0);
    }

    #[test]
    fn the_first_call_is_not_timed() {
        let mut calls = 0;
        let times = CallSeconds::of(3, || {
            calls += 1;
            Ok(())
        });
        assert_eq!((times.unwrap().0.len(), calls), (3, 4));
    }
}
