//! Memory of the device, and memory of the host that it copies from by itself.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Gpu, GpuError, Machine, Ticket};

/// Values that are their bytes: numbers, and structures of them without gaps.
///
/// # Safety
/// Every pattern of bits is a value, and no byte of one is left undefined.
#[allow(unsafe_code)]
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($t:ty),*) => {
        $(
            // SAFETY: a number is its bytes.
            #[allow(unsafe_code)]
            unsafe impl Plain for $t {}
        )*
    };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

// SAFETY: values one after the other, without gaps.
#[allow(unsafe_code)]
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

#[allow(unsafe_code)]
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values are their bytes, and `u8` may lie anywhere.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

#[allow(unsafe_code)]
fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above; every pattern of bytes that is written is a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), std::mem::size_of_val(values)) }
}

/// Values in the memory of the device. Given back when dropped, after the work that was asked for before.
pub struct Buffer<T> {
    machine: Arc<dyn Machine>,
    address: u64,
    len: usize,
    values: PhantomData<T>,
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} values on {})", self.len, self.machine.name())
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            self.machine.free(self.address, self.len * size_of::<T>());
        }
    }
}

impl<T> Buffer<T> {
    /// Where it is, for the structure that a kernel takes; 0 for an empty one.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address, which is from now on the caller's to free.
    pub fn into_address(self) -> u64 {
        std::mem::ManuallyDrop::new(self).address
    }
}

impl Gpu {
    /// Memory for `len` values, of no particular content.
    ///
    /// # Errors
    /// [`GpuError::Memory`].
    pub fn memory<T: Plain>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        let address = if len == 0 { 0 } else { self.0.allocate(len * size_of::<T>())? };
        Ok(Buffer { machine: Arc::clone(&self.0), address, len, values: PhantomData })
    }

    /// Memory for `len` values whose bytes are zero.
    ///
    /// # Errors
    /// [`GpuError::Memory`].
    pub fn zeros<T: Plain>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        let buffer = self.memory(len)?;
        self.clear(&buffer)?;
        Ok(buffer)
    }

    /// Makes all bytes zero.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn clear<T: Plain>(&self, buffer: &Buffer<T>) -> Result<(), GpuError> {
        if buffer.is_empty() { Ok(()) } else { self.0.zero(buffer.address, buffer.len * size_of::<T>()) }
    }

    /// `values` in memory of the device.
    ///
    /// # Errors
    /// [`GpuError::Memory`], [`GpuError::Failed`].
    pub fn upload<T: Plain>(&self, values: &[T]) -> Result<Buffer<T>, GpuError> {
        let buffer = self.memory(values.len())?;
        if !values.is_empty() {
            self.0.upload(buffer.address, bytes_of(values))?;
        }
        Ok(buffer)
    }

    /// Copies the first values of a buffer to the host; waits for all work that was asked for before.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when there are not as many, [`GpuError::Failed`].
    pub fn download_into<T: Plain>(&self, buffer: &Buffer<T>, values: &mut [T]) -> Result<(), GpuError> {
        if values.len() > buffer.len {
            let (have, want) = (buffer.len, values.len());
            return Err(GpuError::Shape(format!("{want} values were asked of a buffer of {have}")));
        }
        if values.is_empty() { Ok(()) } else { self.0.download(buffer.address, bytes_of_mut(values)) }
    }

    /// All values, on the host; waits for all work that was asked for before.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn download<T: Plain + Default>(&self, buffer: &Buffer<T>) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::default(); buffer.len];
        self.download_into(buffer, &mut values)?;
        Ok(values)
    }

    /// Begins to copy the first values of a buffer to the host, as many as `to` holds, in order with the work of the
    /// device; the host goes on meanwhile.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when there are not as many, [`GpuError::Failed`].
    pub fn fetch<T: Plain>(&self, from: &Buffer<T>, mut to: Pinned<T>) -> Result<Coming<T>, GpuError> {
        let (have, want) = (from.len, to.len);
        if want > have {
            return Err(GpuError::Shape(format!("{want} values were asked of a buffer of {have}")));
        }
        let ticket = self.0.fetch(from.address, bytes_of_mut(&mut to))?;
        Ok(Coming { values: Some(to), ticket })
    }

    /// Copies `from` to the beginning of `to`, on the device.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when `to` is shorter, [`GpuError::Failed`].
    pub fn copy<T: Plain>(&self, from: &Buffer<T>, to: &mut Buffer<T>) -> Result<(), GpuError> {
        if to.len < from.len {
            return Err(GpuError::Shape(format!("{} values do not fit {}", from.len, to.len)));
        }
        if from.is_empty() {
            Ok(())
        } else {
            self.0.copy(from.address, to.address, from.len * size_of::<T>())
        }
    }

    /// Memory of the host that the device copies from while the host does something else; zero at first.
    ///
    /// # Errors
    /// [`GpuError::Memory`].
    pub fn pinned<T: Plain>(&self, len: usize) -> Result<Pinned<T>, GpuError> {
        let start = if len == 0 {
            std::ptr::NonNull::dangling().as_ptr()
        } else {
            self.0.pin(len * size_of::<T>())?.cast()
        };
        Ok(Pinned { machine: Arc::clone(&self.0), start, len })
    }

    /// Begins to copy the first `len` values of `from` to the beginning of `to`, beside the work of the device, but
    /// after what was asked for before. Work that reads `to` is asked for after [`Gpu::after`]; `from` is left alone
    /// until [`Gpu::finish`] returns.
    ///
    /// # Errors
    /// [`GpuError::Shape`] when either is shorter, [`GpuError::Failed`].
    pub fn stage<T: Plain>(
        &self,
        from: &Pinned<T>,
        len: usize,
        to: &mut Buffer<T>,
    ) -> Result<Ticket, GpuError> {
        let source = from.get(..len).filter(|_| len <= to.len);
        let Some(source) = source else {
            return Err(GpuError::Shape(format!("{len} values from {} to {}", from.len, to.len)));
        };
        self.0.stage(to.address, bytes_of(source))
    }
}

