//! `files`: a folder, a glob or a manifest of audio, on this machine or in an object store. Every file is probed; those
//! that cannot be used become rejects, the others clips with what the probe found and the labels of the manifest.
//!
//! ```text
//! list (names, sizes, stamps) ─► shards ─► probe the files that are new or have changed ─► clips
//!                                              │
//!                      receipts/<stage>/ ◄─────┘ what each probe found, to be used again
//! ```
//!
//! A file counts as unchanged while its size and its times of modification are; whether content changed is then told by
//! its digest, so that touching a file costs a probe and nothing more. Of an object these are its size and entity tag,
//! which a listing tells without a request for each.

mod listing;
mod manifest;
mod probe;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use loev_ops::jams;
use loev_sql::Location;

pub use listing::Listing;
use listing::{Annotations, Found, Named, from_folder, from_glob, parsed};
use manifest::from_manifest;
use probe::{Info, Outcomes, Probe, Prober};

use super::clips::{self, shard_count, shard_of};
use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::exec::write::TableWriter;
use crate::resume::recipe::{Recipe, combined};
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::rejects::Reject;
use crate::spec::Kind;
use crate::spec::stage::Files;

/// What a `files` stage has to make: its files are listed, not read.
///
/// # Errors
/// When the folder or the manifest cannot be read, or two files have one name.
pub async fn work(name: &str, options: &Files) -> Result<Work, RunError> {
    let place = parsed(name, &options.path)?;
    let (named, labels) = if options.is_manifest() {
        from_manifest(name, options, &place).await?
    } else if options.is_glob() {
        (from_glob(name, &place)?, None)
    } else {
        (from_folder(name, options, &place)?, None)
    };
    let jams = options.jams.as_ref().map(|folder| Annotations::in_folder(name, folder)).transpose()?;
    let found = |Named { clip_id, source, stamp }: Named| {
        let annotations = jams.as_ref().and_then(|jams| jams.of_clip(&clip_id));
        Found { clip_id, source, stamp, annotations }
    };
    let files: Vec<Found> = named.into_iter().map(found).collect();
    let exists = |place: &Location| place.as_path().is_none_or(Path::exists);
    if let Some(folder) = &options.jams
        && !files.iter().filter_map(|file| file.annotations.as_ref()).any(|(place, _)| exists(place))
    {
        return Err(RunError::stage(name, format!("no clip has a JAMS file under {folder}")));
    }
    let count = shard_count(options.shards, files.len() as u64);
    let mut shards = vec![Vec::new(); count as usize];
    for (i, file) in files.iter().enumerate() {
        if let Some(shard) = shards.get_mut(shard_of(&file.clip_id, count) as usize) {
            shard.push(i as u32);
        }
    }
    for shard in &mut shards {
        shard.sort_by(|a, b| files[*a as usize].clip_id.cmp(&files[*b as usize].clip_id));
        let twice = |pair: &&[u32]| files[pair[0] as usize].clip_id == files[pair[1] as usize].clip_id;
        if let Some(pair) = shard.windows(2).find(twice) {
            let message = format!("two clips are named `{}`", files[pair[0] as usize].clip_id);
            return Err(RunError::stage(name, message));
        }
    }
    let listing = Listing { files, labels, shards };
    let told = listing.labels_told()?;
    let content: Vec<String> =
        listing.shards.iter().map(|shard| listing.content(shard, told.as_deref())).collect();
    let recipe = Recipe::new(Kind::Files, probe::VERSION)
        .options(options, &["path", "audio", "labels", "jams", "extensions", "follow_links", "shards"])
        .with("labels", listing.labels.as_ref().map(|labels| format!("{:?}", labels.schema_ref().fields())))
        .with("jams", options.jams.is_some());
    let shards = clips::shards(name, &recipe, count, |number| {
        content.get(number as usize).cloned().unwrap_or_default()
    });
    let all = Content { digest: combined(content.iter().map(String::as_str)) };
    let recipe = recipe.with("shards", count).with("count", listing.files.len()).with("files", all);
    Ok(Work { listing: Some(Arc::new(listing)), ..Work::each(recipe, shards) })
}

