//! Our layers against PyTorch in double precision. `vectors/make.py` writes the files and says what is in
//! them; every gradient is compared, in `f64` and in `f32`, of the kernels and of the composed layers.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var, safetensors};
use loev_models::{
    ModelError,
    encoder::{
        stack::{self, Branch, Plan, Pools},
        tokens::{Kept, Normaliser, TokenShape, tokens},
    },
    gpu::Precision,
    kernels::{
        Real,
        block::{self, BlockShape, BlockState, Scratch},
        rows,
    },
    layers,
    layers::init::Init,
    loss::contrastive,
    optim::{AdamW, AdamWConfig, norm},
    params::{Params, Spec},
};
use loev_ops::rng::Key;
use std::{collections::HashMap, path::Path, sync::Arc};

struct Vectors(HashMap<String, Tensor>);

impl Vectors {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        Self(safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu).unwrap())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn values<T: Real>(&self, name: &str) -> Vec<T> {
        values(&self.get(name).to_dtype(T::DTYPE).unwrap())
    }

    /// Runs candle operations on the inputs of these names; compares the result and all their gradients.
    fn check(&self, inputs: &[&str], f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>) {
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-5)] {
            let vars: Vec<Var> = inputs
                .iter()
                .map(|name| Var::from_tensor(&self.get(name).to_dtype(dtype).unwrap()).unwrap())
                .collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(&tensors).unwrap();
            close(&values(&y), &self.values("y"), tolerance, "y");
            let d_y = self.get("d_y").to_dtype(dtype).unwrap();
            let grads = (y * d_y).unwrap().sum_all().unwrap().backward().unwrap();
            for (name, var) in inputs.iter().zip(&vars) {
                let got = values(grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient")));
                close(&got, &self.values(&format!("grad.{name}")), tolerance, name);
            }
        }
    }
}

fn values<T: Real>(t: &Tensor) -> Vec<T> {
    t.to_dtype(T::DTYPE).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Whether the greatest difference is within `tolerance` of the greatest value.
fn close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    let error = got.iter().zip(want).fold(0.0f64, |top, (a, b)| top.max((a - b).abs()));
    assert!(size > 0.0 && error <= tolerance * size, "{what}: off by {error:e} of {size}");
}

fn tolerance<T: Real>() -> f64 {
    if T::DTYPE == DType::F64 { 1e-9 } else { 2e-5 }
}

fn near<T: Real>(got: &[T], want: &[T], what: &str) {
    let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
    close(&wide(got), &wide(want), tolerance::<T>(), what);
}

#[test]
fn composed_layers() {
    Vectors::read("linear")
        .check(&["x", "weight", "bias"], |t| layers::linear::linear(&t[0], &t[1], Some(&t[2])));
    Vectors::read("norm").check(&["x", "weight", "bias"], |t| layers::norm::layer_norm(&t[0], &t[1], &t[2]));
    Vectors::read("gelu").check(&["x"], |t| layers::activation::gelu(&t[0]));
    Vectors::read("attention")
        .check(&["query", "key_value"], |t| layers::attention::attention(&t[0], &t[1], 3));
}

fn rows_of_kernels<T: Real>() {
    let v = Vectors::read("norm");
    let [x, weight, bias] = ["x", "weight", "bias"].map(|name| v.values::<T>(name));
    let (mut y, mut moments) = (x.clone(), vec![[T::ZERO; 2]; x.len() / weight.len()]);
    rows::norm(&mut y, &mut moments, &x, &weight, &bias);
    near(&y, &v.values("y"), "norm");
    let (mut d, mut d_weight, mut d_bias) =
        (v.values("d_y"), vec![T::ZERO; weight.len()], vec![T::ZERO; bias.len()]);
    rows::norm_back(&mut d, &x, &moments, &weight, &mut d_weight, &mut d_bias);
    near(&d, &v.values("grad.x"), "norm, x");
    near(&d_weight, &v.values("grad.weight"), "norm, weight");
    near(&d_bias, &v.values("grad.bias"), "norm, bias");

    let v = Vectors::read("gelu");
    let (x, mut d) = (v.values::<T>("x"), v.values("d_y"));
    let mut y = x.clone();
    rows::gelu(&mut y, &x);
    near(&y, &v.values("y"), "gelu");
    rows::gelu_back(&mut d, &mut y, &x);
    near(&y, &v.values("y"), "gelu again");
    near(&d, &v.values("grad.x"), "gelu, x");
}

#[test]
fn rows_of_kernels_in_both_precisions() {
    rows_of_kernels::<f64>();
    rows_of_kernels::<f32>();
}

const BLOCKS: [(&str, BlockShape); 2] = [
    ("block", BlockShape { dim: 6, heads: 2, hidden: 10, tokens: 5, queries: 5 }),
    ("block_queries", BlockShape { dim: 8, heads: 4, hidden: 6, tokens: 4, queries: 1 }),
];

