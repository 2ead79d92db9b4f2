//! How far nearest neighbours agree with a query: precision at k of labels, beside what random neighbours would get.

use std::collections::{BTreeMap, BTreeSet};

use loev_ops::mir::{FifthRule, mirex_weighted, tempo_acc1, tempo_acc2};
use loev_ops::rng::Key;

use super::{ByClip, EvaluateError, Neighbour};
use crate::probe::Labels;

/// Queries and what was found for them.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    /// Equally many for each query, nearest first, one query after the other.
    pub neighbours: &'a [Neighbour],
    /// Of each query, its own item, which is no neighbour.
    pub own: &'a [Option<usize>],
    /// Of each query, its clip: what intervals are resampled over.
    pub clip: &'a [usize],
    /// The labels of the queries: of transformed views those that hold for the view.
    pub queries: &'a Labels,
    /// The labels of the items.
    pub items: &'a Labels,
}

/// A mean over queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// `accuracy` and `mirex_symmetric` of keys, `acc1` and `acc2` of tempi, `jaccard` of tags, `accuracy` of classes.
    pub metric: &'static str,
    /// Neighbours looked at.
    pub k: usize,
    /// The mean over queries of the mean score of their k nearest neighbours, 0 to 1.
    pub value: f64,
    /// Lower end of the 95% bootstrap interval over the clips of the queries.
    pub lo: f64,
    /// Upper end of that interval.
    pub hi: f64,
    /// The expectation of `value` with random neighbours.
    pub chance: f64,
    /// Queries counted: those with a label, and a labelled neighbour among the k nearest.
    pub queries: usize,
}

/// The figures of a kind of label: by name, the score of an item against a query.
type Score<'a> = (&'static str, Box<dyn Fn(usize, usize) -> f64 + 'a>);

/// The agreement at each of `k`. The query's label is the truth and the neighbour's the estimate. Neighbours without a
/// label do not count, neither among the nearest nor for chance; two clips without any tag agree on tags. Tempi agree
/// within a relative `tolerance`.
///
/// # Errors
/// [`EvaluateError::Tasks`], [`EvaluateError::NoLabels`], [`EvaluateError::TooFew`] when `k` is more than was searched
/// for, [`EvaluateError::Shape`] when lengths differ.
pub fn agreement(
    ranked: &Ranked<'_>,
    k: &[usize],
    tolerance: f64,
    replicates: usize,
    key: Key,
) -> Result<Vec<Agreement>, EvaluateError> {
    let queries = ranked.own.len();
    let searched = ranked.neighbours.len() / queries.max(1);
    let shape = |what, found, expected| match found == expected {
        true => Ok(()),
        false => Err(EvaluateError::Shape { what, found, expected }),
    };
    shape("labels of queries", ranked.queries.len(), queries)?;
    shape("clips of queries", ranked.clip.len(), queries)?;
    shape("neighbours", ranked.neighbours.len(), queries * searched)?;
    if let Some(k) = k.iter().copied().find(|k| *k > searched || *k == 0) {
        return Err(EvaluateError::TooFew { k, candidates: searched });
    }
    let task = ranked.queries.task();
    if task != ranked.items.task() {
        return Err(EvaluateError::Tasks { queries: task, items: ranked.items.task() });
    }
    let labelled: Vec<usize> = (0..queries).filter(|query| ranked.queries.is_present(*query)).collect();
    let kinds = Kinds::of(ranked.items);
    for (what, empty) in [("query", labelled.is_empty()), ("neighbour", kinds.counts.is_empty())] {
        if empty {
            return Err(EvaluateError::NoLabels { what, task });
        }
    }

    let mut figures = Vec::new();
    for (metric, score) in scores(ranked, tolerance) {
        let chance: Vec<Option<f64>> =
            labelled.iter().map(|query| kinds.mean(ranked, *query, &score)).collect();
        for &k in k {
            let mut sums = ByClip::<3>::new();
            for (query, chance) in labelled.iter().zip(&chance) {
                let near = &ranked.neighbours[query * searched..query * searched + k];
                let near = near.iter().filter(|near| ranked.items.is_present(near.item));
                let scores: Vec<f64> = near.map(|near| score(*query, near.item)).collect();
                if let (Some(chance), false) = (chance, scores.is_empty()) {
                    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                    sums.add(ranked.clip[*query], [1.0, mean, *chance]);
                }
            }
            let [counted, _, chance] = sums.total(|_| 1.0);
            let bootstrap = key.with_str("bootstrap");
            let found = sums.figure(replicates, bootstrap, |[n, sum, _]| (n > 0.0).then(|| sum / n));
            figures.extend(found.map(|(value, interval)| Agreement {
                metric,
                k,
                value,
                lo: interval.lo,
                hi: interval.hi,
                chance: chance / counted,
                queries: counted as usize,
            }));
        }
    }
    Ok(figures)
}

