//! What embeddings are good for: embeddings of views, equivariance, retrieval.

use crate::support::{SMALL, Workplace, errors};

const EVALUATED: &str = "
  view_embeddings: { embed: { from: views, model: model } }
  follow: { equivariance: { from: view_embeddings, bootstrap: 200 } }
  leaks: { leak: { from: views, bootstrap: 200 } }
  near: { retrieve: { from: embeddings, tasks: [ {key: key}, {tempo: bpm}, {tags: instruments} ], k: [1, 35] } }
  moved:
    retrieve: { from: embeddings, queries: view_embeddings, tasks: [ {key: key}, {tempo: bpm} ], k: [3], keep: 2 }
";

fn pipeline() -> String {
    let without_probes = SMALL.split("  probes:").next().unwrap();
    format!("{}{}", without_probes.trim_end(), EVALUATED)
}

#[test]
fn subspaces_are_measured_and_searched() {
    let here = Workplace::new();
    here.write("small.yaml", pipeline());
    here.done(&["run", "small.yaml"]);
    let sql = |query: &str| here.sql("runs/small", query);

    // An embedding per view and subspace, with the view's own parameters.
    let views: usize = sql("select count(*) from views")[0].parse().unwrap();
    assert_eq!(
        sql("select subspace, count(*) from view_embeddings group by 1 order by 1"),
        ["invariant", "pitch_shift", "time_stretch"].map(|space| format!("{space},{views}"))
    );
    assert_eq!(sql("select count(*) from view_embeddings_baseline"), [views.to_string()]);
    let other = "select count(*) from view_embeddings e join views v using (view_id)
                 where e.pitch_shift['semitones'] <> v.pitch_shift['semitones']
                    or e.time_stretch['rate'] <> v.time_stretch['rate'] or e.clip_id <> v.clip_id";
    assert_eq!(sql(other), ["0"]);

    // Equivariance: 3 subspaces and the baseline, 2 parameters with 3 measures, and all parameters together with 2.
    let follow =
        "select count(*), count(distinct subspace), bool_and(lo <= value and value <= hi and value <= 1),
                         min(n_test), count(baseline) from follow";
    let pairs = 10 * 12 * views / (36 * 4);
    assert_eq!(sql(follow), [format!("32,4,true,{pairs},32")]);
    let parameters = "select distinct factor || '.' || parameter from follow order by 1";
    assert_eq!(sql(parameters), ["all.all", "pitch_shift.semitones", "time_stretch.rate"]);

    // Retrieval: with all 35 others as neighbours, precision is chance; nobody is their own neighbour.
    let near =
        "select count(*), bool_and(value between lo and hi), max(abs(value - chance)) filter (where k = 35),
                       min(n), max(n) from near";
    let answer = sql(near);
    let cells: Vec<&str> = answer[0].split(',').collect();
    assert_eq!([cells[0], cells[1], cells[3], cells[4]], ["50", "true", "36", "36"], "{answer:?}");
    assert!(cells[2].parse::<f64>().unwrap() < 1e-9, "{answer:?}");
    assert_eq!(sql("select count(*) from near_neighbours where query = neighbour"), ["0"]);
    assert_eq!(sql("select count(*), max(rank) from near_neighbours"), [format!("{},10", 36 * 10 * 5)]);

    // A query that is a view has the view's labels, and does not find its own clip.
    assert_eq!(sql("select count(*) from moved_neighbours where clip_id = neighbour"), ["0"]);
    let moved = format!("{views},true");
    assert_eq!(sql("select max(n), count(*) = 20 from moved"), [moved]);
    let by_hand = "select avg(cast(v.key = c.key as double)) from moved_neighbours n
                   join views v on v.view_id = n.query join clips c on c.clip_id = n.neighbour
                   where n.subspace = 'invariant'";
    here.done(&["run", "small.yaml", "--set", "stages.moved.retrieve.k=[2]"]);
    let told = "select value from moved where subspace = 'invariant' and metric = 'accuracy'";
    let (by_hand, told): (f64, f64) = (sql(by_hand)[0].parse().unwrap(), sql(told)[0].parse().unwrap());
    assert!((by_hand - told).abs() < 1e-9, "{by_hand} {told}");

    // Leaks: 5 cues and all of them at identity; 4 cues for each of 2 factors, by themselves and in whole views.
    let leaks = "select count(*), count(distinct cue), bool_and(lo <= value and value <= hi), bool_and(leaks = (lo > chance)),
                        max(control), max(n_test) from leaks";
    let answer = sql(leaks);
    assert!(answer[0].starts_with("22,6,true,true,"), "{answer:?}");
    assert!(answer[0].ends_with(",40"), "10 clips of 4 views: {answer:?}");

    // The figures are in the manifest, and the run is what its receipts say.
    let manifest = std::fs::read_to_string(here.path("runs/small/run.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["results"]["follow"].as_array().unwrap().len(), 32);
    assert_eq!(manifest["results"]["near"][0]["probe"], "nearest 1");
    here.done(&["verify", "runs/small"]);
}

#[test]
fn what_cannot_be_evaluated_is_told() {
    let here = Workplace::new();
    let refused = |text: String, arguments: &[&str]| {
        here.write("small.yaml", text);
        let output = here.loev(arguments);
        assert!(!output.status.success());
        // Line breaks of the report fall anywhere.
        errors(&output).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let of_clips = pipeline().replace("from: view_embeddings, bootstrap", "from: embeddings, bootstrap");
    let told = refused(of_clips, &["check", "small.yaml"]);
    assert!(told.contains("needs embeddings of views with factors"), "{told}");
    let of_views =
        pipeline().replace("retrieve: { from: embeddings, tasks", "retrieve: { from: view_embeddings, tasks");
    let told = refused(of_views, &["check", "small.yaml"]);
    assert!(told.contains("needs embeddings of clips"), "{told}");

    let few = pipeline().replace("k: [1, 35]", "k: [36]").replace("steps: 6", "steps: 1");
    let told = refused(few, &["run", "small.yaml"]);
    assert!(told.contains("36 neighbours are asked for"), "{told}");
    let longer = "  long_views: { views: { from: split, seconds: 3 } }\n";
    let text =
        format!("{}{longer}", pipeline().replace("embed: { from: views,", "embed: { from: long_views,"));
    let text = text.replace("k: [1, 35]", "k: [1]").replace("steps: 6", "steps: 1");
    let text = text.replace("  follow: { equivariance: { from: view_embeddings, bootstrap: 200 } }\n", "");
    let told = refused(text, &["run", "small.yaml"]);
    assert!(told.contains("the model was trained on"), "{told}");
}