/// Probes the files of a `files` stage and writes its clips, shard by shard.
///
/// # Errors
/// When a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Files) -> Result<Outcome, RunError> {
    let listing = job.listing.as_ref().ok_or_else(|| RunError::stage(name, "its files are not listed"))?;
    let todo = job.todo(name);
    let of_shard = |shard: &Shard| clips::part_of(&listing.shards, shard);
    let files = todo.iter().map(|shard| of_shard(shard).len() as u64).sum();
    let stage = context.stage(name, files, "files");
    let dir = context.dir.create_table(name)?;
    let memory = context.dir.memory(name);
    fs::create_dir_all(&memory).map_err(RunError::io("cannot create", &memory))?;
    let prober = Prober::new(context, &stage, options);
    for (number, shard) in todo.iter().enumerate() {
        let chosen = of_shard(shard);
        let remembered = memory.join(&shard.file);
        let probes = prober.probe(listing, chosen, &remembered).await?;
        let mut found = Vec::new();
        let mut rows = Vec::new();
        let mut jams = Vec::new();
        for (i, Probe { outcome, labels }) in chosen.iter().zip(&probes) {
            let file = &listing.files[*i as usize];
            let reject = |reason: &str, message: &str| {
                let (clip_id, uri) = (file.clip_id.clone(), file.source.uri());
                let (reason, message) = (reason.to_owned(), message.to_owned());
                stage.rejects.add(number, Reject { clip_id, uri, reason, message, whole: true });
            };
            match (outcome, labels) {
                (Outcomes::Good(info), Ok(labels)) => {
                    rows.push(*i);
                    found.push((file, info));
                    jams.push(labels.clone());
                }
                (Outcomes::Bad { reason, message }, _) => reject(reason, message),
                (_, Err(error)) => reject(error.kind.as_str(), &error.message),
            }
        }
        let mut labels = Vec::new();
        if let Some(table) = &listing.labels {
            let rows = take_record_batch(table, &UInt32Array::from(rows))?;
            let fields = table.schema_ref().fields().iter().map(|field| field.as_ref().clone());
            labels.extend(fields.zip(rows.columns().to_vec()));
        }
        if options.jams.is_some() {
            labels.extend(jams::columns(&jams)?);
        }
        let clips = clips(name, &found, labels)?;
        let schema = clips::with_shard_field(clips.schema_ref());
        let clips = clips::with_shard(&clips, &schema, clips::number_of(&shard.file).unwrap_or_default())?;
        let mut writer = TableWriter::create(&dir.join(&shard.file), &schema)?;
        writer.write(clips)?;
        let written = writer.finish()?;
        prober.remember(listing, chosen, &probes, &remembered)?;
        job.enter(written.receipt(name, &shard.recipe, stage.rejects.take(number)))?;
    }
    stage.bar.finish();
    let good = context.table(name)?;
    let mut hours = 0.0;
    for rows in good.read(&[SECONDS])? {
        hours += crate::exec::columns::number(&rows, SECONDS)?.values().iter().sum::<f64>() / 3600.0;
    }
    Ok(Outcome::note(format!("{} of {} files, {hours:.1} h of audio", good.rows(), listing.files.len())))
}

