//! Checks on names and between stages, once their options are read.

use loev_models::Method;
use loev_ops::chain::{Chain, Sampling};
use loev_ops::dist::Dist;
use loev_ops::operator::{FactorDef, OperatorSpec, ParamSpec};

use super::Pipeline;
use super::de::Reader;
use super::diagnostics::{Document, did_you_mean, list};
use super::node::{Place, shorten};
use super::schema;
use super::stage::{Files, Kind, Stage, Train, Views};

/// What a stage may be called: names that SQL takes without quotes.
pub(super) const NAME_PATTERN: &str = "^[a-z][a-z0-9_]*$";
const LONGEST_NAME: usize = 64;

/// The keys of a pipeline file.
pub(super) const TOP_LEVEL: [&str; 4] = ["name", "seed", "max_rejects", "stages"];

/// Names that a run or the SQL session uses for tables of its own.
const RESERVED: [&str; 7] =
    ["datafusion", "information_schema", "public", "receipts", "rejects", "run", "runs"];

/// Words that SQL would not take as a table's name without quotes.
const SQL_WORDS: [&str; 46] = [
    "all",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "right",
    "select",
    "table",
    "true",
    "union",
    "using",
    "values",
    "where",
    "with",
];

/// The garde rule for the pipeline's name, which becomes a folder's name.
pub(super) fn pipeline_name(name: &str, _context: &()) -> garde::Result {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fits) {
        return Err(garde::Error::new(
            "may hold letters, digits, `-`, `_` and `.`, and starts with a letter or digit",
        ));
    }
    if name.len() > LONGEST_NAME {
        return Err(garde::Error::new(format!("has more than {LONGEST_NAME} characters")));
    }
    Ok(())
}

/// A stage's name is a table's name.
pub(super) fn stage_name(reader: &Reader<'_>, name: &str, place: Place) {
    let shape = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let shown = shorten(name);
    if !shape {
        let help =
            "a name starts with a-z and goes on with a-z, 0-9 and _, so that SQL takes it without quotes";
        reader.note(
            place,
            format!("`{shown}` cannot be the name of a stage"),
            "bad name",
            Some(help.to_string()),
        );
    } else if name.len() > LONGEST_NAME {
        let message = format!("the name `{shown}` has more than {LONGEST_NAME} characters");
        reader.note(place, message, "too long", None);
    } else if RESERVED.contains(&name) {
        let help = "every run has a table or schema of this name; choose another".to_string();
        reader.note(place, format!("the name `{name}` is reserved"), "reserved", Some(help));
    } else if SQL_WORDS.contains(&name) {
        let help = format!("`select * from {name}` would not parse; choose another");
        reader.note(place, format!("the name `{name}` is a word of SQL"), "word of SQL", Some(help));
    }
}

/// Turns what garde found into problems at the values it is about. Whether there were none.
pub(super) fn ranges(
    reader: &Reader<'_>,
    document: &Document,
    prefix: &[&str],
    result: Result<(), garde::Report>,
) -> bool {
    let Err(report) = result else { return true };
    for (path, error) in report.iter() {
        // "a.b[0]" as parts. Groups that are flattened and variants without a key are not in the text.
        let dotted = path.to_string().replace('[', ".").replace(']', "");
        let parts = prefix.iter().copied().chain(dotted.split('.'));
        let (place, found) = document.trace(parts);
        let path = found.join(".");
        let info = schema::find(&path);
        let range = info.as_ref().and_then(schema::OptionInfo::range);
        let bounds = ["lower than", "greater than"].iter().any(|words| error.message().starts_with(words));
        match range.filter(|_| bounds) {
            Some(range) => {
                let message = format!("`{path}` is out of range: {}", shorten(document.text(place)));
                let help = info.and_then(|info| info.meaning());
                let option = found.last().copied().unwrap_or_default();
                let help = help.map(|meaning| format!("`{option}`: {meaning}"));
                reader.note(place, message, format!("must be {range}"), help);
            }
            None => reader.note(place, format!("`{path}`: {}", error.message()), "here", None),
        }
    }
    false
}

