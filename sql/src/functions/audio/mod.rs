//! Audio: what recordings are, and figures of them.
//!
//! A recording is named by its address, as in `clips.uri`, and read by the same code as in a run; samples in a column,
//! such as rendered views, are measured by the same functions. A query over many recordings does not end at one that
//! cannot be read: its figures are NULL, and `audio_info` and `audio_error` say why. Recordings are measured in pieces of
//! 20 seconds, one per core at a time; equal calls within a batch are made once. The functions are stable: within one
//! statement a recording is taken not to change.

mod docs;
mod input;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListBuilder, Float32Builder, Float64Array, Float64Builder, Int32Array, Int64Array,
    ListBuilder, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarUDF, Volatility};
use loev_ops::features::{FrontEnd, LogMel};
use loev_ops::loudness::LoudnessMeter;
use loev_ops::measure::{self, OnsetDetector, Part, Waveform, WaveformMeter};
use loev_ops::resample::resample;
use loev_ops::source::{Limits, Source, StreamInfo, inspect};
use loev_ops::{Audio, AudioError};

use super::Docs;
use super::scalar::{Scalar, functions};
use super::spread::spread;
use input::{Form, Inputs, Item, Rest, audio_of, coerced, distinct, is_address};

/// The longest part that `mel` takes.
const MEL_SECONDS: f64 = 600.0;

