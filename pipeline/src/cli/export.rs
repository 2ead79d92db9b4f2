//! `loev export`: a model to give away, as a folder.
//!
//! ```text
//! DIR/model.safetensors   weights, configuration and statistics of the front end
//! DIR/README.md           the model card: what it is, licence, training data, figures
//! DIR/loev_torch.py       reads it in PyTorch (encoder `vit`)
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use loev_models::Device;
use loev_models::card::{Card, Figure};
use loev_models::encoder::EncoderConfig;

use super::{Failure, print};
use crate::error::RunError;
use crate::resume::journal::durable_write;
use crate::run::dir::{Manifest, RunDir};
use crate::spec::{Pipeline, Stage};

const LOADER: &str = include_str!("../../../examples/loev_torch.py");

#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// The run's directory.
    run: PathBuf,
    /// The `train` or `finetune` stage whose model it is; not needed where the run has one.
    #[arg(long, value_name = "STAGE")]
    model: Option<String>,
    /// Licence of the weights: an SPDX identifier such as CC-BY-4.0. Without one, the card says that none was given.
    #[arg(long, default_value = "")]
    licence: String,
    /// What the model was trained on and how that may be used, in sentences for the card.
    #[arg(long, default_value = "")]
    data: String,
    /// The folder to write; files of the same names in it are replaced.
    #[arg(short, long)]
    output: PathBuf,
}

pub fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let manifest = RunDir::read_manifest(&arguments.run)?;
    let pipeline = RunDir::read_pipeline(&arguments.run)?;
    let stage = trained(&pipeline, arguments.model.as_deref())?;
    let checkpoint = RunDir::open(&arguments.run).checkpoint(stage);
    if !checkpoint.exists() {
        let message = format!("`{stage}` has no model yet; finish the run first");
        return Err(RunError::RunDir { path: arguments.run.clone(), message }.into());
    }
    // Loading checks the whole file: what is given away can be read.
    let model = loev_models::checkpoint::load(&checkpoint, &Device::Cpu)
        .map_err(|error| RunError::Engine(error.to_string()))?;
    let card = Card {
        name: format!("{} ({stage})", manifest.name),
        licence: arguments.licence.clone(),
        data: arguments.data.clone(),
        figures: figures(&pipeline, &manifest, stage),
    };
    let folder = &arguments.output;
    fs::create_dir_all(folder).map_err(RunError::io("cannot create", folder))?;
    let weights = fs::read(&checkpoint).map_err(RunError::io("cannot read", &checkpoint))?;
    let card = card.markdown(model.config(), model.parameters());
    durable_write(&folder.join("model.safetensors"), &weights)?;
    durable_write(&folder.join("README.md"), card.as_bytes())?;
    if matches!(model.config().encoder, EncoderConfig::Vit(_)) {
        durable_write(&folder.join("loev_torch.py"), LOADER.as_bytes())?;
    }
    print(&format!("{}\n", described(folder, &arguments.licence)))
}

fn described(folder: &Path, licence: &str) -> String {
    let folder = folder.display();
    match licence {
        "" => {
            format!("wrote {folder}; nobody may use a model without a licence: give one with --licence")
        }
        licence => format!("wrote {folder}, under {licence}"),
    }
}

/// The stage that is asked for.
fn trained<'p>(pipeline: &'p Pipeline, wanted: Option<&str>) -> Result<&'p str, Failure> {
    let stages =
        pipeline.stages.iter().filter(|(_, stage)| matches!(stage, Stage::Train(_) | Stage::Finetune(_)));
    let names: Vec<&str> = stages.map(|(name, _)| name.as_str()).collect();
    let found = match wanted {
        Some(wanted) => names.iter().find(|name| **name == wanted),
        None if names.len() == 1 => names.first(),
        None => None,
    };
    found.copied().ok_or_else(|| {
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::Usage(match wanted {
            Some(wanted) => format!("the run has no model `{wanted}`; it has: {names}"),
            None => format!("which model? Name it with --model; the run has: {names}"),
        })
    })
}

/// The linear probes' figures of the model's embeddings; those of the baseline are not the model's.
fn figures(pipeline: &Pipeline, manifest: &Manifest, model: &str) -> Vec<Figure> {
    let probed = |name: &str| match pipeline.stages.get(name) {
        Some(Stage::Probe(probe)) => match pipeline.stages.get(&probe.from) {
            Some(Stage::Embed(embed)) => embed.model == model,
            _ => false,
        },
        _ => false,
    };
    let of_model =
        manifest.results.iter().filter(|(stage, _)| probed(stage)).flat_map(|(_, figures)| figures);
    let linear = of_model.filter(|figure| figure.probe == "linear" && figure.subspace != "mel_baseline");
    let figures = linear.map(|figure| Figure {
        subspace: figure.subspace.clone(),
        task: figure.task.clone(),
        metric: figure.metric.clone(),
        value: figure.value,
        interval: Some([figure.lo, figure.hi]),
    });
    figures.collect()
}
