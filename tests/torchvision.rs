//! Published nets beside torchvision's: number of parameters, logits and gradients with drawn weights.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod drawn;
mod nets;

use std::path::Path;

use drawn::{Golden, apart, drawn, drawn_net, norm, rounded_net};
use nets::publish;
use safetensors::SafeTensors;
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::graph::Graph;
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// Largest difference from torchvision, as a share of the largest number: double and single precision.
const MOST: [f64; 2] = [1e-10, 1e-5];

/// How far gradients in single precision may lie off: 1e-5, or as far as rounded weights move them in double precision
/// where the net magnifies roundings more than that: the farthest of three draws, under the same decisions.
fn allowed(net: &str, graph: &Graph, x: &Batch, targets: &[usize], double: &mut Engine) -> Vec<f64> {
    let (job, decisions) = (Job::gradient(Score::Logit), double.decisions(graph, x).unwrap());
    let mut gradients = |graph: &Graph| double.explain_under(graph, &job, x, targets, &decisions).unwrap().maps;
    let own = gradients(graph);
    let mut allowed = vec![MOST[1]; own.len()];
    for draw in 0..3 {
        let rounded = gradients(&rounded_net(net, draw).graph(graph.input_shape()).unwrap());
        for (allowed, (own, other)) in allowed.iter_mut().zip(own.iter().zip(&rounded)) {
            *allowed = allowed.max(apart(&other.to_f64(), &own.to_f64()));
        }
    }
    allowed
}

/// Rows of the table: the largest differences of `net` in both precisions.
fn beside_torchvision(file: &SafeTensors, net: &str) -> String {
    let golden = Golden(file, net);
    let model = drawn_net(net);
    let parameters = model.unfolded().parameters();
    assert_eq!(parameters, golden.counts("parameters")[0], "{net}");
    let size = golden.counts("input_size");
    let shape = Shape::new(3, size[0], size[1]);
    let graph = model.graph(shape).unwrap();
    let picture = drawn("input", &[2, 3, size[0], size[1]]);
    let x = Batch::new(&Tensor::f32([2, 3, size[0], size[1]], picture).unwrap()).unwrap();
    let (classes, k) = (golden.counts("classes"), graph.classes());
    let (wanted, wanted_norms) = (golden.numbers("gradients"), golden.numbers("gradient_norms"));
    let [mut double, mut single] = [Precision::F64, Precision::F32]
        .map(|precision| Engine::new(&Settings { precision, threads: Some(2), ..Settings::default() }).unwrap());
    let decisions = double.decisions(&graph, &x).unwrap();
    let mut cells = Vec::new();
    for (precision, most) in [Precision::F64, Precision::F32].into_iter().zip(MOST) {
        let engine = if precision == Precision::F64 { &mut double } else { &mut single };
        let logits = engine.node_outputs(&graph, &x, &[graph.output()]).unwrap()[0].to_f64().into_owned();
        let [mut of_logits, mut of_gradients] = [0.0f64; 2];
        for (i, logits) in logits.chunks(k).enumerate() {
            let wanted = &golden.numbers("logits")[128 * i..128 * (i + 1)];
            of_logits = of_logits.max(apart(&logits[..128], wanted));
            of_logits = of_logits.max(apart(&[norm(logits)], &[golden.numbers("logits_norm")[i]]));
        }
        assert!(of_logits <= most, "{net} {precision}: logits differ by {of_logits:e}");
        for c in 0..2 {
            let (job, targets) = (Job::gradient(Score::Logit), [classes[c], classes[2 + c]]);
            let engine = if precision == Precision::F64 { &mut double } else { &mut single };
            // In single precision under the decisions of the other run: a flipped one changes a gradient by per cents.
            let answer = engine.explain_under(&graph, &job, &x, &targets, &decisions).unwrap();
            for (i, gradient) in answer.maps.iter().enumerate() {
                let (row, gradient) = (2 * i + c, gradient.to_f64());
                let sampled: Vec<f64> = (0..256).map(|j| gradient[j * 7919 % shape.len()]).collect();
                let from_golden = apart(&sampled, &wanted[256 * row..256 * (row + 1)])
                    .max(apart(&[norm(&gradient)], &[wanted_norms[row]]));
                of_gradients = of_gradients.max(from_golden);
                if from_golden <= most {
                    continue;
                }
                assert_eq!(precision, Precision::F32, "{net}: gradients differ by {from_golden:e}");
                let allowed = allowed(net, &graph, &x, &targets, &mut double)[i];
                println!("{net}: {from_golden:.1e}, as rounded weights allow {allowed:.1e}");
                assert!(from_golden <= allowed, "{net}: gradients differ by {from_golden:e} of {allowed:e}");
            }
        }
        println!("{net} {precision}: logits {of_logits:.1e}, gradients {of_gradients:.1e}");
        cells.extend([of_logits, of_gradients]);
    }
    let mut row = format!("| `{net}` | {parameters} | {}×{} |", size[0], size[1]);
    for share in cells {
        // Which rounding fell where is not worth a change of the table.
        row += if share < 1e-11 { " < 1e-11 |".into() } else { format!(" {share:.0e} |") }.as_str();
    }
    row
}

#[test]
fn published_nets_answer_as_torchvision() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torchvision_nets.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut nets: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_suffix(".input_size")).collect();
    nets.sort_unstable();
    let mut table = String::from(
        "Largest difference from torchvision, as a share of the largest number, over two pictures of noise and the\n\
         gradients of their two highest logits; weights and norms are drawn. Gradients in single precision run under\n\
         the decisions of the double-precision run; 1e-5 is allowed, or as much as rounded weights change the gradient in\n\
         double precision (mobilenet_v3_large and regnet_y_400mf magnify roundings most).\n\n\
         | net | parameters | pictures | logits, f64 | gradients, f64 | logits, f32 | gradients, f32 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for net in nets {
        table += &beside_torchvision(&file, net);
        table.push('\n');
    }
    println!("{table}");
    publish("torchvision", &table);
}
