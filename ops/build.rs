//! Compiles the kernels of `cuda/` where the build is for a GPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    {
        cuda::compile();
        // cudarc says where CUDA's libraries are, and names all but this one.
        println!("cargo::rustc-link-lib=dylib=cufft");
    }
}

#[cfg(feature = "cuda")]
#[path = "cuda/build.rs"]
mod cuda;
