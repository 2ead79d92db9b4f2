//! Products of matrices in the device's memory, row by row: by cuBLAS, or by a plain kernel where there is none.

use loev_ops::gpu::{GpuError, Launch};

use super::{Engine, KERNELS, Precision, arguments};

/// What multiplies.
#[derive(Clone)]
pub(super) enum Blas {
    /// The kernel `product`.
    Plain,
    /// cuBLAS, on the stream of the other work.
    #[cfg(feature = "cuda")]
    Cuda(std::sync::Arc<candle_core::cuda::cudarc::cublas::CudaBlas>),
}

impl std::fmt::Debug for Blas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => f.write_str("Plain"),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => f.write_str("Cuda"),
        }
    }
}

/// A matrix, or one of each item of a batch.
#[derive(Clone, Copy)]
pub(super) struct View {
    address: u64,
    stride: usize,
    turned: bool,
    apart: usize,
}

impl View {
    /// Rows that lie `stride` values apart.
    pub fn rows(address: u64, stride: usize) -> Self {
        Self { address, stride, turned: false, apart: 0 }
    }

    /// The transpose of `Self::rows(address, stride)`.
    pub fn transposed(address: u64, stride: usize) -> Self {
        Self { turned: true, ..Self::rows(address, stride) }
    }

    /// The matrices of a batch lie `values` apart.
    pub fn apart(self, values: usize) -> Self {
        Self { apart: values, ..self }
    }

    fn strides(&self) -> [i64; 2] {
        let stride = self.stride as i64;
        if self.turned { [1, stride] } else { [stride, 1] }
    }
}

arguments! {
    struct Arguments {
        a: u64, b: u64, out: u64,
        a_row: i64, a_column: i64, b_row: i64, b_column: i64, out_row: i64,
        a_batch: i64, b_batch: i64, out_batch: i64,
        m: i64, n: i64, k: i64, batch: i64,
        narrow: i32, out_narrow: i32,
    }
}

impl Engine {
    /// `out = a b` of `a: [m, k]` and `b: [k, n]` in `precision`, the result in `result`.
    pub(super) fn product(
        &self,
        size: [usize; 3],
        precision: Precision,
        (out, result): (View, Precision),
        a: View,
        b: View,
    ) -> Result<(), GpuError> {
        self.products(1, size, precision, (out, result), a, b)
    }

    /// The same for each of `batch` items.
    pub(super) fn products(
        &self,
        batch: usize,
        [m, n, k]: [usize; 3],
        precision: Precision,
        (out, result): (View, Precision),
        a: View,
        b: View,
    ) -> Result<(), GpuError> {
        if batch * m * n == 0 {
            return Ok(());
        }
        match &self.blas {
            Blas::Plain => {
                let ([a_row, a_column], [b_row, b_column]) = (a.strides(), b.strides());
                let int = |n: usize| n as i64;
                let arguments = Arguments {
                    a: a.address,
                    b: b.address,
                    out: out.address,
                    a_row,
                    a_column,
                    b_row,
                    b_column,
                    out_row: int(out.stride),
                    a_batch: int(a.apart),
                    b_batch: int(b.apart),
                    out_batch: int(out.apart),
                    m: int(m),
                    n: int(n),
                    k: int(k),
                    batch: int(batch),
                    narrow: precision.is_narrow(),
                    out_narrow: result.is_narrow(),
                };
                self.gpu.launch(&KERNELS, "product", Launch::items(m * n * batch, 256), &arguments)
            }
            #[cfg(feature = "cuda")]
            Blas::Cuda(blas) => self
                .gpu
                .timed("product", || cuda::products(blas, batch, [m, n, k], precision, (out, result), a, b)),
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda::cudarc::cublas::{CudaBlas, result, sys};
    use loev_ops::gpu::GpuError;

    use super::{Precision, View};

    fn kind(precision: Precision) -> sys::cudaDataType_t {
        match precision {
            Precision::F32 => sys::cudaDataType_t::CUDA_R_32F,
            Precision::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        }
    }

    /// cuBLAS counts down columns, so it is asked for the transpose: `out^T = b^T a^T`.
    #[allow(unsafe_code)]
    pub fn products(
        blas: &CudaBlas,
        batch: usize,
        [m, n, k]: [usize; 3],
        precision: Precision,
        (out, result_of): (View, Precision),
        a: View,
        b: View,
    ) -> Result<(), GpuError> {
        let large = || GpuError::Shape(format!("a product of {m} x {n} x {k} is too large"));
        let int = |n: usize| i32::try_from(n).map_err(|_| large());
        let turn = |view: View| match view.turned {
            false => sys::cublasOperation_t::CUBLAS_OP_N,
            true => sys::cublasOperation_t::CUBLAS_OP_T,
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let (turn_a, turn_b, operands, sums) = (turn(a), turn(b), kind(precision), kind(result_of));
        let (compute, algorithm) = (
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        );
        let (m, n, k, batch) = (int(m)?, int(n)?, int(k)?, int(batch)?);
        let (by_a, by_b, by_out) = (int(a.stride)?, int(b.stride)?, int(out.stride)?);
        let (at_a, at_b, to) = (a.address as *const _, b.address as *const _, out.address as *mut _);
        let handle = *blas.handle();
        // SAFETY: the scalars are of the type of the sums; matrices lie where the caller says.
        unsafe {
            // Gradients of weights are small and their sums long: cuBLAS splits those of a single product.
            if batch == 1 {
                result::gemm_ex(
                    handle, turn_b, turn_a, n, m, k, one, at_b, operands, by_b, at_a, operands, by_a, zero,
                    to, sums, by_out, compute, algorithm,
                )
            } else {
                let (apart_a, apart_b, apart) = (a.apart as i64, b.apart as i64, out.apart as i64);
                result::gemm_strided_batched_ex(
                    handle, turn_b, turn_a, n, m, k, one, at_b, operands, by_b, apart_b, at_a, operands,
                    by_a, apart_a, zero, to, sums, by_out, apart, batch, compute, algorithm,
                )
            }
        }
        .map_err(|e| GpuError::Failed { what: "a product", message: format!("{e:?}") })
    }
}