fn scores<'a>(ranked: &Ranked<'a>, tolerance: f64) -> Vec<Score<'a>> {
    fn of<'a, T>(
        metric: &'static str,
        queries: &'a [Option<T>],
        items: &'a [Option<T>],
        score: impl Fn(&T, &T) -> f64 + 'a,
    ) -> Score<'a> {
        let score = move |query: usize, item: usize| match (&queries[query], &items[item]) {
            (Some(truth), Some(estimate)) => score(estimate, truth),
            _ => 0.0,
        };
        (metric, Box::new(score))
    }
    match (ranked.queries, ranked.items) {
        (Labels::Key(queries), Labels::Key(items)) => vec![
            of("accuracy", queries, items, |estimate, truth| f64::from(estimate == truth)),
            of("mirex_symmetric", queries, items, |estimate, truth| {
                mirex_weighted(*estimate, *truth, FifthRule::Symmetric)
            }),
        ],
        (Labels::Tempo(queries), Labels::Tempo(items)) => vec![
            of("acc1", queries, items, move |estimate, truth| {
                f64::from(tempo_acc1(*estimate, *truth, tolerance))
            }),
            of("acc2", queries, items, move |estimate, truth| {
                f64::from(tempo_acc2(*estimate, *truth, tolerance))
            }),
        ],
        (Labels::Tags(queries), Labels::Tags(items)) => {
            vec![of("jaccard", queries, items, |estimate, truth| jaccard(estimate, truth))]
        }
        (Labels::Class(queries), Labels::Class(items)) => {
            vec![of("accuracy", queries, items, |estimate, truth| f64::from(estimate == truth))]
        }
        _ => Vec::new(),
    }
}

/// Shared tags over all tags; 1 for two empty sets.
fn jaccard(a: &[String], b: &[String]) -> f64 {
    let (a, b): (BTreeSet<&String>, BTreeSet<&String>) = (a.iter().collect(), b.iter().collect());
    match a.union(&b).count() {
        0 => 1.0,
        all => a.intersection(&b).count() as f64 / all as f64,
    }
}

/// Items with equal labels, as one of them and their number: chance is a mean over all items, and few labels differ.
struct Kinds {
    counts: Vec<(usize, f64)>,
}

impl Kinds {
    fn of(labels: &Labels) -> Self {
        let name = |row: usize| match labels {
            Labels::Key(keys) => keys[row].map(|key| key.name()),
            Labels::Tempo(tempi) => tempi[row].map(|bpm| bpm.to_bits().to_string()),
            Labels::Tags(tags) => tags[row].as_ref().map(|tags| tags.join("\0")),
            Labels::Class(classes) => classes[row].clone(),
        };
        let mut counts: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for row in 0..labels.len() {
            if let Some(name) = name(row) {
                counts.entry(name).or_insert((row, 0.0)).1 += 1.0;
            }
        }
        Self { counts: counts.into_values().collect() }
    }

    /// The mean score of all labelled items but the query's own; `None` if there is no other.
    fn mean(&self, ranked: &Ranked<'_>, query: usize, score: &dyn Fn(usize, usize) -> f64) -> Option<f64> {
        let mut sum: f64 = self.counts.iter().map(|(item, count)| count * score(query, *item)).sum();
        let mut count: f64 = self.counts.iter().map(|(_, count)| count).sum();
        if let Some(own) = ranked.own[query].filter(|own| ranked.items.is_present(*own)) {
            sum -= score(query, own);
            count -= 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }
}

#[cfg(test)]
mod tests {
    use loev_ops::mir::MusicalKey;

    use super::super::{Vectors, nearest};
    use super::*;

    fn keys(names: &[&str]) -> Labels {
        Labels::Key(names.iter().map(|name| MusicalKey::parse(name)).collect())
    }

    /// Neighbours on a circle: a query at an angle finds the items in the order of their distance to it.
    fn on_a_circle(queries: &[f32], items: &[f32], own: &[Option<usize>], k: usize) -> Vec<Neighbour> {
        let vectors = |angles: &[f32]| {
            let values = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
            Vectors::normalised(values, 2).unwrap()
        };
        nearest(&vectors(queries), &vectors(items), own, k).unwrap()
    }

