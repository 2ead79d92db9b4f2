//! Which moment of the source a frame of the stretched signal is taken from.
//!
//! A frame puts an attack where it stands in that frame. Frames that are laid out at other distances than they were
//! taken at therefore repeat it a few milliseconds apart: attacks blur and are heard before they come. So around an
//! attack frames are taken at the source's own pace, where all copies coincide, and the rest of the stretch makes up
//! for it (Duxbury, Davies and Sandler, "Improved time-scaling of musical audio using phase locking at transients",
//! AES 112th Convention, 2002). Attacks themselves, and both ends, stay where an even pace puts them.

/// Blocks of this length are judged, in seconds.
const BLOCK_SECONDS: f64 = 0.0025;
/// An attack is a rise of the energy in AFTER blocks over that in the BEFORE blocks before them, by RISE at least and
/// the largest within APART blocks.
pub(crate) const BEFORE: usize = 8;
pub(crate) const AFTER: usize = 4;
pub(crate) const APART: usize = 12;
pub(crate) const RISE: f32 = 3.0;
/// What lies this far below the mean energy counts as silence.
pub(crate) const SILENCE: f32 = 1e-3;
/// The source's own pace is kept this far from an attack on either side, in frames of the vocoder.
pub(crate) const OWN_PACE: f64 = 0.25;
/// Between attacks the pace changes by no more than this factor or its inverse.
pub(crate) const LEAST_PACE: f64 = 0.5;

/// The samples of a block.
pub(crate) fn block_length(sample_rate: u32) -> usize {
    (f64::from(sample_rate) * BLOCK_SECONDS).round().max(2.0) as usize
}

/// An attack that comes within so much of a frame counts as one in it, and so does one that came within so much.
pub(crate) const AHEAD: f64 = 0.5;
pub(crate) const PAST: f64 = 0.1;

/// Places in the stretched signal and in the source, in samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub out: f64,
    pub source: f64,
}

/// A monotone map from the stretched signal to the source; piecewise linear.
pub(super) struct TimeMap {
    block: usize,
    size: f64,
    /// Per block of the source: energy of the first difference, which tells attacks over low notes.
    energy: Vec<f32>,
    rises: Vec<f32>,
    /// Where attacks begin in the source, ascending.
    attacks: Vec<f64>,
    knots: Vec<Place>,
    next: usize,
}

impl TimeMap {
    /// For frames of `size` samples.
    pub fn new(sample_rate: u32, size: usize) -> Self {
        Self {
            block: block_length(sample_rate),
            size: size as f64,
            energy: Vec::new(),
            rises: Vec::new(),
            attacks: Vec::new(),
            knots: Vec::new(),
            next: 0,
        }
    }

    /// Maps `span` samples of the stretched signal, from `start` on, at `pace` samples of source for each. Samples
    /// times `scale` lie within -2..2.
    pub fn plan(&mut self, input: &[Vec<f32>], scale: f32, start: Place, span: f64, pace: f64) {
        let end = Place { out: start.out + span, source: start.source + span * pace };
        self.attacks.clear();
        self.knots.clear();
        self.next = 0;
        self.knots.push(start);
        let (mut from, mut kept) = (start, 0.0);
        // At the source's own pace there is nothing to do.
        if pace != 1.0 {
            self.find_attacks(input, scale, start.source, end.source);
            for i in 0..self.attacks.len() {
                let source = self.attacks[i];
                let attack = Place { out: start.out + (source - start.source) / pace, source };
                self.join(from, kept, attack, OWN_PACE * self.size, pace);
                (from, kept) = (attack, OWN_PACE * self.size);
            }
        }
        self.join(from, kept, end, 0.0, pace);
    }

    /// The moment of the source at `out`; to be asked in ascending order.
    pub fn source_at(&mut self, out: f64) -> f64 {
        while self.knots.get(self.next + 1).is_some_and(|knot| knot.out < out) {
            self.next += 1;
        }
        match self.knots.get(self.next..) {
            Some([a, b, ..]) if b.out > a.out => {
                a.source + (out - a.out) * ((b.source - a.source) / (b.out - a.out))
            }
            Some([a, ..]) => a.source,
            _ => 0.0,
        }
    }

    /// Whether the frame around `source` holds an attack that comes, or has just come.
    pub fn has_attack(&self, source: f64) -> bool {
        let (past, ahead) = (source - PAST * self.size, source + AHEAD * self.size);
        let next = self.attacks.partition_point(|attack| *attack < past);
        self.attacks.get(next).is_some_and(|attack| *attack < ahead)
    }

    /// Continues the map to `to`, with the source's own pace near both ends as far as the rest can make up for it.
    fn join(&mut self, from: Place, kept: f64, to: Place, keep: f64, pace: f64) {
        let gap = to.source - from.source;
        let room = gap * (1.0 - LEAST_PACE) / 2.0;
        let most = if pace < 1.0 { room / (1.0 - LEAST_PACE * pace) } else { room / (pace - LEAST_PACE) };
        let (after, before) = (kept.min(most), keep.min(most));
        self.knots.push(Place { out: from.out + after, source: from.source + after });
        self.knots.push(Place { out: to.out - before, source: to.source - before });
        self.knots.push(to);
    }

