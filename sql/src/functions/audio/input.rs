//! What audio functions work on: a part of a recording, or samples of a column.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use loev_ops::measure::Part;
use loev_ops::{Audio, AudioError, RejectKind};

use super::super::column::{Argument, Rows, element_of};
use crate::types::type_name;

/// What an argument after the first is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Start,
    Seconds,
    Rate,
    Channels,
    Bands,
}

impl Rest {
    fn data_type(self) -> DataType {
        match self {
            Self::Start | Self::Seconds => DataType::Float64,
            Self::Rate | Self::Channels | Self::Bands => DataType::Int64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Seconds => "seconds",
            Self::Rate => "rate",
            Self::Channels => "channels",
            Self::Bands => "bands",
        }
    }
}

/// A way to call a function: what follows the first argument, and how many of these are required.
pub(super) struct Form {
    pub rest: &'static [Rest],
    pub required: usize,
}

/// Whether a first argument of this type is an address, rather than samples.
pub(super) fn is_address(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_address(value),
        _ => false,
    }
}

/// The types that arguments are taken as.
pub(super) fn coerced(name: &str, form: &Form, arguments: &[DataType]) -> Result<Vec<DataType>> {
    let Some((first, rest)) = arguments.split_first() else {
        return plan_err!("{name} takes the address of a recording");
    };
    if rest.len() < form.required || rest.len() > form.rest.len() {
        let names: Vec<&str> = form.rest.iter().map(|rest| rest.name()).collect();
        return match names.as_slice() {
            [] => plan_err!("{name} takes 1 argument, not {}", arguments.len()),
            names => plan_err!(
                "after its first argument {name} takes {} ({} required), not {} arguments",
                names.join(", "),
                form.required,
                rest.len()
            ),
        };
    }
    let first = match element_of(first) {
        _ if is_address(first) => DataType::Utf8,
        Some(element) if element.data_type().is_numeric() || element.data_type().is_null() => {
            super::super::column::with_element(first, &DataType::Float32)
        }
        _ => {
            return plan_err!(
                "{name} takes the address of a recording, or samples with their rate, not {}",
                type_name(first)
            );
        }
    };
    let rest = form.rest.iter().zip(rest).map(|(wanted, given)| {
        if given.is_numeric() || given.is_null() {
            return Ok(wanted.data_type());
        }
        plan_err!("{} of {name} must be a number, not {}", wanted.name(), type_name(given))
    });
    std::iter::once(Ok(first)).chain(rest).collect()
}

/// The values of one argument after the first.
pub(super) struct Values<'a>(Option<&'a ArrayRef>);

impl Values<'_> {
    fn number(&self, row: usize) -> Option<f64> {
        let numbers = self.0?.as_primitive_opt::<Float64Type>()?;
        numbers.is_valid(row).then(|| numbers.value(row))
    }

    fn integer(&self, row: usize) -> Option<i64> {
        let numbers = self.0?.as_primitive_opt::<Int64Type>()?;
        numbers.is_valid(row).then(|| numbers.value(row))
    }
}

/// The rows of a call, each an [`Item`] or NULL.
pub(super) struct Inputs<'a> {
    name: &'static str,
    first: Argument,
    address: bool,
    start: Values<'a>,
    seconds: Values<'a>,
    rate: Values<'a>,
    channels: Values<'a>,
}

/// What one row is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item<'a> {
    Recording(&'a str, Part),
    Samples { values: &'a [f32], rate: u32, channels: usize },
}

impl<'a> Inputs<'a> {
    pub(super) fn new(name: &'static str, form: &Form, arrays: &'a [ArrayRef]) -> Result<Self> {
        let Some(first) = arrays.first() else { return exec_err!("{name} takes arguments") };
        let values = |rest: Rest| {
            Values(form.rest.iter().position(|other| *other == rest).and_then(|at| arrays.get(at + 1)))
        };
        Ok(Self {
            name,
            address: first.data_type() == &DataType::Utf8,
            first: Argument::column(first),
            start: values(Rest::Start),
            seconds: values(Rest::Seconds),
            rate: values(Rest::Rate),
            channels: values(Rest::Channels),
        })
    }

    /// Every row's item; `None` where an argument is NULL.
    ///
    /// # Errors
    /// For a sample rate or a number of channels that cannot be.
    pub(super) fn items(&self) -> Result<Vec<Option<Item<'_>>>> {
        let rows = 0..self.first.array().len();
        if self.address {
            let uris = self.first.array().as_string::<i32>();
            let part = |row| {
                let given = |values: &Values<'_>| values.0.is_some();
                let start_s = if given(&self.start) { self.start.number(row)? } else { 0.0 };
                let seconds = if given(&self.seconds) { Some(self.seconds.number(row)?) } else { None };
                Some(Part { start_s, seconds })
            };
            let item = |row| Some(Item::Recording(uris.value(row), part(row)?));
            return Ok(rows.map(|row| if uris.is_valid(row) { item(row) } else { None }).collect());
        }
        let samples = Rows::<Float32Type>::new(&self.first)?;
        rows.map(|row| {
            let (Some(values), Some(rate)) = (samples.get(row), self.rate.integer(row)) else {
                return Ok(None);
            };
            let channels = match self.channels.0 {
                None => 1,
                Some(_) => match self.channels.integer(row) {
                    None => return Ok(None),
                    Some(channels) => channels,
                },
            };
            let Some(rate) = u32::try_from(rate).ok().filter(|rate| (1..=MAX_RATE).contains(rate)) else {
                return exec_err!("{} takes sample rates from 1 to {MAX_RATE} Hz, not {rate}", self.name);
            };
            match usize::try_from(channels) {
                Ok(channels) if channels > 0 && values.len().is_multiple_of(channels) => {
                    Ok(Some(Item::Samples { values, rate, channels }))
                }
                _ => exec_err!("{}: {} samples are not of {channels} channels", self.name, values.len()),
            }
        })
        .collect()
    }
}

/// The highest sample rate of samples, in Hz, as of files.
const MAX_RATE: u32 = 384_000;

/// Samples, one channel after the other, as audio.
pub(super) fn audio_of(values: &[f32], rate: u32, channels: usize) -> Result<Audio, AudioError> {
    let frames = (values.len() / channels).max(1);
    let audio = Audio { rate, channels: values.chunks(frames).map(<[f32]>::to_vec).collect() };
    if audio.is_finite() && audio.frames() > 0 {
        return Ok(audio);
    }
    Err(AudioError::new(RejectKind::NotFinite, "no samples, or some that are not finite"))
}

/// The distinct items, and for every row which of them it has.
pub(super) fn distinct<'a>(items: &[Option<Item<'a>>]) -> (Vec<Item<'a>>, Vec<Option<usize>>) {
    let mut known = HashMap::new();
    let mut distinct = Vec::new();
    let places = items.iter().map(|item| {
        let item = item.as_ref()?;
        let place = match item {
            Item::Recording(uri, part) => {
                let key = (*uri, part.start_s.to_bits(), part.seconds.map(f64::to_bits));
                *known.entry(key).or_insert(distinct.len())
            }
            Item::Samples { .. } => distinct.len(),
        };
        if place == distinct.len() {
            distinct.push(item.clone());
        }
        Some(place)
    });
    let places = places.collect();
    (distinct, places)
}
