//! Names and shapes of the published nets, thin or whole.

use super::Layout;

pub(crate) fn conv(layout: &mut Layout, name: &str, shape: [usize; 4]) {
    layout.push((format!("{name}.weight"), shape.to_vec()));
}

pub(crate) fn norm(layout: &mut Layout, name: &str, channels: usize) {
    for kind in ["weight", "bias", "running_mean", "running_var"] {
        layout.push((format!("{name}.{kind}"), vec![channels]));
    }
}

pub(crate) fn linear(layout: &mut Layout, name: &str, k: usize, c: usize) {
    layout.push((format!("{name}.weight"), vec![k, c]));
    layout.push((format!("{name}.bias"), vec![k]));
}

/// torchvision's VGG with widths divided by `thin`; `0` in `cfg` is a pool.
pub(crate) fn vgg(cfg: &[usize], batch_norm: bool, thin: usize, hidden: usize, classes: usize) -> Layout {
    let (mut layout, mut index, mut c) = (Layout::new(), 0, 3);
    for &v in cfg {
        if v == 0 {
            index += 1;
            continue;
        }
        let k = v / thin;
        conv(&mut layout, &format!("features.{index}"), [k, c, 3, 3]);
        layout.push((format!("features.{index}.bias"), vec![k]));
        if batch_norm {
            norm(&mut layout, &format!("features.{}", index + 1), k);
        }
        index += if batch_norm { 3 } else { 2 };
        c = k;
    }
    linear(&mut layout, "classifier.0", hidden, c * 49);
    linear(&mut layout, "classifier.3", hidden, hidden);
    linear(&mut layout, "classifier.6", classes, hidden);
    layout
}

pub(crate) const VGG: [(&[usize], usize, usize); 4] = [
    (&[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0], 8, 132_863_336),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0], 10, 133_047_848),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0], 13, 138_357_544),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0], 16, 143_667_240),
];

/// torchvision's `_make_layer` for stem width `stem`, `width_per_group` and `groups`.
pub(crate) fn resnet(
    bottleneck: bool,
    depths: [usize; 4],
    stem: usize,
    inner: usize,
    groups: usize,
    classes: usize,
) -> Layout {
    let mut layout = Layout::new();
    conv(&mut layout, "conv1", [stem, 3, 7, 7]);
    norm(&mut layout, "bn1", stem);
    let mut c = stem;
    for (i, &depth) in depths.iter().enumerate() {
        let planes = stem << i;
        for j in 0..depth {
            let name = format!("layer{}.{j}", i + 1);
            let out = if bottleneck { planes * 4 } else { planes };
            let width = (inner << i) * groups;
            let shapes = if bottleneck {
                vec![[width, c, 1, 1], [width, width / groups, 3, 3], [out, width, 1, 1]]
            } else {
                vec![[out, c, 3, 3], [out, out, 3, 3]]
            };
            for (n, shape) in shapes.into_iter().enumerate() {
                conv(&mut layout, &format!("{name}.conv{}", n + 1), shape);
                norm(&mut layout, &format!("{name}.bn{}", n + 1), shape[0]);
            }
            if j == 0 && (i > 0 || c != out) {
                conv(&mut layout, &format!("{name}.downsample.0"), [out, c, 1, 1]);
                norm(&mut layout, &format!("{name}.downsample.1"), out);
            }
            c = out;
        }
    }
    linear(&mut layout, "fc", classes, c);
    layout
}

pub(crate) fn alexnet(thin: usize, classes: usize) -> Layout {
    let mut layout = Layout::new();
    let convs = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)];
    for (index, k, c, side) in convs {
        let (k, c) = (k / thin, if c == 3 { 3 } else { c / thin });
        conv(&mut layout, &format!("features.{index}"), [k, c, side, side]);
        layout.push((format!("features.{index}.bias"), vec![k]));
    }
    linear(&mut layout, "classifier.1", 4096 / thin, 256 / thin * 36);
    linear(&mut layout, "classifier.4", 4096 / thin, 4096 / thin);
    linear(&mut layout, "classifier.6", classes, 4096 / thin);
    layout
}

pub(crate) fn lite(depths: [usize; 7], widths: [usize; 7], head: usize, expansion: usize, classes: usize) -> Layout {
    let mut layout = Layout::new();
    let kernels = [3, 3, 5, 3, 5, 5, 3];
    conv(&mut layout, "conv_stem", [32, 3, 3, 3]);
    norm(&mut layout, "bn1", 32);
    let mut c = 32;
    for s in 0..7 {
        for b in 0..depths[s] {
            let (name, k, side) = (format!("blocks.{s}.{b}"), widths[s], kernels[s]);
            if s == 0 {
                conv(&mut layout, &format!("{name}.conv_dw"), [c, 1, side, side]);
                norm(&mut layout, &format!("{name}.bn1"), c);
                conv(&mut layout, &format!("{name}.conv_pw"), [k, c, 1, 1]);
                norm(&mut layout, &format!("{name}.bn2"), k);
            } else {
                let wide = c * expansion;
                conv(&mut layout, &format!("{name}.conv_pw"), [wide, c, 1, 1]);
                norm(&mut layout, &format!("{name}.bn1"), wide);
                conv(&mut layout, &format!("{name}.conv_dw"), [wide, 1, side, side]);
                norm(&mut layout, &format!("{name}.bn2"), wide);
                conv(&mut layout, &format!("{name}.conv_pwl"), [k, wide, 1, 1]);
                norm(&mut layout, &format!("{name}.bn3"), k);
            }
            c = k;
        }
    }
    conv(&mut layout, "conv_head", [head, c, 1, 1]);
    norm(&mut layout, "bn2", head);
    linear(&mut layout, "classifier", classes, head);
    layout
}

pub(crate) fn cifar(n: usize, widths: [usize; 3]) -> Layout {
    let mut layout = Layout::new();
    conv(&mut layout, "conv1", [widths[0], 3, 3, 3]);
    norm(&mut layout, "bn1", widths[0]);
    let mut c = widths[0];
    for (i, &k) in widths.iter().enumerate() {
        for j in 0..n {
            let name = format!("layer{}.{j}", i + 1);
            for (m, c) in [(1, c), (2, k)] {
                conv(&mut layout, &format!("{name}.conv{m}"), [k, c, 3, 3]);
                norm(&mut layout, &format!("{name}.bn{m}"), k);
            }
            c = k;
        }
    }
    linear(&mut layout, "linear", 10, c);
    layout
}

pub(crate) fn mlp(widths: &[usize]) -> Layout {
    let mut layout = Layout::new();
    for (i, pair) in widths.windows(2).enumerate() {
        linear(&mut layout, &(2 * i).to_string(), pair[1], pair[0]);
    }
    layout
}

/// Trained numbers of a layout: what PyTorch counts as parameters.
pub(crate) fn trained(layout: &Layout) -> usize {
    layout.iter().filter(|(name, _)| !name.contains(".running_")).map(|(_, s)| s.iter().product::<usize>()).sum()
}
