//! The network as operations of candle on a GPU: on its one stream, and memory is handed over, never copied.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor, bail,
    cuda::cudarc::driver::DevicePtr, op::BackpropOp,
};
use loev_ops::gpu::Buffer;
use std::sync::{Mutex, PoisonError};

use super::{
    Engine, Precision,
    product::Blas,
    stack::{Input, State},
    tokens::{Fixed, TokensInput, places},
};
use crate::encoder::{
    stack::{Plan, StackDrops},
    tokens::{Kept, Normaliser, TokenShape},
};

/// The engine of a device, on the stream and with the cuBLAS of its tensors.
///
/// # Errors
/// [`crate::ModelError::Gpu`] when it does not answer.
pub fn engine(device: &CudaDevice) -> crate::Result<Engine> {
    Ok(Engine { gpu: crate::device::under(device)?, blas: Blas::Cuda(device.cublas_handle()) })
}

/// Where the values of a contiguous tensor of single precision are. Work on the device's one stream may use them as
/// long as it is asked for before the tensor is gone.
fn address(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let Some((from, _)) = layout.contiguous_offsets() else {
        bail!("a fused operation needs contiguous tensors")
    };
    let slice = storage.as_cuda_slice::<f32>()?;
    let (start, _guard) = slice.device_ptr(slice.stream());
    let address = super::place(start, from);
    if !address.is_multiple_of(16) {
        bail!("a fused operation needs tensors that begin at multiples of 16 bytes")
    }
    Ok(address)
}

/// A tensor whose values begin at a multiple of 16 bytes, one after the other.
fn aligned(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.contiguous()?;
    if tensor.layout().start_offset().is_multiple_of(4) { Ok(tensor) } else { tensor.copy() }
}

/// [`address`] of an aligned tensor.
fn address_of(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address(storage, layout),
        _ => bail!("a fused operation needs tensors on one GPU"),
    }
}

/// The buffer as candle's own.
#[allow(unsafe_code)]
fn storage(buffer: Buffer<f32>, device: &CudaDevice) -> CudaStorage {
    let length = buffer.len();
    // SAFETY: the memory was allocated on this stream, holds `length` values, and is from here on the slice's alone,
    // which gives it back as the buffer would have.
    let slice = unsafe { device.cuda_stream().upgrade_device_ptr::<f32>(buffer.into_address(), length) };
    CudaStorage::wrap_cuda_slice(slice, device.clone())
}

/// The same as a tensor without a history.
pub(crate) fn tensor(buffer: Buffer<f32>, shape: impl Into<Shape>, device: &CudaDevice) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage(buffer, device)), shape, BackpropOp::none(), false)
}

/// The stack of blocks as an operation of candle.
struct StackOnGpu {
    engine: Engine,
    plan: Plan,
    precision: Precision,
    keep: bool,
    drops: Option<StackDrops>,
    kept: Mutex<Option<State>>,
}

impl StackOnGpu {
    fn input(&self, views: usize, x: u64, packed: u64) -> Input<'_> {
        let (plan, precision, drops) = (&self.plan, self.precision, self.drops.as_ref());
        Input { plan, precision, packed, x, views, drops }
    }
}

