//! JAMS files: labels of music in JSON, as the data sets of the field publish them.
//!
//! JAMS (Humphrey, Salamon, Nieto, Forsyth, Bittner, Bello, "JAMS: A JSON Annotated Music Specification for
//! Reproducible MIR Research", ISMIR 2014; schema 0.3) holds any number of annotations, each a list of
//! `{time, duration, value, confidence}` under a name space. [`Jams`] is what of it our labels can say:
//!
//! | name space                  | label                                                               |
//! | --------------------------- | ------------------------------------------------------------------- |
//! | `key_mode`                  | the key that holds for the longest time; none where it is a mode    |
//! | `tempo`                     | the tempo of the highest confidence                                 |
//! | `beat`, `beat_position`     | times                                                               |
//! | `onset`                     | times                                                               |
//! | `chord`, `chord_harte`      | spans                                                               |
//! | `segment_*`                 | spans                                                               |
//! | `tag_*`                     | tags, of all annotations together                                   |
//!
//! Where several annotators say the same thing, the first that says anything counts. Other name spaces are
//! counted and skipped.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use arrow::error::ArrowError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{AudioError, RejectKind};
use crate::labels::{Interval, LabelKind, Spans, SpansBuilder, times_type, view_type};
use crate::mir::{MusicalKey, PITCH_CLASSES, harte_chord};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;

/// The version of the schema that is written.
const SCHEMA_VERSION: &str = "0.3.5";

/// The labels of one clip. `None`: nothing is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jams {
    /// The title of the music.
    pub title: Option<String>,
    /// Who plays it.
    pub artist: Option<String>,
    /// The length of the clip in seconds.
    pub duration: Option<f64>,
    /// Identifiers in other catalogues, such as `musicbrainz`.
    pub identifiers: Map<String, Value>,
    /// The key.
    pub key: Option<MusicalKey>,
    /// The tempo in beats per minute.
    pub bpm: Option<f64>,
    /// Beats in seconds, ascending.
    pub beats: Option<Vec<f64>>,
    /// Onsets of notes in seconds, ascending.
    pub onsets: Option<Vec<f64>>,
    /// Chords, by start.
    pub chords: Option<Vec<Interval>>,
    /// Sections, by start.
    pub sections: Option<Vec<Interval>>,
    /// Tags, each once, in the order of the file.
    pub tags: Option<Vec<String>>,
    /// How many annotations of which name spaces were skipped in reading.
    pub skipped: BTreeMap<String, usize>,
}

/// A file as it is written, before its annotations are understood.
#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    file_metadata: Option<RawMetadata>,
    annotations: Vec<RawAnnotation>,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    title: Option<String>,
    artist: Option<String>,
    duration: Option<f64>,
    identifiers: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct RawAnnotation {
    namespace: String,
    data: Value,
}

#[derive(Deserialize)]
struct Observation {
    time: f64,
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    confidence: Value,
}

/// The layout of observations as parallel lists.
#[derive(Deserialize)]
struct Columns {
    time: Vec<f64>,
    duration: Vec<Option<f64>>,
    value: Vec<Value>,
    #[serde(default)]
    confidence: Vec<Value>,
}

impl Observation {
    fn list(data: Value) -> Result<Vec<Self>, String> {
        if !data.is_object() {
            return serde_json::from_value(data).map_err(|e| e.to_string());
        }
        let Columns { time, duration, value, mut confidence } =
            serde_json::from_value(data).map_err(|e| e.to_string())?;
        let count = time.len();
        if confidence.is_empty() {
            confidence.resize(count, Value::Null);
        }
        if [duration.len(), value.len(), confidence.len()] != [count; 3] {
            return Err("its lists of times, durations, values and confidences differ in length".into());
        }
        let rest = duration.into_iter().zip(value).zip(confidence);
        Ok(time
            .into_iter()
            .zip(rest)
            .map(|(time, ((duration, value), confidence))| Self { time, duration, value, confidence })
            .collect())
    }

    fn seconds(&self) -> f64 {
        self.duration.unwrap_or(0.0)
    }

    fn text(&self) -> Result<&str, String> {
        self.value.as_str().ok_or_else(|| format!("the value at {} s is not text: {}", self.time, self.value))
    }

