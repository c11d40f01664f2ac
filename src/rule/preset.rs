//! Relevance rules for whole nets: the named presets of layer-wise relevance propagation, and related composites.

use std::sync::Arc;

use super::{
    AlphaBeta, Bias, Composite, Contrast, Epsilon, Flat, Gamma, GateShare, Held, Norm, Pass, Product, Rectified, Rule,
    Select, Vjp, ZBox, ZPlus,
};
use crate::error::{Error, Result};

/// A named set of rules for layer-wise relevance propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// ε everywhere.
    Epsilon,
    /// z⁺ for convolutions, ε for linear layers.
    EpsilonPlus,
    /// The same, with the flat rule at the pixels.
    EpsilonPlusFlat,
    /// γ for convolutions, ε for linear layers, z^B at the pixels.
    EpsilonGammaBox,
    /// α = 2, β = 1 for convolutions, ε for linear layers.
    EpsilonAlpha2Beta1,
    /// The same, with the flat rule at the pixels.
    EpsilonAlpha2Beta1Flat,
    /// γ for convolutions, ε for linear layers.
    Gamma,
}

impl Preset {
    /// All, with their names.
    pub const ALL: [(&'static str, Preset); 7] = [
        ("epsilon", Preset::Epsilon),
        ("epsilon_plus", Preset::EpsilonPlus),
        ("epsilon_plus_flat", Preset::EpsilonPlusFlat),
        ("epsilon_gamma_box", Preset::EpsilonGammaBox),
        ("epsilon_alpha2_beta1", Preset::EpsilonAlpha2Beta1),
        ("epsilon_alpha2_beta1_flat", Preset::EpsilonAlpha2Beta1Flat),
        ("gamma", Preset::Gamma),
    ];
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Preset::ALL.iter().find(|(name, _)| *name == s).map(|&(_, preset)| preset).ok_or_else(|| {
            let names: Vec<&str> = Preset::ALL.iter().map(|p| p.0).collect();
            Error::settings(format!("no preset is named '{s}'; there are {}", names.join(", ")))
        })
    }
}

/// Parameters of a [`Preset`]'s rules.
#[derive(Debug, Clone)]
pub struct Relevance {
    /// ε of the ε rule; the other rules' stabiliser is 1e-6.
    pub epsilon: f64,
    /// γ of the γ rule.
    pub gamma: f64,
    /// How biases are treated; the z^B and flat rules have none.
    pub bias: Bias,
    /// What the gate of a product gets.
    pub gate: GateShare,
    /// Smallest value of a pixel, one per channel or one for all.
    pub low: Vec<f64>,
    /// Largest value of a pixel.
    pub high: Vec<f64>,
}

impl Relevance {
    /// The rules of `preset`. Activations pass relevance on, sums and average pools distribute it in proportion, a
    /// max-pool's winner takes all, a product gives all to its signal, and nodes that only move numbers move relevance.
    ///
    /// "At the pixels" are the layers with weights that no other such layer precedes, convolutional or linear.
    ///
    /// # Errors
    /// When ε or γ is negative or not finite, or the preset needs the pixels' box and it is invalid.
    pub fn composite(&self, preset: Preset) -> Result<Composite> {
        for (name, value) in [("epsilon", self.epsilon), ("gamma", self.gamma)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::settings(format!("{name}={value:?} is not a finite number of at least 0")));
            }
        }
        let bias = self.bias;
        let epsilon: Arc<dyn Rule> = Arc::new(Epsilon { epsilon: self.epsilon, bias });
        let gamma = || Arc::new(Gamma { gamma: self.gamma, bias });
        let convolutions: Arc<dyn Rule> = match preset {
            Preset::Epsilon => Arc::clone(&epsilon),
            Preset::EpsilonPlus | Preset::EpsilonPlusFlat => Arc::new(ZPlus { bias }),
            Preset::EpsilonAlpha2Beta1 | Preset::EpsilonAlpha2Beta1Flat => Arc::new(AlphaBeta::new(2.0, 1.0, bias)?),
            Preset::EpsilonGammaBox | Preset::Gamma => gamma(),
        };
        let first: Option<Arc<dyn Rule>> = match preset {
            Preset::EpsilonPlusFlat | Preset::EpsilonAlpha2Beta1Flat => Some(Arc::new(Flat)),
            Preset::EpsilonGammaBox => Some(Arc::new(ZBox::new(&self.low, &self.high)?)),
            _ => None,
        };
        Ok(relevance(first, convolutions, epsilon, self.gate))
    }
}

/// Rules of the layers; those of other nodes are the same in all presets.
fn relevance(
    first: Option<Arc<dyn Rule>>,
    convolutions: Arc<dyn Rule>,
    linears: Arc<dyn Rule>,
    gate: GateShare,
) -> Composite {
    let mut rules: Vec<(Select, Arc<dyn Rule>)> = Vec::new();
    rules.extend(first.map(|rule| (Select::FirstLayers, rule)));
    rules.push((Select::Convolutions, convolutions));
    rules.push((Select::Linears, linears));
    rules.push((Select::Activations, Arc::new(Pass)));
    rules.push((Select::Softmaxes, Arc::new(Pass)));
    rules.push((Select::Sums, Arc::new(Norm)));
    rules.push((Select::Averages, Arc::new(Norm)));
    rules.push((Select::Standardisations, Arc::new(Held)));
    rules.push((Select::Products, Arc::new(Product { gate })));
    rules.push((Select::Every, Arc::new(Vjp)));
    Composite::new(rules)
}

impl Composite {
    /// Deep Taylor decomposition (Montavon et al. 2017): z⁺ inside, z^B at pixels between `low` and `high`, one number
    /// per channel or one for all.
    ///
    /// # Errors
    /// When the box is invalid.
    pub fn deep_taylor(low: &[f64], high: &[f64]) -> Result<Self> {
        let inside: Arc<dyn Rule> = Arc::new(ZPlus { bias: Bias::Keep });
        let first: Arc<dyn Rule> = Arc::new(ZBox::new(low, high)?);
        Ok(relevance(Some(first), Arc::clone(&inside), inside, GateShare::Nothing))
    }

    /// Excitation backpropagation (Zhang et al. 2016): z⁺ without bias for layers, sums and averages.
    pub fn excitation() -> Self {
        let share: Arc<dyn Rule> = Arc::new(ZPlus { bias: Bias::Zero });
        Self::new(vec![
            (Select::Convolutions, Arc::clone(&share)),
            (Select::Linears, Arc::clone(&share)),
            (Select::Sums, Arc::clone(&share)),
            (Select::Averages, share),
            (Select::Standardisations, Arc::new(Held)),
            (Select::Products, Arc::new(Product { gate: GateShare::Nothing })),
            (Select::Activations, Arc::new(Pass)),
            (Select::Softmaxes, Arc::new(Pass)),
            (Select::Every, Arc::new(Vjp)),
        ])
    }

    /// The same, with the last layer's result minus that of its negated weights.
    pub fn contrastive_excitation() -> Self {
        let mut rules = Self::excitation().0.rules.clone();
        rules.insert(0, (Select::LastLayers, Arc::new(Contrast)));
        Self::new(rules)
    }

    /// RectGrad (Kim et al. 2019): the gradient, with activations that pass only signals above the `q`-quantile.
    pub fn rectified(q: f64) -> Self {
        Self::new(vec![(Select::Activations, Arc::new(Rectified { q })), (Select::Every, Arc::new(Vjp))])
    }
}
