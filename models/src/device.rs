//! Devices by name, and what lies under candle on a GPU.

use crate::{ModelError, Result, gpu::Engine};
use candle_core::{Device, Shape, Tensor};
use loev_ops::gpu::{Buffer, Gpu};

/// The device called `name`: `cpu`, `cuda` or `cuda:N`, or `auto`: the first GPU where there is one
/// and this build can use it, else the CPU.
///
/// # Errors
/// [`ModelError::Device`] when the name is unknown, the build lacks the `cuda` feature, or the GPU
/// does not answer.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if cfg!(feature = "cuda") => Ok(cuda(0).unwrap_or(Device::Cpu)),
        "auto" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        _ => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(ordinal) => cuda(ordinal),
            None => Err(ModelError::Device(format!(
                "unknown device {name:?}: expected cpu, cuda, cuda:N or auto"
            ))),
        },
    }
}

/// Kernels and memory of the GPU that `device` is, in order with what candle asks of it; none for the CPU.
///
/// # Errors
/// [`ModelError::Gpu`] when the GPU does not answer.
pub fn gpu(device: &Device) -> Result<Option<Gpu>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => under(device).map(Some),
        _ => Ok(None),
    }
}

/// The GPU that `device` is, with cuBLAS's products; none for the CPU.
///
/// # Errors
/// [`ModelError::Gpu`] when the GPU does not answer.
pub fn engine(device: &Device) -> Result<Option<Engine>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::gpu::operations::engine(device).map(Some),
        _ => Ok(None),
    }
}

/// The values of a buffer of `gpu` as a tensor on `device`: the same memory where that is the same GPU, else a copy.
///
/// # Errors
/// [`ModelError::Data`] when they are more or fewer than `shape` has; and when the device fails.
pub fn tensor(gpu: &Gpu, buffer: Buffer<f32>, shape: Shape, device: &Device) -> Result<Tensor> {
    if buffer.len() != shape.elem_count() {
        return Err(ModelError::Data(format!("{} values do not make a tensor {shape:?}", buffer.len())));
    }
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(crate::gpu::operations::tensor(buffer, shape, device)),
        _ => Ok(Tensor::from_vec(gpu.download(&buffer)?, shape, device)?),
    }
}

/// Bytes of a GPU's memory that are in use, by whomever; none for the CPU, and where the driver does not say.
pub fn memory_in_use(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
            Some((total - free) as u64)
        }
        _ => None,
    }
}

/// One [`Gpu`] a device: what was loaded and planned on it is kept.
#[cfg(feature = "cuda")]
pub(crate) fn under(device: &candle_core::CudaDevice) -> Result<Gpu> {
    use std::sync::{Mutex, PoisonError};
    static KNOWN: Mutex<Vec<(candle_core::cuda::DeviceId, Gpu)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, gpu)) = known.iter().find(|(id, _)| *id == device.id()) {
        return Ok(gpu.clone());
    }
    let gpu = Gpu::on_stream(device.cuda_stream())?;
    known.push((device.id(), gpu.clone()));
    Ok(gpu)
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(ModelError::Device(format!(
        "cuda:{ordinal} was asked for, but this build has no GPU support (build it with `--features cuda`)"
    )))
}

/// One explicit stream, because `Device::new_cuda` hands every thread its own without ordering them.
#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| {
        // Where backtraces are on, candle's message goes on with one.
        let message = e.to_string();
        ModelError::Device(format!(
            "cuda:{ordinal} does not answer: {}",
            message.lines().next().unwrap_or("")
        ))
    })?;
    forget_order(&device);
    keep_memory(ordinal)
        .map_err(|e| ModelError::Device(format!("cuda:{ordinal}: its memory pool refused: {e:?}")))?;
    Ok(device)
}

/// Makes no events for tensors: cudarc would make two for each, and wait for them, to order streams.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn forget_order(device: &Device) {
    if let Device::Cuda(device) = device {
        // SAFETY: tensors are computed and freed on this one stream; copies on another have events of their own.
        unsafe { device.disable_event_tracking() };
    }
}

/// Keeps freed memory in the device's pool: by default every synchronisation returns it to the system.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn keep_memory(ordinal: usize) -> std::result::Result<(), cudarc::driver::DriverError> {
    use cudarc::driver::{result, sys};
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
    // SAFETY: the pool belongs to a device that was just obtained, and the attribute takes a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(device)?;
        let mut threshold = u64::MAX;
        result::mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(device("cpu").unwrap().is_cpu());
        assert!(device("auto").is_ok());
        for name in ["gpu", "cuda:x", ""] {
            assert!(matches!(device(name), Err(ModelError::Device(m)) if m.contains("expected cpu")));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_without_the_feature_is_a_clear_error() {
        let message = device("cuda:0").unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }
}
