//! Reads what a net's metadata and the files beside its weights say about it: `preprocessor_config.json` of transformers,
//! `config.json` of timm or transformers, lists of class names.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::changes::{HARMLESS, PARTS, is_usual};
use super::{ARCHITECTURES, Architecture, BuiltNet, Labels, Setting, blueprint, preprocess, transformers_efficientnet};
use crate::error::{Error, ErrorKind, Result, open_file};
use crate::graph::{Graph, Op};
use crate::image::{Interpolation, Preprocess};
use crate::tensor::Shape;
use crate::text;

/// Names of the files beside the weights, in order of precedence.
const PREPROCESSOR: &str = "preprocessor_config.json";
const CONFIG: &str = "config.json";
const LISTS: [&str; 3] = ["labels.txt", "classes.txt", "imagenet_classes.txt"];

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// timm's default for the share of the resized short side that the crop keeps.
const CROP_PCT: f64 = 0.875;

/// The side from which transformers' processor of ConvNeXt and ResNet no longer crops.
const UNCROPPED: usize = 384;

/// Classes of transformers and the families that their nets belong to.
const OF_TRANSFORMERS: [(&str, &str); 7] = [
    ("ResNetForImageClassification", "resnet"),
    ("RegNetForImageClassification", "regnet"),
    ("MobileNetV1ForImageClassification", "mobilenet-v1"),
    ("MobileNetV2ForImageClassification", "mobilenet-v2"),
    ("EfficientNetForImageClassification", transformers_efficientnet::FAMILY),
    ("ConvNextForImageClassification", "convnext"),
    ("ConvNextV2ForImageClassification", "convnext"),
];

/// Families whose published nets change normalised pictures first, see [`transform_input`].
const TRANSFORMING: [&str; 2] = ["googlenet", "inception-v3"];

/// What one source says about the net; `None` where it says nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Statement {
    pub(super) place: &'static str,
    architecture: Option<String>,
    classes: Option<usize>,
    /// Channels of the input, with the key that gives them.
    channels: Vec<(&'static str, usize)>,
    labels: Option<Vec<String>>,
    /// `[h, w]` of the input.
    size: Option<[usize; 2]>,
    crop_pct: Option<f64>,
    /// The short side before cropping to `size`, where it is given as a number.
    resize: Option<usize>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    interpolation: Option<Interpolation>,
    /// Which weights of torchvision these are, such as `IMAGENET1K_V2`.
    weights: Option<String>,
    /// Whether the net was trained to change normalised pictures first.
    transform_input: Option<bool>,
    /// Parts of the net for which it differs from the architecture.
    changes: Vec<String>,
    /// Blocks of transformers' EfficientNet whose padding is the same on both sides though they have a stride.
    centred: Option<Vec<usize>>,
    /// Requests that cannot be fulfilled, one sentence each.
    pub(super) warnings: Vec<String>,
}

/// The statements of the files in `folder`, in order of precedence; a file that is not there says nothing.
///
/// # Errors
/// For each file: when it cannot be read, is too long, is not JSON, or holds a value of the wrong type.
pub(super) fn beside(folder: &Path) -> Vec<Result<Option<Statement>>> {
    let read = |name: &'static str, say: fn(&'static str, &[u8]) -> Result<Option<Statement>>| {
        contents(&folder.join(name)).and_then(|bytes| bytes.map_or(Ok(None), |bytes| say(name, &bytes)))
    };
    let mut all = vec![read(PREPROCESSOR, of_preprocessor), read(CONFIG, of_file)];
    all.extend(LISTS.into_iter().map(|place| {
        // A list need not be about this net: one that cannot be read is no obstacle.
        read(place, of_list).or_else(|e| {
            let warnings = vec![format!("{e}; it is ignored")];
            Ok(Some(Statement { place, warnings, ..Statement::default() }))
        })
    }));
    all
}

