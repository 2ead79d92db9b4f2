//! The contrastive loss and its gradient in one pass over blocks of anchors, on the CPU.
//!
//! Of anchor i with positives P and weight w = 1 / anchors, the gradient with respect to the similarity
//! s_ij is w (p_ij - [j in P] / |P|), p being the row's soft-max. It is taken while a block's rows are in
//! the cache, so that no matrix of all pairs is ever stored.
//!
//! Where other positives stay out of the denominator, a positive j competes with the negatives' sum N
//! alone: its loss is ln(1 + N / e^s_ij), its gradient -w q_j / |P| with q_j = N / (e^s_ij + N), and a
//! negative's is the sum of the q_j times its share of N.
//!
//! The gradient with respect to the logarithm of the scale is the sum of c_ij dL/dc_ij over all pairs of
//! unit vectors with cosines c_ij. Summed over rows, that of a unit vector with its own gradient counts
//! every pair twice: half of it is what is looked for, and no pair has to be kept for it.

use super::Temperature;
use crate::{
    encoder::stack::{slice, sum_in_order},
    kernels::{
        Real, lane_sum,
        mat::{View, product},
        rows, simd,
    },
};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Anchors of a block; fixed, so that sums do not depend on threads.
const BLOCK: usize = 64;

/// The loss of `z: [n, d]`; at least one view has a positive. With `excluding`, other positives stay out
/// of an anchor's denominator.
pub fn contrastive(
    z: &Tensor,
    groups: &[i64],
    temperature: Temperature<'_>,
    excluding: bool,
) -> crate::Result<Tensor> {
    let mut members: HashMap<i64, Vec<usize>> = HashMap::new();
    for (i, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(i);
    }
    let anchors = members.values().map(Vec::len).filter(|&n| n > 1).sum();
    let groups = groups.to_vec();
    let z = z.contiguous()?;
    let number = temperature.value()?;
    let (log_scale, learned) = match temperature {
        Temperature::Learned(log_scale) => (log_scale.clone(), true),
        Temperature::Fixed(_) => (Tensor::zeros(1, z.dtype(), z.device())?, false),
    };
    let pairs = Pairs { groups, members, anchors, temperature: number, excluding };
    Ok(match z.dtype() {
        DType::F64 => {
            z.apply_op2(&log_scale, LossOp::<f64> { pairs, learned, gradients: Mutex::default() })?
        }
        _ => z.apply_op2(&log_scale, LossOp::<f32> { pairs, learned, gradients: Mutex::default() })?,
    })
}

/// The loss and its gradients: with respect to `z`, and to the logarithm of the scale.
struct Gradients<T> {
    loss: T,
    z: Vec<T>,
    log_scale: T,
}

/// Which pairs attract each other, and how the loss weighs them.
struct Pairs {
    groups: Vec<i64>,
    members: HashMap<i64, Vec<usize>>,
    anchors: usize,
    temperature: f64,
    excluding: bool,
}

struct LossOp<T> {
    pairs: Pairs,
    learned: bool,
    /// Left by the forward pass.
    gradients: Mutex<Option<(Vec<T>, T)>>,
}

impl Pairs {
    fn run<T: Real>(&self, z: &[T], dim: usize) -> Gradients<T> {
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
        let mut along_all = 0.0;
        for ((d, unit), &length) in gradient.chunks_exact_mut(dim).zip(unit.chunks_exact(dim)).zip(&lengths) {
            let along = simd(|| {
                let along = lane_sum(d, unit, |d, u| d * u);
                for (d, &u) in d.iter_mut().zip(unit) {
                    *d = (*d - u * along) / length;
                }
                along
            });
            along_all += along.to_f64();
        }
        Gradients {
            loss: T::from_f64(loss / self.anchors as f64),
            z: gradient,
            log_scale: T::from_f64(0.5 * along_all),
        }
    }

    /// The summed loss of a block of anchors, and its share of the gradient of all unit vectors.
    fn block<T: Real>(&self, unit: &[T], dim: usize, anchors: std::ops::Range<usize>) -> (f64, Vec<T>) {
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
            if self.excluding {
                loss += self.without_other_positives(row, i, mates);
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

    /// Turns an anchor's row of cosines into gradients, and gives its loss; `mates` has the anchor too.
    fn without_other_positives<T: Real>(&self, row: &mut [T], i: usize, mates: &[usize]) -> f64 {
        let scale = T::from_f64(1.0 / self.temperature);
        let weight = 1.0 / (self.anchors as f64 * self.temperature * (mates.len() - 1) as f64);
        let mut own: Vec<(usize, f64)> =
            mates.iter().filter(|&&j| j != i).map(|&j| (j, row[j].to_f64() / self.temperature)).collect();
        mates.iter().for_each(|&j| row[j] = T::from_f64(super::NEVER));
        let (top, total) = simd(|| {
            let top = rows::lane_max(row);
            for x in row.iter_mut() {
                *x = ((*x - top) * scale).exponential();
            }
            mates.iter().for_each(|&j| row[j] = T::ZERO);
            (top.to_f64(), lane_sum(row, row, |x, _| x).to_f64())
        });
        // Minus infinity where there is no negative: nothing to lose, nothing to move.
        let negatives = top / self.temperature + total.ln();
        let (mut loss, mut push) = (0.0, 0.0);
        for (_, similarity) in &mut own {
            let x = negatives - *similarity;
            loss += x.max(0.0) + (-x.abs()).exp().ln_1p();
            *similarity = 1.0 / (1.0 + (-x).exp());
            push += *similarity;
        }
        let factor = T::from_f64(if total == 0.0 { 0.0 } else { weight * push / total });
        simd(|| row.iter_mut().for_each(|x| *x *= factor));
        own.iter().for_each(|&(j, share)| row[j] = T::from_f64(-weight * share));
        loss / own.len() as f64
    }
}

impl<T: Real> CustomOp2 for LossOp<T> {
    fn name(&self) -> &'static str {
        "contrastive"
    }

    fn cpu_fwd(
        &self,
        z: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, dim) = layout.shape().dims2()?;
        let Gradients { loss, z, log_scale } = self.pairs.run(slice::<T>(z, layout)?, dim);
        *self.gradients.lock().unwrap_or_else(PoisonError::into_inner) = Some((z, log_scale));
        Ok((T::to_cpu_storage_owned(vec![loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        z: &Tensor,
        log_scale: &Tensor,
        _: &Tensor,
        d_loss: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some((d_z, d_scale)) = self.gradients.lock().unwrap_or_else(PoisonError::into_inner).clone()
        else {
            bail!("contrastive: there was no forward pass")
        };
        let d_z = Tensor::from_vec(d_z, z.shape(), z.device())?.broadcast_mul(d_loss)?;
        let d_scale = match self.learned {
            true => Some(
                Tensor::from_vec(vec![d_scale], 1, z.device())?
                    .broadcast_mul(d_loss)?
                    .reshape(log_scale.shape())?,
            ),
            false => None,
        };
        Ok((Some(d_z), d_scale))
    }
}