/// The table of clips: what the probe found, then the labels.
fn clips(
    stage: &str,
    found: &[(&Found, &Info)],
    labels: Vec<(Field, ArrayRef)>,
) -> Result<RecordBatch, RunError> {
    let texts = |f: &dyn Fn(&(&Found, &Info)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(f)))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (CLIP_ID, texts(&|(file, _)| file.clip_id.clone())),
        (URI, texts(&|(file, _)| file.source.uri())),
        (SECONDS, Arc::new(Float64Array::from_iter_values(found.iter().map(|(_, i)| i.seconds)))),
        ("rate", Arc::new(Int32Array::from_iter_values(found.iter().map(|(_, i)| i.rate as i32)))),
        (
            "channels",
            Arc::new(Int32Array::from_iter_values(found.iter().map(|(_, i)| i32::from(i.channels)))),
        ),
        ("frames", Arc::new(Int64Array::from_iter_values(found.iter().map(|(_, i)| i.frames as i64)))),
        ("container", texts(&|(_, info)| info.container.clone())),
        ("codec", texts(&|(_, info)| info.codec.clone())),
        ("bytes", Arc::new(Int64Array::from_iter_values(found.iter().map(|(_, i)| i.bytes as i64)))),
        ("digest", texts(&|(_, info)| info.digest.clone())),
    ];
    let mut fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), false)).collect();
    let mut columns: Vec<ArrayRef> = columns.drain(..).map(|(_, column)| column).collect();
    for (field, column) in labels {
        if fields.iter().any(|known| known.name() == field.name()) || field.name() == "shard" {
            return Err(RunError::stage(
                stage,
                format!(
                    "the manifest's column `{0}` has the name of a column that is there already; give it another with \
                     `labels: {{my_{0}: {0}}}`",
                    field.name()
                ),
            ));
        }
        fields.push(field);
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;
    use loev_ops::source::Source;
    use loev_sql::store;

    use super::*;
    use crate::resume::work::Shards;

    fn place(name: &str) -> Location {
        Location::parse(&format!("s3://test-bucket/{name}")).unwrap()
    }

    fn put(name: &str, text: &str) {
        store::write(&place(name), text.as_bytes().to_vec()).unwrap();
    }

    fn listed(path: &str, jams: Option<&str>) -> Result<Work, RunError> {
        let options = serde_json::json!({ "path": path, "shards": 8, "jams": jams });
        let options: Files = serde_json::from_value(options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        runtime.block_on(work("music", &options))
    }

    fn files(work: &Work) -> &[Found] {
        &work.listing.as_ref().unwrap().files
    }

    fn names(work: &Work) -> Vec<&str> {
        files(work).iter().map(|file| file.clip_id.as_str()).collect()
    }

    /// The shards whose recipes differ.
    fn changed(one: &Work, other: &Work) -> Vec<usize> {
        let (Shards::Each(one), Shards::Each(other)) = (&one.shards, &other.shards) else { panic!() };
        assert_eq!(one.len(), 8);
        (0..8).filter(|i| one[*i] != other[*i]).collect()
    }

    #[test]
    fn folders_globs_and_manifests_in_a_bucket_are_listed() {
        store::register("s3://test-bucket", Arc::new(InMemory::new())).unwrap();
        for name in ["a 1.wav", "b/2.FLAC", "b/2.jams", "b/c/3.wav", "notes.txt", "50%.wav"] {
            put(&format!("music/{name}"), name);
        }
        put("other/4.wav", "4");

        let folder = listed("s3://test-bucket/music/", Some("s3://test-bucket/music")).unwrap();
        assert_eq!(names(&folder), ["50%.wav", "a 1.wav", "b/2.FLAC", "b/c/3.wav"]);
        assert_eq!(files(&folder)[1].source, Source::Remote("s3://test-bucket/music/a 1.wav".to_owned()));
        let annotated: Vec<bool> = files(&folder).iter().map(|file| file.annotations.is_some()).collect();
        assert_eq!(annotated, [false, false, true, false]);

        let glob = |pattern: &str| {
            let work = listed(&format!("s3://test-bucket/{pattern}"), None)?;
            Ok::<_, RunError>(names(&work).join(" "))
        };
        assert_eq!(glob("music/*.wav").unwrap(), "50%.wav a 1.wav");
        assert_eq!(glob("music/**/*.wav").unwrap(), "50%.wav a 1.wav b/c/3.wav");
        assert_eq!(glob("*/b/?.FLAC").unwrap(), "music/b/2.FLAC");
        assert!(
            glob("music/*.mp3")
                .unwrap_err()
                .to_string()
                .contains("no audio file under s3://test-bucket/music")
        );

        put(
            "music/lists/all 1%.csv",
            "path,key\n../b/2.FLAC,C\nnone.wav,D\nhttp://x/5.wav,E\n../../../6.wav,F\ns3://test-bucket/other/4.wav,G\n",
        );
        let list = "s3://test-bucket/music/lists/all 1%.csv";
        let manifest = listed(list, None).unwrap();
        let uris: Vec<String> = files(&manifest).iter().map(|file| file.source.uri()).collect();
        assert_eq!(
            uris,
            [
                "s3://test-bucket/music/b/2.FLAC",
                "s3://test-bucket/music/lists/none.wav",
                "http://x/5.wav",
                "s3://test-bucket/music/lists/../../../6.wav",
                "s3://test-bucket/other/4.wav",
            ]
        );
        assert_eq!(names(&manifest)[0], "../b/2.FLAC");
        assert!(
            listed("s3://test-bucket/no.csv", None).unwrap_err().to_string().contains("there is no manifest")
        );

        // An object with new bytes changes its own shard; so do new annotations.
        let jams = || listed("s3://test-bucket/music", Some("s3://test-bucket/music")).unwrap();
        assert_eq!(changed(&folder, &jams()), Vec::<usize>::new());
        put("music/b/2.FLAC", "others");
        let shard = |name: &str| shard_of(name, 8) as usize;
        assert_eq!(changed(&folder, &jams()), [shard("b/2.FLAC")]);
        assert_eq!(changed(&manifest, &listed(list, None).unwrap()), [shard("../b/2.FLAC")]);
        assert_ne!(folder.recipe.digest(), jams().recipe.digest());
        let before = jams();
        put("music/b/2.jams", "labels");
        assert_eq!(changed(&before, &jams()), [shard("b/2.FLAC")]);
    }
}
