//! AdamW with decay groups, clipping by the global norm, and the learning-rate schedule.

use crate::{
    ModelError, Result, gpu,
    kernels::{lane_sum, simd},
    params::{Parameter, Params},
};
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var, backprop::GradStore, bail};
use rayon::prelude::*;
use std::cell::RefCell;

/// Weights that are updated as one task.
const PIECE: usize = 1 << 14;

/// Settings of AdamW (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient.
    pub eps: f64,
    /// Decoupled weight decay, applied to parameters that take it.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 }
    }
}

/// Running means of a parameter's gradient and of its square.
#[derive(Debug)]
enum Moments {
    /// On the CPU: plain buffers, updated with the parameter in one pass.
    Host(Vec<f32>, Vec<f32>),
    /// Elsewhere.
    Device(Tensor, Tensor),
}

/// The optimiser and its state, for parameters in `f32`.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    moments: Vec<Moments>,
    /// Factor on the learning rate of each parameter; 1 beyond the end.
    rates: Vec<f64>,
    step: usize,
}

/// The factors of one step.
#[derive(Debug, Clone, Copy)]
struct Factors {
    /// What gradients are multiplied by: clipping.
    clip: f64,
    lr: f64,
    decay: f64,
    /// 1 - beta^step, twice.
    correction: [f64; 2],
}

/// One parameter's update on CPU slices.
struct Update<'a> {
    config: &'a AdamWConfig,
    factors: Factors,
    moments: RefCell<(&'a mut [f32], &'a mut [f32])>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        lp: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(p), CpuStorage::F32(g)) = (p, g) else { bail!("adamw updates f32 parameters") };
        let (Some((p0, p1)), Some((g0, g1))) = (lp.contiguous_offsets(), lg.contiguous_offsets()) else {
            bail!("adamw needs contiguous tensors")
        };
        let constants = Constants::new(self.config, self.factors);
        let (m, v) = &mut *self.moments.borrow_mut();
        p[p0..p1]
            .par_chunks_mut(PIECE)
            .zip(g[g0..g1].par_chunks(PIECE))
            .zip(m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE)))
            .for_each(|((p, g), (m, v))| simd(|| constants.update(p, g, m, v)));
        Ok(())
    }
}

/// [`Factors`] and settings in single precision, as each weight's update uses them.
#[derive(Clone, Copy)]
struct Constants {
    clip: f32,
    /// The decays of both means, and what they leave to the new value.
    means: [(f32, f32); 2],
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

impl Constants {
    fn new(config: &AdamWConfig, factors: Factors) -> Self {
        let Factors { clip, lr, decay, correction } = factors;
        Self {
            clip: clip as f32,
            means: [config.beta1, config.beta2].map(|beta| (beta as f32, (1.0 - beta) as f32)),
            keep: (1.0 - lr * decay) as f32,
            rate: (lr / correction[0]) as f32,
            root: correction[1].sqrt().recip() as f32,
            eps: config.eps as f32,
        }
    }

    /// The slices come as arguments, of which the compiler knows that they do not overlap.
    #[inline(always)]
    fn update(self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Self { clip, means: [(b1, c1), (b2, c2)], keep, rate, root, eps } = self;
        for ((p, &g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            let g = g * clip;
            *m = *m * b1 + g * c1;
            *v = *v * b2 + g * g * c2;
            *p = *p * keep - *m * rate / (v.sqrt() * root + eps);
        }
    }
}

impl AdamW {
    /// An optimiser at rest for these parameters.
    ///
    /// # Errors
    /// [`ModelError::Config`] for parameters that are not `f32`.
    pub fn new(config: AdamWConfig, params: &Params) -> Result<Self> {
        Self::resumed(config, params, 0, |_, n| Ok([vec![0.0; n], vec![0.0; n]]))
    }

    /// An optimiser after `step` steps, with what [`Self::moments`] gave then for each parameter:
    /// `read` is told its name and number of values.
    pub(crate) fn resumed(
        config: AdamWConfig,
        params: &Params,
        step: usize,
        mut read: impl FnMut(&str, usize) -> Result<[Vec<f32>; 2]>,
    ) -> Result<Self> {
        let moments = params.iter().map(|(name, p)| {
            if p.var.dtype() != DType::F32 {
                return Err(ModelError::Config(format!("adamw: {name} is {:?}, not f32", p.var.dtype())));
            }
            let [m, v] = read(name, p.var.elem_count())?;
            let device = p.var.device();
            Ok(if device.is_cpu() {
                Moments::Host(m, v)
            } else {
                let tensor = |values| Tensor::from_vec(values, p.var.shape(), device);
                Moments::Device(tensor(m)?, tensor(v)?)
            })
        });
        Ok(Self { config, moments: moments.collect::<Result<_>>()?, rates: Vec::new(), step })
    }

    /// The optimiser with a factor on the learning rate of each parameter, in the order of parameters.
    pub(crate) fn with_rates(self, rates: Vec<f64>) -> Self {
        Self { rates, ..self }
    }