/// Values on their way from the device. Dropped, it waits for them too: their memory must not be given away before.
#[derive(Debug)]
pub struct Coming<T: Plain> {
    values: Option<Pinned<T>>,
    ticket: Ticket,
}

impl<T: Plain> Drop for Coming<T> {
    fn drop(&mut self) {
        if let Some(values) = &self.values {
            // Where that fails, so has the device, and the next call says so.
            let _ = values.machine.finish(&self.ticket);
        }
    }
}

impl<T: Plain> Coming<T> {
    /// The memory they were to come to, when they are there; waits for nothing that was asked for later.
    ///
    /// # Errors
    /// [`GpuError::Failed`], also for work that was asked for before.
    pub fn wait(mut self, gpu: &Gpu) -> Result<Pinned<T>, GpuError> {
        gpu.finish(&self.ticket)?;
        let gone = || GpuError::Failed { what: "copying from it", message: "it came before".to_owned() };
        self.values.take().ok_or_else(gone)
    }
}

/// Values in memory of the host that the device may copy from by itself.
pub struct Pinned<T: Plain> {
    machine: Arc<dyn Machine>,
    start: *mut T,
    len: usize,
}

// SAFETY: it owns its memory, and plain values may go to any thread.
#[allow(unsafe_code)]
unsafe impl<T: Plain> Send for Pinned<T> {}
// SAFETY: as above; shared references only read.
#[allow(unsafe_code)]
unsafe impl<T: Plain> Sync for Pinned<T> {}

impl<T: Plain> std::fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({} values)", self.len)
    }
}

impl<T: Plain> std::ops::Deref for Pinned<T> {
    type Target = [T];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is memory for `len` values that are its own, written when it was made.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Pinned<T> {
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T: Plain> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            self.machine.unpin(self.start.cast(), self.len * size_of::<T>());
        }
    }
}
