//! From procedural music to SQL.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::support::{SMALL, Workplace, errors, table};

#[test]
fn every_stage_leaves_its_table_and_sql_answers() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    let closing = here.done(&["run", "small.yaml"]);
    for word in ["pitch_shift", "time_stretch", "invariant", "mel_baseline", "chance", "loev sql"] {
        assert!(closing.contains(word), "the closing table lacks {word}:\n{closing}");
    }
    let run = here.path("runs/small");

    // Embeddings: 36 clips, each with segments and a mean in three subspaces; vectors keep their type.
    let embeddings = table(&run, "embeddings");
    let vectors = embeddings.column_by_name("embedding").unwrap();
    assert!(
        matches!(vectors.data_type(), DataType::FixedSizeList(item, 16) if *item.data_type() == DataType::Float32)
    );
    assert!(
        vectors
            .as_fixed_size_list()
            .values()
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .all(|v| v.is_finite())
    );
    let means = here.sql(
        "runs/small",
        "select subspace, count(*) from embeddings where segment is null group by 1 order by 1",
    );
    assert_eq!(means, ["invariant,36", "pitch_shift,36", "time_stretch,36"]);

    // A clip's mean is the mean of its segments.
    let off = here.sql(
        "runs/small",
        "select max(abs(m - s)) from
           (select clip_id, subspace, embedding[3] as m from embeddings where segment is null) as means
           join (select clip_id, subspace, avg(embedding[3]) as s from embeddings where segment is not null
                 group by 1, 2) as segments using (clip_id, subspace)",
    );
    assert!(off[0].parse::<f64>().unwrap() < 1e-5, "{off:?}");

    // One row of metrics per step.
    assert_eq!(here.sql("runs/small", "select count(*), max(step) from model"), ["6,6"]);
    let figures = here.sql(
        "runs/small",
        "select count(distinct subspace), count(distinct task), bool_and(lo <= value and value <= hi) from probes",
    );
    assert_eq!(figures, ["5,3,true"], "three subspaces, all of them together, and the baseline");
    assert_eq!(here.sql("runs/small", "select count(*) from rejects"), ["0"]);

    // The model, to give away.
    let said = here.done(&["export", "runs/small", "-o", "out", "--licence", "CC-BY-4.0"]);
    assert!(said.contains("CC-BY-4.0"), "{said}");
    let weights = std::fs::read(here.path("out/model.safetensors")).unwrap();
    assert_eq!(weights, std::fs::read(run.join("checkpoints/model.safetensors")).unwrap());
    let card = std::fs::read_to_string(here.path("out/README.md")).unwrap();
    let key = here.sql(
        "runs/small",
        "select value, lo, hi from probes where subspace = 'pitch_shift' and task = 'key' and metric = 'accuracy'
         and probe = 'linear'",
    );
    let key: Vec<f64> = key[0].split(',').map(|number| number.parse().unwrap()).collect();
    let line = format!("| pitch_shift | key | accuracy | {:.3} | {:.3} to {:.3} |", key[0], key[1], key[2]);
    assert!(card.contains("license: \"cc-by-4.0\"") && card.contains(&line), "{line}\n{card}");
    assert!(!card.contains("mel_baseline"), "{card}");
    let output = here.loev(&["export", "runs/small", "--model", "views", "-o", "out"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("it has: model"), "{}", errors(&output));
}

#[test]
fn views_carry_labels_that_are_true_for_them() {
    let here = Workplace::new();
    let only_views = SMALL.split("  model:").next().unwrap();
    here.write("views.yaml", only_views);
    here.done(&["run", "views.yaml", "--out", "out"]);

    // Tempo: the clip's times the view's rate. Key: the clip's moved by the rounded shift.
    let wrong = here.sql(
        "out",
        "select count(*), count(*) filter (where abs(v.bpm - c.bpm * v.time_stretch['rate']) > 1e-9),
                count(*) filter (where v.key <> transpose_key(c.key, v.pitch_shift['semitones']))
         from views v join clips c using (clip_id)",
    );
    assert_eq!(wrong, ["144,0,0"], "36 clips, one segment, 2 x 2 views");

    let views = table(&here.path("out"), "views");
    let semitones =
        views.column_by_name("pitch_shift").unwrap().as_struct().column_by_name("semitones").unwrap();
    let semitones = semitones.as_primitive::<Float64Type>();
    let groups = views.column_by_name("groups").unwrap().as_fixed_size_list();
    for segment in 0..36 {
        let of = |view: usize| {
            let ids = groups.value(segment * 4 + view);
            ids.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        };
        for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            assert_eq!(of(a)[0], of(b)[0], "all views of a segment are positives of head 0");
            let same_pitch = semitones.value(segment * 4 + a) == semitones.value(segment * 4 + b);
            assert_eq!(of(a)[1] == of(b)[1], same_pitch, "positives of the pitch head share their shift");
        }
        let positives = (0..4).filter(|b| of(*b)[1] == of(0)[1]).count();
        assert_eq!(positives, 2, "every view has a positive in every subspace");
    }
}

#[test]
fn a_view_replays_from_its_row_as_it_was_stored() {
    let here = Workplace::new();
    let only_views = SMALL.split("  model:").next().unwrap().replace("clips: 36", "clips: 5");
    here.write("views.yaml", only_views);
    here.done(&["run", "views.yaml", "--out", "out", "--set", "stages.views.views.materialize=true"]);
    let stored = table(&here.path("out"), "views_audio");
    assert_eq!(stored.num_rows(), 20);
    let ids = stored.column_by_name("view_id").unwrap().as_string::<i32>();
    let audio = stored.column_by_name("audio").unwrap().as_fixed_size_list();
    for row in [0, 7, 19] {
        here.done(&["replay", "out", ids.value(row), "-o", "view.wav"]);
        let mut wav = hound::WavReader::open(here.path("view.wav")).unwrap();
        assert_eq!((wav.spec().sample_rate, wav.spec().channels), (16_000, 1));
        let replayed: Vec<f32> = wav.samples::<f32>().map(Result::unwrap).collect();
        let samples = audio.value(row);
        assert_eq!(replayed, samples.as_primitive::<Float32Type>().values().to_vec());
        assert_eq!(replayed.len(), 32_000);
    }
}

#[test]
fn methods_differ_in_their_subspaces() {
    let here = Workplace::new();
    let short = SMALL
        .split("  probes:")
        .next()
        .unwrap()
        .replace("clips: 36", "clips: 12")
        .replace("steps: 6", "steps: 1");
    here.write("small.yaml", short.replace("batch: 32", "batch: 16"));
    for (method, subspaces) in [("simclr", "invariant"), ("loev", "invariant,pitch_shift,time_stretch")] {
        let set = format!("stages.model.train.method={method}");
        here.done(&["run", "small.yaml", "--out", method, "--set", &set]);
        let found = here.sql(method, "select distinct subspace from embeddings order by 1");
        assert_eq!(found.join(","), subspaces);
    }
}
