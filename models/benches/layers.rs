//! Speed of the pieces of a training step, on the sizes of the default encoder.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var};
use divan::{Bencher, black_box, counter::ItemsCount};
use loev_models::{
    kernels::{
        block::{self, BlockShape, BlockState, Scratch},
        mat::{View, product},
        rows,
    },
    loss::contrastive,
};

fn main() {
    divan::main();
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
