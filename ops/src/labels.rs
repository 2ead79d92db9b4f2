//! What a draw does to the labels of a clip: the labels of a view follow from those of its clip.
//!
//! The operators of a chain say what they do to labels ([`LabelEffect`]); [`LabelChange`] sums it up for one view,
//! in order of processing, and [`view_label`] applies it to a column. Times are mapped exactly, so beats, chords
//! and sections stay on the music through tempo, shift and reversal.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, ListArray, ListBuilder, StringArray,
    StringBuilder, StructArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Float64Type};
use arrow::error::ArrowError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::mir::{MusicalKey, transpose_chord};
use crate::operator::LabelEffect;
use crate::views::Draw;

/// What a column of labels means, and so what an operator does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// The key: text such as `C:major`, `F# minor`, `Bbm`. Text that is no key becomes null in views.
    Key,
    /// Chords over time: a list of `{start, end, label}`, in seconds of the clip, with labels such as `A:min7/b3`,
    /// `F#m7`, `N`.
    Chords,
    /// The tempo, a number of beats per minute.
    Bpm,
    /// Events such as beats or onsets: a list of numbers, in seconds of the clip.
    Times,
    /// Sections or other labelled spans: a list of `{start, end, label}`, in seconds of the clip.
    Segments,
    /// Loudness, a number in LUFS; null in views whose loudness is not known.
    Loudness,
    /// Tags: a list of text, or text. They stay as they are.
    Tags,
    /// A class, of any type. It stays as it is.
    Class,
    /// A number that no operator changes.
    Number,
}

impl LabelKind {
    /// The name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            LabelKind::Key => "key",
            LabelKind::Chords => "chords",
            LabelKind::Bpm => "bpm",
            LabelKind::Times => "times",
            LabelKind::Segments => "segments",
            LabelKind::Loudness => "loudness",
            LabelKind::Tags => "tags",
            LabelKind::Class => "class",
            LabelKind::Number => "number",
        }
    }
}

/// A labelled span of time, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// The start.
    pub start: f64,
    /// The end, after the start.
    pub end: f64,
    /// The chord, the section.
    pub label: String,
}

/// What is known of the loudness of a view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loudness {
    /// That of the clip and so many decibels.
    Add(f64),
    /// So many LUFS, whatever the clip's.
    Set(f64),
    /// Nothing.
    Unknown,
}

/// The change that a view makes to its clip's labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelChange {
    /// How far keys and chords are transposed upwards, in semitones.
    pub semitones: f64,
    /// By what the tempo is multiplied.
    pub rate: f64,
    /// The middle of the view in the clip, in seconds, before any shift.
    pub centre_s: f64,
    /// Seconds of the view per second of the clip; negative when time runs backwards.
    pub scale: f64,
    /// How far the view's middle lies before the place of `centre_s`, in seconds of the view.
    pub offset: f64,
    /// What becomes of the loudness.
    pub loudness: Loudness,
}

impl LabelChange {
    /// The change of a view whose middle lies at `centre_s` of its clip and to which nothing is applied.
    pub fn none(centre_s: f64) -> Self {
        Self { semitones: 0.0, rate: 1.0, centre_s, scale: 1.0, offset: 0.0, loudness: Loudness::Add(0.0) }
    }

