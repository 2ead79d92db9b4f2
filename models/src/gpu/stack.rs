//! The trunk and the branches of [`crate::encoder::stack`] on the device.

use loev_ops::gpu::{Buffer, GpuError};

use super::{
    Engine, Matrix, Precision,
    block::{BlockState, Weights},
    place,
    rows::{Picked, Way},
};
use crate::encoder::stack::{Branch, Plan, StackDrops};

/// What the forward pass keeps for the way back.
pub(crate) struct State {
    weights: Rounded,
    trunk: Vec<BlockState>,
    branches: Vec<BranchState>,
}

struct BranchState {
    /// The kept tokens of the trunk's output; none where a branch keeps all.
    input: Option<Buffer<f32>>,
    blocks: Vec<BlockState>,
}

/// The packed parameters in the precision of products; none where they are in it already.
struct Rounded {
    precision: Precision,
    memory: Option<Matrix>,
}

impl Rounded {
    fn block(&self, packed: u64, length: usize, i: usize) -> Weights {
        let at = i * length;
        let rounded = self.memory.as_ref().map_or(place(packed, at), |memory| memory.at(at));
        Weights { exact: place(packed, at), rounded, precision: self.precision }
    }
}

/// A forward pass: what goes in, and how.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub plan: &'a Plan,
    pub precision: Precision,
    /// Where the packed parameters of all blocks are.
    pub packed: u64,
    /// Where `[views, tokens, dim]` is.
    pub x: u64,
    pub views: usize,
    pub drops: Option<&'a StackDrops>,
}

impl Input<'_> {
    fn length(&self) -> usize {
        self.plan.trunk_block().packed()
    }

    /// The class tokens of a branch among all of them.
    fn classes(&self, branch: &Branch) -> Picked {
        let Plan { classes, dim, .. } = *self.plan;
        let (head, start) = (branch.classes.len(), branch.classes.start);
        Picked { views: self.views, many: classes, head, start, skip: classes, dim }
    }

    /// The tokens of a branch among all of them.
    fn tokens(&self, branch: &Branch) -> Picked {
        Picked { many: self.plan.tokens(), ..self.classes(branch) }
    }

    fn depth(&self) -> usize {
        self.plan.trunk + self.plan.branches.first().map_or(0, |branch| branch.depth)
    }

    fn keeps_all(&self, branch: &Branch) -> bool {
        branch.classes.len() == self.plan.classes
    }
}

impl Engine {
    /// `[views, classes, dim]` of `[views, tokens, dim]`, and with `keep` what the way back needs.
    pub(crate) fn stack(
        &self,
        input: Input<'_>,
        keep: bool,
    ) -> Result<(Buffer<f32>, Option<State>), GpuError> {
        let Input { plan, precision, packed, x, views, .. } = input;
        let length = input.length();
        let memory = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(self.rounded(packed, length * plan.blocks())?),
        };
        let weights = Rounded { precision, memory };
        let drops = |number, at, depth| input.drops.map(|drops| drops.block(number, at, depth, 0));
        let out = self.floats(views * plan.classes * plan.dim)?;
        let mut state = State { weights, trunk: Vec::new(), branches: Vec::new() };

        let shape = plan.trunk_block();
        let mut path = Path { x, before: None, states: Vec::new(), keep };
        for i in 0..plan.trunk {
            let drops = drops(i, i, input.depth());
            let weights = state.weights.block(packed, length, i);
            path.push(self.block(&shape, views, weights, path.x, drops.as_ref())?);
        }
        let (trunk, trunk_x) = (path.before.take(), path.x);
        state.trunk = path.states;

