//! Clips that are decoded once: what reads them hears what it would have heard, and nothing is decoded twice.

use std::collections::BTreeMap;
use std::fs;

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;

use crate::support::{Workplace, errors, table, tone};

const PIPELINE: &str = "
name: decoded
seed: 3
stages:
  clips: { files: { path: music/list.csv, shards: 3 } }
  pcm: { decode: { from: clips } }
  views:
    views:
      from: pcm
      seconds: 1
      segments: 2
      materialize: true
      base: [ {gain: {db: [-15, 0]}} ]
      variant: [ {time_stretch: {rate: [0.7, 1.3]}} ]
  mels: { features: { from: pcm, seconds: 1, front_end: { mels: 32 } } }
";

/// Mono files of 22.05 kHz, a stereo one of 44.1 kHz, one that breaks off in its middle, and text.
fn folder() -> Workplace {
    let here = Workplace::new();
    for (i, hz) in [110.0, 155.6, 220.0, 311.1, 440.0].into_iter().enumerate() {
        here.write(&format!("music/{i}.wav"), tone(3.0 + 0.5 * i as f64, hz));
    }
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 44_100,
        bits_per_sample: 24,
        sample_format: hound::SampleFormat::Int,
    };
    let mut stereo = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut stereo, spec).unwrap();
    // More than one piece.
    for i in 0..44_100 * 23 {
        let sample = |hz: f64| ((f64::from(i) / 44_100.0 * hz * std::f64::consts::TAU).sin() * 4e6) as i32;
        writer.write_sample(sample(300.0)).unwrap();
        writer.write_sample(sample(451.0)).unwrap();
    }
    writer.finalize().unwrap();
    here.write("music/stereo.wav", stereo.into_inner());
    let mut flac = include_bytes!("../../ops/fixtures/chirp.flac").to_vec();
    let (from, to) = (flac.len() * 2 / 5, flac.len() / 2);
    flac[from..to].fill(0);
    here.write("music/hole.flac", flac);
    here.write("music/broken.wav", "RIFF of nothing");
    labelled(&here, "a");
    here.write("p.yaml", PIPELINE);
    here
}

fn labelled(here: &Workplace, label: &str) {
    let files = ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "stereo.wav", "hole.flac", "broken.wav"];
    let rows: String = files.iter().map(|file| format!("{file},{label}\n")).collect();
    here.write("music/list.csv", format!("path,label\n{rows}"));
}

/// The files of samples of a run.
fn samples(here: &Workplace, run: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(here.path(run).join("audio/pcm")).unwrap().map(Result::unwrap);
    files.map(|f| (f.file_name().to_string_lossy().into_owned(), fs::read(f.path()).unwrap())).collect()
}

