//! Relevance beside Zennit and DeepLIFT beside Captum on published nets with drawn weights, in double precision.
//!
//! `UPDATE_DOCS=1 cargo test --release --test torchvision_rules` writes the table into `docs/methods.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod drawn;
mod nets;

use std::path::Path;

use drawn::{Golden, apart, drawn, drawn_net, norm};
use nets::{build, publish};
use safetensors::SafeTensors;
use verilume::engine::{Batch, Engine, Settings};
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// Golden row and method.
const ROWS: [(&str, &str); 5] = [
    ("lrp_epsilon", "lrp:preset=epsilon,epsilon=1e-2"),
    ("lrp_epsilon_plus", "lrp:preset=epsilon_plus"),
    ("lrp_alpha2_beta1", "lrp:preset=epsilon_alpha2_beta1"),
    ("lrp_gamma", "lrp:preset=gamma,gamma=0.25"),
    ("deep_lift_rescale", "deep_lift"),
];

/// Nets for which a peer is not right in some rows: the script leaves them out, by what Captum's map misses.
const WITHOUT: [(&str, &str); 3] =
    [("googlenet", "deep_lift_rescale"), ("inception_v3", "deep_lift_rescale"), ("squeezenet1_1", "deep_lift_rescale")];

/// Cells of the table: the largest difference in each row that there is.
fn beside_peers(file: &SafeTensors, net: &str) -> String {
    let golden = Golden(file, net);
    let (size, classes) = (golden.counts("input_size"), golden.counts("classes"));
    let model = drawn_net(net);
    let shape = Shape::new(3, size[0], size[1]);
    let graph = model.graph(shape).unwrap();
    let dims = [2, 3, size[0], size[1]];
    let x = Batch::new(&Tensor::f32(dims, drawn("input", &dims)).unwrap()).unwrap();
    let settings = Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let mut cells = format!("| `{net}` | {}×{} |", size[0], size[1]);
    for (row, spec) in ROWS {
        if file.tensor(&format!("{net}.{row}")).is_err() {
            assert!(WITHOUT.contains(&(net, row)), "{net} {row}: no numbers and no reason");
            cells += " – |";
            continue;
        }
        let (wanted, norms) = (golden.numbers(row), golden.numbers(&format!("{row}.norm")));
        let method = build(spec, Score::Logit, 0, model.preprocess()).unwrap();
        let maps = method.explain(&mut engine, &graph, &x, &classes).unwrap();
        let mut worst = 0.0f64;
        for (i, map) in maps.iter().enumerate() {
            let values = map.values.to_f64();
            let sampled: Vec<f64> = (0..256).map(|j| values[j * 7919 % shape.len()]).collect();
            worst = worst.max(apart(&sampled, &wanted[256 * i..256 * (i + 1)]));
            worst = worst.max(apart(&[norm(&values)], &[norms[i]]));
        }
        println!("{net} {row}: {worst:.1e}");
        assert!(worst <= 1e-5, "{net} {row}: {worst:e}");
        // Which rounding fell where is not worth a change of the table.
        cells += if worst < 1e-9 { " < 1e-9 |".into() } else { format!(" {worst:.0e} |") }.as_str();
    }
    cells
}

#[test]
fn rules_are_those_of_zennit_and_captum() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torchvision_rules.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut nets: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_suffix(".input_size")).collect();
    nets.sort_unstable();
    assert_eq!(nets.len(), 7);
    let mut table = String::from(
        "Largest difference from Zennit (LRP) and Captum (DeepLIFT) in double precision, as a share of the map's largest\n\
         number, over two pictures of noise on nets with drawn weights; 1e-5 is allowed. Each call is a module of its own\n\
         for them, batch norms without a convolution before them are depthwise convolutions, and sums are modules. A dash:\n\
         Captum's map does not sum to the difference, since its max-pools keep one of the numbers that overlapping windows\n\
         send to a place. Left out are mobilenet_v3, efficientnet_b0 and regnet_y_400mf, at whose products both send the\n\
         gradient to both operands, and convnext_tiny, at whose layer norms both take the gradient.\n\n\
         | net | pictures |",
    );
    ROWS.iter().for_each(|(row, _)| table += &format!(" `{row}` |"));
    table += &format!("\n|---|---|{}\n", "---|".repeat(ROWS.len()));
    for net in nets {
        table += &beside_peers(&file, net);
        table.push('\n');
    }
    println!("{table}");
    publish("torchvision_rules", &table);
}