/// The bytes of a file, if there is one.
fn contents(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match open_file(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::Io && !path.exists() => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::model(format!("{}: more than {MAX_BYTES} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// The statement in `__metadata__`. Values are parsed as JSON if possible, else taken as text.
///
/// # Errors
/// When a value has the wrong type.
pub(super) fn of_metadata(metadata: &BTreeMap<String, String>) -> Result<Option<Statement>> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let object = metadata.iter().map(|(key, text)| (key.clone(), value(text))).collect();
    parse("the metadata", &object)
}

/// A JSON text beside the weights.
fn json(place: &str, bytes: &[u8]) -> Result<Value> {
    let text = text::decode(bytes).map_err(|e| Error::model(format!("{place} beside the weights: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Error::model(format!("{place} beside the weights is not JSON: {e}")))
}

/// The statement in a `config.json`; `None` if it does not describe a net.
///
/// # Errors
/// When it is not JSON, or a value has the wrong type.
fn of_file(place: &'static str, bytes: &[u8]) -> Result<Option<Statement>> {
    match json(place, bytes)? {
        Value::Object(object) => parse(place, &object),
        _ => Ok(None),
    }
}

/// The names of the classes, one a line. A list that is empty or damaged says nothing but a warning: it need not be
/// about this net.
fn of_list(place: &'static str, bytes: &[u8]) -> Result<Option<Statement>> {
    let mut said = Statement { place, ..Statement::default() };
    match text::decode(bytes) {
        Ok(text) => {
            let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_string()).collect();
            match names.iter().position(String::is_empty) {
                Some(line) => said.warnings.push(format!("{place}: line {} is empty; it is ignored", line + 1)),
                None => said.labels = Some(names).filter(|names| !names.is_empty()),
            }
        }
        Err(e) => said.warnings.push(format!("{place} beside the weights: {e}; it is ignored")),
    }
    Ok(Some(said))
}

/// What torchvision did with pictures for the weights that the first of `statements` names, if one does.
pub(super) fn of_published_weights(statements: &[Statement]) -> Option<Statement> {
    let (place, weights) = statements.iter().find_map(|s| Some((s.place, s.weights.as_ref()?)))?;
    let net = statements.iter().find_map(|s| s.architecture.as_deref()).map(published_name).unwrap_or_default();
    let tag = weights.rsplit('.').next().unwrap_or_default();
    let of = |side: usize, resize: usize, interpolation| Statement {
        place: "the table of torchvision's weights",
        size: Some([side; 2]),
        crop_pct: Some(side as f64 / resize as f64),
        resize: Some(resize),
        interpolation: Some(interpolation),
        ..Statement::default()
    };
    Some(match (net.as_str(), tag) {
        ("efficientnet_b1", "IMAGENET1K_V2") => of(240, 255, Interpolation::Bilinear),
        (_, "IMAGENET1K_V2") | ("resnext101_64x4d" | "shufflenet_v2_x1_5" | "shufflenet_v2_x2_0", "IMAGENET1K_V1") => {
            of(224, 232, Interpolation::Bilinear)
        }
        (_, "IMAGENET1K_SWAG_E2E_V1") => of(384, 384, Interpolation::Bicubic),
        (_, "IMAGENET1K_SWAG_LINEAR_V1") => of(224, 224, Interpolation::Bicubic),
        (_, "IMAGENET1K_FEATURES") => Statement {
            mean: Some(vec![0.48235, 0.45882, 0.40784]),
            std: Some(vec![1.0 / 255.0; 3]),
            ..of(224, 256, Interpolation::Bilinear)
        },
        // The family's own preparation.
        (_, "IMAGENET1K_V1") => return None,
        _ => {
            let warning = format!("{place}: `weights` says '{weights}', which is in no table of torchvision's weights");
            Statement { place, warnings: vec![warning], ..Statement::default() }
        }
    })
}

/// torchvision's GoogLeNet and Inception v3 may begin with a step that makes levels from -1 to 1 of normalised pictures.
/// Here the preparation does that: it becomes what both make of a picture together. `told` says which parts of it were
/// stated; ImageNet's mean and standard deviation stand for the others.
pub(super) fn transform_input(statements: &[&Statement], built: &mut BuiltNet, told: &[Setting]) {
    let Some(transforms) = statements.iter().find_map(|s| s.transform_input) else { return };
    let Preprocess { mean, std, channels, .. } = &mut built.preparation.preprocess;
    let usual = preprocess::imagenet(*channels).preprocess;
    for (part, usual, setting) in [(&mut *mean, &usual.mean, Setting::Mean), (&mut *std, &usual.std, Setting::Std)] {
        if !told.contains(&setting) {
            part.clone_from(usual);
        }
    }
    if transforms {
        // (level - mean) / std, then times s / 0.5 plus (m - 0.5) / 0.5, is (level - a) / b.
        for (c, (mean, std)) in mean.iter_mut().zip(std).enumerate() {
            let [m, s] = [usual.mean[c], usual.std[c]];
            *std *= 0.5 / s;
            *mean -= (m - 0.5) / 0.5 * *std;
        }
    }
}

/// The statement in a `preprocessor_config.json` of transformers; `None` if it is not about pictures.
///
/// # Errors
/// When it is not JSON, a value has the wrong type, or pictures are changed in a way that is not done here.
fn of_preprocessor(place: &'static str, bytes: &[u8]) -> Result<Option<Statement>> {
    let Value::Object(object) = json(place, bytes)? else { return Ok(None) };
    let value = |key: &str| object.get(key).filter(|v| !v.is_null());
    let own = ["image_mean", "image_std", "image_processor_type", "do_resize", "do_normalize", "crop_size"];
    if !own.iter().any(|key| value(key).is_some()) {
        return Ok(None);
    }
    let wrong = |key: &str, wanted: &str| Error::model(format!("{place}: `{key}` is not {wanted}"));
    let flag = |key: &str, usual: bool| match value(key) {
        None => Ok(usual),
        Some(value) => value.as_bool().ok_or_else(|| wrong(key, "true or false")),
    };
    let number = |key: &str| match value(key) {
        None => Ok(None),
        Some(v) => v.as_f64().filter(|v| v.is_finite()).map(Some).ok_or_else(|| wrong(key, "a number")),
    };
    let side = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=65_536).contains(n));
    // The height and width, or the short side alone.
    let size = |key: &str| -> Result<Option<(Option<[usize; 2]>, usize)>> {
        let Some(value) = value(key) else { return Ok(None) };
        let whole = |h: usize, w: usize| (Some([h, w]), h.min(w));
        let of = |name: &str| value.get(name).and_then(side);
        let found = match value {
            Value::Number(_) => side(value).map(|n| (None, n)),
            Value::Array(all) => match all.as_slice() {
                [h, w] => side(h).zip(side(w)).map(|(h, w)| whole(h, w)),
                _ => None,
            },
            _ => match (of("height").zip(of("width")), of("shortest_edge")) {
                (Some((h, w)), _) => Some(whole(h, w)),
                (None, short) => short.map(|n| (None, n)),
            },
        };
        found.map(Some).ok_or_else(|| wrong(key, "a number, {height, width} or {shortest_edge}"))
    };
    if flag("do_flip_channel_order", false)? {
        return Err(Error::model(format!("{place}: `do_flip_channel_order` asks for BGR, which is not done")));
    }
    let mut said = Statement { place, ..Statement::default() };
    let kind = value("image_processor_type").or_else(|| value("feature_extractor_type")).and_then(Value::as_str);
    let kind = kind.unwrap_or_default();
    let (size, crop, share) = (size("size")?, size("crop_size")?, number("crop_pct")?);
    if share.is_some_and(|share| share <= 0.01 || share > 1.0) {
        return Err(wrong("crop_pct", "a share between 0 and 1"));
    }
    let share = share.or_else(|| kind.starts_with("ConvNext").then_some(CROP_PCT));
    let mut squeezed = false;
    if let (true, Some((both, short))) = (flag("do_resize", true)?, size) {
        let cropped = match (flag("do_center_crop", false)?, share.filter(|_| both.is_none() && short < UNCROPPED)) {
            (true, _) => crop.map(|(both, short)| both.unwrap_or([short; 2])),
            (false, Some(share)) => {
                said.resize = Some((short as f64 / share).floor() as usize);
                Some([short; 2])
            }
            (false, None) => None,
        };
        let resize = said.resize.unwrap_or(short);
        squeezed = both.is_some() || cropped.is_none();
        let [h, w] = cropped.or(both).unwrap_or([short; 2]);
        (said.size, said.resize) = (Some([h, w]), Some(resize));
        said.crop_pct = Some(h.min(w) as f64 / resize as f64);
    } else if let Some((both, short)) = crop {
        // Only cropped.
        said.warnings.push(format!("{place} does not resize pictures; here the short side is resized to the crop"));
        (said.size, said.crop_pct) = (Some(both.unwrap_or([short; 2])), Some(1.0));
    }
    if squeezed {
        said.warnings.push(format!(
            "{place} resizes pictures to a fixed size whatever their shape; here the short side is resized and the centre \
             cut, which differs where a picture is not square"
        ));
    }
    match value("resample") {
        None => {}
        Some(how) => match how.as_u64().ok_or_else(|| wrong("resample", "a number of Pillow's filters"))? {
            0 => said.interpolation = Some(Interpolation::Nearest),
            1 => said.interpolation = Some(Interpolation::Lanczos),
            2 => said.interpolation = Some(Interpolation::Bilinear),
            3 => said.interpolation = Some(Interpolation::Bicubic),
            n => said.warnings.push(format!("{place} resizes by Pillow's filter {n}, which this program does not do")),
        },
    }
    let list = |key: &str, usual: f64| -> Result<Option<Vec<f64>>> {
        if !flag("do_normalize", true)? {
            return Ok(Some(vec![usual]));
        }
        let Some(value) = value(key) else { return Ok(None) };
        let each = |v: &Value| v.as_f64().filter(|v| v.is_finite());
        let all = value.as_array().map_or_else(|| each(value).map(|v| vec![v]), |all| all.iter().map(each).collect());
        all.filter(|v| !v.is_empty()).map(Some).ok_or_else(|| wrong(key, "a list of numbers"))
    };
    (said.mean, said.std) = (list("image_mean", 0.0)?, list("image_std", 1.0)?);
    // EfficientNet's processor divides twice.
    if flag("include_top", kind.starts_with("EfficientNet"))? && kind.starts_with("EfficientNet") {
        said.std.iter_mut().flatten().for_each(|std| *std *= *std);
    }
    let factor = if flag("do_rescale", true)? { number("rescale_factor")?.unwrap_or(1.0 / 255.0) } else { 1.0 };
    let offset = if flag("do_rescale", true)? && flag("rescale_offset", false)? { 1.0 } else { 0.0 };
    if factor <= 0.0 {
        return Err(wrong("rescale_factor", "a positive number"));
    }
    // Levels are between 0 and 1 here, between 0 and 255 times the factor there.
    let scale = 255.0 * factor;
    if (scale - 1.0).abs() > 1e-6 || offset > 0.0 {
        let (mean, std) = (said.mean.get_or_insert(vec![0.0]), said.std.get_or_insert(vec![1.0]));
        mean.iter_mut().for_each(|mean| *mean = (*mean + offset) / scale);
        std.iter_mut().for_each(|std| *std /= scale);
    }
    Ok(Some(said))
}

fn parse<'a>(place: &'static str, object: &'a Map<String, Value>) -> Result<Option<Statement>> {
    let own = ["architecture", "architectures", "pretrained_cfg", "model_type", "weights", "transform_input"];
    if !own.iter().any(|key| object.get(*key).is_some_and(|v| !v.is_null())) {
        return Ok(None);
    }
    let nested = object.get("pretrained_cfg").and_then(Value::as_object);
    // A null counts as absent and hides no other value.
    let here = |object: &'a Map<String, Value>, key: &str| object.get(key).filter(|v| !v.is_null());
    // Older files of timm have everything at one level.
    let value = |key: &str| nested.and_then(|n| here(n, key)).or_else(|| here(object, key));
    let wrong = |key: &str, wanted: &str| Error::model(format!("{place}: `{key}` is not {wanted}"));
    let text = |key: &str, value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "a text"));
    let numbers = |key: &str| -> Result<Option<Vec<f64>>> {
        let Some(value) = value(key) else { return Ok(None) };
        let each = |v: &Value| v.as_f64().filter(|v| v.is_finite());
        let list = value.as_array().map_or_else(|| each(value).map(|v| vec![v]), |all| all.iter().map(each).collect());
        list.filter(|v| !v.is_empty()).map(Some).ok_or_else(|| wrong(key, "a list of numbers"))
    };
    let count = |key: &str, value: &Value| {
        value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(key, "a whole number"))
    };
    let mut said = Statement { place, ..Statement::default() };
    said.weights = value("weights").and_then(Value::as_str).map(str::to_owned);
    said.architecture = match (object.get("architecture"), object.get("architectures").and_then(Value::as_array)) {
        (Some(name), _) if !name.is_null() => Some(text("architecture", name)?),
        (_, Some(names)) => names.first().map(|name| text("architectures", name)).transpose()?,
        _ => nested.and_then(|n| here(n, "architecture")).map(|name| text("architecture", name)).transpose()?,
    };
    let arguments = object.get("model_args").and_then(Value::as_object);
    let counts = [(object, "num_classes"), (object, "num_labels")].into_iter();
    for (object, key) in counts.chain(arguments.map(|arguments| (arguments, "num_classes"))) {
        let Some(n) = here(object, key).map(|value| count(key, value)).transpose()? else { continue };
        match said.classes {
            Some(other) if other != n => {
                return Err(Error::model(format!("{place} contradicts itself: {other} classes, and `{key}` {n}")));
            }
            _ => said.classes = Some(n),
        }
    }
    let channels =
        [(Some(object), "in_chans"), (nested, "in_chans"), (arguments, "in_chans"), (Some(object), "num_channels")];
    for (object, key) in channels {
        let value = object.and_then(|object| here(object, key));
        said.channels.extend(value.map(|value| count(key, value)).transpose()?.map(|n| (key, n)));
    }
    if let Some(names) = value("label_names") {
        let described = value("label_descriptions").and_then(Value::as_object);
        let name = |v: &Value| {
            let name = v.as_str()?;
            Some(described.and_then(|d| d.get(name)?.as_str()).unwrap_or(name).to_string())
        };
        let names = names.as_array().and_then(|all| all.iter().map(name).collect());
        said.labels = Some(names.ok_or_else(|| wrong("label_names", "a list of texts"))?);
    } else if let Some(names) = value("id2label") {
        let names = names.as_object().and_then(in_order);
        let names = names.ok_or_else(|| wrong("id2label", "a text for each class, 0, 1 and so on"))?;
        // What transformers writes when it knows no names.
        let told = names.iter().enumerate().any(|(i, name)| *name != format!("LABEL_{i}"));
        said.labels = Some(names).filter(|_| told);
    }
    let key = if value("input_size").is_some() { "input_size" } else { "image_size" };
    if let Some(size) = numbers(key)? {
        let whole = |v: f64| (v >= 1.0 && v.fract() == 0.0 && v <= 65_536.0).then_some(v as usize);
        said.size = match size[..] {
            [_, h, w] | [h, w] => whole(h).zip(whole(w)).map(|(h, w)| [h, w]),
            [side] => whole(side).map(|side| [side; 2]),
            _ => None,
        };
        if said.size.is_none() {
            return Err(wrong(key, "a list of channels, height and width"));
        }
        if let [channels, _, _] = size[..] {
            said.channels
                .push((key, whole(channels).ok_or_else(|| wrong(key, "a list of channels, height and width"))?));
        }
    }
    if let Some(share) = value("crop_pct") {
        let share = share.as_f64().filter(|&s| s > 0.01 && s <= 1.0);
        said.crop_pct = Some(share.ok_or_else(|| wrong("crop_pct", "a share between 0 and 1"))?);
    }
    (said.mean, said.std) = (numbers("mean")?, numbers("std")?);
    if let Some(how) = value("interpolation") {
        let how = text("interpolation", how)?;
        let named = Value::String(how.to_lowercase());
        match serde_json::from_value(named) {
            Ok(known) => said.interpolation = Some(known),
            Err(_) => said.warnings.push(format!("{place} resizes by '{how}', which this program does not do")),
        }
    }
    let mode = value("crop_mode").and_then(Value::as_str).unwrap_or("center");
    if mode != "center" || said.size.is_some_and(|[h, w]| h != w) {
        let what = if mode == "center" { "not square" } else { mode };
        said.warnings
            .push(format!("{place} has a crop that is '{what}'; here the short side is resized and the centre cut"));
    }
    let pool = object.get("global_pool").and_then(Value::as_str).filter(|pool| !pool.is_empty() && *pool != "avg");
    said.changes.extend(pool.map(|pool| format!("global_pool={pool}")));
    let parts = PARTS.iter().filter_map(|key| Some((*key, value(key)?)));
    let wanted = said.architecture.as_deref().map(published_name);
    let of_transformers = |row: &Architecture| {
        OF_TRANSFORMERS.iter().any(|(class, family)| said.architecture.as_deref() == Some(class) && row.name == *family)
    };
    let row = ARCHITECTURES
        .iter()
        .find(|row| row.published.iter().any(|(name, _)| Some(*name) == wanted.as_deref()) || of_transformers(row));
    if let Some(blocks) = value("depthwise_padding") {
        let each = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        let blocks = blocks.as_array().and_then(|all| all.iter().map(each).collect());
        said.centred = Some(blocks.ok_or_else(|| wrong("depthwise_padding", "a list of whole numbers"))?);
    }
    let parts = parts.filter(|(key, value)| !is_usual(key, value, row));
    said.changes.extend(parts.map(|(key, value)| format!("{key}={value}")));
    let transforms = arguments.and_then(|arguments| here(arguments, "transform_input"));
    if let Some(transforms) = transforms.or_else(|| value("transform_input")) {
        // Metadata are texts: Python's `str(True)` is one.
        let transforms = match transforms.as_str() {
            Some(text) => serde_json::from_str(&text.to_lowercase()).ok(),
            None => transforms.as_bool(),
        };
        said.transform_input = Some(transforms.ok_or_else(|| wrong("transform_input", "true or false"))?);
    }
    let changing = arguments.into_iter().flatten().filter(|(key, value)| {
        !(value.is_null()
            || key.as_str() == "transform_input"
            || HARMLESS.contains(&key.as_str())
            || key.as_str() == "global_pool" && value.as_str() == Some("avg"))
    });
    said.changes.extend(changing.map(|(key, value)| format!("{key}={value}")));
    Ok(Some(said))
}

