//! Whole files through the reader: what good ones give, and what each kind of mistake is told.

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::*;

/// What a user sees, without colours and at a fixed width.
fn render(error: &SpecError) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut text, error)
        .unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_start_matches('\n').to_string()
}

fn refuse(text: &str, sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    render(&parse(text, "p.yaml", &sets).unwrap_err())
}

const QUICKSTART: &str = r#"
name: quickstart
seed: 17
stages:
  clips:      { synth: { clips: 400, seconds: 12 } }
  split:      { sql: "select *, case when id % 5 = 0 then 'test' else 'train' end as split from clips" }
  views:      { views: { from: split, seconds: 3,
                         base: [ {gain: {db: [-15, 5]}}, {polarity: {}}, {colored_noise: {snr_db: [3, 30]}}, {filter: {}} ],
                         variant: [ {pitch_shift: {semitones: [-4, 4]}}, {time_stretch: {rate: [0.7, 1.3]}} ] } }
  model:      { train: { from: views, method: loev++, encoder: {vit: {dim: 96, depth: 4}}, batch: 64, steps: 300 } }
  embeddings: { embed: { from: split, model: model } }
  probes:     { probe: { from: embeddings, tasks: [ {key: key}, {tempo: bpm}, {tags: instruments} ] } }
"#;

/// A `sql_tables` that takes the word after each `from` and `join`.
fn tables(query: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = query.split_whitespace().collect();
    if !query.trim_start().starts_with("select") {
        return Err(format!("expected a SELECT, found {:?}", words.first().unwrap_or(&"nothing")));
    }
    let named = words.windows(2).filter(|pair| ["from", "join"].contains(&pair[0]));
    Ok(named.map(|pair| pair[1].to_string()).collect())
}

fn graph_of(text: &str) -> Result<Graph, SpecError> {
    Graph::new(&parse(text, "p.yaml", &[]).unwrap(), &tables)
}

#[test]
fn the_quickstart_is_read_with_its_defaults() {
    let pipeline = parse(QUICKSTART, "quickstart.yaml", &[]).unwrap();
    assert_eq!(pipeline.seed, 17);
    let names: Vec<&str> = pipeline.stages.keys().map(String::as_str).collect();
    assert_eq!(names, ["clips", "split", "views", "model", "embeddings", "probes"]);
    let Stage::Train(train) = &pipeline.stages["model"] else { panic!("not a train stage") };
    assert_eq!((train.batch, train.lanes, train.training.steps), (64, 2, 300));
    let Stage::Views(views) = &pipeline.stages["views"] else { panic!("not a views stage") };
    assert_eq!((views.sample_rate, views.epochs, views.base.len()), (16_000, stage::Epochs::Auto, 4));
}

#[test]
fn a_pipeline_reads_back_from_its_json() {
    let pipeline = parse(QUICKSTART, "quickstart.yaml", &["max_rejects=2%".to_string()]).unwrap();
    let json = serde_json::to_string_pretty(&pipeline).unwrap();
    let again = parse(&json, "run.json", &[]).unwrap_or_else(|error| panic!("{}\n{json}", render(&error)));
    assert_eq!(pipeline, again);
    assert_eq!(serde_json::to_string_pretty(&again).unwrap(), json);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["stages"]["model"]["train"]["steps"], 300);
    assert_eq!(value["max_rejects"], 0.02);
}

#[test]
fn the_graph_orders_stages_after_what_they_read() {
    let graph = graph_of(QUICKSTART).unwrap();
    assert_eq!(graph.order, ["clips", "split", "views", "model", "embeddings", "probes"]);
    assert_eq!(graph.inputs("embeddings"), ["split", "model"]);
    assert_eq!(graph.readers("split").collect::<Vec<_>>(), ["views", "embeddings", "probes"]);
    assert_eq!(graph.inputs("probes"), ["embeddings", "split"]);

    let shuffled = "name: x\nstages:\n  v: {views: {from: b}}\n  b: {sql: select * from a}\n  \
                    z: {synth: {clips: 1}}\n  a: {synth: {clips: 2}}\n";
    assert_eq!(graph_of(shuffled).unwrap().order, ["z", "a", "b", "v"]);
}

