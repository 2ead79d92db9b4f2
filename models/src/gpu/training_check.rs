//! The kernels of a training step against the CPU's arithmetic in double precision.

use super::{
    Precision,
    check::{CheckRow, distance},
    loss::{Form, NOTED, Problem, numbered},
    mask::{Ranges, first_fault, mask},
    optim::{Optimiser, Slot, temperatures},
};
use crate::{
    Result,
    loss::{Temperature, anchors, contrastive, excluding_positives, reference_loss},
    optim::{AdamW, AdamWConfig},
    params::{Params, Spec},
};
use candle_core::{DType, Device, Tensor, Var};
use loev_ops::gpu::{Buffer, Gpu};

/// Checks the loss, the optimiser and the masks on a GPU; `device` holds tensors where it can reach them. Products of
/// candle are of single precision from then on, until a model says otherwise.
///
/// # Errors
/// When the device fails.
pub fn check(gpu: &Gpu, device: &Device) -> Result<Vec<CheckRow>> {
    let mut rows = Vec::new();
    Precision::F32.apply();
    losses(gpu, device, &mut rows)?;
    updates(gpu, &mut rows)?;
    masks(gpu, &mut rows)?;
    Ok(rows)
}

fn wave(n: usize, step: f64) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| ((i as f64 + 0.3) * step).sin())
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn losses(gpu: &Gpu, device: &Device, rows: &mut Vec<CheckRow>) -> Result<()> {
    // Some views are alone; 203 are several blocks of anchors on the CPU.
    let of_five: Vec<i64> = (0..203).map(|i| i / 5 * 5 + i % 2).collect();
    let alone: Vec<i64> = [7, 7, -3, 7, 9, 9, 5].into();
    for (groups, d, temperature) in [(&of_five, 40, 0.1), (&alone, 5, 0.02)] {
        let n = groups.len();
        let z = Tensor::from_vec(wave(n * d, 0.7).collect::<Vec<_>>(), (n, d), &Device::Cpu)?;
        let z = z.to_dtype(DType::F32)?;
        let log_scale = Tensor::new(&[-f64::ln(temperature) as f32], &Device::Cpu)?;
        let places = gpu.upload(&numbered(groups))?;
        for form in [Form::Contrastive, Form::Excluding, Form::Reference] {
            for learned in [false, true] {
                let leaf = |t: &Tensor, device: &Device, dtype| -> Result<Var> {
                    Ok(Var::from_tensor(&t.to_dtype(dtype)?.to_device(device)?)?)
                };
                let [exact_z, exact_scale] =
                    [leaf(&z, &Device::Cpu, DType::F64)?, leaf(&log_scale, &Device::Cpu, DType::F64)?];
                let [own_z, own_scale] =
                    [leaf(&z, device, DType::F32)?, leaf(&log_scale, device, DType::F32)?];
                let by = |scale| match learned {
                    true => Temperature::Learned(scale),
                    false => Temperature::Fixed(temperature),
                };
                let exact_by = by(exact_scale.as_tensor());
                let exact = match form {
                    Form::Contrastive => contrastive(&exact_z, groups, exact_by)?,
                    Form::Excluding => excluding_positives(&exact_z, groups, exact_by)?,
                    Form::Reference => reference_loss(&exact_z, groups, exact_by)?,
                };
                let anchors = if form == Form::Reference { n } else { anchors(groups) };
                let noted = gpu.memory::<f64>(NOTED)?;
                let problem = Problem { gpu, groups: &places, form, anchors, noted: noted.address() };
                let own = problem.loss(&own_z, by(own_scale.as_tensor()))?;
                // Gradients of three times the loss: what comes from above counts.
                let [exact_grads, own_grads] = [(&exact * 3.0)?.backward()?, (&own * 3.0)?.backward()?];
                let name = format!("loss {form:?}, {n} views{}", if learned { ", learned" } else { "" });
                let mut row = |what: &str, got: &[f64], want: &[f64], tolerance| {
                    let (name, error) = (format!("{name}: {what}"), distance(got, want));
                    rows.push(CheckRow { name, error, tolerance });
                };
                row("value", &values(&own)?, &values(&exact)?, 2e-6);
                row("value kept", &gpu.download(&noted)?[..1], &values(&exact)?, 2e-6);
                if let (Some(got), Some(want)) = (own_grads.get(&own_z), exact_grads.get(&exact_z)) {
                    row("gradient of views", &values(got)?, &values(want)?, 1e-5);
                }
                if let (Some(got), Some(want), true) =
                    (own_grads.get(&own_scale), exact_grads.get(&exact_scale), learned)
                {
                    row("gradient of the scale", &values(got)?, &values(want)?, 1e-4);
                }
            }
        }
    }
    Ok(())
}

