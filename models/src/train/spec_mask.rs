//! Masks over time and frequency of a view's log-mel features (SpecAugment, Park et al., arXiv
//! 1904.08779).

use crate::gpu::mask::Ranges;
use garde::Validate;
use loev_ops::rng::Key;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Masks over time and frequency of each view in training (SpecAugment, arXiv 1904.08779). What is masked
/// becomes the mean of its band, which the network sees as 0.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Copy, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SpecMask {
    /// Widest mask over time, as a share of the view's frames; widths are drawn evenly from 0 up to it.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub time: f64,
    /// Masks over time.
    #[garde(range(max = 64))]
    #[schemars(range(max = 64))]
    pub time_masks: usize,
    /// Widest mask over frequency, as a share of the mel bands; widths are drawn evenly from 0 up to it.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub frequency: f64,
    /// Masks over frequency.
    #[garde(range(max = 64))]
    #[schemars(range(max = 64))]
    pub frequency_masks: usize,
}

impl Default for SpecMask {
    fn default() -> Self {
        Self { time: 0.0, time_masks: 2, frequency: 0.0, frequency_masks: 2 }
    }
}

impl SpecMask {
    /// Masks `features: [views, frames, mean.len()]`. Every view's masks have a key of their own, so that
    /// they depend neither on the other views nor on threads.
    pub(super) fn apply(&self, features: &mut [f32], frames: usize, mean: &[f32], key: Key) {
        let mels = mean.len();
        let Some(draw) = self.draw([frames, mels], key) else { return };
        features.par_chunks_exact_mut((frames * mels).max(1)).enumerate().for_each(|(view, features)| {
            for (masked, over_time) in draw(view) {
                if over_time {
                    for frame in features[masked.start * mels..masked.end * mels].chunks_exact_mut(mels) {
                        frame.copy_from_slice(mean);
                    }
                } else {
                    for frame in features.chunks_exact_mut(mels) {
                        frame[masked.clone()].copy_from_slice(&mean[masked.clone()]);
                    }
                }
            }
        });
    }

    /// What [`Self::apply`] masks of `views` views of `frames` and `mels`; none where that is nothing.
    pub(super) fn ranges(&self, views: usize, [frames, mels]: [usize; 2], key: Key) -> Option<Ranges> {
        let draw = self.draw([frames, mels], key)?;
        let words = (0..views).into_par_iter().flat_map_iter(|view| {
            draw(view).flat_map(|(masked, _)| [masked.start as u32, masked.end as u32]).collect::<Vec<_>>()
        });
        Some(Ranges { times: self.time_masks, bands: self.frequency_masks, words: words.collect() })
    }

    /// The masks of a view: those over time, of which it says so, and then those over frequency.
    fn draw(self, [frames, mels]: [usize; 2], key: Key) -> Option<impl Fn(usize) -> Masks + Sync> {
        let widest = |share: f64, n: usize| (share * n as f64).round() as usize;
        let (time, frequency) = (widest(self.time, frames), widest(self.frequency, mels));
        if (time == 0 || self.time_masks == 0) && (frequency == 0 || self.frequency_masks == 0) {
            return None;
        }
        Some(move |view: usize| {
            let mut rng = key.with(view as u64).rng();
            let all = (0..self.time_masks + self.frequency_masks).map(move |i| {
                let over_time = i < self.time_masks;
                let (widest, n) = if over_time { (time, frames) } else { (frequency, mels) };
                let width = rng.below(widest + 1);
                let from = rng.below(n - width + 1);
                (from..from + width, over_time)
            });
            Box::new(all) as Masks
        })
    }
}

/// Ranges of frames or of bands, and whether it is of frames.
type Masks = Box<dyn Iterator<Item = (Range<usize>, bool)>>;

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 40;
    const MELS: usize = 20;

    fn masked(mask: SpecMask, views: usize, key: Key) -> Vec<f32> {
        let mean: Vec<f32> = (0..MELS).map(|band| -50.0 - band as f32).collect();
        let mut features = vec![7.0; views * FRAMES * MELS];
        mask.apply(&mut features, FRAMES, &mean, key);
        for frame in features.chunks_exact(MELS) {
            assert!(frame.iter().zip(&mean).all(|(x, mean)| *x == 7.0 || x == mean));
        }
        features
    }

    /// Frames and bands of a view that are masked from end to end.
    fn whole(view: &[f32]) -> (Vec<bool>, Vec<bool>) {
        let frames = view.chunks_exact(MELS).map(|frame| frame.iter().all(|x| *x != 7.0)).collect();
        let bands = (0..MELS).map(|band| view.iter().skip(band).step_by(MELS).all(|x| *x != 7.0));
        (frames, bands.collect())
    }

    #[test]
    fn widths_are_drawn_evenly_up_to_the_widest() {
        let key = Key::root(3);
        let only_time = SpecMask { time: 0.25, time_masks: 1, ..SpecMask::default() };
        let only_bands = SpecMask { frequency: 0.25, frequency_masks: 1, ..SpecMask::default() };
        for (mask, widest) in [(only_time, 10), (only_bands, 5)] {
            let (mut widths, mut places) = (vec![0usize; widest + 1], vec![0usize; FRAMES]);
            for view in masked(mask, 4400, key).chunks_exact(FRAMES * MELS) {
                let (frames, bands) = whole(view);
                let own = if mask.time > 0.0 { &frames } else { &bands };
                let width = own.iter().filter(|x| **x).count();
                let total = view.iter().filter(|x| **x != 7.0).count();
                assert_eq!(total, width * if mask.time > 0.0 { MELS } else { FRAMES }, "nothing else");
                let runs = own.windows(2).filter(|w| w[0] != w[1]).count();
                assert!(runs <= 2, "in one piece");
                widths[width] += 1;
                own.iter().zip(&mut places).for_each(|(&on, n)| *n += usize::from(on));
            }
            let expected = 4400 / (widest + 1);
            assert!(widths.iter().all(|&n| n.abs_diff(expected) < expected / 4), "{widths:?}");
            let n = if mask.time > 0.0 { FRAMES } else { MELS };
            assert!(places[..n].iter().all(|&n| n > 0), "any place: {places:?}");
        }
    }

    #[test]
    fn views_and_steps_have_masks_of_their_own_on_any_number_of_threads() {
        let mask = SpecMask { time: 0.3, frequency: 0.3, ..SpecMask::default() };
        let key = Key::root(3);
        let eight = masked(mask, 8, key);
        let size = FRAMES * MELS;
        assert_eq!(masked(mask, 3, key), eight[..3 * size], "other views do not matter");
        let views: Vec<&[f32]> = eight.chunks_exact(size).collect();
        for i in 0..8 {
            assert!((0..i).all(|j| views[i] != views[j]), "view {i}");
        }
        assert_ne!(masked(mask, 8, Key::root(3).with(1)), eight);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| masked(mask, 8, key)), eight);
        assert!(masked(SpecMask::default(), 2, key).iter().all(|x| *x == 7.0), "off by default");
        let all = SpecMask { time: 1.0, frequency: 1.0, ..SpecMask::default() };
        masked(all, 50, key);
    }
}
