//! `loev replay`: a view again, from its row.

use std::path::PathBuf;

use loev_ops::wav::write_wav;

use super::{Failure, runtime};
use crate::error::RunError;
use crate::exec::render::{Output, ViewRenderer};
use crate::run::views::find;

#[derive(Debug, clap::Args)]
pub struct ReplayArguments {
    /// The run's directory.
    run: PathBuf,
    /// The view, as in the column `view_id`.
    view_id: String,
    /// The WAV file to write: 32-bit float, at the views' sample rate.
    #[arg(short, long)]
    output: PathBuf,
}

pub fn replay(arguments: &ReplayArguments) -> Result<(), Failure> {
    let view = runtime()?.block_on(find(&arguments.run, &arguments.view_id))?;
    let (frames, rate) = (view.chain.frames(), view.chain.sample_rate);
    ViewRenderer::new(&view.chain, &Output::Audio)
        .and_then(|mut renderer| renderer.render(&view.uri, &[view.draw]))
        .and_then(|samples| {
            let channels: Vec<&[f32]> = samples.chunks_exact(frames).collect();
            write_wav(&arguments.output, rate, &channels)
        })
        .map_err(|e| RunError::Engine(format!("view {}: {e}", arguments.view_id)))?;
    eprintln!("wrote {}", arguments.output.display());
    Ok(())
}