/// The texts of an object whose keys are 0, 1 and so on, in that order.
fn in_order(object: &Map<String, Value>) -> Option<Vec<String>> {
    (0..object.len()).map(|i| object.get(&i.to_string())?.as_str().map(str::to_owned)).collect()
}

/// A published name without its tag and without the part that only names the source of the weights.
pub(super) fn published_name(name: &str) -> String {
    let name = name.to_lowercase();
    let name = name.split('.').next().unwrap_or_default();
    let name = name.strip_prefix("gluon_").map_or(name, |rest| rest.strip_suffix("_v1b").unwrap_or(rest));
    ["tv_", "ssl_", "swsl_", "ig_"].iter().find_map(|source| name.strip_prefix(source)).unwrap_or(name).to_string()
}

/// Where published nets share a form and differ in width: the net called `name` has other layers than `graph`. Returns
/// what tells that, for a message.
fn resembles_another(row: &Architecture, name: &str, graph: &Graph) -> Option<String> {
    let (_, form) = row.published.iter().find(|(published, _)| *published == name)?;
    let drafts = (row.drafts)();
    let alike = row.published.iter().filter(|(published, of)| of == form && drafts.contains(published));
    let alike: Vec<&str> = alike.map(|(published, _)| *published).collect();
    if row.published.iter().filter(|(_, of)| of == form).count() < 2 {
        return None;
    }
    // The first convolution differs with the channels of pictures.
    let convolutions = graph.nodes().iter().filter_map(|node| match &node.op {
        Op::Conv(conv) => Some(conv.weight.dims()),
        _ => None,
    });
    let mut found: Vec<[usize; 4]> = convolutions.skip(1).collect();
    found.sort_unstable();
    let same = |net: &str| {
        let tensors = blueprint(net).unwrap_or_default();
        let dims = tensors.iter().filter_map(|t| <[usize; 4]>::try_from(t.shape.as_slice()).ok());
        let mut wanted: Vec<[usize; 4]> = dims.skip(1).collect();
        wanted.sort_unstable();
        wanted == found
    };
    if alike.contains(&name) {
        let other = alike.iter().find(|other| **other != name && same(other));
        return (!same(name))
            .then(|| other.map_or_else(|| "other widths".into(), |other| format!("the widths of {other}")));
    }
    alike.iter().find(|other| same(other)).map(|other| format!("the widths of {other}"))
}

