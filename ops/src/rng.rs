//! Counter-based random numbers: the only source of randomness in the project.
//!
//! A [`Key`] names a place in the tree of everything random in a run (seed, operator, clip, segment,
//! epoch, view); [`Key::rng`] opens the stream of numbers that belongs to that place. A stream is a
//! function of its key alone, so order, threads, shards and machines cannot matter.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). The last counter word tells the uses apart, so that no derived key can coincide
//! with the output of a stream. Derivation is integer arithmetic only and frozen: stored draws are
//! rendered again from stored keys. Only [`Rng::normal`] goes through the platform's `ln` and `cos`,
//! which may differ in the last bit between platforms.

use std::collections::BTreeSet;

/// Multipliers and key increments of Philox4x32 (table 2 and section 4.3 of the paper).
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a block of the cipher is used for: the last counter word.
const USE_STREAM: u32 = 0;
const USE_ROOT: u32 = 1;
const USE_NUMBER: u32 = 2;
const USE_TEXT: u32 = 3;

/// Philox4x32 with ten rounds: 128 random bits per (counter, key).
#[inline]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

/// The low and the high word of `n`.
#[inline]
fn words(n: u64) -> [u32; 2] {
    [n as u32, (n >> 32) as u32]
}

/// A place in the tree of random streams: 64 bits that depend on everything from the seed down.
///
/// ```
/// use loev_ops::rng::Key;
/// let view = Key::root(17).with_str("clip-a").with(2);
/// assert_eq!(view.rng().next_u64(), view.rng().next_u64());
/// assert_ne!(view, Key::root(17).with_str("clip-a").with(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of a run.
    pub fn root(seed: u64) -> Self {
        Self::derive([0, 0], words(seed), USE_ROOT)
    }

    /// The child numbered `n`.
    pub fn with(self, n: u64) -> Self {
        Self::derive(words(self.0), words(n), USE_NUMBER)
    }

    /// The child named `name`. Names and numbers never give the same child by construction.
    pub fn with_str(self, name: &str) -> Self {
        let digest = blake3::hash(name.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        Self::derive(words(self.0), words(u64::from_le_bytes([a, b, c, d, e, f, g, h])), USE_TEXT)
    }

    /// The 64 bits, for storing in a table.
    pub fn value(self) -> u64 {
        self.0
    }

    /// A key from stored bits; the inverse of [`Key::value`].
    pub fn from_value(value: u64) -> Self {
        Self(value)
    }

    /// The stream of random numbers of this key, from its beginning.
    pub fn rng(self) -> Rng {
        Rng { key: words(self.0), next_block: 0, block: [0; 4], used: 4, spare: None }
    }

    fn derive(key: [u32; 2], n: [u32; 2], purpose: u32) -> Self {
        let out = philox([n[0], n[1], 0, purpose], key);
        Self(u64::from(out[0]) | u64::from(out[1]) << 32)
    }
}

/// A stream of random numbers. Its state is a counter, so opening one costs nothing.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    next_block: u64,
    block: [u32; 4],
    used: usize,
    spare: Option<f64>,
}

