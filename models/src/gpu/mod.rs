//! The kernels of training and embedding on a GPU, and the transformer made of them.
//!
//! Sources are in `cuda/`; tests run them on the mirror of a GPU on the CPU ([`loev_ops::gpu`]). What runs here is
//! the network of [`crate::kernels`], rule by rule: the whole batch at once instead of chunks that fit a cache, matrix
//! products by cuBLAS, everything on one stream, and nothing waits for the device.
//!
//! # Precision
//! Tokens between blocks, their gradients, statistics, sums and the gradients of parameters are f32. With
//! [`Precision::Bf16`] operands of products are bf16, weights being rounded once per pass from their f32 masters;
//! products are summed in f32.
//!
//! # Operations and bytes
//! Of one block and one token of width `d` (MLP of `4 d`, `t` tokens a view), bf16, both ways:
//!
//! | | multiply-adds | bytes |
//! | --- | --- | --- |
//! | forward: products of weights | 12 d^2 | 34 d |
//! | forward: attention | 2 t d | 8 d |
//! | forward: norms, residuals, GELU | | 44 d |
//! | backward: products of weights | 24 d^2 | 68 d |
//! | backward: attention | 7 t d | 24 d |
//! | backward: norms, residuals, GELU, sums | | 76 d |
//!
//! So of d = 384 and t = 86 a token and block are 5.3 million multiply-adds of weights, 0.3 million of attention (5%),
//! and 98 kB. At 600 TFLOP/s of products, a third of that in attention, and 4 TB/s, that would be 18 ns of products of
//! weights, 3 ns of attention and 12 ns of what else moves bytes (120 d of the 254 d; products read and write their
//! part while they multiply): 55% of the time is products, 70% at d = 768 and 40% at d = 192. These are counts, not
//! measurements. What is kept for the way back are 24 d bytes of a token and block: 9 kB at d = 384, so 3.2 GB a block
//! of 4,096 views of 86 tokens.

mod attention;
mod block;
pub mod check;
pub mod loss;
pub mod mask;
#[cfg(feature = "cuda")]
pub(crate) mod operations;
pub mod optim;
mod product;
mod rows;
mod stack;
pub mod tensor;
mod tokens;
pub mod training_check;
pub mod upload;

use candle_core::{DType, Tensor};
use loev_ops::gpu::{Buffer, Gpu, GpuError, Kernels};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the network's own operations on a GPU are for a tensor: those of single precision that are on one.
pub(crate) fn takes(tensor: &Tensor) -> bool {
    tensor.device().is_cuda() && tensor.dtype() == DType::F32
}

/// The kernels of this crate.
pub static KERNELS: Kernels = Kernels {
    name: "models",
    sources: concat!(env!("CARGO_MANIFEST_DIR"), "/cuda"),
    #[cfg(feature = "cuda")]
    image: include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")),
    #[cfg(not(feature = "cuda"))]
    image: &[],
};

/// What products of matrices are made of on a GPU; the CPU always computes in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision throughout.
    F32,
    /// Operands in bfloat16, sums and parameters in single precision: many times faster.
    #[default]
    Bf16,
}

impl Precision {
    /// Whether it is the one that is taken when nothing is said; that one is not written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Lets candle's own products on a GPU round their operands to TF32, or not, from now on.
    pub(crate) fn apply(self) {
        #[cfg(feature = "cuda")]
        candle_core::cuda::set_gemm_reduced_precision_f32(self == Self::Bf16);
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn is_narrow(self) -> i32 {
        i32::from(self == Self::Bf16)
    }
}

pub(crate) use loev_ops::gpu::arguments;

/// A GPU with its matrix products.
#[derive(Clone, Debug)]
pub struct Engine {
    gpu: Gpu,
    blas: product::Blas,
}

/// A matrix in the precision of the network.
pub(crate) struct Matrix {
    memory: Buffer<u8>,
    precision: Precision,
}

impl Matrix {
    /// Where its `at`-th value is.
    fn at(&self, at: usize) -> u64 {
        self.memory.address() + (at * self.precision.bytes()) as u64
    }

    fn address(&self) -> u64 {
        self.memory.address()
    }
}

/// Where the `at`-th value of single precision is.
fn place(address: u64, at: usize) -> u64 {
    address + (at * size_of::<f32>()) as u64
}

impl Engine {
    /// One whose products are a plain kernel: for the mirror, and to check others against. Slow.
    pub fn plain(gpu: Gpu) -> Self {
        Self { gpu, blas: product::Blas::Plain }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn matrix(&self, precision: Precision, values: usize) -> Result<Matrix, GpuError> {
        Ok(Matrix { memory: self.gpu.memory(values * precision.bytes())?, precision })
    }

    fn floats(&self, values: usize) -> Result<Buffer<f32>, GpuError> {
        self.gpu.memory(values)
    }
}