#[test]
fn what_reads_decoded_clips_hears_the_same() {
    let here = folder();
    for threads in ["1", "3"] {
        here.done(&["run", "p.yaml", "--out", threads, "--threads", threads]);
    }
    assert!(here.results("1") == here.results("3") && samples(&here, "1") == samples(&here, "3"));

    let clips = "select clip_id, seconds, rate, channels, frames, bytes, clipped, label, \
                 ends_with(source_uri, '/music/' || clip_id) as known from pcm where clip_id >= '4' order by 1";
    let rows = ["4.wav,5.0,16000,1,80000,160000,0,a,true", "stereo.wav,23.0,16000,1,368000,736000,0,a,true"];
    assert_eq!(here.sql("1", clips), rows);
    let rejects = "select stage, clip_id, reason, whole from rejects order by 2";
    assert_eq!(here.sql("1", rejects), ["clips,broken.wav,unsupported,true", "pcm,hole.flac,corrupt,true"]);
    let bytes: usize = samples(&here, "1").values().map(Vec::len).sum();
    assert_eq!(here.sql("1", "select sum(bytes) from pcm"), [bytes.to_string()]);

    let from = ["--set", "stages.views.views.from=clips", "--set", "stages.mels.features.from=clips"];
    here.done(&[&["run", "p.yaml", "--out", "direct"][..], &from].concat());
    let drawn =
        "select view_id, seconds, centre_s, draw_key from views where clip_id <> 'hole.flac' order by 1";
    assert_eq!(here.sql("1", drawn), here.sql("direct", drawn));
    // A view begins at the nearest frame of what it is read from: up to 54 us apart, of 451 Hz at most.
    let shift = 451.0 * std::f32::consts::TAU * 0.48 * (0.5 / 16_000.0 + 0.5 / 22_050.0);
    for (stored, column, least, most) in
        [("views_audio", "audio", -1.0, shift), ("mels", "features", 0.0, 0.25)]
    {
        let values = |run: &str| {
            let rows = table(&here.path(run), stored);
            let ids = rows.column_by_name("view_id").unwrap().as_string::<i32>().clone();
            let wide = rows.column_by_name(column).unwrap().as_fixed_size_list().clone();
            let row = |i: usize| wide.value(i).as_primitive::<Float32Type>().values().to_vec();
            let rows = ids.iter().enumerate().map(|(i, id)| (id.unwrap().to_owned(), row(i)));
            rows.filter(|(id, _)| !id.starts_with("hole")).collect::<BTreeMap<_, _>>()
        };
        let (decoded, direct) = (values("1"), values("direct"));
        assert!(decoded.len() > 20 && decoded.keys().eq(direct.keys()), "{:?}", decoded.keys());
        for (id, values) in &decoded {
            // In a band with nothing but the rounding, the level is that of the rounding.
            let heard = values.iter().zip(&direct[id]).filter(|(a, b)| a.max(**b) > least);
            let worst = heard.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < most, "{id}: {column} differs by {worst}");
        }
    }
}

#[test]
fn a_run_that_moves_takes_its_samples_with_it() {
    let here = folder();
    here.done(&["run", "p.yaml", "--out", "out"]);
    let report = here.done(&["verify", "out"]);
    assert!(report.contains("equal to the stored audio") && !report.contains("FAULT"), "{report}");
    fs::create_dir(here.path("elsewhere")).unwrap();
    fs::rename(here.path("out"), here.path("elsewhere/run")).unwrap();
    fs::remove_dir_all(here.path("music")).unwrap();

    let run = "elsewhere/run";
    let heard = "select count(*), count(*) filter (where audio_error(uri) is null), min(loudness(uri)) > -30 from pcm";
    assert_eq!(here.sql(run, heard), ["6,6,true"]);
    let report = here.loev(&["verify", run]);
    let report = String::from_utf8(report.stdout).unwrap();
    let faults: Vec<&str> = report.lines().filter(|line| line.starts_with("FAULT")).collect();
    assert!(faults.iter().all(|fault| fault.contains("sources")), "{faults:?}");
    let view = here.sql(run, "select view_id from views order by 1 limit 1");
    here.done(&["replay", run, &view[0], "--output", "view.wav"]);
    assert!(fs::metadata(here.path("view.wav")).unwrap().len() > 32_000);
    here.done(&["listen", run, "--output", "page"]);

    // One bit.
    let (name, mut bytes) = samples(&here, run).pop_last().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(here.path(run).join("audio/pcm").join(&name), bytes).unwrap();
    let report = String::from_utf8(here.loev(&["verify", run]).stdout).unwrap();
    assert!(report.contains(&format!("audio/pcm/{name}: its content is another")), "{report}");
}