    fn find_attacks(&mut self, input: &[Vec<f32>], scale: f32, from: f64, to: f64) {
        let blocks = input.first().map_or(0, |channel| channel.len().saturating_sub(1) / self.block);
        self.energy.clear();
        self.energy.resize(blocks, 0.0);
        for channel in input {
            for (i, energy) in self.energy.iter_mut().enumerate() {
                // One sample more than the block: as many differences as it has samples.
                let samples = channel.get(i * self.block..=(i + 1) * self.block);
                *energy += samples.map_or(0.0, |s| difference_energy(s, scale));
            }
        }
        let mean = |energy: &[f32]| energy.iter().sum::<f32>() / energy.len().max(1) as f32;
        let silence = SILENCE * mean(&self.energy) + f32::MIN_POSITIVE;
        self.rises.clear();
        self.rises.extend((0..blocks).map(|i| {
            let before = mean(&self.energy[i.saturating_sub(BEFORE)..i]);
            let after = mean(&self.energy[i..blocks.min(i + AFTER)]);
            // The source may just begin to be heard there: no attack.
            if i == 0 { 0.0 } else { (after + silence) / (before + silence) }
        }));
        for (i, rise) in self.rises.iter().enumerate() {
            let near = &self.rises[i.saturating_sub(APART)..blocks.min(i + APART + 1)];
            let source = (i * self.block) as f64;
            if *rise >= RISE && near.iter().all(|other| other <= rise) && source > from && source < to {
                self.attacks.push(source);
            }
        }
    }
}

/// The energy of the differences of neighbours, times `scale`.
fn difference_energy(samples: &[f32], scale: f32) -> f32 {
    let square = |a: &f32, b: &f32| (b * scale - a * scale).powi(2);
    let mut lanes = [0.0f32; 8];
    let (a, b) = (&samples[..samples.len().saturating_sub(1)], samples.get(1..).unwrap_or(&[]));
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| square(a, b)).sum();
    for (a, b) in a.zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += square(a, b);
        }
    }
    rest + lanes.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 16_000;
    const SIZE: usize = 1_536;

    /// Quiet noise with a burst at each of these samples.
    fn struck(frames: usize, at: &[usize]) -> Vec<Vec<f32>> {
        let mut rng = crate::rng::Key::root(3).rng();
        let level = |i: usize| match at.iter().rev().find(|a| **a <= i) {
            Some(a) => 0.01 + 0.5 * (-((i - a) as f64) / 400.0).exp(),
            None => 0.01,
        };
        vec![(0..frames).map(|i| (level(i) * rng.uniform(-1.0, 1.0)) as f32).collect()]
    }

    #[test]
    fn attacks_keep_their_place_and_the_pace_of_the_source() {
        let hits = [9_000, 17_000, 26_000];
        for pace in [0.5, 0.8, 1.25, 2.0] {
            let mut map = TimeMap::new(RATE, SIZE);
            let start = Place { out: 100.0, source: 2_000.0 };
            map.plan(&struck(36_000, &hits), 1.0, start, 30_000.0 / pace, pace);
            assert_eq!(map.attacks.len(), 3, "{:?}", map.attacks);
            for (found, hit) in map.attacks.clone().iter().zip(hits) {
                assert!((found - hit as f64).abs() <= 40.0, "{found} for {hit}");
                let even = start.out + (found - start.source) / pace;
                let near: Vec<f64> = [-300.0, 0.0, 300.0].iter().map(|d| map.source_at(even + d)).collect();
                let want = [found - 300.0, *found, found + 300.0];
                assert!(near.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{near:?} {want:?}");
                assert!(map.has_attack(*found) && map.has_attack(found - 700.0));
                assert!(!map.has_attack(found - 800.0) && !map.has_attack(found + 200.0));
            }
            assert!((map.source_at(start.out + 30_000.0 / pace) - 32_000.0).abs() < 1e-6);
        }
    }

    #[test]
    fn steady_sound_has_no_attacks() {
        let tone = vec![(0..30_000).map(|i| (f64::from(i) * 0.2).sin() as f32).collect()];
        for input in [tone, struck(30_000, &[]), vec![vec![0.0; 30_000]], vec![Vec::new()], Vec::new()] {
            let mut map = TimeMap::new(RATE, SIZE);
            map.plan(&input, 1.0, Place { out: 0.0, source: 0.0 }, 30_000.0 / 0.7, 0.7);
            assert!(map.attacks.is_empty() && (map.source_at(1_000.0) - 700.0).abs() < 1e-9);
        }
    }

    proptest! {
        #[test]
        fn the_pace_stays_within_its_bounds(
            hits in prop::collection::vec(1_000usize..39_000, 0..40),
            pace in 0.1f64..8.0,
        ) {
            let mut hits = hits;
            hits.sort_unstable();
            let mut map = TimeMap::new(RATE, SIZE);
            let start = Place { out: 0.0, source: -500.0 };
            let span = 41_000.0 / pace;
            map.plan(&struck(40_000, &hits), 1.0, start, span, pace);
            let (low, high) = (pace.min(1.0).min(pace * LEAST_PACE), pace.max(1.0).max(pace / LEAST_PACE));
            let steps = 500;
            let places: Vec<f64> =
                (0..=steps).map(|i| map.source_at(span * f64::from(i) / f64::from(steps))).collect();
            let step = span / f64::from(steps);
            for pair in places.windows(2) {
                let slope = (pair[1] - pair[0]) / step;
                prop_assert!(slope > low - 1e-6 && slope < high + 1e-6, "{} {}", slope, pace);
            }
            prop_assert!((places[0] + 500.0).abs() < 1e-6 && (places[500] - 40_500.0).abs() < 1e-6);
        }
    }
}
