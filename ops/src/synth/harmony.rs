//! Chords, progressions, scales and voicings, all relative to a tonic.
//!
//! Progressions establish the key by function (subdominant, dominant with leading tone, tonic) rather than by
//! sitting on the tonic: loops start anywhere, so neither the first chord nor the most frequent one is the key.

use crate::mir::{Mode, PITCH_CLASSES};
use crate::rng::Rng;

/// A chord relative to the tonic: root, third, fifth, seventh, as pitch classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chord {
    pub(super) tones: [u8; 4],
    /// Whether the seventh sounds.
    pub(super) seventh: bool,
}

impl Chord {
    /// The pitch classes that sound, root first.
    pub(super) fn sounding(&self) -> &[u8] {
        if self.seventh { &self.tones } else { &self.tones[..3] }
    }

    /// The name in Harte's syntax in a key of that tonic: `A:min7`.
    pub(super) fn name(&self, tonic: u8) -> String {
        let [third, fifth, seventh] = [1, 2, 3].map(|i| (self.tones[i] + 12 - self.tones[0]) % 12);
        let quality = match (third, fifth, seventh, self.seventh) {
            (4, _, 11, true) => "maj7",
            (4, _, _, true) => "7",
            (4, _, _, false) => "maj",
            (_, 6, 9, true) => "dim7",
            (_, 6, _, true) => "hdim7",
            (_, 6, _, false) => "dim",
            (_, _, 11, true) => "minmaj7",
            (_, _, _, true) => "min7",
            (_, _, _, false) => "min",
        };
        format!("{}:{quality}", PITCH_CLASSES[usize::from((self.tones[0] + tonic) % 12)])
    }
}

type Degree = [u8; 4];

const I: Degree = [0, 4, 7, 11];
const II: Degree = [2, 5, 9, 0];
const III: Degree = [4, 7, 11, 2];
const IV: Degree = [5, 9, 0, 4];
const V: Degree = [7, 11, 2, 5];
const VI: Degree = [9, 0, 4, 7];
const VII: Degree = [11, 2, 5, 9];
/// The dominant of the dominant.
const V_OF_V: Degree = [2, 6, 9, 0];
/// The minor subdominant, borrowed in major.
const IV_MINOR: Degree = [5, 8, 0, 3];

const MI: Degree = [0, 3, 7, 10];
const MII: Degree = [2, 5, 8, 0];
const MIII: Degree = [3, 7, 10, 2];
const MVI: Degree = [8, 0, 3, 7];
const MVII: Degree = [10, 2, 5, 8];
const MVII_DIM: Degree = [11, 2, 5, 8];
/// The Neapolitan chord.
const NEAPOLITAN: Degree = [1, 5, 8, 0];

const MAJOR: &[[Degree; 4]] = &[
    [I, IV, V, I],
    [I, VI, IV, V],
    [I, VI, II, V],
    [I, V, I, IV],
    [I, IV, I, V],
    [II, V, I, I],
    [II, V, I, VI],
    [VI, II, V, I],
    [I, III, IV, V],
    [I, IV, II, V],
    [V, IV, I, V],
    [I, V, VI, IV],
    [VI, IV, V, I],
    [I, V_OF_V, V, I],
    [IV, IV_MINOR, I, V],
    [I, VII, I, V],
    [V, I, IV, I],
    [IV, V, I, I],
];

const MINOR: &[[Degree; 4]] = &[
    [MI, IV_MINOR, V, MI],
    [MI, MVI, IV_MINOR, V],
    [MI, MVII, MVI, V],
    [MII, V, MI, MI],
    [MII, V, MI, MVI],
    [MI, V, MI, IV_MINOR],
    [MI, IV_MINOR, MI, V],
    [MVI, V, MI, MI],
    [IV_MINOR, V, MI, MI],
    [MI, MIII, IV_MINOR, V],
    [IV_MINOR, MI, V, MI],
    [MI, MVII_DIM, MI, V],
    [MVI, IV_MINOR, V, MI],
    [MI, NEAPOLITAN, V, MI],
    [V, MI, MVI, MI],
    [MI, V, MVI, IV_MINOR],
];

/// Two four-chord loops, each started at a random place: the chords of a clip, to be repeated.
pub(super) fn progression(mode: Mode, sevenths: f64, rng: &mut Rng) -> Vec<Chord> {
    let loops = match mode {
        Mode::Major => MAJOR,
        Mode::Minor => MINOR,
    };
    let first = *rng.pick(loops);
    let second = if rng.f64() < 0.4 { first } else { *rng.pick(loops) };
    let turn = rng.below(4);
    let mut chords = Vec::with_capacity(8);
    for degrees in [first, second] {
        for i in 0..4 {
            let tones = degrees[(i + turn) % 4];
            let dominant = tones[0] == 7 || tones[0] == 2;
            let likely = if dominant { (sevenths + 0.3).min(0.95) } else { sevenths };
            chords.push(Chord { tones, seventh: rng.f64() < likely });
        }
    }
    chords
}

