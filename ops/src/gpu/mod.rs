//! Kernels and memory of a GPU, and a mirror of it on the CPU.
//!
//! A [`Gpu`] holds memory and runs kernels in the order in which they were asked for, on one stream. A kernel is a
//! function of a `.cu` file that takes one structure; [`Gpu::launch`] hands it the same structure, declared in Rust.
//!
//! ```text
//!              .--> CUDA    nvcc's image of the kernels, cuFFT              feature `cuda`
//! Gpu::launch -+
//!              '--> mirror  the very same sources, compiled for the CPU     feature `mirror`, for tests
//! ```
//!
//! [`GpuRenderer`] makes views of segments on the device, [`GpuLogMel`] their log-mel frames, and [`parity`] compares both
//! with the CPU's.
//!
//! The mirror runs a block's threads as fibers that meet at barriers, one block after the other. It finds wrong
//! indices, missing barriers, reads of memory that nobody wrote (it is full of NaN) and writes beyond an end (the
//! guards around memory are looked at after each launch), on machines without a GPU. It is slow.

mod arguments;
#[cfg(feature = "cuda")]
mod cuda;
mod features;
mod memory;
#[cfg(any(test, feature = "mirror"))]
mod mirror;
mod parity;
mod profile;
mod render;

#[cfg(test)]
mod tests;

use std::sync::Arc;

#[doc(hidden)]
pub use arguments::arguments;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use features::GpuLogMel;
pub use memory::{Buffer, Coming, Pinned, Plain};
pub use parity::{LOG_MEL_DB, Measure, ParityRow, TOLERANCES, Tolerance, parity};
pub use profile::Spent;
pub use render::{GpuRenderer, GpuViews, Pcm, Sources};

/// What a GPU can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is no such device, driver or library.
    #[error("the GPU does not answer: {0}")]
    Absent(String),
    /// Memory could not be had.
    #[error("the GPU has no {bytes} bytes to give: {message}")]
    Memory {
        /// What was asked for.
        bytes: usize,
        /// What the driver says.
        message: String,
    },
    /// A kernel could not be run, or failed.
    #[error("the kernel `{kernel}` failed: {message}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What the driver says.
        message: String,
    },
    /// A copy, a transform or a synchronisation failed; work that was asked for before may be the reason.
    #[error("the GPU failed at {what}: {message}")]
    Failed {
        /// What it was to do.
        what: &'static str,
        /// What the driver says.
        message: String,
    },
    /// The caller's sizes do not fit.
    #[error("{0}")]
    Shape(String),
}

/// Kernels that belong together: one directory of sources.
#[derive(Debug)]
pub struct Kernels {
    /// Their name, of which there is one.
    pub name: &'static str,
    /// Where the sources are, for the mirror.
    pub sources: &'static str,
    /// What nvcc made of them; empty in a build without CUDA.
    pub image: &'static [u8],
}

/// The kernels of this crate.
pub static KERNELS: Kernels = Kernels {
    name: "ops",
    sources: concat!(env!("CARGO_MANIFEST_DIR"), "/cuda"),
    #[cfg(feature = "cuda")]
    image: include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")),
    #[cfg(not(feature = "cuda"))]
    image: &[],
};

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Launch {
    /// One thread for each of `items`, in blocks of `block`. No items, no blocks: such a launch does nothing.
    pub fn items(items: usize, block: u32) -> Self {
        Self::blocks([items.div_ceil(block.max(1) as usize), 1, 1], block)
    }

    /// So many blocks along each axis.
    pub fn blocks(grid: [usize; 3], block: u32) -> Self {
        Self { grid: grid.map(|n| u32::try_from(n).unwrap_or(u32::MAX)), block, shared: 0 }
    }

    /// With so much dynamic shared memory.
    pub fn shared(self, bytes: usize) -> Self {
        Self { shared: u32::try_from(bytes).unwrap_or(u32::MAX), ..self }
    }

    fn is_empty(&self) -> bool {
        self.grid.contains(&0) || self.block == 0
    }
}

/// A GPU; clones are the same one.
#[derive(Clone)]
pub struct Gpu(Arc<dyn Machine>, Arc<profile::Profile>);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.0.name())
    }
}

/// What a device does. Addresses are those of its memory.
trait Machine: Send + Sync {
    fn name(&self) -> String;
    fn allocate(&self, bytes: usize) -> Result<u64, GpuError>;
    fn free(&self, address: u64, bytes: usize);
    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError>;
    fn upload(&self, to: u64, from: &[u8]) -> Result<(), GpuError>;
    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError>;
    fn fetch(&self, from: u64, to: &mut [u8]) -> Result<Ticket, GpuError>;
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError>;
    fn launch(
        &self,
        kernels: &'static Kernels,
        name: &'static str,
        launch: Launch,
        arguments: &[u8],
    ) -> Result<(), GpuError>;
    fn transform(&self, transform: Transform, from: u64, to: u64) -> Result<(), GpuError>;
    fn synchronise(&self) -> Result<(), GpuError>;
    fn pin(&self, bytes: usize) -> Result<*mut u8, GpuError>;
    fn unpin(&self, address: *mut u8, bytes: usize);
    fn stage(&self, to: u64, from: &[u8]) -> Result<Ticket, GpuError>;
    fn after(&self, ticket: &Ticket) -> Result<(), GpuError>;
    fn finish(&self, ticket: &Ticket) -> Result<(), GpuError>;
    /// A moment in the order of the work.
    fn mark(&self) -> Result<Ticket, GpuError>;
    /// Seconds from one moment to another; waits for both.
    fn between(&self, from: &Ticket, to: &Ticket) -> Result<f64, GpuError>;
}

