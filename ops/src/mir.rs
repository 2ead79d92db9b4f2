//! Keys, chords and tempi: names, indices, and the scores of music information retrieval for them.
//!
//! Pure functions on plain values. Key scores follow the MIREX audio key detection task, whose
//! "perfect fifth" credit is read in two ways in practice, see [`FifthRule`]. Tempo scores follow
//! Gouyon et al. 2006 (Accuracy 1 and 2), with a tolerance relative to the accepted value. Chord labels follow
//! Harte, Sandler, Abdallah and Gómez, "Symbolic representation of musical chords", ISMIR 2005, and are read in
//! the style of lead sheets (`F#m7`, `Bb/D`) too.

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

/// Reads a note at the start of `text`: a capital letter and any number of accidentals. Gives its pitch class and
/// what follows.
fn note(text: &str) -> Option<(u8, &str)> {
    let mut chars = text.chars();
    let letter: i32 = match chars.next()? {
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
    let quality = rest.trim_start_matches(['#', '♯', 'b', '♭']);
    let shift = rest[..rest.len() - quality.len()]
        .chars()
        .fold(letter, |pitch, accidental| pitch + if matches!(accidental, '#' | '♯') { 1 } else { -1 });
    Some((shift.rem_euclid(12) as u8, quality))
}

/// What a chord symbol may hold after its root; longer words first.
const CHORD_WORDS: [&str; 20] = [
    "major", "minor", "omit", "hdim", "maj", "min", "dim", "aug", "sus", "add", "dom", "alt", "no", "ma",
    "mi", "m", "M", "o", "h", "b",
];

/// Whether `text` could follow the root of a chord symbol, up to its bass.
fn is_quality(mut text: &str) -> bool {
    while let Some(first) = text.chars().next() {
        let word = CHORD_WORDS.iter().find_map(|word| text.strip_prefix(word));
        text = match word {
            Some(rest) => rest,
            None if first.is_ascii_digit() || "#♯♭+-()*,: ^°ºøØΔ".contains(first) => {
                &text[first.len_utf8()..]
            }
            None => return false,
        };
    }
    true
}

/// A chord symbol: root, quality as written, bass.
struct ChordSymbol<'a> {
    root: u8,
    quality: &'a str,
    bass: Option<Bass<'a>>,
}

/// The bass of a chord.
enum Bass<'a> {
    /// A degree above the root, as in Harte's syntax: `b3`.
    Degree(&'a str),
    /// A note, as on lead sheets.
    Note(u8),
}

impl<'a> ChordSymbol<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (root, rest) = note(text)?;
        let (quality, bass) =
            rest.split_once('/').map_or((rest, None), |(quality, bass)| (quality, Some(bass)));
        let bass = match bass {
            None => None,
            Some(text) => Some(match note(text) {
                Some((pitch, "")) => Bass::Note(pitch),
                Some(_) => return None,
                None if text.chars().all(|c| c.is_ascii_digit() || "#b♯♭*".contains(c)) => {
                    Bass::Degree(text)
                }
                None => return None,
            }),
        };
        is_quality(quality).then_some(Self { root, quality, bass })
    }
}

/// The name of the note `semitones` above a pitch class.
fn moved(pitch_class: u8, semitones: f64) -> &'static str {
    PITCH_CLASSES[(f64::from(pitch_class) + semitones).rem_euclid(12.0) as usize % 12]
}

/// A chord label after transposition by `semitones`, rounded to whole ones (halves away from zero), the root
/// spelled with sharps. Qualities stay, and so does a bass that is a degree (`A:min/b3`); one that is a note moves
/// (`Am/C`). A label that names no chord (`N`, `X`, `silence`) stays, and so does every label by no transposition.
pub fn transpose_chord(label: &str, semitones: f64) -> String {
    let shift = if semitones.is_finite() { semitones.round() % 12.0 } else { 0.0 };
    let Some(ChordSymbol { root, quality, bass }) = ChordSymbol::parse(label).filter(|_| shift != 0.0) else {
        return label.to_owned();
    };
    let root = moved(root, shift);
    match bass {
        None => format!("{root}{quality}"),
        Some(Bass::Degree(degree)) => format!("{root}{quality}/{degree}"),
        Some(Bass::Note(note)) => format!("{root}{quality}/{}", moved(note, shift)),
    }
}

/// Qualities that Harte's syntax has a shorthand for.
const SHORTHANDS: [&str; 26] = [
    "maj", "min", "dim", "aug", "1", "5", "sus2", "sus4", "maj6", "min6", "7", "maj7", "min7", "dim7",
    "hdim7", "minmaj7", "aug7", "9", "maj9", "min9", "11", "maj11", "min11", "13", "maj13", "min13",
];

/// Degrees by semitones above the root.
const DEGREES: [&str; 12] = ["1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7"];

fn is_degree(text: &str) -> bool {
    let flats = text.trim_start_matches('b');
    let number = if flats.len() < text.len() { flats } else { text.trim_start_matches('#') };
    !number.starts_with('0') && number.parse::<u8>().is_ok_and(|n| (1..=13).contains(&n))
}

/// Whether `text`, what follows the root, is `:shorthand(degrees)` with either part optional, or nothing.
fn is_harte_quality(text: &str) -> bool {
    let Some(text) = text.strip_prefix(':') else { return text.is_empty() };
    let (name, degrees) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(degrees) => (name, Some(degrees)),
            None => return false,
        },
    };
    let named = SHORTHANDS.contains(&name) || (name.is_empty() && degrees.is_some());
    named
        && degrees.is_none_or(|list| {
            list.split(',').all(|degree| is_degree(degree.strip_prefix('*').unwrap_or(degree)))
        })
}

