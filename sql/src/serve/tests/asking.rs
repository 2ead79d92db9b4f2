//! What is asked and answered, and what is refused.

use super::client::{Client, served, texts};
use crate::query::query;
use crate::testing::{block_on, session, write_parquet};

#[test]
fn statements_are_planned_as_everywhere() {
    let served = served();
    let mut client = Client::of(&served);
    assert_eq!(texts(client.ask("select 1")), ["1"]);
    assert_eq!(
        texts(client.ask("select name, \"BPM\" from music order by n; select 2")),
        ["drift|60.0", "anthem|90.5", "静か|NULL", "2"]
    );
    for search in [
        "select name, distance from knn(music, [0.0, 3.0, 5.0], 1, metric => 'l2')",
        "select name, distance from knn(music, (select vector from music where n = 2), 1, metric => 'l2')",
    ] {
        let ours = client.ask(search);
        let found = texts(ours);
        assert!(found.len() == 1 && found[0].starts_with("anthem|"), "{search}: {found:?}");
        assert_eq!(texts(client.prepared(search, &[])), found);
    }
    let nearest = "select name from music where n < 3 order by vector <-> [1.0, 2.0, 2.0] limit 1";
    assert_eq!(texts(client.ask(nearest)), ["drift"]);
    assert_eq!(
        texts(client.ask("select transpose_key('A minor', 3), vector from music where n = 1")),
        ["C minor|{1.0,2.0,2.0}"]
    );
    assert_eq!(texts(client.prepared("select name from music where n = $1", &["2"])), ["anthem"]);
}

#[test]
fn nothing_is_written_and_nothing_of_others_is_changed() {
    let served = served();
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("out.parquet");
    let mut client = Client::of(&served);
    let before = texts(client.ask("select value from information_schema.df_settings"));
    for sql in [
        "create table mine as select 1",
        "create view mine as select 1",
        "drop table music",
        "insert into music select * from music",
        "delete from music",
        "select 1 into mine",
        "prepare mine as select 1",
        "explain analyze insert into music select * from music",
        &format!("copy music to '{}'", written.display()),
        &format!("copy (select * from music) to '{}'", written.display()),
        &format!("create external table mine stored as parquet location '{}'", written.display()),
        "declare mine cursor for select 1",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
    ] {
        assert!(client.ask(sql).is_err(), "{sql}");
        assert!(client.prepared(sql, &[]).is_err(), "prepared: {sql}");
    }
    let refused = client.ask("create table mine as select 1").unwrap_err();
    assert_eq!((refused.code(), refused.message()), ("42000", "a server only answers statements that read"));
    for sql in
        ["copy music to stdout", "copy (select 1) to stdout with (format csv)", "COPY  music TO STDOUT "]
    {
        let refused = client.ask(sql).unwrap_err();
        assert!(refused.field('H').unwrap().contains("psql --csv -c"), "{refused:?}");
    }
    // What drivers say when they connect is taken, and stays theirs.
    for sql in [
        "set client_encoding = 'UTF8'",
        "set time zone 'Europe/Vienna'",
        "set local time zone 'Europe/Vienna'",
        "set timezone = 'Europe/Vienna'",
        "set session characteristics as transaction read only",
        "begin",
        "savepoint here",
        "release savepoint here",
        "rollback to savepoint here",
        "commit",
    ] {
        client.ask(sql).unwrap();
        client.prepared(sql, &[]).unwrap();
    }
    assert_eq!(texts(Client::of(&served).ask("select value from information_schema.df_settings")), before);
    assert_eq!(texts(client.ask("select count(*) from music")), ["3"]);
    assert!(!written.exists());
    assert!(client.ask("select * from mine").is_err());
}

#[test]
fn no_statement_names_a_file() {
    let served = served();
    let dir = tempfile::tempdir().unwrap();
    let batches = block_on(query(&session(), "select n from music")).unwrap();
    write_parquet(dir.path(), "rows.parquet", &batches[0]);
    let file = dir.path().join("rows.parquet");
    let file = file.display();
    let mut client = Client::of(&served);
    for sql in [
        format!("select * from '{file}'"),
        format!("select * from \"{file}\""),
        format!("select * from 'file://{file}'"),
        format!("select n from knn('{file}', [1.0], 1)"),
        format!("select n from knn((select * from '{file}'), [1.0], 1)"),
        format!("select (select count(*) from '{file}')"),
        "select * from 's3://bucket/rows.parquet'".to_owned(),
    ] {
        let error = client.ask(&sql).unwrap_err();
        assert!(error.message().contains("reads no file"), "{sql}: {error:?}");
        assert!(client.prepared(&sql, &[]).is_err(), "prepared: {sql}");
    }
    for function in crate::functions::audio::all() {
        let error = client.ask(&format!("select {}('{file}')", function.name())).unwrap_err();
        assert!(error.message().contains(function.name()), "{error:?}");
    }
    // The same session is closed to its owner too, and another is not.
    assert!(block_on(query(&served.context, &format!("select * from '{file}'"))).is_err());
    assert_eq!(block_on(query(&session(), &format!("select * from '{file}'"))).unwrap()[0].num_rows(), 3);
}

