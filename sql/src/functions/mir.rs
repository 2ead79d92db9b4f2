//! Music: keys and tempi, and the scores of estimates of them.
//!
//! Keys are text in any spelling that `loev_ops::mir::MusicalKey` reads (`C major`, `F# minor`,
//! `Am`, ...); they come back as `C major`. Scores are `Float64`, those that are right or wrong as
//! 1 or 0, so that `avg` gives the published figure. NULL, text that is no key, and a tempo that
//! is not a positive number give NULL: such rows have no answer, and `avg` leaves them out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use loev_ops::mir::{FifthRule, MusicalKey, mirex_weighted, tempo_acc1, tempo_acc2, tempo_oe1, tempo_oe2};

use super::Docs;
use super::scalar::{Scalar, functions};
use crate::types::type_name;

/// The usual tolerance of tempo scores, relative to the true tempo.
const TEMPO_TOLERANCE: f64 = 0.04;

/// The music functions.
pub fn all() -> Vec<ScalarUDF> {
    functions(Op::ALL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    TransposeKey,
    Camelot,
    CircleOfFifths,
    KeyDistance,
    MirexWeighted,
    TempoAcc1,
    TempoAcc2,
    TempoOe1,
    TempoOe2,
}

/// What an argument is taken as.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
}

impl Op {
    const ALL: [Self; 9] = [
        Self::TransposeKey,
        Self::Camelot,
        Self::CircleOfFifths,
        Self::KeyDistance,
        Self::MirexWeighted,
        Self::TempoAcc1,
        Self::TempoAcc2,
        Self::TempoOe1,
        Self::TempoOe2,
    ];

    /// The first one or two arguments are required; a third may follow where there is one.
    fn arguments(self) -> &'static [Kind] {
        match self {
            Self::TransposeKey => &[Kind::Text, Kind::Number],
            Self::Camelot | Self::CircleOfFifths => &[Kind::Text],
            Self::KeyDistance | Self::MirexWeighted => &[Kind::Text, Kind::Text, Kind::Text],
            Self::TempoAcc1 | Self::TempoAcc2 => &[Kind::Number, Kind::Number, Kind::Number],
            Self::TempoOe1 | Self::TempoOe2 => &[Kind::Number, Kind::Number],
        }
    }
}

