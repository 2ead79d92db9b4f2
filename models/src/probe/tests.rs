//! Probes end to end on embeddings whose content is known.

use loev_ops::mir::{FifthRule, mirex_weighted};
use loev_ops::rng::Rng;

use super::*;

const DIM: usize = 24;

/// Splits in proportion 6 : 2 : 2, by row.
fn splits(rows: usize) -> Vec<Split> {
    (0..rows)
        .map(|row| match row % 10 {
            0..6 => Split::Train,
            6 | 7 => Split::Valid,
            _ => Split::Test,
        })
        .collect()
}

/// Rows of noise to which `signal` adds what the label says.
fn embed(rows: usize, noise: f64, rng: &mut Rng, mut signal: impl FnMut(usize, &mut [f64])) -> Vec<f32> {
    let mut embeddings = Vec::with_capacity(rows * DIM);
    for row in 0..rows {
        let mut values: Vec<f64> = (0..DIM).map(|_| noise * rng.normal()).collect();
        signal(row, &mut values);
        embeddings.extend(values.into_iter().map(|value| value as f32));
    }
    embeddings
}

fn key_at(index: usize) -> MusicalKey {
    MusicalKey::from_index(index).unwrap()
}

/// A configuration for quick tests.
fn quick() -> ProbeConfig {
    ProbeConfig {
        kinds: vec![ProbeKind::Linear, ProbeKind::Mlp(MlpConfig { hidden: 32 })],
        seeds: 2,
        bootstrap: 200,
        ..ProbeConfig::default()
    }
}

fn run(embeddings: &[f32], labels: &Labels) -> Result<Vec<ProbeResult>, ProbeError> {
    let split = splits(labels.len());
    probe(&ProbeData { embeddings, dim: DIM, split: &split, labels }, &quick(), Key::root(9))
}

fn metric<'a>(result: &'a ProbeResult, name: &str) -> &'a Metric {
    result.metrics.iter().find(|metric| metric.name == name).unwrap()
}

#[test]
fn keys_are_found_where_they_are() {
    let mut rng = Key::root(1).rng();
    let keys: Vec<MusicalKey> = (0..800).map(|_| key_at(rng.below(24))).collect();
    // The 23 other keys are 1.41 apart, 7 deviations: the best possible classifier errs in about 0.5%.
    let embeddings = embed(800, 0.2, &mut rng, |row, values| values[keys[row].index()] += 1.0);
    let labels = Labels::Key(keys.iter().map(|&key| Some(key)).collect());
    for result in run(&embeddings, &labels).unwrap() {
        let accuracy = metric(&result, "accuracy");
        assert!(accuracy.value > 0.95, "{accuracy:?}");
        assert!(accuracy.lo <= accuracy.value && accuracy.value <= accuracy.hi && accuracy.hi <= 1.0);
        assert!(accuracy.chance < 0.12);
        // The stored predictions give the same figures again.
        let scores = |rule| {
            let each = result
                .predictions
                .iter()
                .map(|p| mirex_weighted(MusicalKey::parse(&p.value).unwrap(), keys[p.row], rule));
            each.sum::<f64>() / result.predictions.len() as f64
        };
        assert!((scores(FifthRule::Symmetric) - metric(&result, "mirex_symmetric").value).abs() < 1e-9);
        assert!((scores(FifthRule::OneSided) - metric(&result, "mirex_one_sided").value).abs() < 1e-9);
        assert_eq!(result.predictions.len(), 2 * result.rows.test);
        assert!(result.predictions.iter().all(|p| (0.0..=1.0).contains(&p.confidence)));
    }
}

#[test]
fn noise_stays_at_chance() {
    let mut rng = Key::root(2).rng();
    let embeddings = embed(1000, 1.0, &mut rng, |_, _| {});
    let keys = Labels::Key((0..1000).map(|_| Some(key_at(rng.below(24)))).collect());
    let tempi = Labels::Tempo((0..1000).map(|_| Some(60.0 * rng.uniform(0.0, 1.1).exp())).collect());
    let tag = |rng: &mut Rng| if rng.f64() < 0.3 { vec!["bass".to_owned()] } else { Vec::new() };
    let tags = Labels::Tags((0..1000).map(|_| Some(tag(&mut rng))).collect());
    for (labels, name) in [(&keys, "accuracy"), (&tempi, "acc1"), (&tags, "macro_roc_auc"), (&tags, "map")] {
        for result in run(&embeddings, labels).unwrap() {
            let metric = metric(&result, name);
            assert!((metric.value - metric.chance).abs() < 0.1, "{metric:?}");
            assert!(metric.lo - 0.03 < metric.chance && metric.chance < metric.hi + 0.03, "{metric:?}");
        }
    }
}

