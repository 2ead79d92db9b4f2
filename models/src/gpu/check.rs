//! Every kernel, the block and the stack of blocks on a device beside the double precision of the CPU.
//!
//! On a GPU this says whether it computes what it should; tests run the same on the mirror.

use candle_core::{Device, Tensor, Var};
use std::sync::Arc;

use loev_ops::{
    gpu::{Buffer, GpuError},
    rng::Key,
};

use super::{
    Engine, Matrix, Precision,
    attention::Operands,
    block::Weights,
    place,
    product::View,
    rows::{Affine, NormBack, Rows, Sums},
    stack::Input,
    tokens::{TokensInput, places},
};
use crate::{
    Result,
    encoder::{
        rhythm::Rhythm,
        stack::{self, Branch, Plan, Pools, StackDrops},
        tokens::{Kept, Normaliser, TokenShape, tokens as encoder_tokens},
    },
    kernels::{
        block::{self, BLOCK_PARAMETERS, BlockShape},
        drop::{Drops, Residual},
        mat, rows,
    },
};

/// How far a device's result is from that of double precision.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRow {
    /// What was computed.
    pub name: String,
    /// The root of the squared differences' sum over that of the squared values, the greatest over all results.
    pub error: f64,
    /// What it may be.
    pub tolerance: f64,
}

