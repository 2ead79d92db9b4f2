//! Speed of the pieces of a training step, on the sizes of the default encoder.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use divan::{Bencher, black_box, counter::ItemsCount};
use loev_models::{
    kernels::{
        block::{self, BlockShape, BlockState, Scratch},
        mat::{View, product},
        rows,
    },
    layers::init::Init,
    loss::contrastive,
    optim::{AdamW, AdamWConfig},
    params::{Params, Spec},
};
use loev_ops::rng::Key;

fn main() {
    divan::main();
}

/// Parameters of a network of width 384, about the size of 14 of its blocks, and a gradient of each.
fn parameters() -> (Params, GradStore) {
    let specs = (0..28).flat_map(|i| {
        let spec = |part: &str, shape: Vec<usize>| Spec {
            name: format!("{i}.{part}"),
            shape,
            init: Init::Normal(0.1),
            decay: true,
        };
        [spec("weight", vec![1536, 384]), spec("bias", vec![1536])]
    });
    let params = Params::new(specs, Key::root(1), &Device::Cpu, DType::F32).unwrap();
    let squares = params.iter().map(|(_, p)| p.var.sqr().unwrap().sum_all().unwrap());
    let loss = squares.reduce(|a, b| (a + b).unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    (params, grads)
}

#[divan::bench]
fn adamw(bencher: Bencher) {
    let (params, grads) = parameters();
    let mut adam = AdamW::new(AdamWConfig::default(), &params).unwrap();
    bencher
        .counter(ItemsCount::new(params.count()))
        .bench_local(|| adam.step(&params, &grads, 1e-4, 0.5).unwrap());
}

/// As many values read and written as AdamW reads and writes, with nothing to work out.
#[divan::bench]
fn memory_of_adamw(bencher: Bencher) {
    let (params, _) = parameters();
    let n = params.count();
    let (mut p, g, mut m, mut v) = (wave(n), wave(n), wave(n), wave(n));
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        for (((p, &g), m), v) in p.iter_mut().zip(&g).zip(&mut m).zip(&mut v) {
            *m += g;
            *v += g;
            *p += g;
        }
        black_box((&mut p, &mut m, &mut v));
    });
}

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7).sin()).collect()
}

const VIEWS: usize = 4;
const ALL: BlockShape = BlockShape { dim: 96, heads: 3, hidden: 384, tokens: 78, queries: 78 };
const LAST: BlockShape = BlockShape { tokens: 76, queries: 1, ..ALL };

#[divan::bench(args = [ALL, LAST])]
fn block_forward(bencher: Bencher, shape: &BlockShape) {
    let (x, packed) = (wave(VIEWS * shape.tokens * shape.dim), wave(shape.packed()));
    let (mut state, mut scratch) = (BlockState::default(), Scratch::default());
    bencher
        .counter(ItemsCount::new(VIEWS))
        .bench_local(|| block::forward(shape, &packed, black_box(&x), None, &mut state, &mut scratch));
}

#[divan::bench(args = [ALL, LAST])]
fn block_backward(bencher: Bencher, shape: &BlockShape) {
    let (x, packed) = (wave(VIEWS * shape.tokens * shape.dim), wave(shape.packed()));
    let (mut state, mut scratch) = (BlockState::default(), Scratch::default());
    block::forward(shape, &packed, &x, None, &mut state, &mut scratch);
    let (d_out, mut d_x, mut d_packed) = (state.out.clone(), x.clone(), packed.clone());
    bencher.counter(ItemsCount::new(VIEWS)).bench_local(|| {
        block::backward(
            shape,
            &packed,
            &mut d_packed,
            &x,
            None,
            &state,
            black_box(&d_out),
            &mut d_x,
            &mut scratch,
        );
    });
}

/// Product, norm, GELU and soft-max over one chunk: where a block's time goes.
#[divan::bench]
fn up_product(bencher: Bencher) {
    let (x, w, mut out) = (wave(312 * 96), wave(384 * 96), wave(312 * 384));
    bencher.bench_local(|| {
        let (a, b) = (View::rows(black_box(&x), 96), View::transposed(&w, 96));
        product([312, 384, 96], &mut out, 384, true, a, b);
    });
}

#[divan::bench]
fn norm(bencher: Bencher) {
    let (x, w, mut out, mut moments) = (wave(312 * 96), wave(96), wave(312 * 96), vec![[0.0; 2]; 312]);
    bencher.bench_local(|| rows::norm(&mut out, &mut moments, black_box(&x), &w, &w));
}

#[divan::bench]
fn gelu(bencher: Bencher) {
    let (x, mut out) = (wave(312 * 384), wave(312 * 384));
    bencher.bench_local(|| rows::gelu(&mut out, black_box(&x)));
}

#[divan::bench]
fn gelu_back(bencher: Bencher) {
    let (x, mut d, mut out) = (wave(312 * 384), wave(312 * 384), wave(312 * 384));
    bencher.bench_local(|| rows::gelu_back(&mut d, &mut out, black_box(&x)));
}

#[divan::bench]
fn softmax(bencher: Bencher) {
    let x = wave(VIEWS * 3 * 78 * 78);
    bencher.with_inputs(|| x.clone()).bench_local_refs(|x| rows::softmax(x, 78, 0.17));
}

#[divan::bench(args = [64, 256, 1024])]
fn loss_and_gradient(bencher: Bencher, views: usize) {
    let z = Tensor::from_vec(wave(views * 64), (views, 64), &Device::Cpu).unwrap();
    let z = Var::from_tensor(&z.to_dtype(DType::F32).unwrap()).unwrap();
    let groups: Vec<i64> = (0..views as i64).map(|i| i / 4).collect();
    bencher
        .counter(ItemsCount::new(views))
        .bench_local(|| contrastive(&z, &groups, 0.1).unwrap().backward().unwrap());
}
