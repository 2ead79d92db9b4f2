//! The graph of stages: from left to right, each behind what it reads.

use std::collections::BTreeMap;

use super::super::html::{Html, coordinate};
use super::{drawing, fitting, label};

const WIDTH: f64 = 158.0;
const HEIGHT: f64 = 50.0;
const ACROSS: f64 = 42.0;
const DOWN: f64 = 14.0;
const MARGIN: f64 = 4.0;
/// Sweeps that bring stages nearer to what they read.
const SWEEPS: usize = 6;

/// A stage.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it reads.
    pub inputs: Vec<String>,
    /// Lines under its name.
    pub lines: Vec<String>,
    /// Whether it is finished.
    pub done: bool,
    /// What is to be noticed, such as rejects.
    pub warning: Option<String>,
}

/// Draws the graph.
pub fn graph(nodes: &[Node]) -> Html {
    let layers = layers(nodes);
    let columns = layers.len() as f64;
    let rows = layers.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let (width, height) =
        (columns * (WIDTH + ACROSS) - ACROSS + 2.0 * MARGIN, rows * (HEIGHT + DOWN) - DOWN + 2.0 * MARGIN);
    let mut place = BTreeMap::new();
    for (column, layer) in layers.iter().enumerate() {
        let free = (rows - layer.len() as f64) * (HEIGHT + DOWN) / 2.0;
        for (row, node) in layer.iter().enumerate() {
            let x = MARGIN + column as f64 * (WIDTH + ACROSS);
            place.insert(*node, (x, MARGIN + free + row as f64 * (HEIGHT + DOWN)));
        }
    }
    let words = nodes.iter().map(|n| match n.inputs.is_empty() {
        true => format!("{} ({})", n.name, n.kind),
        false => format!("{} ({}) reads {}", n.name, n.kind, n.inputs.join(", ")),
    });
    let mut svg = drawing(width.max(1.0), height.max(1.0), &words.collect::<Vec<_>>().join("; "));
    for (number, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            let from = nodes.iter().position(|other| other.name == *input);
            let (Some((x1, y1)), Some((x2, y2))) =
                (from.and_then(|from| place.get(&from)), place.get(&number))
            else {
                continue;
            };
            let (x1, y1, y2) = (x1 + WIDTH, y1 + HEIGHT / 2.0, y2 + HEIGHT / 2.0);
            let half = ((x2 - x1) / 2.0).min(60.0);
            let [x1, y1, a, b, y2, x2] = [x1, y1, x1 + half, x2 - half, y2, *x2].map(coordinate);
            let path = format!("M{x1} {y1}C{a} {y1} {b} {y2} {x2} {y2}");
            svg.empty("path", &[("d", path.as_str().into()), ("class", "edge".into())]);
        }
    }
    for (number, node) in nodes.iter().enumerate() {
        if let Some((x, y)) = place.get(&number) {
            one(&mut svg, node, *x, *y);
        }
    }
    svg.close("svg");
    svg
}

fn one(svg: &mut Html, node: &Node, x: f64, y: f64) {
    let class = if node.done { "stage" } else { "stage undone" };
    svg.open("g", &[]);
    let frame = [("x", x.into()), ("y", y.into()), ("width", WIDTH.into()), ("height", HEIGHT.into())];
    svg.empty("rect", &[frame[0], frame[1], frame[2], frame[3], ("rx", 7.0.into()), ("class", class.into())]);
    label(svg, "name", "start", x + 9.0, y + 17.0, &fitting(&node.name, WIDTH - 10.0));
    for (i, line) in node.lines.iter().enumerate() {
        label(svg, "tick", "start", x + 9.0, y + 31.0 + 13.0 * i as f64, &fitting(line, WIDTH - 10.0));
    }
    if let Some(warning) = &node.warning {
        label(svg, "warning", "end", x + WIDTH - 8.0, y + 44.0, &fitting(warning, 70.0));
    }
    let told = format!("{} ({}): {}", node.name, node.kind, node.lines.join(", "));
    svg.element("title", &[], &told).close("g");
}

/// The nodes of each column: a node stands behind all that it reads, and near it. Whatever the edges, it ends.
fn layers(nodes: &[Node]) -> Vec<Vec<usize>> {
    let number = |name: &String| nodes.iter().position(|node| node.name == *name);
    let inputs: Vec<Vec<usize>> =
        nodes.iter().map(|node| node.inputs.iter().filter_map(number).collect()).collect();
    let mut depth = vec![0; nodes.len()];
    for _ in 0..nodes.len() {
        let mut moved = false;
        for node in 0..nodes.len() {
            let wanted = inputs[node].iter().map(|input| depth[*input] + 1).max().unwrap_or(0);
            if wanted > depth[node] && wanted < nodes.len() {
                depth[node] = wanted;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    // A source that is read late stands just before its first reader.
    for node in 0..nodes.len() {
        let first = (0..nodes.len())
            .filter(|reader| inputs[*reader].contains(&node))
            .map(|reader| depth[reader])
            .min();
        if inputs[node].is_empty()
            && let Some(first) = first
        {
            depth[node] = first.saturating_sub(1);
        }
    }
    let columns = depth.iter().max().map_or(0, |deepest| deepest + 1);
    let mut layers: Vec<Vec<usize>> =
        (0..columns).map(|column| (0..nodes.len()).filter(|node| depth[*node] == column).collect()).collect();
    let mut row = vec![0.0; nodes.len()];
    for sweep in 0..SWEEPS {
        let order: Vec<usize> = match sweep % 2 {
            0 => (0..columns).collect(),
            _ => (0..columns).rev().collect(),
        };
        for column in order {
            let middle = |node: &usize| {
                let readers = (0..nodes.len()).filter(|reader| inputs[*reader].contains(node));
                let near: Vec<usize> = match sweep % 2 {
                    0 => inputs[*node].clone(),
                    _ => readers.collect(),
                };
                match near.len() {
                    0 => row[*node],
                    count => near.iter().map(|other| row[*other]).sum::<f64>() / count as f64,
                }
            };
            let mut placed: Vec<(f64, usize)> =
                layers[column].iter().map(|node| (middle(node), *node)).collect();
            placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            layers[column] = placed.into_iter().map(|(_, node)| node).collect();
            let half = layers[column].len() as f64 / 2.0;
            for (i, node) in layers[column].iter().enumerate() {
                row[*node] = i as f64 - half;
            }
        }
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, inputs: &[&str]) -> Node {
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        Node { name: name.to_owned(), inputs, ..Node::default() }
    }

    #[test]
    fn stages_stand_behind_what_they_read() {
        let nodes = [
            node("probes", &["embeddings", "clips"]),
            node("clips", &[]),
            node("embeddings", &["clips", "model"]),
            node("model", &["views"]),
            node("views", &["clips", "noises"]),
            node("noises", &[]),
        ];
        assert_eq!(layers(&nodes), [vec![1, 5], vec![4], vec![3], vec![2], vec![0]]);
        assert_eq!(graph(&nodes).as_str().matches("class=\"edge\"").count(), 7);
    }

    #[test]
    fn circles_and_strangers_do_no_harm() {
        let nodes = [node("a", &["b", "nowhere"]), node("b", &["a"]), node("c", &["c"])];
        assert_eq!(layers(&nodes).iter().map(Vec::len).sum::<usize>(), 3);
        assert!(graph(&nodes).as_str().ends_with("</svg>"));
        assert!(graph(&[]).as_str().ends_with("</svg>"));
    }
}
