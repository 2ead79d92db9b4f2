//! What the run is: its head, its graph, its rejects, and how to make it again.

use loev_sql::quoted;
use std::collections::BTreeMap;

use super::ask::Run;
use super::chart::{Node, graph};
use super::figure::{Data, Figure, Section};
use super::html::Html;
use super::parts::{Cell, block, count, details, duration, size, table};
use super::yaml::yaml;
use crate::error::RunError;
use crate::exec::columns::{number, text};
use crate::run::context::RECEIPTS;
use crate::run::dir::Status;
use crate::run::rejects;

/// What stands at the top of the page.
///
/// # Errors
/// When the user asked to stop.
pub async fn head(run: &Run) -> Result<Html, RunError> {
    let manifest = &run.manifest;
    let status = manifest.status;
    let (word, class) = match status {
        Status::Complete => ("complete", "chip complete"),
        Status::Running => ("at work, or killed while at work", "chip unfinished"),
        Status::Failed => ("failed", "chip unfinished"),
        Status::Interrupted => ("interrupted", "chip unfinished"),
    };
    let stages = run.stages();
    let done = stages.iter().filter(|(name, _)| manifest.stages.contains_key(*name)).count();
    let seconds: f64 = manifest.stages.values().map(|record| record.seconds).sum();
    let seed = manifest.pipeline.get("seed").and_then(serde_json::Value::as_u64).unwrap_or(0);

    let mut html = Html::new();
    html.element("h1", &[], &manifest.name);
    html.open("p", &[("class", "facts".into())]).element("span", &[("class", class.into())], word);
    let mut facts = vec![format!("{done} of {} stages", stages.len()), format!("seed {seed}")];
    match finished(run).await {
        Ok(Some(when)) => facts.push(format!("last written {when} UTC")),
        Err(error @ RunError::Interrupted) => return Err(error),
        _ => {}
    }
    let machine = &manifest.machine;
    facts.push(format!("{} of work", duration(seconds)));
    facts.push(format!("loev {}", manifest.loev));
    facts.push(format!("{} {}", machine.platform, machine.cpu));
    facts.push(machine.device.clone());
    for fact in facts.iter().filter(|fact| !fact.trim().is_empty()) {
        html.element("span", &[], fact);
    }
    html.close("p");
    let command = format!("loev run {name}.yaml --out runs/{name}", name = file_name(&manifest.name));
    html.open("p", &[("class", "command".into())]).element("code", &[], &command);
    html.raw(" with the <a href=\"#reproduce\">configuration</a></p>");
    if status != Status::Complete || done < stages.len() {
        html.open("p", &[("class", "mark".into()), ("role", "note".into())]);
        html.text(&format!(
            "This run is not finished ({word}): what is shown are the {done} stages that are. The same loev run goes on with the rest."
        ));
        html.close("p");
    }
    Ok(html)
}

/// When the last file was written.
async fn finished(run: &Run) -> Result<Option<String>, RunError> {
    let sql = format!(
        "select cast(arrow_cast(cast(max(finished_s) as bigint), 'Timestamp(Second, None)') as varchar) as at from {}",
        receipts(run)
    );
    let rows = run.ask(&sql).await?;
    Ok(text(&rows, "at")?.iter().flatten().next().map(|at| at.replace('T', " ")))
}

/// The graph of stages.
///
/// # Errors
/// When the user asked to stop.
pub async fn stages(run: &Run) -> Result<Section, RunError> {
    let mut section = Section::new(
        "stages",
        "Stages",
        "From left to right: each stage stands behind what it reads. Dashed ones are not finished.",
    );
    if run.graph.is_none() {
        section.marks.push("what stages read is not known: this version cannot read the pipeline".to_owned());
    }
    section.take("stages", figure(run).await)?;
    if section.figures.is_empty() {
        // Without receipts there is still a graph.
        section.body = scrolling(&graph(&nodes(run, &BTreeMap::new())));
    }
    Ok(section)
}

/// The receipts of all stages but the reports, as a table of SQL.
fn receipts(run: &Run) -> String {
    let names: Vec<String> =
        run.reports.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    match names.is_empty() {
        true => quoted(RECEIPTS),
        false => format!("{} where stage not in ({})", quoted(RECEIPTS), names.join(", ")),
    }
}

