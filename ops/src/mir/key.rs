//! Keys: their names, their places on the circle of fifths, and how far an estimate is off.

use std::fmt;
use std::str::FromStr;

/// Names of the twelve pitch classes, spelled with sharps; C is 0.
pub const PITCH_CLASSES: [&str; 12] = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

/// The pitch class of a note's letter, a capital; C is 0.
pub(super) fn pitch_class(letter: char) -> Option<u8> {
    Some(match letter {
        'C' => 0,
        'D' => 2,
        'E' => 4,
        'F' => 5,
        'G' => 7,
        'A' => 9,
        'B' => 11,
        _ => return None,
    })
}

/// Number of major and minor keys: the classes of key estimation.
pub const KEYS: usize = 24;

/// Major or minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Major (ionian).
    Major,
    /// Minor (aeolian, with the usual raised seventh).
    Minor,
}

impl Mode {
    /// `major` or `minor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Major => "major",
            Self::Minor => "minor",
        }
    }
}

/// A musical key: one of twelve tonics, major or minor. Enharmonic spellings are one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MusicalKey {
    tonic: u8,
    mode: Mode,
}

/// Text that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key; write for example `C major`, `F# minor`, `Bbm`")]
pub struct KeyNameError(pub String);

impl MusicalKey {
    /// A key from its tonic, taken modulo 12 (C is 0), and mode.
    pub fn new(tonic: u8, mode: Mode) -> Self {
        Self { tonic: tonic % 12, mode }
    }

    /// The tonic, 0..12, C is 0.
    pub fn tonic(self) -> u8 {
        self.tonic
    }

    /// The mode.
    pub fn mode(self) -> Mode {
        self.mode
    }

    /// Reads a key name: a letter, an optional accidental (`#`, `b`, `♯`, `♭`), an optional separator (space,
    /// `:`, `_`, `-`) and a mode: `major`, `maj`, `M` or nothing; `minor`, `min`, `m`. Letters of the tonic and
    /// mode words in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut chars = text.trim().chars();
        let letter = pitch_class(chars.next()?.to_ascii_uppercase())?;
        let rest = chars.as_str();
        let (accidental, rest) = if let Some(rest) = rest.strip_prefix(['#', '♯']) {
            (1, rest)
        } else if let Some(rest) = rest.strip_prefix(['b', '♭']) {
            (11, rest)
        } else {
            (0, rest)
        };
        let word = rest.trim_start_matches([' ', ':', '_', '-']);
        let mode = match word {
            "" | "M" => Mode::Major,
            "m" => Mode::Minor,
            _ => match word.to_ascii_lowercase().as_str() {
                "major" | "maj" => Mode::Major,
                "minor" | "min" => Mode::Minor,
                _ => return None,
            },
        };
        Some(Self::new((letter + accidental) % 12, mode))
    }

    /// The name, spelled with sharps: `C major`, `F# minor`.
    pub fn name(self) -> String {
        format!("{} {}", PITCH_CLASSES[usize::from(self.tonic % 12)], self.mode.name())
    }

    /// The class index, 0..24: tonics from C in major, then in minor.
    pub fn index(self) -> usize {
        usize::from(self.tonic) + if self.mode == Mode::Minor { 12 } else { 0 }
    }

    /// The key of a class index; `None` from 24 on.
    pub fn from_index(index: usize) -> Option<Self> {
        let mode = if index < 12 { Mode::Major } else { Mode::Minor };
        (index < KEYS).then_some(Self { tonic: (index % 12) as u8, mode })
    }

    /// The place on the circle of fifths: how many sharps the signature has, flats counted below zero, -5..=6.
    /// Relative keys share a signature. The key of F# has 6 sharps, as G flat has 6 flats: one key here.
    pub fn fifths(self) -> i8 {
        let major = match self.mode {
            Mode::Major => self.tonic,
            Mode::Minor => self.tonic + 3,
        };
        // A fifth is 7 semitones, and 7 * 7 is 1 modulo 12.
        let fifths = (major * 7 % 12) as i8;
        if fifths > 6 { fifths - 12 } else { fifths }
    }

    /// The code of the Camelot wheel, by which DJs mix: 1 to 12 round the circle of fifths with C major at 8, then
    /// `B` for major and `A` for minor. `8B` is C major, `8A` A minor, `9B` G major.
    pub fn camelot(self) -> String {
        let letter = match self.mode {
            Mode::Major => 'B',
            Mode::Minor => 'A',
        };
        format!("{}{letter}", (self.fifths() + 7).rem_euclid(12) + 1)
    }

    /// Steps on the circle of fifths between the signatures of two keys, 0..=6: up to five, as many notes of their
    /// scales differ. 0 for a key and its relative.
    pub fn fifths_to(self, other: Self) -> u8 {
        let steps = self.fifths().abs_diff(other.fifths());
        steps.min(12 - steps)
    }

    /// Semitones between the tonics of two keys, the shorter way round, 0..=6. The mode does not count.
    pub fn semitones_to(self, other: Self) -> u8 {
        let steps = self.tonic.abs_diff(other.tonic);
        steps.min(12 - steps)
    }

    /// The key heard after transposition by `semitones`, rounded to whole ones (halves away from zero). A
    /// shift that is not finite leaves the key as it is.
    pub fn transpose(self, semitones: f64) -> Self {
        let shift = if semitones.is_finite() { semitones.round() } else { 0.0 };
        Self { tonic: (f64::from(self.tonic) + shift).rem_euclid(12.0) as u8 % 12, mode: self.mode }
    }
}

impl fmt::Display for MusicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl FromStr for MusicalKey {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| KeyNameError(text.to_owned()))
    }
}

