//! Questions to runs and files: `loev sql` and `loev compare`, with their options.

use std::io::Write;
use std::process::Stdio;

use crate::support::{SMALL, Workplace, errors};

/// A run of procedural clips and a split; nothing is trained.
fn clips(here: &Workplace) {
    here.write("clips.yaml", SMALL.split("  views:").next().unwrap());
    here.done(&["run", "clips.yaml", "--out", "out"]);
}

/// What `loev sql` prints for statements on its standard input, and its exit code.
fn piped(here: &Workplace, arguments: &[&str], input: &str) -> (String, String, Option<i32>) {
    let mut command = here.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output), output.status.code())
}

#[test]
fn files_are_asked_with_and_without_a_run() {
    let here = Workplace::new();
    assert_eq!(here.done(&["sql", "select 1 + 1 as two", "--format", "csv"]), "two\n2\n");
    here.write("labels.csv", "clip_id,mood\nsynth-000001,calm\nsynth-000002,\n");
    let query = "select count(*) as n, count(mood) as moods from labels";
    assert_eq!(here.done(&["sql", "labels.csv", query, "--format", "csv"]), "n,moods\n2,1\n");
    clips(&here);
    let query = "select l.mood from clips join moods l using (clip_id) where mood is not null";
    assert_eq!(here.done(&["sql", "out", "moods=labels.csv", query, "--format", "csv"]), "mood\ncalm\n");
    let query = "select count(*) as n from clips c join 'labels.csv' l using (clip_id)";
    assert_eq!(here.done(&["sql", "out", query, "--format", "csv"]), "n\n2\n");
    here.write("my labels.csv", "n\n1\n2\n");
    let (out, told, code) =
        piped(&here, &["sql", "mine=my labels.csv", "--format", "csv"], "select sum(n) as n from mine");
    assert_eq!((out.as_str(), code), ("n\n3\n", Some(0)), "{told}");
    let missing = here.loev(&["sql", "out", "select * from 'label.csv'"]);
    assert!(
        errors(&missing).contains("no such file") && errors(&missing).contains('^'),
        "{}",
        errors(&missing)
    );
}

#[test]
fn a_build_without_the_server_says_how_to_get_it() {
    let here = Workplace::new();
    let output = here.loev(&["sql", "nowhere", "--serve=0"]);
    let told = errors(&output);
    match output.status.code() {
        Some(2) => {
            assert!(told.contains("--features serve") && told.lines().count() == 1, "{told}")
        }
        // A build with it fails at what it is to serve.
        code => assert!(code == Some(1) && told.contains("nowhere"), "{told}"),
    }
    let both = here.loev(&["sql", "--serve", "select 1"]);
    assert_eq!(both.status.code(), Some(2), "{}", errors(&both));
    assert_eq!(here.loev(&["sql", "--serve=example.org"]).status.code(), Some(2));
}

#[test]
fn every_column_of_a_stage_is_described() {
    let here = Workplace::new();
    here.write("small.yaml", SMALL);
    here.done(&["run", "small.yaml"]);
    let query = "select table_name || '.' || column_name from columns where comment is null";
    assert_eq!(here.sql("runs/small", query), [] as [&str; 0]);
    let labelled =
        "select count(*), count(distinct split), bool_and(score between 0 and 1) from probes_labelled";
    let answers: usize =
        here.sql("runs/small", "select count(*) from probes_predictions")[0].parse().unwrap();
    assert_eq!(here.sql("runs/small", labelled), [format!("{answers},1,true")]);
    assert_eq!(here.sql("runs/small", "select count(*), count(key) from embeddings_labelled"), ["108,108"]);
    let figures = here.sql("runs/small", "select count(*) from figures");
    assert_eq!(figures, here.sql("runs/small", "select count(*) from probes"));

    // A run beside itself differs in nothing; beside another seed's it may, and the seed is named.
    let same = here.done(&["compare", "runs/small", "runs/small", "--format", "csv"]);
    assert!(same.lines().skip(1).all(|line| line.contains(",0.0,0.0,0.0,false,")), "{same}");
    assert!(here.done(&["compare", "runs/small", "runs/small"]).starts_with("no option differs"));
    here.done(&["run", "small.yaml", "--set", "stages.probes.probe.epochs=1", "--out", "other"]);
    let other = here.done(&["compare", "runs/small", "other"]);
    assert!(other.contains("stages.probes.probe.epochs: 100 -> 1"), "{other}");
    here.done(&["compare", "runs/small", "other", "-o", "compared.parquet"]);
    let rows = here.sql(
        "compared.parquet",
        "select min(abs(b - a - difference) < 1e-12 and lo <= hi) as fine, min(clips) from compared",
    );
    assert_eq!(rows, ["true,10"]);
    let none = here.loev(&["compare", "runs/small", "other", "--stage", "probe"]);
    assert!(errors(&none).contains("no answers of a stage `probe`; it has probes"), "{}", errors(&none));
}