/// Five steps of parameters of many sizes: the update of the CPU, with its clipping and the average beside it.
fn updates(gpu: &Gpu, rows: &mut Vec<CheckRow>) -> Result<()> {
    const SIZES: [usize; 5] = [9000, 1, 4096, 333, 4097];
    /// One that never has a gradient.
    const WITHOUT: usize = 3;
    let specs = SIZES.iter().enumerate().map(|(i, &n)| Spec {
        name: format!("{i}"),
        shape: vec![n],
        init: crate::layers::init::Init::Zeros,
        decay: i % 2 == 0,
    });
    let params = Params::with_values(specs, &Device::Cpu, |spec| {
        let n = spec.shape[0];
        Ok(Tensor::from_vec(wave(n, 0.37).map(|x| x as f32).collect::<Vec<_>>(), n, &Device::Cpu)?)
    })?;
    let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    let rates = vec![1.0, 0.5, 1.0, 1.0, 0.25];
    let adam = || Ok::<_, crate::ModelError>(AdamW::new(config, &params)?.with_rates(rates.clone()));
    let (mut exact, mut own) = (adam()?, adam()?);

    let start: Vec<Vec<f32>> = params.iter().map(|(_, p)| Ok(p.var.to_vec1()?)).collect::<Result<_>>()?;
    let mut averages: Vec<Vec<f64>> =
        start.iter().map(|w| w.iter().map(|&x| f64::from(x)).collect()).collect();
    let weights = start.iter().map(|w| gpu.upload(w)).collect::<Result<Vec<_>, _>>()?;
    let means = averages.iter().map(|w| gpu.upload(w)).collect::<Result<Vec<_>, _>>()?;
    let zeros = || SIZES.iter().map(|&n| gpu.zeros::<f32>(n)).collect::<Result<Vec<_>, _>>();
    let (mean, square) = (zeros()?, zeros()?);
    let slots: Vec<Slot> = (0..SIZES.len())
        .map(|i| Slot {
            weights: weights[i].address(),
            mean: mean[i].address(),
            square: square[i].address(),
            average: means[i].address(),
            len: SIZES[i] as u64,
            // The one value of the second parameter would go below this.
            within: if i == 1 {
                [start[1][0] - 0.001, f32::INFINITY]
            } else {
                [f32::NEG_INFINITY, f32::INFINITY]
            },
        })
        .collect();
    let optimiser = Optimiser::new(gpu, &slots)?;
    let record = gpu.memory::<f64>(optimiser.noted())?;
    let (mut norms, mut wanted) = (Vec::new(), Vec::new());
    let (limit, share, drift) = (20.0, 0.5, 0.3);
    for step in 1..=5 {
        // From long gradients to short ones: some are clipped.
        let gradients: Vec<Vec<f32>> = SIZES
            .iter()
            .enumerate()
            .map(|(i, &n)| wave(n, 0.11 * (step + i) as f64).map(|x| (x / step as f64) as f32).collect())
            .collect();
        let lr = 0.01 / step as f64;

        let mut total: Option<Tensor> = None;
        for (i, ((_, p), g)) in params.iter().zip(&gradients).enumerate() {
            if i != WITHOUT {
                let part = (p.var.as_tensor() * Tensor::new(g.as_slice(), &Device::Cpu)?)?.sum_all()?;
                total = Some(match total {
                    None => part,
                    Some(total) => (total + part)?,
                });
            }
        }
        let Some(total) = total else { break };
        let squares = |g: &Vec<f32>| g.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let all = gradients.iter().enumerate().filter(|(i, _)| *i != WITHOUT).map(|(_, g)| squares(g));
        let norm = all.sum::<f64>().sqrt() * share;
        let clip = if norm > limit { limit / norm } else { 1.0 };
        exact.step(&params, &total.backward()?, lr, clip * share)?;
        let low = &params.iter().nth(1).map(|(_, p)| p.var.clone());
        if let Some(low) = low {
            low.set(&low.as_detached_tensor().maximum(f64::from(slots[1].within[0]))?)?;
        }
        for ((_, p), average) in params.iter().zip(&mut averages) {
            for (mean, w) in average.iter_mut().zip(p.var.to_vec1::<f32>()?) {
                *mean += (f64::from(w) - *mean) * drift;
            }
        }
        norms.push(norm);

        let sent = gradients.iter().map(|g| gpu.upload(g)).collect::<Result<Vec<_>, _>>()?;
        let (mut turns, mut shared) = own.turns(&params, lr);
        shared.drift = drift;
        for (i, (turn, gradient)) in turns.iter_mut().zip(&sent).enumerate() {
            turn.gradient = if i == WITHOUT { 0 } else { gradient.address() };
        }
        let turns = gpu.upload(&turns.iter().flat_map(|turn| turn.words()).collect::<Vec<_>>())?;
        optimiser.norm(&turns, limit, share, record.address())?;
        optimiser.step(&turns, &shared, record.address())?;
        let noted = gpu.download(&record)?;
        wanted.push(noted[0]);
        if noted[2 + WITHOUT] != 0.0 {
            wanted.push(f64::NAN);
        }
    }
    let mut row = |name: &str, error, tolerance| {
        rows.push(CheckRow { name: format!("adamw: {name}"), error, tolerance });
    };
    row("norm", distance(&wanted, &norms), 1e-12);
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    for (what, have, want) in [
        ("weights", &weights, params.iter().map(|(_, p)| values(&p.var)).collect::<Result<Vec<_>>>()?),
        ("mean", &mean, exact.moments().map(|m| Ok(wide(m?[0].clone()))).collect::<Result<_>>()?),
        ("square", &square, exact.moments().map(|m| Ok(wide(m?[1].clone()))).collect::<Result<_>>()?),
    ] {
        let mut worst: f64 = 0.0;
        for (have, want) in have.iter().zip(&want) {
            worst = worst.max(distance(&wide(gpu.download(have)?), want));
        }
        row(what, worst, 1e-6);
    }
    let mut worst: f64 = 0.0;
    for (have, want) in means.iter().zip(&averages) {
        worst = worst.max(distance(&gpu.download(have)?, want));
    }
    row("average", worst, 1e-6);

    // A gradient that is not finite moves nothing.
    let before = gpu.download(&weights[0])?;
    let poison: Vec<Buffer<f32>> = SIZES
        .iter()
        .enumerate()
        .map(|(i, &n)| gpu.upload(&vec![if i == 2 { f32::INFINITY } else { 1.0 }; n]))
        .collect::<Result<_, _>>()?;
    let (mut turns, shared) = own.turns(&params, 0.1);
    turns.iter_mut().zip(&poison).for_each(|(turn, gradient)| turn.gradient = gradient.address());
    let turns = gpu.upload(&turns.iter().flat_map(|turn| turn.words()).collect::<Vec<_>>())?;
    optimiser.norm(&turns, limit, share, record.address())?;
    optimiser.step(&turns, &shared, record.address())?;
    let noted = gpu.download(&record)?;
    let still = before == gpu.download(&weights[0])?;
    let told = !noted[0].is_finite() && noted[2].is_finite() && !noted[4].is_finite();
    row("not finite", if still && told { 0.0 } else { 1.0 }, 0.0);

    let scales = gpu.upload(&[1.5f32, -0.25])?;
    let places = gpu.upload(&[scales.address(), scales.address() + 4])?;
    let got = gpu.memory::<f64>(2)?;
    temperatures(gpu, &places, got.address())?;
    row("temperatures", distance(&gpu.download(&got)?, &[(-1.5f64).exp(), 0.25f64.exp()]), 1e-14);
    Ok(())
}

