//! The figures of a fitted probe: value, confidence interval and chance.

use loev_ops::mir::{FifthRule, mirex_weighted, tempo_acc1, tempo_acc2};

use super::problem::{Answer, Problem};
use super::{Metric, ProbeConfig};
use crate::metrics::bootstrap::Bootstrap;
use crate::metrics::ranking::{Ranking, macro_mean};

/// What a probe said about the test rows, seed by seed.
pub(super) struct Output {
    /// One answer per test row.
    pub(super) answers: Vec<Answer>,
    /// `test rows x outputs`.
    pub(super) probabilities: Vec<f32>,
}

/// Scores all seeds on the test rows. `train` serves the constant predictors behind `chance` only.
pub(super) fn score(
    problem: &Problem<'_>,
    train: &[usize],
    test: &[usize],
    seeds: &[Output],
    config: &ProbeConfig,
    bootstrap: Bootstrap,
) -> Vec<Metric> {
    match problem {
        Problem::Keys { labels, keys } => {
            let pick = |rows: &[usize]| rows.iter().filter_map(|&row| labels[row]).collect::<Vec<_>>();
            let estimates =
                estimates(seeds, |answer| if let Answer::Key(key) = answer { Some(*key) } else { None });
            let rows = RowScores {
                estimates,
                train: pick(train),
                test: pick(test),
                constants: keys.clone(),
                bootstrap,
            };
            let mirex = |rule: FifthRule| move |e, t| mirex_weighted(e, t, rule);
            vec![
                rows.metric("accuracy", |e, t| f64::from(e == t)),
                rows.metric("mirex_symmetric", mirex(FifthRule::Symmetric)),
                rows.metric("mirex_one_sided", mirex(FifthRule::OneSided)),
            ]
        }
        Problem::Tempo { labels, .. } => {
            let pick = |rows: &[usize]| rows.iter().filter_map(|&row| labels[row]).collect::<Vec<_>>();
            let estimates =
                estimates(seeds, |answer| if let Answer::Bpm(bpm) = answer { Some(*bpm) } else { None });
            let tolerance = config.tempo_tolerance;
            let train = pick(train);
            let rows = RowScores {
                estimates,
                constants: constant_tempi(&train, tolerance),
                train,
                test: pick(test),
                bootstrap,
            };
            vec![
                rows.metric("acc1", |e, t| f64::from(tempo_acc1(e, t, tolerance))),
                rows.metric("acc2", |e, t| f64::from(tempo_acc2(e, t, tolerance))),
            ]
        }
        Problem::Classes { labels, trained, .. } => {
            let pick = |rows: &[usize]| rows.iter().filter_map(|&row| labels[row]).collect::<Vec<_>>();
            let estimates =
                estimates(
                    seeds,
                    |answer| if let Answer::Class(class) = answer { Some(*class) } else { None },
                );
            let rows = RowScores {
                estimates,
                train: pick(train),
                test: pick(test),
                constants: (0..*trained).collect(),
                bootstrap,
            };
            let accuracy = rows.metric("accuracy", |e, t| f64::from(e == t));
            let balanced = balanced(&rows.row_scores(|e, t| f64::from(e == t)), &rows.test, bootstrap);
            std::iter::once(accuracy).chain(balanced).collect()
        }
        Problem::Tags { names, .. } => {
            let truths = problem.targets(test);
            tags(&truths, names.len(), seeds, bootstrap)
        }
    }
}

/// The answers of each seed, unwrapped.
fn estimates<T>(seeds: &[Output], unwrap: impl Fn(&Answer) -> Option<T>) -> Vec<Vec<T>> {
    seeds.iter().map(|seed| seed.answers.iter().filter_map(&unwrap).collect()).collect()
}

/// A task whose figures are means over rows of a score of (estimate, truth).
struct RowScores<T> {
    /// Per seed, one estimate per test row.
    estimates: Vec<Vec<T>>,
    train: Vec<T>,
    test: Vec<T>,
    /// Estimates among which the best constant is sought.
    constants: Vec<T>,
    bootstrap: Bootstrap,
}

impl<T: Copy> RowScores<T> {
    /// Score of each test row, averaged over seeds.
    fn row_scores(&self, score: impl Fn(T, T) -> f64) -> Vec<f64> {
        let mut rows = vec![0.0; self.test.len()];
        for estimates in &self.estimates {
            for ((row, &estimate), &truth) in rows.iter_mut().zip(estimates).zip(&self.test) {
                *row += score(estimate, truth) / self.estimates.len() as f64;
            }
        }
        rows
    }

