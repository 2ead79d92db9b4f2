//! mu-law and A-law of ITU-T G.711 (1988), there and back.
//!
//! Both laws are four significant bits below the leading one: of the magnitude plus 33 for the mu-law (14-bit scale),
//! and of the magnitude itself for the A-law (13-bit scale), where the lowest two segments are one. A decoded value is
//! the middle of its interval. Cutting the significand of a float does just that.

/// Coded and decoded by the mu-law; full scale is 1.
pub(super) fn mu_law(samples: &mut [f32]) {
    for sample in samples {
        let biased = (sample.abs() * 8_192.0 + 33.0).min(8_191.0);
        *sample = ((middle(biased) - 33.0) / 8_192.0).copysign(*sample);
    }
}

/// Coded and decoded by the A-law; full scale is 1. There is no zero: silence becomes half a step.
pub(super) fn a_law(samples: &mut [f32]) {
    for sample in samples {
        let magnitude = (sample.abs() * 4_096.0).min(4_095.0);
        let lowest = if magnitude < 32.0 { 32.0 } else { 0.0 };
        *sample = ((middle(magnitude + lowest) - lowest) / 4_096.0).copysign(*sample);
    }
}

/// The middle of the interval of four significant bits below the leading one.
#[inline]
fn middle(x: f32) -> f32 {
    const BELOW: u32 = 23 - 4;
    f32::from_bits(x.to_bits() >> BELOW << BELOW | 1 << (BELOW - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables 1a and 2a of G.711: (intervals, size) per segment from zero up, on the scale of the law. Decision values
    /// are the ends of intervals, decoded values their middles, but for the first of the mu-law, which is 0.
    fn check(segments: &[(u32, u32)], full_scale: f32, code: fn(&mut [f32]), first: f32, last: f32) {
        let mut from = 0u32;
        let mut decoded = Vec::new();
        for &(intervals, size) in segments {
            for _ in 0..intervals {
                let want = if size == 1 { 0.0 } else { from as f32 + size as f32 / 2.0 };
                for inside in [0.001, 0.5, 0.999] {
                    let x = (from as f32 + inside * size as f32) / full_scale;
                    let mut pair = [x, -x];
                    code(&mut pair);
                    assert_eq!(pair.map(|y| y * full_scale), [want, -want], "{x}");
                }
                decoded.push(want);
                from += size;
            }
        }
        assert_eq!((decoded.len(), decoded[0], decoded[127]), (128, first, last));
        let mut beyond = [1.0, -1.0];
        code(&mut beyond);
        assert_eq!(beyond.map(|y| y * full_scale), [last, -last]);
    }

    #[test]
    fn mu_law_follows_the_table() {
        let segments =
            [(1, 1), (15, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128), (16, 256)];
        check(&segments, 8_192.0, mu_law, 0.0, 8_031.0);
    }

    #[test]
    fn a_law_follows_the_table() {
        let segments = [(32, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128)];
        check(&segments, 4_096.0, a_law, 1.0, 4_032.0);
    }
}