    /// The change by all operators of a view: the effects and parameters of those applied, in order of processing.
    pub fn compose<'a>(centre_s: f64, applied: impl Iterator<Item = (&'a [LabelEffect], &'a [f64])>) -> Self {
        applied.fold(Self::none(centre_s), |change, (effects, params)| {
            effects.iter().fold(change, |change, effect| change.then(*effect, params))
        })
    }

    /// One effect more. A parameter that is missing changes nothing.
    fn then(mut self, effect: LabelEffect, params: &[f64]) -> Self {
        let param = |i: usize, otherwise: f64| params.get(i).copied().unwrap_or(otherwise);
        match effect {
            LabelEffect::Transpose(i) => self.semitones += param(i, 0.0),
            LabelEffect::Tempo(i) => self.play(param(i, 1.0)),
            LabelEffect::Speed(i) => {
                let rate = param(i, 1.0);
                self.play(rate);
                self.semitones += 12.0 * rate.log2();
            }
            LabelEffect::Shift(i) => self.offset -= param(i, 0.0),
            LabelEffect::Reverse => {
                self.scale = -self.scale;
                self.offset = -self.offset;
            }
            LabelEffect::AddLoudness(i) => {
                let db = param(i, 0.0);
                self.loudness = match self.loudness {
                    Loudness::Add(sum) => Loudness::Add(sum + db),
                    Loudness::Set(lufs) => Loudness::Set(lufs + db),
                    Loudness::Unknown => Loudness::Unknown,
                };
            }
            LabelEffect::SetLoudness(i) => {
                self.loudness = params.get(i).map_or(Loudness::Unknown, |lufs| Loudness::Set(*lufs));
            }
            LabelEffect::LoseLoudness => self.loudness = Loudness::Unknown,
        }
        self
    }

    /// Plays faster by `rate`, about the middle of the view.
    fn play(&mut self, rate: f64) {
        self.rate *= rate;
        self.scale /= rate;
        self.offset /= rate;
    }

    /// Where a time of the clip lies in a view `seconds` long.
    pub fn to_view(&self, clip_s: f64, seconds: f64) -> f64 {
        self.scale * (clip_s - self.centre_s) + self.offset + seconds / 2.0
    }

    /// Where a time of a view `seconds` long lies in the clip; the inverse of [`Self::to_view`].
    pub fn to_clip(&self, view_s: f64, seconds: f64) -> f64 {
        (view_s - seconds / 2.0 - self.offset) / self.scale + self.centre_s
    }

    /// A span of the clip as a span of a view `seconds` long: cut to it, and `None` when nothing of it is left.
    fn span(&self, start: f64, end: f64, seconds: f64) -> Option<(f64, f64)> {
        // A span that ends before it starts holds nothing; reversal must not make one of it.
        if end.partial_cmp(&start)?.is_le() {
            return None;
        }
        let (a, b) = (self.to_view(start, seconds), self.to_view(end, seconds));
        let (from, to) = (a.min(b).max(0.0), a.max(b).min(seconds));
        (from < to).then_some((from, to))
    }
}

/// The change by all operators that were applied to a view.
pub fn label_effect(chain: &Chain, draw: &Draw) -> LabelChange {
    let applied = chain.processing(draw).map(|(spec, params)| (spec.def().labels, params));
    LabelChange::compose(draw.centre_s, applied)
}

/// The type of columns of [`LabelKind::Chords`] and [`LabelKind::Segments`]:
/// `List<Struct{start: Float64, end: Float64, label: Utf8}>`.
pub fn intervals_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(interval_fields()), true)))
}

fn interval_fields() -> Fields {
    Fields::from(vec![
        Field::new("start", DataType::Float64, true),
        Field::new("end", DataType::Float64, true),
        Field::new("label", DataType::Utf8, true),
    ])
}

/// The type of columns of [`LabelKind::Times`]: `List<Float64>`.
pub fn times_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

