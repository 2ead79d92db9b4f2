//! Small copies to the device that the host does not wait for.

use loev_ops::gpu::{Buffer, Gpu, GpuError, Pinned};

/// Memory that the device copies from, used again when the copies are known to be done.
#[derive(Debug)]
pub struct Uploads {
    gpu: Gpu,
    free: Vec<Pinned<u32>>,
    used: Vec<Pinned<u32>>,
}

impl Uploads {
    /// Without any memory yet.
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), free: Vec::new(), used: Vec::new() }
    }

    /// `words` on the device, in order with its work.
    ///
    /// # Errors
    /// [`GpuError::Memory`], [`GpuError::Failed`].
    pub fn put(&mut self, words: &[u32]) -> Result<Buffer<u32>, GpuError> {
        let fitting = self.free.iter().position(|memory| memory.len() >= words.len());
        let mut memory = match fitting {
            Some(at) => self.free.swap_remove(at),
            None => self.gpu.pinned(words.len().next_power_of_two())?,
        };
        memory[..words.len()].copy_from_slice(words);
        let buffer = self.gpu.upload(&memory[..words.len()]);
        self.used.push(memory);
        buffer
    }

    /// The memory of the copies since the last call, to be given back when they are done.
    pub fn take(&mut self) -> Vec<Pinned<u32>> {
        std::mem::take(&mut self.used)
    }

    /// Memory whose copies are done.
    pub fn give_back(&mut self, memory: Vec<Pinned<u32>>) {
        self.free.extend(memory);
    }
}
