//! Model cards: what somebody who finds a checkpoint should know of it, as Markdown.
//!
//! The head is the YAML that model hubs read (<https://huggingface.co/docs/hub/model-cards>); the rest
//! follows from the configuration and from what the caller measured.

use crate::{Method, ModelConfig, encoder::EncoderConfig};
use std::fmt::Write;

/// A figure that somebody measured with the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The subspace whose embeddings were used.
    pub subspace: String,
    /// What was asked of them, such as `key`.
    pub task: String,
    /// What the value is, such as `accuracy`.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// The ends of its 95% confidence interval.
    pub interval: Option<[f64; 2]>,
}

/// What a card says that a configuration does not know.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// Name of the model.
    pub name: String,
    /// Licence of the weights: an SPDX identifier, such as `CC-BY-4.0`. Empty when nobody chose one; the card
    /// then says so.
    pub licence: String,
    /// What it was trained on and how that may be used, in sentences.
    pub data: String,
    /// What it scored.
    pub figures: Vec<Figure>,
}

impl Card {
    /// The card of a model with `parameters` trainable values.
    pub fn markdown(&self, config: &ModelConfig, parameters: usize) -> String {
        let mut text = String::from("---\n");
        if !self.licence.is_empty() {
            line(&mut text, format_args!("license: {}", quoted(&self.licence.to_lowercase())));
        }
        line(
            &mut text,
            format_args!("library_name: loev\ntags: [audio, music, contrastive-learning]\n---\n"),
        );
        line(&mut text, format_args!("# {}\n", plain(&self.name)));
        line(&mut text, format_args!("{}\n", about(config)));
        line(&mut text, format_args!("| | |\n| --- | --- |"));
        let front_end = &config.front_end;
        let seconds = config.frames.saturating_sub(1) as f64 * front_end.hop as f64
            / f64::from(front_end.sample_rate.max(1));
        let subspaces: Vec<String> = config.subspaces.iter().map(|name| plain(name)).collect();
        let rows = [
            ("trainable values", parameters.to_string()),
            ("embedding", format!("{} values per subspace", config.encoder.dim())),
            ("subspaces", subspaces.join(", ")),
            ("input", format!("mono audio at {} Hz, views of {seconds} s", front_end.sample_rate)),
            ("front end", format!("log-mel, {} bands, hop {} samples", front_end.mels, front_end.hop)),
            (
                "licence of the weights",
                if self.licence.is_empty() { "none given".into() } else { plain(&self.licence) },
            ),
        ];
        for (what, value) in rows {
            line(&mut text, format_args!("| {what} | {value} |"));
        }
        if !self.data.is_empty() {
            line(&mut text, format_args!("\n## Training data\n\n{}", self.data.trim()));
        }
        if !self.figures.is_empty() {
            line(&mut text, format_args!("\n## Figures\n"));
            line(&mut text, format_args!("| subspace | task | metric | value | 95% interval |"));
            line(&mut text, format_args!("| --- | --- | --- | --- | --- |"));
        }
        for Figure { subspace, task, metric, value, interval } in &self.figures {
            let [subspace, task, metric] = [subspace, task, metric].map(|name| plain(name));
            let interval = interval.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}"));
            line(&mut text, format_args!("| {subspace} | {task} | {metric} | {value:.3} | {interval} |"));
        }
        text
    }
}

/// Writing to a string cannot fail.
fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").ok();
}

/// A name in a table of Markdown or a title.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}

/// A string in YAML, which reads those of JSON.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn about(config: &ModelConfig) -> String {
    let encoder = match &config.encoder {
        EncoderConfig::Vit(vit) => format!("a transformer of width {} and depth {}", vit.dim, vit.depth),
        EncoderConfig::SfNfnet(_) => "a SlowFast network without batch norm".to_owned(),
    };
    let method = match config.method {
        Method::Simclr => "one embedding, trained to ignore all augmentations (SimCLR, arXiv 2002.05709)",
        Method::Loev => {
            "one embedding per subspace, each but the invariant one keeping what one augmentation changes (LOEV, \
             arXiv 2412.18955)"
        }
        Method::LoevReference => {
            "one embedding per subspace, each but the invariant one keeping what one augmentation changes (LOEV, \
             arXiv 2412.18955, with the loss and projections of its authors' code)"
        }
        Method::LoevPlusPlus => {
            "one embedding per subspace, each from encoder blocks of its own, each but the invariant one keeping what \
             one augmentation changes (LOEV++, arXiv 2412.18955)"
        }
    };
    format!("An encoder of music: {encoder} over log-mel frames. It gives {method}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::small;

    #[test]
    fn a_card_says_what_is_known_and_stays_a_table() {
        let mut config = small(Method::LoevPlusPlus);
        config.subspaces[1] = "a|b\nc".into();
        let figure = Figure {
            subspace: "invariant".into(),
            task: "key".into(),
            metric: "accuracy".into(),
            value: 0.5,
            interval: Some([0.4, 0.61234]),
        };
        let card = Card {
            name: "small\nmodel".into(),
            licence: "CC-BY-4.0".into(),
            data: "Synthetic.\n".into(),
            figures: vec![figure.clone(), Figure { interval: None, ..figure }],
        };
        let text = card.markdown(&config, 4321);
        assert!(text.starts_with("---\nlicense: \"cc-by-4.0\"\nlibrary_name: loev\n"), "{text}");
        let lines = [
            "# small model",
            "| trainable values | 4321 |",
            "| embedding | 12 values per subspace |",
            "| subspaces | invariant, a\\|b c, time_stretch |",
            "| input | mono audio at 16000 Hz, views of 0.08 s |",
            "| licence of the weights | CC-BY-4.0 |",
            "Synthetic.",
            "| invariant | key | accuracy | 0.500 | 0.400 to 0.612 |",
            "| invariant | key | accuracy | 0.500 |  |",
        ];
        for line in lines {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        let bare = Card::default().markdown(&config, 1);
        assert!(bare.contains("| licence of the weights | none given |"));
        assert!(!bare.contains("license:") && !bare.contains("## "));
    }
}
