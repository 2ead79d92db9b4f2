//! What the columns of a run's tables are, with their units: in words, by the kind of stage that wrote the table.
//!
//! Columns of draws (`pitch_shift`, `gain`, ...) are described by their operators. A column that a pipeline's own SQL
//! made has no comment, unless its name is one that the pipeline fixes everywhere.

use std::fmt::Write as _;

use loev_ops::operators;

use crate::run::RunCatalog;

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Clips,
    /// Clips whose samples are stored.
    Decoded,
    Views,
    /// Stored audio of views, or stored features.
    Stored,
    Bands,
    Steps,
    Embeddings,
    Figures,
    Responses,
    Agreements,
    Leaks,
    Answers,
    Passes,
    Neighbours,
    Receipts,
    Rejects,
    Runs,
    AllFigures,
    Columns,
    /// The result of a query, or a file.
    Other,
}

type Comments = &'static [(&'static str, &'static str)];

/// Columns that mean the same wherever they stand.
const EVERYWHERE: Comments = &[
    ("run", "the run that the row is from"),
    ("clip_id", "name of the clip"),
    ("view_id", "name of the view: clip, segment, epoch and number"),
    ("shard", "number of the clip's shard, a hash of its name"),
    ("uri", "where the audio is: a path, an address, or the recipe of procedural music"),
    ("seconds", "length of the clip in s"),
    ("split", "part of the data: train, valid or test"),
    (
        "subspace",
        "subspace of the embedding; all is all of them side by side, mel_baseline the mel statistics",
    ),
    ("task", "what is predicted, named after its kind: key, tempo, tags, class"),
    ("lo", "lower end of the 95% bootstrap interval, over clips"),
    ("hi", "upper end of the 95% bootstrap interval, over clips"),
    ("n_train", "training rows"),
    ("n_valid", "validation rows"),
    ("n_test", "test rows"),
];

/// Labels of procedural music, which manifests of real music may have under the same names.
const LABELS: Comments = &[
    ("key", "tonic and mode, such as C# minor"),
    ("mode", "major or minor"),
    ("bpm", "tempo in beats per minute"),
    ("metre", "time signature"),
    ("style", "kind of music"),
    ("instruments", "instruments that sound, by name"),
    ("beats", "times of beats in s"),
    ("chords", "chords: start and end in s, label in the syntax of Harte et al."),
];

const VIEWS: Comments = &[
    ("segment", "number of the segment that the view is of, within its clip and epoch"),
    ("epoch", "pass over the clips, from 0"),
    ("view", "number of the view among those of its segment"),
    ("centre_s", "middle of the segment in the clip, in s"),
    ("draw_key", "key of the view's random numbers"),
    ("groups", "one group per subspace: views of one group are positives in it"),
    ("audio", "samples of the view at the stage's rate"),
    ("features", "log-mel frames, one after the other"),
];