/// A copy under way.
#[derive(Clone)]
pub struct Ticket(#[allow(dead_code)] Arc<dyn std::any::Any + Send + Sync>);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// Transforms of many rows: `size` reals to `size / 2 + 1` complex numbers, or back and not divided by `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Transform {
    size: usize,
    rows: usize,
    forward: bool,
}

impl Gpu {
    /// The mirror of a GPU on the CPU. For tests: it needs a C++ compiler, and is slow.
    ///
    /// # Errors
    /// [`GpuError::Absent`] where there is no compiler.
    #[cfg(any(test, feature = "mirror"))]
    pub fn mirror() -> Result<Self, GpuError> {
        Ok(Self(Arc::new(mirror::Mirror::new()?), Arc::default()))
    }

    /// As [`Gpu::mirror`], for tests that pass over themselves where there is no compiler, and say so.
    #[cfg(any(test, feature = "mirror"))]
    pub fn mirror_if_any() -> Option<Self> {
        Self::mirror().inspect_err(|error| println!("passed over: {error}")).ok()
    }

    /// The GPU on whose stream other work is done in order with this one's.
    ///
    /// # Errors
    /// [`GpuError::Absent`] when no second stream, for copies, can be had.
    #[cfg(feature = "cuda")]
    pub fn on_stream(stream: Arc<cudarc::driver::CudaStream>) -> Result<Self, GpuError> {
        Ok(Self(Arc::new(Cuda::new(stream)?), Arc::default()))
    }

    /// What the device is called.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Runs a kernel on the device; returns before it has run. `arguments` is the structure that the kernel takes,
    /// field by field.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] when there is no such kernel or it cannot be run so; what it does wrong when running comes
    /// with a later call.
    #[allow(unsafe_code)]
    pub fn launch<A: Plain>(
        &self,
        kernels: &'static Kernels,
        name: &'static str,
        launch: Launch,
        arguments: &A,
    ) -> Result<(), GpuError> {
        if launch.is_empty() {
            return Ok(());
        }
        self.timed(name, || {
            self.0.launch(kernels, name, launch, memory::bytes_of(std::slice::from_ref(arguments)))
        })
    }

    /// Transforms of `rows` rows of `size` reals each to rows of `size / 2 + 1` complex numbers (real part, imaginary
    /// part).
    ///
    /// # Errors
    /// [`GpuError::Shape`] when a buffer is too short, [`GpuError::Failed`].
    pub fn forward(
        &self,
        size: usize,
        rows: usize,
        from: &Buffer<f32>,
        to: &mut Buffer<f32>,
    ) -> Result<(), GpuError> {
        self.transform(Transform { size, rows, forward: true }, from, to)
    }

    /// Back from [`Gpu::forward`], not divided by `size`. What `from` holds afterwards is of no use, so it is taken as
    /// one that may change. The imaginary parts of the first and, for even sizes, the last number count as zero.
    ///
    /// # Errors
    /// As [`Gpu::forward`].
    pub fn inverse(
        &self,
        size: usize,
        rows: usize,
        from: &mut Buffer<f32>,
        to: &mut Buffer<f32>,
    ) -> Result<(), GpuError> {
        self.transform(Transform { size, rows, forward: false }, from, to)
    }

    fn transform(&self, transform: Transform, from: &Buffer<f32>, to: &Buffer<f32>) -> Result<(), GpuError> {
        let Transform { size, rows, forward } = transform;
        if size == 0 || rows == 0 {
            return Ok(());
        }
        let (reals, complex) = (size * rows, (size / 2 + 1) * 2 * rows);
        let (least_from, least_to) = if forward { (reals, complex) } else { (complex, reals) };
        if from.len() < least_from || to.len() < least_to {
            return Err(GpuError::Shape(format!(
                "{rows} transforms of {size} need {least_from} and {least_to} values, there are {} and {}",
                from.len(),
                to.len()
            )));
        }
        self.timed("transform", || self.0.transform(transform, from.address(), to.address()))
    }

    /// Waits until everything that was asked for is done.
    ///
    /// # Errors
    /// What any of it failed with.
    pub fn synchronise(&self) -> Result<(), GpuError> {
        self.0.synchronise()
    }

    /// Work asked for from now on comes after the copy.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn after(&self, ticket: &Ticket) -> Result<(), GpuError> {
        self.0.after(ticket)
    }

    /// Waits, here on the host, for the copy alone: its source may be written again.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn finish(&self, ticket: &Ticket) -> Result<(), GpuError> {
        self.0.finish(ticket)
    }
}
