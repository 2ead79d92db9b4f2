//! Every operator in pipelines put together at random: what is stored, replayed and fed to training is one sound,
//! and labels are true for it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type};
use loev_ops::draw_table::{chain_from_metadata, draws_from_batch};
use loev_ops::features::{FrontEnd, LogMel};
use loev_ops::mir::MusicalKey;
use loev_ops::operator::{Kernel, OperatorDef};
use loev_ops::operators::all;
use loev_ops::rng::{Key, Rng};
use loev_pipeline::exec::render::{Output, ViewRenderer};
use loev_pipeline::exec::scan::Table;
use serde_json::{Value, json};

use crate::support::{Workplace, errors, table};

const PIPELINES: usize = 4;

/// Deals all operators out to pipelines: some as factors, some alone, some in groups.
fn chains(rng: &mut Rng) -> Vec<(Vec<Value>, Vec<Value>)> {
    let mut deck: Vec<_> = all().iter().collect();
    rng.shuffle(&mut deck);
    let hands = deck.chunks(deck.len().div_ceil(PIPELINES));
    let chain = |hand: &[&&'static OperatorDef]| {
        let entry = |def: &OperatorDef| match def.partner() {
            Some(_) => json!({ def.name: {"p": 1, "from": "others"} }),
            None => json!({ def.name: {"p": 1} }),
        };
        let (factors, rest) = hand.split_at(2);
        let (still, moving): (Vec<&&OperatorDef>, Vec<&&OperatorDef>) = rest
            .iter()
            .copied()
            .partition(|def| matches!(def.kernel, Kernel::Samples(_) | Kernel::Partner(..)));
        let mut base: Vec<Value> = moving.iter().map(|def| entry(def)).collect();
        let (shuffled, some) = still.split_at(still.len() / 2);
        base.push(json!({"shuffle": shuffled.iter().map(|def| entry(def)).collect::<Vec<_>>()}));
        base.push(json!({"some_of": {"n": [1, some.len()], "of": some.iter().map(|def| entry(def)).collect::<Vec<_>>()}}));
        (factors.iter().map(|def| entry(def)).collect(), base)
    };
    hands.map(chain).collect()
}

fn pipeline(variant: &[Value], base: &[Value], channels: &str) -> String {
    // JSON is YAML.
    json!({
        "name": "random",
        "stages": {
            "clips": {"synth": {"clips": 3, "seconds": 14, "shards": 2}},
            "others": {"synth": {"clips": 4, "seconds": 2, "seed": 9, "shards": 1}},
            "views": {"views": {
                "from": "clips", "seconds": 1, "channels": channels, "segments": 2, "materialize": true,
                "variant": variant, "base": base
            }}
        }
    })
    .to_string()
}

/// The views of the run `random` beside their stored audio.
fn views(here: &Workplace) -> (RecordBatch, RecordBatch) {
    let run = here.path("runs/random");
    (table(&run, "views"), table(&run, "views_audio"))
}