    fn interval(&self) -> Result<Interval, String> {
        let label = self.text()?.to_owned();
        Ok(Interval { start: self.time, end: self.time + self.seconds(), label })
    }
}

impl Jams {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RejectKind::Missing`] and [`RejectKind::Io`] for a file that cannot be read, [`RejectKind::OverLimit`] above
    /// [`MAX_BYTES`], and [`RejectKind::Corrupt`] as for [`Jams::parse`].
    pub fn read(path: &Path) -> Result<Self, AudioError> {
        let name = path.display().to_string();
        let io = |e: std::io::Error| {
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            AudioError::new(
                if missing { RejectKind::Missing } else { RejectKind::Io },
                format!("{name}: {e}"),
            )
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("{name}: a JAMS file of more than {MAX_BYTES} bytes");
            return Err(AudioError::new(RejectKind::OverLimit, message));
        }
        Self::parse(&bytes, &name)
    }

    /// Reads the bytes of a file, which messages call `name`.
    ///
    /// # Errors
    /// [`RejectKind::Corrupt`] for what is not JSON, has no annotations, or holds values of other types than the
    /// schema of its name space says, in the name spaces that are read.
    pub fn parse(json: &[u8], name: &str) -> Result<Self, AudioError> {
        let corrupt = |what: String| AudioError::new(RejectKind::Corrupt, format!("{name}: {what}"));
        let RawFile { file_metadata, annotations } =
            serde_json::from_slice(json).map_err(|e| corrupt(format!("not a JAMS file: {e}")))?;
        let RawMetadata { title, artist, duration, identifiers } = file_metadata.unwrap_or_default();
        if let Some(seconds) = duration.filter(|seconds| *seconds < 0.0) {
            return Err(corrupt(format!("a duration of {seconds} s")));
        }
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut jams = Self {
            title: said(title),
            artist: said(artist),
            duration,
            identifiers: identifiers.unwrap_or_default(),
            ..Self::default()
        };
        let mut confidence = f64::NEG_INFINITY;
        for (i, RawAnnotation { namespace, data }) in annotations.into_iter().enumerate() {
            jams.take(&namespace, data, &mut confidence)
                .map_err(|what| corrupt(format!("annotation {i} ({namespace}): {what}")))?;
        }
        Ok(jams)
    }

    /// Takes in one annotation. `confidence` is that of the tempo so far.
    fn take(&mut self, namespace: &str, data: Value, confidence: &mut f64) -> Result<(), String> {
        match namespace {
            "key_mode" if self.key.is_none() => self.key = longest_key(&Observation::list(data)?)?,
            "key_mode" => {}
            "tempo" => {
                for tempo in Observation::list(data)? {
                    let what = || format!("the value at {} s is not a number: {}", tempo.time, tempo.value);
                    let bpm = tempo.value.as_f64().ok_or_else(what)?;
                    // A tempo without a confidence counts after all that have one.
                    let sure = tempo.confidence.as_f64().unwrap_or(-1.0);
                    if bpm > 0.0 && sure > *confidence {
                        (self.bpm, *confidence) = (Some(bpm), sure);
                    }
                }
            }
            "beat" | "beat_position" => fill(&mut self.beats, || times(data))?,
            "onset" => fill(&mut self.onsets, || times(data))?,
            "chord" | "chord_harte" => fill(&mut self.chords, || intervals(data))?,
            _ if namespace.starts_with("segment_") => fill(&mut self.sections, || intervals(data))?,
            _ if namespace.starts_with("tag_") => {
                let tags = self.tags.get_or_insert_default();
                for tag in Observation::list(data)? {
                    let tag = tag.text()?;
                    if !tags.iter().any(|known| known == tag) {
                        tags.push(tag.to_owned());
                    }
                }
            }
            _ => *self.skipped.entry(namespace.to_owned()).or_default() += 1,
        }
        Ok(())
    }

    /// The text of a JAMS file with these labels, one annotation per label that is there. It conforms to the
    /// schemas of its name spaces: chords are written in Harte's syntax, what is no chord in it as `X`; events
    /// before 0 and spans without length are left out. The schema asks for a duration; where it is not known, the
    /// end of the last label stands in.
    pub fn to_json(&self) -> String {
        let known = self.duration.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let whole = known.unwrap_or_else(|| self.last_s());
        let over_all = |value: Value, confidence: Value| json!({"time": 0.0, "duration": whole, "value": value, "confidence": confidence});
        let events = |times: &[f64]| -> Vec<Value> {
            let shown = times.iter().filter(|t| t.is_finite() && **t >= 0.0);
            shown.map(|t| json!({"time": t, "duration": 0.0, "value": null, "confidence": null})).collect()
        };
        let spans = |spans: &[Interval], label: fn(&str) -> String| -> Vec<Value> {
            let shown = spans.iter().map(|span| (span.start.max(0.0), span.end, &span.label));
            shown
                .filter(|(start, end, _)| end.is_finite() && end > start)
                .map(|(start, end, text)| {
                    json!({"time": start, "duration": end - start, "value": label(text), "confidence": null})
                })
                .collect()
        };
        let data = [
            (
                "key_mode",
                self.key.map(|key| {
                    let tonic = PITCH_CLASSES[usize::from(key.tonic() % 12)];
                    vec![over_all(format!("{tonic}:{}", key.mode().name()).into(), Value::Null)]
                }),
            ),
            (
                "tempo",
                self.bpm
                    .filter(|bpm| bpm.is_finite() && *bpm > 0.0)
                    .map(|bpm| vec![over_all(bpm.into(), 1.0.into())]),
            ),
            ("beat", self.beats.as_deref().map(events)),
            ("onset", self.onsets.as_deref().map(events)),
            (
                "chord",
                self.chords.as_deref().map(|chords| {
                    spans(chords, |label| harte_chord(label).unwrap_or_else(|| "X".to_owned()))
                }),
            ),
            ("segment_open", self.sections.as_deref().map(|sections| spans(sections, str::to_owned))),
            (
                "tag_open",
                self.tags
                    .as_ref()
                    .map(|tags| tags.iter().map(|tag| over_all(tag.as_str().into(), Value::Null)).collect()),
            ),
        ];
        let annotations: Vec<Value> = data
            .into_iter()
            .filter_map(|(namespace, data)| {
                Some(json!({
                    "namespace": namespace,
                    "annotation_metadata": {
                        "annotation_tools": concat!("loev ", env!("CARGO_PKG_VERSION"))
                    },
                    "data": data?,
                    "sandbox": {},
                    "time": 0.0,
                    "duration": whole
                }))
            })
            .collect();
        let mut metadata =
            json!({"duration": whole, "jams_version": SCHEMA_VERSION, "identifiers": self.identifiers});
        for (name, text) in [("title", &self.title), ("artist", &self.artist)] {
            if let Some(text) = text {
                metadata[name] = text.as_str().into();
            }
        }
        let file = json!({"file_metadata": metadata, "annotations": annotations, "sandbox": {}});
        format!("{file:#}\n")
    }

    /// The end of the last label, in seconds.
    fn last_s(&self) -> f64 {
        let events = [&self.beats, &self.onsets].into_iter().flatten().flatten().copied();
        let spans = [&self.chords, &self.sections].into_iter().flatten().flatten().map(|span| span.end);
        events.chain(spans).filter(|t| t.is_finite()).fold(0.0, f64::max)
    }

    /// Writes a file; see [`Jams::to_json`].
    ///
    /// # Errors
    /// [`RejectKind::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), AudioError> {
        std::fs::write(path, self.to_json())
            .map_err(|e| AudioError::new(RejectKind::Io, format!("{}: {e}", path.display())))
    }

    /// The labels of every row of a table of clips or of views: the columns of [`columns`] by their names, and
    /// `title`, `artist` and `seconds` (the duration), as far as there are any. The duration of views has to be set
    /// by the caller, since `seconds` may be that of their clips.
    ///
    /// # Errors
    /// When a column of such a name is of another type.
    pub fn of_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let of_kind = |name: &str, kind: LabelKind| -> Result<Option<&ArrayRef>, ArrowError> {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            let fits = view_type(kind, column.data_type());
            fits.map_err(|e| ArrowError::SchemaError(format!("column `{name}`: {e}"))).map(|_| Some(column))
        };
        let mut rows = vec![Self::default(); batch.num_rows()];
        type Slot<T> = fn(&mut Jams) -> &mut Option<T>;
        let texts: [(&str, Slot<String>); 2] = [("title", |j| &mut j.title), ("artist", |j| &mut j.artist)];
        for (name, slot) in texts {
            if let Some(column) = of_kind(name, LabelKind::Key)? {
                let values = cast(column, &DataType::Utf8)?;
                for (row, value) in rows.iter_mut().zip(values.as_string::<i32>()) {
                    *slot(row) = value.map(str::to_owned);
                }
            }
        }
        if let Some(column) = of_kind("key", LabelKind::Key)? {
            let values = cast(column, &DataType::Utf8)?;
            for (row, value) in rows.iter_mut().zip(values.as_string::<i32>()) {
                row.key = value.and_then(MusicalKey::parse);
            }
        }
        let numbers: [(&str, Slot<f64>); 2] = [("seconds", |j| &mut j.duration), ("bpm", |j| &mut j.bpm)];
        for (name, slot) in numbers {
            if let Some(column) = of_kind(name, LabelKind::Bpm)? {
                let values = cast(column, &DataType::Float64)?;
                for (row, value) in rows.iter_mut().zip(values.as_primitive::<Float64Type>()) {
                    *slot(row) = value;
                }
            }
        }
        let events: [(&str, Slot<Vec<f64>>); 2] =
            [("beats", |j| &mut j.beats), ("onsets", |j| &mut j.onsets)];
        for (name, slot) in events {
            if let Some(column) = of_kind(name, LabelKind::Times)? {
                let values = cast(column, &times_type())?;
                for (row, value) in rows.iter_mut().zip(values.as_list::<i32>().iter()) {
                    *slot(row) = value.map(|v| v.as_primitive::<Float64Type>().iter().flatten().collect());
                }
            }
        }
        let spans: [(&str, Slot<Vec<Interval>>); 2] =
            [("chords", |j| &mut j.chords), ("sections", |j| &mut j.sections)];
        for (name, slot) in spans {
            if let Some(column) = of_kind(name, LabelKind::Segments)? {
                let values = Spans::new(column)?;
                for (i, row) in rows.iter_mut().enumerate() {
                    *slot(row) = values.row(i).map(|spans| {
                        let interval = |(start, end, label): (f64, f64, Option<&str>)| Interval {
                            start,
                            end,
                            label: label.unwrap_or_default().to_owned(),
                        };
                        spans.map(interval).collect()
                    });
                }
            }
        }
        if let Some(column) = of_kind("tags", LabelKind::Tags)? {
            let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
            let values = cast(column, &list)?;
            for (row, value) in rows.iter_mut().zip(values.as_list::<i32>().iter()) {
                row.tags = value.map(|v| v.as_string::<i32>().iter().flatten().map(str::to_owned).collect());
            }
        }
        Ok(rows)
    }
}

