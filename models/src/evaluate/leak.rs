//! Leaks: can processing be told from cues that have nothing to do with the music?
//!
//! A [`Cues`] looks at what a contrastive loss could use as a shortcut: how loud the edges of a segment are beside its
//! middle, runs of digital silence, where the spectrum ends, and the level. [`told_apart`] asks whether a linear probe
//! tells two kinds of segments by them, [`read`] whether a drawn value can be read from them.

use loev_ops::features::{FrontEnd, LogMel};
use loev_ops::ridge::{Regression, Ridge};
use loev_ops::rng::Key;

use super::{ByClip, EvaluateError};
use crate::metrics::{Bootstrap, Interval, Ranking};
use crate::probe::{Split, mel_statistics};

/// Length of the edges of a segment, in seconds.
const EDGE_S: f64 = 0.05;
/// Power that counts as nothing, in dB relative to full scale.
const FLOOR_DB: f64 = -120.0;
/// Bands that lie this far below the loudest one, in dB, are beyond the end of the spectrum.
const DEPTHS: [f32; 2] = [40.0, 60.0];
/// The penalties of all regressions here.
const PENALTIES: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// The cues, by name, and the number of values of each but the last, which the front end says.
pub const NAMES: [&str; 5] = ["edges", "silence", "level", "top", "mel"];

/// Computes the cues of segments. Keeps its plans: make one per thread.
pub struct Cues {
    front_end: FrontEnd,
    log_mel: LogMel,
    features: Vec<f32>,
}

impl Cues {
    /// Cues that see the spectrum as `front_end` does.
    #[must_use]
    pub fn new(front_end: &FrontEnd) -> Self {
        Self { front_end: front_end.clone(), log_mel: LogMel::new(front_end), features: Vec::new() }
    }

    /// The values of each cue of [`NAMES`].
    #[must_use]
    pub fn widths(front_end: &FrontEnd) -> [usize; 5] {
        [2, 3, 2, 2 + DEPTHS.len(), 2 * front_end.mels]
    }

    /// The values of all cues, one after the other, of the samples of one channel.
    ///
    /// * `edges`: dB of the first and the last 50 ms beside the whole.
    /// * `silence`: share of samples that are 0, and the runs of such samples at the start and at the end, as shares.
    /// * `level`: dB of the power and of the peak.
    /// * `top`: dB of the highest and of the second highest eighth of the mel bands beside the mean of the others, and the
    ///   highest bands within 40 and 60 dB of the loudest, as shares of the bands.
    /// * `mel`: mean and deviation of each mel band.
    pub fn of(&mut self, samples: &[f32]) -> Vec<f64> {
        let count = samples.len().max(1);
        let edge =
            ((EDGE_S * f64::from(self.front_end.sample_rate)) as usize).clamp(1, count).min(samples.len());
        let whole = decibels(samples);
        let mut cues =
            vec![decibels(&samples[..edge]) - whole, decibels(&samples[samples.len() - edge..]) - whole];
        let zero = |sample: &&f32| **sample == 0.0;
        let share = |zeros: usize| zeros as f64 / count as f64;
        cues.push(share(samples.iter().filter(zero).count()));
        cues.push(share(samples.iter().take_while(zero).count()));
        cues.push(share(samples.iter().rev().take_while(zero).count()));
        cues.push(whole);
        let peak = samples.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
        cues.push(decibels(&[peak]));

        let (mels, frames) = (self.front_end.mels, self.front_end.frames(samples.len()));
        self.features.resize(mels * frames, 0.0);
        self.log_mel.compute(samples, &mut self.features);
        let statistics = mel_statistics(&self.features, frames, mels);
        let means = &statistics[..mels];
        let mean = |bands: &[f32]| {
            bands.iter().map(|band| f64::from(*band)).sum::<f64>() / bands.len().max(1) as f64
        };
        let eighth = (mels / 8).max(1).min(mels);
        let (below, top) = means.split_at(mels - eighth);
        let (below, second) = below.split_at(below.len().saturating_sub(eighth));
        cues.extend([mean(top) - mean(below), mean(second) - mean(below)]);
        let loudest = means.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for depth in DEPTHS {
            let end = means.iter().rposition(|band| *band >= loudest - depth).map_or(0, |at| at + 1);
            cues.push(end as f64 / mels.max(1) as f64);
        }
        cues.extend(statistics.iter().map(|value| f64::from(*value)));
        cues
    }
}