#[test]
fn clients_find_the_tables() {
    let served = served();
    let mut client = Client::of(&served);
    // What psql asks for `\dt` and `\d music`.
    let tables = "SELECT n.nspname as \"Schema\", c.relname as \"Name\", \
        CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' END as \"Type\" \
        FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r','p','') AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' \
        AND n.nspname <> 'information_schema' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2;";
    assert_eq!(texts(client.ask(tables)), ["public|music|table"]);
    let oid = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c \
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relname OPERATOR(pg_catalog.~) '^(music)$' COLLATE pg_catalog.default \
        AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3;";
    let found = texts(client.ask(oid));
    let oid = found[0].split('|').next().unwrap();
    let columns = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = '{oid}' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;"
    );
    let names: Vec<String> = texts(client.ask(&columns))
        .iter()
        .map(|row| row.split('|').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["name", "n", "BPM", "vector"]);
    let columns = "select column_name from information_schema.columns where table_name = $1";
    assert_eq!(texts(client.prepared(columns, &["music"])).len(), 4);
}

#[test]
fn errors_are_plain_and_a_client_goes_on_after_them() {
    let served = served();
    let mut client = Client::of(&served);
    let error = client.ask("select * from musik").unwrap_err();
    assert_eq!((error.code(), error.message()), ("42000", "table 'musik' not found"));
    assert_eq!(
        (error.field('H'), error.field('P')),
        (Some("did you mean 'music'?\ntables are: music"), Some("15"))
    );
    let error = client.prepared("select cosine_distance(vector, [1.0]) from music", &[]).unwrap_err();
    assert!(!error.message().contains("External error"), "{error:?}");
    assert!(client.ask("select from where").is_err());
    // What runs into its error after its plan was made.
    for error in [
        client.ask("select 1 / (n - n) from music").unwrap_err(),
        client.prepared("select 1 / (n - n) from music", &[]).unwrap_err(),
    ] {
        assert!(error.message().to_lowercase().contains("divide by zero"), "{error:?}");
        assert!(!error.message().contains("Arrow error"), "{error:?}");
    }
    assert_eq!(texts(client.ask("select 3")), ["3"]);
}

#[test]
fn places_are_those_of_what_the_client_sent() {
    let served = served();
    let mut client = Client::of(&served);
    // In characters, behind other statements, lines and comments.
    let sql = "select '静か';\n -- one\nselect nn from music; select 2";
    client.begin(sql);
    let error = client.answer().unwrap_err();
    assert_eq!(
        error.field('P').unwrap().parse(),
        Ok(sql.chars().take_while(|c| *c != '-').count() + 15),
        "{error:?}"
    );
    let error = client.prepared("select nn from music", &[]).unwrap_err();
    assert_eq!(error.field('P'), Some("8"), "{error:?}");
    // What is asked instead of it has other places.
    let error = client.ask("select nn from pg_class").unwrap_err();
    assert_eq!((error.message(), error.field('P')), ("column 'nn' not found", None));
}

#[test]
fn a_statement_before_the_one_that_fails_is_answered() {
    let served = served();
    let mut client = Client::of(&served);
    client.begin("select 1; select * from musik; select 2");
    let tags: Vec<u8> = std::iter::from_fn(|| client.next()).map(|(tag, _)| tag).take(5).collect();
    assert_eq!(tags, b"TDCEZ");
    assert_eq!(texts(client.ask("")), [""; 0]);
    assert_eq!(texts(client.ask(" ; -- nothing\n")), [""; 0]);
}

#[test]
fn large_statements_are_answered_or_refused() {
    let served = served();
    let mut client = Client::of(&served);
    let list = vec!["-0.25"; 100_000].join(", ");
    assert_eq!(texts(client.ask(&format!("select array_length([{list}])"))), ["100000"]);
    for (first, link, last) in [
        ("select 1", " + 1", ""),
        ("select n = 1", " or n = 1", " from music"),
        ("select 1", " union all select 1", ""),
        ("select n from music", " join music using (n)", ""),
        ("select 1", "::bigint", ""),
    ] {
        let asked = |links: usize| format!("{first}{}{last}", link.repeat(links));
        client.ask("set statement_timeout = 0").unwrap();
        drop(client.ask(&asked(50)));
        // The engine takes long to plan what is deep, but goes as deep as it is let.
        client.ask("set statement_timeout = 2000").unwrap();
        drop(client.ask(&asked(9_000 / link.split_whitespace().count())));
        assert_eq!(client.ask(&asked(20_000)).unwrap_err().code(), "0A000", "{link}");
    }
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("not ", "true", ""),
        ("- ", "1", ""),
        ("case when true then ", "1", " end"),
        ("[", "1", "]"),
    ] {
        for times in [20, 2_000] {
            drop(client.ask(&format!("select {}{middle}{}", open.repeat(times), close.repeat(times))));
        }
    }
    client.ask("set statement_timeout = 0").unwrap();
    let error = client.ask(&"select 1;".repeat(1_000)).unwrap_err();
    assert!(error.message().contains("more than 64 statements"), "{error:?}");
    assert_eq!(texts(client.ask(&"select 1;".repeat(64))).len(), 64);
}
