//! Every custom operation that has a gradient: checked by differences over shapes, strides and batch
//! sizes, and broken on purpose, to see that the check would say so.

use crate::{
    encoder::{
        stack::{self, Branch, Plan, Pools, StackDrops},
        tokens::{Kept, Normaliser, TokenShape, tokens},
    },
    gpu::{Precision, loss::Known},
    kernels::block::{BLOCK_PARAMETERS, BlockShape},
    layers::{
        activation::gelu,
        attention::attention,
        channels::{scale, scaled_gelu, shift},
        check::{mismatch, wave},
        conv::Conv,
        linear::linear,
        norm::layer_norm,
    },
    loss::{Temperature, contrastive, excluding_positives},
};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use loev_ops::rng::Key;
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

type Function = Arc<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// An operation on inputs of some shapes.
struct Case {
    /// The type that implements the operation, or the function, of [`LAYERS`], that composes it.
    operation: &'static str,
    inputs: Vec<Tensor>,
    run: Function,
}

impl Case {
    fn new(
        operation: &'static str,
        inputs: Vec<Tensor>,
        run: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        Self { operation, inputs, run: Arc::new(run) }
    }
}

/// What is composed of candle's operations on the path of training.
const LAYERS: [&str; 4] = ["linear", "layer_norm", "gelu", "attention"];

fn stacks(cases: &mut Vec<Case>) {
    let base = Plan { dim: 4, heads: 2, hidden: 6, classes: 2, patches: 3, trunk: 1, branches: vec![] };
    let each = |depth| (0..2).map(|k| Branch { classes: k..k + 1, depth }).collect();
    let plans = [
        Plan { branches: vec![Branch { classes: 0..2, depth: 1 }], ..base.clone() },
        Plan { branches: each(2), trunk: 0, ..base.clone() },
        Plan { dim: 6, heads: 3, hidden: 5, branches: each(1), ..base },
    ];
    // 150 views are several chunks in more than one group.
    for (plan, views) in plans.into_iter().zip([1, 3, 150]) {
        let mut inputs = vec![wave(&[views, plan.classes + plan.patches, plan.dim], 0.77, 1.0)];
        for b in 0..plan.blocks() {
            let step = 1.3 + 0.1 * b as f64;
            inputs.extend(
                BlockShape::parameters(plan.dim, plan.hidden).map(|(_, shape)| wave(&shape, step, 0.6)),
            );
        }
        let pools = Pools::default();
        let drops = StackDrops { key: Key::root(1), first: 2, path: 0.3, dropout: 0.2 };
        let drops = (views > 1).then_some(drops);
        cases.push(Case::new("StackOp", inputs, move |t| {
            let blocks: Vec<Vec<Tensor>> = t[1..].chunks(BLOCK_PARAMETERS).map(<[Tensor]>::to_vec).collect();
            stack::run(&plan, &pools, &t[0], &blocks, drops.as_ref(), true, Precision::F32)
        }));
    }
}

