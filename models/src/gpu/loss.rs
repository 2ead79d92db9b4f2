//! The contrastive loss of one subspace and its gradient, with one matrix of all pairs alive at a time.

use super::{KERNELS, arguments, tensor::address};
use crate::{Result, loss::Temperature};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Storage, Tensor, bail};
use loev_ops::gpu::{Buffer, Gpu, Launch};
use std::collections::HashMap;

/// What a view's loss is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// [`crate::loss::contrastive`].
    Contrastive = 0,
    /// [`crate::loss::excluding_positives`].
    Excluding = 1,
    /// [`crate::loss::reference_loss`].
    Reference = 2,
}

/// Values that [`Problem::loss`] leaves at [`Problem::noted`]: the loss, and the sum of the lengths of all
/// projections, which is finite where they are.
pub const NOTED: usize = 2;

/// Group ids as the kernels compare them: numbers from 0 in the order of their first view.
pub fn numbered(groups: &[i64]) -> Vec<u32> {
    let mut known = HashMap::new();
    groups
        .iter()
        .map(|group| {
            let next = known.len() as u32;
            *known.entry(group).or_insert(next)
        })
        .collect()
}

/// What belongs together, and how the loss weighs it.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// [`numbered`] groups of the views.
    pub groups: &'a Buffer<u32>,
    /// The formula.
    pub form: Form,
    /// How many views the loss is the mean of.
    pub anchors: usize,
    /// The address of [`NOTED`] values in double precision.
    pub noted: u64,
}

arguments! {
    struct Unit { z: u64, unit: u64, length: u64, rows: i64, dim: i32, eps: f32 }
}

arguments! {
    struct Contrast {
        x: u64, group: u64, log_scale: u64, losses: u64, scale: f64, weight: f64, n: i32, form: i32,
    }
}

arguments! {
    struct UnitGradient {
        left: u64, right: u64, unit: u64, length: u64, along: u64, rows: i64, dim: i32, gap: i32,
    }
}

arguments! {
    struct Totals {
        losses: u64, along: u64, length: u64, loss: u64, d_log_scale: u64, noted: u64, weight: f64, n: i32, gap: i32,
    }
}

impl Problem<'_> {
    /// The loss of `z: [n, d]`, one number with a gradient. Nothing waits for the device.
    ///
    /// # Errors
    /// [`crate::ModelError::Gpu`] and [`crate::ModelError::Tensor`] when the device refuses, or the number of groups
    /// is not n.
    pub fn loss(&self, z: &Tensor, temperature: Temperature<'_>) -> Result<Tensor> {
        let Self { gpu, groups, form, anchors, noted } = *self;
        let z = z.to_dtype(DType::F32)?.contiguous()?;
        let (n, d) = z.dims2()?;
        if groups.len() != n {
            let fault = format!("{n} views have {} group ids", groups.len());
            return Err(crate::ModelError::Data(fault));
        }
        let (rows, dim, device) = (n as i64, d as i32, z.device());
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device);

        let (unit, length) = (zeros(&[n, d])?, zeros(&[n])?);
        let [unit_at, length_at] = [address::<f32>(&unit)?, address::<f32>(&length)?];
        let eps = crate::loss::LENGTH_EPS as f32;
        let arguments =
            Unit { z: address::<f32>(&z.detach())?, unit: unit_at, length: length_at, rows, dim, eps };
        let warps = Launch::items(n * 32, 256);
        gpu.launch(&KERNELS, "unit_rows", warps, &arguments)?;

        let (log_scale, scale) = match temperature {
            Temperature::Learned(x) => (x.to_dtype(DType::F32)?.contiguous()?, 0.0),
            Temperature::Fixed(temperature) => (zeros(&[1])?, 1.0 / temperature),
        };
        let learned = matches!(temperature, Temperature::Learned(_));
        let losses = gpu.memory::<f64>(n)?;
        let weight = 1.0 / anchors as f64;
        let pairs = unit.matmul(&unit.t()?)?;
        let arguments = Contrast {
            x: address::<f32>(&pairs)?,
            group: groups.address(),
            log_scale: if learned { address::<f32>(&log_scale.detach())? } else { 0 },
            losses: losses.address(),
            scale,
            weight,
            n: n as i32,
            form: form as i32,
        };
        let threads = (n.div_ceil(256) * 32).clamp(64, 512) as u32;
        gpu.launch(&KERNELS, "contrast_rows", Launch::blocks([n, 1, 1], threads), &arguments)?;

        let (d_z, right) = (pairs.matmul(&unit)?, pairs.t()?.matmul(&unit)?);
        drop(pairs);
        let along = gpu.memory::<f64>(n)?;
        let arguments = UnitGradient {
            left: address::<f32>(&d_z)?,
            right: address::<f32>(&right)?,
            unit: unit_at,
            length: length_at,
            along: along.address(),
            rows,
            dim,
            gap: 0,
        };
        gpu.launch(&KERNELS, "unit_gradient", warps, &arguments)?;

        let (loss, d_log_scale) = (zeros(&[])?, zeros(&[1])?);
        let arguments = Totals {
            losses: losses.address(),
            along: along.address(),
            length: length_at,
            loss: address::<f32>(&loss)?,
            d_log_scale: address::<f32>(&d_log_scale)?,
            noted,
            weight,
            n: n as i32,
            gap: 0,
        };
        gpu.launch(&KERNELS, "loss_totals", Launch::blocks([1, 1, 1], 1024), &arguments)?;
        let known = Known { value: loss, gradients: (d_z, learned.then_some(d_log_scale)) };
        Ok(z.apply_op2(&log_scale, known)?)
    }
}

/// A number that is known, with its gradients with respect to two tensors.
pub(crate) struct Known {
    pub value: Tensor,
    pub gradients: (Tensor, Option<Tensor>),
}

impl CustomOp2 for Known {
    fn name(&self) -> &'static str {
        "contrastive"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => {
                use candle_core::backend::BackendStorage;
                Ok((storage.try_clone(layout)?, Shape::from(())))
            }
            _ => bail!("the loss is not where its views are"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => {
                use candle_core::backend::BackendStorage;
                Ok((storage.try_clone(layout)?, Shape::from(())))
            }
            _ => bail!("the loss is not where its views are"),
        }
    }

    fn bwd(
        &self,
        _: &Tensor,
        second: &Tensor,
        _: &Tensor,
        d: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (a, b) = &self.gradients;
        let b = b.as_ref().map(|b| b.broadcast_mul(d)?.reshape(second.shape())).transpose()?;
        Ok((Some(a.broadcast_mul(d)?), b))
    }
}
