//! A trunk of transformer blocks and the branches that end it, as one custom operation.
//!
//! ```text
//! tokens [views, classes + patches, dim] -- trunk -+- branch 0: its class tokens + patches --+- [views, classes, dim]
//!                                                  '- branch 1: ...                        --'
//! ```
//!
//! A branch sees the class tokens it keeps and all patches; its last block only asks for the class
//! tokens. A batch is cut into chunks of views whose intermediates fit a core's cache, and one chunk
//! goes through the whole network before the next; chunks form groups, the units of parallel work.
//! Chunks and groups depend on shapes alone, and gradients are summed in the order of groups: the
//! result does not depend on the number of threads. Buffers go back to a [`Pool`] to be used again.

use crate::{
    gpu::{self, Precision},
    kernels::{
        Real,
        block::{self, BlockShape, BlockState, Scratch, sized},
        drop::Drops,
        rows,
    },
    layers,
};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};
use loev_ops::rng::Key;
use rayon::prelude::*;
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Rows (views times tokens) of a chunk: 312 rows of width 96 keep a block's largest buffers, 0.5 MB
/// each, in the second-level cache.
const CHUNK_ROWS: usize = 320;
/// Most groups: enough for 16 cores, and few enough that summing their gradients costs nothing.
const MAX_GROUPS: usize = 16;

/// The blocks at the end of a path and the class tokens that take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Class tokens that the branch keeps.
    pub classes: Range<usize>,
    /// Number of blocks, at least 1.
    pub depth: usize,
}

/// The shape of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Width of a token.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP's hidden layer.
    pub hidden: usize,
    /// Class tokens, which come first.
    pub classes: usize,
    /// Patch tokens.
    pub patches: usize,
    /// Blocks that all branches share.
    pub trunk: usize,
    /// The branches; their class tokens, one after the other, are all class tokens.
    pub branches: Vec<Branch>,
}

/// What the blocks drop in one step of training; see [`Drops`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackDrops {
    /// The key of the step.
    pub key: Key,
    /// Number, in its batch, of the first view at hand.
    pub first: usize,
    /// Probability that a view goes without a residual of the last block; it rises to that linearly, from
    /// 0 at the first.
    pub path: f64,
    /// Probability that a value of a residual is zero.
    pub dropout: f64,
}

impl StackDrops {
    /// What block `number` drops, the `at`-th of the `depth` on its path, of views from `first` on.
    pub(crate) fn block(&self, number: usize, at: usize, depth: usize, first: usize) -> Drops {
        let rise = if depth > 1 { at as f64 / (depth - 1) as f64 } else { 1.0 };
        let (key, first) = (self.key.with(number as u64), self.first + first);
        Drops { key, first, path: self.path * rise, dropout: self.dropout }
    }
}

impl Plan {
    pub(crate) fn tokens(&self) -> usize {
        self.classes + self.patches
    }

    fn block(&self, tokens: usize, queries: usize) -> BlockShape {
        BlockShape { dim: self.dim, heads: self.heads, hidden: self.hidden, tokens, queries }
    }

    pub(crate) fn trunk_block(&self) -> BlockShape {
        self.block(self.tokens(), self.tokens())
    }

    pub(crate) fn branch_block(&self, branch: &Branch, i: usize) -> BlockShape {
        let tokens = branch.classes.len() + self.patches;
        self.block(tokens, if i + 1 == branch.depth { branch.classes.len() } else { tokens })
    }

    /// Number of blocks of the trunk and all branches.
    pub fn blocks(&self) -> usize {
        self.trunk + self.branches.iter().map(|b| b.depth).sum::<usize>()
    }

    /// Views of a chunk and of a group, for a batch of `views`.
    fn split(&self, views: usize) -> (usize, usize) {
        let chunk = (CHUNK_ROWS / self.tokens()).max(1);
        let chunks = views.div_ceil(chunk);
        let groups = (chunks / 2).clamp(1, MAX_GROUPS);
        (chunk, chunks.div_ceil(groups) * chunk)
    }
}

