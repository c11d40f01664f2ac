//! Names and tensor shapes of well-known nets, and such nets with random weights, to measure speed without a file.

use std::sync::Arc;

use super::{Model, efficientnet_lite};
use crate::error::{Error, Result};
use crate::near;

/// One tensor of a net.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// Name in the weights file.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    fill: WeightFill,
}

/// What random weights hold instead of trained values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WeightFill {
    /// Uniform with this standard deviation.
    Spread(f32),
    Constant(f32),
}

/// Scale of the last batch norm in a residual branch, which keeps sums over many blocks of order one.
const BRANCH_SCALE: f32 = 0.25;

/// A bottleneck ResNet: name, blocks per layer, channels within the first layer's blocks, groups.
type Bottleneck = (&'static str, [usize; 4], usize, usize);

const BOTTLENECKS: [Bottleneck; 8] = [
    ("resnet50", [3, 4, 6, 3], 64, 1),
    ("resnet101", [3, 4, 23, 3], 64, 1),
    ("resnet152", [3, 8, 36, 3], 64, 1),
    ("wide_resnet50_2", [3, 4, 6, 3], 128, 1),
    ("wide_resnet101_2", [3, 4, 23, 3], 128, 1),
    ("resnext50_32x4d", [3, 4, 6, 3], 128, 32),
    ("resnext101_32x8d", [3, 4, 23, 3], 256, 32),
    ("resnext101_64x4d", [3, 4, 23, 3], 256, 64),
];

const BASICS: [(&str, [usize; 4]); 2] = [("resnet18", [2, 2, 2, 2]), ("resnet34", [3, 4, 6, 3])];

/// Name and number of convolutions before each pool.
const VGGS: [(&str, [usize; 5]); 8] = [
    ("vgg11", [1, 1, 2, 2, 2]),
    ("vgg13", [2, 2, 2, 2, 2]),
    ("vgg16", [2, 2, 3, 3, 3]),
    ("vgg19", [2, 2, 4, 4, 4]),
    ("vgg11_bn", [1, 1, 2, 2, 2]),
    ("vgg13_bn", [2, 2, 2, 2, 2]),
    ("vgg16_bn", [2, 2, 3, 3, 3]),
    ("vgg19_bn", [2, 2, 4, 4, 4]),
];

/// Name and blocks per layer.
const CIFARS: [(&str, usize); 5] =
    [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9), ("resnet110", 18)];

/// Names of the nets with a blueprint.
pub fn known_nets() -> Vec<&'static str> {
    let mut names = vec!["alexnet"];
    names.extend(VGGS.iter().map(|v| v.0));
    names.extend(BASICS.iter().map(|v| v.0));
    names.extend(BOTTLENECKS.iter().map(|v| v.0));
    names.extend(CIFARS.iter().map(|v| v.0));
    names.extend(efficientnet_lite::VARIANTS.iter().map(|v| v.name));
    names.push("mlp");
    names
}

#[derive(Default)]
struct BlueprintList(Vec<Blueprint>);

impl BlueprintList {
    fn tensor(&mut self, name: String, shape: &[usize], fill: WeightFill) {
        self.0.push(Blueprint { name, shape: shape.to_vec(), fill });
    }

    /// Variance 2 / fan-in keeps the signal's magnitude through ReLUs (He 2015).
    fn weight(&mut self, name: &str, shape: &[usize]) {
        let fan: usize = shape[1..].iter().product();
        self.tensor(format!("{name}.weight"), shape, WeightFill::Spread((2.0 / fan as f32).sqrt()));
    }

    fn bias(&mut self, name: &str, len: usize) {
        self.tensor(format!("{name}.bias"), &[len], WeightFill::Spread(0.05));
    }

    fn conv(&mut self, name: &str, k: usize, c: usize, side: usize) {
        self.weight(name, &[k, c, side, side]);
    }

    fn norm(&mut self, name: &str, channels: usize, scale: f32) {
        self.tensor(format!("{name}.weight"), &[channels], WeightFill::Constant(scale));
        self.bias(name, channels);
        self.tensor(format!("{name}.running_mean"), &[channels], WeightFill::Spread(0.05));
        self.tensor(format!("{name}.running_var"), &[channels], WeightFill::Constant(1.0));
    }

