//! Keys and tempi: names, indices, and the scores of music information retrieval for them.
//!
//! Pure functions on plain values. Key scores follow the MIREX audio key detection task, whose
//! "perfect fifth" credit is read in two ways in practice, see [`FifthRule`]. Tempo scores follow
//! Gouyon et al. 2006 (Accuracy 1 and 2), with a tolerance relative to the accepted value.

use std::fmt;
use std::str::FromStr;

/// Names of the twelve pitch classes, spelled with sharps; C is 0.
pub const PITCH_CLASSES: [&str; 12] = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

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
        let letter = match chars.next()?.to_ascii_uppercase() {
            'C' => 0,
            'D' => 2,
            'E' => 4,
            'F' => 5,
            'G' => 7,
            'A' => 9,
            'B' => 11,
            _ => return None,
        };
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

fn near(estimate: f64, target: f64, tolerance: f64) -> bool {
    let valid = estimate.is_finite() && target.is_finite() && estimate > 0.0 && target > 0.0;
    valid && (estimate - target).abs() <= tolerance * target
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
}
