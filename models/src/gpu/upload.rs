//! Copies to the device that the host does not wait for.

use loev_ops::gpu::{Buffer, Gpu, GpuError, Pinned, Plain};

/// Memory that the device copies from, used again when the copies are known to be done: unlike from other memory,
/// the driver returns before it has read it.
#[derive(Debug)]
pub struct Uploads<T: Plain> {
    gpu: Gpu,
    free: Vec<Pinned<T>>,
    used: Vec<Pinned<T>>,
}

impl<T: Plain> Drop for Uploads<T> {
    fn drop(&mut self) {
        if !self.used.is_empty() {
            // Copies may be under way. Where waiting fails, so has the device, and the next call says so.
            let _ = self.gpu.synchronise();
        }
    }
}

impl<T: Plain> Uploads<T> {
    /// Without any memory yet.
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), free: Vec::new(), used: Vec::new() }
    }

    /// `values` on the device, in order with its work.
    ///
    /// # Errors
    /// [`GpuError::Memory`], [`GpuError::Failed`].
    pub fn put(&mut self, values: &[T]) -> Result<Buffer<T>, GpuError> {
        let fitting = self.free.iter().position(|memory| memory.len() >= values.len());
        let mut memory = match fitting {
            Some(at) => self.free.swap_remove(at),
            // The next step asks for about as much.
            None => self.gpu.pinned(values.len() + values.len() / 8)?,
        };
        memory[..values.len()].copy_from_slice(values);
        let buffer = self.gpu.upload(&memory[..values.len()]);
        self.used.push(memory);
        buffer
    }

    /// The memory of the copies since the last call, to be given back when they are done.
    pub fn take(&mut self) -> Vec<Pinned<T>> {
        std::mem::take(&mut self.used)
    }

    /// Memory whose copies are done.
    pub fn give_back(&mut self, memory: Vec<Pinned<T>>) {
        self.free.extend(memory);
    }
}
