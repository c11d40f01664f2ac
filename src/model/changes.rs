//! What a `config.json` may say of the parts of a net, and when that is another net than the published one.

use serde_json::Value;

use super::Architecture;

/// Arguments of timm's models that do not change a net with given weights.
pub(super) const HARMLESS: [&str; 6] =
    ["num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "drop_block_rate"];

/// Top-level keys for parts of a net, as in `model_args`; a config that changes these parts is not read.
pub(super) const PARTS: [&str; 20] = [
    "act_layer",
    "norm_layer",
    "aa_layer",
    "output_stride",
    "stem_type",
    "replace_stem_pool",
    "avg_down",
    "hidden_act",
    "downsample_in_bottleneck",
    "downsample_in_first_stage",
    "pad_type",
    "bn_eps",
    "bn_tf",
    "tf_padding",
    "first_layer_is_expansion",
    "finegrained_output",
    "layer_norm_eps",
    "batch_norm_eps",
    "pooling_type",
    "strides",
];

/// Whether `value` is that of the published nets of `row`, for a key of [`PARTS`].
pub(super) fn is_usual(key: &str, value: &Value, row: Option<&Architecture>) -> bool {
    let is_of = |family: &str| row.is_some_and(|row| row.name == family);
    let activation = row.map_or("relu", |row| row.activation);
    match key {
        "act_layer" | "hidden_act" => value.as_str().is_some_and(|name| {
            let name = if name.eq_ignore_ascii_case("swish") { "silu" } else { name };
            name.eq_ignore_ascii_case(activation)
        }),
        "norm_layer" => ["", "batchnorm", "batchnorm2d"].iter().any(|name| value.as_str() == Some(name)),
        "output_stride" => value.as_u64() == Some(32),
        "replace_stem_pool" | "avg_down" | "downsample_in_bottleneck" | "bn_tf" => value.as_bool() == Some(false),
        "downsample_in_first_stage" => value.as_bool() == Some(is_of("regnet")),
        "tf_padding" | "first_layer_is_expansion" | "finegrained_output" => value.as_bool() == Some(true),
        "layer_norm_eps" => value.as_f64() == Some(if is_of("convnext") { 1e-12 } else { 1e-3 }),
        "batch_norm_eps" => value.as_f64() == Some(1e-3),
        "pooling_type" => value.as_str() == Some("mean"),
        "strides" => *value == serde_json::json!([1, 2, 2, 2, 1, 2, 1]),
        _ => value.as_str() == Some(""),
    }
}
