//! A page with what a run found: one HTML file that needs no network, for a screen, a phone or paper.
//!
//! ```text
//! run ── ask (SQL) ──► sections of figures: drawing, SQL, data ──► Report ──► page: HTML, style, script, data
//!                      overview, training, intervals, similarity, response, map + sound
//! ```
//!
//! Figures get their data by SQL over the run, and say by which. A run that is unfinished, or lacks tables, gives a page
//! that says so. Nothing in a run can make the page run anything: data is
//! escaped where it enters markup (`html.rs`), and the page's own policy lets no script run but its own (`page.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loev_sql::Location;
use serde_json::{Map, Value, json};

use crate::error::RunError;
use crate::exec::pool::Pool;
use crate::resume::journal::durable_write;
use crate::run::interrupt::Interrupt;
use crate::spec::stage::{Report as Options, Sound};
use figure::{Report, figure_id};

mod ask;
mod chart;
mod figure;
pub(crate) mod html;
mod intervals;
mod map;
mod overview;
mod page;
mod parts;
mod response;
mod similarity;
mod sound;
mod training;
mod yaml;

/// A report that is made and not yet written.
#[derive(Debug)]
pub struct Made {
    /// The page.
    pub html: String,
    /// The figures on it.
    pub figures: Vec<Listed>,
    /// Sounds beside the page: names in its folder, and files.
    pub sounds: Vec<(String, Vec<u8>)>,
}

/// A figure of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The section's anchor.
    pub section: String,
    /// The figure's anchor.
    pub figure: String,
    /// Its title.
    pub title: String,
    /// The SQL that its data come from.
    pub sql: String,
}

/// Makes the report of the run in `root`. `folder` is where sounds beside the page will be, seen from the page.
///
/// # Errors
/// When there is no run that can be read, or the user asked to stop. What cannot be shown of a run is noted on its page.
pub async fn make(
    root: &Location,
    options: &Options,
    folder: &str,
    pool: &Pool,
    interrupt: &Interrupt,
) -> Result<Made, RunError> {
    let run = ask::Run::open(root, interrupt).await?;
    let spaces = match run.subspaces().await {
        Ok(spaces) => spaces,
        Err(error @ RunError::Interrupted) => return Err(error),
        // Each figure says for itself what is wrong with its table.
        Err(_) => Vec::new(),
    };
    let head = overview::head(&run).await?;
    let mut sections = vec![overview::stages(&run).await?];
    sections.extend(training::section(&run, &spaces).await?);
    sections.extend(intervals::sections(&run, &spaces).await?);
    let map = map::map(&run, options.clips, &spaces).await?;
    let mut sounds = sound::Sounds::default();
    let mut drawn = Value::Null;
    if let Some(mut map) = map {
        sounds = sound::sounds(&map.clips, options, pool, interrupt).await?;
        if let Some(figure) = map.section.figures.first_mut() {
            figure.caption = format!("{} {}", figure.caption, told(&sounds, options));
            map.data["sound"] = json!({
                "inline": options.audio == Sound::Inline,
                "folder": (options.audio == Sound::Beside).then(|| url_of(folder)),
                "of": sounds.files.iter().map(|(clip, _)| clip).collect::<Vec<_>>(),
                "failed": sounds.failed.iter().map(|(clip, why)| json!([clip, html::visible(why)])).collect::<Vec<_>>(),
            });
        }
        drawn = map.data;
        sections.push(map.section);
    }
    sections.extend(similarity::section(&run).await?);
    sections.extend(response::section(&run, &spaces).await?);
    sections.push(overview::rejected(&run).await?);
    let (last, files) = overview::reproduce(&run)?;
    sections.push(last);

    let (mut inside, mut beside) = (Map::new(), Vec::new());
    for (clip, file) in sounds.files {
        match options.audio {
            Sound::Inline => drop(inside.insert(clip.to_string(), STANDARD.encode(&file).into())),
            _ => beside.push((sound_name(clip), file)),
        }
    }
    let title = run.manifest.name.clone();
    let report = Report { title, head, sections, map: drawn, sound: Value::Object(inside), files };
    let figures = report.sections.iter().flat_map(|section| {
        section.figures.iter().enumerate().map(|(i, figure)| Listed {
            section: section.id.to_owned(),
            figure: figure_id(section, i),
            title: figure.title.clone(),
            sql: figure.sql.join(";\n\n"),
        })
    });
    Ok(Made { figures: figures.collect(), html: page::page(&report), sounds: beside })
}

/// Writes the page to `path`, and its sounds into a folder beside it ([`folder_of`]). Returns all files.
///
/// # Errors
/// When they cannot be written.
pub fn write(made: &Made, path: &Path) -> Result<Vec<PathBuf>, RunError> {
    let mut files = Vec::new();
    // A bare name has no folder to sync.
    let path = &std::path::absolute(path).map_err(RunError::io("cannot find", path))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(RunError::io("cannot create", parent))?;
    }
    if !made.sounds.is_empty() {
        let folder = path.with_file_name(folder_of(path));
        fs::create_dir_all(&folder).map_err(RunError::io("cannot create", &folder))?;
        for (name, bytes) in &made.sounds {
            let file = folder.join(name);
            fs::write(&file, bytes).map_err(RunError::io("cannot write", &file))?;
            files.push(file);
        }
    }
    durable_write(path, made.html.as_bytes())?;
    files.insert(0, path.to_owned());
    Ok(files)
}

/// The folder of sounds beside a page.
pub fn folder_of(page: &Path) -> String {
    let stem = page.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{stem}-sounds")
}

/// Names of clips are not names of files.
fn sound_name(clip: usize) -> String {
    format!("{clip:06}.opus")
}

/// A folder as it stands in an address.
fn url_of(folder: &str) -> String {
    folder.bytes().fold(String::new(), |mut url, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(byte)),
            other => url.push_str(&format!("%{other:02X}")),
        }
        url
    })
}

/// What is heard.
fn told(sounds: &sound::Sounds, options: &Options) -> String {
    let heard = sounds.files.len();
    if options.audio == Sound::None {
        return "Made without sound (--audio none).".to_owned();
    }
    let mut text = format!("{heard} can be heard, {} s from the middle of each", options.audio_seconds);
    if sounds.left_out > 0 {
        text.push_str(&format!(
            "; {} are silent for want of room (--audio-mb {})",
            sounds.left_out, options.audio_mb
        ));
    }
    if !sounds.failed.is_empty() {
        text.push_str(&format!("; {} cannot be read", sounds.failed.len()));
    }
    text + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_addresses() {
        assert_eq!(url_of(&folder_of(Path::new("out/my report #1.html"))), "my%20report%20%231-sounds");
    }
}
