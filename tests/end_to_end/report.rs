//! The report: what stands on the page, that nothing in a run can run there, and the page in a browser.

use std::fs;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{SMALL, Workplace, errors, tone};

/// `SMALL` with a stage of each kind that has a section.
const WHOLE: &str = "
  moved: { embed: { from: views, model: model } }
  follow: { equivariance: { from: moved, bootstrap: 200 } }
  leaks: { leak: { from: views, bootstrap: 200 } }
  near: { retrieve: { from: embeddings, tasks: [ {key: key}, {tempo: bpm} ], k: [1, 5] } }
  report: { report: { audio_seconds: 1 } }
";

fn whole() -> String {
    format!("{}{WHOLE}", SMALL.trim_end())
}

/// The JSON of a data block.
fn block(page: &str, id: &str) -> Value {
    let start = format!("<script type=\"application/json\" id=\"{id}\">");
    let text = page.split(&start).nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(text).unwrap()
}

fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect()
}

#[test]
fn the_stage_writes_a_page_that_holds_all_and_asks_nothing() {
    let here = Workplace::new();
    here.write("small.yaml", whole());
    let closing = here.done(&["run", "small.yaml"]);
    assert!(closing.contains("Report: open runs/small/report.html"), "{closing}");
    let page = fs::read_to_string(here.path("runs/small/report.html")).unwrap();
    assert_eq!(
        sections(&page),
        [
            "stages",
            "training",
            "probes",
            "retrieval",
            "equivariance",
            "leaks",
            "map",
            "similarity",
            "response",
            "rejects",
            "reproduce"
        ]
    );
    // Nothing is fetched: no address but within the page.
    for word in ["http:", "https:", "src=\"//", "@import", "url("] {
        let found = page.match_indices(word).map(|(at, _)| &page[at..(at + 60).min(page.len())]);
        let ours = |text: &&str| text.starts_with("http://www.w3.org/2000/svg");
        assert_eq!(found.filter(|text| !ours(text)).collect::<Vec<_>>(), [""; 0], "{word}");
    }
    assert!(page.contains("default-src &#39;none&#39;") && !page.contains("unsafe-inline"));
    assert!(!page.contains(" style=") && !page.contains(" onclick="));

    // Every figure has its SQL, which gives its data.
    let data = block(&page, "data");
    let figures = here.sql("runs/small", "select figure, title from report order by figure");
    assert_eq!(page.matches("<figure class=\"card\"").count(), figures.len());
    assert_eq!(page.matches("data-csv=").count(), figures.len());
    let sql = "select sql from report where figure = 'training-1'";
    let sql = here.sql("runs/small", sql)[0].trim_matches('"').replace("\"\"", "\"");
    let lines = here.sql("runs/small", &sql);
    let columns = &data["figures"]["training-1"]["data"];
    assert_eq!((lines.len(), columns[0].as_array().unwrap().len()), (6, 6), "six steps");
    let loss: f64 = lines[2].split(',').nth(1).unwrap().parse().unwrap();
    assert!((columns[1][2].as_f64().unwrap() - loss).abs() < 1e-4 * loss, "{lines:?}");

    // The map: all clips in all subspaces, never their own neighbours, each with its sound.
    let map = &data["map"];
    assert_eq!(map["ids"].as_array().unwrap().len(), 36);
    let spaces: Vec<&str> =
        map["spaces"].as_array().unwrap().iter().map(|s| s["subspace"].as_str().unwrap()).collect();
    assert_eq!(spaces, ["invariant", "pitch_shift", "time_stretch", "mel_baseline"]);
    for space in map["spaces"].as_array().unwrap() {
        for (clip, near) in space["near"].as_array().unwrap().iter().enumerate() {
            let near = near.as_array().unwrap();
            assert!(near.len() == 6 && !near.contains(&json!(clip)), "{near:?}");
        }
        let layouts = space["layouts"].as_array().unwrap();
        assert_eq!(layouts.iter().map(|l| &l["name"]).collect::<Vec<_>>(), ["principal components", "t-SNE"]);
        assert!(layouts.iter().all(|l| l["x"].as_array().unwrap().iter().all(Value::is_u64)));
    }
    assert_eq!(map["labels"][map["first"].as_u64().unwrap() as usize]["name"], "key");
    assert_eq!(block(&page, "sound").as_object().unwrap().len(), 36);
    assert_eq!(data["files"].as_object().unwrap().len(), 2);

    // The configuration reads back as the pipeline that was run.
    here.write("again.yaml", data["files"]["small.yaml"].as_str().unwrap());
    let made: Value = serde_json::from_slice(&fs::read(here.path("runs/small/run.json")).unwrap()).unwrap();
    assert!(made["stages"]["report"]["note"].as_str().unwrap().contains("report.html"));
    let plan = here.done(&["plan", "again.yaml", "--out", "runs/small"]);
    assert!(plan.contains("nothing to do"), "{plan}");

    // The command gives the same page, twice; the run's own page is not written over.
    for file in ["a.html", "b.html"] {
        here.done(&["report", "runs/small", "-o", file, "--audio-seconds", "1"]);
        assert!(fs::read_to_string(here.path(file)).unwrap() == page, "{file} differs");
    }
    let refused = here.loev(&["report", "runs/small"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(errors(&refused).contains("-o"), "{}", errors(&refused));

    // It is made again when something before it changes, and only then.
    assert!(here.done(&["run", "small.yaml"]).contains("nothing to do"));
    let other = here.done(&["plan", "small.yaml", "--set", "stages.near.retrieve.k=[1]"]);
    assert!(other.contains("to do: 2 of 11 stages"), "{other}");
    here.done(&["verify", "runs/small"]);
}

#[test]
fn nothing_in_a_run_becomes_markup() {
    let here = Workplace::new();
    let hostile =
        "<img src=x onerror=\"document.title=1\"></script><script>document.title=2</script><!--\u{202e}'";
    let in_sql = hostile.replace('\'', "''''").replace('"', "\\\"");
    let text = SMALL.split("  model:").next().unwrap();
    here.write("small.yaml", text);
    here.done(&["run", "small.yaml", "--out", "out"]);
    // A run from someone else: names of its own, and a table of clips whose labels are markup.
    let rows = format!(
        "copy (select '{}' || clip_id as clip_id, '{}' as uri, '{}' as \"{}\", '{}' as key, \
                       seconds from clips) to '{}' stored as parquet",
        hostile.replace('\'', "''"),
        hostile.replace('\'', "''"),
        hostile.replace('\'', "''"),
        hostile.replace('"', "\"\""),
        hostile.replace('\'', "''"),
        here.path("clips.parquet").display()
    );
    for entry in fs::read_dir(here.path("out/tables/split")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    here.done(&["sql", "out", &rows]);
    fs::rename(here.path("clips.parquet"), here.path("out/tables/split/shard-00000.parquet")).unwrap();
    let vectors = format!(
        "copy (select clip_id, cast(null as int) as segment, '{}' as subspace, \
         arrow_cast([1.0, 0.5 * length(clip_id)], 'FixedSizeList(2, Float32)') as embedding from split) to '{}' \
         stored as parquet",
        hostile.replace('\'', "''"),
        here.path("vectors.parquet").display()
    );
    here.done(&["sql", "out", &vectors]);
    fs::create_dir_all(here.path("out/tables/embeddings")).unwrap();
    fs::rename(here.path("vectors.parquet"), here.path("out/tables/embeddings/shard-00000.parquet")).unwrap();
    let mut run: Value = serde_json::from_slice(&fs::read(here.path("out/run.json")).unwrap()).unwrap();
    run["name"] = hostile.into();
    run["loev"] = hostile.into();
    run["machine"]["cpu"] = hostile.into();
    run["pipeline"]["name"] = hostile.into();
    run["pipeline"]["stages"][hostile] = json!({ "sql": { "query": in_sql } });
    run["pipeline"]["stages"]["embeddings"] = json!({ "embed": { "from": "split", "model": hostile } });
    run["tables"]["embeddings"] = "tables/embeddings".into();
    run["tables"][hostile] = "tables/nothing".into();
    run["stages"][hostile] =
        json!({ "kind": hostile, "rows": 1, "rejects": 1, "seconds": 1.0, "note": hostile });
    fs::write(here.path("out/run.json"), run.to_string()).unwrap();

    here.done(&["report", "out"]);
    let page = fs::read_to_string(here.path("out/report.html")).unwrap();
    assert!(!page.contains("<img src=x") && !page.contains("<script>document"), "markup came through");
    assert!(!page.contains("<!--") && !page.contains('\u{202e}'));
    assert_eq!(page.matches("<script").count(), 3);
    assert_eq!(block(&page, "data")["map"]["ids"].as_array().unwrap().len(), 36);
    if let Some(mut browser) = Browser::start(&here) {
        browser.open(&here.path("out/report.html"));
        browser.click_clip(3);
        assert_eq!(
            browser.script(
                "return document.title.length > 20 && document.querySelectorAll('img[onerror]').length"
            ),
            0
        );
        assert_eq!(browser.script("return document.scripts.length"), 3);
        browser.assert_quiet();
    }
}

#[test]
fn an_unfinished_run_says_so() {
    let here = Workplace::new();
    here.write("small.yaml", whole());
    let only = SMALL.split("  embeddings:").next().unwrap();
    here.write("part.yaml", only);
    here.done(&["run", "part.yaml", "--out", "out"]);
    // As a killed run leaves it: the pipeline is whole, the tables are not.
    let mut run: Value = serde_json::from_slice(&fs::read(here.path("out/run.json")).unwrap()).unwrap();
    here.done(&["run", "small.yaml", "--set", "stages.model.train.steps=1"]);
    let all: Value = serde_json::from_slice(&fs::read(here.path("runs/small/run.json")).unwrap()).unwrap();
    run["status"] = "interrupted".into();
    run["pipeline"] = all["pipeline"].clone();
    run["tables"]["embeddings"] = "tables/embeddings".into();
    fs::write(here.path("out/run.json"), run.to_string()).unwrap();
    here.done(&["report", "out"]);
    let page = fs::read_to_string(here.path("out/report.html")).unwrap();
    for words in [
        "class=\"chip unfinished\"",
        "This run is not finished (interrupted)",
        "no table `embeddings`: it has not been written",
        "no table `probes`: the stage was not finished",
    ] {
        assert!(page.contains(words), "no `{words}`");
    }
    assert!(sections(&page).contains(&"training"));

    // Empty tables and numbers that are none are marks, and no failure.
    here.done(&["sql", "runs/small", &format!(
        "copy (select subspace, task, probe, metric, cast('NaN' as double) as value, lo, hi, chance, baseline, n_test from probes) \
         to '{}' stored as parquet",
        here.path("nan.parquet").display()
    )]);
    fs::rename(here.path("nan.parquet"), here.path("runs/small/tables/probes/shard-00000.parquet")).unwrap();
    here.done(&[
        "sql",
        "runs/small",
        &format!(
            "copy (select * from embeddings where false) to '{}' stored as parquet",
            here.path("none.parquet").display()
        ),
    ]);
    for entry in fs::read_dir(here.path("runs/small/tables/embeddings")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::rename(here.path("none.parquet"), here.path("runs/small/tables/embeddings/shard-00000.parquet"))
        .unwrap();
    here.done(&["report", "runs/small", "-o", "odd.html"]);
    let page = fs::read_to_string(here.path("odd.html")).unwrap();
    assert!(!page.contains(">NaN") && !page.contains("\"NaN") && sections(&page).contains(&"probes"));

    let output = here.loev(&["report", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("nowhere"), "{}", errors(&output));
    assert_eq!(here.loev(&["report", "out", "--clips", "1"]).status.code(), Some(2));
}

#[test]
fn sound_lies_beside_the_page_when_it_is_told_to() {
    let here = Workplace::new();
    for (name, hz) in [("a b", 440.0), ("c", 550.0), ("d", 660.0), ("e", 770.0)] {
        here.write(&format!("music/{name}.wav"), tone(2.5, hz));
    }
    here.write("music/broken.wav", "no sound");
    let text = "
name: files
stages:
  clips: { files: { path: music } }
  views: { views: { from: clips, seconds: 1, base: [ {gain: {}} ] } }
  model:
    train: { from: views, method: simclr, batch: 4, steps: 1, encoder: { vit: { dim: 16, depth: 1, heads: 2, patch_frames: 5 } },
      front_end: { window: 1024, hop: 320, fft: 1024, mels: 32 } }
  embeddings: { embed: { from: clips, model: model } }
";
    here.write("files.yaml", text);
    here.done(&["run", "files.yaml", "--out", "out"]);
    fs::remove_file(here.path("music/d.wav")).unwrap();
    here.done(&["report", "out", "-o", "my page.html", "--audio", "beside", "--audio-seconds", "1"]);
    let page = fs::read_to_string(here.path("my page.html")).unwrap();
    let map = &block(&page, "data")["map"];
    assert_eq!(
        (&map["sound"]["folder"], &map["sound"]["of"]),
        (&json!("my%20page-sounds"), &json!([0, 1, 3]))
    );
    assert!(map["sound"]["failed"].to_string().contains("d.wav"), "{map}");
    assert_eq!(fs::read_dir(here.path("my page-sounds")).unwrap().count(), 3);
    assert!(page.contains("corrupt") || page.contains("unsupported"), "the reject has its reason");
    if let Some(mut browser) = Browser::start(&here) {
        browser.open(&here.path("my page.html"));
        browser.click_clip(0);
        browser.wait(
            "return document.querySelector('audio').readyState >= 2",
            "the clip is loaded from its file",
        );
        browser.assert_quiet();
    }
    here.done(&["report", "out", "-o", "mute.html", "--audio", "none"]);
    assert!(fs::read_to_string(here.path("mute.html")).unwrap().contains("Made without sound"));
}

#[test]
fn in_a_browser_a_point_is_heard_and_nothing_is_asked_of_the_network() {
    let here = Workplace::new();
    let Some(mut browser) = Browser::start(&here) else { return };
    here.write("small.yaml", whole());
    here.done(&["run", "small.yaml"]);
    browser.open(&here.path("runs/small/report.html"));
    // A point that is clicked plays, and tells its neighbours.
    browser.click_clip(5);
    browser.wait("return document.querySelector('audio').readyState >= 2", "the clip is loaded");
    let sound = browser.script("const a = document.querySelector('audio'); return [a.duration, a.error === null, a.src.slice(0, 15)]");
    assert!((sound[0].as_f64().unwrap() - 1.0).abs() < 0.05 && sound[1] == true, "{sound}");
    assert_eq!(sound[2], "data:audio/ogg;");
    let heading = "return document.querySelector('#map-clip h4').textContent";
    assert_eq!(browser.script(heading), "synth-000005");
    assert_eq!(browser.script("return document.querySelectorAll('.near li').length"), 24);
    // A neighbour is a click away.
    let name =
        browser.script("const b = document.querySelector('.near li button'); b.click(); return b.title");
    assert_eq!(browser.script(heading), name);
    // Another subspace, another label, another theme, SQL in sight.
    let change = "const set = (id, v) => { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event('change')); };
        set('map-space', '2'); set('map-label', '2'); set('map-layout', '1'); document.getElementById('theme').click();
        document.querySelector('.tools details').open = true;
        return [document.documentElement.dataset.theme, document.querySelectorAll('#map-legend *').length > 0]";
    assert_eq!(browser.script(change), json!(["light", true]));
    // What the page saves is what its figure shows.
    let csv = "let text; const real = URL.createObjectURL; URL.createObjectURL = (blob) => { text = blob; return real(blob); };
        document.querySelector('[data-csv=training-1]').click(); return text.text()";
    let csv = browser.script(csv);
    let csv = csv.as_str().unwrap();
    assert!(csv.starts_with("step,loss,loss_invariant,floor_invariant") && csv.lines().count() == 7, "{csv}");
    // Nothing is wider than a phone.
    browser.resize(390, 844);
    assert_eq!(browser.script("return document.documentElement.scrollWidth <= window.innerWidth"), true);
    browser.assert_quiet();
}
