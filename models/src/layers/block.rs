//! The transformer block of [`crate::kernels::block`], composed of candle operations.

use super::{activation::gelu, attention::attention, linear::linear, norm::layer_norm};
use crate::kernels::{
    block::{BLOCK_PARAMETERS, BlockShape},
    drop::{Drops, Residual},
};
use candle_core::{Device, Result, Tensor, bail};

/// Runs a block on `x: [views, tokens, dim]`; the result is `[views, queries, dim]`. `parameters` are
/// those of [`BlockShape::parameters`], in that order. `drops` are those of the kernel.
pub fn block(shape: &BlockShape, parameters: &[Tensor], x: &Tensor, drops: Option<&Drops>) -> Result<Tensor> {
    let Ok([w_n1, b_n1, w_q, b_q, w_kv, w_o, b_o, w_n2, b_n2, w_up, b_up, w_down, b_down]) =
        <&[Tensor; BLOCK_PARAMETERS]>::try_from(parameters)
    else {
        bail!("a block has {BLOCK_PARAMETERS} parameters, not {}", parameters.len())
    };
    let first = |t: &Tensor| t.narrow(1, 0, shape.queries);
    let normed = layer_norm(x, w_n1, b_n1)?;
    let query = linear(&first(&normed)?, w_q, Some(b_q))?;
    let key_value = linear(&normed, w_kv, None)?;
    let mixed = attention(&query, &key_value, shape.heads)?;
    let added = dropped(linear(&mixed, w_o, Some(b_o))?, drops, Residual::Attention)?;
    let mid = (first(x)? + added)?;
    let up = linear(&layer_norm(&mid, w_n2, b_n2)?, w_up, Some(b_up))?;
    mid + dropped(linear(&gelu(&up)?, w_down, Some(b_down))?, drops, Residual::Mlp)?
}

fn dropped(added: Tensor, drops: Option<&Drops>, residual: Residual) -> Result<Tensor> {
    let Some(drops) = drops else { return Ok(added) };
    let (views, queries, dim) = added.dims3()?;
    let mut factors = vec![1.0f64; views * queries * dim];
    drops.apply(residual, &mut factors, queries * dim);
    let factors = Tensor::from_vec(factors, added.shape(), &Device::Cpu)?.to_dtype(added.dtype())?;
    added.mul(&factors.to_device(added.device())?)
}