impl Scalar for Op {
    fn name(self) -> &'static str {
        match self {
            Self::TransposeKey => "transpose_key",
            Self::Camelot => "camelot",
            Self::CircleOfFifths => "circle_of_fifths",
            Self::KeyDistance => "key_distance",
            Self::MirexWeighted => "mirex_weighted",
            Self::TempoAcc1 => "tempo_acc1",
            Self::TempoAcc2 => "tempo_acc2",
            Self::TempoOe1 => "tempo_oe1",
            Self::TempoOe2 => "tempo_oe2",
        }
    }

    fn docs(self) -> Docs {
        const TEMPI: &[(&str, &str)] = &[
            ("estimate", "The estimated tempo in beats per minute."),
            ("truth", "The true tempo in beats per minute."),
            ("tolerance", "Relative to the true tempo; 0.04 if left out."),
        ];
        let (description, syntax, example, arguments): (_, _, _, &'static [(&str, &str)]) = match self {
            Self::TransposeKey => (
                "The key that a piece in `key` has after a shift by `semitones`, rounded to the nearest whole number. \
                 NULL if `key` is no key.",
                "transpose_key(key, semitones)",
                "select transpose_key('A minor', 3); -- C minor",
                &[
                    ("key", "A key such as 'C major', 'F# minor' or 'Am'."),
                    ("semitones", "The shift, up if positive."),
                ],
            ),
            Self::Camelot => (
                "The code of a key on the Camelot wheel, by which DJs mix: 1 to 12 round the circle of fifths, then B \
                 for major and A for minor. NULL if `key` is no key.",
                "camelot(key)",
                "select camelot('A minor'); -- 8A",
                &[("key", "A key such as 'C major', 'F# minor' or 'Am'.")],
            ),
            Self::CircleOfFifths => (
                "The place of a key on the circle of fifths: the sharps of its signature, flats counted below zero, from \
                 -5 (D flat major) to 6 (F# major). Relative keys share a place. NULL if `key` is no key.",
                "circle_of_fifths(key)",
                "select circle_of_fifths('F minor'); -- -4",
                &[("key", "A key such as 'C major', 'F# minor' or 'Am'.")],
            ),
            Self::KeyDistance => (
                "How far apart two keys are, 0 to 6. By default in steps on the circle of fifths between their \
                 signatures, so that a key and its relative are 0 apart and C major and G major 1; or in semitones \
                 between their tonics, the shorter way round, whatever their modes. NULL if one of them is no key.",
                "key_distance(a, b[, measure])",
                "select key_distance('C major', 'E major'); -- 4",
                &[("a", "A key."), ("b", "Another."), ("measure", "'fifths' (the default) or 'semitones'.")],
            ),
            Self::MirexWeighted => (
                "MIREX weighted key score: 1 for the same key, 0.5 for a fifth, 0.3 for the relative key, 0.2 for the \
                 parallel key, else 0. NULL if one of them is no key.",
                "mirex_weighted(estimate, reference[, rule])",
                "select mirex_weighted('G major', 'C major'); -- 0.5",
                &[
                    ("estimate", "The estimated key."),
                    ("reference", "The true key."),
                    (
                        "rule",
                        "Which fifths count: 'one_sided' (the default, as in mir_eval: the estimate a fifth above \
                         the reference) or 'symmetric' (above or below).",
                    ),
                ],
            ),
            Self::TempoAcc1 => (
                "Tempo Acc1: 1 if the estimate is within the tolerance of the true tempo, else 0.",
                "tempo_acc1(estimate, truth[, tolerance])",
                "select tempo_acc1(124, 120); -- 1",
                TEMPI,
            ),
            Self::TempoAcc2 => (
                "Tempo Acc2: as tempo_acc1, but a third, half, double or three times the true tempo count as well.",
                "tempo_acc2(estimate, truth[, tolerance])",
                "select tempo_acc2(61, 120); -- 1",
                TEMPI,
            ),
            Self::TempoOe1 => (
                "Tempo octave error 1: log2(estimate / truth), so -1 for half the true tempo. Needs no tolerance; the mean \
                 of its absolute value is AOE1 (Schreiber, Urbano and Müller, TISMIR 2020).",
                "tempo_oe1(estimate, truth)",
                "select tempo_oe1(60, 120); -- -1",
                &TEMPI[..2],
            ),
            Self::TempoOe2 => (
                "Tempo octave error 2: the octave error nearest to 0 of the estimate, its double, triple, half and third: \
                 what remains when the metrical level is forgiven.",
                "tempo_oe2(estimate, truth)",
                "select tempo_oe2(60, 120); -- 0",
                &TEMPI[..2],
            ),
        };
        Docs { section: "Music Functions", description, syntax, example, arguments }
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (name, kinds) = (self.name(), self.arguments());
        if arguments.len() < kinds.len().min(2) || arguments.len() > kinds.len() {
            let wanted = match kinds.len() {
                1 => "1 argument",
                2 => "2 arguments",
                _ => "2 or 3 arguments",
            };
            return plan_err!("{name} takes {wanted}, not {}", arguments.len());
        }
        let coerced = kinds.iter().zip(arguments).enumerate().map(|(index, (kind, argument))| match kind {
            Kind::Text if is_text(argument) => Ok(DataType::Utf8),
            Kind::Number if argument.is_numeric() || argument.is_null() => Ok(DataType::Float64),
            _ => {
                let wanted = if matches!(kind, Kind::Text) { "text" } else { "a number" };
                plan_err!("argument {} of {name} must be {wanted}, not {}", index + 1, type_name(argument))
            }
        });
        coerced.collect()
    }

    fn result(self, _: &[DataType]) -> Result<DataType> {
        Ok(match self {
            Self::TransposeKey | Self::Camelot => DataType::Utf8,
            Self::CircleOfFifths | Self::KeyDistance => DataType::Int64,
            _ => DataType::Float64,
        })
    }

    fn evaluate(self, arguments: Vec<ColumnarValue>, _: usize, _: &DataType) -> Result<ArrayRef> {
        self.of_rows(&ColumnarValue::values_to_arrays(&arguments)?)
    }
}