impl CustomOp2 for StackOnGpu {
    fn name(&self) -> &'static str {
        "transformer-stack"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("transformer-stack: this one is for a GPU")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        p: &CudaStorage,
        lp: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let plan = &self.plan;
        let (views, tokens, dim) = lx.shape().dims3()?;
        let length = plan.trunk_block().packed() * plan.blocks();
        let packed = lp.shape().elem_count();
        if (tokens, dim) != (plan.tokens(), plan.dim) || packed != length {
            bail!("transformer-stack: {:?} and {packed} parameters do not fit {plan:?}", lx.shape());
        }
        let input = self.input(views, address(x, lx)?, address(p, lp)?);
        let (out, state) = self.engine.stack(input, self.keep).map_err(candle_core::Error::wrap)?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok((storage(out, &x.device), Shape::from((views, plan.classes, dim))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let device = x.device().as_cuda_device()?;
        let d_out = aligned(d_out)?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let input = self.input(x.dim(0)?, address_of(x)?, address_of(p)?);
        let state = match kept {
            Some(state) => state,
            None => self.engine.kept(input).map_err(candle_core::Error::wrap)?,
        };
        let gradients = self.engine.stack_back(input, state, address_of(&d_out)?);
        let [d_x, d_p] = gradients.map_err(candle_core::Error::wrap)?;
        Ok((Some(tensor(d_x, x.shape(), device)), Some(tensor(d_p, p.shape(), device))))
    }
}

/// [`crate::encoder::stack::run`] of tensors on a GPU, of single precision.
pub(crate) fn stack(
    plan: &Plan,
    precision: Precision,
    x: &Tensor,
    packed: &Tensor,
    drops: Option<StackDrops>,
    keep: bool,
) -> Result<Tensor> {
    if x.dtype() != DType::F32 || x.dim(0)? == 0 {
        bail!("transformer-stack: a GPU takes views of single precision, at least one");
    }
    let engine = engine(x.device().as_cuda_device()?).map_err(candle_core::Error::wrap)?;
    let op = StackOnGpu { engine, plan: plan.clone(), precision, keep, drops, kept: Mutex::new(None) };
    aligned(x)?.apply_op2(&aligned(packed)?, op)
}

/// The tokeniser as an operation of candle.
struct TokensOnGpu {
    engine: Engine,
    shape: TokenShape,
    precision: Precision,
    fixed: Fixed,
}

impl TokensOnGpu {
    fn input(&self, views: usize, features: u64, packed: u64) -> TokensInput<'_> {
        let Self { shape, precision, fixed, .. } = self;
        TokensInput { shape: *shape, precision: *precision, fixed, views, features, packed }
    }
}

impl CustomOp2 for TokensOnGpu {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("tokens: this one is for a GPU")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        p: &CudaStorage,
        lp: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (views, ..) = lx.shape().dims3()?;
        if lp.shape().elem_count() != self.shape.packed() {
            bail!("tokens: {} parameters do not fit {:?}", lp.shape().elem_count(), self.shape);
        }
        let input = self.input(views, address(x, lx)?, address(p, lp)?);
        let out = self.engine.tokens(input).map_err(candle_core::Error::wrap)?;
        let rows = self.shape.classes + self.fixed.per_view(&self.shape);
        Ok((storage(out, &x.device), Shape::from((views, rows, self.shape.dim))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_out = aligned(d_out)?;
        let input = self.input(x.dim(0)?, address_of(x)?, address_of(p)?);
        let d_packed =
            self.engine.tokens_back(input, address_of(&d_out)?).map_err(candle_core::Error::wrap)?;
        Ok((None, Some(tensor(d_packed, p.shape(), x.device().as_cuda_device()?))))
    }
}

/// [`crate::encoder::tokens::tokens`] of tensors on a GPU, of single precision; none when a view keeps a patch twice.
pub(crate) fn tokens(
    shape: TokenShape,
    precision: Precision,
    normaliser: &Normaliser,
    kept: Option<&Kept>,
    packed: &Tensor,
    features: &Tensor,
) -> Result<Option<Tensor>> {
    let there = match kept.map(|kept| (kept, places(kept, shape.patches()))) {
        None => None,
        Some((kept, Some(places))) => Some((kept, places)),
        Some((_, None)) => return Ok(None),
    };
    let engine = engine(features.device().as_cuda_device()?).map_err(candle_core::Error::wrap)?;
    let fixed =
        engine.fixed(&normaliser.mean, &normaliser.deviation, there).map_err(candle_core::Error::wrap)?;
    let op = TokensOnGpu { engine, shape, precision, fixed };
    Ok(Some(aligned(features)?.apply_op2(&aligned(packed)?, op)?))
}

/// [`crate::encoder::rhythm::Rhythm::onsets`] of a tensor on a GPU, of single precision.
pub(crate) fn onsets(features: &Tensor, deviation: &[f32], groups: usize) -> Result<Tensor> {
    let (views, frames, mels) = features.dims3()?;
    let device = features.device().as_cuda_device()?;
    let engine = engine(device).map_err(candle_core::Error::wrap)?;
    let features = aligned(features)?;
    let onsets = engine.onsets([views, frames, mels, groups], address_of(&features)?, deviation);
    let onsets = onsets.map_err(candle_core::Error::wrap)?;
    Ok(tensor(onsets, (views, groups, frames - 1), device))
}
