//! Chord labels: transposed, and read into Harte's syntax.

use super::PITCH_CLASSES;
use super::key::pitch_class;

/// Reads a note at the start of `text`: a capital letter and any number of accidentals. Gives its pitch class and
/// what follows.
fn note(text: &str) -> Option<(u8, &str)> {
    let mut chars = text.chars();
    let letter = i32::from(pitch_class(chars.next()?)?);
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
