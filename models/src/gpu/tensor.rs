//! Tensors as kernels see them: an address on the device.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, WithDType, bail};
use std::{cell::Cell, marker::PhantomData};

/// Where the values of a dense tensor are: on the device, or in the memory of the host, which is the mirror's.
/// They stay there as long as the tensor or one that shares its values lives.
///
/// # Errors
/// When the values are of another type or not dense.
pub fn address<T: Element>(tensor: &Tensor) -> candle_core::Result<u64> {
    let at = At { address: Cell::new(0), values: PhantomData::<T> };
    tensor.inplace_op1(&at)?;
    Ok(at.address.get())
}

/// Types of values that kernels read from tensors.
#[cfg(feature = "cuda")]
pub trait Element: WithDType + candle_core::cuda_backend::CudaDType {}
/// Types of values that kernels read from tensors.
#[cfg(not(feature = "cuda"))]
pub trait Element: WithDType {}

impl Element for f32 {}
impl Element for f64 {}

struct At<T> {
    address: Cell<u64>,
    values: PhantomData<T>,
}

impl<T> At<T> {
    fn found(&self, start: u64, layout: &Layout) -> candle_core::Result<()> {
        let Some((from, _)) = layout.contiguous_offsets() else { bail!("a kernel needs dense values") };
        self.address.set(start + (from * size_of::<T>()) as u64);
        Ok(())
    }
}

impl<T: Element> InplaceOp1 for At<T> {
    fn name(&self) -> &'static str {
        "address"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let values = match storage {
            CpuStorage::F32(values) if T::DTYPE == candle_core::DType::F32 => values.as_mut_ptr() as u64,
            CpuStorage::F64(values) if T::DTYPE == candle_core::DType::F64 => values.as_mut_ptr() as u64,
            _ => bail!("a kernel needs values of type {:?}", T::DTYPE),
        };
        self.found(values, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        use candle_core::cuda_backend::cudarc::driver::DevicePtrMut;
        let slice = storage.as_cuda_slice_mut::<T>()?;
        let stream = slice.stream().clone();
        let (address, _order) = slice.device_ptr_mut(&stream);
        self.found(address, layout)
    }
}