#[test]
fn only_what_changed_is_decoded_again() {
    let here = folder();
    here.done(&["run", "p.yaml", "--out", "out"]);
    let decoded =
        || here.sql("out", "select file, finished_s from receipts where \"table\" = 'pcm_audio' order by 1");
    let (before, all) = (decoded(), samples(&here, "out"));
    assert_eq!((before.len(), all.len()), (3, 3));
    assert!(here.done(&["run", "p.yaml", "--out", "out"]).contains("nothing to do"));

    labelled(&here, "b");
    here.done(&["run", "p.yaml", "--out", "out"]);
    assert_eq!(here.sql("out", "select distinct label from pcm"), ["b"]);
    assert_eq!((decoded(), samples(&here, "out")), (before.clone(), all.clone()), "a label is no sound");

    here.write("music/0.wav", tone(3.0, 500.0));
    here.done(&["run", "p.yaml", "--out", "out"]);
    let kept = decoded().iter().filter(|shard| before.contains(shard)).count();
    assert_eq!(
        (kept, samples(&here, "out").len()),
        (2, 3),
        "one shard is made again, and its old file is gone"
    );

    // A file of samples that is gone, or shorter, is made again.
    let (name, bytes) = samples(&here, "out").pop_first().unwrap();
    fs::write(here.path("out/audio/pcm").join(&name), &bytes[2..]).unwrap();
    let plan = here.done(&["plan", "p.yaml", "--out", "out"]);
    assert!(plan.contains("audio/pcm") && plan.contains("to do: 1 of 6 shards"), "{plan}");
    here.done(&["run", "p.yaml", "--out", "out"]);
    assert_eq!(samples(&here, "out")[&name], bytes);

    let mels = "select count(*) from mels";
    let count = here.sql("out", mels);
    let stereo =
        ["--set", "stages.pcm.decode.channels=stereo", "--set", "stages.pcm.decode.sample_rate=22050"];
    here.done(&[&["run", "p.yaml", "--out", "out"][..], &stereo].concat());
    assert_eq!(here.sql("out", "select distinct rate, channels from pcm"), ["22050,2"]);
    assert_eq!(here.sql("out", mels), count);
    // 16-bit files at their own rate come back bit for bit.
    let tone = &tone(3.5, 155.6)[44..];
    let both: Vec<u8> = tone.chunks(2).flat_map(|sample| [sample, sample].concat()).collect();
    let stored = samples(&here, "out");
    let found = stored.values().any(|file| file.windows(both.len()).step_by(4).any(|part| part == both));
    assert!(found, "1.wav, twice side by side");
}

#[test]
fn a_failure_at_any_step_of_decoding_loses_nothing() {
    let here = folder();
    here.write("p.yaml", PIPELINE.split("  views:").next().unwrap());
    here.done(&["run", "p.yaml", "--out", "whole"]);
    let reference = (here.results("whole"), samples(&here, "whole"));
    let faults = [
        "samples.create:2:kill",
        "samples.create:2:full",
        "samples.write:3:kill",
        "samples.write:3:full",
        "samples.sync:2:kill",
        "samples.rename:2:denied",
        "samples.rename:3:kill",
        "table.rename:5:kill",
        "receipt.write:5:kill",
        "receipt.sync:5:full",
    ];
    for fault in faults {
        let failed = here.with_fault(fault, &["run", "p.yaml", "--out", "out"]);
        assert!(!failed.status.success(), "{fault} did not fail");
        assert!(
            fault.ends_with("kill") || errors(&failed).contains("cannot"),
            "{fault}: {}",
            errors(&failed)
        );
        here.done(&["run", "p.yaml", "--out", "out"]);
        assert!((here.results("out"), samples(&here, "out")) == reference, "after {fault}");
        fs::remove_dir_all(here.path("out")).unwrap();
    }
}

#[test]
fn what_cannot_be_decoded_is_told_before_anything_is() {
    let here = folder();
    let sql = |select: &str| {
        let query = format!("  few: {{ sql: \"{select}\" }}\n  pcm: {{ decode: {{ from: few }} }}\n");
        here.write(
            "p.yaml",
            format!("name: p\nstages:\n  clips: {{ files: {{ path: music/list.csv }} }}\n{query}"),
        );
        here.loev(&["run", "p.yaml", "--out", "out"])
    };
    for (select, told) in [
        ("select clip_id, seconds from clips", "the input has no column `uri`"),
        ("select *, 1 as clipped from clips", "the input has a column `clipped`"),
        ("select * from clips union all select * from clips", "are of the clip"),
    ] {
        let output = sql(select);
        assert_eq!(output.status.code(), Some(1), "{select}");
        assert!(errors(&output).contains(told), "{select}: {}", errors(&output));
    }
    // No more than what is needed, and as labels what is not of the sound.
    assert!(sql("select uri, clip_id, seconds, bytes as rate, 7 as style from clips").status.success());
    assert_eq!(here.sql("out", "select distinct rate, style from pcm"), ["16000,7"]);
}
