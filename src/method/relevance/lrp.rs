//! Layer-wise relevance propagation (Bach et al. 2015; Montavon et al. 2019): the score is distributed backwards, layer
//! by layer.

use crate::engine::Start;
use crate::error::Error;
use crate::map::Sign;
use crate::method::shared::conservation::Propagation;
use crate::method::{Entry, Parameter, Promise, When};
use crate::rule::{Preset, Relevance};

pub(crate) const ENTRY: Entry = Entry {
    id: "lrp",
    aliases: &[],
    title: "Layer-wise relevance propagation",
    paper: "Bach, Binder, Montavon, Klauschen, Müller, Samek 2015: On pixel-wise explanations for non-linear classifier \
            decisions by layer-wise relevance propagation, PLOS ONE; presets after Montavon, Binder, Lapuschkin, Samek, \
            Müller 2019: Layer-wise relevance propagation, an overview, Explainable AI",
    summary: "relevance starts as the target's logit and each layer hands it to its inputs by its rule: convolutions by ε, z⁺, \
              γ or αβ, linear layers by ε, sums and average pools in proportion, a max-pool's winner takes all, activations \
              pass, a product's signal takes all; with score prob or logprob it starts as logits ∘ ∂f/∂logits (our choice)",
    passes: "1 forward, 1 backward of 1 to 4 convolutions each way a layer",
    parameters: &[
        Parameter {
            key: "preset",
            unit: "epsilon|epsilon_plus|epsilon_plus_flat|epsilon_gamma_box|epsilon_alpha2_beta1|epsilon_alpha2_beta1_flat|gamma",
            default: "epsilon_plus",
            help: "which layers obey which rule; box and flat say what the layers at the pixels do. The default is our choice",
        },
        Parameter {
            key: "epsilon",
            unit: "units of a layer's output",
            default: "1e-6",
            help: "ε of the ε rule; other rules divide with 1e-6",
        },
        Parameter {
            key: "gamma",
            unit: "factor",
            default: "0.25",
            help: "γ of the γ rule: how much more weights count that agree with the output's sign",
        },
        Parameter {
            key: "low",
            unit: "black or a number",
            default: "black",
            help: "least value of a pixel in the net's space, for epsilon_gamma_box; black: preprocessed 0, each channel its own",
        },
        Parameter {
            key: "high",
            unit: "white or a number",
            default: "white",
            help: "greatest value of a pixel in the net's space; white: preprocessed 255",
        },
        Parameter {
            key: "bias",
            unit: "keep|zero",
            default: "keep",
            help: "keep: a bias keeps its part of the relevance; zero: it is left out (z rule: preset=epsilon,epsilon=0,bias=zero)",
        },
        Parameter {
            key: "gate",
            unit: "zero|split",
            default: "zero",
            help: "what the gate of a product gets: nothing, so that the signal takes all; split: both take half. The gate comes \
                   out of a sigmoid, hard sigmoid, tanh or softmax, or else has fewer elements (`model dump` names it); \
                   where neither decides both take half",
        },
    ],
    promises: &[(Promise::Conservation, When::Always)],
    draws: When::Never,
    caution: "with small ε, outputs near zero make relevance large and noisy, most of all where a residual addition nearly \
              cancels; the gap is what stabilisers took, and what z⁺, γ and αβ lose or gain at a layer without a part of the sign \
              they ask for: expect it at layer norms, at norms before a convolution and at bottlenecks without an activation; \
              where scores or outputs are not far above 1e-6, stabilisers take most; a small gap does not say that the score \
              reached the pixels: on nets with large biases next to nothing does, see the record's shares",
    build: |values, context| {
        let preset: Preset = values.parse("preset")?;
        let end = |key: &str, colour: &str, levels: Vec<f64>| match values.text(key)? {
            name if name == colour => Ok(levels),
            _ => Ok::<_, Error>(vec![values.parse::<f64>(key)?]),
        };
        let (low, high) = (context.preprocess.black(), context.preprocess.white());
        let channels = low.len();
        let (mut low, mut high) = (end("low", "black", low)?, end("high", "white", high)?);
        for ends in [&mut low, &mut high] {
            if ends.len() == 1 {
                *ends = vec![ends[0]; channels];
            }
        }
        let numbers = Relevance {
            epsilon: values.parse("epsilon")?,
            gamma: values.parse("gamma")?,
            bias: values.parse("bias")?,
            gate: values.parse("gate")?,
            low,
            high,
        };
        let rules = numbers.composite(preset).map_err(|e| e.within(ENTRY.id))?;
        let (score, start) = (context.score, Start::Relevance);
        Ok(Box::new(Propagation { id: ENTRY.id, rules, score, start, sign: Sign::Signed }))
    },
};