#[test]
fn a_replayed_view_is_the_view_that_training_saw() {
    let mut applied = std::collections::BTreeSet::new();
    for (number, (variant, base)) in chains(&mut Key::root(20).rng()).iter().enumerate() {
        let here = Workplace::new();
        let channels = if number % 2 == 0 { "mono" } else { "stereo" };
        here.write("random.yaml", pipeline(variant, base, channels));
        here.done(&["run", "random.yaml"]);
        assert_eq!(here.sql("runs/random", "select count(*) from rejects"), ["0"], "{variant:?} {base:?}");
        let (views, audio) = views(&here);
        assert_eq!(views.num_rows(), audio.num_rows());
        let stored = Table::open(&here.path("runs/random/tables/views")).unwrap();
        let chain = chain_from_metadata(stored.schema.metadata()).unwrap();
        let draws = draws_from_batch(&chain, &views).unwrap();
        let ids = views.column_by_name("view_id").unwrap().as_string::<i32>();
        let uris = views.column_by_name("uri").unwrap().as_string::<i32>();
        let stored = audio.column_by_name("audio").unwrap().as_fixed_size_list();

        let front_end = FrontEnd::default();
        let mut lane = ViewRenderer::new(&chain, &Output::Features(front_end.clone())).unwrap();
        for (row, draw) in draws.iter().enumerate() {
            applied.extend(chain.processing(draw).map(|(spec, _)| spec.name()));
            let stored = stored.value(row);
            let stored: Vec<&[f32]> =
                stored.as_primitive::<Float32Type>().values().chunks_exact(chain.frames()).collect();
            assert_eq!(stored.len(), chain.channels.count());
            // A process per view takes a while: one view of each segment, another one each time.
            if draw.view as usize == row / 4 % 4 {
                here.done(&["replay", "runs/random", ids.value(row), "-o", "view.wav"]);
                let mut wav = hound::WavReader::open(here.path("view.wav")).unwrap();
                let replayed: Vec<f32> = wav.samples::<f32>().map(Result::unwrap).collect();
                let channels = stored.len();
                for (c, channel) in stored.iter().enumerate() {
                    let same = channel.iter().enumerate().all(|(i, s)| *s == replayed[i * channels + c]);
                    assert!(same, "view {} of {variant:?} {base:?}", ids.value(row));
                }
            }
            // A training lane carries features: those of the very same samples.
            let features = lane.render(uris.value(row), std::slice::from_ref(draw)).unwrap();
            let mono: Vec<f32> = match stored.as_slice() {
                [only] => only.to_vec(),
                many => {
                    let channels = many.iter().map(|c| c.to_vec()).collect();
                    loev_ops::Audio { rate: chain.sample_rate, channels }.to_mono()
                }
            };
            let mut want = vec![0.0; features.len()];
            LogMel::new(&front_end).compute(&mono, &mut want);
            assert_eq!(features, want, "features of {}", ids.value(row));
        }
    }
    let known: std::collections::BTreeSet<_> = all().iter().map(|def| def.name).collect();
    assert_eq!(applied, known, "every operator took part");
}

#[test]
fn labels_follow_pitch_tempo_shift_and_direction() {
    let here = Workplace::new();
    let variant = [json!("pitch_shift"), json!("time_stretch"), json!("reverse")];
    let base =
        [json!({"random_crop": {"p": 1}}), json!({"gain": {"p": 1}}), json!({"tape_speed": {"p": 0.5}})];
    here.write("random.yaml", pipeline(&variant, &base, "mono").replace("\"seconds\":1,", "\"seconds\":3,"));
    here.done(&["run", "random.yaml"]);
    let (views, _) = views(&here);
    let bpm = views.column_by_name("bpm").unwrap().as_primitive::<Float64Type>();
    let beats = views.column_by_name("beats").unwrap().as_list::<i32>();
    let chords = views.column_by_name("chords").unwrap().as_list::<i32>();
    let keys = views.column_by_name("key").unwrap().as_string::<i32>();
    let clips = table(&here.path("runs/random"), "clips");
    assert!(views.num_rows() > 0);
    for row in 0..views.num_rows() {
        let beats = beats.value(row);
        let beats = beats.as_primitive::<Float64Type>().values();
        assert!(beats.len() >= 3, "3 s hold more than three beats: {beats:?}");
        for pair in beats.windows(2) {
            assert!(
                (pair[1] - pair[0] - 60.0 / bpm.value(row)).abs() < 1e-6,
                "{pair:?} at {}",
                bpm.value(row)
            );
        }
        assert!(beats.iter().all(|t| (0.0..3.0).contains(t)));
        let chords = chords.value(row);
        let chords = chords.as_struct();
        let ends = chords.column_by_name("end").unwrap().as_primitive::<Float64Type>().values();
        let starts = chords.column_by_name("start").unwrap().as_primitive::<Float64Type>().values();
        // Chords fill the view without a gap, forwards and backwards.
        assert!(starts[0].abs() < 1e-9 && (ends[ends.len() - 1] - 3.0).abs() < 1e-9);
        assert!(starts[1..].iter().zip(ends.iter()).all(|(start, end)| (start - end).abs() < 1e-9));
        assert!(MusicalKey::parse(keys.value(row)).is_some());
    }
    let untouched = clips.column_by_name("bpm").unwrap().as_primitive::<Float64Type>();
    assert!(bpm.iter().flatten().any(|b| untouched.iter().flatten().all(|u| (b - u).abs() > 1e-3)));

    // Times in JAMS files are those of the table.
    here.done(&["jams", "runs/random", "views", "-o", "annotations"]);
    let id = views.column_by_name("view_id").unwrap().as_string::<i32>().value(5).replace(':', "-");
    let jams = loev_ops::jams::Jams::read(&here.path("annotations").join(format!("{id}.jams"))).unwrap();
    let want = beats.value(5);
    let same = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
    assert!(jams.beats.unwrap().iter().zip(want.as_primitive::<Float64Type>().values()).all(same));
    assert_eq!(jams.duration, Some(3.0));
}