fn decibels(samples: &[f32]) -> f64 {
    let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let power = power / samples.len().max(1) as f64;
    if power > 0.0 { (10.0 * power.log10()).max(FLOOR_DB) } else { FLOOR_DB }
}

/// Segments with the values of a cue.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// Row-major (segments, width).
    pub cues: &'a [f64],
    /// Values of a segment.
    pub width: usize,
    /// Of each segment, its clip: an index into `split`.
    pub clip: &'a [usize],
    /// Of each clip, its part.
    pub split: &'a [Split],
}

/// A figure of test clips with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// The figure.
    pub value: f64,
    /// Its 95% interval over clips.
    pub interval: Interval,
    /// Test segments.
    pub rows: usize,
}

impl Segments<'_> {
    fn rows(&self, split: Split) -> Result<Vec<usize>, EvaluateError> {
        let rows = (0..self.clip.len()).filter(|row| self.split[self.clip[*row]] == split);
        let rows: Vec<usize> = rows.collect();
        if rows.is_empty() { Err(EvaluateError::EmptySplit { split }) } else { Ok(rows) }
    }

    /// The prediction of `target` for each test segment, from the cues and their squares.
    fn predict(&self, target: &[f64]) -> Result<Vec<(usize, f64)>, EvaluateError> {
        let (found, expected) = (self.cues.len(), self.clip.len() * self.width);
        if found != expected || target.len() != self.clip.len() {
            return Err(EvaluateError::Shape { what: "cues", found, expected });
        }
        let rows = [self.rows(Split::Train)?, self.rows(Split::Valid)?, self.rows(Split::Test)?];
        let row = |row: usize, inputs: &mut [f64], targets: &mut [f64]| {
            let cues = &self.cues[row * self.width..(row + 1) * self.width];
            let (plain, squared) = inputs.split_at_mut(self.width);
            plain.copy_from_slice(cues);
            squared.iter_mut().zip(cues).for_each(|(square, cue)| *square = cue * cue);
            targets[0] = target[row];
        };
        let regression = Regression { inputs: 2 * self.width, targets: 1, row: &row };
        let ridge = Ridge::fit(&regression, &rows[0], &rows[1], &PENALTIES)?;
        let mut found = Vec::new();
        ridge.each(&regression, &rows[2], |row, _, prediction| found.push((row, prediction[0])));
        Ok(found)
    }
}

/// The area under the ROC curve of a linear probe that says which segments are `processed`; chance is 0.5.
///
/// # Errors
/// [`EvaluateError::EmptySplit`], [`EvaluateError::Shape`], [`EvaluateError::Empty`] when test segments are of one kind.
pub fn told_apart(
    segments: &Segments<'_>,
    processed: &[bool],
    replicates: usize,
    key: Key,
) -> Result<Told, EvaluateError> {
    let target: Vec<f64> = processed.iter().map(|processed| f64::from(*processed)).collect();
    let found = segments.predict(&target)?;
    let scores: Vec<f64> = found.iter().map(|(_, score)| *score).collect();
    let truths: Vec<bool> = found.iter().map(|(row, _)| processed[*row]).collect();
    let undefined = EvaluateError::Empty { what: "test segments of both kinds" };
    let ranking = Ranking::new(&scores, &truths).map_err(|_| undefined.clone())?;
    let value = ranking.roc_auc().ok_or_else(|| undefined.clone())?;
    let mut place = std::collections::BTreeMap::new();
    let clips: Vec<usize> = found
        .iter()
        .map(|(row, _)| {
            let next = place.len();
            *place.entry(segments.clip[*row]).or_insert(next)
        })
        .collect();
    let bootstrap = Bootstrap::new(place.len(), replicates, key.with_str("bootstrap"));
    let interval = bootstrap.interval(|weights| {
        let weights: Vec<f64> = clips.iter().map(|clip| weights[*clip]).collect();
        ranking.weighted_roc_auc(&weights)
    });
    Ok(Told { value, interval: interval.ok_or(undefined)?, rows: found.len() })
}

