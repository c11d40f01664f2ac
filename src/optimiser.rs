//! Steps of gradient descent on one vector, in double precision.
//!
//! A step depends only on the gradients so far: not on time, thread order or random draws.

/// Adam (Kingma & Ba 2015, algorithm 1): β 0.9 and 0.999, ε 1e-8, bias-corrected.
#[derive(Debug, Clone)]
pub struct Adam {
    lr: f64,
    /// Running mean of the gradient.
    first: Vec<f64>,
    /// Running mean of its square.
    second: Vec<f64>,
    steps: i32,
}

impl Adam {
    const BETA: [f64; 2] = [0.9, 0.999];
    const EPSILON: f64 = 1e-8;

    /// For vectors of `len` numbers, before the first step.
    pub fn new(lr: f64, len: usize) -> Self {
        Self { lr, first: vec![0.0; len], second: vec![0.0; len], steps: 0 }
    }

    /// Moves `x` against its gradient: `x −= lr · m̂ / (√v̂ + ε)`.
    ///
    /// # Panics
    /// When the length of `x` or `gradient` is not the one given to [`Adam::new`].
    pub fn step(&mut self, x: &mut [f64], gradient: &[f64]) {
        assert!(x.len() == self.first.len() && gradient.len() == x.len(), "one gradient a number");
        self.steps = self.steps.saturating_add(1);
        let [a, b] = Self::BETA;
        let (first_bias, second_bias) = (1.0 - a.powi(self.steps), 1.0 - b.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, &g), (m, v)) in x.iter_mut().zip(gradient).zip(moments) {
            *m = a * *m + (1.0 - a) * g;
            *v = b * *v + (1.0 - b) * g * g;
            *x -= self.lr * (*m / first_bias) / ((*v / second_bias).sqrt() + Self::EPSILON);
        }
    }
}

/// Gradient descent with momentum: velocity `v = μ·v + g`, the first one the gradient itself, then `x −= lr · v`.
#[derive(Debug, Clone)]
pub struct Momentum {
    lr: f64,
    momentum: f64,
    velocity: Vec<f64>,
}

impl Momentum {
    /// For vectors of `len` numbers, with zero velocity.
    pub fn new(lr: f64, momentum: f64, len: usize) -> Self {
        Self { lr, momentum, velocity: vec![0.0; len] }
    }

    /// Moves `x` against its gradient.
    ///
    /// # Panics
    /// When the length of `x` or `gradient` is not the one given to [`Momentum::new`].
    pub fn step(&mut self, x: &mut [f64], gradient: &[f64]) {
        assert!(x.len() == self.velocity.len() && gradient.len() == x.len(), "one gradient a number");
        for ((x, &g), v) in x.iter_mut().zip(gradient).zip(&mut self.velocity) {
            *v = self.momentum * *v + g;
            *x -= self.lr * *v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            let within = (g - w).abs() <= 1e-14 * w.abs().max(1.0);
            assert!(within, "{got:?} for {want:?}");
        }
    }

    /// Worked by hand: gradients 2 and −1, then 4 and 0, lr 0.1.
    #[test]
    fn two_steps_of_adam() {
        let mut adam = Adam::new(0.1, 2);
        let mut x = [1.0, 5.0];
        adam.step(&mut x, &[2.0, -1.0]);
        // m̂ = g, √v̂ = |g|: the first step has the size of the learning rate.
        close(&x, &[1.0 - 0.1 * 2.0 / (2.0 + 1e-8), 5.0 + 0.1 / (1.0 + 1e-8)]);
        let before = x;
        adam.step(&mut x, &[4.0, 0.0]);
        // m = 0.9·0.2 + 0.1·4 = 0.58 and 0.9·(−0.1) = −0.09, over 1 − 0.81 = 0.19;
        // v = 0.999·0.004 + 0.001·16 = 0.019996 and 0.000999, over 1 − 0.998001 = 0.001999.
        let size = |m: f64, v: f64| 0.1 * (m / 0.19) / ((v / 0.001999).sqrt() + 1e-8);
        close(&x, &[before[0] - size(0.58, 0.019996), before[1] + size(0.09, 0.000999)]);
    }

    /// Worked by hand: a constant gradient 1 with momentum ½ gives velocities 1, 1.5, 1.75.
    #[test]
    fn three_steps_with_momentum() {
        let mut momentum = Momentum::new(0.5, 0.5, 1);
        let mut x = [0.0];
        let mut at = Vec::new();
        for _ in 0..3 {
            momentum.step(&mut x, &[1.0]);
            at.push(x[0]);
        }
        assert_eq!(at, [-0.5, -1.25, -2.125]);
        // Changes of x by the caller, such as clipping it to an interval, do not affect the velocity.
        x = [0.0];
        momentum.step(&mut x, &[0.0]);
        assert_eq!(x, [-0.4375]);
    }

    #[test]
    fn nothing_moves_without_a_gradient() {
        let mut x = [0.25, -3.0];
        Adam::new(0.1, 2).step(&mut x, &[0.0; 2]);
        Momentum::new(0.1, 0.99, 2).step(&mut x, &[0.0; 2]);
        assert_eq!(x, [0.25, -3.0]);
    }

    #[test]
    fn both_find_the_bottom_of_a_parabola() {
        let descend = |step: &mut dyn FnMut(&mut [f64], &[f64])| {
            let mut x = [3.0, -2.0];
            for _ in 0..2000 {
                let gradient = [2.0 * (x[0] - 1.0), 20.0 * (x[1] + 0.5)];
                step(&mut x, &gradient);
            }
            x
        };
        let mut adam = Adam::new(0.01, 2);
        let mut momentum = Momentum::new(0.01, 0.9, 2);
        for x in [descend(&mut |x, g| adam.step(x, g)), descend(&mut |x, g| momentum.step(x, g))] {
            let within = (x[0] - 1.0).abs() <= 1e-6 && (x[1] + 0.5).abs() <= 1e-6;
            assert!(within, "{x:?}");
        }
    }
}