#[test]
fn statements_of_a_file_are_answered_in_turn() {
    let here = Workplace::new();
    clips(&here);
    here.write("two.sql", "-- first;\ncreate view loud as select * from clips;\nselect count(*) as n from loud;\n\nselect ';' as mark");
    assert_eq!(here.done(&["sql", "out", "-f", "two.sql", "--format", "csv"]), "n\n36\n\nmark\n;\n");
    here.write("wrong.sql", "select 1;\n\nselect kez\nfrom clips;\nselect 2;");
    let output = here.loev(&["sql", "out", "-f", "wrong.sql", "--format", "csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("  3 | select kez"), "{}", errors(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Int64(1)\n1\n", "what comes after is not asked");
    let both = here.loev(&["sql", "out", "-f", "two.sql", "-o", "x.csv"]);
    assert_eq!(both.status.code(), Some(2));
    assert!(errors(&both).contains("2 statements"), "{}", errors(&both));
}

#[test]
fn answers_go_to_files_but_not_into_a_run() {
    let here = Workplace::new();
    clips(&here);
    let query = "select key, count(*) as n from clips group by key order by key";
    for file in ["a.csv", "a.json", "a.md", "a.parquet"] {
        here.done(&["sql", "out", query, "-o", file]);
        assert!(here.path(file).exists(), "{file}");
    }
    let count = |table: &str| here.sql(table, "select sum(n) as n from a");
    assert_eq!(
        (count("a.csv"), count("a.json"), count("a.parquet")),
        (vec!["36".into()], vec!["36".into()], vec!["36".into()])
    );
    assert!(std::fs::read_to_string(here.path("a.md")).unwrap().starts_with("| key | n |\n| --- | ---: |\n"));
    // A statement that fails leaves the file as it was.
    let before = std::fs::read(here.path("a.csv")).unwrap();
    assert!(!here.loev(&["sql", "out", "select kez from clips", "-o", "a.csv"]).status.success());
    assert_eq!(std::fs::read(here.path("a.csv")).unwrap(), before);

    let table = "out/tables/clips/shard-00000.parquet";
    let before = std::fs::read(here.path(table)).unwrap();
    for arguments in [
        vec!["sql", "out", query, "-o", table],
        vec!["sql", "out", "copy (select 1) to 'out/tables/clips/x.parquet'"],
    ] {
        let refused = here.loev(&arguments);
        assert!(
            !refused.status.success() && errors(&refused).contains("own files")
                || errors(&refused).contains("files of the run"),
            "{}",
            errors(&refused)
        );
    }
    assert_eq!(std::fs::read(here.path(table)).unwrap(), before);
    assert!(!here.path("out/tables/clips/x.parquet").exists());
    assert_eq!(here.loev(&["sql", "out", query, "-o", "a.xyz"]).status.code(), Some(2));
}

#[test]
fn a_session_takes_statements_and_commands_from_a_pipe() {
    let here = Workplace::new();
    clips(&here);
    here.write("more.sql", "select 'from a file' as word;");
    let input = "select count(*) as n\n  from clips;\n\\d clips\n\\df camel\n\\format csv\nselect 1 as a; select 2 as b;\n\
                 \\x\n\\format table\nselect 'x' as word, 3 as three;\n\\x\n\\o out.csv\nselect 4 as four;\n\\i more.sql\nselect 5 as last";
    let (out, told, code) = piped(&here, &["sql", "out"], input);
    assert_eq!(code, Some(0), "{told}");
    for part in [
        " n\n ──\n 36\n(1 row)\n",
        "clip_id      text",
        "name of the clip",
        "no function 'camel'",
        "a\n1\n\nb\n2\n",
        "─ 1 ────────────────────\nword   x\nthree  3\n(1 row)\n",
        "from a file",
        " last\n ────\n    5\n",
    ] {
        assert!(out.contains(part), "no {part:?} in:\n{out}");
    }
    assert_eq!(std::fs::read_to_string(here.path("out.csv")).unwrap(), "four\n4\n");
    let (_, told, code) = piped(&here, &["sql", "out"], "select 1;\nselect nope;\nselect 2;");
    assert_eq!(code, Some(1));
    assert!(told.contains("  2 | select nope"), "{told}");
    let (_, told, code) = piped(&here, &["sql"], "\\nope\n");
    assert!(code == Some(1) && told.contains("there is no command \\nope"), "{told}");
}

#[test]
fn a_query_stops_at_ctrl_c() {
    let here = Workplace::new();
    let forever = "select sum(a.value * b.value * c.value) from generate_series(1, 100000) a, \
                   generate_series(1, 100000) b, generate_series(1, 100000) c";
    let mut command = here.command(&["sql", forever]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let interrupted =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn runs_that_are_not_complete_are_marked() {
    let here = Workplace::new();
    clips(&here);
    let manifest = std::fs::read_to_string(here.path("out/run.json")).unwrap();
    here.write("out/run.json", manifest.replacen("\"complete\"", "\"interrupted\"", 1));
    let output = here.loev(&["sql", "out", "select status from runs", "--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "status\ninterrupted\n");
    assert!(
        errors(&output).contains("note: run `out` is not complete (interrupted, 2 of 2 stages done)"),
        "{}",
        errors(&output)
    );
    here.write("out/run.json", "{\"figures\": []}");
    let output = here.loev(&["sql", "out", "select 1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("names no tables"), "{}", errors(&output));
}