fn masks(gpu: &Gpu, rows: &mut Vec<CheckRow>) -> Result<()> {
    let (views, frames, mels) = (3, 21, 40);
    let words = [[2, 5, 5, 5, 39, 40], [0, 21, 3, 3, 0, 1], [0, 0, 20, 21, 0, 40]];
    let ranges = Ranges { times: 2, bands: 1, words: words.concat() };
    let mean: Vec<f32> = (0..mels).map(|mel| -(mel as f32)).collect();
    let values: Vec<f32> = (0..views * frames * mels).map(|i| 1.0 + i as f32).collect();
    let mut want = values.clone();
    for (i, x) in want.iter_mut().enumerate() {
        let (view, frame, mel) = (i / mels / frames, (i / mels % frames) as u32, i % mels);
        let [t0, t1, t2, t3, b0, b1] = words[view];
        if (t0..t1).contains(&frame) || (t2..t3).contains(&frame) || (b0..b1).contains(&(mel as u32)) {
            *x = mean[mel];
        }
    }
    let features = gpu.upload(&values)?;
    let (words, mean) = (gpu.upload(&ranges.words)?, gpu.upload(&mean)?);
    mask(gpu, features.address(), [views, frames], &mean, &ranges, &words)?;
    let same = gpu.download(&features)? == want;
    rows.push(CheckRow { name: "masks".into(), error: f64::from(!same), tolerance: 0.0 });

    let first = gpu.memory::<f64>(1)?;
    let mut right = true;
    for fault in [None, Some(0), Some(1), Some(2)] {
        let mut values = values.clone();
        if let Some(view) = fault {
            values[view * frames * mels + 700] = f32::NAN;
            // A later one does not matter.
            values[views * frames * mels - 1] = f32::NEG_INFINITY;
        }
        let features = gpu.upload(&values)?;
        first_fault(gpu, features.address(), [views, frames * mels], first.address())?;
        right &= gpu.download(&first)?[0] == fault.map_or(0.0, |view| view as f64 + 1.0);
    }
    rows.push(CheckRow { name: "first fault".into(), error: f64::from(!right), tolerance: 0.0 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::tensor::address, *};

    #[test]
    fn the_mirror_is_within_tolerances() {
        let Some(gpu) = Gpu::mirror_if_any() else { return };
        let rows = check(&gpu, &Device::Cpu).unwrap();
        for CheckRow { name, error, tolerance } in &rows {
            println!("{name}: {error:.1e} of {tolerance:.0e}");
        }
        assert!(rows.len() > 40);
        let beyond: Vec<_> = rows.iter().filter(|row| !row.passes()).collect();
        assert!(beyond.is_empty(), "{beyond:#?}");
    }

    #[test]
    fn addresses_are_those_of_dense_values() {
        let t = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let whole = address::<f32>(&t).unwrap();
        assert_eq!(address::<f32>(&t.narrow(0, 1, 1).unwrap()).unwrap(), whole + 8);
        assert!(address::<f32>(&t.t().unwrap()).is_err());
        assert!(address::<f64>(&t).is_err());
    }

    #[test]
    fn zero_vectors_and_large_ones_stay_finite() {
        let Some(gpu) = Gpu::mirror_if_any() else { return };
        let z = Tensor::new(&[[0.0f32, 0.0], [1e15, -1e15], [1.0, 1.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let groups = gpu.upload(&numbered(&[4, 4, -1, -1])).unwrap();
        let noted = gpu.memory::<f64>(NOTED).unwrap();
        for form in [Form::Contrastive, Form::Excluding, Form::Reference] {
            let problem = Problem { gpu: &gpu, groups: &groups, form, anchors: 4, noted: noted.address() };
            let z = Var::from_tensor(&z).unwrap();
            let loss = problem.loss(&z, Temperature::Fixed(0.01)).unwrap();
            let grads = loss.backward().unwrap();
            assert!(values(&loss).unwrap()[0].is_finite());
            assert!(values(grads.get(&z).unwrap()).unwrap().iter().all(|g| g.is_finite()));
            assert!(gpu.download(&noted).unwrap().iter().all(|x| x.is_finite()));
        }
        // Without any negative there is nothing to lose.
        let same = gpu.upload(&numbered(&[4; 4])).unwrap();
        let problem =
            Problem { gpu: &gpu, groups: &same, form: Form::Excluding, anchors: 4, noted: noted.address() };
        let z = Var::from_tensor(&z).unwrap();
        let loss = problem.loss(&z, Temperature::Fixed(0.01)).unwrap();
        assert_eq!(values(&loss).unwrap(), [0.0]);
        let grads = loss.backward().unwrap();
        assert!(values(grads.get(&z).unwrap()).unwrap().iter().all(|g| *g == 0.0));
    }
}