/// What counts as an estimate "a perfect fifth" away from the reference in [`mirex_weighted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FifthRule {
    /// Only an estimate a fifth above the reference, as in mir_eval.
    OneSided,
    /// An estimate a fifth above or below the reference.
    Symmetric,
}

/// The MIREX weighted key score of an estimate, 0..=1: 1 for the same key, 0.5 for a fifth in the same mode,
/// 0.3 for the relative key, 0.2 for the parallel key, else 0.
pub fn mirex_weighted(estimate: MusicalKey, reference: MusicalKey, fifth: FifthRule) -> f64 {
    let interval = (12 + estimate.tonic - reference.tonic) % 12;
    let is_fifth = interval == 7 || (interval == 5 && fifth == FifthRule::Symmetric);
    match (reference.mode, estimate.mode) {
        (a, b) if a == b && interval == 0 => 1.0,
        (a, b) if a == b && is_fifth => 0.5,
        (Mode::Major, Mode::Minor) if interval == 9 => 0.3,
        (Mode::Minor, Mode::Major) if interval == 3 => 0.3,
        (a, b) if a != b && interval == 0 => 0.2,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> MusicalKey {
        name.parse().unwrap()
    }

    #[test]
    fn reads_the_usual_spellings() {
        for (text, name) in [
            ("C major", "C major"),
            ("Am", "A minor"),
            ("F# minor", "F# minor"),
            ("Dbmin", "C# minor"),
            ("Bb", "A# major"),
            ("b:min", "B minor"),
            ("bb_maj", "A# major"),
            ("E♭M", "D# major"),
            ("Cb", "B major"),
            (" g-Minor ", "G minor"),
        ] {
            assert_eq!(MusicalKey::parse(text).map(MusicalKey::name).as_deref(), Some(name), "{text}");
        }
        for text in ["", "H", "C dorian", "F## minor", "major", "Cmm", "♯"] {
            assert_eq!(MusicalKey::parse(text), None, "{text}");
        }
        assert!("X".parse::<MusicalKey>().unwrap_err().to_string().contains("`X`"));
    }

    #[test]
    fn index_and_name_round_trip() {
        for index in 0..KEYS {
            let key = MusicalKey::from_index(index).unwrap();
            assert_eq!(key.index(), index);
            assert_eq!(MusicalKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(MusicalKey::from_index(KEYS), None);
    }

    #[test]
    fn transposes_round_the_octave() {
        assert_eq!(key("A minor").transpose(4.0), key("C# minor"));
        assert_eq!(key("C major").transpose(-1.4), key("B major"));
        assert_eq!(key("C major").transpose(-0.5), key("B major"));
        assert_eq!(key("D major").transpose(-26.2), key("C major"));
        assert_eq!(key("D major").transpose(f64::NAN), key("D major"));
    }

    #[test]
    fn the_circle_of_fifths_is_that_of_the_textbook() {
        for (name, fifths, camelot) in [
            ("C major", 0, "8B"),
            ("A minor", 0, "8A"),
            ("G major", 1, "9B"),
            ("E minor", 1, "9A"),
            ("E major", 4, "12B"),
            ("B major", 5, "1B"),
            ("F# major", 6, "2B"),
            ("Ebm", 6, "2A"),
            ("Db major", -5, "3B"),
            ("F minor", -4, "4A"),
            ("Eb major", -3, "5B"),
            ("D minor", -1, "7A"),
        ] {
            assert_eq!((key(name).fifths(), key(name).camelot().as_str()), (fifths, camelot), "{name}");
        }
        // A signature apart is a note of the scale apart.
        let scale = |key: MusicalKey| -> std::collections::BTreeSet<u8> {
            let root = if key.mode == Mode::Major { key.tonic } else { key.tonic + 3 };
            [0, 2, 4, 5, 7, 9, 11].map(|degree| (root + degree) % 12).into()
        };
        for a in (0..KEYS).filter_map(MusicalKey::from_index) {
            for b in (0..KEYS).filter_map(MusicalKey::from_index) {
                // Six steps away, one note of the far side comes back: F is E#.
                let apart = 7 - scale(a).intersection(&scale(b)).count();
                assert_eq!(usize::from(a.fifths_to(b)).min(5), apart, "{a} {b}");
                assert_eq!(a.semitones_to(b), b.semitones_to(a));
                let shift = f64::from(a.semitones_to(b));
                assert!(a.transpose(shift).tonic == b.tonic || a.transpose(-shift).tonic == b.tonic);
            }
        }
    }

    /// Values of mir_eval 0.7 `key.weighted_score(reference, estimate)`.
    #[test]
    fn mirex_scores_match_mir_eval() {
        for (reference, estimate, score) in [
            ("C major", "C major", 1.0),
            ("C major", "G major", 0.5),
            ("C major", "F major", 0.0),
            ("A minor", "E minor", 0.5),
            ("C major", "A minor", 0.3),
            ("A minor", "C major", 0.3),
            ("C major", "C minor", 0.2),
            ("C minor", "C major", 0.2),
            ("C major", "G minor", 0.0),
            ("C major", "E minor", 0.0),
            ("C minor", "A major", 0.0),
        ] {
            assert_eq!(
                mirex_weighted(key(estimate), key(reference), FifthRule::OneSided),
                score,
                "{estimate}"
            );
        }
        assert_eq!(mirex_weighted(key("F major"), key("C major"), FifthRule::Symmetric), 0.5);
        assert_eq!(mirex_weighted(key("G major"), key("C major"), FifthRule::Symmetric), 0.5);
        assert_eq!(mirex_weighted(key("F minor"), key("C major"), FifthRule::Symmetric), 0.0);
    }
}