/// The columns of each kind of table, beside [`EVERYWHERE`].
pub(super) fn of_kind(rows: Rows) -> Comments {
    match rows {
        Rows::Clips => &[
            ("rate", "sample rate of the file in Hz"),
            ("channels", "channels of the file"),
            ("frames", "samples of each channel"),
            ("container", "format of the file"),
            ("codec", "how the audio in it is coded"),
            ("bytes", "size of the file"),
            ("digest", "BLAKE3 of the file"),
        ],
        Rows::Decoded => &[
            ("rate", "sample rate of what is stored, in Hz"),
            ("channels", "channels of what is stored"),
            ("frames", "samples of each channel"),
            ("container", "format of what is stored"),
            ("codec", "how the samples are stored"),
            ("bytes", "size of the samples"),
            ("digest", "BLAKE3 of the samples"),
            ("clipped", "samples that were beyond full scale, and are at it"),
            ("source_uri", "where the clip was decoded from"),
            ("source_digest", "BLAKE3 of the file that it was decoded from"),
        ],
        Rows::Views | Rows::Stored | Rows::Other => &[],
        Rows::Bands => &[
            ("band", "number of the mel band, from the lowest"),
            ("mean_db", "mean level in dB"),
            ("deviation_db", "standard deviation of the level in dB"),
            ("frames", "frames that were counted"),
        ],
        Rows::Steps => &[
            ("step", "step of the training, from 1"),
            ("epoch", "pass over the clips, from 0"),
            ("lr", "learning rate"),
            ("loss", "weighted sum of the heads' losses, in nats"),
            ("grad_norm", "norm of the gradient before clipping"),
            ("views", "views of the batch"),
            ("views_per_s", "views per second of this step"),
            ("wait_share", "part of the step's time spent waiting for data, 0 to 1"),
        ],
        Rows::Embeddings => &[
            ("segment", "number of the segment; NULL in the row of the clip's mean"),
            ("start_s", "start of the segment in s; NULL in the row of the clip's mean"),
            ("epoch", "pass over the clips, from 0"),
            ("view", "number of the view among those of its segment"),
            ("centre_s", "middle of the segment in the clip, in s"),
            ("embedding", "the vector; not normalised"),
        ],
        Rows::Figures => &[
            ("probe", "what read the embeddings: linear, mlpN with N hidden units, finetuned"),
            ("metric", "name of the figure"),
            ("value", "the figure, mean over seeds"),
            ("chance", "the same figure for the best constant answer"),
            ("baseline", "the same figure for mel statistics"),
            ("n_missing", "clips without a label"),
            ("n_unseen", "test rows whose label no training row has"),
        ],
        Rows::Responses => &[
            ("factor", "the operator whose parameter is followed; all is all together"),
            ("parameter", "its parameter"),
            (
                "measure",
                "difference_r2: of the difference of the parameters from two embeddings; beyond_identity and \
             beyond_uninformed: of one embedding from the other and the parameters",
            ),
            ("value", "the measure, at most 1"),
            ("chance", "its value when nothing is told"),
            ("baseline", "the same measure of mel statistics"),
            ("penalty", "ridge penalty chosen on validation pairs"),
            ("n_train", "training pairs of views"),
            ("n_valid", "validation pairs of views"),
            ("n_test", "test pairs of views"),
        ],
        Rows::Agreements => &[
            ("metric", "how the labels of a query and its neighbours are compared"),
            ("k", "number of neighbours"),
            ("value", "mean agreement over queries and their k neighbours"),
            ("chance", "its exact expectation for neighbours drawn at random"),
            ("baseline", "the same agreement for mel statistics"),
            ("n", "queries with a label"),
        ],
        Rows::Leaks => &[
            (
                "test",
                "identity: processed at identity against not at all; factor and view: a factor from a cue that should \
             not tell it, in variants and in whole views",
            ),
            ("factor", "the operator whose parameter may leak"),
            ("parameter", "its parameter"),
            ("cue", "what is looked at: edges, silence, level, top of the spectrum, mel bands, all"),
            ("metric", "roc_auc or r2"),
            ("value", "how far the cue tells"),
            ("chance", "its value when nothing is told"),
            ("control", "the value on data where nothing can be told"),
            ("leaks", "whether the interval lies above chance"),
            ("n_test", "test rows"),
        ],
        Rows::Answers => &[
            ("probe", "what read the embeddings"),
            ("seed", "seed of the probe, from 0"),
            ("truth", "the label, as text"),
            ("prediction", "the answer, as text"),
            ("confidence", "probability that the probe gives its answer, 0 to 1"),
            (
                "score",
                "how right the answer is, 0 to 1: tempo by Acc1, tags by Jaccard's index, others right or wrong",
            ),
        ],
        Rows::Passes => &[
            ("pass", "pass over the training rows, from 1"),
            ("loss", "mean loss of the pass"),
            ("valid_loss", "mean loss of the validation rows after it"),
        ],
        Rows::Neighbours => &[
            ("query", "clip or view whose neighbours are listed"),
            ("clip_id", "clip of the query, which is never its own neighbour"),
            ("rank", "1 is the nearest"),
            ("neighbour", "clip that was found"),
            ("similarity", "cosine similarity, -1 to 1"),
        ],
        Rows::Receipts => &[
            ("stage", "stage that wrote the file"),
            ("table", "table that the file belongs to"),
            ("file", "name of the file"),
            ("rows", "rows of the file"),
            ("bytes", "size of the file"),
            ("rejects", "clips that could not be used"),
            ("seconds", "time that the file took, in s"),
            ("finished_s", "when the file was done, in s since 1970"),
            ("digest", "BLAKE3 of the file"),
            ("recipe", "BLAKE3 of everything that determined the file"),
        ],
        Rows::Rejects => &[
            ("stage", "stage that could not use the clip"),
            ("uri", "where the audio was looked for"),
            ("reason", "kind of reason"),
            ("message", "what happened"),
            ("whole", "whether nothing of the clip could be used, or only some segments could not"),
        ],
        Rows::Runs => &[
            ("run", "name of the run here, and of its schema when there are several"),
            ("location", "where the run is"),
            ("name", "name of the pipeline"),
            (
                "status",
                "complete, running, failed or interrupted; tables of a run that is not complete may lack rows",
            ),
            ("loev", "version that made the run"),
            ("seed", "seed of the pipeline"),
            ("cpu", "level of SIMD instructions"),
            ("device", "where models ran"),
            ("stages_done", "finished stages"),
            ("stages", "stages of the pipeline"),
            ("seconds", "time that the finished stages took, in s"),
            (
                "best",
                "JSON: for each task and metric the highest value, its stage and subspace, without the baseline",
            ),
            ("pipeline", "JSON: the pipeline with every default filled in"),
        ],
        Rows::AllFigures => &[
            ("stage", "stage that made the figure"),
            ("kind", "kind of the stage: probe, finetune, retrieve, equivariance"),
            ("task", "task, or factor and parameter"),
            ("probe", "what read the embeddings: linear, mlpN, finetuned, nearest K, ridge"),
            ("metric", "name of the figure"),
            ("value", "the figure"),
        ],
        Rows::Columns => &[
            ("table_schema", "schema of the table; public for names without one"),
            ("table_name", "table"),
            ("column_name", "column"),
            ("position", "place of the column, from 1"),
            ("data_type", "type as SQL would name it"),
            ("nullable", "whether NULL may occur"),
            (
                "comment",
                "what the column is, with its unit; NULL for columns that a query of the pipeline made",
            ),
        ],
    }
}

