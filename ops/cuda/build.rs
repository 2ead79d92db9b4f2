//! nvcc, for the build scripts of the crates that have kernels: all sources of `cuda/` become one image.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes `kernels.fatbin`: machine code for the capability at hand, and code that later devices compile themselves.
pub fn compile() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let common = here.parent().map(|root| root.join("ops/cuda")).unwrap_or_default();
    let directory = here.join("cuda");
    for watched in [&directory, &common] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    for name in ["CUDA_HOME", "CUDA_COMPUTE_CAP", "NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    let unit = out.join("kernels.cu");
    let includes: String = sources.iter().map(|path| format!("#include \"{}\"\n", path.display())).collect();
    std::fs::write(&unit, includes).unwrap_or_else(|e| panic!("{}: {e}", unit.display()));

    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".to_owned());
    let status = Command::new(nvcc())
        .args(["-fatbin", "-std=c++17", "-O3", "--extra-device-vectorization", "-lineinfo"])
        .arg(format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"))
        .arg("-I")
        .arg(&common)
        .arg("-o")
        .arg(out.join("kernels.fatbin"))
        .arg(&unit)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("nvcc: {status}"),
        Err(e) => panic!("nvcc cannot be started ({e}): scripts/cuda-toolkit.sh installs it"),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn nvcc() -> PathBuf {
    let home = ["CUDA_HOME", "CUDA_PATH"].iter().find_map(std::env::var_os);
    let at_home = home.map(|home| Path::new(&home).join("bin/nvcc")).filter(|path| path.exists());
    std::env::var_os("NVCC").map(PathBuf::from).or(at_home).unwrap_or_else(|| "nvcc".into())
}