impl Op {
    fn of_rows(self, arrays: &[ArrayRef]) -> Result<ArrayRef> {
        let Some(first) = arrays.first() else {
            return exec_err!("{} takes arguments", self.name());
        };
        // Where there is but one argument, the second is not looked at.
        let (second, third) = (arrays.get(1).unwrap_or(first), arrays.get(2));
        let rows = 0..first.len();
        Ok(match self {
            Op::TransposeKey => {
                let keys: StringArray = rows
                    .map(|row| {
                        let semitones = number(second, row).filter(|shift| shift.is_finite())?;
                        Some(key(first, row)?.transpose(semitones).name())
                    })
                    .collect();
                Arc::new(keys)
            }
            Op::Camelot => {
                Arc::new(rows.map(|row| Some(key(first, row)?.camelot())).collect::<StringArray>())
            }
            Op::CircleOfFifths => {
                Arc::new(rows.map(|row| Some(i64::from(key(first, row)?.fifths()))).collect::<Int64Array>())
            }
            Op::KeyDistance => {
                let distances = rows.map(|row| {
                    let measure: fn(MusicalKey, MusicalKey) -> u8 = match third {
                        None => MusicalKey::fifths_to,
                        Some(measures) => match text(measures, row) {
                            None => return Ok(None),
                            Some("fifths") => MusicalKey::fifths_to,
                            Some("semitones") => MusicalKey::semitones_to,
                            Some(other) => {
                                return exec_err!(
                                    "the measure of key_distance is 'fifths' or 'semitones', not '{other}'"
                                );
                            }
                        },
                    };
                    let keys = key(first, row).zip(key(second, row));
                    Ok(keys.map(|(a, b)| i64::from(measure(a, b))))
                });
                Arc::new(distances.collect::<Result<Int64Array>>()?)
            }
            Op::MirexWeighted => {
                let scores = rows.map(|row| {
                    let rule = match third {
                        None => FifthRule::OneSided,
                        Some(rules) => match text(rules, row) {
                            None => return Ok(None),
                            Some("one_sided") => FifthRule::OneSided,
                            Some("symmetric") => FifthRule::Symmetric,
                            Some(other) => {
                                return exec_err!(
                                    "the rule of mirex_weighted is 'one_sided' or 'symmetric', not '{other}'"
                                );
                            }
                        },
                    };
                    let (Some(estimate), Some(reference)) = (key(first, row), key(second, row)) else {
                        return Ok(None);
                    };
                    Ok(Some(mirex_weighted(estimate, reference, rule)))
                });
                Arc::new(scores.collect::<Result<Float64Array>>()?)
            }
            Op::TempoAcc1 | Op::TempoAcc2 => {
                let scores: Float64Array = rows
                    .map(|row| {
                        let tolerance = match third {
                            None => TEMPO_TOLERANCE,
                            Some(tolerances) => {
                                number(tolerances, row).filter(|tolerance| *tolerance >= 0.0)?
                            }
                        };
                        let (estimate, truth) = (tempo(first, row)?, tempo(second, row)?);
                        let right = match self {
                            Op::TempoAcc1 => tempo_acc1(estimate, truth, tolerance),
                            _ => tempo_acc2(estimate, truth, tolerance),
                        };
                        Some(f64::from(u8::from(right)))
                    })
                    .collect();
                Arc::new(scores)
            }
            Op::TempoOe1 | Op::TempoOe2 => {
                let error = if self == Op::TempoOe1 { tempo_oe1 } else { tempo_oe2 };
                let errors = rows.map(|row| error(number(first, row)?, number(second, row)?));
                Arc::new(errors.collect::<Float64Array>())
            }
        })
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn text(array: &ArrayRef, row: usize) -> Option<&str> {
    let strings = array.as_string_opt::<i32>()?;
    strings.is_valid(row).then(|| strings.value(row))
}

fn number(array: &ArrayRef, row: usize) -> Option<f64> {
    let numbers = array.as_primitive_opt::<Float64Type>()?;
    numbers.is_valid(row).then(|| numbers.value(row))
}

fn key(array: &ArrayRef, row: usize) -> Option<MusicalKey> {
    MusicalKey::parse(text(array, row)?)
}

fn tempo(array: &ArrayRef, row: usize) -> Option<f64> {
    number(array, row).filter(|tempo| tempo.is_finite() && *tempo > 0.0)
}

#[cfg(test)]
mod tests {
    use crate::testing::{cells, session, values};

    #[test]
    fn keys_are_transposed() {
        assert_eq!(cells("select transpose_key('A minor', 3)"), ["C minor"]);
        assert_eq!(cells("select transpose_key('C major', -1)"), ["B major"]);
        assert_eq!(cells("select transpose_key('C major', 12.4)"), ["C major"]);
        assert_eq!(
            cells(
                "select transpose_key(k, s) from (values ('G major', 2), ('E minor', -14), ('noise', 1), (null, 1), ('C major', null)) as t(k, s)"
            ),
            ["A major", "D minor", "NULL", "NULL", "NULL"]
        );
    }

    #[test]
    fn key_scores_are_those_of_mirex() {
        let score = |estimate: &str, reference: &str| {
            values(&format!("select mirex_weighted('{estimate}', '{reference}')"))[0]
        };
        assert_eq!(score("C major", "C major"), Some(1.0));
        assert_eq!(score("G major", "C major"), Some(0.5));
        assert_eq!(score("F major", "C major"), Some(0.0));
        assert_eq!(score("A minor", "C major"), Some(0.3));
        assert_eq!(score("C major", "A minor"), Some(0.3));
        assert_eq!(score("C minor", "C major"), Some(0.2));
        assert_eq!(score("D major", "C major"), Some(0.0));
        assert_eq!(score("unknown", "C major"), None);
        assert_eq!(values("select mirex_weighted('F major', 'C major', 'symmetric')"), [Some(0.5)]);
        assert_eq!(values("select mirex_weighted('F major', 'C major', 'one_sided')"), [Some(0.0)]);
        assert_eq!(
            values(
                "select avg(mirex_weighted(e, 'C major')) from (values ('C major'), ('G major'), (null)) as t(e)"
            ),
            [Some(0.75)]
        );
        let wrong = crate::testing::block_on(crate::query(
            &session(),
            "select mirex_weighted('F major', 'C major', 'both')",
        ));
        assert!(wrong.unwrap_err().to_string().contains("'one_sided' or 'symmetric', not 'both'"));
    }

    #[test]
    fn tempo_scores_have_four_percent() {
        assert_eq!(values("select tempo_acc1(124, 120)"), [Some(1.0)]);
        assert_eq!(values("select tempo_acc1(125, 120)"), [Some(0.0)]);
        assert_eq!(values("select tempo_acc1(125, 120, 0.05)"), [Some(1.0)]);
        assert_eq!(values("select tempo_acc1(60, 120)"), [Some(0.0)]);
        for estimate in [40, 60, 120, 240, 360] {
            assert_eq!(values(&format!("select tempo_acc2({estimate}, 120)")), [Some(1.0)], "{estimate}");
        }
        assert_eq!(values("select tempo_acc2(80, 120)"), [Some(0.0)]);
        assert_eq!(
            values("select tempo_acc2(\"BPM\", n * 60) from music"),
            [Some(1.0), Some(0.0), None],
            "60 against 60, 90.5 against 120, NULL"
        );
        assert_eq!(values("select tempo_acc1(0, 120)"), [None]);
        assert_eq!(values("select tempo_acc1(null, 120)"), [None]);
    }
}