fn block_of_kernels<T: Real + Default>() {
    for (file, shape) in BLOCKS {
        let v = Vectors::read(file);
        let names = BlockShape::parameters(shape.dim, shape.hidden).map(|(name, _)| name);
        let packed: Vec<T> = names.iter().flat_map(|name| v.values(name)).collect();
        let (x, d_y) = (v.values::<T>("x"), v.values::<T>("d_y"));
        let (mut state, mut scratch) = (BlockState::default(), Scratch::default());
        block::forward(&shape, &packed, &x, None, &mut state, &mut scratch);
        near(&state.out, &v.values("y"), file);
        let (mut d_packed, mut d_x) = (vec![T::ZERO; packed.len()], x.clone());
        block::backward(&shape, &packed, &mut d_packed, &x, None, &state, &d_y, &mut d_x, &mut scratch);
        near(&d_x, &v.values("grad.x"), "x");
        let mut rest = d_packed.as_slice();
        for name in names {
            let want: Vec<T> = v.values(&format!("grad.{name}"));
            let (got, after) = rest.split_at(want.len());
            near(got, &want, name);
            rest = after;
        }
    }
}

#[test]
fn whole_blocks() {
    block_of_kernels::<f64>();
    block_of_kernels::<f32>();
    for (file, shape) in BLOCKS {
        let names = BlockShape::parameters(shape.dim, shape.hidden).map(|(name, _)| name);
        let inputs: Vec<&str> = std::iter::once("x").chain(names).collect();
        let v = Vectors::read(file);
        v.check(&inputs, |t| layers::block::block(&shape, &t[1..], &t[0], None));
        // The custom operation, of which a block with few queries is the last.
        let classes = shape.queries;
        let BlockShape { dim, heads, hidden, tokens, .. } = shape;
        if classes < tokens {
            let branches = vec![Branch { classes: 0..classes, depth: 1 }];
            let patches = tokens - classes;
            let plan = Plan { dim, heads, hidden, classes, patches, trunk: 0, branches };
            v.check(&inputs, |t| {
                stack::run(&plan, &Pools::default(), &t[0], &[t[1..].to_vec()], None, true, Precision::F32)
            });
        }
    }
}

#[test]
fn patch_embedding() {
    let kept = Kept { per_view: 2, patches: Arc::new(vec![0, 2, 1, 3, 0, 3]) };
    for (file, kept) in [("tokens", None), ("tokens_kept", Some(kept))] {
        let v = Vectors::read(file);
        let normaliser = Normaliser { mean: v.values("mean"), deviation: v.values("deviation") };
        let shape = TokenShape { frames: 9, mels: 4, patch_frames: 2, dim: 5, classes: 2 };
        v.check(&["weight", "bias", "position", "classes"], |t| {
            let features = v.get("features").to_dtype(t[0].dtype())?;
            tokens(shape, Precision::F32, &normaliser, kept.as_ref(), t, &features)
        });
    }
}

#[test]
fn contrastive_loss() {
    let cases = [
        ([0, 0, 1, 1, 2, 2, 2, 3], 0.1),
        ([5, 5, 5, 5, -1, -1, -1, -1], 0.5),
        ([0, 1, 0, 2, 3, 3, 4, 5], 1.0),
    ];
    for (i, (groups, temperature)) in cases.into_iter().enumerate() {
        Vectors::read(&format!("contrastive{i}")).check(&["z"], |t| {
            contrastive(&t[0], &groups, temperature).map_err(|error| match error {
                ModelError::Tensor(error) => error,
                other => candle_core::Error::Msg(other.to_string()),
            })
        });
    }
}

#[test]
fn ten_steps_of_adamw() {
    let v = Vectors::read("adamw");
    let spec = |name: &str, decay| Spec {
        name: name.to_owned(),
        shape: v.get(name).dims().to_vec(),
        init: Init::Zeros,
        decay,
    };
    let specs = [spec("a", true), spec("b", false)];
    let params = Params::new(specs, Key::root(0), &Device::Cpu, DType::F32).unwrap();
    let single = |name: &str| v.get(name).to_dtype(DType::F32).unwrap();
    for (name, p) in params.iter() {
        p.var.set(&single(name)).unwrap();
    }
    let mut adam = AdamW::new(AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() }, &params).unwrap();
    for step in 1..=10 {
        let total = params
            .iter()
            .map(|(name, p)| (p.var.as_tensor() * single(&format!("step{step}.grad.{name}"))).unwrap())
            .map(|t| t.sum_all().unwrap())
            .reduce(|a, b| (a + b).unwrap())
            .unwrap();
        let grads = total.backward().unwrap();
        let square: f64 = params.iter().map(|(_, p)| norm(grads.get(&p.var).unwrap()).unwrap().powi(2)).sum();
        adam.step(&params, &grads, 0.01 / f64::from(step), square.sqrt().recip().min(1.0)).unwrap();
        for (name, p) in params.iter() {
            let want = v.values::<f64>(&format!("step{step}.{name}"));
            close(&values(&p.var), &want, 1e-6, &format!("{name} after step {step}"));
        }
    }
}