#[test]
fn sets_change_and_add_options() {
    let sets = [
        "stages.model.train.steps=50",
        "stages.views.views.variant.0.pitch_shift.semitones=[-2, 2]",
        "seed=4",
        "name=other",
        "stages.model.train.encoder={vit: {depth: 2}}",
        "stages.extra={sql: select 1 as one}",
        "stages.split.sql=select * from clips",
    ];
    let pipeline = parse(QUICKSTART, "q.yaml", &sets.map(str::to_string)).unwrap();
    let json = serde_json::to_value(&pipeline).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("other", 4));
    assert_eq!(json["stages"]["model"]["train"]["steps"], 50);
    assert_eq!(json["stages"]["model"]["train"]["encoder"]["vit"]["depth"], 2);
    assert_eq!(json["stages"]["extra"]["sql"]["query"], "select 1 as one");
    assert_eq!(json["stages"]["split"]["sql"]["query"], "select * from clips");
}

#[test]
fn whole_numbers_may_be_written_as_floats_but_not_rounded() {
    let text = "name: x\nstages: {c: {synth: {clips: 1e3}}}";
    let Stage::Synth(synth) = &parse(text, "p", &[]).unwrap().stages["c"] else { panic!("not synth") };
    assert_eq!(synth.clips, 1000);
    assert!(parse("name: x\nstages: {c: {synth: {clips: 1.5}}}", "p", &[]).is_err());
}

#[test]
fn epochs_and_rejects_take_both_of_their_forms() {
    let text = "name: x\nmax_rejects: 3\nstages: {c: {synth: {clips: 1}}, v: {views: {from: c, epochs: 5}}}";
    let pipeline = parse(text, "p", &[]).unwrap();
    assert_eq!(pipeline.max_rejects, Some(MaxRejects::Count(3)));
    let Stage::Views(views) = &pipeline.stages["v"] else { panic!("not views") };
    assert_eq!(views.epochs, stage::Epochs::Count(5));
}