impl Statement {
    /// The row of the table for the named net, and the form that the file must then have.
    ///
    /// # Errors
    /// When it names an unsupported net.
    pub(super) fn named<'a>(
        &self,
        table: &'a [Architecture],
    ) -> Result<Option<(&'a Architecture, Option<&'static str>)>> {
        let Some(name) = &self.architecture else { return Ok(None) };
        let wanted = published_name(name);
        let published = table.iter().find_map(|row| {
            let (_, form) = row.published.iter().find(|(name, _)| *name == wanted)?;
            Some((row, Some(*form)))
        });
        let family =
            OF_TRANSFORMERS.iter().find(|(class, _)| class == name).map_or(name.as_str(), |(_, family)| family);
        let found = published.or_else(|| table.iter().find(|row| row.name == family).map(|row| (row, None)));
        found.map(Some).ok_or_else(|| {
            let way = if name.ends_with("ForImageClassification") {
                "a net of transformers, which is not read; --arch NAME reads the file as another net"
            } else {
                "which is not read; --arch NAME reads the file as another net"
            };
            Error::model(format!("{} says that this is a '{name}', {way}", self.place))
        })
    }

    /// Checks that it agrees with the net as built; what it says of a family only counts for a net read as one, `row`.
    ///
    /// # Errors
    /// When it does not; the message says where.
    pub(super) fn check(&self, table: &[Architecture], row: Option<&Architecture>, built: &BuiltNet) -> Result<()> {
        let Self { place, .. } = self;
        let fail = |why: String| Err(Error::model(why));
        if let Some(row) = row {
            self.check_family(table, row, built)?;
        }
        let classes = built.graph.classes();
        if let Some(n) = self.classes.filter(|&n| n != classes) {
            return fail(format!("{place} says {n} classes, the tensors have {classes}"));
        }
        if let Some(names) = self.labels.as_ref().filter(|names| names.len() != classes) {
            return fail(format!("{place} names {} classes, the tensors have {classes}", names.len()));
        }
        let channels = built.preparation.preprocess.channels;
        let pictures = built.preparation.preprocess.takes_pictures();
        if let Some((key, n)) = self.channels.iter().find(|(_, n)| pictures && *n != channels) {
            return fail(format!("{place}: `{key}` says {n} channels, the net has {channels}"));
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if let Some(n) = values.as_ref().map(Vec::len).filter(|&n| n != 1 && n != channels) {
                return fail(format!("{place}: `{key}` has {n} numbers, the net has {channels} channels"));
            }
        }
        if let Some(std) = self.std.iter().flatten().find(|std| **std <= 0.0) {
            return fail(format!("{place}: `std` holds {std}, which cannot divide"));
        }
        Ok(())
    }

    /// Checks that it names the net as read of the family `row`, and changes nothing of it.
    fn check_family(&self, table: &[Architecture], row: &Architecture, built: &BuiltNet) -> Result<()> {
        let Self { place, .. } = self;
        let fail = |why: String| Err(Error::model(why));
        if let Some((named, form)) = self.named(table)? {
            let name = self.architecture.as_deref().unwrap_or_default();
            if named.name != row.name || form.is_some_and(|form| form != built.form) {
                return fail(format!("{place} says that this is a '{name}', but it is read as {}", built.architecture));
            }
        }
        if let Some(name) = self.architecture.as_deref().filter(|_| row.published.len() > 1)
            && let Some(other) = resembles_another(row, &published_name(name), &built.graph)
        {
            return fail(format!("{place} says that this is a '{name}', but the tensors have {other}"));
        }
        if self.transform_input == Some(true)
            && (!TRANSFORMING.contains(&row.name) || built.preparation.preprocess.channels != 3)
        {
            return fail(format!(
                "{place} changes the net by `transform_input=true`, which is not read of {}",
                row.name
            ));
        }
        if let Some(blocks) = self.centred.as_ref().filter(|_| row.name == transformers_efficientnet::FAMILY) {
            let centred = transformers_efficientnet::centred(&built.graph);
            if *blocks != centred {
                return fail(format!(
                    "{place} changes the net by `depthwise_padding={blocks:?}`, which is not read; the published net has {centred:?}"
                ));
            }
        }
        if let Some(change) = self.changes.first() {
            return fail(format!("{place} changes the net by `{change}`, which is not read"));
        }
        Ok(())
    }

    /// Rows and columns of the input.
    #[cfg(feature = "onnx")]
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        self.size
    }

    /// Without what a graph says itself: the size of its input, if `fixed`, and the scale of its levels, if `scaled`; with
    /// a sentence about each that is left out.
    #[cfg(feature = "onnx")]
    pub(super) fn beside_graph(mut self, fixed: Option<[usize; 2]>, scaled: bool) -> (Self, Vec<String>) {
        let mut left_out = Vec::new();
        if let (Some(fixed), Some(own)) = (fixed, self.size)
            && own != fixed
        {
            let ([h, w], [y, x], place) = (own, fixed, self.place);
            left_out
                .push(format!("{place} says pictures of {h}x{w}, but the graph fixes {y}x{x}; its size is ignored"));
            (self.size, self.resize) = (None, None);
        }
        if scaled && (self.mean.is_some() || self.std.is_some()) {
            let place = self.place;
            left_out.push(format!("{place} has a mean or std, but the graph scales pictures itself; both are ignored"));
            (self.mean, self.std) = (None, None);
        }
        (self, left_out)
    }

    /// Whether it is a mere list of names, which need not be about the net.
    pub(super) fn is_list(&self) -> bool {
        LISTS.contains(&self.place)
    }

    /// Replaces assumptions by its statements, except settings that are already `told`. Its sizes go to `sizes`.
    pub(super) fn apply(&self, built: &mut BuiltNet, told: &mut Vec<Setting>, sizes: &mut Sizes) {
        if let (Some(names), false) = (&self.labels, told.contains(&Setting::Labels)) {
            built.labels = Labels::of(names.clone());
            told.push(Setting::Labels);
        }
        let preprocess = &mut built.preparation.preprocess;
        if !preprocess.takes_pictures() {
            return;
        }
        let each =
            |values: &Vec<f64>| if values.len() == 1 { vec![values[0]; preprocess.channels] } else { values.clone() };
        let (mean, std) = (self.mean.as_ref().map(each), self.std.as_ref().map(each));
        if let (Some(mean), false) = (mean, told.contains(&Setting::Mean)) {
            preprocess.mean = mean;
            told.push(Setting::Mean);
        }
        if let (Some(std), false) = (std, told.contains(&Setting::Std)) {
            preprocess.std = std;
            told.push(Setting::Std);
        }
        if let (Some(how), false) = (self.interpolation, told.contains(&Setting::Interpolation)) {
            preprocess.interpolation = how;
            told.push(Setting::Interpolation);
        }
        if sizes.size.is_none() && sizes.crop_pct.is_none() {
            sizes.resize = self.resize;
        } else if sizes.size.is_none() && self.size.is_some() {
            sizes.resize = None;
        }
        sizes.size = sizes.size.or(self.size.map(|size| (size, self.place)));
        sizes.crop_pct = sizes.crop_pct.or(self.crop_pct);
    }

    /// Summarises what was read, in one line; `None` if nothing relevant was. Statements in `before` take precedence.
    pub(super) fn read(&self, before: &[&Statement]) -> Option<String> {
        let said = |has: fn(&Statement) -> bool| before.iter().find(|other| has(other)).map(|other| other.place);
        let parts = [
            (self.architecture.as_ref().map(|name| format!("architecture {name}")), said(|s| s.architecture.is_some())),
            (self.size.map(|[h, w]| format!("size {h}x{w}")), said(|s| s.size.is_some())),
            (self.crop_pct.map(|share| format!("crop_pct {share}")), said(|s| s.crop_pct.is_some())),
            (self.mean.as_ref().map(|_| "mean".to_string()), said(|s| s.mean.is_some())),
            (self.std.as_ref().map(|_| "std".to_string()), said(|s| s.std.is_some())),
            (self.interpolation.map(|how| format!("{how:?}").to_lowercase()), said(|s| s.interpolation.is_some())),
            (self.labels.as_ref().map(|_| "class names".to_string()), said(|s| s.labels.is_some())),
        ];
        let part = |(what, by): (Option<String>, Option<&str>)| match by {
            Some(by) => Some(format!("{} (overruled by {by})", what?)),
            None => what,
        };
        let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
        (!parts.is_empty()).then(|| format!("{}: {}", self.place, parts.join(", ")))
    }

    /// The net that it names, if that is not `row`; whether or not that net is supported.
    pub(super) fn other_net(&self, table: &[Architecture], row: &Architecture, built: &BuiltNet) -> Option<&str> {
        let same = match self.named(table) {
            Ok(None) => true,
            Ok(Some((named, form))) => named.name == row.name && form.is_none_or(|form| form == built.form),
            Err(_) => false,
        };
        self.architecture.as_deref().filter(|_| !same)
    }
}

