use super::*;
use crate::rng::Key;

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = Key::root(seed).rng();
    (0..count).map(|_| rng.normal() as f32).collect()
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn all_pairs_above_the_limit_are_candidates_and_few_others() {
    for (dim, queries, items) in [(1, 1, 1), (3, 13, 31), (16, 12, 64), (33, 30, 257)] {
        let (query_values, item_values) = (random(queries * dim, 1), random(items * dim, 2));
        let weights: Vec<f32> = (0..items).map(|item| if item % 11 == 5 { f32::NAN } else { 1.5 }).collect();
        let offsets: Vec<f32> =
            (0..items).map(|item| if item % 7 == 3 { f32::NEG_INFINITY } else { 0.25 }).collect();
        let packed = Queries::new(&query_values, dim);
        assert_eq!(packed.rows(), queries);
        let mut block = Items::default();
        block.fill(&item_values, dim, &weights, &offsets);
        let mut limits = vec![0.5; queries];
        let mut found = Vec::new();
        candidates(&packed, &block, &mut limits, &mut |query, item| {
            found.push((query, item));
            0.5
        });
        found.sort_unstable();
        let near = |query: usize, item: usize, slack: f64| {
            let score =
                product(&query_values[query * dim..][..dim], &item_values[item * dim..][..dim]) * 1.5 + 0.25;
            item % 11 == 5 || (item % 7 != 3 && score > 0.5 + slack)
        };
        for query in 0..queries {
            for item in 0..items {
                let is_found = found.binary_search(&(query, item)).is_ok();
                assert!(is_found || !near(query, item, 1e-4), "{query} {item} of {dim} is missing");
                assert!(!is_found || near(query, item, -1e-4), "{query} {item} of {dim} is too far");
            }
        }
    }
}

#[test]
fn limits_that_rise_are_kept_to() {
    let (query, items) = (random(40, 1), random(40 * 500, 2));
    let mut block = Items::default();
    block.fill(&items, 40, &[1.0; 500], &[0.0; 500]);
    let (mut limits, mut best) = (vec![f32::NAN], Vec::new());
    let mut looked_at = 0;
    candidates(&Queries::new(&query, 40), &block, &mut limits, &mut |_, item| {
        looked_at += 1;
        best.push((product(&query, &items[item * 40..][..40]), item));
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        best.truncate(5);
        if best.len() < 5 { f32::NAN } else { best[4].0 as f32 - 1e-3 }
    });
    let mut all: Vec<(f64, usize)> =
        (0..500).map(|item| (product(&query, &items[item * 40..][..40]), item)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(best, all[..5]);
    assert!(looked_at < 100, "{looked_at} of 500 items");
}

#[test]
fn measures_are_those_of_doubles_at_every_length() {
    for dim in [0, 1, 7, 16, 17, 31, 32, 48, 100] {
        let (query, rows) = (random(dim, 1), random(dim * 9, 2));
        let slices = || (0..9).map(|row| &rows[row * dim..(row + 1) * dim]);
        let exact: Vec<[f64; 4]> = slices()
            .map(|row| {
                let differences = || query.iter().zip(row).map(|(a, b)| f64::from(a - b));
                [
                    product(&query, row),
                    product(row, row),
                    differences().map(|d| d * d).sum(),
                    differences().map(f64::abs).sum(),
                ]
            })
            .collect();
        let near = |found: f32, exact: f64| (f64::from(found) - exact).abs() < 1e-5 * (dim as f64 + 1.0);
        let mut rows = 0;
        scan(Measure::Product, &query, slices(), |row, first, second| {
            assert!(near(first, exact[row][0]) && near(second, exact[row][1]), "{dim}");
            rows += 1;
        });
        assert_eq!(rows, 9);
        scan(Measure::SquaredDistance, &query, slices(), |row, first, _| {
            assert!(near(first, exact[row][2]), "{dim}")
        });
        scan(Measure::AbsoluteDistance, &query, slices(), |row, first, _| {
            assert!(near(first, exact[row][3]), "{dim}")
        });
    }
}
