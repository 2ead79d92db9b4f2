//! From labels to what a classifier learns, and from its probabilities back to answers.
//!
//! Everything fitted here (tempo bins, tag and class vocabularies) comes from training rows alone.

use std::collections::{BTreeMap, BTreeSet};

use loev_ops::mir::MusicalKey;

use super::network::Loss;
use super::{Labels, ProbeError};

/// Tempi accepted as labels, BPM.
const TEMPI: std::ops::RangeInclusive<f64> = 1.0..=2000.0;
/// Ratio of neighbouring tempo bins, as a difference of logarithms.
const BIN_STEP: f64 = 0.02;
/// Standard deviation of the target around the true tempo, in bins.
const SMEAR: f64 = 1.5;
/// Bins beyond the slowest and the fastest training tempo, and bins averaged on each side of the highest one.
const MARGIN: usize = 3;

/// A grid of tempi, evenly spaced in their logarithm.
#[derive(Clone, Debug)]
pub(super) struct TempoBins {
    first_log: f64,
    count: usize,
}

impl TempoBins {
    /// Covers the given tempi.
    fn fit(tempi: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            tempi.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), t| (low.min(t), high.max(t)));
        let span = (high / low).ln();
        let count = (span / BIN_STEP).ceil() as usize + 1 + 2 * MARGIN;
        Self { first_log: low.ln() - MARGIN as f64 * BIN_STEP, count }
    }

    fn log_bpm(&self, bin: usize) -> f64 {
        self.first_log + bin as f64 * BIN_STEP
    }

    /// A Gaussian around `bpm` that sums to 1. A tempo outside the grid puts its weight on the nearest end.
    fn smear(&self, bpm: f64, target: &mut [f32]) {
        let place = ((bpm.ln() - self.first_log) / BIN_STEP).clamp(0.0, (self.count - 1) as f64);
        let weight = |bin: usize| (-0.5 * ((bin as f64 - place) / SMEAR).powi(2)).exp();
        let total: f64 = (0..self.count).map(weight).sum();
        target.iter_mut().enumerate().for_each(|(bin, value)| *value = (weight(bin) / total) as f32);
    }

    /// The mean of log-tempo around the highest bin, and the probability found there.
    ///
    /// The tempo is rounded to 0.01 BPM, so that scores can be computed again from stored predictions.
    fn read(&self, probabilities: &[f32]) -> (f64, f64) {
        let top = argmax(probabilities);
        let (mut mass, mut sum) = (0.0, 0.0);
        let near = probabilities.iter().enumerate().take(top + MARGIN + 1).skip(top.saturating_sub(MARGIN));
        for (bin, &probability) in near {
            mass += f64::from(probability);
            sum += f64::from(probability) * self.log_bpm(bin);
        }
        let bpm = if mass > 0.0 { (sum / mass).exp() } else { self.log_bpm(top).exp() };
        ((bpm * 100.0).round() / 100.0, mass.min(1.0))
    }
}

/// First index of the highest value.
fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, value)| if *value > values[best] { i } else { best })
}

/// The answer of a probe for one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Key(MusicalKey),
    Bpm(f64),
    Tags(Vec<usize>),
    Class(usize),
}