    fn linear(&mut self, name: &str, k: usize, c: usize) {
        self.weight(name, &[k, c]);
        self.bias(name, k);
    }

    fn vgg(&mut self, blocks: [usize; 5], batch_norm: bool) {
        let (mut index, mut c) = (0, 3);
        for (n, k) in blocks.into_iter().zip([64, 128, 256, 512, 512]) {
            for _ in 0..n {
                let name = format!("features.{index}");
                self.conv(&name, k, c, 3);
                self.bias(&name, k);
                index += 1;
                if batch_norm {
                    self.norm(&format!("features.{index}"), k, 1.0);
                    index += 1;
                }
                (index, c) = (index + 1, k);
            }
            index += 1;
        }
        self.linear("classifier.0", 4096, c * 49);
        self.linear("classifier.3", 4096, 4096);
        self.linear("classifier.6", 1000, 4096);
    }

    fn alexnet(&mut self) {
        let convolutions = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)];
        for (index, k, c, side) in convolutions {
            let name = format!("features.{index}");
            self.conv(&name, k, c, side);
            self.bias(&name, k);
        }
        self.linear("classifier.1", 4096, 256 * 36);
        self.linear("classifier.4", 4096, 4096);
        self.linear("classifier.6", 1000, 4096);
    }

    /// `inner` channels within the first layer's bottlenecks, in `groups` groups; `None` for basic blocks.
    fn resnet(&mut self, depths: [usize; 4], bottleneck: Option<(usize, usize)>) {
        self.conv("conv1", 64, 3, 7);
        self.norm("bn1", 64, 1.0);
        let mut c = 64;
        for (layer, &depth) in depths.iter().enumerate() {
            let planes = 64 << layer;
            let k = if bottleneck.is_some() { 4 * planes } else { planes };
            for block in 0..depth {
                let name = format!("layer{}.{block}", layer + 1);
                let convolutions = match bottleneck {
                    None => vec![(k, c, 3), (k, k, 3)],
                    Some((inner, groups)) => {
                        let width = inner << layer;
                        vec![(width, c, 1), (width, width / groups, 3), (k, width, 1)]
                    }
                };
                let last = convolutions.len();
                for (i, (k, c, side)) in (1..).zip(convolutions) {
                    self.conv(&format!("{name}.conv{i}"), k, c, side);
                    self.norm(&format!("{name}.bn{i}"), k, if i == last { BRANCH_SCALE } else { 1.0 });
                }
                if block == 0 && (layer > 0 || c != k) {
                    self.conv(&format!("{name}.downsample.0"), k, c, 1);
                    self.norm(&format!("{name}.downsample.1"), k, 1.0);
                }
                c = k;
            }
        }
        self.linear("fc", 1000, c);
    }

    fn cifar(&mut self, depth: usize) {
        self.conv("conv1", 16, 3, 3);
        self.norm("bn1", 16, 1.0);
        let mut c = 16;
        for (layer, k) in [16, 32, 64].into_iter().enumerate() {
            for block in 0..depth {
                let name = format!("layer{}.{block}", layer + 1);
                self.conv(&format!("{name}.conv1"), k, c, 3);
                self.norm(&format!("{name}.bn1"), k, 1.0);
                self.conv(&format!("{name}.conv2"), k, k, 3);
                self.norm(&format!("{name}.bn2"), k, BRANCH_SCALE);
                c = k;
            }
        }
        self.linear("linear", 10, c);
    }

    fn lite(&mut self, depths: [usize; 7], widths: [usize; 7]) {
        self.conv("conv_stem", 32, 3, 3);
        self.norm("bn1", 32, 1.0);
        let mut c = 32;
        for (stage, side) in [3, 3, 5, 3, 5, 5, 3].into_iter().enumerate() {
            let k = widths[stage];
            for block in 0..depths[stage] {
                let name = format!("blocks.{stage}.{block}");
                let end = if block > 0 { BRANCH_SCALE } else { 1.0 };
                if stage == 0 {
                    self.conv(&format!("{name}.conv_dw"), c, 1, side);
                    self.norm(&format!("{name}.bn1"), c, 1.0);
                    self.conv(&format!("{name}.conv_pw"), k, c, 1);
                    self.norm(&format!("{name}.bn2"), k, end);
                } else {
                    let wide = 6 * c;
                    self.conv(&format!("{name}.conv_pw"), wide, c, 1);
                    self.norm(&format!("{name}.bn1"), wide, 1.0);
                    self.conv(&format!("{name}.conv_dw"), wide, 1, side);
                    self.norm(&format!("{name}.bn2"), wide, 1.0);
                    self.conv(&format!("{name}.conv_pwl"), k, wide, 1);
                    self.norm(&format!("{name}.bn3"), k, end);
                }
                c = k;
            }
        }
        self.conv("conv_head", 1280, c, 1);
        self.norm("bn2", 1280, 1.0);
        self.linear("classifier", 1000, 1280);
    }
}

