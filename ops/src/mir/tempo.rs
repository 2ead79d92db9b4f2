//! Tempo estimates against the truth.

/// Tempo Accuracy 1: whether the estimate lies within `tolerance` (relative, usually 0.04) of the true tempo.
/// False where either is not a positive finite number.
pub fn tempo_acc1(estimate: f64, truth: f64, tolerance: f64) -> bool {
    near(estimate, truth, tolerance)
}

/// Tempo Accuracy 2: as [`tempo_acc1`], accepting also a third, a half, double and three times the true tempo,
/// each with the tolerance relative to itself.
pub fn tempo_acc2(estimate: f64, truth: f64, tolerance: f64) -> bool {
    [1.0 / 3.0, 0.5, 1.0, 2.0, 3.0].iter().any(|factor| near(estimate, factor * truth, tolerance))
}

/// Octave error 1: `log2(estimate / truth)`, 0 for the true tempo, -1 for half of it, 1 for double. `None` where either
/// is not a positive finite number. Its absolute value is independent of any tolerance. Schreiber, Urbano and Müller,
/// "Music tempo estimation: are we done yet?", TISMIR 3(1), 2020.
pub fn tempo_oe1(estimate: f64, truth: f64) -> Option<f64> {
    let valid = |tempo: f64| tempo.is_finite() && tempo > 0.0;
    (valid(estimate) && valid(truth)).then(|| (estimate / truth).log2())
}

/// Octave error 2: the [`tempo_oe1`] nearest to 0 of the estimate and of it times 2, 3, 1/2 and 1/3: what remains when
/// the metrical level is forgiven. `None` as there.
pub fn tempo_oe2(estimate: f64, truth: f64) -> Option<f64> {
    let error = tempo_oe1(estimate, truth)?;
    let three = 3f64.log2();
    let errors = [0.0, 1.0, -1.0, three, -three].map(|shift| error + shift);
    errors.into_iter().min_by(|a, b| a.abs().total_cmp(&b.abs()))
}

fn near(estimate: f64, target: f64, tolerance: f64) -> bool {
    let valid = estimate.is_finite() && target.is_finite() && estimate > 0.0 && target > 0.0;
    valid && (estimate - target).abs() <= tolerance * target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tempo_scores_use_the_tolerance_of_the_accepted_value() {
        assert!(tempo_acc1(124.8, 120.0, 0.04) && !tempo_acc1(125.0, 120.0, 0.04));
        assert!(!tempo_acc1(60.0, 120.0, 0.04) && tempo_acc2(60.0, 120.0, 0.04));
        assert!(tempo_acc2(62.4, 120.0, 0.04) && !tempo_acc2(62.5, 120.0, 0.04));
        assert!(tempo_acc2(374.0, 120.0, 0.04) && tempo_acc2(40.0, 120.0, 0.04));
        assert!(!tempo_acc2(80.0, 120.0, 0.04));
        for bad in [0.0, -120.0, f64::NAN, f64::INFINITY] {
            assert!(!tempo_acc1(bad, 120.0, 0.04) && !tempo_acc2(120.0, bad, 0.04), "{bad}");
        }
    }

    #[test]
    fn octave_errors_are_logarithms_of_ratios() {
        assert_eq!(tempo_oe1(60.0, 120.0), Some(-1.0));
        assert_eq!(tempo_oe2(60.0, 120.0), Some(0.0));
        assert!((tempo_oe1(180.0, 120.0).unwrap() - 0.584_962_500_721_156).abs() < 1e-12);
        // Three halves: double the truth is nearer (3/4) than the truth itself.
        assert!((tempo_oe2(180.0, 120.0).unwrap() + 0.415_037_499_278_844).abs() < 1e-12);
        assert!((tempo_oe2(369.0, 120.0).unwrap() - (369.0f64 / 360.0).log2()).abs() < 1e-12);
        assert_eq!((tempo_oe1(0.0, 120.0), tempo_oe2(120.0, f64::NAN)), (None, None));
    }
}
