//! A page of views: each before and after, with players, waveforms, spectrograms and every parameter.
//!
//! The page is a plain file without scripts, and needs no network. Whatever comes from data is escaped.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::json::writer::{JsonArray, WriterBuilder};
use loev_ops::chain::Chain;
use loev_ops::operator::ParamKind;
use loev_ops::views::Draw;
use loev_ops::wav::write_wav;
use loev_ops::{Audio, AudioError};

use crate::error::RunError;
use crate::exec::columns::text;
use crate::exec::draw::VIEW_ID;
use crate::exec::render::{Output, ViewRenderer};
use crate::report::html::escape;
use crate::run::interrupt::Interrupt;
use crate::run::views::StoredView;

mod picture;

const STYLE: &str = include_str!("page.css");

/// Writes the page of `views` and its files into `folder`; returns where the page is.
///
/// # Errors
/// When a file cannot be written. A view that cannot be rendered is a line on the page.
pub fn write(folder: &Path, views: &[StoredView], interrupt: &Interrupt) -> Result<PathBuf, RunError> {
    fs::create_dir_all(folder).map_err(RunError::io("cannot create", folder))?;
    let mut body = String::new();
    for (i, view) in views.iter().enumerate() {
        interrupt.check()?;
        let name = format!("{:03}", i + 1);
        let id = text(&view.row, VIEW_ID)?.value(0).to_owned();
        let _ = write!(body, "<section><h2>{}</h2>", escaped(&id));
        let sidecar = folder.join(format!("{name}.json"));
        fs::write(&sidecar, row_as_json(&view.row)?).map_err(RunError::io("cannot write", &sidecar))?;
        match pair(view) {
            Ok((before, after)) => {
                let _ = write!(body, "<p class=chain>{}</p>", escaped(&applied(&view.chain, &view.draw)));
                let _ =
                    write!(body, "<p><a href={name}.json>all parameters and labels</a></p><div class=pair>");
                for (what, audio) in [("before", &before), ("after", &after)] {
                    sound(folder, &format!("{name}-{what}"), what, audio, &mut body)?;
                }
                body.push_str("</div>");
            }
            Err(error) => {
                let _ = write!(body, "<p class=error>{}: {}</p>", error.kind, escaped(&error.message));
            }
        }
        body.push_str("</section>");
    }
    let page = folder.join("index.html");
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Views</title><style>{STYLE}</style><h1>{} views, before and after</h1>{body}</html>\n",
        views.len()
    );
    fs::write(&page, html).map_err(RunError::io("cannot write", &page))?;
    Ok(page)
}

/// The clip as it sounds around the centre of the view, and the view.
fn pair(view: &StoredView) -> Result<(Audio, Audio), AudioError> {
    let StoredView { chain, draw, uri, .. } = view;
    let mut renderer = ViewRenderer::new(chain, &Output::Audio)?;
    let frames = chain.frames();
    let source = renderer.read(uri, draw)?;
    let first = (source.frames().saturating_sub(frames)) / 2;
    let middle = |channel: &Vec<f32>| channel.iter().skip(first).take(frames).copied().collect();
    let before = Audio { rate: source.rate, channels: source.channels.iter().map(middle).collect() };
    let samples = renderer.render(uri, std::slice::from_ref(draw))?;
    let channels = samples.chunks_exact(frames).map(<[f32]>::to_vec).collect();
    Ok((before, Audio { rate: chain.sample_rate, channels }))
}

/// Writes one sound and its picture, and what the page shows of them.
fn sound(folder: &Path, name: &str, what: &str, audio: &Audio, body: &mut String) -> Result<(), RunError> {
    let channels: Vec<&[f32]> = audio.channels.iter().map(Vec::as_slice).collect();
    write_wav(&folder.join(format!("{name}.wav")), audio.rate, &channels)
        .map_err(|e| RunError::Engine(e.to_string()))?;
    let mono = audio.to_mono();
    let path = folder.join(format!("{name}.png"));
    picture::spectrogram(&path, &mono, audio.rate)?;
    let _ = write!(
        body,
        "<figure><figcaption>{what}</figcaption><audio controls preload=none src={name}.wav></audio>{}\
         <img src={name}.png alt=\"mel spectrogram\"></figure>",
        picture::waveform(&mono)
    );
    Ok(())
}

/// What was done, in order: `pitch_shift semitones 2.31 · gain db -4.2 dB`.
fn applied(chain: &Chain, draw: &Draw) -> String {
    let steps = chain.processing(draw).map(|(spec, params)| {
        let mut step = spec.name().to_owned();
        for (def, value) in spec.def().params.iter().zip(params) {
            let _ = match &def.kind {
                ParamKind::Number { .. } => write!(step, " {} {}", def.name, rounded(*value)),
                ParamKind::Choice { options, .. } => {
                    write!(step, " {} {}", def.name, options.get(*value as usize).unwrap_or(&"?"))
                }
            };
            if !def.unit.is_empty() && !def.name.ends_with(def.unit) {
                let _ = write!(step, " {}", def.unit);
            }
        }
        step
    });
    let steps: Vec<String> = steps.collect();
    if steps.is_empty() { "nothing".to_owned() } else { steps.join(" · ") }
}

/// Three significant digits or so: enough to read, the exact value is in the sidecar.
fn rounded(value: f64) -> String {
    match value.abs() {
        x if x >= 1000.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn row_as_json(row: &RecordBatch) -> Result<Vec<u8>, RunError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write(row)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Text as it may stand in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clips_cannot_become_markup() {
        assert_eq!(escaped("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.1234, -12.345, 4321.9].map(rounded), ["0.12", "-12.3", "4322"]);
    }
}
