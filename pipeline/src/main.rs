//! The `loev` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    loev_pipeline::cli::main()
}