impl Rng {
    /// 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.used >= 4 {
            self.block = self.next_four();
            self.used = 0;
        }
        let word = self.block[self.used];
        self.used += 1;
        word
    }

    /// 64 random bits, low word first.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let low = self.next_u32();
        u64::from(low) | u64::from(self.next_u32()) << 32
    }

    /// The next whole block of 128 bits, leaving unread words of the current block for later calls.
    #[inline]
    pub fn next_four(&mut self) -> [u32; 4] {
        let [low, high] = words(self.next_block);
        self.next_block = self.next_block.wrapping_add(1);
        philox([low, high, 0, USE_STREAM], self.key)
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform between `low` (included) and `high`; `low` when the two are equal.
    #[inline]
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.f64()
    }

    /// Uniform in `0..n` without bias; 0 when `n` is 0.
    ///
    /// Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1), 2019.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let reject_below = n.wrapping_neg() % n;
            while (product as u64) < reject_below {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Normal with mean 0 and variance 1 (Box and Muller 1958; both values of a pair are used).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // 1 - f64() lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.f64()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// `count` different numbers of `0..n` in ascending order, every such set as likely as another; all of them when there
    /// are no more.
    ///
    /// Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", CACM 30(9), 1987).
    pub fn subset(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut chosen = BTreeSet::new();
        for last in n - count.min(n)..n {
            let drawn = self.below(last + 1);
            if !chosen.insert(drawn) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }

    /// One of `items`, uniformly.
    ///
    /// # Panics
    /// When `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn philox_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox(counter, key), want);
        }
    }

    /// Golden values: a change here makes every stored draw irreproducible.
    #[test]
    fn derivation_is_frozen() {
        let key = Key::root(17);
        let golden =
            [key, key.with(3), key.with_str("pitch_shift"), key.with(3).with_str("")].map(Key::value);
        assert_eq!(
            golden,
            [0xcb4c_8a12_3bd4_6491, 0x3c50_eaf6_3fec_3258, 0x07bc_2cd3_b7fa_e2c4, 0xa11b_e50e_44aa_65e8]
        );
        let mut rng = key.rng();
        assert_eq!(
            [rng.next_u64(), rng.next_u64(), rng.next_u64()],
            [0x0a74_6339_0021_0446, 0xab17_83f7_a190_3efa, 0xd5b2_712a_6b3c_b5d4]
        );
    }

    #[test]
    fn keys_differ_by_path_kind_and_order() {
        let key = Key::root(1);
        let all = [
            key,
            Key::root(2),
            key.with(0),
            key.with(1),
            key.with(0).with(1),
            key.with(1).with(0),
            key.with_str("0"),
            key.with_str(""),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(Key::from_value(key.value()), key);
    }

    #[test]
    fn uniform_has_the_right_moments() {
        let mut rng = Key::root(5).rng();
        let draws: Vec<f64> = (0..100_000).map(|_| rng.uniform(-1.0, 3.0)).collect();
        assert!(draws.iter().all(|x| (-1.0..3.0).contains(x)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // Standard errors: 0.0037 of the mean, 0.0038 of the variance (16 / 12).
        assert!((mean - 1.0).abs() < 0.018, "{mean}");
        assert!((variance - 16.0 / 12.0).abs() < 0.019, "{variance}");
        assert_eq!(rng.uniform(2.0, 2.0), 2.0);
    }

    #[test]
    fn normal_has_the_right_moments() {
        let mut rng = Key::root(6).rng();
        let draws: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let moment = |k: i32| draws.iter().map(|x| x.powi(k)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.016, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.022, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.16, "{}", moment(4));
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Key::root(7).rng();
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // Chi-squared with 6 degrees of freedom: 22.5 is the 0.1% point.
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.5, "{counts:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }

    #[test]
    fn subsets_are_even() {
        let mut rng = Key::root(9).rng();
        let mut counts = [0usize; 10];
        for _ in 0..20_000 {
            let chosen = rng.subset(5, 2);
            assert!(chosen.len() == 2 && chosen[0] < chosen[1]);
            counts[chosen[0] * (7 - chosen[0]) / 2 + chosen[1] - 1] += 1;
        }
        // Chi-squared with 9 degrees of freedom: 27.9 is the 0.1% point.
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 2_000.0).powi(2) / 2_000.0).sum();
        assert!(chi < 27.9, "{counts:?}");
        assert_eq!(rng.subset(3, 9), [0, 1, 2]);
    }

    #[test]
    fn shuffle_permutes_and_pick_reaches_everything() {
        let mut rng = Key::root(8).rng();
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        let mut seen = [false; 50];
        for _ in 0..2_000 {
            seen[*rng.pick(&items) as usize] = true;
        }
        assert!(seen.iter().all(|&s| s));
    }
}