/// Sizes from several sources: one may give the size and another the share that is cropped.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// `[h, w]` of the input, and its source.
    size: Option<([usize; 2], &'static str)>,
    crop_pct: Option<f64>,
    /// The short side before cropping, if the source of both others gives it.
    resize: Option<usize>,
}

impl Sizes {
    /// Applies the sizes in place of assumptions; returns what is still assumed.
    ///
    /// # Errors
    /// When the net does not take pictures of that size.
    pub(super) fn apply(self, built: &mut BuiltNet, told: &mut Vec<Setting>) -> Result<Option<String>> {
        if self.size.is_none() && self.crop_pct.is_none() {
            return Ok(None);
        }
        let preprocess = &mut built.preparation.preprocess;
        preprocess.crop = self.size.map_or(preprocess.crop, |(size, _)| size);
        let [h, w] = preprocess.crop;
        let short = (h.min(w) as f64 / self.crop_pct.unwrap_or(CROP_PCT)).floor() as usize;
        preprocess.resize = self.resize.unwrap_or(short);
        told.push(Setting::Size);
        let input = Shape::new(built.graph.input_shape().c, h, w);
        if input != built.graph.input_shape() {
            let place = self.size.map_or("the file", |(_, place)| place);
            built.graph = built
                .graph
                .resized(input)
                .map_err(|e| Error::model(format!("{place} says pictures of {h}x{w} pixels: {e}")))?;
        }
        Ok(match (self.size, self.crop_pct) {
            (Some(_), None) => Some(format!("crop_pct {CROP_PCT}")),
            (None, _) => Some(format!("size {h}x{w}")),
            (Some(_), Some(_)) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Option<Statement>> {
        of_file(CONFIG, text.as_bytes())
    }

    #[test]
    fn both_forms_of_timm_are_read() {
        let nested = file(
            r#"{"architecture": "resnet50", "num_classes": 10, "global_pool": "avg", "pretrained_cfg": {
                "num_classes": 1000, "input_size": [3, 160, 160], "crop_pct": 0.95, "interpolation": "bicubic",
                "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}"#,
        );
        let flat = file(
            r#"{"architecture": "resnet50", "num_classes": 10, "input_size": [3, 160, 160], "crop_pct": 0.95,
                "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}"#,
        );
        let nested = nested.unwrap().unwrap();
        assert_eq!(nested, flat.unwrap().unwrap());
        assert_eq!((nested.classes, nested.size, nested.crop_pct), (Some(10), Some([160; 2]), Some(0.95)));
        assert_eq!(nested.interpolation, Some(Interpolation::Bicubic));
        assert!(nested.changes.is_empty() && nested.warnings.is_empty());
    }

    #[test]
    fn what_contradicts_itself_or_changes_the_net_is_not_passed_over() {
        let of = |more: &str| file(&format!(r#"{{"architecture": "resnet18", {more}}}"#));
        for more in [
            r#""num_classes": 10, "num_labels": 7"#,
            r#""num_classes": 10, "model_args": {"num_classes": 7}"#,
            r#""input_size": [0.5, 32, 32]"#,
            r#""in_chans": -1"#,
        ] {
            assert!(of(more).is_err(), "{more}");
        }
        for (more, change) in [(r#""act_layer": "gelu""#, "act_layer"), (r#""output_stride": 8"#, "output_stride=8")] {
            let said = of(more).unwrap().unwrap();
            assert!(said.changes[0].contains(change), "{more}");
        }
        let said =
            of(r#""act_layer": "relu", "output_stride": 32, "num_classes": 10, "num_labels": 10"#).unwrap().unwrap();
        assert!(said.changes.is_empty());
        for (text, changes) in [
            (r#"{"architecture": "efficientnet_lite0", "act_layer": "relu6"}"#, 0),
            (r#"{"architecture": "efficientnet_lite0", "act_layer": "relu"}"#, 1),
            (r#"{"architecture": "mobilenet_v2", "act_layer": "relu"}"#, 1),
            (r#"{"architecture": "lcnet_050", "act_layer": "relu"}"#, 1),
            (r#"{"architecture": "lcnet_050", "pretrained_cfg": {"aa_layer": "blurpc"}, "pad_type": "same"}"#, 2),
            (
                r#"{"architectures": ["MobileNetV2ForImageClassification"], "tf_padding": true, "layer_norm_eps": 0.001}"#,
                0,
            ),
            (
                r#"{"architectures": ["MobileNetV2ForImageClassification"], "tf_padding": false, "layer_norm_eps": 1e-5}"#,
                2,
            ),
            (r#"{"architectures": ["ConvNextV2ForImageClassification"], "layer_norm_eps": 1e-12}"#, 0),
            (r#"{"architectures": ["ConvNextForImageClassification"], "layer_norm_eps": 1e-5}"#, 1),
            (
                r#"{"architectures": ["EfficientNetForImageClassification"], "pooling_type": "mean", "batch_norm_eps": 0.001}"#,
                0,
            ),
            (
                r#"{"architectures": ["EfficientNetForImageClassification"], "pooling_type": "max", "batch_norm_eps": 1e-5}"#,
                2,
            ),
            (r#"{"architectures": ["EfficientNetForImageClassification"], "strides": [1, 2, 2, 2, 1, 1, 1]}"#, 1),
            (r#"{"architectures": ["RegNetForImageClassification"], "downsample_in_first_stage": true}"#, 0),
            (r#"{"architectures": ["ResNetForImageClassification"], "downsample_in_first_stage": false}"#, 0),
            (r#"{"architectures": ["ResNetForImageClassification"], "downsample_in_first_stage": true}"#, 1),
            (r#"{"architecture": "resnet18", "act_layer": "relu6", "norm_layer": "batchnorm2d"}"#, 1),
        ] {
            assert_eq!(file(text).unwrap().unwrap().changes.len(), changes, "{text}");
        }
        let said = file(r#"{"architecture": "resnet18", "image_size": [1, 32, 32]}"#).unwrap().unwrap();
        assert_eq!(said.channels, [("image_size", 1)]);
        let said = of(r#""in_chans": 1, "input_size": [3, 32, 32]"#).unwrap().unwrap();
        assert_eq!(said.channels, [("in_chans", 1), ("input_size", 3)]);
    }

    #[test]
    fn what_is_not_about_a_net_is_left_alone() {
        assert_eq!(file(r#"{"learning_rate": 0.1, "mean": "none"}"#).unwrap(), None);
        assert_eq!(file("[1, 2]").unwrap(), None);
        assert!(file("{").unwrap_err().to_string().contains("config.json"));
        for (text, key) in [
            (r#"{"architecture": 7}"#, "architecture"),
            (r#"{"architecture": "resnet18", "mean": "grey"}"#, "mean"),
            (r#"{"architecture": "resnet18", "input_size": [3, 0, 9]}"#, "input_size"),
            (r#"{"architecture": "resnet18", "crop_pct": 8.75}"#, "crop_pct"),
            (r#"{"architecture": "resnet18", "num_classes": -1}"#, "num_classes"),
        ] {
            assert!(file(text).unwrap_err().to_string().contains(key), "{text}");
        }
    }

    #[test]
    fn a_null_says_nothing_and_hides_nothing() {
        let said = file(
            r#"{"architecture": "resnet18", "num_classes": null, "num_labels": 10, "input_size": [3, 96, 96], "global_pool": null,
                "model_args": {"output_stride": null}, "pretrained_cfg": {"input_size": null, "mean": null}}"#,
        );
        let said = said.unwrap().unwrap();
        assert_eq!((said.classes, said.size, said.mean, said.changes), (Some(10), Some([96; 2]), None, Vec::new()));
        let said = file(r#"{"architecture": "resnet18", "num_classes": null}"#).unwrap().unwrap();
        assert_eq!(said.classes, None);
    }

    #[test]
    fn text_is_read_in_any_encoding() {
        let text = r#"{"architecture": "resnet18", "label_names": ["é"]}"#;
        let plain = file(text).unwrap();
        let wide =
            |unit: fn(u16) -> [u8; 2]| format!("\u{feff}{text}").encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        for bytes in [format!("\u{feff}{text}").into_bytes(), wide(u16::to_le_bytes), wide(u16::to_be_bytes)] {
            assert_eq!(of_file(CONFIG, &bytes).unwrap(), plain);
        }
        assert!(of_file(CONFIG, b"{\xff}").unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn keys_of_transformers_count_where_those_of_timm_are_absent() {
        let said =
            file(r#"{"architecture": "resnet18", "image_size": 96, "id2label": {"1": "b", "0": "a", "2": "c"}}"#);
        let said = said.unwrap().unwrap();
        assert_eq!((said.size, said.labels.unwrap()), (Some([96; 2]), ["a", "b", "c"].map(String::from).to_vec()));
        let said = file(
            r#"{"architecture": "resnet18", "image_size": [96, 96], "input_size": [3, 64, 64],
                "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#,
        );
        let said = said.unwrap().unwrap();
        assert_eq!((said.size, said.labels), (Some([64; 2]), None));
        let why = file(r#"{"architecture": "resnet18", "id2label": {"1": "b"}}"#).unwrap_err().to_string();
        assert!(why.contains("id2label"), "{why}");
    }

    #[test]
    fn sources_of_weights_are_no_part_of_the_name() {
        for (name, want) in [
            ("resnet50.a1_in1k", "resnet50"),
            ("gluon_resnet50_v1b", "resnet50"),
            ("swsl_resnext50_32x4d", "resnext50_32x4d"),
            ("tf_efficientnet_lite0", "tf_efficientnet_lite0"),
            ("gluon_resnet50_v1c", "resnet50_v1c"),
        ] {
            assert_eq!(published_name(name), want);
        }
    }
}
