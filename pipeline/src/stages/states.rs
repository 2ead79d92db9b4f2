//! The states of a training under way: what it goes on from after it was stopped.
//!
//! ```text
//! checkpoints/<stage>/
//!   step-000000200.safetensors   weights, optimiser, averages, step; written every so many steps
//!   steps-000000101.parquet      curves, from state to state
//!   best.safetensors             the model with the lowest mean loss between two states
//! ```
//!
//! The number of steps is the position in the data: batches are numbered, and batch `n` can be made without those
//! before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use loev_models::train::{TrainConfig, Training};
use loev_models::{Device, ModelConfig};

use super::curve::Curve;
use crate::error::RunError;
use crate::resume::fault;
use crate::run::rejects::Reject;
use crate::run::stage::StageHandle;
use crate::spec::stage::Checkpoints;

/// The note of a state that says by which recipe it is trained.
pub const RECIPE_NOTE: &str = "recipe";
/// The note with the rejects that the feed met.
const REJECTS_NOTE: &str = "rejects";
/// The note with the lowest mean loss so far.
const BEST_NOTE: &str = "best_loss";
const STATE: &str = "step-";
const ENDING: &str = ".safetensors";
const BEST: &str = "best.safetensors";

/// The states of one stage.
#[derive(Debug)]
pub struct States {
    dir: PathBuf,
    recipe: String,
    options: Checkpoints,
    best: f64,
}

impl States {
    /// Opens the folder `dir`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: PathBuf, recipe: &str, options: &Checkpoints) -> Result<Self, RunError> {
        fs::create_dir_all(&dir).map_err(RunError::io("cannot create", &dir))?;
        Ok(Self { dir, recipe: recipe.to_owned(), options: options.clone(), best: f64::INFINITY })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The states by their steps, oldest first.
    fn all(&self) -> Result<Vec<(usize, PathBuf)>, RunError> {
        let mut states = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(RunError::io("cannot read", &self.dir))? {
            let path = entry.map_err(RunError::io("cannot read", &self.dir))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let step = name.strip_prefix(STATE).and_then(|rest| rest.strip_suffix(ENDING));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                states.push((step, path));
            }
        }
        states.sort();
        Ok(states)
    }

    /// The training to go on with: from the last state that was made by the same recipe and is whole. Others are
    /// removed; what was found wrong with them goes to the log.
    ///
    /// # Errors
    /// When a state cannot be removed.
    pub fn resume(
        &mut self,
        config: &ModelConfig,
        train: &TrainConfig,
        device: &Device,
        stage: &StageHandle,
    ) -> Result<Option<Training>, RunError> {
        for (step, path) in self.all()?.into_iter().rev() {
            match Training::resume(&path, config, train, device) {
                Ok((training, notes))
                    if notes.get(RECIPE_NOTE) == Some(&self.recipe) && training.steps() == step =>
                {
                    let rejects: Vec<Reject> = notes
                        .get(REJECTS_NOTE)
                        .and_then(|text| serde_json::from_str(text).ok())
                        .unwrap_or_default();
                    rejects.into_iter().for_each(|reject| stage.rejects.add(0, reject));
                    self.best =
                        notes.get(BEST_NOTE).and_then(|loss| loss.parse().ok()).unwrap_or(f64::INFINITY);
                    return Ok(Some(training));
                }
                Ok(_) => tracing::info!(stage = &*stage.name, step, "a state of another recipe is removed"),
                Err(error) => {
                    tracing::warn!(stage = &*stage.name, step, %error, "a state cannot be used and is removed");
                }
            }
            remove(&path)?;
        }
        remove(&self.dir.join(BEST))?;
        Ok(None)
    }

    /// Writes a state, with the curve up to it, and removes those that are too old.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn save(
        &mut self,
        training: &Training,
        curve: &mut Curve,
        notes: &BTreeMap<String, String>,
        stage: &StageHandle,
    ) -> Result<(), RunError> {
        let failed = |place: &'static str| fault::io(place).map_err(RunError::io("cannot write", &self.dir));
        let loss = curve.recent_loss();
        failed("curve.save")?;
        curve.save()?;
        let mut notes = notes.clone();
        let rejects = serde_json::to_string(&stage.rejects.all()).unwrap_or_default();
        notes.insert(REJECTS_NOTE.to_owned(), rejects);
        if loss < self.best {
            self.best = loss;
            if self.options.best {
                training.save_model(&self.dir.join(BEST), &notes)?;
            }
        }
        notes.insert(BEST_NOTE.to_owned(), self.best.to_string());
        failed("state.save")?;
        training.save_state(&self.dir.join(format!("{STATE}{:09}{ENDING}", training.steps())), &notes)?;
        failed("state.saved")?;
        tracing::debug!(stage = &*stage.name, step = training.steps(), loss, "state written");
        let states = self.all()?;
        let old = states.len().saturating_sub(self.options.keep);
        states.iter().take(old).try_for_each(|(_, path)| remove(path))
    }
}

/// Training is over and its receipt written: what it would go on from is of no more use. The best model stays.
///
/// # Errors
/// When a file cannot be removed.
pub fn tidy(dir: &Path) -> Result<(), RunError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(RunError::io("cannot read", dir))?,
    };
    let mut left = 0;
    for entry in entries {
        let path = entry.map_err(RunError::io("cannot read", dir))?.path();
        match path.file_name().is_some_and(|name| name == BEST) {
            true => left += 1,
            false => remove(&path)?,
        }
    }
    match left {
        0 => fs::remove_dir(dir).map_err(RunError::io("cannot remove", dir)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RunError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}