/// The audio functions.
pub fn all() -> Vec<ScalarUDF> {
    functions(Op::ALL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Info,
    Error,
    Loudness,
    Waveform,
    Onsets,
    OnsetRate,
    Mel,
}

impl Op {
    const ALL: [Self; 7] =
        [Self::Info, Self::Error, Self::Loudness, Self::Waveform, Self::Onsets, Self::OnsetRate, Self::Mel];

    /// What follows an address, or samples.
    fn form(self, address: bool) -> Form {
        const PART: &[Rest] = &[Rest::Start, Rest::Seconds];
        let (rest, required): (&'static [Rest], usize) = match (self, address) {
            (Self::Info, _) => (&[], 0),
            (Self::Error, _) => (PART, 0),
            (Self::Mel, true) => (&[Rest::Start, Rest::Seconds, Rest::Bands], 2),
            (Self::Mel, false) => (&[Rest::Rate, Rest::Bands, Rest::Channels], 1),
            (_, true) => (PART, 0),
            (_, false) => (&[Rest::Rate, Rest::Channels], 1),
        };
        Form { rest, required }
    }

    fn takes_samples(self) -> bool {
        !matches!(self, Self::Info | Self::Error)
    }
}

fn info_fields() -> Fields {
    Fields::from(vec![
        Field::new("container", DataType::Utf8, true),
        Field::new("codec", DataType::Utf8, true),
        Field::new("channels", DataType::Int32, true),
        Field::new("rate", DataType::Int32, true),
        Field::new("frames", DataType::Int64, true),
        Field::new("seconds", DataType::Float64, true),
        Field::new("bytes", DataType::Int64, true),
        Field::new("error", DataType::Utf8, true),
    ])
}

/// The statistics by name, NULL where there are none.
type Statistic = (&'static str, fn(&Waveform) -> Option<f64>);
const STATISTICS: [Statistic; 7] = [
    ("peak", |wave| Some(wave.peak)),
    ("rms", |wave| Some(wave.rms)),
    ("dc", |wave| Some(wave.dc)),
    ("crest", |wave| wave.crest),
    ("zero_crossing_rate", |wave| Some(wave.zero_crossing_rate)),
    ("silence_share", |wave| Some(wave.silence_share)),
    ("clipped_share", |wave| Some(wave.clipped_share)),
];

fn statistics_fields() -> Fields {
    STATISTICS.iter().map(|(name, _)| Field::new(*name, DataType::Float64, true)).collect()
}

impl Scalar for Op {
    const VOLATILITY: Volatility = Volatility::Stable;

    fn name(self) -> &'static str {
        match self {
            Self::Info => "audio_info",
            Self::Error => "audio_error",
            Self::Loudness => "loudness",
            Self::Waveform => "waveform_stats",
            Self::Onsets => "onsets",
            Self::OnsetRate => "onset_rate",
            Self::Mel => "mel",
        }
    }

    fn docs(self) -> Docs {
        docs::of(self)
    }

    fn coerce(self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let address = !self.takes_samples() || arguments.first().is_none_or(is_address);
        if let Some(first) = arguments.first().filter(|first| address && !is_address(first)) {
            return plan_err!("{} takes the address of a recording, not {}", self.name(), first);
        }
        coerced(self.name(), &self.form(address), arguments)
    }

    fn result(self, _: &[DataType]) -> Result<DataType> {
        Ok(match self {
            Op::Info => DataType::Struct(info_fields()),
            Op::Error => DataType::Utf8,
            Op::Loudness | Op::OnsetRate => DataType::Float64,
            Op::Waveform => DataType::Struct(statistics_fields()),
            Op::Onsets => DataType::new_list(DataType::Float64, true),
            Op::Mel => return plan_err!("the type of mel depends on its number of bands"),
        })
    }

    fn result_of(self, arguments: &ReturnFieldArgs) -> Result<DataType> {
        Ok(match self {
            Op::Mel => {
                let form = self.form(arguments.arg_fields.first().is_some_and(|f| is_address(f.data_type())));
                let at = form.rest.iter().position(|rest| *rest == Rest::Bands).map_or(0, |at| at + 1);
                let bands = match (arguments.arg_fields.get(at), arguments.scalar_arguments.get(at)) {
                    (None, _) => FrontEnd::default().mels,
                    (_, Some(Some(ScalarValue::Int64(Some(bands))))) => usize::try_from(*bands).unwrap_or(0),
                    _ => return plan_err!("the bands of mel must be a number, the same for all rows"),
                };
                mel_front_end(bands).validate().or_else(|why| plan_err!("mel: {why}"))?;
                let vector = Field::new_list_field(DataType::Float32, true);
                DataType::new_list(DataType::FixedSizeList(Arc::new(vector), bands as i32), true)
            }
            _ => self.result(&[])?,
        })
    }

    fn evaluate(self, arguments: Vec<ColumnarValue>, _: usize, result: &DataType) -> Result<ArrayRef> {
        let arrays = ColumnarValue::values_to_arrays(&arguments)?;
        let form = self.form(arrays.first().is_some_and(|first| is_address(first.data_type())));
        let inputs = Inputs::new(self.name(), &form, &arrays)?;
        self.of_items(&inputs.items()?, result)
    }
}

impl Op {
    fn of_items(self, items: &[Option<Item<'_>>], data_type: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Op::Info => info_array(&answers(items, || (), |(), item| Some(info(item)))?)?,
            Op::Error => {
                let errors = answers(items, || (), |(), item| error(item))?;
                Arc::new(errors.into_iter().collect::<StringArray>())
            }
            Op::Loudness => {
                let figures = answers(items, || (), |(), item| loudness(item).ok().flatten())?;
                Arc::new(figures.into_iter().collect::<Float64Array>())
            }
            Op::Waveform => {
                let figures = answers(items, || (), |(), item| waveform(item).ok().flatten())?;
                let columns = STATISTICS.iter().map(|(_, statistic)| {
                    let values = figures.iter().map(|wave| statistic(wave.as_ref()?));
                    Arc::new(values.collect::<Float64Array>()) as ArrayRef
                });
                let columns = columns.collect();
                let valid = figures.iter().map(Option::is_some).collect();
                Arc::new(StructArray::try_new(statistics_fields(), columns, Some(valid))?)
            }
            Op::OnsetRate => {
                let rates = answers(
                    items,
                    || (),
                    |(), item| {
                        let (onsets, seconds) = onsets(item).ok()?;
                        Some(onsets.len() as f64 / seconds)
                    },
                )?;
                Arc::new(rates.into_iter().collect::<Float64Array>())
            }
            Op::Onsets => {
                let mut lists = ListBuilder::new(Float64Builder::new());
                for onsets in answers(items, || (), |(), item| onsets(item).ok())? {
                    lists.append_option(onsets.map(|(times, _)| times.into_iter().map(Some)));
                }
                Arc::new(lists.finish())
            }
            Op::Mel => mel_array(items, data_type)?,
        })
    }
}