impl CheckRow {
    /// Whether the result is as it should be.
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// `n` normal numbers of deviation `size`, others for every `seed`.
fn noise(n: usize, seed: u64, size: f64) -> Vec<f64> {
    let mut rng = Key::root(seed).rng();
    (0..n).map(|_| rng.normal() * size).collect()
}

/// The relative distance of `got` from `want`.
pub(super) fn distance(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = sum(&mut got.iter().zip(want).map(|(a, b)| a - b));
    let size = sum(&mut want.iter().copied());
    // What is zero, as gradients of what was dropped are, has to be it.
    if apart == 0.0 { 0.0 } else { apart / size }
}

fn bits(x: f64) -> u16 {
    let bits = (x as f32).to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

fn of_bits(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

impl Precision {
    /// The values that there are in this precision.
    fn rounded(self, values: Vec<f64>) -> Vec<f64> {
        let round = |x: f64| match self {
            Self::F32 => f64::from(x as f32),
            Self::Bf16 => of_bits(bits(x)),
        };
        values.into_iter().map(round).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// `single`, or `narrow`.
    fn tolerance(self, single: f64, narrow: f64) -> f64 {
        if self == Self::F32 { single } else { narrow }
    }
}

impl Engine {
    fn put(&self, precision: Precision, values: &[f64]) -> Result<Matrix, GpuError> {
        let bytes: Vec<u8> = match precision {
            Precision::F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            Precision::Bf16 => values.iter().flat_map(|&x| bits(x).to_le_bytes()).collect(),
        };
        Ok(Matrix { memory: self.gpu.upload(&bytes)?, precision })
    }

    fn put_floats(&self, values: &[f64]) -> Result<Buffer<f32>, GpuError> {
        self.gpu.upload(&values.iter().map(|&x| x as f32).collect::<Vec<_>>())
    }

    fn get(&self, matrix: &Matrix) -> Result<Vec<f64>, GpuError> {
        let bytes = self.gpu.download(&matrix.memory)?;
        Ok(match matrix.precision {
            Precision::F32 => bytes
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
            Precision::Bf16 => {
                bytes.chunks_exact(2).map(|b| of_bits(u16::from_le_bytes([b[0], b[1]]))).collect()
            }
        })
    }

    fn get_floats(&self, buffer: &Buffer<f32>) -> Result<Vec<f64>, GpuError> {
        Ok(self.gpu.download(buffer)?.into_iter().map(f64::from).collect())
    }
}

/// Rows of the table, as they come.
struct Table {
    rows: Vec<CheckRow>,
}

impl Table {
    /// Takes down how far each of `pairs` is from what it should be.
    fn add(&mut self, name: String, precision: Precision, tolerance: (f64, f64), pairs: &[(&[f64], &[f64])]) {
        let worst = pairs.iter().map(|(got, want)| distance(got, want));
        // A NaN is the worst there is.
        let error = worst.fold(0.0, |worst: f64, x| if x.is_nan() || x > worst { x } else { worst });
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let (name, tolerance) =
            (format!("{name}, {}", precision.name()), precision.tolerance(tolerance.0, tolerance.1));
        self.rows.push(CheckRow { name, error, tolerance });
    }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Compares everything; takes seconds.
///
/// # Errors
/// What the device fails with. Results that are wrong are rows that do not pass.
pub fn check(engine: &Engine) -> Result<Vec<CheckRow>> {
    let mut table = Table { rows: Vec::new() };
    for precision in PRECISIONS {
        products(engine, precision, &mut table)?;
        norms(engine, precision, &mut table)?;
        activations(engine, precision, &mut table)?;
        residuals(engine, precision, &mut table)?;
        attention(engine, precision, &mut table)?;
        tokens(engine, precision, &mut table)?;
        blocks(engine, precision, &mut table)?;
        stacks(engine, precision, &mut table)?;
    }
    onsets(engine, &mut table)?;
    Ok(table.rows)
}

fn products(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    let (batch, m, n, k) = (2, 24, 40, 72);
    let a = precision.rounded(noise(batch * m * k, 1, 1.0));
    let b = precision.rounded(noise(batch * k * n, 2, 1.0));
    let (on_a, on_b) = (engine.put(precision, &a)?, engine.put(precision, &b)?);
    for (turn_a, turn_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let view = |address, turned, [rows, columns]: [usize; 2]| {
            let view = if turned { View::transposed(address, rows) } else { View::rows(address, columns) };
            view.apart(rows * columns)
        };
        let mut want = vec![0.0; batch * m * n];
        for (i, want) in want.chunks_exact_mut(m * n).enumerate() {
            let host = |values: &'_ [f64], turned, [rows, columns]: [usize; 2]| {
                let values = &values[i * rows * columns..][..rows * columns];
                (0..rows * columns)
                    .map(|j| {
                        let (row, column) = (j / columns, j % columns);
                        values[if turned { column * rows + row } else { j }]
                    })
                    .collect::<Vec<f64>>()
            };
            let (a, b) = (host(&a, turn_a, [m, k]), host(&b, turn_b, [k, n]));
            mat::product([m, n, k], want, n, false, mat::View::rows(&a, k), mat::View::rows(&b, n));
        }
        let out = engine.matrix(Precision::F32, batch * m * n)?;
        let to = (View::rows(out.address(), n).apart(m * n), Precision::F32);
        let (a, b) = (view(on_a.address(), turn_a, [m, k]), view(on_b.address(), turn_b, [k, n]));
        engine.products(batch, [m, n, k], precision, to, a, b)?;
        let turned = |turned| if turned { "^T" } else { "" };
        let name = format!("product a{} b{}", turned(turn_a), turned(turn_b));
        table.add(name, precision, (1e-5, 1e-5), &[(&engine.get(&out)?, &want)]);
    }
    Ok(())
}

/// `(views, tokens, queries, dim)` of rows.
const ROWS: [(usize, usize, usize, usize); 3] = [(5, 7, 7, 48), (9, 5, 2, 36), (3, 4, 4, 37)];

fn row_shape((views, tokens, queries, dim): (usize, usize, usize, usize)) -> Rows {
    Rows { views, tokens, queries, dim, wide: dim.is_multiple_of(4) }
}

/// The first `queries` rows of each view.
fn first_rows(rows: Rows, x: &[f64]) -> Vec<f64> {
    x.chunks_exact(rows.tokens * rows.dim)
        .flat_map(|view| &view[..rows.queries * rows.dim])
        .copied()
        .collect()
}

fn norms(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    for rows in ROWS.map(row_shape) {
        let (dim, all) = (rows.dim, rows.all());
        let x = Precision::F32.rounded(noise(all * dim, 1, 2.0));
        let [weight, bias] =
            [(11, 1.0), (6, 0.5)].map(|(seed, size)| Precision::F32.rounded(noise(dim, seed, size)));
        let (mut want, mut moments) = (vec![0.0; all * dim], vec![[0.0; 2]; all]);
        rows::norm(&mut want, &mut moments, &x, &weight, &bias);
        let [on_x, on_weight, on_bias] = [&x, &weight, &bias].map(|values| engine.put_floats(values));
        let (on_x, on_weight, on_bias) = (on_x?, on_weight?, on_bias?);
        let norm = Affine { weight: on_weight.address(), bias: on_bias.address() };
        let (out, asked, on_moments) = engine.norm(precision, rows, on_x.address(), norm)?;
        let (out, asked) = (engine.get(&out)?, asked.map(|asked| engine.get(&asked)).transpose()?);
        let want_asked = first_rows(rows, &want);
        let name = format!("norm, {all} x {dim}");
        let asked = asked.as_deref().unwrap_or(&want_asked);
        table.add(name, precision, (2e-6, 4e-3), &[(&out, &want), (asked, &want_asked)]);

        let d = precision.rounded(noise(all * dim, 3, 1.0));
        let d_asked = precision.rounded(noise(rows.asking() * dim, 4, 1.0));
        let d_beside = Precision::F32.rounded(noise(rows.asking() * dim, 5, 1.0));
        let mut d_x = d.clone();
        let per_view = rows.queries * dim;
        let views = |d: &mut [f64], more: &[f64]| {
            for (d, more) in d.chunks_exact_mut(rows.tokens * dim).zip(more.chunks_exact(per_view)) {
                rows::add(&mut d[..per_view], more);
            }
        };
        views(&mut d_x, &d_asked);
        let (mut d_weight, mut d_bias) = (vec![0.0; dim], vec![0.0; dim]);
        rows::norm_back(&mut d_x, &x, &moments, &weight, &mut d_weight, &mut d_bias);
        views(&mut d_x, &d_beside);
        let drops = Drops { key: Key::root(9), first: 3, path: 0.3, dropout: 0.2 };
        let adds = rows.queries == rows.tokens;
        let mut added = d_x.clone();
        drops.apply(Residual::Attention, &mut added, per_view);
        let mut d_before = vec![0.0; dim];
        rows::add_column_sums(&mut d_before, &added, dim);

        let (on_d, on_d_asked) = (engine.put(precision, &d)?, engine.put(precision, &d_asked)?);
        let on_d_beside = engine.put_floats(&d_beside)?;
        let back = NormBack {
            x: on_x.address(),
            moments: &on_moments,
            norm,
            d: &on_d,
            d_asked: Some(&on_d_asked),
            d_beside: on_d_beside.address(),
        };
        let sums_of = engine.floats(3 * dim)?;
        let to = [0, 1, 2].map(|i| place(sums_of.address(), i * dim));
        let mut sums = Sums::default();
        let dropped = adds.then_some((Some(&drops), Residual::Attention));
        let made = engine.norm_back(rows, &back, dropped, &mut sums, &to[..if adds { 3 } else { 2 }])?;
        engine.finish(sums)?;
        let (got_d_x, got_sums) = (engine.get_floats(&made.d_x)?, engine.get_floats(&sums_of)?);
        let mut pairs = vec![
            (&got_d_x[..], &d_x[..]),
            (&got_sums[..dim], &d_weight[..]),
            (&got_sums[dim..2 * dim], &d_bias[..]),
        ];
        if adds {
            pairs.push((&got_sums[2 * dim..], &d_before));
        }
        table.add(format!("norm back, {all} x {dim}"), precision, (1e-5, 1e-5), &pairs);
        let [normed, asked, got_added] = [Some(&made.normed), made.asked.as_ref(), made.added.as_ref()]
            .map(|matrix| matrix.map(|matrix| engine.get(matrix)).transpose());
        let (normed, asked, got_added) = (normed?.unwrap_or_default(), asked?, got_added?);
        let mut pairs = vec![(&normed[..], &want[..])];
        pairs.extend(asked.as_deref().map(|asked| (asked, &want_asked[..])));
        pairs.extend(got_added.as_deref().map(|got| (got, &added[..])));
        table.add(format!("norm back, kept, {all} x {dim}"), precision, (1e-5, 4e-3), &pairs);
    }
    Ok(())
}

fn activations(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    for rows in [(23, 5, 5, 136), (7, 3, 3, 29)].map(row_shape) {
        let (dim, all) = (rows.dim, rows.all());
        let up = precision.rounded(noise(all * dim, 1, 3.0));
        let bias = Precision::F32.rounded(noise(dim, 6, 0.5));
        let (mut x, mut want) = (vec![0.0; all * dim], vec![0.0; all * dim]);
        rows::add_row(&mut x, &up, &bias);
        rows::gelu(&mut want, &x);
        let d = precision.rounded(noise(all * dim, 3, 1.0));
        let (mut d_up, mut again) = (d.clone(), vec![0.0; all * dim]);
        rows::gelu_back(&mut d_up, &mut again, &x);
        let mut d_bias = vec![0.0; dim];
        rows::add_column_sums(&mut d_bias, &d_up, dim);

        let (on_up, on_bias) = (engine.put(precision, &up)?, engine.put_floats(&bias)?);
        let active = engine.get(&engine.gelu(rows, &on_up, on_bias.address())?)?;
        table.add(format!("GELU, {all} x {dim}"), precision, (2e-6, 4e-3), &[(&active, &want)]);
        let (mut on_d, sums_of, mut sums) =
            (engine.put(precision, &d)?, engine.floats(dim)?, Sums::default());
        let operand = (on_up, on_bias.address());
        let active = engine.gelu_back(rows, operand, &mut on_d, &mut sums, sums_of.address())?;
        engine.finish(sums)?;
        let (active, got, got_sums) =
            (engine.get(&active)?, engine.get(&on_d)?, engine.get_floats(&sums_of)?);
        let name = format!("GELU back, {all} x {dim}");
        table.add(name, precision, (2e-6, 4e-3), &[(&got, &d_up), (&active, &want)]);
        let name = format!("sums of columns, {all} x {dim}");
        table.add(name, precision, (1e-5, 1e-5), &[(&got_sums, &d_bias)]);
    }
    Ok(())
}

fn residuals(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    let cases = [Some((0.3, 0.2)), Some((0.4, 0.0)), None];
    for (rows, rates) in ROWS.map(row_shape).into_iter().flat_map(|rows| cases.map(|rates| (rows, rates))) {
        let (dim, per_view) = (rows.dim, rows.queries * rows.dim);
        let drops = rates.map(|(path, dropout)| Drops { key: Key::root(2), first: 1 << 33, path, dropout });
        let x = Precision::F32.rounded(noise(rows.all() * dim, 1, 2.0));
        let y = precision.rounded(noise(rows.asking() * dim, 2, 1.0));
        let bias = Precision::F32.rounded(noise(dim, 6, 0.5));
        let mut want = vec![0.0; y.len()];
        rows::add_row(&mut want, &y, &bias);
        if let Some(drops) = &drops {
            drops.apply(Residual::Mlp, &mut want, per_view);
        }
        rows::add(&mut want, &first_rows(rows, &x));
        let (mut normed, mut moments) = (vec![0.0; y.len()], vec![[0.0; 2]; rows.asking()]);
        let ones = vec![1.0; dim];
        rows::norm(&mut normed, &mut moments, &want, &ones, &bias);

        let (on_x, on_y, on_bias) =
            (engine.put_floats(&x)?, engine.put(precision, &y)?, engine.put_floats(&bias)?);
        let on_ones = engine.put_floats(&ones)?;
        let norm = Affine { weight: on_ones.address(), bias: on_bias.address() };
        let operands = (on_x.address(), &on_y, on_bias.address());
        let (out, made) = engine.residual(rows, operands, (drops.as_ref(), Residual::Mlp), Some(norm))?;
        let got = engine.get_floats(&out)?;
        let made = made.map(|(normed, _)| engine.get(&normed)).transpose()?.unwrap_or_default();
        let name = format!("residual, {} x {dim}, drops {rates:?}", rows.asking());
        table.add(name.clone(), precision, (2e-6, 2e-6), &[(&got, &want)]);
        table.add(format!("{name}, its norm"), precision, (1e-5, 4e-3), &[(&made, &normed)]);

        let d = Precision::F32.rounded(noise(y.len(), 7, 1.0));
        let mut want = d.clone();
        if let Some(drops) = &drops {
            drops.apply(Residual::Mlp, &mut want, per_view);
        }
        let (on_d, sums_of, mut sums) = (engine.put_floats(&d)?, engine.floats(dim)?, Sums::default());
        let dropped = (drops.as_ref(), Residual::Mlp);
        let to = sums_of.address();
        let added = engine.drop_back(precision, rows, on_d.address(), dropped, &mut sums, to)?;
        engine.finish(sums)?;
        let mut d_bias = vec![0.0; dim];
        rows::add_column_sums(&mut d_bias, &want, dim);
        let (got, got_sums) = (engine.get(&added)?, engine.get_floats(&sums_of)?);
        let name = format!("residual back, {} x {dim}, drops {rates:?}", rows.asking());
        table.add(name.clone(), precision, (1e-6, 4e-3), &[(&got, &want)]);
        table.add(format!("{name}, its sums"), precision, (1e-5, 1e-5), &[(&got_sums, &d_bias)]);
    }
    Ok(())
}

fn attention(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    // (views, heads, width, tokens, queries)
    let shapes = [
        (2, 2, 16, 21, 21),
        (1, 2, 24, 70, 3),
        (1, 1, 16, 150, 150),
        (1, 1, 64, 33, 33),
        (1, 1, 128, 18, 18),
        (2, 3, 5, 9, 9),
    ];
    for (views, heads, width, tokens, queries) in shapes {
        let shape = BlockShape { dim: heads * width, heads, hidden: 1, tokens, queries };
        let (asking, all) = (views * queries * shape.dim, views * tokens * shape.dim);
        let query = precision.rounded(noise(asking, 1, 1.5));
        let key_value = precision.rounded(noise(2 * all, 2, 1.5));
        let bias = precision.rounded(noise(shape.dim, 6, 0.5));
        // The kernels round what they add the bias to.
        let mut asks = vec![0.0; asking];
        rows::add_row(&mut asks, &query, &bias);
        let asks = precision.rounded(asks);
        let mut probabilities = vec![0.0; views * heads * queries * tokens];
        let mut want = vec![0.0; asking];
        block::attention(&shape, &asks, &key_value, &mut probabilities, &mut want);
        let d = precision.rounded(noise(asking, 8, 1.0));
        let (mut d_query, mut d_key_value) = (vec![0.0; asking], vec![0.0; 2 * all]);
        let mut d_scores = vec![0.0; probabilities.len()];
        let operands = (&asks[..], &key_value[..], &probabilities[..]);
        block::attention_back(&shape, operands, &d, &mut d_query, &mut d_key_value, &mut d_scores);

        let on_bias = engine.put_floats(&bias)?;
        let mut operands = Operands {
            query: engine.put(precision, &query)?,
            bias: on_bias.address(),
            key_value: engine.put(precision, &key_value)?,
        };
        let (mixed, kept) = engine.attention(&shape, views, &mut operands)?;
        let got = engine.get(&mixed)?;
        let name = format!("{heads} heads of {width}, {queries} of {tokens} tokens");
        table.add(format!("attention, {name}"), precision, (1e-5, 8e-3), &[(&got, &want)]);
        let on_d = engine.put(precision, &d)?;
        let (got_query, got_key_value) =
            engine.attention_back(&shape, views, &operands, (&mixed, kept), &on_d)?;
        let (got_query, got_key_value) = (engine.get(&got_query)?, engine.get(&got_key_value)?);
        let pairs = [(&got_query[..], &d_query[..]), (&got_key_value, &d_key_value)];
        table.add(format!("attention back, {name}"), precision, (1e-5, 1e-2), &pairs);
    }
    Ok(())
}

fn tokens(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    let (views, shape) = (21, TokenShape { frames: 13, mels: 5, patch_frames: 3, dim: 36, classes: 2 });
    let (frames, mels) = (shape.frames, shape.mels);
    let features = Precision::F32.rounded(noise(views * frames * mels, 1, 9.0));
    let packed = Precision::F32.rounded(noise(shape.packed(), 2, 0.3));
    let band =
        |seed: f32, level: f32| (0..mels).map(|i| level + (i as f32 * seed).sin()).collect::<Vec<f32>>();
    let normaliser = Normaliser { mean: band(0.3, -5.0), deviation: band(0.7, 9.0) };
    // Two of four patches, never the same twice.
    let patches = (0..views as u32).flat_map(|i| [i % 4, (i + 1 + i % 3) % 4]).collect();
    let some = Kept { per_view: 2, patches: Arc::new(patches) };
    for kept in [None, Some(&some)] {
        let rows = shape.classes + kept.map_or(shape.patches(), |kept| kept.per_view);
        let d_out = Precision::F32.rounded(noise(views * rows * shape.dim, 3, 1.0));
        let cpu = |values: &[f64], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let mut vars = Vec::new();
        for ((_, sizes), at) in shape.parameters().iter().zip(shape.places()) {
            let length = sizes.iter().product::<usize>();
            vars.push(Var::from_tensor(&cpu(&packed[at..at + length], sizes)?)?);
        }
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let on_cpu = cpu(&features, &[views, frames, mels])?;
        let out = encoder_tokens(shape, precision, &normaliser, kept, &tensors, &on_cpu)?;
        let grads = (&out * cpu(&d_out, out.dims())?)?.sum_all()?.backward()?;
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f64>();
        let want = values(&out)?;
        let none = || candle_core::Error::Msg("tokens without a gradient".to_owned());
        let gradients = vars
            .iter()
            .map(|var| values(grads.get(var).ok_or_else(none)?))
            .collect::<candle_core::Result<Vec<_>>>()?;

        let places = kept.and_then(|kept| Some((kept, places(kept, shape.patches())?)));
        let fixed = engine.fixed(&normaliser.mean, &normaliser.deviation, places)?;
        let [on_features, on_packed, on_d] =
            [&features, &packed, &d_out].map(|values| engine.put_floats(values));
        let (on_features, on_packed, on_d) = (on_features?, on_packed?, on_d?);
        let (features, packed) = (on_features.address(), on_packed.address());
        let input = TokensInput { shape, precision, fixed: &fixed, views, features, packed };
        let got = engine.get_floats(&engine.tokens(input)?)?;
        let name = if kept.is_some() { "tokens, of half the patches" } else { "tokens" };
        table.add(name.to_owned(), precision, (1e-5, 6e-3), &[(&got, &want)]);
        let got = engine.get_floats(&engine.tokens_back(input, on_d.address())?)?;
        let pairs: Vec<_> =
            gradients.iter().zip(shape.places()).map(|(g, at)| (&got[at..at + g.len()], &g[..])).collect();
        table.add(format!("{name}, back"), precision, (1e-5, 6e-3), &pairs);
    }
    Ok(())
}

fn onsets(engine: &Engine, table: &mut Table) -> Result<()> {
    let (views, frames, mels, groups) = (3, 11, 10, 4);
    let features = Precision::F32.rounded(noise(views * frames * mels, 1, 9.0));
    let deviation = (0..mels).map(|i| 9.0 + (i as f32 * 0.7).sin()).collect();
    let normaliser = Normaliser { mean: vec![0.0; mels], deviation };
    let on_cpu = Tensor::from_slice(&features, (views, frames, mels), &Device::Cpu)?;
    let want = Rhythm::new(frames, mels, groups, 50.0).onsets(&normaliser, &on_cpu)?;
    let want = want.flatten_all()?.to_vec1::<f64>()?;
    let there = engine.put_floats(&features)?;
    let size = [views, frames, mels, groups];
    let got = engine.get_floats(&engine.onsets(size, there.address(), &normaliser.deviation)?)?;
    table.add("onsets".to_owned(), Precision::F32, (1e-6, 1e-6), &[(&got, &want)]);
    Ok(())
}

/// A block's packed parameters: norms about 1, weights that keep the size of what they multiply.
fn parameters(dim: usize, hidden: usize, seed: u64) -> Vec<f64> {
    BlockShape::parameters(dim, hidden)
        .iter()
        .zip(16 * seed..)
        .flat_map(|((name, shape), seed)| {
            let inside = if shape.len() > 1 { shape[1] } else { 4 };
            let noise = noise(shape.iter().product(), seed, (inside as f64).sqrt().recip());
            let level = if name.starts_with("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
            noise.into_iter().map(move |x| x + level)
        })
        .collect()
}

/// Gradients parameter by parameter, beside what they should be.
fn by_parameter<'a>(
    got: &'a [f64],
    want: &'a [f64],
    lengths: &[usize; BLOCK_PARAMETERS],
) -> Vec<(&'a [f64], &'a [f64])> {
    let mut at = 0;
    let mut pairs = Vec::new();
    while at < got.len().min(want.len()) {
        for length in lengths {
            pairs.push((&got[at..at + length], &want[at..at + length]));
            at += length;
        }
    }
    pairs
}

fn blocks(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    let shapes = [
        (2, BlockShape { dim: 32, heads: 2, hidden: 64, tokens: 19, queries: 19 }),
        (3, BlockShape { dim: 24, heads: 3, hidden: 48, tokens: 11, queries: 2 }),
        (3, BlockShape { dim: 14, heads: 2, hidden: 23, tokens: 5, queries: 5 }),
    ];
    let drops = Drops { key: Key::root(2), first: 3, path: 0.2, dropout: 0.3 };
    for ((views, shape), drops) in shapes.into_iter().flat_map(|s| [(s, None), (s, Some(&drops))]) {
        let BlockShape { dim, hidden, tokens, queries, .. } = shape;
        let x = Precision::F32.rounded(noise(views * tokens * dim, 9, 1.0));
        let packed = Precision::F32.rounded(parameters(dim, hidden, 7));
        let d_out = Precision::F32.rounded(noise(views * queries * dim, 6, 1.0));
        let (mut state, mut scratch) = (block::BlockState::default(), block::Scratch::default());
        block::forward(&shape, &packed, &x, drops, &mut state, &mut scratch);
        let (mut d_packed, mut d_x) = (vec![0.0; packed.len()], vec![0.0; x.len()]);
        block::backward(&shape, &packed, &mut d_packed, &x, drops, &state, &d_out, &mut d_x, &mut scratch);

        let [on_packed, on_x, on_d] = [&packed, &x, &d_out].map(|values| engine.put_floats(values));
        let (on_packed, on_x, on_d) = (on_packed?, on_x?, on_d?);
        let rounded = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(engine.rounded(on_packed.address(), packed.len())?),
        };
        let exact = on_packed.address();
        let weights = Weights { exact, rounded: rounded.as_ref().map_or(exact, Matrix::address), precision };
        let made = engine.block(&shape, views, weights, on_x.address(), drops)?;
        let out = engine.get_floats(&made.out)?;
        let on_d_packed = engine.floats(packed.len())?;
        let (to, from) = (on_d_packed.address(), on_d.address());
        let got = engine.block_back(&shape, views, weights, to, on_x.address(), drops, made, from)?;
        let (got, got_packed) = (engine.get_floats(&got)?, engine.get_floats(&on_d_packed)?);
        let dropped = if drops.is_some() { ", drops" } else { "" };
        let name = format!("width {dim}, {queries} of {tokens} tokens{dropped}");
        table.add(format!("block, {name}"), precision, (1e-5, 1e-2), &[(&out, &state.out)]);
        let mut pairs = by_parameter(&got_packed, &d_packed, &shape.lengths());
        pairs.push((&got, &d_x));
        table.add(format!("block back, {name}"), precision, (1e-4, 3e-2), &pairs);
    }
    Ok(())
}

fn stacks(engine: &Engine, precision: Precision, table: &mut Table) -> Result<()> {
    let base =
        Plan { dim: 16, heads: 2, hidden: 32, classes: 3, patches: 14, trunk: 2, branches: Vec::new() };
    let each = |depth| (0..3).map(|k| Branch { classes: k..k + 1, depth }).collect();
    let plans = [
        (2, Plan { branches: vec![Branch { classes: 0..3, depth: 1 }], ..base.clone() }),
        (3, Plan { branches: each(1), trunk: 1, ..base.clone() }),
        (1, Plan { branches: each(2), trunk: 0, ..base.clone() }),
        (
            2,
            Plan {
                classes: 1,
                patches: 18,
                branches: vec![Branch { classes: 0..1, depth: 2 }],
                trunk: 0,
                ..base
            },
        ),
    ];
    let drops = StackDrops { key: Key::root(7), first: 40, path: 0.4, dropout: 0.25 };
    for ((views, plan), drops) in plans.into_iter().flat_map(|p| [(p.clone(), None), (p, Some(&drops))]) {
        let shape = plan.trunk_block();
        let x = Precision::F32.rounded(noise(views * shape.tokens * plan.dim, 10, 1.0));
        let packed: Vec<f64> = (0..plan.blocks())
            .flat_map(|i| Precision::F32.rounded(parameters(plan.dim, plan.hidden, i as u64)))
            .collect();
        let d_out = Precision::F32.rounded(noise(views * plan.classes * plan.dim, 8, 1.0));
        let (want, d_x, d_packed) = reference(&plan, views, &x, &packed, &d_out, drops)?;

        let [on_packed, on_x, on_d] = [&packed, &x, &d_out].map(|values| engine.put_floats(values));
        let (on_packed, on_x, on_d) = (on_packed?, on_x?, on_d?);
        let (packed, x) = (on_packed.address(), on_x.address());
        let input = Input { plan: &plan, precision, packed, x, views, drops };
        let (alone, none) = engine.stack(input, false)?;
        let (out, state) = engine.stack(input, true)?;
        let (alone, out) = (engine.get_floats(&alone)?, engine.get_floats(&out)?);
        let dropped = if drops.is_some() { ", drops" } else { "" };
        let name = format!("{} blocks, {} branches{dropped}", plan.blocks(), plan.branches.len());
        table.add(format!("stack, {name}"), precision, (1e-5, 1.5e-2), &[(&out, &want), (&alone, &want)]);
        let (None, Some(state)) = (none, state) else {
            return Err(GpuError::Shape("a stack keeps what it should not".to_owned()).into());
        };
        let [got_x, got_packed] = engine.stack_back(input, state, on_d.address())?;
        let (got_x, got_packed) = (engine.get_floats(&got_x)?, engine.get_floats(&got_packed)?);
        let mut pairs = by_parameter(&got_packed, &d_packed, &shape.lengths());
        pairs.push((&got_x, &d_x));
        table.add(format!("stack back, {name}"), precision, (1e-4, 6e-2), &pairs);
    }
    Ok(())
}

/// Output and gradients by the kernels of the CPU, in double precision.
fn reference(
    plan: &Plan,
    views: usize,
    x: &[f64],
    packed: &[f64],
    d_out: &[f64],
    drops: Option<&StackDrops>,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let cpu = |values: &[f64], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    let tokens = plan.classes + plan.patches;
    let x = Var::from_tensor(&cpu(x, &[views, tokens, plan.dim])?)?;
    let mut vars = Vec::new();
    let mut at = 0;
    for _ in 0..plan.blocks() {
        for (_, shape) in BlockShape::parameters(plan.dim, plan.hidden) {
            let length = shape.iter().product::<usize>();
            vars.push(Var::from_tensor(&cpu(&packed[at..at + length], &shape)?)?);
            at += length;
        }
    }
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let blocks: Vec<Vec<Tensor>> = tensors.chunks(BLOCK_PARAMETERS).map(<[Tensor]>::to_vec).collect();
    let out = stack::run(plan, &Pools::default(), &x, &blocks, drops, true, Precision::F32)?;
    let d_out = cpu(d_out, &[views, plan.classes, plan.dim])?;
    let grads = (&out * d_out)?.sum_all()?.backward()?;
    let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f64>();
    let gradient = |var: &Var| match grads.get(var) {
        Some(gradient) => values(gradient),
        None => Ok(vec![0.0; var.elem_count()]),
    };
    let d_packed = vars.iter().map(&gradient).collect::<candle_core::Result<Vec<_>>>()?.concat();
    Ok((values(&out)?, gradient(&x)?, d_packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loev_ops::gpu::Gpu;

    #[test]
    fn the_mirror_computes_what_the_cpu_computes() {
        let Some(gpu) = Gpu::mirror_if_any() else { return };
        let table = check(&Engine::plain(gpu)).unwrap();
        for row in &table {
            println!("{:8.1e} of {:8.1e}  {}", row.error, row.tolerance, row.name);
        }
        let failed: Vec<_> = table.iter().filter(|row| !row.passes()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