/// A column of [`times_type`]; a row per item.
pub fn times_column(rows: impl IntoIterator<Item = Vec<f64>>) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    for row in rows {
        builder.values().append_slice(&row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// A column of [`intervals_type`]; a row per item, of (start, end, label).
///
/// # Errors
/// None that data could cause.
pub fn intervals_column(
    rows: impl IntoIterator<Item = Vec<(f64, f64, String)>>,
) -> Result<ArrayRef, ArrowError> {
    let mut builder = SpansBuilder::default();
    for row in rows {
        builder.append(Some(&mut row.into_iter().map(|(start, end, label)| (start, end, Some(label)))));
    }
    Ok(Arc::new(builder.finish()?))
}

fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_number(of: &DataType) -> bool {
    of.is_numeric() || of.is_null()
}

/// The type of the items of a list.
fn items(of: &DataType) -> Option<&DataType> {
    match of {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    }
}

/// The type that a column of clips of a kind of label has in a table of views.
///
/// # Errors
/// What is wrong with a column of that type: "a label of kind times is a list of numbers, the column is Utf8".
pub fn view_type(kind: LabelKind, column: &DataType) -> Result<DataType, String> {
    let want = |fits: bool, of_views: DataType, what: &str| {
        let wrong = || format!("a label of kind {} is {what}, the column is {column}", kind.name());
        fits.then_some(of_views).ok_or_else(wrong)
    };
    match kind {
        LabelKind::Key => want(is_text(column), DataType::Utf8, "text such as `A minor`"),
        LabelKind::Bpm | LabelKind::Loudness => want(is_number(column), DataType::Float64, "a number"),
        LabelKind::Number => want(is_number(column), column.clone(), "a number"),
        LabelKind::Class => Ok(column.clone()),
        LabelKind::Tags => {
            let fits = is_text(column) || items(column).is_some_and(is_text);
            want(fits, column.clone(), "a list of text, or text")
        }
        LabelKind::Times => {
            let fits = column.is_null() || items(column).is_some_and(is_number);
            want(fits, times_type(), "a list of numbers")
        }
        LabelKind::Chords | LabelKind::Segments => {
            let has = |fields: &Fields, name: &str, fits: fn(&DataType) -> bool| {
                fields.find(name).is_some_and(|(_, field)| fits(field.data_type()))
            };
            let fits = match items(column) {
                Some(DataType::Struct(fields)) => {
                    has(fields, "start", is_number)
                        && has(fields, "end", is_number)
                        && has(fields, "label", is_text)
                }
                Some(DataType::Null) => true,
                _ => column.is_null(),
            };
            want(fits, intervals_type(), "a list of {start: number, end: number, label: text}")
        }
    }
}

/// The label column of views. View i shows the clip of row `rows[i]` of `column`, is `seconds` long, and changes
/// its labels by `changes[i]`; the result has one row per view and the type of [`view_type`].
///
/// Times outside of 0..`seconds` are dropped; spans are cut to it, and dropped where nothing is left; both come
/// sorted. Null stays null. Keys and chords move by whole semitones, the nearest; a key is spelled as
/// [`MusicalKey::name`] spells it.
///
/// # Errors
/// When the type of the column does not fit the kind, a row lies outside of the column, or `rows` and `changes`
/// differ in length.
pub fn view_label(
    kind: LabelKind,
    column: &dyn Array,
    rows: &[usize],
    changes: &[LabelChange],
    seconds: f64,
) -> Result<ArrayRef, ArrowError> {
    let bad = |message: String| ArrowError::InvalidArgumentError(message);
    let out = view_type(kind, column.data_type()).map_err(bad)?;
    if rows.len() != changes.len() {
        return Err(bad(format!("{} rows and {} changes of labels", rows.len(), changes.len())));
    }
    if let Some(row) = rows.iter().find(|row| **row >= column.len()) {
        return Err(bad(format!("row {row} of a column of {} labels", column.len())));
    }
    let views = || rows.iter().copied().zip(changes);
    Ok(match kind {
        LabelKind::Tags | LabelKind::Class | LabelKind::Number => {
            take(column, &UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64)), None)?
        }
        LabelKind::Key => {
            let keys = cast(column, &out)?;
            let keys = keys.as_string::<i32>();
            let of_view = |(row, change): (usize, &LabelChange)| {
                let key = keys.is_valid(row).then(|| MusicalKey::parse(keys.value(row)))??;
                Some(key.transpose(change.semitones).name())
            };
            Arc::new(views().map(of_view).collect::<StringArray>())
        }
        LabelKind::Bpm | LabelKind::Loudness => {
            let numbers = cast(column, &out)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            let of_view = |(row, change): (usize, &LabelChange)| {
                let known = numbers.is_valid(row).then(|| numbers.value(row));
                match (kind, change.loudness) {
                    (LabelKind::Bpm, _) => known.map(|bpm| bpm * change.rate),
                    (_, Loudness::Add(db)) => known.map(|lufs| lufs + db),
                    (_, Loudness::Set(lufs)) => Some(lufs),
                    (_, Loudness::Unknown) => None,
                }
            };
            Arc::new(views().map(of_view).collect::<Float64Array>())
        }
        LabelKind::Times => {
            let lists = cast(column, &out)?;
            let lists = lists.as_list::<i32>();
            let times = lists.values().as_primitive::<Float64Type>();
            let mut builder = ListBuilder::new(Float64Builder::new());
            let mut of_view = Vec::new();
            for (row, change) in views() {
                of_view.clear();
                let known = span_of(lists, row).filter(|i| times.is_valid(*i));
                of_view.extend(known.map(|i| change.to_view(times.value(i), seconds)));
                of_view.retain(|t| (0.0..seconds).contains(t));
                of_view.sort_by(f64::total_cmp);
                builder.values().append_slice(&of_view);
                builder.append(lists.is_valid(row));
            }
            Arc::new(builder.finish())
        }
        LabelKind::Chords | LabelKind::Segments => {
            let spans = Spans::new(column)?;
            let mut of_views = SpansBuilder::default();
            let mut of_view = Vec::new();
            for (row, change) in views() {
                let Some(known) = spans.row(row) else {
                    of_views.append::<&str>(None);
                    continue;
                };
                of_view.clear();
                of_view.extend(known.filter_map(|(start, end, label)| {
                    let (start, end) = change.span(start, end, seconds)?;
                    Some((start, end, label))
                }));
                of_view.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
                of_views.append(Some(&mut of_view.iter().map(|(start, end, label)| {
                    let label = label.map(|label| match kind {
                        LabelKind::Chords => transpose_chord(label, change.semitones),
                        _ => label.to_owned(),
                    });
                    (*start, *end, label)
                })));
            }
            Arc::new(of_views.finish()?)
        }
    })
}

