//! The norm of all gradients, and AdamW with clipping and the average of weights, each for all parameters at once.

use super::{KERNELS, arguments};
use loev_ops::gpu::{Buffer, Gpu, GpuError, Launch, Plain};

/// Values of a piece, as the kernels have it.
const PIECE: usize = 4096;
/// Threads of a piece.
const THREADS: u32 = 256;

/// A parameter: addresses of its values, of the running means of its gradient and of the square of it, and of the
/// average of its values in double precision, 0 for none.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Slot {
    /// Its values.
    pub weights: u64,
    /// The running mean of its gradient.
    pub mean: u64,
    /// The running mean of the square of it.
    pub square: u64,
    /// The average of its values, `f64`, or 0.
    pub average: u64,
    /// How many values it has.
    pub len: u64,
    /// What they are kept within.
    pub within: [f32; 2],
}
// SAFETY: numbers without gaps.
#[allow(unsafe_code)]
unsafe impl Plain for Slot {}

/// A parameter in a step.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The address of its gradient; 0 for none, and then it stays as it is.
    pub gradient: u64,
    /// What is left of it by weight decay.
    pub keep: f32,
    /// Its learning rate, the correction of the young mean included.
    pub rate: f32,
}

impl Turn {
    /// As [`Optimiser`] takes it.
    pub fn words(&self) -> [u32; 4] {
        let Self { gradient, keep, rate } = self;
        [*gradient as u32, (gradient >> 32) as u32, keep.to_bits(), rate.to_bits()]
    }
}

/// What all parameters have in common in a step.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    /// The decay of both running means, and what it leaves to the new value.
    pub means: [(f32, f32); 2],
    /// One over the root of the correction of the young mean of squares.
    pub root: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// The part of its distance to the weights that the average goes.
    pub drift: f64,
}

/// All parameters, cut into the pieces that blocks work on.
#[derive(Debug)]
pub struct Optimiser {
    gpu: Gpu,
    slots: Buffer<Slot>,
    first: Buffer<i32>,
    pieces: Buffer<i32>,
    squares: Buffer<f64>,
}

arguments! {
    struct Squares { slots: u64, turns: u64, pieces: u64, squares: u64 }
}

arguments! {
    struct Norm { squares: u64, first: u64, norm: u64, limit: f64, share: f64, slots: i32, gap: i32 }
}

arguments! {
    struct AdamW {
        slots: u64, turns: u64, pieces: u64, norm: u64, drift: f64, means: [f32; 4], root: f32, eps: f32,
    }
}

impl Optimiser {
    /// For parameters that stay where they are.
    ///
    /// # Errors
    /// [`GpuError::Shape`] for more than 2^31 pieces of 4096 values, [`GpuError::Memory`], [`GpuError::Failed`].
    pub fn new(gpu: &Gpu, slots: &[Slot]) -> Result<Self, GpuError> {
        let (mut first, mut pieces) = (vec![0], Vec::new());
        for (slot, Slot { len, .. }) in slots.iter().enumerate() {
            for number in 0..len.div_ceil(PIECE as u64) {
                pieces.extend([slot as i32, number as i32]);
            }
            let all = i32::try_from(pieces.len() / 2);
            first.push(all.map_err(|_| GpuError::Shape(format!("{len} values are too many to train")))?);
        }
        Ok(Self {
            gpu: gpu.clone(),
            slots: gpu.upload(slots)?,
            first: gpu.upload(&first)?,
            squares: gpu.memory(pieces.len() / 2)?,
            pieces: gpu.upload(&pieces)?,
        })
    }

    /// How many values [`Self::norm`] writes.
    pub fn noted(&self) -> usize {
        2 + self.slots.len()
    }

    /// Measures the gradients of [`Turn::words`]. At `norm` it leaves `share` times the norm of all of them; what they
    /// are multiplied by to be at most `limit` long, `share` included, or NaN where the norm is not finite; and the
    /// sum of squares of each parameter's own.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when there are not as many turns as parameters, [`GpuError::Kernel`].
    pub fn norm(&self, turns: &Buffer<u32>, limit: f64, share: f64, norm: u64) -> Result<(), GpuError> {
        self.fit(turns)?;
        let squares = Squares {
            slots: self.slots.address(),
            turns: turns.address(),
            pieces: self.pieces.address(),
            squares: self.squares.address(),
        };
        self.gpu.launch(&KERNELS, "gradient_squares", self.grid(), &squares)?;
        let norm = Norm {
            squares: self.squares.address(),
            first: self.first.address(),
            norm,
            limit,
            share,
            slots: self.slots.len() as i32,
            gap: 0,
        };
        self.gpu.launch(&KERNELS, "gradient_norm", Launch::blocks([1, 1, 1], 1024), &norm)
    }

    /// Moves the parameters, by what [`Self::norm`] left at `norm`; not at all where the norm is not finite.
    ///
    /// # Errors
    /// As [`Self::norm`].
    pub fn step(&self, turns: &Buffer<u32>, shared: &Shared, norm: u64) -> Result<(), GpuError> {
        self.fit(turns)?;
        let [(b1, c1), (b2, c2)] = shared.means;
        let step = AdamW {
            slots: self.slots.address(),
            turns: turns.address(),
            pieces: self.pieces.address(),
            norm,
            drift: shared.drift,
            means: [b1, c1, b2, c2],
            root: shared.root,
            eps: shared.eps,
        };
        self.gpu.launch(&KERNELS, "adamw", self.grid(), &step)
    }

    fn grid(&self) -> Launch {
        Launch::blocks([self.squares.len(), 1, 1], THREADS)
    }

    fn fit(&self, turns: &Buffer<u32>) -> Result<(), GpuError> {
        let (have, want) = (turns.len() / 4, self.slots.len());
        if have == want { Ok(()) } else { Err(GpuError::Shape(format!("{have} turns of {want} parameters"))) }
    }
}

arguments! {
    struct Temperatures { log_scales: u64, temperatures: u64, heads: i32, gap: i32 }
}

/// Writes `e^-x` of the one value x at each address to `temperatures`.
///
/// # Errors
/// [`GpuError::Kernel`].
pub fn temperatures(gpu: &Gpu, log_scales: &Buffer<u64>, temperatures: u64) -> Result<(), GpuError> {
    let (log_scales, heads) = (log_scales.address(), log_scales.len());
    let arguments = Temperatures { log_scales, temperatures, heads: heads as i32, gap: 0 };
    gpu.launch(&KERNELS, "temperatures", Launch::items(heads, 32), &arguments)
}