/// Copies of a view's kept tokens: class tokens `classes`, then all patches.
fn gather<T: Real>(plan: &Plan, classes: &Range<usize>, out: &mut [T], x: &[T]) {
    let (dim, kept) = (plan.dim, classes.len() * plan.dim);
    for (out, x) in out.chunks_exact_mut(kept + plan.patches * dim).zip(x.chunks_exact(plan.tokens() * dim)) {
        out[..kept].copy_from_slice(&x[classes.start * dim..classes.end * dim]);
        out[kept..].copy_from_slice(&x[plan.classes * dim..]);
    }
}

/// Adds gradients of kept tokens to those of all tokens.
fn scatter<T: Real>(plan: &Plan, classes: &Range<usize>, out: &mut [T], d: &[T]) {
    let (dim, kept) = (plan.dim, classes.len() * plan.dim);
    for (out, d) in out.chunks_exact_mut(plan.tokens() * dim).zip(d.chunks_exact(kept + plan.patches * dim)) {
        rows::add(&mut out[classes.start * dim..classes.end * dim], &d[..kept]);
        rows::add(&mut out[plan.classes * dim..], &d[kept..]);
    }
}

/// What the forward pass of one chunk leaves for its backward pass.
#[derive(Debug, Default)]
struct ChunkState<T> {
    trunk: Vec<BlockState<T>>,
    branches: Vec<BranchState<T>>,
}

#[derive(Debug, Default)]
struct BranchState<T> {
    /// The kept tokens of the trunk's output; empty where a branch keeps all.
    input: Vec<T>,
    blocks: Vec<BlockState<T>>,
}

/// Buffers of a task at work.
#[derive(Debug, Default)]
struct Work<T> {
    scratch: Scratch<T>,
    d_trunk: Vec<T>,
    d_a: Vec<T>,
    d_b: Vec<T>,
    d_packed: Vec<T>,
}

/// Buffers at rest. Training allocates them in its first step only: fresh memory of this size would
/// cost page faults worth a tenth of a step.
#[derive(Debug, Default)]
pub struct Pool<T> {
    states: Mutex<Vec<ChunkState<T>>>,
    work: Mutex<Vec<Work<T>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Real + Default> Pool<T> {
    fn state(&self, plan: &Plan) -> ChunkState<T> {
        let mut state = lock(&self.states).pop().unwrap_or_default();
        state.trunk.resize_with(plan.trunk, BlockState::default);
        state.branches.resize_with(plan.branches.len(), BranchState::default);
        for (state, branch) in state.branches.iter_mut().zip(&plan.branches) {
            state.blocks.resize_with(branch.depth, BlockState::default);
        }
        state
    }

    fn work(&self) -> Work<T> {
        lock(&self.work).pop().unwrap_or_default()
    }
}

impl Plan {
    /// One chunk `x: [views, tokens, dim]` to `out: [views, classes, dim]`. `drops` says what a block drops,
    /// of its number, its place and the blocks of its path.
    fn forward<T: Real>(
        &self,
        packed: &[T],
        x: &[T],
        drops: impl Fn(usize, usize, usize) -> Option<Drops>,
        out: &mut [T],
        state: &mut ChunkState<T>,
        scratch: &mut Scratch<T>,
    ) {
        let shape = self.trunk_block();
        let mut packed = packed.chunks_exact(shape.packed());
        let views = x.len() / (self.tokens() * self.dim);
        let mut current = x;
        let depth = self.branches.first().map_or(self.trunk, |branch| self.trunk + branch.depth);
        for ((i, state), packed) in state.trunk.iter_mut().enumerate().zip(packed.by_ref()) {
            block::forward(&shape, packed, current, drops(i, i, depth).as_ref(), state, scratch);
            current = &state.out;
        }
        let trunk = current;
        let mut first = self.trunk;
        for (branch, state) in self.branches.iter().zip(&mut state.branches) {
            let kept = branch.classes.len() * self.dim;
            let mut current = if branch.classes.len() == self.classes {
                trunk
            } else {
                let input = sized(&mut state.input, views * (kept + self.patches * self.dim), T::ZERO);
                gather(self, &branch.classes, input, trunk);
                input
            };
            for ((i, state), packed) in state.blocks.iter_mut().enumerate().zip(packed.by_ref()) {
                let drops = drops(first + i, self.trunk + i, self.trunk + branch.depth);
                let shape = self.branch_block(branch, i);
                block::forward(&shape, packed, current, drops.as_ref(), state, scratch);
                current = &state.out;
            }
            first += branch.depth;
            let at = branch.classes.start * self.dim;
            for (out, row) in out.chunks_exact_mut(self.classes * self.dim).zip(current.chunks_exact(kept)) {
                out[at..at + kept].copy_from_slice(row);
            }
        }
    }

