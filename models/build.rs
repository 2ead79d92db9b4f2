//! Compiles the kernels of `cuda/` where the build is for a GPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    cuda::compile();
}

#[cfg(feature = "cuda")]
#[path = "../ops/cuda/build.rs"]
mod cuda;