/// Checks what stages say about each other. Of the `faulty` ones, which have values out of range, only the
/// names that they refer to.
pub(super) fn stages(reader: &Reader<'_>, pipeline: &Pipeline, faulty: &[String]) {
    let checks = Checks { reader, pipeline };
    for (name, stage) in &pipeline.stages {
        checks.side_tables(name, stage);
        for (option, target) in stage.references() {
            checks.reference(name, stage, option, target);
        }
        if faulty.contains(name) {
            continue;
        }
        match stage {
            Stage::Files(files) => checks.files(name, files),
            Stage::Views(views) => checks.views(name, views),
            Stage::Train(train) => checks.train(name, train),
            Stage::Probe(probe) => checks.embeddings_of_clips(name, Kind::Probe, "from", &probe.from),
            Stage::Equivariance(measure) => checks.embeddings_of_views(name, &measure.from),
            Stage::Retrieve(retrieve) => {
                checks.embeddings_of_clips(name, Kind::Retrieve, "from", &retrieve.from);
            }
            _ => {}
        }
    }
}

struct Checks<'c> {
    reader: &'c Reader<'c>,
    pipeline: &'c Pipeline,
}

impl Checks<'_> {
    fn place(&self, stage: &str, kind: Kind, option: &str) -> Place {
        self.pipeline.document.locate(["stages", stage, kind.name()].into_iter().chain(option.split('.')))
    }

    /// The stage exists and is of a kind that the option takes.
    fn reference(&self, name: &str, stage: &Stage, option: &str, target: &str) {
        let place = self.place(name, stage.kind(), option);
        let accepted = Stage::accepts(option, stage.kind());
        let kinds = || list(accepted.iter().map(|kind| kind.name()));
        let path = format!("stages.{name}.{}.{option}", stage.kind().name());
        if let Some(found) = self.pipeline.stages.get(target) {
            if !accepted.contains(&found.kind()) {
                let message = format!("`{path}` needs a stage of kind {}", kinds());
                let label = format!("`{target}` is of kind `{}`", found.kind().name());
                let fitting: Vec<&str> = self
                    .pipeline
                    .stages
                    .iter()
                    .filter(|(_, stage)| accepted.contains(&stage.kind()))
                    .map(|(name, _)| name.as_str())
                    .collect();
                let help = (!fitting.is_empty()).then(|| format!("stages of that kind: {}", list(fitting)));
                self.reader.note(place, message, label, help);
            }
            return;
        }
        // A stage that is there but could not be read has been reported.
        let stages = self.pipeline.document.root.get("stages");
        let all = || stages.and_then(|stages| stages.value.entries()).unwrap_or_default().iter();
        if all().any(|entry| entry.key == target) {
            return;
        }
        let names = || all().map(|entry| entry.key.as_str()).filter(|other| *other != name);
        let help = did_you_mean(target, names()).unwrap_or_else(|| {
            if names().next().is_none() {
                format!("add a stage of kind {}", kinds())
            } else {
                format!("the other stages are {}", list(names()))
            }
        });
        let message = format!("`{path}` refers to `{}`, and there is no such stage", shorten(target));
        self.reader.note(place, message, "no such stage", Some(help));
    }

    /// No stage has the name of a table that another one writes beside its own.
    fn side_tables(&self, name: &str, stage: &Stage) {
        for suffix in stage.side_tables() {
            let table = format!("{name}_{suffix}");
            if self.pipeline.stages.contains_key(&table) {
                let place = self.pipeline.document.locate(["stages", &table]);
                let message = format!("the name `{table}` is taken by a table of stage `{name}`");
                self.reader.note(place, message, "taken", Some("choose another name".to_string()));
            }
        }
    }

    fn files(&self, name: &str, files: &Files) {
        if files.labels.is_some() && !files.is_manifest() {
            let place = self.place(name, Kind::Files, "labels");
            let message = format!("`stages.{name}.files.labels` needs a manifest, whose columns it takes");
            let help = "let `path` name a .csv, .parquet or .jsonl file, or drop `labels`".to_string();
            self.reader.note(place, message, "`path` is not a manifest", Some(help));
        }
    }

    fn views(&self, name: &str, views: &Views) {
        let chain = views.chain();
        if let Err(message) = chain.validate() {
            let place = self.place(name, Kind::Views, "");
            self.reader.note(place, format!("`stages.{name}.views`: {message}"), "here", None);
            return;
        }
        let read = match self.pipeline.stages.get(&views.from) {
            Some(Stage::Decode(decode)) => &decode.from,
            _ => &views.from,
        };
        if let Some(Stage::Synth(clips)) = self.pipeline.stages.get(read)
            && chain.read_seconds() > clips.seconds
        {
            let place = self.place(name, Kind::Views, "seconds");
            let message = format!(
                "views of {} s need up to {:.2} s of audio, and the clips of `{}` have {} s",
                views.seconds,
                chain.read_seconds(),
                views.from,
                clips.seconds
            );
            let help =
                "shorten `seconds`, narrow the range of `time_stretch`, or lengthen the clips".to_string();
            self.reader.note(place, message, "longer than the clips", Some(help));
        }
    }

    /// An option that needs embeddings of clips does not get those of views.
    fn embeddings_of_clips(&self, name: &str, kind: Kind, option: &str, from: &str) {
        if let Some(Stage::Embed(embed)) = self.pipeline.stages.get(from)
            && let Some(Stage::Views(_)) = self.pipeline.stages.get(&embed.from)
        {
            let place = self.place(name, kind, option);
            let message = format!("`stages.{name}.{}.{option}` needs embeddings of clips", kind.name());
            let label = format!("`{from}` embeds the views of `{}`", embed.from);
            let help = "name an embed stage whose `from` holds clips".to_string();
            self.reader.note(place, message, label, Some(help));
        }
    }

    /// Equivariance is between views, and needs factors that were drawn for them.
    fn embeddings_of_views(&self, name: &str, from: &str) {
        let Some(Stage::Embed(embed)) = self.pipeline.stages.get(from) else { return };
        let place = self.place(name, Kind::Equivariance, "from");
        let message = format!("`stages.{name}.equivariance.from` needs embeddings of views with factors");
        let told = match self.pipeline.stages.get(&embed.from) {
            Some(Stage::Views(views)) if !views.variant.is_empty() => return,
            Some(Stage::Views(_)) => {
                let label = format!("the views of `{}` have no factor", embed.from);
                (label, format!("give `{}` a `variant` chain", embed.from))
            }
            Some(_) => {
                let label = format!("`{from}` embeds the clips of `{}`", embed.from);
                (label, "name an embed stage whose `from` is a views stage".to_string())
            }
            None => return,
        };
        self.reader.note(place, message, told.0, Some(told.1));
    }

    fn train(&self, name: &str, train: &Train) {
        let Some(Stage::Views(views)) = self.pipeline.stages.get(&train.from) else { return };
        let chain = views.chain();
        if chain.validate().is_err() {
            return;
        }
        self.batch(name, train, chain.views_per_segment());
        let subspaces = match train.method {
            Method::Simclr => vec!["invariant".to_string()],
            Method::Loev | Method::LoevPlusPlus | Method::LoevReference => chain.heads(),
        };
        let mut loss_fits = true;
        for (option, what, values) in [
            ("head_weights", "weights", &train.training.head_weights),
            ("temperatures", "temperatures", &train.training.temperatures),
        ] {
            if !values.is_empty() && values.len() != subspaces.len() {
                let place = self.place(name, Kind::Train, option);
                let message = format!("{} {what} for {} subspaces", values.len(), subspaces.len());
                let names = list(subspaces.iter().map(String::as_str));
                let help = format!("one for each of {names}, in this order, or none at all");
                self.reader.note(place, message, "one per subspace", Some(help));
                loss_fits = false;
            }
        }
        if train.method != Method::Simclr && chain.variant.is_empty() {
            let place = self.place(name, Kind::Train, "method");
            let message =
                format!("this method has a subspace per factor, and `{}` has no `variant`", train.from);
            let help = "add operators to `variant` of the views, or set `method: simclr`".to_string();
            self.reader.note(place, message, "needs factors", Some(help));
        } else {
            let model = train.model_config(subspaces, 1, 0);
            // A front end that is wrong in itself has been reported with the options.
            if let Err(error) = model.validate()
                && train.front_end.validate().is_ok()
            {
                let place = self.place(name, Kind::Train, "");
                self.reader.note(place, format!("`stages.{name}.train`: {error}"), "here", None);
            } else if loss_fits && let Err(error) = train.training.fits(&model) {
                let message = error.to_string();
                let option = message.split(':').next().unwrap_or_default();
                let place = self.place(name, Kind::Train, option);
                self.reader.note(place, format!("`stages.{name}.train`: {message}"), "here", None);
            }
        }
        if let Some(Stage::Statistics(statistics)) =
            train.statistics.as_ref().and_then(|stage| self.pipeline.stages.get(stage))
            && statistics.front_end != train.front_end
        {
            let place = self.place(name, Kind::Train, "statistics");
            let message = "the statistics are of another front end than training reads".to_string();
            let help = "give both stages the same `front_end`".to_string();
            self.reader.note(place, message, "another front end", Some(help));
        }
        self.chance(name, train, &chain);
        if train.front_end.sample_rate != views.sample_rate {
            let place = self.place(name, Kind::Train, "front_end.sample_rate");
            let message = format!(
                "the front end works at {} Hz, and the views of `{}` have {} Hz",
                train.front_end.sample_rate, train.from, views.sample_rate
            );
            let help = format!(
                "set `front_end: {{sample_rate: {}}}`, with `window`, `hop` and `high_hz` to match",
                views.sample_rate
            );
            self.reader.note(place, message, "different sample rates", Some(help));
        }
    }

    /// Views drawn by chance: what the reference needs, and leaves some of each pair alone.
    fn chance(&self, name: &str, train: &Train, chain: &Chain) {
        if chain.sampling != Sampling::Bernoulli {
            if train.method == Method::LoevReference {
                let place = self.place(name, Kind::Train, "method");
                let message = format!(
                    "`loev-reference` is for views whose factors are applied by chance, and those of `{}` are not",
                    train.from
                );
                let help =
                    format!("set `sampling: bernoulli` in `{}`, or train with `method: loev`", train.from);
                self.reader.note(place, message, "needs other views", Some(help));
            }
            return;
        }
        let always = |spec: &&OperatorSpec| match spec.def().factor {
            FactorDef::Level { param, .. } => {
                let drawn = spec.params().get(param);
                let bounds = drawn.map_or((0.0, 0.0), ParamSpec::bounds);
                let few = matches!(drawn, Some(ParamSpec::Choice(_) | ParamSpec::Number(Dist::Choice(_))));
                spec.p() >= 1.0 && bounds.0 < bounds.1 && !few
            }
            FactorDef::OnOff => false,
        };
        if train.method != Method::Simclr
            && let Some(spec) = chain.variant.iter().find(always)
        {
            let place = self.place(name, Kind::Train, "from");
            let message = format!(
                "`{}` applies `{}` to every view: no two views of a segment are alike in that factor",
                train.from,
                spec.name()
            );
            let help = format!("give `{}` a `p` below 1, such as 0.5", spec.name());
            self.reader.note(place, message, "a subspace without positives", Some(help));
        }
    }

    /// A batch holds whole segments, and at least two: with one there is nothing to tell apart.
    fn batch(&self, name: &str, train: &Train, segment: usize) {
        if segment > 0 && train.batch.is_multiple_of(segment) && train.batch / segment >= 2 {
            return;
        }
        let place = self.place(name, Kind::Train, "batch");
        let message = format!("a batch of {} views does not hold two or more whole segments", train.batch);
        let label = format!("must be a multiple of {segment}, and at least {}", 2 * segment);
        let nearest = segment * (train.batch / segment.max(1)).max(2);
        let help =
            format!("`{}` has {segment} views per segment; for example `batch: {nearest}`", train.from);
        self.reader.note(place, message, label, Some(help));
    }
}