/// The answer of each row, of those without an item `None`.
fn answers<'a, S, T: Clone + Send>(
    items: &[Option<Item<'a>>],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &Item<'a>) -> Option<T> + Sync,
) -> Result<Vec<Option<T>>> {
    let (distinct, places) = distinct(items);
    let answers = spread(distinct.len(), state, |state, row| work(state, distinct.get(row)?))?;
    Ok(places.into_iter().map(|place| answers.get(place?)?.clone()).collect())
}

/// What of it a procedural clip has, or why a recording cannot be read.
type Info = Result<(Option<StreamInfo>, f64), AudioError>;

fn info(item: &Item<'_>) -> Info {
    let Item::Recording(uri, _) = item else { return Ok((None, f64::NAN)) };
    match Source::parse(uri)? {
        Source::Synth(clip) => Ok((None, clip.seconds)),
        source => {
            let info = inspect(&source, &Limits { min_seconds: 0.0, ..Limits::default() })?;
            let seconds = info.seconds;
            Ok((Some(info), seconds))
        }
    }
}

fn info_array(infos: &[Option<Info>]) -> Result<ArrayRef> {
    const SYNTH: &str = "synth";
    const SYNTH_CHANNELS: i32 = 2;
    // (of a file, of a procedural clip)
    fn text(infos: &[Option<Info>], of: impl Fn(&StreamInfo) -> &str) -> ArrayRef {
        let values = infos.iter().map(|info| match info.as_ref()? {
            Ok((Some(info), _)) => Some(of(info)),
            Ok((None, _)) => Some(SYNTH),
            Err(_) => None,
        });
        Arc::new(values.collect::<StringArray>())
    }
    let file = |info: &Option<Info>, of: fn(&StreamInfo) -> u64| match info {
        Some(Ok((Some(info), _))) => i64::try_from(of(info)).ok(),
        _ => None,
    };
    let channels = infos.iter().map(|info| match info.as_ref()?.as_ref().ok()? {
        (Some(info), _) => Some(i32::from(info.channels)),
        (None, _) => Some(SYNTH_CHANNELS),
    });
    let rates = infos.iter().map(|info| file(info, |info| u64::from(info.rate)).map(|rate| rate as i32));
    let frames = infos.iter().map(|info| file(info, |info| info.frames));
    let seconds = infos.iter().map(|info| Some(info.as_ref()?.as_ref().ok()?.1));
    let bytes = infos.iter().map(|info| file(info, |info| info.bytes));
    let errors = infos.iter().map(|info| Some(info.as_ref()?.as_ref().err()?.message.as_str()));
    let columns: Vec<ArrayRef> = vec![
        text(infos, |info| &info.container),
        text(infos, |info| &info.codec),
        Arc::new(channels.collect::<Int32Array>()),
        Arc::new(rates.collect::<Int32Array>()),
        Arc::new(frames.collect::<Int64Array>()),
        Arc::new(seconds.collect::<Float64Array>()),
        Arc::new(bytes.collect::<Int64Array>()),
        Arc::new(errors.collect::<StringArray>()),
    ];
    let valid = infos.iter().map(Option::is_some).collect();
    Ok(Arc::new(StructArray::try_new(info_fields(), columns, Some(valid))?))
}

fn error(item: &Item<'_>) -> Option<String> {
    let Item::Recording(uri, part) = item else { return None };
    Source::parse(uri).and_then(|source| measure::check(&source, *part)).err().map(|error| error.message)
}