/// One mistake and what is said about it; all in one snapshot, to be read as a whole.
#[test]
fn mistakes_are_shown_where_they_are() {
    let clips = "name: x\nstages:\n  clips: { synth: { clips: 10 } }\n";
    let trained = format!("{clips}  views: {{ views: {{ from: clips, variant: [ pitch_shift ] }} }}\n");
    let after = |base: &str, line: &str| format!("{base}  {line}\n");
    let cases = [
        ("unknown option", after(clips, "v: { views: { from: clips, secnds: 3 } }")),
        ("misspelt required option", after(clips, "v: { views: { form: clips } }")),
        ("unknown option at the top", format!("sed: 3\n{clips}")),
        ("unknown kind", after(clips, "v: { view: { from: clips } }")),
        ("two kinds", after(clips, "v: { views: { from: clips }, sql: select 1 }")),
        ("unknown operator", after(clips, "v: { views: { from: clips, base: [ {gian: {}} ] } }")),
        ("unknown parameter", after(clips, "v: { views: { from: clips, base: [ {gain: {bd: 3}} ] } }")),
        ("unit in a number", after(clips, "v: { views: { from: clips, seconds: 3s } }")),
        ("text for a number", after(&trained, "m: { train: { from: views, steps: many } }")),
        ("a number for text", "name: 17\nstages: {clips: {synth: {clips: 1}}}\n".to_string()),
        ("yes for true", after(clips, "f: { files: { path: music, follow_links: yes } }")),
        ("out of range", after(clips, "v: { views: { from: clips, seconds: 0 } }")),
        ("out of range in a group", after(&trained, "m: { train: { from: views, steps: 0 } }")),
        (
            "out of range in the encoder",
            after(&trained, "m: { train: { from: views, encoder: {vit: {dim: 0}} } }"),
        ),
        ("unknown method", after(&trained, "m: { train: { from: views, method: loev+ } }")),
        ("unknown encoder", after(&trained, "m: { train: { from: views, encoder: {vti: {}} } }")),
        ("missing option", after(clips, "v: { views: { seconds: 3 } }")),
        ("missing stage", after(clips, "v: { views: { from: clip } }")),
        (
            "decoded twice",
            after(clips, "a: { decode: { from: clips } }\n  b: { decode: { from: a, sample_rate: 300 } }"),
        ),
        ("wrong kind of stage", after(&trained, "m: { train: { from: clips } }")),
        ("bad stage name", after(clips, "My-Views: { views: { from: clips } }")),
        ("reserved name", after(clips, "rejects: { sql: select 1 }")),
        ("a word of SQL", after(clips, "order: { sql: select 1 }")),
        ("twice the same stage", after(clips, "clips: { synth: { clips: 3 } }")),
        ("batch of part segments", after(&trained, "m: { train: { from: views, batch: 31 } }")),
        (
            "different sample rates",
            after(&trained, "m: { train: { from: views, front_end: {sample_rate: 22050} } }"),
        ),
        ("views longer than clips", after(clips, "v: { views: { from: clips, seconds: 20 } }")),
        ("labels without a manifest", after(clips, "f: { files: { path: music/, labels: {key: key} } }")),
        ("one segment", after(&trained, "m: { train: { from: views, batch: 4 } }")),
        ("no factors", after(clips, "v: { views: { from: clips } }\n  m: { train: { from: v } }")),
        ("weights of other heads", after(&trained, "m: { train: { from: views, head_weights: [1, 2, 3] } }")),
        (
            "a name that is taken",
            after(clips, "v: { views: { from: clips, materialize: true } }\n  v_audio: { sql: select 1 }"),
        ),
        (
            "an operator's range",
            after(clips, "v: { views: { from: clips, variant: [ {pitch_shift: {semitones: 99}} ] } }"),
        ),
        (
            "an operator's type",
            after(clips, "v: { views: { from: clips, base: [ {gain: {db: loud}}, 3 ] } }"),
        ),
        ("a bad task", after(clips, "p: { probe: { from: clips, tasks: [ key, {tmpo: bpm} ] } }")),
        ("a line too long to show", format!("name: x # {}\nstages: 3\n", "x".repeat(500))),
        ("no stages", "name: x\n".to_string()),
        ("stages as a list", "name: x\nstages: [ clips ]\n".to_string()),
        ("not a map", "just some text\n".to_string()),
        ("not YAML", "name: x\nstages:\n  clips: { synth: { clips: 10 }\n  v: ]\n".to_string()),
        ("a tab", "name: x\nstages:\n\tclips: 3\n".to_string()),
        ("empty", "# nothing here\n".to_string()),
        ("not finite", "name: x\nstages: {v: {views: {from: v, seconds: .nan}}}\n".to_string()),
        ("bad share", format!("max_rejects: 120%\n{clips}")),
        ("bad name", "name: ../x\nstages: {clips: {synth: {clips: 1}}}\n".to_string()),
    ];
    let shown: Vec<String> =
        cases.iter().map(|(title, text)| format!("== {title}\n{}\n", refuse(text, &[]))).collect();
    insta::assert_snapshot!("mistakes", shown.join("\n"));
}

