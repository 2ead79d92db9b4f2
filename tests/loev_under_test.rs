//! The `loev` command once more, so that the end-to-end tests have a binary of their own package.

use std::process::ExitCode;

fn main() -> ExitCode {
    loev_pipeline::cli::main()
}