/// Puts a label in place of none or of an empty one; whatever is not needed is not read.
fn fill<T>(slot: &mut Option<Vec<T>>, read: impl FnOnce() -> Result<Vec<T>, String>) -> Result<(), String> {
    if slot.as_ref().is_none_or(Vec::is_empty) {
        *slot = Some(read()?);
    }
    Ok(())
}

fn times(data: Value) -> Result<Vec<f64>, String> {
    let mut times: Vec<f64> = Observation::list(data)?.iter().map(|event| event.time).collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn intervals(data: Value) -> Result<Vec<Interval>, String> {
    let list = Observation::list(data)?;
    let mut intervals = list.iter().map(Observation::interval).collect::<Result<Vec<_>, _>>()?;
    intervals.sort_by(|a, b| a.start.total_cmp(&b.start));
    Ok(intervals)
}

/// The key that holds for the longest time, the first of equals.
fn longest_key(list: &[Observation]) -> Result<Option<MusicalKey>, String> {
    let mut held: Vec<(&str, f64)> = Vec::new();
    for key in list {
        let name = key.text()?;
        match held.iter_mut().find(|(known, _)| *known == name) {
            Some((_, seconds)) => *seconds += key.seconds(),
            None => held.push((name, key.seconds())),
        }
    }
    let longest = held.iter().fold(None::<&(&str, f64)>, |best, key| {
        if best.is_none_or(|best| key.1 > best.1) { Some(key) } else { best }
    });
    Ok(longest.and_then(|(name, _)| MusicalKey::parse(name)))
}

/// The labels of clips as Arrow columns, one row per clip, null where nothing is said:
/// `key: Utf8`, `bpm: Float64`, `beats`, `onsets: List<Float64>`, `chords`, `sections: List<Struct{start: Float64,
/// end: Float64, label: Utf8}>`, `tags: List<Utf8>`; times are in seconds.
///
/// # Errors
/// None that data could cause.
pub fn columns(clips: &[Jams]) -> Result<Vec<(Field, ArrayRef)>, ArrowError> {
    let times = |of: fn(&Jams) -> &Option<Vec<f64>>| -> ArrayRef {
        let mut builder = ListBuilder::new(Float64Builder::new());
        for row in clips.iter().map(of) {
            builder.values().append_slice(row.as_deref().unwrap_or_default());
            builder.append(row.is_some());
        }
        Arc::new(builder.finish())
    };
    let spans = |of: fn(&Jams) -> &Option<Vec<Interval>>| -> Result<ArrayRef, ArrowError> {
        let mut builder = SpansBuilder::default();
        for row in clips.iter().map(of) {
            match row {
                None => builder.append::<&str>(None),
                Some(row) => {
                    builder
                        .append(Some(&mut row.iter().map(|span| (span.start, span.end, Some(&span.label)))));
                }
            }
        }
        Ok(Arc::new(builder.finish()?))
    };
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in clips {
        for tag in row.tags.iter().flatten() {
            tags.values().append_value(tag);
        }
        tags.append(row.tags.is_some());
    }
    let keys: StringArray = clips.iter().map(|clip| clip.key.map(MusicalKey::name)).collect();
    let bpm: Float64Array = clips.iter().map(|clip| clip.bpm).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("key", Arc::new(keys)),
        ("bpm", Arc::new(bpm)),
        ("beats", times(|clip| &clip.beats)),
        ("onsets", times(|clip| &clip.onsets)),
        ("chords", spans(|clip| &clip.chords)?),
        ("sections", spans(|clip| &clip.sections)?),
        ("tags", Arc::new(tags.finish())),
    ];
    let field =
        |(name, column): (&str, ArrayRef)| (Field::new(name, column.data_type().clone(), true), column);
    Ok(columns.into_iter().map(field).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    fn parse(value: &Value) -> Result<Jams, AudioError> {
        Jams::parse(value.to_string().as_bytes(), "a.jams")
    }

    fn file(annotations: &[Value]) -> Value {
        json!({"file_metadata": {"title": "", "duration": 12.5}, "annotations": annotations})
    }

    fn annotation(namespace: &str, data: Value) -> Value {
        json!({"namespace": namespace, "annotation_metadata": {}, "data": data})
    }

    fn observation(time: f64, duration: f64, value: Value, confidence: Value) -> Value {
        json!({"time": time, "duration": duration, "value": value, "confidence": confidence})
    }

    fn span(start: f64, end: f64, label: &str) -> Interval {
        Interval { start, end, label: label.to_owned() }
    }

    fn full() -> Jams {
        Jams {
            title: Some("Ein Stück".into()),
            artist: Some("\"Quoted\" \\ 猫".into()),
            duration: Some(12.5),
            identifiers: json!({"musicbrainz": "1-2"}).as_object().unwrap().clone(),
            key: MusicalKey::parse("F# minor"),
            bpm: Some(97.31),
            beats: Some(vec![0.1, 0.7, 1.3]),
            onsets: Some(vec![]),
            chords: Some(vec![span(0.0, 1.5, "F#:min7/b3"), span(1.5, 4.0, "N")]),
            sections: Some(vec![span(0.0, 8.25, "verse")]),
            tags: Some(vec!["rock".into(), "80s".into()]),
            skipped: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let jams = full();
        assert_eq!(Jams::parse(jams.to_json().as_bytes(), "a").unwrap(), jams);
        let empty = Jams { duration: Some(0.0), ..Jams::default() };
        assert_eq!(Jams::parse(Jams::default().to_json().as_bytes(), "a").unwrap(), empty);
        assert_eq!(Jams::parse(empty.to_json().as_bytes(), "a").unwrap(), empty);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jams");
        assert_eq!(Jams::read(&path).unwrap_err().kind, RejectKind::Missing);
        jams.write(&path).unwrap();
        assert_eq!(Jams::read(&path).unwrap(), jams);
    }

    /// What the schema of JAMS has no room for is left out or replaced.
    #[test]
    fn what_is_written_conforms() {
        let odd = Jams {
            bpm: Some(f64::NAN),
            beats: Some(vec![-0.5, f64::NAN, 2.0]),
            chords: Some(vec![span(-1.0, 1.0, "Am/C"), span(1.0, 2.0, "la la"), span(3.0, 3.0, "C")]),
            ..Jams::default()
        };
        let back = Jams::parse(odd.to_json().as_bytes(), "a").unwrap();
        assert_eq!((back.bpm, back.beats, back.duration), (None, Some(vec![2.0]), Some(3.0)));
        assert_eq!(back.chords, Some(vec![span(0.0, 1.0, "A:min/b3"), span(1.0, 2.0, "X")]));
    }

    #[test]
    fn times_are_kept_to_the_last_bit() {
        let mut rng = crate::rng::Key::root(3).rng();
        let mut beats: Vec<f64> = (0..2000).map(|_| 600.0 * rng.f64()).collect();
        beats.sort_by(f64::total_cmp);
        let jams = Jams { beats: Some(beats), bpm: Some(1.444_399_999_999_999_8e43), ..Jams::default() };
        let back = Jams::parse(jams.to_json().as_bytes(), "a").unwrap();
        assert_eq!((back.beats, back.bpm), (jams.beats, jams.bpm));
    }

    #[test]
    fn both_layouts_and_every_name_space_are_read() {
        let jams = parse(&file(&[
            annotation("beat", json!([])),
            annotation(
                "beat_position",
                json!({
                    "time": [1.5, 0.5], "duration": [0.0, 0.0], "confidence": [null, null],
                    "value": [{"position": 2}, {"position": 1}]
                }),
            ),
            annotation("beat", json!([observation(9.0, 0.0, json!(1), json!(null))])),
            annotation("onset", json!([observation(0.25, 0.0, json!(null), json!(1))])),
            annotation(
                "key_mode",
                json!([
                    observation(0.0, 4.0, json!("C:major"), json!(null)),
                    observation(4.0, 5.0, json!("A:minor"), json!(null)),
                    observation(9.0, 3.5, json!("C:major"), json!(null)),
                ]),
            ),
            annotation(
                "tempo",
                json!([
                    observation(0.0, 12.5, json!(60), json!(0.2)),
                    observation(0.0, 12.5, json!(120.5), json!(0.8)),
                    observation(0.0, 12.5, json!(0), json!(1.0)),
                ]),
            ),
            annotation("tempo", json!([observation(0.0, 12.5, json!(90), json!(null))])),
            annotation("chord_harte", json!([observation(2.0, 1.0, json!("E:min"), json!(1))])),
            annotation("segment_salami_upper", json!([observation(0.0, 2.0, json!("A"), json!(1))])),
            annotation("tag_gtzan", json!([observation(0.0, 2.0, json!("jazz"), json!(1))])),
            annotation(
                "tag_open",
                json!([
                    observation(0.0, 2.0, json!("calm"), json!(1)),
                    observation(0.0, 2.0, json!("jazz"), json!(1)),
                ]),
            ),
            annotation("pitch_contour", json!({"time": [0], "anything": 3})),
            annotation("pitch_contour", json!(null)),
            annotation("vector", json!([])),
        ]))
        .unwrap();
        let want = Jams {
            duration: Some(12.5),
            key: MusicalKey::parse("C major"),
            bpm: Some(120.5),
            beats: Some(vec![0.5, 1.5]),
            onsets: Some(vec![0.25]),
            chords: Some(vec![span(2.0, 3.0, "E:min")]),
            sections: Some(vec![span(0.0, 2.0, "A")]),
            tags: Some(vec!["jazz".into(), "calm".into()]),
            skipped: [("pitch_contour".to_owned(), 2), ("vector".to_owned(), 1)].into(),
            ..Jams::default()
        };
        assert_eq!(jams, want);
        // A mode that is neither major nor minor is not one of our keys, and a shorter one does not stand in.
        let modal = annotation(
            "key_mode",
            json!([
                observation(0.0, 9.0, json!("D:dorian"), json!(null)),
                observation(9.0, 1.0, json!("C:major"), json!(null)),
            ]),
        );
        assert_eq!(parse(&file(&[modal])).unwrap().key, None);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let cases = [
            (json!([]), "a.jams: not a JAMS file"),
            (json!({"file_metadata": {}}), "missing field `annotations`"),
            (json!({"file_metadata": {"duration": -1}, "annotations": []}), "a duration of -1 s"),
            (file(&[json!({"data": []})]), "missing field `namespace`"),
            (
                file(&[annotation("onset", json!([])), annotation("beat", json!([{"time": "x"}]))]),
                "a.jams: annotation 1 (beat): invalid type: string \"x\"",
            ),
            (file(&[annotation("beat", json!(3))]), "annotation 0 (beat): invalid type"),
            (
                file(&[annotation("beat", json!({"time": [1.0], "duration": [], "value": [null]}))]),
                "differ in length",
            ),
            (
                file(&[annotation("chord", json!([observation(1.0, 1.0, json!(7), json!(null))]))]),
                "annotation 0 (chord): the value at 1 s is not text: 7",
            ),
            (
                file(&[annotation("tempo", json!([observation(0.0, 1.0, json!("fast"), json!(1))]))]),
                "the value at 0 s is not a number: \"fast\"",
            ),
        ];
        for (value, want) in cases {
            let error = parse(&value).unwrap_err();
            assert_eq!(error.kind, RejectKind::Corrupt);
            assert!(error.message.contains(want), "{}", error.message);
        }
        for text in ["", "{", "{\"annotations\": [{\"namespace\": \"beat\", \"data\": [{\"time\": 1e999}]}]}"]
        {
            assert_eq!(Jams::parse(text.as_bytes(), "a").unwrap_err().kind, RejectKind::Corrupt, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Jams::parse(deep.as_bytes(), "a").unwrap_err().kind, RejectKind::Corrupt);
    }

    #[test]
    fn columns_and_rows_are_inverse() {
        let rows = [full(), Jams::default(), Jams { onsets: Some(vec![3.0]), ..Jams::default() }];
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns(&rows).unwrap().into_iter().unzip();
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["key", "bpm", "beats", "onsets", "chords", "sections", "tags"]);
        for (field, kind) in fields.iter().zip([
            LabelKind::Key,
            LabelKind::Bpm,
            LabelKind::Times,
            LabelKind::Times,
            LabelKind::Chords,
            LabelKind::Segments,
            LabelKind::Tags,
        ]) {
            assert_eq!(&view_type(kind, field.data_type()).unwrap(), field.data_type());
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let plain = |jams: &Jams| Jams {
            title: None,
            artist: None,
            duration: None,
            identifiers: Map::new(),
            ..jams.clone()
        };
        assert_eq!(Jams::of_batch(&batch).unwrap(), rows.each_ref().map(plain));
        assert_eq!(Jams::of_batch(&batch.slice(2, 1)).unwrap(), [plain(&rows[2])]);

        let named: Vec<(&str, ArrayRef)> = vec![
            ("title", Arc::new(StringArray::from(vec!["T"]))),
            ("seconds", Arc::new(arrow::array::Float32Array::from(vec![2.5]))),
            ("tags", Arc::new(StringArray::from(vec!["solo"]))),
        ];
        let batch = RecordBatch::try_from_iter(named).unwrap();
        let want = Jams {
            title: Some("T".into()),
            duration: Some(2.5),
            tags: Some(vec!["solo".into()]),
            ..Jams::default()
        };
        assert_eq!(Jams::of_batch(&batch).unwrap(), [want]);
        let wrong = RecordBatch::try_from_iter([("bpm", batch.column(0).clone())]).unwrap();
        let error = Jams::of_batch(&wrong).unwrap_err().to_string();
        assert!(error.contains("column `bpm`: a label of kind bpm is a number"), "{error}");
    }
}