#[test]
fn tempi_are_read_within_the_tolerance() {
    let mut rng = Key::root(3).rng();
    let octaves: Vec<f64> = (0..1000).map(|_| rng.uniform(0.0, 1.5)).collect();
    // Log-tempo as a bump that moves over the dimensions, as a learnt tempo axis might.
    let embeddings = embed(1000, 0.05, &mut rng, |row, values| {
        for (dimension, value) in values.iter_mut().enumerate() {
            *value += (-0.5 * ((dimension as f64 - 15.0 * octaves[row]) / 2.0).powi(2)).exp();
        }
    });
    let labels = Labels::Tempo(octaves.iter().map(|octave| Some(60.0 * octave.exp2())).collect());
    for result in run(&embeddings, &labels).unwrap() {
        let (acc1, acc2) = (metric(&result, "acc1"), metric(&result, "acc2"));
        assert!(acc1.value > 0.75, "{acc1:?}");
        assert!(acc2.value >= acc1.value && acc2.chance >= acc1.chance);
        assert!((0.02..0.2).contains(&acc1.chance), "{acc1:?}");
    }
}

#[test]
fn tags_are_ranked_and_undefined_ones_counted() {
    let mut rng = Key::root(4).rng();
    let names = ["bass", "drums", "oboe"];
    let mut on: Vec<[bool; 3]> = (0..600).map(|_| [0.5, 0.2, 0.1].map(|p| rng.f64() < p)).collect();
    let split = splits(600);
    // No test row has an oboe, so that tag has one class there.
    on.iter_mut().zip(&split).filter(|(_, split)| **split == Split::Test).for_each(|(on, _)| on[2] = false);
    let embeddings = embed(600, 0.3, &mut rng, |row, values| {
        (0..3).for_each(|tag| values[tag] += f64::from(u8::from(on[row][tag])));
    });
    let of =
        |on: &[bool; 3]| names.iter().zip(on).filter(|(_, on)| **on).map(|(n, _)| (*n).to_owned()).collect();
    let labels = Labels::Tags(on.iter().map(|on| Some(of(on))).collect());
    for result in run(&embeddings, &labels).unwrap() {
        let (auc, map) = (metric(&result, "macro_roc_auc"), metric(&result, "map"));
        assert!(auc.value > 0.95 && map.value > 0.9, "{auc:?} {map:?}");
        assert_eq!((auc.skipped, map.skipped, auc.chance), (1, 1, 0.5));
        let share = |tag: usize| {
            let test = on.iter().zip(&split).filter(|(_, split)| **split == Split::Test);
            test.filter(|(on, _)| on[tag]).count() as f64 / result.rows.test as f64
        };
        assert!((map.chance - (share(0) + share(1)) / 2.0).abs() < 1e-12);
    }
}

#[test]
fn classes_outside_training_are_misses_and_imbalance_shows() {
    let mut rng = Key::root(5).rng();
    let split = splits(500);
    // Nine in ten rows are "common"; one test row is of a class that training never shows.
    let mut classes: Vec<String> =
        (0..500).map(|_| if rng.f64() < 0.9 { "common" } else { "rare" }.to_owned()).collect();
    let lone = split.iter().position(|split| *split == Split::Test).unwrap();
    classes[lone] = "lone".to_owned();
    let labels = Labels::Class(classes.into_iter().map(Some).collect());
    let embeddings = embed(500, 1.0, &mut rng, |_, _| {});
    for result in run(&embeddings, &labels).unwrap() {
        assert_eq!(result.rows.unseen, 1);
        let (accuracy, balanced) = (metric(&result, "accuracy"), metric(&result, "balanced_accuracy"));
        // Uninformative embeddings: high accuracy is chance, and the balanced figure says so.
        assert!(accuracy.value > 0.8 && (accuracy.value - accuracy.chance).abs() < 0.05, "{accuracy:?}");
        assert!((balanced.value - 1.0 / 3.0).abs() < 0.05, "{balanced:?}");
        assert!((balanced.chance - 1.0 / 3.0).abs() < 1e-12);
        assert!(result.predictions.iter().all(|p| p.value == "common" || p.value == "rare"));
    }
}

#[test]
fn rows_without_a_label_are_left_out_and_counted() {
    let mut rng = Key::root(6).rng();
    let embeddings = embed(200, 1.0, &mut rng, |_, _| {});
    let keys = Labels::Key((0..200).map(|row| (row % 4 != 0).then(|| key_at(row % 24))).collect());
    let result = &run(&embeddings, &keys).unwrap()[0];
    assert_eq!(result.rows.missing, 50);
    assert_eq!(result.rows.train + result.rows.valid + result.rows.test, 150);
    assert!(result.predictions.iter().all(|p| p.row % 4 != 0));
}