fn scrolling(drawing: &Html) -> Html {
    let mut html = Html::new();
    html.raw("<div class=\"scroll graph\" tabindex=\"0\">").add(drawing).raw("</div>");
    html
}

async fn figure(run: &Run) -> Result<Option<Figure>, RunError> {
    let sql = format!(
        "select stage, \"table\", count(*) as files, sum(\"rows\") as \"rows\", sum(bytes) as bytes, sum(rejects) as rejects,\n  \
         sum(seconds) as seconds_of_files from {} group by stage, \"table\" order by stage, \"table\"",
        receipts(run)
    );
    let rows = run.ask(&sql).await?;
    let (names, bytes) = (text(&rows, "stage")?, number(&rows, "bytes")?);
    let mut of_stage: BTreeMap<String, f64> = BTreeMap::new();
    for (name, bytes) in names.iter().zip(bytes.iter()) {
        *of_stage.entry(name.unwrap_or("").to_owned()).or_default() += bytes.unwrap_or(0.0);
    }
    let nodes = nodes(run, &of_stage);
    let mut body = scrolling(&graph(&nodes));
    let rows_of_table: Vec<Vec<Cell>> = run
        .stages()
        .iter()
        .map(|(name, kind)| {
            let record = run.manifest.stages.get(*name);
            let inputs = run.graph.as_ref().map(|graph| graph.inputs(name).join(", ")).unwrap_or_default();
            vec![
                Cell::Code((*name).to_owned()),
                Cell::Text((*kind).to_owned()),
                Cell::Text(inputs),
                record.map_or(Cell::Text("not finished".to_owned()), |r| Cell::count(r.rows)),
                record.map_or(Cell::Text(String::new()), |r| Cell::count(r.rejects)),
                Cell::Number(record.map(|r| duration(r.seconds)).unwrap_or_default()),
                Cell::Number(of_stage.get(*name).map(|bytes| size(*bytes as u64)).unwrap_or_default()),
                Cell::Text(record.map(|r| r.note.clone()).unwrap_or_default()),
            ]
        })
        .collect();
    let headers = ["stage", "kind", "reads", "rows", "rejects", "time", "size", "note"];
    body.add(&details("Table", &table(&headers, &rows_of_table)));
    let caption = "Rows, rejects and times are those of the receipts.".to_owned();
    Ok(Some(Figure { title: "Graph".to_owned(), caption, body, data: Data::of(&rows)?, sql: vec![sql] }))
}

fn nodes(run: &Run, bytes: &BTreeMap<String, f64>) -> Vec<Node> {
    let node = |(name, kind): (&str, &str)| {
        let record = run.manifest.stages.get(name);
        let inputs = run.graph.as_ref().map(|graph| graph.inputs(name).to_vec()).unwrap_or_default();
        let lines = match record {
            None => vec![kind.to_owned(), "not finished".to_owned()],
            Some(record) => {
                let size =
                    bytes.get(name).map(|bytes| format!("{}, ", size(*bytes as u64))).unwrap_or_default();
                vec![
                    format!("{kind}, {} rows", count(record.rows)),
                    format!("{size}{}", duration(record.seconds)),
                ]
            }
        };
        let rejects = record.map_or(0, |record| record.rejects);
        let warning = (rejects > 0).then(|| format!("{} rejects", count(rejects)));
        Node { name: name.to_owned(), kind: kind.to_owned(), inputs, lines, done: record.is_some(), warning }
    };
    run.stages().into_iter().map(node).collect()
}

/// Clips that could not be used.
///
/// # Errors
/// When the user asked to stop.
pub async fn rejected(run: &Run) -> Result<Section, RunError> {
    let mut section =
        Section::new("rejects", "Rejects", "Clips that could not be used, wholly or in part, by reason.");
    let needs = ["stage", "clip_id", "reason", "message", "whole"];
    if !run.readable(&[rejects::TABLE], &needs, &mut section.marks).is_empty() {
        section.take("rejects", reasons(run).await)?;
        if section.figures.is_empty() && section.marks.is_empty() {
            section.body.raw("<p>No clip was rejected.</p>");
        }
    }
    Ok(section)
}

