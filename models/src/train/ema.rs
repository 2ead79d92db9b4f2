//! A running mean of the weights.

use crate::{ModelError, Result, kernels::simd, params::Params};
use candle_core::{CpuStorage, DType, Storage, Tensor};

/// The mean of one parameter.
#[derive(Debug)]
enum Mean {
    /// On the CPU: a plain buffer, updated in one pass.
    Host(Vec<f64>),
    /// Elsewhere.
    Device(Tensor),
}

/// An exponential moving average of all weights. It is kept in double precision: at a decay of 0.9999 a
/// step moves it by a ten-thousandth of its distance to the weights, which single precision rounds away
/// long before the two meet.
#[derive(Debug)]
pub(super) struct Ema {
    decay: f64,
    means: Vec<Mean>,
}

impl Ema {
    /// The average before the first step: the weights as they are.
    pub fn new(decay: f64, params: &Params) -> Result<Self> {
        let mut weights = params.iter();
        Self::resumed(decay, params, |_| match weights.next() {
            Some((_, p)) => Ok(p.var.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?),
            None => Ok(Vec::new()),
        })
    }

    /// The average with what [`Self::values`] gave for each parameter: `read` is told its name.
    pub fn resumed(
        decay: f64,
        params: &Params,
        mut read: impl FnMut(&str) -> Result<Vec<f64>>,
    ) -> Result<Self> {
        let means = params.iter().map(|(name, p)| {
            let (values, device) = (read(name)?, p.var.device());
            Ok(if device.is_cpu() {
                Mean::Host(values)
            } else {
                Mean::Device(Tensor::from_vec(values, p.var.shape(), device)?)
            })
        });
        Ok(Self { decay, means: means.collect::<Result<_>>()? })
    }

    /// Takes in the weights after step `step`, counted from 1. The first steps weigh more than `decay`
    /// says, so that the initial values are soon forgotten.
    pub fn step(&mut self, params: &Params, step: usize) -> Result<()> {
        let share = self.share(step);
        for ((name, parameter), mean) in params.iter().zip(&mut self.means) {
            match mean {
                Mean::Host(mean) => {
                    let (storage, layout) = parameter.var.storage_and_layout();
                    let (Storage::Cpu(CpuStorage::F32(weights)), Some((from, to))) =
                        (&*storage, layout.contiguous_offsets())
                    else {
                        return Err(ModelError::Config(format!("{name} is no plain f32 on the CPU")));
                    };
                    simd(|| {
                        for (mean, &weight) in mean.iter_mut().zip(&weights[from..to]) {
                            *mean += (f64::from(weight) - *mean) * share;
                        }
                    });
                }
                Mean::Device(mean) => {
                    let weights = parameter.var.as_detached_tensor().to_dtype(DType::F64)?;
                    *mean = (&*mean + ((weights - &*mean)? * share)?)?;
                }
            }
        }
        Ok(())
    }

    /// The part of its distance to the weights that the average goes in step `step`.
    pub fn share(&self, step: usize) -> f64 {
        let step = step as f64;
        1.0 - self.decay.min((1.0 + step) / (10.0 + step))
    }

    /// Where the average of each parameter is on the device; none for those that the host holds.
    pub fn on_device(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.means.iter().map(|mean| match mean {
            Mean::Host(_) => None,
            Mean::Device(mean) => Some(mean),
        })
    }

    /// The average as it is on devices other than the CPU.
    #[cfg(test)]
    pub fn into_tensors(mut self, params: &Params) -> Result<Self> {
        for ((_, p), mean) in params.iter().zip(&mut self.means) {
            if let Mean::Host(values) = mean {
                *mean = Mean::Device(Tensor::from_slice(values, p.var.shape(), p.var.device())?);
            }
        }
        Ok(self)
    }

    /// The average of each parameter, in order.
    pub fn values(&self) -> impl Iterator<Item = Result<Vec<f64>>> {
        self.means.iter().map(|mean| match mean {
            Mean::Host(values) => Ok(values.clone()),
            Mean::Device(values) => Ok(values.flatten_all()?.to_vec1()?),
        })
    }

    /// The average of each parameter as weights.
    pub fn weights(&self) -> impl Iterator<Item = Result<Vec<f32>>> {
        self.values().map(|values| Ok(values?.iter().map(|&v| v as f32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layers::init::Init, params::Spec};
    use candle_core::{Device, Var};
    use loev_ops::rng::Key;

    fn params() -> Params {
        let spec = Spec { name: "a".into(), shape: vec![5, 7], init: Init::Glorot, decay: true };
        Params::new([spec], Key::root(1), &Device::Cpu, DType::F32).unwrap()
    }

    fn var(params: &Params) -> &Var {
        &params.iter().next().unwrap().1.var
    }

    fn mean(ema: &Ema) -> Vec<f64> {
        ema.values().next().unwrap().unwrap()
    }

    /// Weights that drift, against the sum that the recursion stands for.
    #[test]
    fn averages_match_the_definition() {
        for decay in [0.3, 0.9, 0.99999] {
            let params = params();
            let mut ema = Ema::new(decay, &params).unwrap();
            let mut seen = vec![var(&params).flatten_all().unwrap().to_vec1::<f32>().unwrap()];
            for step in 1..=200 {
                var(&params).set(&(var(&params).as_tensor() * 1.003).unwrap()).unwrap();
                seen.push(var(&params).flatten_all().unwrap().to_vec1().unwrap());
                ema.step(&params, step).unwrap();
            }
            let decays: Vec<f64> =
                (1..=200).map(|t| f64::min(decay, f64::from(1 + t) / f64::from(10 + t))).collect();
            for (i, got) in mean(&ema).into_iter().enumerate() {
                let weight = |t: usize| {
                    let own = if t == 0 { 1.0 } else { 1.0 - decays[t - 1] };
                    own * decays[t..].iter().product::<f64>()
                };
                let want: f64 = seen.iter().enumerate().map(|(t, w)| weight(t) * f64::from(w[i])).sum();
                assert!((got - want).abs() < 1e-13, "{decay}: {got} {want}");
            }
        }
    }

    #[test]
    fn host_and_device_averages_agree() {
        let params = params();
        let mut host = Ema::new(0.99, &params).unwrap();
        let start = var(&params).to_dtype(DType::F64).unwrap();
        let mut device = Ema { decay: 0.99, means: vec![Mean::Device(start)] };
        for step in 1..=20 {
            var(&params).set(&(var(&params).as_tensor() * 0.9).unwrap()).unwrap();
            host.step(&params, step).unwrap();
            device.step(&params, step).unwrap();
        }
        for (a, b) in mean(&host).iter().zip(mean(&device)) {
            assert!((a - b).abs() < 1e-15);
        }
    }
}
