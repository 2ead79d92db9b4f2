//! What each kind of stage does. A stage reads tables of earlier stages and writes tables of its own;
//! its name is the name of its table.

pub mod clips;
pub mod curve;
pub mod embed;
pub mod files;
pub mod probe;
pub mod sql;
pub mod synth;
pub mod train;
pub mod views;

/// The note of a checkpoint that says how its views were drawn and rendered.
pub const CHAIN_NOTE: &str = "views.chain";

/// What a stage did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Rows of the stage's main table.
    pub rows: u64,
    /// Tables that the stage wrote beside the one with its name.
    pub side_tables: Vec<String>,
    /// One line about the result.
    pub note: String,
}

impl Outcome {
    /// Rows of one table, and a line about them.
    pub fn rows(rows: u64, note: String) -> Self {
        Self { rows, side_tables: Vec::new(), note }
    }
}

/// The table that a stage may write beside its main one, such as `probes_predictions`.
pub fn side_table(stage: &str, what: &str) -> String {
    format!("{stage}_{what}")
}