#[test]
fn annotations_of_files_reach_the_views() {
    let here = Workplace::new();
    here.write("music/a/tone.wav", crate::support::tone(6.0, 440.0));
    here.write("music/b.wav", crate::support::tone(6.0, 330.0));
    here.write("music/bad.wav", crate::support::tone(6.0, 220.0));
    here.write("labels/bad.jams", "{");
    let annotated = loev_ops::jams::Jams {
        key: MusicalKey::parse("A minor"),
        beats: Some(vec![0.5, 1.5, 2.5]),
        duration: Some(6.0),
        ..Default::default()
    };
    here.write("labels/a/tone.jams", annotated.to_json());
    here.write(
        "p.yaml",
        "{name: p, stages: {clips: {files: {path: music, jams: labels, shards: 1}}, \
         views: {views: {from: clips, seconds: 1, variant: [pitch_shift]}}}}",
    );
    here.done(&["run", "p.yaml"]);
    let told = here.sql("runs/p", "select clip_id, key, array_length(beats) from clips order by 1");
    assert_eq!(told, ["a/tone.wav,A minor,3", "b.wav,,"]);
    assert_eq!(here.sql("runs/p", "select clip_id, reason from rejects"), ["bad.wav,corrupt"]);
    let keys = here.sql("runs/p", "select count(distinct key), count(key), count(*) from views");
    assert_eq!(keys, ["2,4,8"]);
}

#[test]
fn listening_needs_no_training() {
    let here = Workplace::new();
    let names = json!(["pitch_shift", "time_stretch"]);
    here.write("random.yaml", pipeline(names.as_array().unwrap(), &[json!("reverb")], "stereo"));
    let text = here.done(&["listen", "random.yaml", "-n", "4", "-o", "page"]);
    assert!(text.contains("4 views"), "{text}");
    let page = std::fs::read_to_string(here.path("page/index.html")).unwrap();
    assert!(!page.contains("<script") && page.matches("<audio").count() == 8, "{page}");
    for name in ["001-before.wav", "004-after.wav", "004-after.png", "002.json"] {
        assert!(here.path("page").join(name).exists(), "{name}");
    }
    let wav = hound::WavReader::open(here.path("page/001-after.wav")).unwrap();
    assert_eq!((wav.spec().channels, wav.duration()), (2, 16_000));
    let sidecar = std::fs::read_to_string(here.path("page/003.json")).unwrap();
    let sidecar: Value = serde_json::from_str(&sidecar).unwrap();
    assert!(sidecar[0]["pitch_shift"]["semitones"].is_number(), "{sidecar}");
    // A run has its views already.
    here.done(&["listen", "page/run", "-n", "1", "-o", "again"]);
    assert!(here.path("again/index.html").exists());
}

#[test]
fn second_recordings_that_cannot_be_read_become_rejects() {
    let here = Workplace::new();
    here.write("noises/n.wav", crate::support::tone(2.0, 100.0));
    let yaml = "{name: p, stages: {clips: {synth: {clips: 2, seconds: 6, shards: 1}}, \
        noises: {files: {path: noises, shards: 1}}, \
        views: {views: {from: clips, seconds: 1, base: [{background: {from: noises, p: 1}}], \
        epochs: 1, materialize: false}}}}";
    here.write("p.yaml", yaml);
    here.done(&["run", "p.yaml"]);
    std::fs::remove_file(here.path("noises/n.wav")).unwrap();
    let view = here.sql("runs/p", "select view_id from views order by 1 limit 1").remove(0);
    let output = here.loev(&["replay", "runs/p", &view, "-o", "v.wav"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("background") && errors(&output).contains("n.wav"),
        "{}",
        errors(&output)
    );
    // The table of noises is older than the loss: the clip is what cannot be used.
    here.write("lost.yaml", yaml.replace("{files: {path: noises, shards: 1}}",
        "{sql: \"select 'n' as clip_id, '/nowhere/n.wav' as uri, 2.0 as seconds, cast(0 as int) as shard\"}")
        .replace("materialize: false", "materialize: true"));
    here.done(&["run", "lost.yaml", "--out", "lost"]);
    let rejects = here.sql("lost", "select distinct reason from rejects");
    assert_eq!(rejects, ["missing"]);
    assert_eq!(here.sql("lost", "select count(*) from views_audio"), ["0"]);
}
