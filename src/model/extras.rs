//! Names of what training keeps beside a net.

/// First parts of names that training keeps beside a net.
const EXTRAS: [&str; 28] = [
    "epoch",
    "epochs",
    "step",
    "steps",
    "global_step",
    "iteration",
    "iterations",
    "iter",
    "acc",
    "accuracy",
    "lr",
    "seed",
    "mean",
    "std",
    "pixel_mean",
    "pixel_std",
    "image_mean",
    "image_std",
    "norm_mean",
    "norm_std",
    "class_weight",
    "class_weights",
    "n_averaged",
    "scaler",
    "rng_state",
    "metrics",
    "args",
    "version",
];

/// What first parts of such names start with.
const EXTRA_STARTS: [&str; 14] = [
    "optim",
    "ema",
    "model_ema",
    "swa_model",
    "sched",
    "lr_sched",
    "criterion",
    "loss",
    "aux",
    "teacher",
    "best_",
    "train_",
    "val_",
    "test_",
];

/// The first part of a name.
pub(super) fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Whether the first part of a name says that the tensor is no part of the net.
pub(super) fn is_extra(name: &str) -> bool {
    let root = root(name).to_lowercase();
    EXTRAS.contains(&root.as_str()) || EXTRA_STARTS.iter().any(|start| root.starts_with(start))
}

/// Whether the name is that of a mean or a standard deviation, by which some nets normalise their own input.
pub(super) fn prepares(name: &str) -> bool {
    ["mean", "std"].iter().any(|what| name.ends_with(what)) && is_extra(name)
}
