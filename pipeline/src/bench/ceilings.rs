//! What the machine could do: copies and matrix products.

use std::time::Duration;

use loev_models::{DType, Device, ModelError, Tensor};
use loev_ops::gpu::Gpu;
use serde::Serialize;

use super::{seconds_of, wait};
use crate::error::RunError;

/// Bytes of a copy.
const BYTES: usize = 1 << 30;
/// Rows and columns of the matrices.
const SIZE: usize = 8192;

/// Rates that the machine reaches.
#[derive(Debug, Clone, Serialize)]
pub struct Ceilings {
    /// Copies on the GPU, bytes read and written a second.
    pub copy_bytes_s: f64,
    /// Copies from pinned memory of the host, bytes a second.
    pub host_bytes_s: f64,
    /// Operations a second of a product of large matrices in bf16.
    pub bf16_operations_s: f64,
    /// The same in f32, with what reduced precision training allows.
    pub f32_operations_s: f64,
}

pub(super) fn measure(device: &Device, gpu: &Gpu, least: Duration) -> Result<Ceilings, RunError> {
    let copy_bytes_s = {
        let (from, mut to) = (gpu.zeros::<u8>(BYTES)?, gpu.memory::<u8>(BYTES)?);
        let seconds = seconds_of(least, || Ok(gpu.copy(&from, &mut to)?), wait(gpu))?;
        2.0 * BYTES as f64 / seconds
    };
    let host_bytes_s = {
        let (from, mut to) = (gpu.pinned::<u8>(BYTES / 4)?, gpu.memory::<u8>(BYTES / 4)?);
        let stage = || -> Result<(), RunError> { Ok(gpu.after(&gpu.stage(&from, BYTES / 4, &mut to)?)?) };
        (BYTES / 4) as f64 / seconds_of(least, stage, wait(gpu))?
    };
    let product = |dtype| -> Result<f64, RunError> {
        // Zeros are multiplied faster than numbers: less of the chip switches.
        let values: Vec<f32> = (0..SIZE * SIZE).map(|i| (i as f32 * 0.37).sin()).collect();
        let tensor = |values| Tensor::from_vec(values, (SIZE, SIZE), device)?.to_dtype(dtype);
        let a = tensor(values).map_err(ModelError::from)?;
        let work = || Ok(a.matmul(&a).map(drop).map_err(ModelError::from)?);
        let seconds = seconds_of(least, work, wait(gpu))?;
        Ok(2.0 * (SIZE as f64).powi(3) / seconds)
    };
    Ok(Ceilings {
        copy_bytes_s,
        host_bytes_s,
        bf16_operations_s: product(DType::BF16)?,
        f32_operations_s: product(DType::F32)?,
    })
}

impl Ceilings {
    pub(super) fn table(&self) -> String {
        format!(
            "| ceiling | |\n| --- | --- |\n| copies on the GPU (read and written) | {:.2} TB/s |\n\
             | copies from pinned memory | {:.1} GB/s |\n| products of {SIZE}, bf16 | {:.0} TFLOP/s |\n\
             | products of {SIZE}, f32 | {:.0} TFLOP/s |\n",
            self.copy_bytes_s / 1e12,
            self.host_bytes_s / 1e9,
            self.bf16_operations_s / 1e12,
            self.f32_operations_s / 1e12,
        )
    }
}
