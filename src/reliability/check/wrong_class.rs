//! Wrong class: do different classes have different maps?

use super::{Measurement, PanelKind, Test, Threshold};
use crate::map::{channel_max_abs, paper_scale};
use crate::reliability::similarity::{spearman_abs, ssim, top_k_intersection};

/// Share of the pixels that count as a map's top.
const TOP: f64 = 0.1;

pub(super) const TEST: Test = Test {
    id: "wrong_class",
    title: "Wrong class",
    question: "Is the map for the least likely class another one than that for the class predicted?",
    paper: "Wang, Su, Zhang, Hu 2020: Learning reliable visual saliency for model explanations, IEEE Transactions on \
            Multimedia (the question; number and bound are this project's)",
    measure: "Spearman of both maps' magnitudes",
    threshold: Threshold::AtMost(0.9),
    run: |bench, examined| {
        if bench.graph.is_paired() {
            return Ok(Measurement::not_applicable(
                "the net has one output: its other class is the same number with the sign changed",
            ));
        }
        let (x, least) = (bench.scene.x.clone(), bench.scene.least);
        if least == bench.scene.target {
            return Ok(Measurement::not_applicable("the net says the same of all classes"));
        }
        if let Some(nothing) = examined.shows_nothing()? {
            return Ok(nothing);
        }
        let wrong = bench.map(examined, bench.graph, &x, least)?;
        let [a, b] = [channel_max_abs(&examined.map.values)?, channel_max_abs(&wrong.values)?];
        let size = |t: &crate::tensor::Tensor| t.to_f64().iter().sum::<f64>();
        // A map that vanishes for an absent class is as different as possible.
        let spearman = spearman_abs(&a, &b)?;
        let top = spearman.map(|_| top_k_intersection(&a, &b, TOP)).transpose()?;
        let another = match spearman {
            Some(_) => "another class has another map",
            None => "the map for the least likely class is blank or the same everywhere, which counts as another map",
        };
        let sentences = [another, "the map hardly depends on the class"];
        let measured = Measurement::number(spearman.unwrap_or(0.0), sentences)
            .note("SSIM", ssim(&paper_scale(&examined.map.values)?, &paper_scale(&wrong.values)?)?)
            .note_of("share of the top tenth in common", top)
            .note("size of the wrong class's map, as a share of the other's", size(&b) / size(&a));
        Ok(measured.panel(examined.panel(TEST.id, PanelKind::WrongClass, "for the least likely class", wrong, None)))
    },
};