    /// The way back of one chunk; `work.d_packed` is added to, `d_x` overwritten.
    #[allow(clippy::too_many_arguments)]
    fn backward<T: Real>(
        &self,
        packed: &[T],
        x: &[T],
        drops: impl Fn(usize, usize, usize) -> Option<Drops>,
        d_out: &[T],
        d_x: &mut [T],
        state: &ChunkState<T>,
        work: &mut Work<T>,
    ) {
        let Work { scratch, d_trunk, d_a, d_b, d_packed } = work;
        let length = self.trunk_block().packed();
        let place = |i: usize| i * length..(i + 1) * length;
        let views = x.len() / (self.tokens() * self.dim);
        let trunk: &[T] = state.trunk.last().map_or(x, |s| &s.out);
        let d_trunk = sized(d_trunk, x.len(), T::ZERO);
        d_trunk.fill(T::ZERO);

        let mut first = self.trunk;
        for (branch, state) in self.branches.iter().zip(&state.branches) {
            let kept = branch.classes.len() * self.dim;
            let all = branch.classes.len() == self.classes;
            let input: &[T] = if all { trunk } else { &state.input };
            let at = branch.classes.start * self.dim;
            let d = sized(d_a, views * kept, T::ZERO);
            for (d, d_out) in d.chunks_exact_mut(kept).zip(d_out.chunks_exact(self.classes * self.dim)) {
                d.copy_from_slice(&d_out[at..at + kept]);
            }
            for i in (0..branch.depth).rev() {
                let shape = self.branch_block(branch, i);
                let x = if i == 0 { input } else { &state.blocks[i - 1].out };
                let d_in = sized(d_b, x.len(), T::ZERO);
                let at = place(first + i);
                let (d_packed, state) = (&mut d_packed[at.clone()], &state.blocks[i]);
                let drops = drops(first + i, self.trunk + i, self.trunk + branch.depth);
                let (packed, drops) = (&packed[at], drops.as_ref());
                block::backward(&shape, packed, d_packed, x, drops, state, d_a, d_in, scratch);
                std::mem::swap(d_a, d_b);
            }
            scatter(self, &branch.classes, d_trunk, d_a);
            first += branch.depth;
        }

        let shape = self.trunk_block();
        let depth = self.branches.first().map_or(self.trunk, |branch| self.trunk + branch.depth);
        let mut d: &mut Vec<T> = &mut work.d_trunk;
        let mut spare = d_a;
        for i in (0..self.trunk).rev() {
            let x = if i == 0 { x } else { &state.trunk[i - 1].out };
            let d_in = sized(spare, x.len(), T::ZERO);
            let at = place(i);
            let (d_packed, state) = (&mut d_packed[at.clone()], &state.trunk[i]);
            let drops = drops(i, i, depth);
            block::backward(&shape, &packed[at], d_packed, x, drops.as_ref(), state, d, d_in, scratch);
            std::mem::swap(&mut d, &mut spare);
        }
        d_x.copy_from_slice(d);
    }
}

/// The custom operation: tokens and packed parameters to class tokens.
struct StackOp<T> {
    plan: Plan,
    pool: Arc<Pool<T>>,
    /// Whether the forward pass keeps what the backward pass needs.
    keep: bool,
    drops: Option<StackDrops>,
    kept: Mutex<Option<Vec<Vec<ChunkState<T>>>>>,
}

/// The values of a contiguous CPU tensor.
pub(crate) fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
        None => bail!("a fused operation needs contiguous tensors"),
    }
}

