//! Convolution of a view with a long response, by uniformly partitioned overlap-save.
//!
//! The response is cut into partitions of one length; each is transformed once, and so is each window of the
//! signal. Every block of output is then a sum of products and one transform back. Against one transform of the
//! whole view this is the faster for all lengths that occur, and as all transforms are powers of two only a few
//! are ever planned, however many lengths the responses have.
//!
//! Source: T. G. Stockham, "High-speed convolution and correlation", AFIPS SJCC 1966; partitions: F. Wefers,
//! "Partitioned convolution algorithms for real-time auralization", RWTH Aachen, 2015.

use realfft::num_complex::Complex;

use crate::operator::Scratch;

/// The lengths of partitions to choose from.
const PARTITIONS: [usize; 7] = [512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768];

/// Spectra and blocks that are kept from view to view.
#[derive(Default)]
struct Buffers {
    block: Vec<f32>,
    filters: Vec<Complex<f32>>,
    windows: Vec<Complex<f32>>,
    sum: Vec<Complex<f32>>,
    work: Vec<Complex<f32>>,
}

/// `output[n] = sum over k of response[k] * scale * signal[n + lead - k]`, for as many `n` as the signal has.
///
/// `lead` is the place in the response that counts as time zero: what comes before it sounds earlier. The
/// products must stay finite in `f32`: scale by the peak.
pub(crate) fn convolve(
    signal: &[f32],
    scale: f32,
    response: &[f32],
    lead: usize,
    output: &mut Vec<f32>,
    scratch: &mut Scratch,
) {
    output.clear();
    output.resize(signal.len(), 0.0);
    let response = &response[..response.len().min(signal.len() + lead)];
    if response.is_empty() || signal.is_empty() {
        return;
    }
    let size = partition(signal.len(), response.len(), lead);
    let (forward, inverse) = (scratch.forward(2 * size), scratch.inverse(2 * size));
    let Buffers { block, filters, windows, sum, work } = scratch.slot();
    let bins = size + 1;
    let ahead = lead.div_ceil(size);
    let (parts, blocks) = (response.len().div_ceil(size), signal.len().div_ceil(size));
    block.resize(2 * size, 0.0);
    filters.resize(parts * bins, Complex::default());
    windows.resize((blocks + ahead) * bins, Complex::default());
    sum.resize(bins, Complex::default());
    work.resize(forward.get_scratch_len().max(inverse.get_scratch_len()), Complex::default());

    // All lengths match by construction, so no transform can fail; were one to, there would be silence.
    for (part, spectrum) in response.chunks(size).zip(filters.chunks_exact_mut(bins)) {
        block[..part.len()].copy_from_slice(part);
        block[part.len()..].fill(0.0);
        let _ = forward.process_with_scratch(block, spectrum, &mut work[..forward.get_scratch_len()]);
    }
    // Window `w` holds the samples from `lead + (w - ahead - 1) * size`, twice `size` of them.
    for (w, spectrum) in windows.chunks_exact_mut(bins).enumerate() {
        let (place, origin) = (lead + w * size, (ahead + 1) * size);
        let (zeros, from) = (origin.saturating_sub(place), place.saturating_sub(origin));
        block.fill(0.0);
        for (to, sample) in block[zeros..].iter_mut().zip(signal.get(from..).unwrap_or_default()) {
            *to = *sample * scale;
        }
        let _ = forward.process_with_scratch(block, spectrum, &mut work[..forward.get_scratch_len()]);
    }
    let normalise = 1.0 / (2 * size) as f32;
    for (b, output) in output.chunks_mut(size).enumerate() {
        sum.fill(Complex::default());
        let newest_first = windows[..(b + ahead + 1) * bins].chunks_exact(bins).rev();
        for (filter, window) in filters.chunks_exact(bins).zip(newest_first) {
            for ((sum, f), w) in sum.iter_mut().zip(filter).zip(window) {
                *sum += f * w;
            }
        }
        sum[0].im = 0.0;
        sum[size].im = 0.0;
        let _ = inverse.process_with_scratch(sum, block, &mut work[..inverse.get_scratch_len()]);
        for (to, sample) in output.iter_mut().zip(&block[size..]) {
            *to = sample * normalise;
        }
    }
}

/// The cheapest length of a partition: transforms cost `n log n`, products of spectra are measured at the price
/// of 1.5 such steps per bin.
fn partition(frames: usize, taps: usize, lead: usize) -> usize {
    let cost = |size: usize| {
        let (parts, blocks, ahead) = (taps.div_ceil(size), frames.div_ceil(size), lead.div_ceil(size));
        let products: usize = (0..blocks).map(|b| parts.min(b + ahead + 1)).sum();
        let transforms = (parts + 2 * blocks + ahead) * 2 * size * (2 * size).ilog2() as usize;
        2 * transforms + 3 * 2 * products * size
    };
    PARTITIONS.into_iter().min_by_key(|size| cost(*size)).unwrap_or(PARTITIONS[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut rng = Key::root(seed).rng();
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// The definition in double precision, for every length around the edges of a partition.
    #[test]
    fn equals_the_sum() {
        let mut scratch = Scratch::default();
        let lengths = [(1, 1), (1, 700), (700, 1), (511, 512), (513, 1_025), (3_000, 40), (2_500, 6_000)];
        for (frames, taps) in lengths {
            let (x, h) = (noise(1, frames), noise(2, taps));
            for lead in [0, 1, 5, 511, 512, 513, 1_700, 9_000] {
                let mut got = vec![f32::NAN; 3];
                convolve(&x, 0.5, &h, lead, &mut got, &mut scratch);
                assert_eq!(got.len(), frames);
                let size = 0.5 * (taps.min(frames) as f64).sqrt();
                for (n, y) in got.iter().enumerate() {
                    let range = (n + lead + 1).saturating_sub(frames)..taps.min(n + lead + 1);
                    let want: f64 = range.map(|k| f64::from(h[k]) * 0.5 * f64::from(x[n + lead - k])).sum();
                    assert!(
                        (f64::from(*y) - want).abs() < 3e-6 * size,
                        "{frames} {taps} {lead} {n}: {y} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn partitions_follow_the_lengths() {
        assert!(partition(48_000, 300, 0) <= 1_024);
        assert!(partition(48_000, 48_000, 0) >= 2_048);
        let long = partition(480_000, 480_000, 0);
        assert!((8_192..=32_768).contains(&long), "{long}");
    }
}