    fn at<'a>(figures: &'a [Agreement], metric: &str, k: usize) -> &'a Agreement {
        figures.iter().find(|figure| figure.metric == metric && figure.k == k).unwrap()
    }

    #[test]
    fn scores_of_neighbours_by_construction() {
        // Query 0 finds 1, 2, 3 in this order; query 3 finds 2, 1, 0.
        let angles = [0.0, 0.1, 0.3, 0.7];
        let own: Vec<Option<usize>> = (0..4).map(Some).collect();
        let neighbours = on_a_circle(&angles, &angles, &own, 3);
        let labels = keys(&["C major", "C major", "G major", "F# minor"]);
        let clip = [0, 1, 2, 3];
        let ranked =
            Ranked { neighbours: &neighbours, own: &own, clip: &clip, queries: &labels, items: &labels };
        let figures = agreement(&ranked, &[1, 3], 0.04, 200, Key::root(1)).unwrap();
        // At 1: 0 -> 1 equal, 1 -> 0 equal, 2 -> 1 a fifth, 3 -> 2 nothing.
        assert_eq!(at(&figures, "accuracy", 1).value, 0.5);
        assert_eq!(at(&figures, "mirex_symmetric", 1).value, 2.5 / 4.0);
        // All three others are the neighbours at 3, so that precision is chance.
        for metric in ["accuracy", "mirex_symmetric"] {
            let all = at(&figures, metric, 3);
            assert!((all.value - all.chance).abs() < 1e-12, "{all:?}");
            assert_eq!(at(&figures, metric, 1).chance, all.chance);
            assert!(all.lo <= all.value && all.value <= all.hi && all.queries == 4);
        }
        assert_eq!(at(&figures, "accuracy", 1).chance, (1.0 / 3.0 + 1.0 / 3.0) / 4.0);
    }

    #[test]
    fn a_transformed_query_has_its_own_label_and_not_its_own_clip() {
        // Two views of item 0, transposed by 2; item 1 has their key, item 0 is nearest but their own.
        let neighbours = on_a_circle(&[0.0, 0.01], &[0.0, 0.2, 0.9], &[Some(0), Some(0)], 1);
        let (queries, items) = (keys(&["D major", "D major"]), keys(&["C major", "D major", "C major"]));
        let ranked = Ranked {
            neighbours: &neighbours,
            own: &[Some(0), Some(0)],
            clip: &[0, 0],
            queries: &queries,
            items: &items,
        };
        let figures = agreement(&ranked, &[1], 0.04, 100, Key::root(1)).unwrap();
        let accuracy = at(&figures, "accuracy", 1);
        assert_eq!((accuracy.value, accuracy.chance, accuracy.queries), (1.0, 0.5, 2));
    }

    #[test]
    fn tempi_tags_and_classes_with_missing_labels() {
        let angles = [0.0, 0.1, 0.3];
        let own = [Some(0), Some(1), Some(2)];
        let neighbours = on_a_circle(&angles, &angles, &own, 2);
        let run = |labels: &Labels| {
            let ranked = Ranked {
                neighbours: &neighbours,
                own: &own,
                clip: &[0, 1, 2],
                queries: labels,
                items: labels,
            };
            agreement(&ranked, &[1, 2], 0.04, 100, Key::root(1))
        };
        let tempi = run(&Labels::Tempo(vec![Some(100.0), Some(203.0), Some(99.0)])).unwrap();
        // Nearest: 0 -> 1 (double), 1 -> 0 (half), 2 -> 1 (203 is 2.5% off twice 99).
        assert_eq!((at(&tempi, "acc1", 1).value, at(&tempi, "acc2", 1).value), (0.0, 1.0));
        let tags = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
        let tags = run(&Labels::Tags(vec![tags(&["a", "b"]), tags(&["b", "c"]), tags(&[])])).unwrap();
        assert!((at(&tags, "jaccard", 1).value - (1.0 / 3.0 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
        // 1 has no label: it is no query, and no neighbour that counts.
        let one = |class: &str| Some(class.to_owned());
        let classes = run(&Labels::Class(vec![one("x"), None, one("x")])).unwrap();
        let second = at(&classes, "accuracy", 2);
        assert_eq!((second.value, second.queries), (1.0, 2));
        assert!(classes.iter().all(|figure| figure.k == 2), "nobody has a labelled nearest neighbour");
        let none = run(&Labels::Class(vec![None, None, None]));
        assert!(matches!(none, Err(EvaluateError::NoLabels { what: "query", .. })));
    }

    #[test]
    fn k_beyond_what_was_searched_is_told() {
        let neighbours = on_a_circle(&[0.0], &[0.1, 0.2], &[None], 2);
        let (queries, items) = (keys(&["C major"]), keys(&["C major", "D major"]));
        let ranked =
            Ranked { neighbours: &neighbours, own: &[None], clip: &[0], queries: &queries, items: &items };
        let error = agreement(&ranked, &[3], 0.04, 100, Key::root(1));
        assert_eq!(error, Err(EvaluateError::TooFew { k: 3, candidates: 2 }));
    }
}