/// A chord label in Harte's syntax, as the `chord` name space of JAMS has it: as it is where it already conforms,
/// and else read as on lead sheets: `F#m7` is `F#:min7`, `Am/C` is `A:min/b3`, `N.C.` is `N`. `None` for what is
/// neither.
pub fn harte_chord(label: &str) -> Option<String> {
    match label {
        "N" | "X" => return Some(label.to_owned()),
        "NC" | "N.C." => return Some("N".to_owned()),
        _ => {}
    }
    let ChordSymbol { root, quality, bass } = ChordSymbol::parse(label)?;
    let (_, rest) = note(label)?;
    let written = &label[..label.len() - rest.len()];
    let accidentals = || written.chars().skip(1);
    let plain = accidentals().all(|c| c == '#') || accidentals().all(|c| c == 'b');
    let spelled = if plain { written } else { PITCH_CLASSES[usize::from(root)] };
    let quality = if is_harte_quality(quality) {
        quality.to_owned()
    } else {
        let word = match quality {
            "m" | "mi" | "min" | "minor" | "-" => "min",
            "M" | "ma" | "maj" | "major" => "maj",
            "dim" | "°" | "º" | "o" => "dim",
            "aug" | "+" => "aug",
            "sus" | "sus4" => "sus4",
            "sus2" => "sus2",
            "5" => "5",
            "6" | "maj6" | "M6" => "maj6",
            "m6" | "min6" | "mi6" | "-6" => "min6",
            "7" | "dom7" => "7",
            "M7" | "maj7" | "ma7" | "Δ" | "Δ7" | "^" | "^7" => "maj7",
            "m7" | "min7" | "mi7" | "-7" => "min7",
            "dim7" | "°7" | "º7" | "o7" => "dim7",
            "m7b5" | "min7b5" | "-7b5" | "ø" | "ø7" | "h" | "h7" | "hdim" | "hdim7" => "hdim7",
            "mM7" | "mmaj7" | "minmaj7" | "m(maj7)" | "-^7" => "minmaj7",
            "+7" | "aug7" | "7#5" => "aug7",
            "9" => "9",
            "M9" | "maj9" => "maj9",
            "m9" | "min9" | "-9" => "min9",
            "11" => "11",
            "m11" | "min11" => "min11",
            "13" => "13",
            "maj13" | "M13" => "maj13",
            "m13" | "min13" => "min13",
            "7sus4" | "7sus" => "sus4(b7)",
            "add9" => "maj(9)",
            _ => return None,
        };
        format!(":{word}")
    };
    let bass = match bass {
        None => None,
        Some(Bass::Degree("")) => None,
        Some(Bass::Degree(degree)) => Some(is_degree(degree).then_some(degree)?),
        Some(Bass::Note(note)) => Some(DEGREES[usize::from((12 + note - root) % 12)]).filter(|d| *d != "1"),
    };
    Some(bass.map_or_else(|| format!("{spelled}{quality}"), |bass| format!("{spelled}{quality}/{bass}")))
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
    fn chords_transpose_by_their_root() {
        for (label, semitones, want) in [
            ("A:min7/b3", 3.0, "C:min7/b3"),
            ("C", -1.0, "B"),
            ("Bb:maj7(9)", 2.4, "C:maj7(9)"),
            ("Fb:sus4(b7,9)", 1.0, "F:sus4(b7,9)"),
            ("G##:(1,b3,5)/5", -14.0, "G:(1,b3,5)/5"),
            ("Am", -0.5, "G#m"),
            ("F#m7", 13.0, "Gm7"),
            ("Bb/D", 4.0, "D/F#"),
            ("E♭maj7", 1.0, "Emaj7"),
            ("C°7", 2.0, "D°7"),
            ("Ddim/Ab", 1.0, "D#dim/A"),
            // Not transposed, the spelling stays.
            ("Db:min", 12.0, "Db:min"),
            ("Db:min", f64::NAN, "Db:min"),
            ("N", 3.0, "N"),
            ("X", 3.0, "X"),
            ("N.C.", 3.0, "N.C."),
            ("silence", 3.0, "silence"),
            ("Ambient", 3.0, "Ambient"),
            ("Drums", 3.0, "Drums"),
            ("", 3.0, ""),
        ] {
            assert_eq!(transpose_chord(label, semitones), want, "{label} by {semitones}");
        }
    }

    #[test]
    fn lead_sheets_are_read_into_harte_syntax() {
        for (label, want) in [
            ("A:min7/b3", Some("A:min7/b3")),
            ("Cbb", Some("Cbb")),
            ("N", Some("N")),
            ("C:(3,5,b7)", Some("C:(3,5,b7)")),
            ("C:maj(*5,#11)/13", Some("C:maj(*5,#11)/13")),
            ("N.C.", Some("N")),
            ("Am", Some("A:min")),
            ("F#m7", Some("F#:min7")),
            ("Bb/D", Some("Bb/3")),
            ("Am/A", Some("A:min")),
            ("E♭Δ", Some("D#:maj7")),
            ("Bm7b5", Some("B:hdim7")),
            ("C7sus4", Some("C:sus4(b7)")),
            ("A/", Some("A")),
            ("C:maj(14)", None),
            ("C:foo", None),
            ("C:maj/b14", None),
            ("C:maj(9", None),
            ("silence", None),
            ("H", None),
        ] {
            assert_eq!(harte_chord(label).as_deref(), want, "{label}");
        }
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
