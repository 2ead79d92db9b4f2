//! The Kaiser window, in which interpolators hold their sincs.

/// The window at `x`, from -1 at one end over 0 in the middle to 1; `beta` trades the width of the transition for the
/// depth of the stop band. 0 beyond the ends is the caller's affair.
pub(crate) fn kaiser(x: f64, beta: f64) -> f64 {
    bessel_i0(beta * (1.0 - x.powi(2)).max(0.0).sqrt()) / bessel_i0(beta)
}

/// The modified Bessel function of order 0, by its power series (all terms positive, so no cancellation).
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bessel_function_has_its_published_value() {
        assert!((bessel_i0(1.0) - 1.266_065_877_752_008_4).abs() < 1e-12);
    }
}