fn loudness(item: &Item<'_>) -> Result<Option<f64>, AudioError> {
    match item {
        Item::Recording(uri, part) => measure::loudness(&Source::parse(uri)?, *part),
        Item::Samples { values, rate, channels } => {
            let mut meter = LoudnessMeter::new(*rate);
            meter.push(&audio_of(values, *rate, *channels)?);
            Ok(meter.integrated())
        }
    }
}

fn waveform(item: &Item<'_>) -> Result<Option<Waveform>, AudioError> {
    match item {
        Item::Recording(uri, part) => measure::waveform(&Source::parse(uri)?, *part),
        Item::Samples { values, rate, channels } => {
            let mut meter = WaveformMeter::new(*rate);
            meter.push(&audio_of(values, *rate, *channels)?);
            Ok(meter.finish())
        }
    }
}

/// Onsets and the seconds that were listened to.
fn onsets(item: &Item<'_>) -> Result<(Vec<f64>, f64), AudioError> {
    match item {
        Item::Recording(uri, part) => measure::onsets(&Source::parse(uri)?, *part),
        Item::Samples { values, rate, channels } => {
            let mut detector = OnsetDetector::new();
            let audio = audio_of(values, *rate, *channels)?;
            let seconds = audio.seconds();
            detector.push(&mono_at(audio, OnsetDetector::RATE)?);
            Ok((detector.finish(), seconds))
        }
    }
}

fn mono_at(audio: Audio, rate: u32) -> Result<Vec<f32>, AudioError> {
    let mono = audio.with_channels(1);
    let mono = if mono.rate == rate { mono } else { resample(&mono, rate)? };
    Ok(mono.channels.into_iter().next().unwrap_or_default())
}

fn mel_front_end(bands: usize) -> FrontEnd {
    FrontEnd { mels: bands, ..FrontEnd::default() }
}

fn mel_array(items: &[Option<Item<'_>>], data_type: &DataType) -> Result<ArrayRef> {
    let DataType::List(vector) = data_type else { return exec_err!("mel gives a list of vectors") };
    let DataType::FixedSizeList(_, bands) = vector.data_type() else {
        return exec_err!("mel gives a list of vectors");
    };
    let long = |item: &Item<'_>| match item {
        Item::Recording(_, Part { seconds: Some(seconds), .. }) => *seconds > MEL_SECONDS,
        Item::Recording(..) => false,
        Item::Samples { values, rate, .. } => values.len() as f64 / f64::from(*rate) > MEL_SECONDS,
    };
    if items.iter().flatten().any(long) {
        return exec_err!("mel takes at most {MEL_SECONDS} seconds at a time");
    }
    let front_end = mel_front_end(usize::try_from(*bands).unwrap_or(0));
    let rate = front_end.sample_rate;
    let rows = answers(
        items,
        || LogMel::new(&front_end),
        |log_mel, item| {
            let samples = match item {
                Item::Recording(uri, part) => {
                    let source = Source::parse(uri).ok()?;
                    let audio = source.read_mono(part.start_s, part.seconds?, rate).ok()?;
                    audio.channels.into_iter().next()?
                }
                Item::Samples { values, rate: from, channels } => {
                    mono_at(audio_of(values, *from, *channels).ok()?, rate).ok()?
                }
            };
            let mut frames = vec![0.0f32; front_end.frames(samples.len()) * front_end.mels];
            log_mel.compute(&samples, &mut frames);
            Some(Arc::new(frames))
        },
    )?;
    let mut lists = ListBuilder::new(FixedSizeListBuilder::new(Float32Builder::new(), *bands));
    for frames in rows {
        if let Some(frames) = &frames {
            for frame in frames.chunks_exact(front_end.mels) {
                lists.values().values().append_slice(frame);
                lists.values().append(true);
            }
        }
        lists.append(frames.is_some());
    }
    Ok(Arc::new(lists.finish()))
}
