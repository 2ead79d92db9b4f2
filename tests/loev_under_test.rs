//! The `loev` command once more, so that the end-to-end tests have a binary of their own package.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    loev_pipeline::cli::main()
}