/// Runs `f` on the values of a CPU tensor.
pub(crate) fn with_slice<T: Real, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => bail!("a fused operation needs tensors on the CPU"),
    }
}

/// The sum of per-group gradients, in the order of groups.
pub(crate) fn sum_in_order<T: Real>(parts: &[&[T]], length: usize) -> Vec<T> {
    let mut total = vec![T::ZERO; length];
    const PIECE: usize = 1 << 14;
    total.par_chunks_mut(PIECE).enumerate().for_each(|(i, total)| {
        for part in parts {
            rows::add(total, &part[i * PIECE..]);
        }
    });
    total
}

impl<T: Real + Default> StackOp<T> {
    /// What blocks drop of a chunk whose first view is `first`; see [`Plan::forward`].
    fn drops(&self, first: usize) -> impl Fn(usize, usize, usize) -> Option<Drops> {
        move |number, at, depth| self.drops.map(|drops| drops.block(number, at, depth, first))
    }

    fn forward(&self, packed: &[T], x: &[T], keep: bool) -> (Vec<T>, Vec<Vec<ChunkState<T>>>) {
        let plan = &self.plan;
        let (row_in, row_out) = (plan.tokens() * plan.dim, plan.classes * plan.dim);
        let views = x.len() / row_in;
        let (chunk, group) = plan.split(views);
        let mut out = vec![T::ZERO; views * row_out];
        let states = out
            .par_chunks_mut(group * row_out)
            .zip(x.par_chunks(group * row_in))
            .enumerate()
            .map(|(g, (out, x))| {
                let mut work = self.pool.work();
                let mut states = Vec::new();
                for (c, (out, x)) in out.chunks_mut(chunk * row_out).zip(x.chunks(chunk * row_in)).enumerate()
                {
                    let mut state = self.pool.state(plan);
                    let drops = self.drops(g * group + c * chunk);
                    plan.forward(packed, x, drops, out, &mut state, &mut work.scratch);
                    if keep {
                        states.push(state);
                    } else {
                        lock(&self.pool.states).push(state);
                    }
                }
                lock(&self.pool.work).push(work);
                states
            })
            .collect();
        (out, states)
    }

    /// Gradients of tokens and packed parameters.
    fn backward(&self, packed: &[T], x: &[T], d_out: &[T]) -> (Vec<T>, Vec<T>) {
        let plan = &self.plan;
        let (row_in, row_out) = (plan.tokens() * plan.dim, plan.classes * plan.dim);
        let (chunk, group) = plan.split(x.len() / row_in);
        let kept = lock(&self.kept).take();
        let states = kept.unwrap_or_else(|| self.forward(packed, x, true).1);
        let mut d_x = vec![T::ZERO; x.len()];
        let work: Vec<Work<T>> = d_x
            .par_chunks_mut(group * row_in)
            .zip(x.par_chunks(group * row_in))
            .zip(d_out.par_chunks(group * row_out))
            .zip(states)
            .enumerate()
            .map(|(g, (((d_x, x), d_out), states))| {
                let mut work = self.pool.work();
                sized(&mut work.d_packed, packed.len(), T::ZERO).fill(T::ZERO);
                let parts = d_x
                    .chunks_mut(chunk * row_in)
                    .zip(x.chunks(chunk * row_in))
                    .zip(d_out.chunks(chunk * row_out));
                for (c, (((d_x, x), d_out), state)) in parts.zip(states).enumerate() {
                    let drops = self.drops(g * group + c * chunk);
                    plan.backward(packed, x, drops, d_out, d_x, &state, &mut work);
                    lock(&self.pool.states).push(state);
                }
                work
            })
            .collect();
        let parts: Vec<&[T]> = work.iter().map(|w| w.d_packed.as_slice()).collect();
        let d_packed = sum_in_order(&parts, packed.len());
        lock(&self.pool.work).extend(work);
        (d_x, d_packed)
    }
}