/// The reference is for views drawn by chance, which leave some pairs apart; and the loss has options that
/// contradict each other.
#[test]
fn losses_and_views_that_do_not_fit_each_other_are_shown() {
    let views = |how: &str| {
        format!(
            "name: x\nstages:\n  c: {{ synth: {{ clips: 10 }} }}\n  v: {{ views: {{ from: c, {how} }} }}\n"
        )
    };
    let pipeline =
        |how: &str, options: &str| format!("{}  m: {{ train: {{ from: v, {options} }} }}\n", views(how));
    let (crossed, chance) =
        ("variant: [ pitch_shift ]", "variant: [ {pitch_shift: {p: 0.5}} ], sampling: bernoulli");
    let always = "variant: [ {pitch_shift: {p: 1}} ], sampling: bernoulli";
    for (how, options, said) in [
        (crossed, "method: loev-reference", "set `sampling: bernoulli` in `v`"),
        (always, "method: loev-reference", "no two views of a segment are alike"),
        (always, "method: loev", "a subspace without positives"),
        (chance, "method: loev-reference, exclude_positives: true", "exclude_positives: the reference"),
        (crossed, "temperatures: [0.1]", "1 temperatures for 2 subspaces"),
        (crossed, "temperature: 3, learn_temperature: true", "within 0.01..1"),
        (crossed, "spec_mask: {time: 2}", "spec_mask.time"),
        (crossed, "accumulate: 0", "accumulate"),
    ] {
        let shown = refuse(&pipeline(how, options), &[]);
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let good = pipeline(chance, "method: loev-reference, spec_mask: {time: 0.2}, accumulate: 2");
    let Stage::Train(train) = &parse(&good, "p.yaml", &[]).unwrap().stages["m"] else { panic!("not train") };
    assert_eq!((train.training.spec_mask.time, train.training.batches()), (0.2, 2000));
}

#[test]
fn several_mistakes_are_shown_at_once() {
    let text = "name: x\nsede: 3\nstages:\n  clips: { synth: { clip: 10, second: 3 } }\n  \
                v: { views: { from: clisp, seconds: 0, sampel_rate: 3 } }\n  m: { trian: {} }\n";
    insta::assert_snapshot!("several", refuse(text, &[]));
}

#[test]
fn mistakes_in_sets_are_shown_in_the_argument() {
    let cases = [
        "stages.model.train.steps=many",
        "stages.model.train.steps=0",
        "stages.model.train.stepz=3",
        "stages.modle.train.steps=3",
        "stages.model.embed.steps=3",
        "stages.views.views.base.9={}",
        "stages.model.train.from.x=3",
        "stages.model.train.batch=[1, 2",
        "stages.model.train.batch",
        "stages..batch=3",
        "stages.model.train.from=clips",
        "name=",
    ];
    let shown: Vec<String> = cases.iter().map(|set| format!("{}\n", refuse(QUICKSTART, &[set]))).collect();
    assert!(
        render(&parse("", "p.yaml", &["seed=3".to_string()]).unwrap_err()).contains("required option `name`")
    );
    insta::assert_snapshot!("sets", shown.join("\n"));
}

#[test]
fn circles_and_unknown_tables_are_shown() {
    let cases = [
        "name: x\nstages:\n  a: {sql: select * from c}\n  b: {sql: select * from a}\n  c: {sql: select * from b}\n",
        "name: x\nstages:\n  a: {sql: select * from a}\n",
        "name: x\nstages:\n  clips: {synth: {clips: 1}}\n  a: {sql: \"select * from clip where clips = 1\"}\n",
        "name: x\nstages:\n  a: {sql: \"delete from x\"}\n",
    ];
    let shown: Vec<String> =
        cases.iter().map(|text| format!("{}\n", render(&graph_of(text).unwrap_err()))).collect();
    insta::assert_snapshot!("graph", shown.join("\n"));
}

#[test]
fn files_that_cannot_be_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    let message = |path: &Path| load(path, &[]).unwrap_err().to_string();
    assert!(message(&path).contains("cannot read"));
    assert!(message(folder.path()).contains("is a folder"));
    std::fs::write(&path, b"name: x\nstages: \xff\n").unwrap();
    assert!(message(&path).contains("not UTF-8 text: byte 16, in line 2"));
    std::fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
    assert!(message(&path).contains("too large"));
    std::fs::write(&path, "\u{feff}name: x\nstages: {c: {synth: {clips: 1}}}\n").unwrap();
    assert_eq!(load(&path, &[]).unwrap().name, "x");
}

#[test]
fn bombs_are_refused_quickly() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{items}]\n");
    }
    assert!(refuse(&bomb, &[]).contains("too large or too deeply nested"), "{}", refuse(&bomb, &[]));
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(refuse(&deep, &[]).contains("too"), "{}", refuse(&deep, &[]));
    let block: String = (0..3000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(refuse(&block, &[]).contains("too"), "{}", refuse(&block, &[]));
}

/// Any text gives a pipeline or an error that can be shown, and never a panic.
#[test]
fn damaged_files_give_errors() {
    for cut in (0..QUICKSTART.len()).step_by(23) {
        let _ = QUICKSTART.get(..cut).map(|text| parse(text, "p", &[]).map_err(|error| render(&error)));
    }
    for (at, _) in QUICKSTART.char_indices().step_by(37) {
        for junk in ["[", "}", ":", "\t", "&a ", "*a ", "é", "\"", "-", "\0"] {
            let mut text = QUICKSTART.to_string();
            text.insert_str(at, junk);
            let _ = parse(&text, "p", &[]).map_err(|error| render(&error));
        }
    }
}

#[test]
fn the_reference_in_docs_is_what_the_definitions_say() {
    let stale = "stale: cargo run -- schema --reference > docs/reference.md";
    assert!(super::reference_markdown() == include_str!("../../../docs/reference.md"), "{stale}");
}