#[test]
fn results_depend_on_the_key_only() {
    let mut rng = Key::root(7).rng();
    let keys: Vec<MusicalKey> = (0..300).map(|_| key_at(rng.below(24))).collect();
    let embeddings = embed(300, 0.8, &mut rng, |row, values| values[keys[row].index()] += 1.0);
    let labels = Labels::Key(keys.into_iter().map(Some).collect());
    let first = run(&embeddings, &labels).unwrap();
    assert_eq!(first, run(&embeddings, &labels).unwrap());
    let split = splits(300);
    let data = ProbeData { embeddings: &embeddings, dim: DIM, split: &split, labels: &labels };
    assert_ne!(first, probe(&data, &quick(), Key::root(10)).unwrap());
}

#[test]
fn test_rows_leak_into_nothing() {
    let mut rng = Key::root(8).rng();
    let keys: Vec<MusicalKey> = (0..300).map(|_| key_at(rng.below(24))).collect();
    let embeddings = embed(300, 0.8, &mut rng, |row, values| values[keys[row].index()] += 1.0);
    let split = splits(300);
    let tests: Vec<usize> = (0..300).filter(|&row| split[row] == Split::Test).collect();
    let (first, others) = tests.split_first().unwrap();
    // All test rows but one change, embedding and label; what is predicted for that one must not.
    let (mut changed_keys, mut changed) = (keys.clone(), embeddings.clone());
    for &row in others {
        changed_keys[row] = key_at((keys[row].index() + 5) % 24);
        changed[row * DIM..(row + 1) * DIM].fill(1e6);
    }
    let of = |keys: Vec<MusicalKey>, embeddings: &[f32]| {
        let results = run(embeddings, &Labels::Key(keys.into_iter().map(Some).collect())).unwrap();
        let all = results.into_iter().flat_map(|result| result.predictions);
        all.filter(|p| p.row == *first).collect::<Vec<_>>()
    };
    assert_eq!(of(keys, &embeddings), of(changed_keys, &changed));
}

#[test]
fn tiny_sets_work() {
    let labels = Labels::Key((0..10).map(|row| Some(key_at(row))).collect());
    let mut rng = Key::root(9).rng();
    let embeddings = embed(10, 1.0, &mut rng, |_, _| {});
    let split: Vec<Split> =
        (0..10).map(|row| [Split::Train, Split::Valid, Split::Test][row.min(2)]).collect();
    let data = ProbeData { embeddings: &embeddings, dim: DIM, split: &split, labels: &labels };
    for result in probe(&data, &quick(), Key::root(1)).unwrap() {
        assert_eq!((result.rows.train, result.rows.valid, result.rows.test), (1, 1, 8));
        assert!(result.metrics.iter().all(|m| m.value.is_finite() && m.lo.is_finite() && m.hi.is_finite()));
    }
    // Every test row has the tag: no ROC-AUC is reported, average precision is 1 by definition.
    let tags = Labels::Tags((0..10).map(|_| Some(vec!["x".to_owned()])).collect());
    let data = ProbeData { labels: &tags, ..data };
    let result = &probe(&data, &quick(), Key::root(1)).unwrap()[0];
    assert_eq!(result.metrics.iter().map(|m| (m.name, m.value)).collect::<Vec<_>>(), [("map", 1.0)]);
}

#[test]
fn bad_material_is_a_typed_error() {
    let labels = Labels::Tempo(vec![Some(100.0); 20]);
    let embeddings = vec![0.5; 20 * DIM];
    let split = splits(20);
    let data = ProbeData { embeddings: &embeddings, dim: DIM, split: &split, labels: &labels };
    let error = |data: &ProbeData<'_>| probe(data, &quick(), Key::root(1)).unwrap_err();

    let short = ProbeData { embeddings: &embeddings[1..], ..data };
    assert!(matches!(error(&short), ProbeError::Shape { what: "embeddings", .. }));
    assert!(matches!(error(&ProbeData { dim: 0, embeddings: &[], ..data }), ProbeError::Shape { .. }));
    let few = Labels::Tempo(vec![Some(100.0); 19]);
    assert!(matches!(error(&ProbeData { labels: &few, ..data }), ProbeError::Shape { what: "labels", .. }));

    let mut broken = embeddings.clone();
    broken[3 * DIM + 2] = f32::NAN;
    let found = error(&ProbeData { embeddings: &broken, ..data });
    assert_eq!(found, ProbeError::NotFinite { row: 3, dimension: 2 });

    for split in [Split::Train, Split::Valid, Split::Test] {
        let unlabelled = data.split.iter().map(|of| (*of != split).then_some(100.0)).collect();
        let found = error(&ProbeData { labels: &Labels::Tempo(unlabelled), ..data });
        assert!(matches!(found, ProbeError::EmptySplit { split: of, .. } if of == split), "{found}");
    }
    let config = ProbeConfig { seeds: 0, ..quick() };
    assert!(matches!(probe(&data, &config, Key::root(1)), Err(ProbeError::Config(_))));
}

#[test]
fn splits_read_their_names() {
    for split in [Split::Train, Split::Valid, Split::Test] {
        assert_eq!(Split::parse(split.as_str()), Some(split));
    }
    assert_eq!(Split::parse("dev"), None);
}