/// What the rows of a table of a run are, by the stage that wrote it.
pub(crate) fn rows_of(run: &RunCatalog, table: &str) -> Rows {
    match table {
        "receipts" => return Rows::Receipts,
        "rejects" => return Rows::Rejects,
        _ => {}
    }
    let stages: Vec<(&str, &str)> = run.pipeline_stages().map(|(name, kind, _)| (name, kind)).collect();
    if let Some((_, kind)) = stages.iter().find(|(name, _)| *name == table) {
        return match *kind {
            "synth" | "files" => Rows::Clips,
            "decode" => Rows::Decoded,
            "views" => Rows::Views,
            "features" => Rows::Stored,
            "statistics" => Rows::Bands,
            "train" => Rows::Steps,
            "embed" => Rows::Embeddings,
            "probe" | "finetune" => Rows::Figures,
            "retrieve" => Rows::Agreements,
            "equivariance" => Rows::Responses,
            "leak" => Rows::Leaks,
            _ => Rows::Other,
        };
    }
    // A table beside that of a stage: the longest name of a stage that fits.
    let side = stages.iter().filter_map(|(name, kind)| {
        let what = table.strip_prefix(name)?.strip_prefix('_')?;
        Some((name.len(), *kind, what))
    });
    match side.max_by_key(|(length, ..)| *length).map(|(_, kind, what)| (kind, what)) {
        Some(("embed", _)) => Rows::Embeddings,
        Some((_, "predictions")) | Some(("probe" | "finetune", "labelled")) => Rows::Answers,
        Some((_, "passes")) => Rows::Passes,
        Some(("retrieve", _)) => Rows::Neighbours,
        Some(("decode", _)) => Rows::Decoded,
        Some((_, "audio")) => Rows::Stored,
        _ => Rows::Other,
    }
}

/// What a column is.
pub(crate) fn comment(rows: Rows, column: &str) -> Option<String> {
    let find = |comments: Comments| {
        comments.iter().find(|(name, _)| *name == column).map(|(_, text)| (*text).to_owned())
    };
    if let Some(text) = find(of_kind(rows)) {
        return Some(text);
    }
    for (prefix, of) in [("query_", "of the query: "), ("neighbour_", "of the neighbour: ")] {
        if let (Rows::Neighbours, Some(label)) = (rows, column.strip_prefix(prefix)) {
            return comment(Rows::Other, label).map(|text| format!("{of}{text}"));
        }
    }
    if let (Rows::Steps, Some((what, head))) = (rows, column.split_once('_')) {
        match what {
            "loss" => return Some(format!("contrastive loss of subspace {head}, in nats")),
            "floor" => {
                return Some(format!(
                    "what loss_{head} is for a head that tells segments apart and nothing else"
                ));
            }
            _ => {}
        }
    }
    find(EVERYWHERE).or_else(|| find(LABELS)).or_else(|| find(VIEWS)).or_else(|| draw(column))
}

/// What the draw of an operator holds. A second use of an operator has a number behind its name.
fn draw(column: &str) -> Option<String> {
    let name = column.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let operator = operators::find(column).or_else(|| operators::find(name))?;
    let mut text = format!("draw of {}: applied", operator.name);
    for param in operator.params {
        // Writing to a String cannot fail.
        let _ = match param.unit {
            "" => write!(text, ", {}", param.name),
            unit => write!(text, ", {} in {unit}", param.name),
        };
    }
    Some(text)
}
