//! The kinds of stages and their options, one file per kind.
//!
//! An option is one field: its doc comment is the reference documentation, its serde default the
//! default, its garde range the check, and its type the JSON Schema. There is no second list.

mod decode;
mod embed;
mod equivariance;
mod features;
mod files;
mod finetune;
mod leak;
mod probe;
mod report;
mod retrieve;
mod sql;
mod statistics;
mod synth;
mod train;
mod views;

use garde::Validate;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;

pub use decode::Decode;
pub use embed::Embed;
pub use equivariance::Equivariance;
pub use features::Features;
pub use files::{ClipLimits, Files};
pub use finetune::Finetune;
pub use leak::Leak;
pub use probe::Probe;
pub use report::{Report, Sound};
pub use retrieve::{Part, Retrieve};
pub use sql::Sql;
pub use statistics::Statistics;
pub use synth::Synth;
pub use train::{Checkpoints, Train};
pub use views::{Epochs, LabelKind, Views};

use loev_models::evaluate::EquivarianceConfig;
use loev_models::probe::ProbeConfig;
use loev_models::probe::finetune::FinetuneConfig;
use loev_models::train::TrainConfig;
use loev_ops::chain::Entry as ChainEntry;

use super::de::{Others, Reader};
use super::node::Entry;
use super::schema;

/// A kind of stage: the one key under a stage's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Audio files, with labels from a manifest.
    Files,
    /// Procedural music with exact labels.
    Synth,
    /// A SELECT over the tables of earlier stages.
    Sql,
    /// Clips decoded once and stored.
    Decode,
    /// Augmented views of segments.
    Views,
    /// Stored features of views or clips.
    Features,
    /// Mean and deviation of features.
    Statistics,
    /// Contrastive training of an encoder.
    Train,
    /// Embeddings of every clip.
    Embed,
    /// Probes on frozen embeddings.
    Probe,
    /// Whether subspaces follow their factors.
    Equivariance,
    /// Whether near is alike.
    Retrieve,
    /// An encoder and a head on a labelled task.
    Finetune,
    /// Whether the making of views gives itself away.
    Leak,
    /// A page with what the run found.
    Report,
}

impl Kind {
    /// All kinds, in the order of a usual pipeline.
    pub const ALL: [Self; 15] = [
        Self::Files,
        Self::Synth,
        Self::Sql,
        Self::Decode,
        Self::Views,
        Self::Features,
        Self::Statistics,
        Self::Train,
        Self::Embed,
        Self::Probe,
        Self::Equivariance,
        Self::Retrieve,
        Self::Finetune,
        Self::Leak,
        Self::Report,
    ];

    /// The key in YAML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Synth => "synth",
            Self::Sql => "sql",
            Self::Decode => "decode",
            Self::Views => "views",
            Self::Features => "features",
            Self::Statistics => "statistics",
            Self::Train => "train",
            Self::Embed => "embed",
            Self::Probe => "probe",
            Self::Equivariance => "equivariance",
            Self::Retrieve => "retrieve",
            Self::Finetune => "finetune",
            Self::Leak => "leak",
            Self::Report => "report",
        }
    }

    /// The kind with this key.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A stage: its kind and options, defaults filled in.
///
/// Serialises to the map that a pipeline file has under the stage's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// See [`Files`].
    Files(Files),
    /// See [`Synth`].
    Synth(Synth),
    /// See [`Sql`].
    Sql(Sql),
    /// See [`Decode`].
    Decode(Decode),
    /// See [`Views`].
    Views(Views),
    /// See [`Features`].
    Features(Features),
    /// See [`Statistics`].
    Statistics(Statistics),
    /// See [`Train`]. Boxed: an encoder's options take more room than all the others.
    Train(Box<Train>),
    /// See [`Embed`].
    Embed(Embed),
    /// See [`Probe`].
    Probe(Probe),
    /// See [`Equivariance`].
    Equivariance(Equivariance),
    /// See [`Retrieve`].
    Retrieve(Retrieve),
    /// See [`Finetune`]. Boxed like [`Train`].
    Finetune(Box<Finetune>),
    /// See [`Leak`].
    Leak(Leak),
    /// See [`Report`].
    Report(Report),
}

