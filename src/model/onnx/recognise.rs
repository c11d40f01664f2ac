//! Normalisations that a file writes out as differences, means and roots.

use std::collections::HashMap;

use super::arithmetic;
use super::constant::Constant;
use super::file::{File, Node};
use super::supported::STANDARDISE;
use super::wire::AttributeProto;

/// Replaces `(x − mean(x)) / √(mean((x − mean(x))²) + ε)` by one node.
pub(super) fn normalisations(file: &mut File) {
    let makers: HashMap<String, usize> =
        file.nodes.iter().enumerate().flat_map(|(i, n)| n.outputs.iter().map(move |o| (o.clone(), i))).collect();
    let found: Vec<(usize, Node)> = (0..file.nodes.len())
        .filter_map(|i| Search { file, makers: &makers }.standardised(&file.nodes[i]).map(|node| (i, node)))
        .collect();
    for (i, node) in found {
        file.nodes[i] = node;
    }
}

struct Search<'f> {
    file: &'f File,
    makers: &'f HashMap<String, usize>,
}

impl Search<'_> {
    /// The node that makes `name`, behind nodes that change nothing, if it is an `op`.
    fn maker(&self, name: &str, op: &str) -> Option<&Node> {
        let mut node = &self.file.nodes[*self.makers.get(name)?];
        for _ in 0..8 {
            if !node.keeps_numbers() {
                break;
            }
            node = &self.file.nodes[*self.makers.get(node.input(0)?)?];
        }
        (node.op == op).then_some(node)
    }

    fn constant(&self, name: &str) -> Option<Constant> {
        if let Some(constant) = self.file.constants.get(name) {
            return constant.as_ref().ok().cloned();
        }
        let node = self.maker(name, "Constant")?;
        arithmetic::compute(node, &[]).ok()?.into_iter().next()
    }

    /// Axes of a mean that keeps them.
    fn axes(&self, mean: &Node) -> Option<Vec<i64>> {
        if mean.int("keepdims", 1) != 1 {
            return None;
        }
        let axes = match (mean.ints("axes"), mean.input(1)) {
            (Some(axes), _) => axes.to_vec(),
            (None, Some(name)) => self.constant(name)?.to_whole().ok()?.to_vec(),
            (None, None) => return None,
        };
        // None named are all, or none, as another attribute says.
        (!axes.is_empty()).then_some(axes)
    }

    /// Input and axes, if `name` is the input less its mean.
    fn centred(&self, name: &str) -> Option<(String, Vec<i64>)> {
        let sub = self.maker(name, "Sub")?;
        let x = sub.input(0)?;
        let mean = self.maker(sub.input(1)?, "ReduceMean")?;
        (mean.input(0)? == x).then_some(())?;
        Some((x.to_owned(), self.axes(mean)?))
    }

    fn standardised(&self, node: &Node) -> Option<Node> {
        let (above, root) = match node.op.as_str() {
            "Div" => (node.input(0)?, self.maker(node.input(1)?, "Sqrt")?),
            // A product with the reciprocal.
            "Mul" => {
                let reciprocal = |name: &str| {
                    let reciprocal = self.maker(name, "Reciprocal")?;
                    self.maker(reciprocal.input(0)?, "Sqrt")
                };
                let (a, b) = (node.input(0)?, node.input(1)?);
                match (reciprocal(a), reciprocal(b)) {
                    (Some(root), _) => (b, root),
                    (_, Some(root)) => (a, root),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let (x, axes) = self.centred(above)?;
        let sum = self.maker(root.input(0)?, "Add")?;
        let (a, b) = (sum.input(0)?, sum.input(1)?);
        let (variance, eps) = match (self.constant(a), self.constant(b)) {
            (None, Some(eps)) => (a, eps.single()?),
            (Some(eps), None) => (b, eps.single()?),
            _ => return None,
        };
        let mean = self.maker(variance, "ReduceMean")?;
        (self.axes(mean)? == axes).then_some(())?;
        let squared = mean.input(0)?;
        let base = if let Some(pow) = self.maker(squared, "Pow") {
            (self.constant(pow.input(1)?)?.single()? == 2.0).then_some(())?;
            pow.input(0)?
        } else {
            let product = self.maker(squared, "Mul")?;
            (product.input(0)? == product.input(1)?).then_some(())?;
            product.input(0)?
        };
        (self.centred(base)? == (x.clone(), axes.clone()) && eps > 0.0).then_some(())?;
        let attribute = |name: &str| AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
        let eps = AttributeProto { f: eps as f32, ..attribute("epsilon") };
        let axes = AttributeProto { ints: axes, ..attribute("axes") };
        Some(Node {
            op: STANDARDISE.to_owned(),
            inputs: vec![x],
            attributes: [("epsilon".to_owned(), eps), ("axes".to_owned(), axes)].into(),
            ..node.clone()
        })
    }
}