    /// The running means of each parameter's gradient and of its square, in the order of parameters.
    pub(crate) fn moments(&self) -> impl Iterator<Item = Result<[Vec<f32>; 2]>> {
        self.moments.iter().map(|moments| match moments {
            Moments::Host(m, v) => Ok([m.clone(), v.clone()]),
            Moments::Device(m, v) => Ok([m.flatten_all()?.to_vec1()?, v.flatten_all()?.to_vec1()?]),
        })
    }

    /// Moves every parameter that has a gradient; gradients are multiplied by `clip` first.
    pub fn step(&mut self, params: &Params, grads: &GradStore, lr: f64, clip: f64) -> Result<()> {
        let all = self.advance(params, lr, clip);
        for (((_, parameter), moments), factors) in params.iter().zip(&mut self.moments).zip(all) {
            let Some(grad) = grads.get(&parameter.var) else { continue };
            match moments {
                Moments::Host(m, v) => {
                    let moments = RefCell::new((m.as_mut_slice(), v.as_mut_slice()));
                    let update = Update { config: &self.config, factors, moments };
                    parameter.var.inplace_op2(&grad.contiguous()?, &update)?;
                }
                Moments::Device(m, v) => composed(&self.config, factors, &parameter.var, grad, m, v)?,
            }
        }
        Ok(())
    }

    /// Begins a step: its factors for each parameter.
    fn advance(&mut self, params: &Params, lr: f64, clip: f64) -> Vec<Factors> {
        self.step = self.step.saturating_add(1);
        let AdamWConfig { beta1, beta2, weight_decay, .. } = self.config;
        // Both powers have long been 0 where the exponent ends.
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction = [1.0 - beta1.powi(step), 1.0 - beta2.powi(step)];
        let rates = self.rates.iter().copied().chain(std::iter::repeat(1.0));
        let of = |((_, parameter), rate): ((&str, &Parameter), f64)| {
            let decay = if parameter.decay { weight_decay } else { 0.0 };
            Factors { clip, lr: lr * rate, decay, correction }
        };
        params.iter().zip(rates).map(of).collect()
    }

    /// Where the running means of each parameter's gradient and of its square are on the device; none for those that
    /// the host holds.
    pub(crate) fn on_device(&self) -> impl Iterator<Item = Option<(&Tensor, &Tensor)>> {
        self.moments.iter().map(|moments| match moments {
            Moments::Host(..) => None,
            Moments::Device(m, v) => Some((m, v)),
        })
    }

    /// Begins a step that the device does by itself: what each parameter gets, but for its gradient, and what all
    /// have in common, but for the average's part.
    pub(crate) fn turns(&mut self, params: &Params, lr: f64) -> (Vec<gpu::optim::Turn>, gpu::optim::Shared) {
        let constants: Vec<Constants> =
            self.advance(params, lr, 1.0).into_iter().map(|f| Constants::new(&self.config, f)).collect();
        let turns = constants.iter().map(|c| gpu::optim::Turn { gradient: 0, keep: c.keep, rate: c.rate });
        let (means, root, eps) =
            constants.first().map_or(([(0.0, 0.0); 2], 0.0, 0.0), |c| (c.means, c.root, c.eps));
        (turns.collect(), gpu::optim::Shared { means, root, eps, drift: 0.0 })
    }

    /// The optimiser as it is on devices other than the CPU.
    #[cfg(test)]
    pub(crate) fn into_tensors(mut self, params: &Params) -> Result<Self> {
        for ((_, p), moments) in params.iter().zip(&mut self.moments) {
            if let Moments::Host(m, v) = moments {
                let tensor = |values: &Vec<f32>| Tensor::from_slice(values, p.var.shape(), p.var.device());
                *moments = Moments::Device(tensor(m)?, tensor(v)?);
            }
        }
        Ok(self)
    }
}

/// The update of [`Update`] in candle operations.
fn composed(
    config: &AdamWConfig,
    factors: Factors,
    var: &Var,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
) -> Result<()> {
    let AdamWConfig { beta1, beta2, eps, .. } = *config;
    let Factors { clip, lr, decay, correction } = factors;
    let grad = (grad.detach() * clip)?;
    *m = ((&*m * beta1)? + (&grad * (1.0 - beta1))?)?;
    *v = ((&*v * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
    let spread = ((v.sqrt()? * correction[1].sqrt().recip())? + eps)?;
    let kept = (var.as_detached_tensor() * (1.0 - lr * decay))?;
    var.set(&(kept - ((&*m * (lr / correction[0]))? / spread)?)?)?;
    Ok(())
}

/// The Euclidean norm of a gradient, and whether any element is not zero. NaN and infinity show in the
/// norm.
pub fn norm(grad: &Tensor) -> Result<f64> {
    let grad = grad.contiguous()?;
    let (storage, layout) = grad.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) =
        (&*storage, layout.contiguous_offsets())
    {
        let values = &values[from..to];
        // Pieces keep the error of single-precision sums small; they are added in their order.
        let square = |v: &[f32]| f64::from(simd(|| lane_sum(v, v, |x, _| x * x)));
        let pieces: Vec<f64> = values.par_chunks(4096).with_min_len(8).map(square).collect();
        return Ok(pieces.iter().sum::<f64>().sqrt());
    }
    drop(storage);
    Ok(grad.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.sqrt())
}

/// Learning rate over training: linear from 0 to `lr` over `warmup` steps, then half a cosine down to
/// `last` at `steps`, and `last` from there on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// Steps of the rise.
    pub warmup: usize,
    /// Steps in all.
    pub steps: usize,
    /// The rate at the end.
    pub last: f64,
}

impl Schedule {
    /// The rate of a step, counted from 1.
    pub fn at(&self, step: usize) -> f64 {
        if step <= self.warmup {
            return self.lr * step as f64 / self.warmup.max(1) as f64;
        }
        if step >= self.steps {
            return self.last;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup) as f64;
        self.last + (self.lr - self.last) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layers::init::Init, params::Spec};
    use candle_core::Device;
    use loev_ops::rng::Key;