impl Stage {
    /// The kind of the stage.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Files(_) => Kind::Files,
            Self::Synth(_) => Kind::Synth,
            Self::Sql(_) => Kind::Sql,
            Self::Decode(_) => Kind::Decode,
            Self::Views(_) => Kind::Views,
            Self::Train(_) => Kind::Train,
            Self::Features(_) => Kind::Features,
            Self::Statistics(_) => Kind::Statistics,
            Self::Embed(_) => Kind::Embed,
            Self::Probe(_) => Kind::Probe,
            Self::Equivariance(_) => Kind::Equivariance,
            Self::Retrieve(_) => Kind::Retrieve,
            Self::Finetune(_) => Kind::Finetune,
            Self::Leak(_) => Kind::Leak,
            Self::Report(_) => Kind::Report,
        }
    }

    /// The stages that the options name, as (option, stage). What a `sql` stage reads is in its query, and a report reads
    /// all others: see [`super::Graph`].
    pub fn references(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Files(_) | Self::Synth(_) | Self::Sql(_) | Self::Report(_) => Vec::new(),
            Self::Views(views) => {
                let base = views.base.iter().flat_map(ChainEntry::operators).map(|spec| ("base", spec));
                let variant = views.variant.iter().map(|spec| ("variant", spec));
                let partners = base.chain(variant).filter_map(|(list, spec)| Some((list, spec.from()?)));
                std::iter::once(("from", views.from.as_str())).chain(partners).collect()
            }
            Self::Decode(decode) => vec![("from", decode.from.as_str())],
            Self::Features(features) => vec![("from", features.from.as_str())],
            Self::Statistics(statistics) => vec![("from", statistics.from.as_str())],
            Self::Train(train) => {
                let statistics = train.statistics.as_deref().map(|stage| ("statistics", stage));
                std::iter::once(("from", train.from.as_str())).chain(statistics).collect()
            }
            Self::Embed(embed) => vec![("from", embed.from.as_str()), ("model", embed.model.as_str())],
            Self::Probe(probe) => {
                let labels = probe.labels.as_deref().map(|labels| ("labels", labels));
                std::iter::once(("from", probe.from.as_str())).chain(labels).collect()
            }
            Self::Equivariance(measure) => {
                let labels = measure.labels.as_deref().map(|labels| ("labels", labels));
                std::iter::once(("from", measure.from.as_str())).chain(labels).collect()
            }
            Self::Leak(leak) => {
                let labels = leak.labels.as_deref().map(|labels| ("labels", labels));
                std::iter::once(("from", leak.from.as_str())).chain(labels).collect()
            }
            Self::Finetune(finetune) => {
                let labels = finetune.labels.as_deref().map(|labels| ("labels", labels));
                [("from", finetune.from.as_str()), ("model", finetune.model.as_str())]
                    .into_iter()
                    .chain(labels)
                    .collect()
            }
            Self::Retrieve(retrieve) => {
                let queries = retrieve.queries.as_deref().map(|queries| ("queries", queries));
                let labels = retrieve.labels.as_deref().map(|labels| ("labels", labels));
                std::iter::once(("from", retrieve.from.as_str())).chain(queries).chain(labels).collect()
            }
        }
    }

    /// What the stage writes besides its own table: the table of stage `NAME` and suffix `x` is `NAME_x`.
    pub fn side_tables(&self) -> &'static [&'static str] {
        match self {
            Self::Views(views) if views.materialize => &["audio"],
            Self::Decode(_) => &["audio"],
            Self::Embed(embed) if embed.baseline => &["baseline"],
            Self::Probe(_) => &["predictions"],
            Self::Retrieve(_) => &["neighbours"],
            Self::Finetune(_) => &["predictions", "passes"],
            _ => &[],
        }
    }

    /// The kinds that a stage named by an option may have.
    pub(super) fn accepts(option: &str, kind: Kind) -> &'static [Kind] {
        const CLIPS: &[Kind] = &[Kind::Files, Kind::Synth, Kind::Sql, Kind::Decode];
        match (kind, option) {
            (Kind::Decode, "from") => &[Kind::Files, Kind::Synth, Kind::Sql],
            (Kind::Features | Kind::Statistics | Kind::Embed, "from") => {
                &[Kind::Files, Kind::Synth, Kind::Sql, Kind::Decode, Kind::Views]
            }
            (Kind::Train | Kind::Leak, "from") => &[Kind::Views],
            (Kind::Train, "statistics") => &[Kind::Statistics],
            (Kind::Embed | Kind::Finetune, "model") => &[Kind::Train, Kind::Finetune],
            (Kind::Finetune, "from") => &[Kind::Features],
            (Kind::Probe | Kind::Equivariance | Kind::Retrieve, "from") | (Kind::Retrieve, "queries") => {
                &[Kind::Embed]
            }
            _ => CLIPS,
        }
    }

    /// Checks what one stage's options say among themselves, ranges included.
    pub(super) fn validate(&self) -> Result<(), garde::Report> {
        match self {
            Self::Files(files) => files.validate(),
            Self::Synth(synth) => synth.validate(),
            Self::Sql(sql) => sql.validate(),
            Self::Decode(decode) => decode.validate(),
            Self::Views(views) => views.validate(),
            Self::Train(train) => train.validate(),
            Self::Features(features) => features.validate(),
            Self::Statistics(statistics) => statistics.validate(),
            Self::Embed(embed) => embed.validate(),
            Self::Probe(probe) => probe.validate(),
            Self::Equivariance(measure) => measure.validate(),
            Self::Retrieve(retrieve) => retrieve.validate(),
            Self::Finetune(finetune) => finetune.validate(),
            Self::Leak(leak) => leak.validate(),
            Self::Report(report) => report.validate(),
        }
    }

    /// Reads the options at an entry (the kind and what is under it). Problems go to the reader.
    pub(super) fn read(reader: &Reader<'_>, kind: Kind, entry: &Entry, path: &str) -> Option<Self> {
        let (node, label) = (&entry.value, entry.label());
        let plain = Others::Known(&[]);
        Some(match kind {
            Kind::Files => Self::Files(reader.read(node, path, label, plain)?),
            Kind::Synth => Self::Synth(reader.read(node, path, label, plain)?),
            Kind::Sql => Self::Sql(reader.read(node, path, label, plain)?),
            Kind::Decode => Self::Decode(reader.read(node, path, label, plain)?),
            Kind::Views => Self::Views(reader.read(node, path, label, plain)?),
            Kind::Features => Self::Features(reader.read(node, path, label, plain)?),
            Kind::Statistics => Self::Statistics(reader.read(node, path, label, plain)?),
            Kind::Embed => Self::Embed(reader.read(node, path, label, plain)?),
            Kind::Train => {
                let others = schema::option_names::<TrainConfig>();
                let train: Option<Train> = reader.read(node, path, label, Others::Known(&others));
                let training: Option<TrainConfig> = reader.read(node, path, label, Others::Any);
                Self::Train(Box::new(Train { training: training?, ..train? }))
            }
            Kind::Finetune => {
                let others = schema::option_names::<FinetuneConfig>();
                let finetune: Option<Finetune> = reader.read(node, path, label, Others::Known(&others));
                let config: Option<FinetuneConfig> = reader.read(node, path, label, Others::Any);
                Self::Finetune(Box::new(Finetune { config: config?, ..finetune? }))
            }
            Kind::Probe => {
                let others = schema::option_names::<ProbeConfig>();
                let probe: Option<Probe> = reader.read(node, path, label, Others::Known(&others));
                let config: Option<ProbeConfig> = reader.read(node, path, label, Others::Any);
                Self::Probe(Probe { config: config?, ..probe? })
            }
            Kind::Equivariance => {
                let others = schema::option_names::<EquivarianceConfig>();
                let measure: Option<Equivariance> = reader.read(node, path, label, Others::Known(&others));
                let config: Option<EquivarianceConfig> = reader.read(node, path, label, Others::Any);
                Self::Equivariance(Equivariance { config: config?, ..measure? })
            }
            Kind::Retrieve => Self::Retrieve(reader.read(node, path, label, plain)?),
            Kind::Leak => Self::Leak(reader.read(node, path, label, plain)?),
            Kind::Report => Self::Report(reader.read(node, path, label, plain)?),
        })
    }
}

/// The schema of one kind's options.
pub(super) fn options_schema(kind: Kind, generator: &mut SchemaGenerator) -> Schema {
    use schemars::JsonSchema;
    match kind {
        Kind::Files => Files::json_schema(generator),
        Kind::Synth => Synth::json_schema(generator),
        Kind::Sql => Sql::json_schema(generator),
        Kind::Decode => Decode::json_schema(generator),
        Kind::Views => Views::json_schema(generator),
        Kind::Train => schema::merged::<Train, TrainConfig>(generator),
        Kind::Features => Features::json_schema(generator),
        Kind::Statistics => Statistics::json_schema(generator),
        Kind::Embed => Embed::json_schema(generator),
        Kind::Probe => schema::merged::<Probe, ProbeConfig>(generator),
        Kind::Equivariance => schema::merged::<Equivariance, EquivarianceConfig>(generator),
        Kind::Retrieve => Retrieve::json_schema(generator),
        Kind::Finetune => schema::merged::<Finetune, FinetuneConfig>(generator),
        Kind::Leak => Leak::json_schema(generator),
        Kind::Report => Report::json_schema(generator),
    }
}

/// The column with the split.
fn default_split() -> String {
    "split".to_string()
}