async fn reasons(run: &Run) -> Result<Option<Figure>, RunError> {
    let sql = format!(
        "select stage, reason, count(distinct clip_id) as clips, count(distinct clip_id) filter (where whole) as wholly,\n  \
         min(clip_id) as example, min(message) as message from {} group by stage, reason order by clips desc, stage, reason",
        quoted(rejects::TABLE)
    );
    let rows = run.ask(&sql).await?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let [stage, reason, example, message] =
        ["stage", "reason", "example", "message"].map(|name| text(&rows, name));
    let (stage, reason, example, message) = (stage?, reason?, example?, message?);
    let (clips, wholly) = (number(&rows, "clips")?, number(&rows, "wholly")?);
    let cells: Vec<Vec<Cell>> = (0..rows.num_rows())
        .map(|row| {
            vec![
                Cell::Code(stage.value(row).to_owned()),
                Cell::Text(reason.value(row).to_owned()),
                Cell::count(clips.value(row) as u64),
                Cell::count(wholly.value(row) as u64),
                Cell::Code(example.value(row).to_owned()),
                Cell::Text(message.value(row).to_owned()),
            ]
        })
        .collect();
    let headers = ["stage", "reason", "clips", "wholly", "such as", "message"];
    let caption = "A clip counts once for each stage and reason.".to_owned();
    let (title, body) = ("By reason".to_owned(), table(&headers, &cells));
    Ok(Some(Figure { title, caption, body, data: Data::of(&rows)?, sql: vec![sql] }))
}

/// The section, and the texts that can be saved.
///
/// # Errors
/// When the manifest cannot be written as JSON.
pub fn reproduce(run: &Run) -> Result<(Section, Vec<(String, String)>), RunError> {
    let manifest = &run.manifest;
    let name = file_name(&manifest.name);
    let config = yaml(&manifest.pipeline);
    let json = serde_json::to_string_pretty(manifest).map_err(|e| RunError::Engine(e.to_string()))? + "\n";
    let (yaml_name, json_name) = (format!("{name}.yaml"), format!("{name}-run.json"));
    let mut section = Section::new(
        "reproduce",
        "Make it again",
        "Save the configuration and the manifest below, then run, compare and ask. Tables are equal byte for byte between machines \
         of one class and one version of loev.",
    );
    let commands = format!(
        "loev run {yaml_name} --out runs/{name}\n\
         loev verify runs/{name} --against {json_name}\n\
         loev sql runs/{name} \"show tables\"\n\
         loev report runs/{name}"
    );
    let machine = &manifest.machine;
    let operators: Vec<String> =
        manifest.operators.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let mut facts = vec![
        ("made by", format!("loev {}", manifest.loev)),
        ("machine", format!("{}, {}, {}", machine.platform, machine.cpu, machine.device)),
    ];
    if !operators.is_empty() {
        facts.push(("operator versions", operators.join(", ")));
    }
    let body = &mut section.body;
    body.add(&block(&commands));
    body.raw("<dl>");
    for (name, value) in &facts {
        body.element("dt", &[], name).element("dd", &[], value);
    }
    body.raw("</dl>");
    for (title, file, content) in [
        ("The configuration, with every default filled in", &yaml_name, &config),
        ("The manifest: versions, digests of all tables, figures", &json_name, &json),
    ] {
        let mut inside = Html::new();
        inside.open("p", &[]).open("button", &[("type", "button".into()), ("data-save", file.into())]);
        inside.text(&format!("Save as {file}")).close("button").close("p");
        inside.add(&block(content));
        body.add(&details(title, &inside));
    }
    Ok((section, vec![(yaml_name, config), (json_name, json)]))
}

/// The name as a file, and as a word of a command line.
fn file_name(name: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().map(|c| if kept(c) { c } else { '_' }).collect();
    match name.trim_start_matches(['-', '.']) {
        "" => "run".to_owned(),
        name => name.to_owned(),
    }
}