/// The R2 of a value read from the cues; chance is 0.
///
/// # Errors
/// As [`told_apart`], with [`EvaluateError::NoParameters`] for a value that does not vary.
pub fn read(
    segments: &Segments<'_>,
    values: &[f64],
    replicates: usize,
    key: Key,
) -> Result<Told, EvaluateError> {
    let found = segments.predict(values)?;
    let mut sums = ByClip::<4>::new();
    for (row, prediction) in &found {
        let (truth, error) = (values[*row], values[*row] - prediction);
        sums.add(segments.clip[*row], [1.0, truth, truth * truth, error * error]);
    }
    let figure = sums.figure(replicates, key.with_str("bootstrap"), |[n, sum, squares, errors]| {
        let spread = squares - sum * sum / n;
        (spread > 0.0).then(|| 1.0 - errors / spread)
    });
    let (value, interval) = figure.ok_or(EvaluateError::NoParameters)?;
    Ok(Told { value, interval, rows: found.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 16_000;

    fn noise(clip: u64, length: usize) -> Vec<f32> {
        let mut rng = Key::root(7).with(clip).rng();
        let level = rng.uniform(0.05, 0.3);
        (0..length).map(|_| (level * rng.normal()) as f32).collect()
    }

    fn split(clip: usize) -> Split {
        [Split::Train, Split::Train, Split::Valid, Split::Test, Split::Test][clip % 5]
    }

    /// AUC per cue of telling `operator` from nothing, over 100 clips.
    fn aucs(operator: impl Fn(&mut Vec<f32>)) -> Vec<(&'static str, Told)> {
        let front_end = FrontEnd { mels: 32, ..FrontEnd::default() };
        let mut cues = Cues::new(&front_end);
        let (mut values, mut clip, mut processed) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..100 {
            for side in [false, true] {
                // Two different segments of a clip: a probe cannot pair them.
                let mut samples = noise(2 * number as u64 + u64::from(side), RATE / 2);
                if side {
                    operator(&mut samples);
                }
                values.extend(cues.of(&samples));
                clip.push(number);
                processed.push(side);
            }
        }
        let split: Vec<Split> = (0..100).map(split).collect();
        let widths = Cues::widths(&front_end);
        let all: usize = widths.iter().sum();
        let mut from = 0;
        NAMES
            .into_iter()
            .zip(widths)
            .map(|(name, width)| {
                let cues: Vec<f64> =
                    values.chunks_exact(all).flat_map(|row| row[from..from + width].to_vec()).collect();
                from += width;
                let segments = Segments { cues: &cues, width, clip: &clip, split: &split };
                (name, told_apart(&segments, &processed, 200, Key::root(1)).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_leaky_operator_is_found_by_its_cue() {
        // Stretching that pads with silence.
        let padded = aucs(|samples| {
            let length = samples.len();
            samples[length - 900..].fill(0.0);
        });
        for (name, told) in padded {
            match name {
                "edges" | "silence" => assert!(told.interval.lo > 0.99, "{name}: {told:?}"),
                "level" => assert!(told.interval.lo < 0.6, "{name}: {told:?}"),
                _ => {}
            }
        }
        // A low-pass: each sample with the one before.
        let smoothed =
            aucs(|samples| (1..samples.len()).for_each(|i| samples[i] = 0.5 * (samples[i] + samples[i - 1])));
        let top = smoothed.iter().find(|(name, _)| *name == "top").unwrap().1;
        assert!(top.interval.lo > 0.99, "{top:?}");
    }

    #[test]
    fn a_clean_operator_is_not_found() {
        // Polarity: nothing here hears it.
        for (name, told) in aucs(|samples| samples.iter_mut().for_each(|sample| *sample = -*sample)) {
            assert!(told.interval.lo <= 0.5 && told.interval.hi > 0.4, "{name}: {told:?}");
        }
    }

    #[test]
    fn a_value_is_read_where_it_leaks() {
        let mut rng = Key::root(5).rng();
        let values: Vec<f64> = (0..200).map(|_| rng.uniform(-4.0, 4.0)).collect();
        let clip: Vec<usize> = (0..200).collect();
        let split: Vec<Split> = (0..200).map(split).collect();
        let r2 = |cues: Vec<f64>| {
            let segments = Segments { cues: &cues, width: 1, clip: &clip, split: &split };
            read(&segments, &values, 200, Key::root(1)).unwrap()
        };
        assert!(r2(values.iter().map(|value| 0.1 * value + 3.0).collect()).interval.lo > 0.999);
        let unrelated = r2((0..200).map(|_| rng.normal()).collect());
        assert!(unrelated.value < 0.1 && unrelated.interval.lo < 0.0, "{unrelated:?}");
    }
}