/// The labels of one task together with what was fitted to the training rows.
#[derive(Clone, Debug)]
pub(super) enum Problem<'a> {
    Keys { labels: &'a [Option<MusicalKey>], keys: Vec<MusicalKey> },
    Tempo { labels: &'a [Option<f64>], bins: TempoBins },
    Tags { labels: &'a [Option<Vec<String>>], names: Vec<&'a str> },
    Classes { labels: Vec<Option<usize>>, names: Vec<&'a str>, trained: usize },
}

impl<'a> Problem<'a> {
    /// `train` are the training rows that have a label, at least one.
    pub(super) fn fit(labels: &'a Labels, train: &[usize]) -> Result<Self, ProbeError> {
        Ok(match labels {
            Labels::Key(labels) => {
                Self::Keys { labels, keys: (0..24).filter_map(MusicalKey::from_index).collect() }
            }
            Labels::Tempo(labels) => {
                let wrong = |bpm: &f64| !TEMPI.contains(bpm);
                if let Some((row, bpm)) =
                    labels.iter().enumerate().find_map(|(row, bpm)| bpm.filter(wrong).map(|bpm| (row, bpm)))
                {
                    return Err(ProbeError::Tempo { row, bpm, min: *TEMPI.start(), max: *TEMPI.end() });
                }
                let bins = TempoBins::fit(train.iter().filter_map(|&row| labels[row]));
                Self::Tempo { labels, bins }
            }
            Labels::Tags(labels) => {
                let rows = train.iter().filter_map(|&row| labels[row].as_ref());
                let names: BTreeSet<&str> = rows.flatten().map(String::as_str).collect();
                if names.is_empty() {
                    return Err(ProbeError::NoTags);
                }
                Self::Tags { labels, names: names.into_iter().collect() }
            }
            Labels::Class(labels) => {
                let known: BTreeSet<&str> = train.iter().filter_map(|&row| labels[row].as_deref()).collect();
                let all: BTreeSet<&str> = labels.iter().flatten().map(String::as_str).collect();
                let trained = known.len();
                // Classes that training never shows come last: outputs exist for the trained ones only, and the
                // rest still tell one wrong answer's truth from another's.
                let names: Vec<&str> = known.iter().chain(all.difference(&known)).copied().collect();
                let index: BTreeMap<&str, usize> =
                    names.iter().enumerate().map(|(index, &name)| (name, index)).collect();
                let labels = labels.iter().map(|label| index.get(label.as_deref()?).copied()).collect();
                Self::Classes { labels, names, trained }
            }
        })
    }

    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Keys { keys, .. } => keys.len(),
            Self::Tempo { bins, .. } => bins.count,
            Self::Tags { names, .. } => names.len(),
            Self::Classes { trained, .. } => *trained,
        }
    }

    pub(super) fn loss(&self) -> Loss {
        if matches!(self, Self::Tags { .. }) { Loss::Sigmoid } else { Loss::Softmax }
    }

    /// Whether the outputs can express the label of `row`; not so for a class (or any tag) that training
    /// never shows.
    pub(super) fn expressible(&self, row: usize) -> bool {
        match self {
            Self::Keys { .. } | Self::Tempo { .. } => true,
            Self::Tags { labels, names } => {
                labels[row].iter().flatten().all(|tag| names.binary_search(&tag.as_str()).is_ok())
            }
            Self::Classes { labels, trained, .. } => labels[row].is_some_and(|class| class < *trained),
        }
    }

    /// Targets of labelled `rows`, `rows x outputs`. What cannot be expressed is left at 0.
    pub(super) fn targets(&self, rows: &[usize]) -> Vec<f32> {
        let mut targets = vec![0.0; rows.len() * self.outputs()];
        for (&row, target) in rows.iter().zip(targets.chunks_exact_mut(self.outputs())) {
            match self {
                Self::Keys { labels, .. } => {
                    labels[row].into_iter().for_each(|key| target[key.index()] = 1.0);
                }
                Self::Tempo { labels, bins } => {
                    labels[row].into_iter().for_each(|bpm| bins.smear(bpm, target))
                }
                Self::Tags { labels, names } => {
                    for tag in labels[row].iter().flatten() {
                        if let Ok(index) = names.binary_search(&tag.as_str()) {
                            target[index] = 1.0;
                        }
                    }
                }
                Self::Classes { labels, trained, .. } => {
                    labels[row]
                        .filter(|class| class < trained)
                        .into_iter()
                        .for_each(|class| target[class] = 1.0);
                }
            }
        }
        targets
    }

    /// The answer that one row of probabilities stands for, and how sure it is (0 to 1).
    pub(super) fn answer(&self, probabilities: &[f32]) -> (Answer, f64) {
        let top = argmax(probabilities);
        let confidence = f64::from(probabilities[top]);
        match self {
            Self::Keys { keys, .. } => (Answer::Key(keys[top]), confidence),
            Self::Tempo { bins, .. } => {
                let (bpm, confidence) = bins.read(probabilities);
                (Answer::Bpm(bpm), confidence)
            }
            Self::Tags { .. } => {
                let yes = (0..probabilities.len()).filter(|&tag| probabilities[tag] > 0.5).collect();
                let sure: f64 = probabilities.iter().map(|&p| f64::from(p.max(1.0 - p))).sum();
                (Answer::Tags(yes), sure / probabilities.len() as f64)
            }
            Self::Classes { .. } => (Answer::Class(top), confidence),
        }
    }

    /// An answer as text: key name, BPM with two decimals, class, or comma-separated tags.
    pub(super) fn text(&self, answer: &Answer) -> String {
        let names: &[&str] = match self {
            Self::Tags { names, .. } | Self::Classes { names, .. } => names,
            Self::Keys { .. } | Self::Tempo { .. } => &[],
        };
        match answer {
            Answer::Key(key) => key.name(),
            Answer::Bpm(bpm) => format!("{bpm:.2}"),
            Answer::Tags(tags) => tags.iter().map(|&tag| names[tag]).collect::<Vec<_>>().join(","),
            Answer::Class(class) => names[*class].to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tempo_bins_recover_the_tempo_between_bins() {
        let bins = TempoBins::fit([60.0, 180.0].into_iter());
        let mut target = vec![0.0; bins.count];
        for bpm in [60.0, 61.3, 97.77, 120.0, 179.0, 180.0] {
            bins.smear(bpm, &mut target);
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let (read, confidence) = bins.read(&target);
            assert!((read / bpm - 1.0).abs() < 0.005, "{bpm} read as {read}");
            assert!(confidence > 0.9);
        }
        // Ratios of neighbours are about 2%, and one tempo alone still gives a grid.
        assert!(((bins.log_bpm(1) - bins.log_bpm(0)).exp() - 1.02).abs() < 0.001);
        assert_eq!(TempoBins::fit([90.0].into_iter()).count, 7);
    }

    #[test]
    fn vocabularies_come_from_training_rows() {
        let tags = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let labels = Labels::Tags(vec![tags(&["drums", "bass"]), tags(&[]), tags(&["oboe", "bass"]), None]);
        let problem = Problem::fit(&labels, &[0, 1]).unwrap();
        assert_eq!(problem.outputs(), 2);
        assert_eq!(problem.targets(&[0, 1, 2]), [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        assert!(problem.expressible(0) && problem.expressible(1) && !problem.expressible(2));
        assert_eq!(problem.text(&problem.answer(&[0.9, 0.6]).0), "bass,drums");
        assert_eq!(problem.text(&problem.answer(&[0.5, 0.1]).0), "");
        assert_eq!(Problem::fit(&labels, &[1]).unwrap_err(), ProbeError::NoTags);
    }

    #[test]
    fn unseen_classes_are_told_apart_but_have_no_output() {
        let labels =
            Labels::Class(["rock", "jazz", "folk", "rock"].map(|name| Some(name.to_owned())).to_vec());
        let problem = Problem::fit(&labels, &[0, 1]).unwrap();
        assert_eq!(problem.outputs(), 2);
        assert!(problem.expressible(3) && !problem.expressible(2));
        assert_eq!(problem.targets(&[0, 1, 2]), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(problem.text(&problem.answer(&[0.3, 0.7]).0), "rock");
    }

    #[test]
    fn impossible_tempi_are_refused_wherever_they_are() {
        for bad in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            let labels = Labels::Tempo(vec![Some(100.0), None, Some(bad)]);
            let refused = Problem::fit(&labels, &[0]).unwrap_err();
            assert!(matches!(refused, ProbeError::Tempo { row: 2, .. }), "{refused:?}");
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(argmax(&[0.1, 0.4, 0.4]), 1);
    }
}