fn convolutions(cases: &mut Vec<Case>) {
    let shapes = [
        (Conv::default(), [1, 2, 3, 4], [3, 2, 1, 1]),
        (Conv { stride: [2, 1], padding: [1, 0], groups: 2 }, [3, 4, 5, 4], [6, 2, 3, 2]),
    ];
    for (conv, x, weight) in shapes {
        let inputs = vec![wave(&x, 0.7, 1.0), wave(&weight, 1.1, 1.0)];
        cases.push(Case::new("ConvOp", inputs, move |t| conv.forward(&t[0], &t[1])));
    }
    for views in [1, 3] {
        let x = || wave(&[views, 2, 3, 2], 0.7, 1.0);
        cases.push(Case::new("Channelwise", vec![x(), wave(&[views, 2], 1.1, 1.0)], |t| scale(&t[0], &t[1])));
        cases.push(Case::new("Channelwise", vec![x(), wave(&[2], 1.1, 1.0)], |t| shift(&t[0], &t[1])));
        cases.push(Case::new("ScaledGelu", vec![x()], |t| scaled_gelu(&t[0], 1.7)));
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    stacks(&mut cases);
    for (views, frames, mels, patch_frames, dim, classes) in [(1, 4, 3, 1, 2, 1), (20, 9, 3, 2, 4, 2)] {
        let shape = TokenShape { frames, mels, patch_frames, dim, classes };
        let per_view = 2;
        let kept = Kept {
            per_view,
            patches: Arc::new((0..(views * per_view) as u32).map(|i| (i * 7 + i / 3) % 4).collect()),
        };
        for kept in [None, Some(kept)] {
            let inputs = shape.parameters().iter().map(|(_, s)| wave(s, 1.3, 0.7)).collect();
            let normaliser = Normaliser { mean: vec![-0.5, 0.0, 0.5], deviation: vec![0.5, 1.0, 2.0] };
            cases.push(Case::new("TokensOp", inputs, move |t| {
                // Features get no gradient, but may lie anyhow too.
                let features = wave(&[mels, views, frames], 0.71, 1.0).permute((1, 2, 0))?;
                tokens(shape, Precision::F32, &normaliser, kept.as_ref(), t, &features)
            }));
        }
    }
    // 70 views are two blocks of anchors.
    for (views, dim) in [(4, 3), (7, 5), (70, 2)] {
        let groups: Vec<i64> = (0..views as i64).map(|i| i / 3).collect();
        cases.push(Case::new("LossOp", vec![wave(&[views, dim], 0.7, 1.0)], move |t| {
            contrastive(&t[0], &groups, 0.3).map_err(|e| candle_core::Error::Msg(e.to_string()))
        }));
    }
    for excluding in [false, true] {
        let inputs = vec![wave(&[7, 5], 0.7, 1.0), wave(&[1], 1.1, 1.0)];
        cases.push(Case::new("LossOp", inputs, move |t| {
            let groups = [0, 0, 0, 1, 1, 2, 2];
            let temperature = Temperature::Learned(&t[1]);
            let loss = match excluding {
                true => excluding_positives(&t[0], &groups, temperature),
                false => contrastive(&t[0], &groups, temperature),
            };
            loss.map_err(|e| candle_core::Error::Msg(e.to_string()))
        }));
    }
    // The loss of a GPU is in single precision; its operation only hands on a value and gradients.
    cases.push(Case::new("Known", vec![wave(&[4, 3], 0.7, 1.0), wave(&[1], 1.1, 1.0)], |t| {
        let (a, b) = (t[0].detach(), t[1].detach());
        let value = (a.sqr()?.sum_all()? + b.sqr()?.sum_all()?)?;
        t[0].apply_op2(&t[1], Known { value, gradients: ((a * 2.0)?, Some((b * 2.0)?)) })
    }));
    convolutions(&mut cases);
    for shape in [&[1usize, 4][..], &[3, 4], &[2, 3, 4]] {
        let inputs = vec![wave(shape, 0.7, 1.0), wave(&[5, 4], 1.1, 1.0), wave(&[5], 0.3, 1.0)];
        cases.push(Case::new("linear", inputs, |t| linear(&t[0], &t[1], Some(&t[2]))));
        let inputs = vec![wave(shape, 0.7, 2.0), wave(&[4], 1.1, 1.0), wave(&[4], 0.3, 1.0)];
        cases.push(Case::new("layer_norm", inputs, |t| layer_norm(&t[0], &t[1], &t[2])));
        cases.push(Case::new("gelu", vec![wave(shape, 0.7, 3.0)], |t| gelu(&t[0])));
    }
    for (views, queries, tokens, dim, heads) in [(1, 1, 5, 6, 3), (3, 4, 4, 4, 2)] {
        let inputs = vec![wave(&[views, queries, dim], 0.7, 1.5), wave(&[views, tokens, 2 * dim], 1.1, 1.5)];
        cases.push(Case::new("attention", inputs, move |t| attention(&t[0], &t[1], heads)));
    }
    cases
}

/// The result as one number, in which no two elements count alike.
fn scalar(y: &Tensor) -> Result<Tensor> {
    (y * wave(y.dims(), 1.9, 1.0))?.sum_all()
}

/// A tensor in another order of memory, and the way back to it without a copy.
fn laid_out(t: &Tensor) -> Tensor {
    match t.rank() {
        1 => Tensor::stack(&[t, t], 1).unwrap(),
        _ => t.transpose(0, 1).unwrap().contiguous().unwrap(),
    }
}

fn view(t: &Tensor, rank: usize) -> Result<Tensor> {
    match rank {
        1 => t.narrow(1, 1, 1)?.squeeze(1),
        _ => t.transpose(0, 1),
    }
}

#[test]
fn gradients_match_differences_in_any_layout() {
    for Case { operation, inputs, run } in cases() {
        if let Some(fault) = mismatch(&inputs, 0..inputs.len(), |t| scalar(&run(t)?)) {
            panic!("{operation}: {fault}");
        }
        let laid: Vec<Tensor> = inputs.iter().map(laid_out).collect();
        let strided = mismatch(&laid, 0..laid.len(), |t| {
            let views = t.iter().zip(&inputs).map(|(t, input)| view(t, input.rank()));
            scalar(&run(&views.collect::<Result<Vec<_>>>()?)?)
        });
        if let Some(fault) = strided {
            panic!("{operation}, strided: {fault}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The gradient of one operand is a hundredth too large.
    Scaled,
    /// It is zero.
    Dropped,
    /// It is transposed, or reversed where that changes nothing.
    Turned,
}

impl Fault {
    fn apply(self, grad: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(grad.clone()),
            Self::Scaled => grad * 1.01,
            Self::Dropped => grad.zeros_like(),
            Self::Turned => match grad.dims() {
                [first, .., last] if *first > 1 && *last > 1 => {
                    grad.transpose(0, grad.rank() - 1)?.contiguous()?.reshape(grad.shape())
                }
                _ => grad.flatten_all()?.flip(&[0])?.reshape(grad.shape()),
            },
        }
    }
}

/// An operation whose way back is broken for the operand `which`. Its input is all operands, flat.
struct Broken {
    run: Function,
    shapes: Vec<Shape>,
    which: usize,
    fault: Fault,
    /// The operands of the forward pass and its result.
    graph: Mutex<Option<(Tensor, Tensor)>>,
}

impl CustomOp1 for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (from, to) = layout.contiguous_offsets().unwrap();
        let flat = storage.as_slice::<f64>()?[from..to].to_vec();
        let n = flat.len();
        let flat = candle_core::Var::from_tensor(&Tensor::from_vec(flat, n, &candle_core::Device::Cpu)?)?;
        let mut at = 0;
        let operands = self.shapes.iter().map(|shape| {
            at += shape.elem_count();
            flat.narrow(0, at - shape.elem_count(), shape.elem_count())?.reshape(shape)
        });
        let y = (self.run)(&operands.collect::<Result<Vec<_>>>()?)?;
        let out = CpuStorage::F64(y.flatten_all()?.to_vec1()?);
        let shape = y.shape().clone();
        *self.graph.lock().unwrap() = Some((flat.as_tensor().clone(), y));
        Ok((out, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, d: &Tensor) -> Result<Option<Tensor>> {
        let (flat, y) = self.graph.lock().unwrap().take().unwrap();
        let grads = (y * d)?.sum_all()?.backward()?;
        let grad = grads.get(&flat).unwrap();
        let mut at = 0;
        let parts = self.shapes.iter().enumerate().map(|(i, shape)| {
            at += shape.elem_count();
            let part = grad.narrow(0, at - shape.elem_count(), shape.elem_count())?.reshape(shape)?;
            let fault = if i == self.which { self.fault } else { Fault::None };
            fault.apply(&part)?.flatten_all()
        });
        Ok(Some(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?))
    }
}

#[test]
fn a_broken_gradient_is_caught() {
    let mut tried = 0;
    for Case { operation, inputs, run } in cases() {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape().clone()).collect();
        let found = |which: usize, fault: Fault| {
            mismatch(&inputs, which..which + 1, |t| {
                let flat = t.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
                let broken = Broken {
                    run: run.clone(),
                    shapes: shapes.clone(),
                    which,
                    fault,
                    graph: Mutex::default(),
                };
                scalar(&Tensor::cat(&flat, 0)?.apply_op1(broken)?)
            })
        };
        assert_eq!(found(0, Fault::None), None, "{operation} as it is");
        for (which, input) in inputs.iter().enumerate() {
            for fault in [Fault::Scaled, Fault::Dropped, Fault::Turned] {
                // One number cannot be turned.
                if fault == Fault::Turned && input.elem_count() == 1 {
                    continue;
                }
                let message = found(which, fault);
                assert!(
                    message.is_some_and(|m| m.starts_with(&format!("input {which}["))),
                    "{operation}: operand {which} {fault:?} is not found"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried} faults");
}

/// Operations of a GPU, whose gradients `gpu::check` compares with those of double precision.
const ON_GPU: [&str; 2] = ["StackOnGpu", "TokensOnGpu"];

/// A new operation with a gradient needs a line in [`cases`].
#[test]
fn no_custom_operation_is_left_out() {
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("gradients.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().filter(|line| line.starts_with("impl"));
                let names = lines.filter_map(|line| {
                    let (before, after) = line.split_once(" for ")?;
                    let own = before.contains(" CustomOp");
                    own.then(|| after.split(['<', ' ']).next().unwrap().to_owned())
                });
                found.extend(names);
            }
        }
    }
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // An operation of a GPU has the name of that of the CPU, and is checked against it elsewhere.
    found.sort();
    let (on_gpu, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|name| ON_GPU.contains(&name.as_str()));
    assert_eq!(on_gpu, ON_GPU);
    let mut listed: Vec<&str> = cases().iter().map(|case| case.operation).collect();
    listed.sort_unstable();
    listed.dedup();
    let custom: Vec<&str> = listed.iter().copied().filter(|name| !LAYERS.contains(name)).collect();
    assert_eq!(found, custom);
    assert_eq!(listed.len(), custom.len() + LAYERS.len());
}