impl<T: Real + Default> CustomOp2 for StackOp<T> {
    fn name(&self) -> &'static str {
        "transformer-stack"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        p: &CpuStorage,
        lp: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, packed) = (slice::<T>(x, lx)?, slice::<T>(p, lp)?);
        let plan = &self.plan;
        let (views, tokens, dim) = lx.shape().dims3()?;
        let length = plan.trunk_block().packed() * plan.blocks();
        if (tokens, dim) != (plan.tokens(), plan.dim) || packed.len() != length {
            bail!("transformer-stack: {:?} and {} parameters do not fit {plan:?}", lx.shape(), packed.len());
        }
        let (out, states) = self.forward(packed, x, self.keep);
        if self.keep {
            *lock(&self.kept) = Some(states);
        }
        Ok((T::to_cpu_storage_owned(out), Shape::from((views, plan.classes, dim))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (d_x, d_p) = with_slice(x, |xs| {
            with_slice(p, |packed| with_slice(d_out, |d_out| self.backward(packed, xs, d_out)))
        })???;
        let d_x = Tensor::from_vec(d_x, x.shape(), x.device())?;
        Ok((Some(d_x), Some(Tensor::from_vec(d_p, p.shape(), p.device())?)))
    }
}

/// The pools of both float types.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    single: Arc<Pool<f32>>,
    double: Arc<Pool<f64>>,
}