    #[test]
    fn schedule_gives_published_values() {
        let schedule = Schedule { lr: 1e-4, warmup: 5000, steps: 200_000, last: 1e-6 };
        let golden = [
            (1, 2e-8),
            (2500, 5e-5),
            (5000, 1e-4),
            (50_000, 8.755e-5),
            (102_500, 5.05e-5),
            (200_000, 1e-6),
            (250_000, 1e-6),
        ];
        for (step, lr) in golden {
            assert!((schedule.at(step) / lr - 1.0).abs() < 1e-4, "{step}: {}", schedule.at(step));
        }
        let no_warmup = Schedule { warmup: 0, steps: 2, ..schedule };
        assert!(no_warmup.at(1) < 1e-4 && no_warmup.at(2) == 1e-6);
    }

    fn params() -> Params {
        let spec = |name: &str, shape: Vec<usize>, decay| Spec {
            name: name.into(),
            shape,
            init: Init::Glorot,
            decay,
        };
        let specs = [spec("a", vec![3, 40], true), spec("b", vec![7], false)];
        Params::new(specs, Key::root(1), &Device::Cpu, DType::F32).unwrap()
    }

    fn values(p: &Parameter) -> Vec<f32> {
        p.var.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Twenty steps against the published algorithm in double precision.
    #[test]
    fn updates_match_the_algorithm() {
        let params = params();
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let mut adam = AdamW::new(config, &params).unwrap();
        let mut want: Vec<Vec<[f64; 3]>> = params
            .iter()
            .map(|(_, p)| values(p).iter().map(|&x| [f64::from(x), 0.0, 0.0]).collect())
            .collect();
        for step in 1..=20 {
            let loss = params
                .iter()
                .map(|(_, p)| p.var.sqr().unwrap().sum_all().unwrap())
                .reduce(|a, b| (a + b).unwrap())
                .unwrap();
            let (lr, clip) = (0.01 / f64::from(step), 0.5);
            adam.step(&params, &loss.backward().unwrap(), lr, clip).unwrap();
            for (want, decay) in want.iter_mut().zip([0.1, 0.0]) {
                for [x, m, v] in want {
                    let g = 2.0 * *x * clip;
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    let (m_hat, v_hat) = (*m / (1.0 - 0.9f64.powi(step)), *v / (1.0 - 0.999f64.powi(step)));
                    *x -= lr * decay * *x;
                    *x -= lr * m_hat / (v_hat.sqrt() + 1e-8);
                }
            }
        }
        for ((_, p), want) in params.iter().zip(&want) {
            for (got, [want, ..]) in values(p).iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 2e-6, "{got} {want}");
            }
        }
    }

    #[test]
    fn composed_and_fused_updates_agree() {
        let (a, b) = (params(), params());
        let config = AdamWConfig::default();
        let mut fused = AdamW::new(config, &a).unwrap();
        let mut composed = AdamW::new(config, &b).unwrap();
        composed.moments = b
            .iter()
            .map(|(_, p)| Moments::Device(p.var.zeros_like().unwrap(), p.var.zeros_like().unwrap()))
            .collect();
        for _ in 0..5 {
            for (params, adam) in [(&a, &mut fused), (&b, &mut composed)] {
                let loss = params
                    .iter()
                    .map(|(_, p)| p.var.sqr().unwrap().sum_all().unwrap())
                    .reduce(|a, b| (a + b).unwrap())
                    .unwrap();
                adam.step(params, &loss.backward().unwrap(), 0.01, 0.7).unwrap();
            }
        }
        for ((_, a), (_, b)) in a.iter().zip(b.iter()) {
            for (a, b) in values(a).iter().zip(values(b)) {
                assert!((a - b).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn norms() {
        let t = Tensor::from_vec(vec![3.0f32; 10_000], (100, 100), &Device::Cpu).unwrap();
        assert!((norm(&t).unwrap() - 300.0).abs() < 1e-3);
        assert!((norm(&t.to_dtype(DType::F64).unwrap()).unwrap() - 300.0).abs() < 1e-9);
        assert!(norm(&(t * f64::NAN).unwrap()).unwrap().is_nan());
    }
}