        let mut first = plan.trunk;
        for branch in &plan.branches {
            let picked = input.tokens(branch);
            let gathered = if input.keeps_all(branch) {
                None
            } else {
                let tokens = branch.classes.len() + plan.patches;
                let gathered = self.floats(views * tokens * plan.dim)?;
                let few = gathered.address();
                self.pick(Way::Out, picked, trunk_x, few)?;
                Some(gathered)
            };
            let x = gathered.as_ref().map_or(trunk_x, Buffer::address);
            let mut path = Path { x, before: None, states: Vec::new(), keep };
            for i in 0..branch.depth {
                let shape = plan.branch_block(branch, i);
                let drops = drops(first + i, plan.trunk + i, plan.trunk + branch.depth);
                let weights = state.weights.block(packed, length, first + i);
                path.push(self.block(&shape, views, weights, path.x, drops.as_ref())?);
            }
            self.pick(Way::Back, input.classes(branch), out.address(), path.x)?;
            state.branches.push(BranchState { input: gathered, blocks: path.states });
            first += branch.depth;
        }
        drop(trunk);
        Ok((out, keep.then_some(state)))
    }

    /// The forward pass once more, for a way back of which nothing was kept.
    #[cfg(feature = "cuda")]
    pub(crate) fn kept(&self, input: Input<'_>) -> Result<State, GpuError> {
        let (_, state) = self.stack(input, true)?;
        state.ok_or_else(|| GpuError::Shape("a stack did not keep what it should".to_owned()))
    }

    /// Gradients of the tokens and of the packed parameters.
    pub(crate) fn stack_back(
        &self,
        input: Input<'_>,
        state: State,
        d_out: u64,
    ) -> Result<[Buffer<f32>; 2], GpuError> {
        let Input { plan, packed, x, views, .. } = input;
        let length = input.length();
        let drops = |number, at, depth| input.drops.map(|drops| drops.block(number, at, depth, 0));
        let State { weights, mut trunk, branches } = state;
        let d_packed = self.floats(length * plan.blocks())?;
        let to = |i: usize| place(d_packed.address(), i * length);
        let trunk_out = trunk.last().map_or(x, |state| state.out.address());
        // Where one branch keeps all tokens, its gradient is the trunk's.
        let alone = matches!(plan.branches.as_slice(), [branch] if input.keeps_all(branch));
        let mut d_trunk =
            if alone { self.floats(0)? } else { self.gpu().zeros(views * plan.tokens() * plan.dim)? };

        let mut first = plan.trunk;
        for (branch, state) in plan.branches.iter().zip(branches) {
            let BranchState { input: gathered, mut blocks } = state;
            let mut d = self.floats(views * branch.classes.len() * plan.dim)?;
            self.pick(Way::Out, input.classes(branch), d_out, d.address())?;
            let x = gathered.as_ref().map_or(trunk_out, Buffer::address);
            for i in (0..branch.depth).rev() {
                let Some(state) = blocks.pop() else { break };
                let shape = plan.branch_block(branch, i);
                let x = blocks.last().map_or(x, |state| state.out.address());
                let drops = drops(first + i, plan.trunk + i, plan.trunk + branch.depth);
                let weights = weights.block(packed, length, first + i);
                let (to, from) = (to(first + i), d.address());
                d = self.block_back(&shape, views, weights, to, x, drops.as_ref(), state, from)?;
            }
            if alone {
                d_trunk = d;
            } else {
                self.pick(Way::Add, input.tokens(branch), d_trunk.address(), d.address())?;
            }
            first += branch.depth;
        }

        let shape = plan.trunk_block();
        for i in (0..plan.trunk).rev() {
            let Some(state) = trunk.pop() else { break };
            let x = trunk.last().map_or(x, |state| state.out.address());
            let drops = drops(i, i, input.depth());
            let weights = weights.block(packed, length, i);
            let from = d_trunk.address();
            d_trunk = self.block_back(&shape, views, weights, to(i), x, drops.as_ref(), state, from)?;
        }
        Ok([d_trunk, d_packed])
    }
}

/// Blocks one after the other; without `keep` only the last output stays.
struct Path {
    /// Where the input of the next block is.
    x: u64,
    before: Option<Buffer<f32>>,
    states: Vec<BlockState>,
    keep: bool,
}

impl Path {
    fn push(&mut self, state: BlockState) {
        self.x = state.out.address();
        if self.keep {
            self.states.push(state);
        } else {
            self.before = Some(state.out);
        }
    }
}
