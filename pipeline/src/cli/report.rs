//! `loev report`: a page with what a run found.

use std::path::PathBuf;

use loev_sql::Location;

use super::{Failure, print, runtime};
use crate::error::RunError;
use crate::exec::pool::Pool;
use crate::report;
use crate::run::dir::RunDir;
use crate::run::interrupt::Interrupt;
use crate::spec::Kind;
use crate::spec::stage::{Report, Sound};
use crate::stages::report::page_of;

#[derive(Debug, clap::Args)]
pub struct ReportArguments {
    /// The run: a directory, or a folder at an s3:// or gs:// address.
    run: Location,
    /// The page to write [default: report.html in the run's directory].
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Where the sound of clips goes.
    #[arg(long, value_enum, default_value_t = Sound::Inline)]
    audio: Sound,
    /// Most that the sound in the page may take, in MB; clips beyond it are silent.
    #[arg(long, value_name = "MB", default_value_t = Report::default().audio_mb)]
    audio_mb: f64,
    /// Sound of each clip, from its middle, in seconds.
    #[arg(long, value_name = "S", default_value_t = Report::default().audio_seconds)]
    audio_seconds: f64,
    /// Clips on the map; of more, every so manieth is taken.
    #[arg(long, default_value_t = Report::default().clips)]
    clips: usize,
}

impl ReportArguments {
    fn options(&self) -> Result<Report, Failure> {
        use garde::Validate;
        let Self { audio, audio_mb, audio_seconds, clips, .. } = *self;
        let options = Report { audio, audio_mb, audio_seconds, clips };
        let wrong = |report: garde::Report| {
            let problems: Vec<String> =
                report.iter().map(|(path, error)| format!("--{path}: {error}").replace('_', "-")).collect();
            Failure::Usage(problems.join("; "))
        };
        options.validate().map_err(wrong)?;
        Ok(options)
    }

    /// Where the page goes. A page that the run's own stage made is not written over: its receipt tells what is in it.
    fn page(&self) -> Result<PathBuf, Failure> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let Some(root) = self.run.as_path() else {
            return Err(Failure::Usage("the run is in a bucket: say where the page goes with -o".to_owned()));
        };
        let page = page_of(Kind::Report.name());
        let manifest = RunDir::read_manifest(root)?;
        match manifest.stages.get(Kind::Report.name()) {
            Some(record) if record.kind == Kind::Report.name() => Err(Failure::Usage(format!(
                "{} was made by the run itself; write another page with -o",
                root.join(page).display()
            ))),
            _ => Ok(root.join(page)),
        }
    }
}

pub fn report(arguments: &ReportArguments, interrupt: Interrupt) -> Result<(), Failure> {
    let options = arguments.options()?;
    let page = arguments.page()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = Pool::new(threads).map_err(RunError::io("cannot start", "the rendering threads"))?;
    let made = runtime()?.block_on(report::make(
        &arguments.run,
        &options,
        &report::folder_of(&page),
        &pool,
        &interrupt,
    ))?;
    report::write(&made, &page)?;
    let figures = made.figures.len();
    print(&format!("{figures} figures: open {}\n", page.display()))
}