    fn metric(&self, name: &'static str, score: impl Fn(T, T) -> f64) -> Metric {
        let rows = self.row_scores(&score);
        let value = mean(rows.iter().copied());
        let interval = self.bootstrap.interval_of_mean(&rows);
        let on = |constant: T, truths: &[T]| mean(truths.iter().map(|&truth| score(constant, truth)));
        let mut chance = (f64::NEG_INFINITY, 0.0);
        for &constant in &self.constants {
            let fitted = on(constant, &self.train);
            if fitted > chance.0 {
                chance = (fitted, on(constant, &self.test));
            }
        }
        Metric {
            name,
            value,
            lo: interval.map_or(value, |i| i.lo),
            hi: interval.map_or(value, |i| i.hi),
            chance: chance.1,
            skipped: 0,
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Constant tempi worth trying: a grid an eighth of the tolerance fine, from a third of the slowest training
/// tempo to three times the fastest (which Acc2 may credit).
fn constant_tempi(train: &[f64], tolerance: f64) -> Vec<f64> {
    let low = train.iter().copied().fold(f64::INFINITY, f64::min) / 3.0;
    let high = train.iter().copied().fold(0.0, f64::max) * 3.0;
    let step = (1.0 + tolerance / 8.0).ln();
    let count = ((high / low).ln() / step).ceil() as usize + 1;
    (0..count).map(|i| low * (i as f64 * step).exp()).collect()
}

/// Mean recall over the classes of the test rows. No constant can do better than one class in all, which is
/// the chance given.
fn balanced(hits: &[f64], truths: &[usize], bootstrap: Bootstrap) -> Option<Metric> {
    let classes = truths.iter().max()? + 1;
    let recall = |weights: &[f64]| {
        let mut sums = vec![(0.0, 0.0); classes];
        for ((hit, &truth), weight) in hits.iter().zip(truths).zip(weights) {
            sums[truth].0 += hit * weight;
            sums[truth].1 += weight;
        }
        macro_mean(sums.into_iter().map(|(hits, rows)| (rows > 0.0).then(|| hits / rows)))
    };
    let whole = recall(&vec![1.0; truths.len()])?;
    let interval = bootstrap.interval(|weights| recall(weights).map(|mean| mean.value));
    Some(Metric {
        name: "balanced_accuracy",
        value: whole.value,
        lo: interval.map_or(whole.value, |i| i.lo),
        hi: interval.map_or(whole.value, |i| i.hi),
        chance: 1.0 / whole.scored as f64,
        skipped: 0,
    })
}

/// One figure of one ranking under row weights.
type RankingFigure = fn(&Ranking, &[f64]) -> Option<f64>;

/// Macro ROC-AUC and mean average precision over tags, each over the tags on which it is defined.
fn tags(truths: &[f32], columns: usize, seeds: &[Output], bootstrap: Bootstrap) -> Vec<Metric> {
    let truths: Vec<Vec<bool>> = (0..columns)
        .map(|tag| truths.iter().skip(tag).step_by(columns).map(|&truth| truth > 0.5).collect())
        .collect();
    // Probabilities of a sigmoid are finite and every tag has one per row, so no ranking fails.
    let rankings: Vec<Vec<Ranking>> = seeds
        .iter()
        .map(|seed| {
            let column = |tag| seed.probabilities.iter().skip(tag).step_by(columns).map(|&p| f64::from(p));
            let ranked = truths
                .iter()
                .enumerate()
                .map(|(tag, truths)| Ranking::new(&column(tag).collect::<Vec<f64>>(), truths));
            ranked.filter_map(Result::ok).collect()
        })
        .collect();
    let rows = truths.first().map_or(0, Vec::len);
    let ones = vec![1.0; rows];
    let positives = |tag: &[bool]| tag.iter().filter(|&&truth| truth).count();
    let prevalence = macro_mean(
        truths.iter().map(|tag| (positives(tag) > 0).then(|| positives(tag) as f64 / rows as f64)),
    );
    let figures: [(&'static str, RankingFigure, f64); 2] = [
        ("macro_roc_auc", Ranking::weighted_roc_auc, 0.5),
        ("map", Ranking::weighted_average_precision, prevalence.map_or(0.0, |mean| mean.value)),
    ];
    let metric = |(name, figure, chance): (&'static str, RankingFigure, f64)| {
        let of = |seed: &[Ranking], weights: &[f64]| {
            macro_mean(seed.iter().map(|ranking| figure(ranking, weights)))
        };
        let over_seeds = |weights: &[f64]| -> Option<f64> {
            let values: Option<Vec<f64>> =
                rankings.iter().map(|seed| of(seed, weights).map(|mean| mean.value)).collect();
            values.map(|values| mean(values.into_iter()))
        };
        let skipped = of(rankings.first()?, &ones)?.skipped;
        let value = over_seeds(&ones)?;
        let interval = bootstrap.interval(over_seeds);
        Some(Metric {
            name,
            value,
            lo: interval.map_or(value, |i| i.lo),
            hi: interval.map_or(value, |i| i.hi),
            chance,
            skipped,
        })
    };
    figures.into_iter().filter_map(metric).collect()
}