/// The scale to play over a chord, as a bit mask of pitch classes relative to the tonic: the key's scale with the
/// chord's altered tones put in place of their neighbours (the leading tone over a minor key's dominant).
pub(super) fn scale_over(mode: Mode, chord: &Chord) -> u16 {
    let base: [u8; 7] = match mode {
        Mode::Major => [0, 2, 4, 5, 7, 9, 11],
        Mode::Minor => [0, 2, 3, 5, 7, 8, 10],
    };
    let mut mask = base.iter().fold(0u16, |mask, pc| mask | 1 << pc);
    for &tone in chord.sounding() {
        if mask & (1 << tone) == 0 {
            mask |= 1 << tone;
            // Tonic and dominant are never replaced: they hold the key.
            let neighbour = [(tone + 11) % 12, (tone + 1) % 12]
                .into_iter()
                .find(|pc| mask & (1 << pc) != 0 && *pc != 0 && *pc != 7 && !chord.sounding().contains(pc));
            if let Some(pc) = neighbour {
                mask &= !(1 << pc);
            }
        }
    }
    mask
}

/// Puts a pitch class into the octave that starts at `low`: low..low+12.
///
/// With `low` uniform over any twelve neighbours, the mean of the result is the same for all pitch classes, so
/// register tells nothing about the key.
pub(super) fn place(pitch_class: u8, low: u8) -> u8 {
    low + (pitch_class + 120 - low % 12) % 12
}

/// How a chordal part spreads its voices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voicing {
    /// Lowest pitch of the octave that the close position lies in.
    pub(super) low: u8,
    /// Drops the second voice from the top by an octave.
    pub(super) open: bool,
    /// Doubles one voice an octave above.
    pub(super) doubled: bool,
    /// Leaves the chord's fifth out where a seventh sounds.
    pub(super) lean: bool,
}

impl Voicing {
    /// MIDI pitches of `chord` in a key of that tonic, ascending.
    pub(super) fn pitches(&self, chord: &Chord, tonic: u8) -> Vec<u8> {
        let mut pitches: Vec<u8> = chord
            .sounding()
            .iter()
            .enumerate()
            .filter(|(i, _)| !(self.lean && chord.seventh && *i == 2))
            .map(|(_, tone)| place((tone + tonic) % 12, self.low))
            .collect();
        pitches.sort_unstable();
        if self.open && pitches.len() >= 3 {
            let second = pitches.len() - 2;
            pitches[second] -= 12;
        }
        if self.doubled {
            pitches.push(pitches[0] + 12);
        }
        pitches.sort_unstable();
        pitches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn every_loop_has_a_tonic_and_a_dominant() {
        for loops in [MAJOR, MINOR] {
            for degrees in loops {
                assert!(degrees.iter().any(|d| d[0] == 0), "{degrees:?}");
                assert!(degrees.iter().any(|d| d.contains(&11) && d[0] != 0), "{degrees:?}");
            }
        }
    }

    #[test]
    fn scales_follow_altered_chords() {
        let chord = |tones, seventh| Chord { tones, seventh };
        let mask = |pcs: &[u8]| pcs.iter().fold(0u16, |m, pc| m | 1 << pc);
        assert_eq!(scale_over(Mode::Major, &chord(IV, true)), mask(&[0, 2, 4, 5, 7, 9, 11]));
        assert_eq!(scale_over(Mode::Minor, &chord(V, false)), mask(&[0, 2, 3, 5, 7, 8, 11]));
        assert_eq!(scale_over(Mode::Major, &chord(V_OF_V, false)), mask(&[0, 2, 4, 6, 7, 9, 11]));
        assert_eq!(scale_over(Mode::Major, &chord(IV_MINOR, false)), mask(&[0, 2, 4, 5, 7, 8, 11]));
    }

    #[test]
    fn register_is_independent_of_pitch_class() {
        for pc in 0..12 {
            let sum: u32 = (28..40).map(|low| u32::from(place(pc, low))).sum();
            assert_eq!(sum, (28..40).map(|low: u32| low + 5).sum::<u32>() + 6, "{pc}");
            assert!(
                (28..40).all(|low| place(pc, low) % 12 == pc && (low..low + 12).contains(&place(pc, low)))
            );
        }
    }

    #[test]
    fn voicings_hold_the_chord() {
        let mut rng = Key::root(3).rng();
        for mode in [Mode::Major, Mode::Minor] {
            for chord in progression(mode, 0.5, &mut rng) {
                let voicing = Voicing { low: 55, open: true, doubled: true, lean: false };
                let pitches = voicing.pitches(&chord, 9);
                assert!(pitches.is_sorted());
                for tone in chord.sounding() {
                    assert!(pitches.iter().any(|p| p % 12 == (tone + 9) % 12));
                }
            }
        }
    }
}