/// The well-known net called `net`; case, `-`, `_` and spaces are ignored.
fn known(net: &str) -> Result<&'static str> {
    let names = known_nets();
    near::find(net, names.iter().copied(), |name| [*name])
        .ok_or_else(|| Error::settings(format!("no net is named '{net}'; known are {}", names.join(", "))))
}

/// The tensors of a well-known net, under their original names (torchvision, timm).
///
/// # Errors
/// When no net of that name is known; the message lists the known ones.
pub fn blueprint(net: &str) -> Result<Vec<Blueprint>> {
    let net = known(net)?;
    let mut plan = BlueprintList::default();
    if let Some(&(name, blocks)) = VGGS.iter().find(|v| v.0 == net) {
        plan.vgg(blocks, name.ends_with("_bn"));
    } else if let Some(&(_, depths)) = BASICS.iter().find(|v| v.0 == net) {
        plan.resnet(depths, None);
    } else if let Some(&(_, depths, inner, groups)) = BOTTLENECKS.iter().find(|v| v.0 == net) {
        plan.resnet(depths, Some((inner, groups)));
    } else if let Some(&(_, depth)) = CIFARS.iter().find(|v| v.0 == net) {
        plan.cifar(depth);
    } else if let Some(variant) = efficientnet_lite::VARIANTS.iter().find(|v| v.name == net) {
        plan.lite(variant.depths, variant.widths);
    } else if net == "alexnet" {
        plan.alexnet();
    } else {
        let widths = [784, 1024, 1024, 1024, 10];
        for (i, pair) in widths.windows(2).enumerate() {
            plan.linear(&(2 * i).to_string(), pair[1], pair[0]);
        }
    }
    Ok(plan.0)
}

/// Uniform numbers in [−1, 1): SplitMix64 (Steele 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

impl Model {
    /// A well-known net with random weights (f32), to measure speed: activations stay of order one, the results mean
    /// nothing. Equal seeds give equal weights. [`known_nets`] lists the names.
    ///
    /// # Errors
    /// When no net of that name is known.
    pub fn random(net: &str, seed: u64) -> Result<Self> {
        let net = known(net)?;
        let tensors = blueprint(net)?;
        let (mut header, mut bytes) = (serde_json::Map::new(), 0usize);
        for t in &tensors {
            let end = bytes + 4 * t.shape.iter().product::<usize>();
            let entry = serde_json::json!({ "dtype": "F32", "shape": t.shape, "data_offsets": [bytes, end] });
            header.insert(t.name.clone(), entry);
            bytes = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        // The numbers start at a multiple of 64 bytes.
        while !(8 + header.len()).is_multiple_of(64) {
            header.push(' ');
        }
        let mut file = Vec::with_capacity(8 + header.len() + bytes);
        file.extend_from_slice(&(header.len() as u64).to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        let mut uniform = SplitMix(seed);
        for t in &tensors {
            for _ in 0..t.shape.iter().product() {
                let value = match t.fill {
                    WeightFill::Constant(value) => value,
                    // A uniform number has a variance of a third.
                    WeightFill::Spread(deviation) => uniform.next() * deviation * 3f32.sqrt(),
                };
                file.extend_from_slice(&value.to_le_bytes());
            }
        }
        // Two families share a Lite's tensors; blueprints take the names of the first.
        let lite = efficientnet_lite::VARIANTS.iter().any(|v| v.name == net);
        Self::from_bytes(net, Arc::new(file), lite.then_some(efficientnet_lite::TENSORFLOW))
    }
}
