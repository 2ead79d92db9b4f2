//! The kernels of training and embedding on a GPU.
//!
//! Sources are in `cuda/`; tests run them on the mirror of a GPU on the CPU ([`loev_ops::gpu`]).

pub mod loss;
pub mod mask;
pub mod optim;
pub mod tensor;
pub mod training_check;
pub mod upload;

pub use loev_ops::gpu::Gpu;

use loev_ops::gpu::Kernels;

/// The kernels of this crate.
pub static KERNELS: Kernels = Kernels {
    name: "models",
    sources: concat!(env!("CARGO_MANIFEST_DIR"), "/cuda"),
    #[cfg(feature = "cuda")]
    image: include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")),
    #[cfg(not(feature = "cuda"))]
    image: &[],
};
