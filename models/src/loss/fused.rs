//! The contrastive loss and its gradient in one pass over blocks of anchors, on the CPU.
//!
//! Of anchor i with positives P and weight w = 1 / anchors, the gradient with respect to the similarity
//! s_ij is w (p_ij - [j in P] / |P|), p being the row's soft-max. It is taken while a block's rows are in
//! the cache, so that no matrix of all pairs is ever stored.

use crate::{
    encoder::stack::{slice, sum_in_order},
    kernels::{
        Real, lane_sum,
        mat::{View, product},
        rows, simd,
    },
};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Anchors of a block; fixed, so that sums do not depend on threads.
const BLOCK: usize = 64;

/// The loss of `z: [n, d]`; at least one view has a positive.
pub fn contrastive(z: &Tensor, groups: &[i64], temperature: f64) -> Result<Tensor> {
    let mut members: HashMap<i64, Vec<usize>> = HashMap::new();
    for (i, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(i);
    }
    let anchors = members.values().map(Vec::len).filter(|&n| n > 1).sum();
    let groups = groups.to_vec();
    let z = z.contiguous()?;
    match z.dtype() {
        DType::F64 => {
            z.apply_op1(LossOp::<f64> { groups, members, anchors, temperature, gradient: Mutex::default() })
        }
        _ => z.apply_op1(LossOp::<f32> { groups, members, anchors, temperature, gradient: Mutex::default() }),
    }
}

struct LossOp<T> {
    groups: Vec<i64>,
    members: HashMap<i64, Vec<usize>>,
    anchors: usize,
    temperature: f64,
    /// The gradient of the loss, left by the forward pass.
    gradient: Mutex<Vec<T>>,
}

impl<T: Real> LossOp<T> {
    /// The loss and its gradient.
    fn run(&self, z: &[T], dim: usize) -> (T, Vec<T>) {
        let n = self.groups.len();
        let mut unit = z.to_vec();
        let lengths: Vec<T> = unit
            .chunks_exact_mut(dim)
            .map(|row| {
                let square = simd(|| lane_sum(row, row, |x, _| x * x));
                let length = (square + T::from_f64(super::LENGTH_EPS)).square_root();
                row.iter_mut().for_each(|x| *x /= length);
                length
            })
            .collect();

        let blocks: Vec<(f64, Vec<T>)> = (0..n.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| self.block(&unit, dim, block * BLOCK..((block + 1) * BLOCK).min(n)))
            .collect();
        let loss = blocks.iter().map(|(loss, _)| loss).sum::<f64>();
        let parts: Vec<&[T]> = blocks.iter().map(|(_, gradient)| gradient.as_slice()).collect();
        let mut gradient = sum_in_order(&parts, n * dim);
        for ((d, unit), &length) in gradient.chunks_exact_mut(dim).zip(unit.chunks_exact(dim)).zip(&lengths) {
            simd(|| {
                let along = lane_sum(d, unit, |d, u| d * u);
                for (d, &u) in d.iter_mut().zip(unit) {
                    *d = (*d - u * along) / length;
                }
            });
        }
        (T::from_f64(loss / self.anchors as f64), gradient)
    }

    /// The summed loss of a block of anchors, and its share of the gradient of all unit vectors.
    fn block(&self, unit: &[T], dim: usize, anchors: std::ops::Range<usize>) -> (f64, Vec<T>) {
        let (n, size) = (self.groups.len(), anchors.len());
        let own = &unit[anchors.start * dim..anchors.end * dim];
        let mut pairs = vec![T::ZERO; size * n];
        product([size, n, dim], &mut pairs, n, false, View::rows(own, dim), View::transposed(unit, dim));

        let scale = T::from_f64(1.0 / self.temperature);
        let weight = T::from_f64(1.0 / (self.anchors as f64 * self.temperature));
        let mut loss = 0.0;
        for (i, row) in anchors.clone().zip(pairs.chunks_exact_mut(n)) {
            let mates = self.members.get(&self.groups[i]).map_or(&[][..], Vec::as_slice);
            if mates.len() < 2 {
                row.fill(T::ZERO);
                continue;
            }
            row[i] = T::from_f64(super::NEVER);
            let count = (mates.len() - 1) as f64;
            let mates = || mates.iter().filter(|&&j| j != i);
            let similarity = mates().map(|&j| row[j].to_f64()).sum::<f64>() / count;
            let (top, total) = simd(|| {
                let top = rows::lane_max(row);
                for x in row.iter_mut() {
                    *x = ((*x - top) * scale).exponential();
                }
                row[i] = T::ZERO;
                let total = lane_sum(row, row, |x, _| x);
                let factor = weight / total;
                for x in row.iter_mut() {
                    *x *= factor;
                }
                (top, total)
            });
            loss += (top.to_f64() - similarity) / self.temperature + total.to_f64().ln();
            let share = weight / T::from_f64(count);
            mates().for_each(|&j| row[j] -= share);
        }

        let mut gradient = vec![T::ZERO; n * dim];
        product([n, dim, size], &mut gradient, dim, false, View::transposed(&pairs, n), View::rows(own, dim));
        let mine = &mut gradient[anchors.start * dim..anchors.end * dim];
        product([size, dim, n], mine, dim, true, View::rows(&pairs, n), View::rows(unit, dim));
        (loss, gradient)
    }
}

impl<T: Real> CustomOp1 for LossOp<T> {
    fn name(&self) -> &'static str {
        "contrastive"
    }

    fn cpu_fwd(&self, z: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, dim) = layout.shape().dims2()?;
        let (loss, gradient) = self.run(slice(z, layout)?, dim);
        *self.gradient.lock().unwrap_or_else(PoisonError::into_inner) = gradient;
        Ok((T::to_cpu_storage_owned(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, d_loss: &Tensor) -> Result<Option<Tensor>> {
        let gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Some(Tensor::from_vec(gradient, z.shape(), z.device())?.broadcast_mul(d_loss)?))
    }
}