/// Runs the network on `x: [views, classes + patches, dim]`; the result is `[views, classes, dim]`.
///
/// `blocks` holds the parameters of each block: the trunk's, then each branch's. With `keep`, a
/// backward pass is expected and what it needs is stored. `drops` is for training alone. `precision` is
/// that of products on a GPU.
pub fn run(
    plan: &Plan,
    pools: &Pools,
    x: &Tensor,
    blocks: &[Vec<Tensor>],
    drops: Option<&StackDrops>,
    keep: bool,
    precision: Precision,
) -> Result<Tensor> {
    // What drops nothing takes the shorter way.
    let drops = drops.copied().filter(|drops| drops.path > 0.0 || drops.dropout > 0.0);
    if blocks.len() != plan.blocks() {
        bail!("{} blocks where {} are expected", blocks.len(), plan.blocks());
    }
    let on_gpu = gpu::takes(x);
    if !x.device().is_cpu() && !on_gpu {
        return compose(plan, x, blocks, drops.as_ref());
    }
    let flat = blocks.iter().flatten().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
    let packed = Tensor::cat(&flat, 0)?;
    #[cfg(feature = "cuda")]
    if on_gpu {
        return crate::gpu::operations::stack(plan, precision, x, &packed, drops, keep);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = precision;
    let x = x.contiguous()?;
    let plan = plan.clone();
    match x.dtype() {
        candle_core::DType::F64 => {
            let pool = pools.double.clone();
            x.apply_op2(&packed, StackOp { plan, pool, keep, drops, kept: Mutex::new(None) })
        }
        _ => {
            let pool = pools.single.clone();
            x.apply_op2(&packed, StackOp { plan, pool, keep, drops, kept: Mutex::new(None) })
        }
    }
}

/// The same network, composed of candle operations.
fn compose(plan: &Plan, x: &Tensor, blocks: &[Vec<Tensor>], drops: Option<&StackDrops>) -> Result<Tensor> {
    let drops = |number, at, depth| drops.map(|drops| drops.block(number, at, depth, 0));
    let depth = plan.branches.first().map_or(plan.trunk, |branch| plan.trunk + branch.depth);
    let mut blocks = blocks.iter();
    let mut trunk = x.clone();
    for (i, parameters) in blocks.by_ref().take(plan.trunk).enumerate() {
        let drops = drops(i, i, depth);
        trunk = layers::block::block(&plan.trunk_block(), parameters, &trunk, drops.as_ref())?;
    }
    let mut first = plan.trunk;
    let patches = trunk.narrow(1, plan.classes, plan.patches)?;
    let mut out = Vec::new();
    for branch in &plan.branches {
        let classes = trunk.narrow(1, branch.classes.start, branch.classes.len())?;
        let mut current = Tensor::cat(&[&classes, &patches], 1)?;
        for (i, parameters) in blocks.by_ref().take(branch.depth).enumerate() {
            let drops = drops(first + i, plan.trunk + i, plan.trunk + branch.depth);
            let shape = plan.branch_block(branch, i);
            current = layers::block::block(&shape, parameters, &current, drops.as_ref())?;
        }
        first += branch.depth;
        out.push(current);
    }
    Tensor::cat(&out, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};
    use candle_core::{DType, Device};
    use std::sync::LazyLock;

    const PRECISION: Precision = Precision::F32;

    fn plans() -> Vec<Plan> {
        let base = Plan { dim: 8, heads: 2, hidden: 12, classes: 3, patches: 4, trunk: 2, branches: vec![] };
        let each = |depth| (0..3).map(|k| Branch { classes: k..k + 1, depth }).collect();
        vec![
            Plan { branches: vec![Branch { classes: 0..3, depth: 1 }], ..base.clone() },
            Plan { branches: each(1), trunk: 1, ..base.clone() },
            Plan { branches: each(2), trunk: 0, ..base.clone() },
            Plan { classes: 1, branches: vec![Branch { classes: 0..1, depth: 2 }], ..base },
        ]
    }

    fn parameters(plan: &Plan) -> Vec<Tensor> {
        (0..plan.blocks())
            .flat_map(|b| {
                BlockShape::parameters(plan.dim, plan.hidden)
                    .map(|(_, s)| wave(&s, 1.3 + 0.1 * b as f64, 0.6))
            })
            .collect()
    }

    fn grouped(parameters: &[Tensor]) -> Vec<Vec<Tensor>> {
        parameters.chunks(block::BLOCK_PARAMETERS).map(<[Tensor]>::to_vec).collect()
    }

    static DROPS: LazyLock<StackDrops> =
        LazyLock::new(|| StackDrops { key: Key::root(7), first: 40, path: 0.4, dropout: 0.25 });

    #[test]
    fn fused_gradients_match_differences() {
        for (plan, drops) in
            plans().into_iter().flat_map(|plan| [(plan.clone(), None), (plan, Some(&*DROPS))])
        {
            let mut inputs = vec![wave(&[3, plan.tokens(), plan.dim], 0.77, 1.0)];
            inputs.extend(parameters(&plan));
            let mask = wave(&[3, plan.classes, plan.dim], 1.9, 1.0);
            let pools = Pools::default();
            gradients(&inputs, |t| {
                (run(&plan, &pools, &t[0], &grouped(&t[1..]), drops, true, PRECISION)? * &mask)?.sum_all()
            });
        }
    }

    #[test]
    fn fused_and_composed_agree_over_many_chunks() {
        for (plan, drops) in
            plans().into_iter().flat_map(|plan| [(plan.clone(), None), (plan, Some(&*DROPS))])
        {
            let x = wave(&[130, plan.tokens(), plan.dim], 0.77, 1.0);
            let parameters = grouped(&parameters(&plan));
            let var = candle_core::Var::from_tensor(&x).unwrap();
            let pools = Pools::default();
            let fused = run(&plan, &pools, &var, &parameters, drops, true, PRECISION).unwrap();
            let composed = compose(&plan, &var, &parameters, drops).unwrap();
            assert!(distance(&fused, &composed) < 1e-12);
            let grads = [fused, composed].map(|y| y.sqr().unwrap().sum_all().unwrap().backward().unwrap());
            assert!(distance(grads[0].get(&var).unwrap(), grads[1].get(&var).unwrap()) < 1e-10);
        }
    }

    #[test]
    fn single_precision_follows_double_precision() {
        for plan in plans() {
            let x = wave(&[70, plan.tokens(), plan.dim], 0.77, 1.0);
            let parameters = grouped(&parameters(&plan));
            let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
            let pools = Pools::default();
            let want = run(&plan, &pools, &x, &parameters, None, false, PRECISION).unwrap();
            let parameters: Vec<Vec<Tensor>> =
                parameters.iter().map(|b| b.iter().map(single).collect()).collect();
            let got = run(&plan, &pools, &single(&x), &parameters, None, false, PRECISION).unwrap();
            assert!(distance(&got, &want) < 2e-5, "{}", distance(&got, &want));
        }
    }

    #[test]
    fn results_do_not_depend_on_threads_or_on_a_warm_pool() {
        let plan = &plans()[1];
        let x = wave(&[400, plan.tokens(), plan.dim], 0.77, 1.0).to_dtype(DType::F32).unwrap();
        let parameters: Vec<Tensor> =
            parameters(plan).iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
        let pools = Pools::default();
        let step = || {
            let vars: Vec<candle_core::Var> =
                parameters.iter().map(|t| candle_core::Var::from_tensor(t).unwrap()).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = run(plan, &pools, &x, &grouped(&tensors), Some(&*DROPS), true, PRECISION).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.iter()
                .flat_map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .collect::<Vec<f32>>()
        };
        let on =
            |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(step);
        let one = on(1);
        assert_eq!(one, on(4));
        assert_eq!(one, on(3));
    }

    /// Micro-batches drop what the whole batch drops, and a step without rates is one without drops.
    #[test]
    fn drops_follow_the_number_of_a_view() {
        let plan = &plans()[1];
        let x = wave(&[9, plan.tokens(), plan.dim], 0.77, 1.0);
        let parameters = grouped(&parameters(plan));
        let with = |x: &Tensor, drops| {
            run(plan, &Pools::default(), x, &parameters, drops, false, PRECISION).unwrap()
        };
        let whole = with(&x, Some(&*DROPS));
        let later = StackDrops { first: DROPS.first + 4, ..*DROPS };
        let part = with(&x.narrow(0, 4, 5).unwrap(), Some(&later));
        assert_eq!(distance(&whole.narrow(0, 4, 5).unwrap(), &part), 0.0);
        let other = StackDrops { key: Key::root(8), ..*DROPS };
        assert!(distance(&whole, &with(&x, Some(&other))) > 0.01);
        let off = StackDrops { path: 0.0, dropout: 0.0, ..*DROPS };
        assert_eq!(distance(&with(&x, None), &with(&x, Some(&off))), 0.0);
    }

    #[test]
    fn depth_decides_how_often_a_path_is_dropped() {
        let path = |at, depth| DROPS.block(0, at, depth, 0).path;
        assert_eq!([path(0, 3), path(1, 3), path(2, 3), path(0, 1)], [0.0, 0.2, 0.4, 0.4]);
    }

    #[test]
    fn a_second_backward_pass_computes_the_forward_pass_again() {
        let plan = &plans()[0];
        let x = candle_core::Var::from_tensor(&wave(&[5, plan.tokens(), plan.dim], 0.77, 1.0)).unwrap();
        let y = run(plan, &Pools::default(), &x, &grouped(&parameters(plan)), Some(&*DROPS), true, PRECISION)
            .unwrap()
            .sum_all()
            .unwrap();
        let (a, b) = (y.backward().unwrap(), y.backward().unwrap());
        assert_eq!(distance(a.get(&x).unwrap(), b.get(&x).unwrap()), 0.0);
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let plan = &plans()[0];
        let x = Tensor::zeros((2, 5, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(
            run(plan, &Pools::default(), &x, &grouped(&parameters(plan)), None, false, PRECISION).is_err()
        );
        assert!(run(plan, &Pools::default(), &x, &[], None, false, PRECISION).is_err());
    }
}