/// The indices of the values of a row; none for null.
fn span_of(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    if lists.is_null(row) {
        return 0..0;
    }
    let offsets = lists.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// A column of lists of `{start, end, label}`, in whatever types it came.
pub(crate) struct Spans {
    lists: ListArray,
    start: Float64Array,
    end: Float64Array,
    label: StringArray,
}

impl Spans {
    /// Reads a column whose type [`view_type`] accepts.
    pub(crate) fn new(column: &dyn Array) -> Result<Self, ArrowError> {
        let empty = |length| -> Result<Self, ArrowError> {
            let none = |to: &DataType| arrow::array::new_empty_array(to);
            Ok(Self {
                lists: ListArray::new_null(Arc::new(Field::new_list_field(DataType::Null, true)), length),
                start: none(&DataType::Float64).as_primitive().clone(),
                end: none(&DataType::Float64).as_primitive().clone(),
                label: none(&DataType::Utf8).as_string().clone(),
            })
        };
        let Some(item) = items(column.data_type()) else { return empty(column.len()) };
        let lists = cast(column, &DataType::List(Arc::new(Field::new_list_field(item.clone(), true))))?;
        let lists = lists.as_list::<i32>().clone();
        let Some(values) = lists.values().as_struct_opt() else {
            // Lists of nulls hold no span.
            let offsets = OffsetBuffer::from_lengths((0..lists.len()).map(|_| 0));
            let none = arrow::array::new_empty_array(&DataType::Null);
            let field = Arc::new(Field::new_list_field(DataType::Null, true));
            let lists = ListArray::try_new(field, offsets, none, lists.nulls().cloned())?;
            return Ok(Self { lists, ..empty(0)? });
        };
        let child = |name: &str, to: &DataType| {
            let missing = || ArrowError::SchemaError(format!("the spans have no field `{name}`"));
            cast(values.column_by_name(name).ok_or_else(missing)?, to)
        };
        let start = child("start", &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        let end = child("end", &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        let label = child("label", &DataType::Utf8)?.as_string::<i32>().clone();
        // A struct that is null may hide values.
        let start = match values.nulls() {
            Some(nulls) => {
                let both = NullBuffer::union(start.nulls(), Some(nulls));
                Float64Array::new(start.values().clone(), both)
            }
            None => start,
        };
        Ok(Self { lists, start, end, label })
    }

    /// The spans of a row that have a start and an end; `None` for null.
    pub(crate) fn row(&self, row: usize) -> Option<impl Iterator<Item = (f64, f64, Option<&str>)>> {
        self.lists.is_valid(row).then(|| {
            span_of(&self.lists, row).filter(|i| self.start.is_valid(*i) && self.end.is_valid(*i)).map(|i| {
                let label = self.label.is_valid(i).then(|| self.label.value(i));
                (self.start.value(i), self.end.value(i), label)
            })
        })
    }
}

/// Builds a column of [`intervals_type`].
#[derive(Default)]
pub(crate) struct SpansBuilder {
    lengths: Vec<usize>,
    valid: Vec<bool>,
    start: Vec<f64>,
    end: Vec<f64>,
    label: StringBuilder,
}

impl SpansBuilder {
    /// One row.
    pub(crate) fn append<L: AsRef<str>>(
        &mut self,
        row: Option<&mut dyn Iterator<Item = (f64, f64, Option<L>)>>,
    ) {
        let before = self.start.len();
        self.valid.push(row.is_some());
        for (start, end, label) in row.into_iter().flatten() {
            self.start.push(start);
            self.end.push(end);
            self.label.append_option(label);
        }
        self.lengths.push(self.start.len() - before);
    }

    /// The column.
    pub(crate) fn finish(mut self) -> Result<ListArray, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(self.start)),
            Arc::new(Float64Array::from(self.end)),
            Arc::new(self.label.finish()),
        ];
        let values = StructArray::try_new(interval_fields(), columns, None)?;
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        ListArray::try_new(field, offsets, Arc::new(values), Some(NullBuffer::from(self.valid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Channels, Entry, Sampling};
    use crate::operator::OperatorSpec;
    use crate::rng::Key;
    use proptest::prelude::*;

    #[test]
    fn a_draw_composes_what_was_applied() {
        let ops = |names: &[&str]| names.iter().map(|n| OperatorSpec::new(n).unwrap()).collect::<Vec<_>>();
        let chain = Chain {
            sample_rate: 16_000,
            seconds: 3.0,
            channels: Channels::Mono,
            base: ops(&["gain", "time_stretch", "pitch_shift"]).into_iter().map(Entry::from).collect(),
            variant: ops(&["pitch_shift", "time_stretch"]),
            sampling: Sampling::Factorial,
        };
        let mut draw = chain.draw_identity(Key::root(1), "a", 0, 5.0);
        assert_eq!(label_effect(&chain, &draw), LabelChange::none(5.0));
        draw.params =
            vec![Some(vec![-3.0]), Some(vec![1.25]), Some(vec![6.0]), Some(vec![0.8]), Some(vec![2.0])];
        let change = label_effect(&chain, &draw);
        assert_eq!((change.semitones, change.rate, change.scale), (-1.0, 1.0, 1.0));
        draw.params[3] = None;
        let change = label_effect(&chain, &draw);
        assert_eq!((change.semitones, change.rate, change.scale), (-1.0, 1.25, 0.8));
    }

    /// What an operator does to a recording with events in it, by the definition of each.
    #[derive(Clone, Copy, Debug)]
    enum Edit {
        Transpose(f64),
        Tempo(f64),
        Speed(f64),
        Shift(f64),
        Reverse,
        Add(f64),
        Set(f64),
        Lose,
    }

    impl Edit {
        fn effect(self) -> (&'static [LabelEffect], Vec<f64>) {
            match self {
                Edit::Transpose(x) => (&[LabelEffect::Transpose(0)], vec![x]),
                Edit::Tempo(x) => (&[LabelEffect::Tempo(1)], vec![9.0, x]),
                Edit::Speed(x) => (&[LabelEffect::Speed(0)], vec![x]),
                Edit::Shift(x) => (&[LabelEffect::Shift(0)], vec![x]),
                Edit::Reverse => (&[LabelEffect::Reverse], vec![]),
                Edit::Add(x) => (&[LabelEffect::AddLoudness(0)], vec![x]),
                Edit::Set(x) => (&[LabelEffect::SetLoudness(0)], vec![x]),
                Edit::Lose => (&[LabelEffect::LoseLoudness], vec![]),
            }
        }
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let edit = prop_oneof![
            (-12.0..12.0).prop_map(Edit::Transpose),
            (0.5..2.0).prop_map(Edit::Tempo),
            (0.5..2.0).prop_map(Edit::Speed),
            (-5.0..5.0).prop_map(Edit::Shift),
            Just(Edit::Reverse),
            (-20.0..20.0).prop_map(Edit::Add),
            (-40.0..0.0).prop_map(Edit::Set),
            Just(Edit::Lose),
        ];
        prop::collection::vec(edit, 0..8)
    }

    fn composed(centre_s: f64, edits: &[Edit]) -> LabelChange {
        let effects: Vec<_> = edits.iter().map(|edit| edit.effect()).collect();
        LabelChange::compose(centre_s, effects.iter().map(|(effects, params)| (*effects, &params[..])))
    }

    /// A recording of `length` seconds with events, a place that the view is centred on, and a tempo.
    struct Recording {
        length: f64,
        events: Vec<f64>,
        middle: f64,
        hertz: f64,
        bpm: f64,
        lufs: Option<f64>,
    }

    impl Recording {
        /// Edits the whole recording, from its start.
        fn edit(&mut self, edit: Edit) {
            match edit {
                Edit::Transpose(x) => self.hertz *= (x / 12.0).exp2(),
                Edit::Tempo(x) | Edit::Speed(x) => {
                    self.events.iter_mut().for_each(|t| *t /= x);
                    self.length /= x;
                    self.middle /= x;
                    self.bpm *= x;
                    if matches!(edit, Edit::Speed(_)) {
                        self.hertz *= x;
                    }
                }
                Edit::Shift(x) => self.middle += x,
                Edit::Reverse => {
                    let length = self.length;
                    self.events.iter_mut().for_each(|t| *t = length - *t);
                    self.middle = length - self.middle;
                }
                Edit::Add(x) => self.lufs = self.lufs.map(|lufs| lufs + x),
                Edit::Set(x) => self.lufs = Some(x),
                Edit::Lose => self.lufs = None,
            }
        }
    }

    proptest! {
        #[test]
        fn composition_follows_a_recording_through_every_edit(
            edits in edits(), centre in 0.0..60.0, seconds in 0.1..20.0,
            events in prop::collection::vec(0.0..60.0, 1..20),
        ) {
            let change = composed(centre, &edits);
            let mut tape = Recording {
                length: 60.0, events: events.clone(), middle: centre, hertz: 440.0, bpm: 97.0, lufs: Some(-14.0),
            };
            edits.iter().for_each(|edit| tape.edit(*edit));
            for (clip, edited) in events.iter().zip(&tape.events) {
                let want = edited - tape.middle + seconds / 2.0;
                prop_assert!((change.to_view(*clip, seconds) - want).abs() < 1e-7, "{edits:?}");
                prop_assert!((change.to_clip(change.to_view(*clip, seconds), seconds) - clip).abs() < 1e-7);
            }
            prop_assert!((440.0 * (change.semitones / 12.0).exp2() / tape.hertz - 1.0).abs() < 1e-9);
            let rows = Float64Array::from(vec![97.0]);
            let bpm = view_label(LabelKind::Bpm, &rows, &[0], &[change], seconds).unwrap();
            prop_assert!((bpm.as_primitive::<Float64Type>().value(0) / tape.bpm - 1.0).abs() < 1e-9);
            let rows = Float64Array::from(vec![-14.0]);
            let lufs = view_label(LabelKind::Loudness, &rows, &[0], &[change], seconds).unwrap();
            let lufs: Option<f64> = lufs.as_primitive::<Float64Type>().iter().next().unwrap();
            prop_assert_eq!(lufs.is_some(), tape.lufs.is_some());
            prop_assert!((lufs.unwrap_or(0.0) - tape.lufs.unwrap_or(0.0)).abs() < 1e-9);
        }

        #[test]
        fn labels_of_a_view_are_those_it_shows(
            edits in edits(), centre in 0.0..60.0, seconds in 0.1..20.0,
            cuts in prop::collection::vec(0.0..60.0, 2..20),
        ) {
            let change = composed(centre, &edits);
            let mut cuts = cuts;
            cuts.sort_by(f64::total_cmp);
            let times = of_times(&[Some(&cuts)]);
            let got = view_label(LabelKind::Times, &times, &[0], &[change], seconds).unwrap();
            let got = got.as_list::<i32>().value(0);
            let got = got.as_primitive::<Float64Type>().values().to_vec();
            prop_assert!(got.is_sorted() && got.iter().all(|t| (0.0..seconds).contains(t)));
            let inside = |t: &&f64| (0.0..seconds).contains(&change.to_view(**t, seconds));
            prop_assert_eq!(got.len(), cuts.iter().filter(inside).count());

            // Spans without gaps: each moment of the view lies in the span that it lies in within the clip.
            let spans: Vec<(f64, f64, String)> =
                cuts.windows(2).enumerate().map(|(i, w)| (w[0], w[1], i.to_string())).collect();
            let column = of_spans(&[Some(&spans)]);
            let got = view_label(LabelKind::Segments, &column, &[0], &[change], seconds).unwrap();
            let got = read_spans(&got).remove(0).unwrap();
            prop_assert!(got.windows(2).all(|w| w[0].1 <= w[1].0 + 1e-9));
            for i in 0..40 {
                let t = seconds * (f64::from(i) + 0.5) / 40.0;
                let clip = change.to_clip(t, seconds);
                if cuts.iter().any(|cut| (cut - clip).abs() < 1e-6) {
                    continue;
                }
                let shown = got.iter().find(|(start, end, _)| (*start..*end).contains(&t)).map(|s| &s.2);
                let there = spans.iter().find(|(start, end, _)| (*start..*end).contains(&clip)).map(|s| &s.2);
                prop_assert_eq!(shown, there);
            }
        }
    }

    fn of_times(rows: &[Option<&[f64]>]) -> ListArray {
        let mut builder = ListBuilder::new(Float64Builder::new());
        for row in rows {
            builder.values().append_slice(row.unwrap_or_default());
            builder.append(row.is_some());
        }
        builder.finish()
    }

    type Span = (f64, f64, String);

    fn of_spans(rows: &[Option<&[Span]>]) -> ListArray {
        let mut builder = SpansBuilder::default();
        for row in rows {
            match row {
                None => builder.append::<&str>(None),
                Some(row) => builder.append(Some(&mut row.iter().map(|(a, b, l)| (*a, *b, Some(l))))),
            }
        }
        builder.finish().unwrap()
    }

    fn read_spans(column: &ArrayRef) -> Vec<Option<Vec<Span>>> {
        let spans = Spans::new(column).unwrap();
        (0..column.len())
            .map(|row| Some(spans.row(row)?.map(|(a, b, l)| (a, b, l.unwrap_or("-").to_owned())).collect()))
            .collect()
    }

    fn span(start: f64, end: f64, label: &str) -> Span {
        (start, end, label.to_owned())
    }

    #[test]
    fn rows_are_gathered_and_nulls_stay() {
        let keys = StringArray::from(vec![Some("C:major"), None, Some("Bbm"), Some("dorian")]);
        let up = LabelChange { semitones: 2.0, ..LabelChange::none(5.0) };
        let same = LabelChange::none(5.0);
        let got = view_label(LabelKind::Key, &keys, &[2, 0, 1, 3], &[same, up, up, up], 4.0).unwrap();
        let got: Vec<_> = got.as_string::<i32>().iter().collect();
        assert_eq!(got, [Some("A# minor"), Some("D major"), None, None]);

        let backwards = composed(5.0, &[Edit::Reverse]);
        let times = of_times(&[None, Some(&[2.9, 3.0, 5.5, 7.0]), Some(&[])]);
        let got = view_label(LabelKind::Times, &times, &[1, 0, 2, 1], &[same, same, same, backwards], 4.0);
        let want: [Option<&[f64]>; 4] = [Some(&[0.0, 2.5]), None, Some(&[]), Some(&[0.0, 1.5])];
        assert_eq!(got.unwrap().as_list::<i32>(), &of_times(&want));

        let chords =
            [span(0.0, 4.0, "A:min"), span(4.0, 6.5, "N"), span(6.5, 7.0, "Bb/D"), span(8.0, 9.0, "C")];
        let column = of_spans(&[Some(&chords), None]);
        let got = view_label(LabelKind::Chords, &column, &[0, 1], &[up, up], 4.0).unwrap();
        let want = vec![span(0.0, 1.0, "B:min"), span(1.0, 3.5, "N"), span(3.5, 4.0, "C/E")];
        assert_eq!(read_spans(&got), [Some(want), None]);
        assert_eq!(got.data_type(), &intervals_type());

        let tags = StringArray::from(vec!["rock", "jazz"]);
        let got = view_label(LabelKind::Tags, &tags, &[1, 1], &[up, up], 4.0).unwrap();
        assert_eq!(got.as_string::<i32>(), &StringArray::from(vec!["jazz", "jazz"]));
    }

    /// Readers of files hand over what types they please.
    #[test]
    fn other_types_of_the_same_meaning_are_cast() {
        let same = LabelChange::none(2.0);
        let bpm = arrow::array::Decimal128Array::from(vec![Some(12_050), None])
            .with_precision_and_scale(5, 2)
            .unwrap();
        let fast = LabelChange { rate: 2.0, ..same };
        let got = view_label(LabelKind::Bpm, &bpm, &[0, 1], &[fast, fast], 4.0).unwrap();
        assert_eq!(got.as_primitive::<Float64Type>(), &Float64Array::from(vec![Some(241.0), None]));

        let beats = arrow::array::FixedSizeListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(
            [Some(vec![Some(3), None]), None],
            2,
        );
        let got = view_label(LabelKind::Times, &beats, &[0, 1], &[same, same], 4.0).unwrap();
        assert_eq!(got.as_list::<i32>(), &of_times(&[Some(&[3.0]), None]));

        // Fields in another order, of other types, with one more; a null struct and a null end are no spans.
        let fields: Fields = [
            ("label", DataType::LargeUtf8),
            ("end", DataType::Float32),
            ("by", DataType::Utf8),
            ("start", DataType::Int64),
        ]
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type, true))
        .collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(arrow::array::LargeStringArray::from(vec![Some("A"), None, Some("C"), Some("D")])),
            Arc::new(arrow::array::Float32Array::from(vec![Some(1.5), Some(3.0), Some(4.0), None])),
            Arc::new(StringArray::from(vec!["me"; 4])),
            Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3, 3])),
        ];
        let valid = NullBuffer::from(vec![true, true, false, true]);
        let values = StructArray::try_new(fields, columns, Some(valid)).unwrap();
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let lists = arrow::array::LargeListArray::new(
            field,
            OffsetBuffer::from_lengths([4, 0]),
            Arc::new(values),
            Some(NullBuffer::from(vec![true, false])),
        );
        let got = view_label(LabelKind::Segments, &lists, &[0, 1], &[same, same], 4.0).unwrap();
        assert_eq!(read_spans(&got), [Some(vec![span(1.0, 1.5, "A"), span(2.0, 3.0, "-")]), None]);

        let nothing = arrow::array::NullArray::new(2);
        for kind in [LabelKind::Key, LabelKind::Bpm, LabelKind::Times, LabelKind::Chords, LabelKind::Tags] {
            let got = view_label(kind, &nothing, &[1], &[same], 4.0).unwrap();
            assert_eq!(got.logical_null_count(), 1, "{kind:?}");
            assert_eq!(got.data_type(), &view_type(kind, &DataType::Null).unwrap());
        }
    }

    #[test]
    fn types_that_do_not_fit_are_named() {
        for (kind, column, want) in [
            (
                LabelKind::Times,
                DataType::Utf8,
                "a label of kind times is a list of numbers, the column is Utf8",
            ),
            (LabelKind::Bpm, DataType::Utf8, "a label of kind bpm is a number, the column is Utf8"),
            (LabelKind::Key, DataType::Int64, "a label of kind key is text such as `A minor`"),
            (LabelKind::Chords, times_type(), "a label of kind chords is a list of {start: number"),
            (LabelKind::Tags, times_type(), "a label of kind tags is a list of text, or text"),
        ] {
            let got = view_type(kind, &column).unwrap_err();
            assert!(got.starts_with(want), "{got}");
            let array = arrow::array::new_empty_array(&column);
            assert!(view_label(kind, &array, &[], &[], 1.0).is_err());
        }
        assert_eq!(view_type(LabelKind::Class, &DataType::Boolean), Ok(DataType::Boolean));
        let one = Float64Array::from(vec![1.0]);
        let change = LabelChange::none(0.0);
        assert!(view_label(LabelKind::Number, &one, &[1], &[change], 1.0).is_err());
        assert!(view_label(LabelKind::Number, &one, &[0], &[], 1.0).is_err());
    }

    #[test]
    fn names_are_those_of_the_yaml() {
        let schema = schemars::schema_for!(LabelKind).to_value();
        let forms = schema["oneOf"].as_array().unwrap();
        assert_eq!(forms.len(), 9);
        for form in forms {
            let kind: LabelKind = serde_json::from_value(form["const"].clone()).unwrap();
            assert_eq!(form["const"], kind.name());
        }
    }
}
