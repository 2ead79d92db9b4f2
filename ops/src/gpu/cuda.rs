//! The device by CUDA: one stream for the work, one for copies from the host.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cufft::{result as fft, sys as fft_sys};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};

use super::{GpuError, Kernels, Launch, Machine, Ticket, Transform};

/// Shared memory that a block may have without asking for more.
const SHARED: u32 = 48 << 10;

/// A device, and what was loaded onto it.
pub struct Cuda {
    stream: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    modules: Mutex<HashMap<&'static str, Module>>,
    functions: Mutex<HashMap<(&'static str, &'static str), Function>>,
    plans: Mutex<HashMap<Transform, Plan>>,
}

#[derive(Clone, Copy)]
struct Module(sys::CUmodule);
#[derive(Clone, Copy)]
struct Function(sys::CUfunction);
struct Plan(fft_sys::cufftHandle);

// SAFETY: handles of the driver may be used by any thread that has bound the context, as every use here does first.
#[allow(unsafe_code)]
unsafe impl Send for Module {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Send for Function {}
// SAFETY: as above; plans are used under a lock.
#[allow(unsafe_code)]
unsafe impl Send for Plan {}

impl Drop for Plan {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the plan was made by `plan_many` and is dropped once.
        let _ = unsafe { fft::destroy(self.0) };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: &'static str) -> impl Fn(DriverError) -> GpuError {
    move |error| GpuError::Failed { what, message: error.to_string() }
}

impl Cuda {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self, GpuError> {
        let absent = |error: DriverError| GpuError::Absent(error.to_string());
        let copies = stream.context().new_stream().map_err(absent)?;
        Ok(Self {
            stream,
            copies,
            modules: Mutex::default(),
            functions: Mutex::default(),
            plans: Mutex::default(),
        })
    }

    fn context(&self) -> &Arc<CudaContext> {
        self.stream.context()
    }

    fn bind(&self, what: &'static str) -> Result<(), GpuError> {
        self.context().bind_to_thread().map_err(failed(what))
    }

    #[allow(unsafe_code)]
    fn function(&self, kernels: &'static Kernels, name: &'static str) -> Result<Function, GpuError> {
        if let Some(function) = lock(&self.functions).get(&(kernels.name, name)) {
            return Ok(*function);
        }
        let error =
            |error: DriverError| GpuError::Kernel { kernel: name.to_owned(), message: error.to_string() };
        let mut modules = lock(&self.modules);
        let module = match modules.get(kernels.name) {
            Some(module) => *module,
            None => {
                // SAFETY: the image is what nvcc wrote, and lives as long as the program.
                let module = unsafe { result::module::load_data(kernels.image.as_ptr().cast()) };
                *modules.entry(kernels.name).or_insert(Module(module.map_err(error)?))
            }
        };
        let c_name = CString::new(name).unwrap_or_default();
        // SAFETY: the module stays loaded as long as the context.
        let function = Function(unsafe { result::module::get_function(module.0, c_name) }.map_err(error)?);
        lock(&self.functions).insert((kernels.name, name), function);
        Ok(function)
    }

    fn event(&self, what: &'static str, stream: &CudaStream) -> Result<CudaEvent, GpuError> {
        let event = self.context().new_event(None).map_err(failed(what))?;
        event.record(stream).map_err(failed(what))?;
        Ok(event)
    }
}

#[allow(unsafe_code)]
impl Machine for Cuda {
    fn name(&self) -> String {
        self.context().name().unwrap_or_else(|_| "cuda".to_owned())
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        let error = |error: DriverError| GpuError::Memory { bytes, message: error.to_string() };
        self.context().bind_to_thread().map_err(error)?;
        // SAFETY: the memory is used on this stream, and given back on it.
        unsafe { result::malloc_async(self.stream.cu_stream(), bytes) }.map_err(error)
    }

    fn free(&self, address: u64, _bytes: usize) {
        if self.context().bind_to_thread().is_ok() {
            // SAFETY: `address` came from `allocate` and is given back once, after the work on this stream. Where
            // that fails, so has the device, and the next call says so.
            let _ = unsafe { result::free_async(address, self.stream.cu_stream()) };
        }
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError> {
        self.bind("clearing memory")?;
        // SAFETY: the caller's buffer holds `bytes` bytes.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) }
            .map_err(failed("clearing memory"))
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), GpuError> {
        self.bind("copying to it")?;
        // SAFETY: the caller's buffer is as long. From pageable memory the driver returns when it has read it.
        unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) }
            .map_err(failed("copying to it"))
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        self.bind("copying from it")?;
        // SAFETY: the caller's buffer is as long, and the stream is waited for before `to` is looked at.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }
            .map_err(failed("copying from it"))?;
        self.synchronise()
    }

    fn fetch(&self, from: u64, to: &mut [u8]) -> Result<Ticket, GpuError> {
        const WHAT: &str = "copying from it";
        self.bind(WHAT)?;
        // SAFETY: the caller's buffer is as long; `to` is pinned and left alone until the event has come.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }.map_err(failed(WHAT))?;
        Ok(Ticket(Arc::new(self.event(WHAT, &self.stream)?)))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        self.bind("copying")?;
        // SAFETY: both of the caller's buffers hold `bytes` bytes.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(failed("copying"))
    }

    fn launch(
        &self,
        kernels: &'static Kernels,
        name: &'static str,
        launch: Launch,
        arguments: &[u8],
    ) -> Result<(), GpuError> {
        let error =
            |error: DriverError| GpuError::Kernel { kernel: name.to_owned(), message: error.to_string() };
        self.context().bind_to_thread().map_err(error)?;
        let Function(function) = self.function(kernels, name)?;
        if launch.shared > SHARED {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(function, attribute, launch.shared as i32) }
                .map_err(error)?;
        }
        let [x, y, z] = launch.grid;
        let mut parameters = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes one structure, of which `arguments` are the bytes: the mirror checks for every
        // kernel that both sides declare it alike. The driver copies them before it returns.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.stream.cu_stream(),
                &mut parameters,
            )
        }
        .map_err(error)
    }

    fn transform(&self, transform: Transform, from: u64, to: u64) -> Result<(), GpuError> {
        self.bind("transforming")?;
        let error =
            |error: fft::CufftError| GpuError::Failed { what: "transforming", message: format!("{error:?}") };
        let mut plans = lock(&self.plans);
        let plan = match plans.entry(transform) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(plan(transform, &self.stream)?),
        };
        // SAFETY: the plan reads and writes what `Gpu::transform` has checked that the buffers hold.
        unsafe {
            if transform.forward {
                fft::exec_r2c(plan.0, from as *mut fft_sys::cufftReal, to as *mut fft_sys::cufftComplex)
            } else {
                fft::exec_c2r(plan.0, from as *mut fft_sys::cufftComplex, to as *mut fft_sys::cufftReal)
            }
        }
        .map_err(error)
    }

    fn synchronise(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(failed("the work asked for"))
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8, GpuError> {
        let error = |error: DriverError| GpuError::Memory { bytes, message: error.to_string() };
        self.context().bind_to_thread().map_err(error)?;
        // SAFETY: the memory is zeroed before anything reads it, and given back by `unpin` alone.
        unsafe {
            let address = result::malloc_host(bytes, 0).map_err(error)?.cast::<u8>();
            address.write_bytes(0, bytes);
            Ok(address)
        }
    }

    fn unpin(&self, address: *mut u8, _bytes: usize) {
        if self.context().bind_to_thread().is_ok() {
            // SAFETY: `address` came from `pin`, and is given back once; the driver waits for copies from it.
            let _ = unsafe { result::free_host(address.cast()) };
        }
    }

    fn stage(&self, to: u64, from: &[u8]) -> Result<Ticket, GpuError> {
        const WHAT: &str = "copying to it";
        self.bind(WHAT)?;
        let before = self.event(WHAT, &self.stream)?;
        self.copies.wait(&before).map_err(failed(WHAT))?;
        // SAFETY: the caller's buffer is as long; `from` is pinned and left alone until the event has come.
        unsafe { result::memcpy_htod_async(to, from, self.copies.cu_stream()) }.map_err(failed(WHAT))?;
        Ok(Ticket(Arc::new(self.event(WHAT, &self.copies)?)))
    }

    fn after(&self, ticket: &Ticket) -> Result<(), GpuError> {
        let event = ticket.0.downcast_ref::<CudaEvent>();
        event.map_or(Ok(()), |event| self.stream.wait(event)).map_err(failed("waiting for a copy"))
    }

    fn mark(&self) -> Result<Ticket, GpuError> {
        const WHAT: &str = "taking the time";
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.context().new_event(flags).map_err(failed(WHAT))?;
        event.record(&self.stream).map_err(failed(WHAT))?;
        Ok(Ticket(Arc::new(event)))
    }

    fn between(&self, from: &Ticket, to: &Ticket) -> Result<f64, GpuError> {
        let (from, to) = (from.0.downcast_ref::<CudaEvent>(), to.0.downcast_ref::<CudaEvent>());
        let (Some(from), Some(to)) = (from, to) else { return Ok(0.0) };
        from.elapsed_ms(to).map(|ms| f64::from(ms) / 1e3).map_err(failed("taking the time"))
    }

    fn finish(&self, ticket: &Ticket) -> Result<(), GpuError> {
        let event = ticket.0.downcast_ref::<CudaEvent>();
        event.map_or(Ok(()), CudaEvent::synchronize).map_err(failed("waiting for a copy"))
    }
}

#[allow(unsafe_code)]
fn plan(transform: Transform, stream: &CudaStream) -> Result<Plan, GpuError> {
    let Transform { size, rows, forward } = transform;
    let error = |error: fft::CufftError| GpuError::Failed {
        what: "planning a transform",
        message: format!("{error:?}"),
    };
    let int = |n: usize| {
        i32::try_from(n)
            .map_err(|_| GpuError::Shape(format!("a transform of {rows} rows of {size} is too large")))
    };
    let (bins, kind) =
        (size / 2 + 1, if forward { fft_sys::cufftType::CUFFT_R2C } else { fft_sys::cufftType::CUFFT_C2R });
    let (from, to) = if forward { (size, bins) } else { (bins, size) };
    let mut sizes = [int(size)?];
    // SAFETY: one dimension of dense rows; no embedding.
    unsafe {
        let null = std::ptr::null_mut();
        let handle =
            fft::plan_many(1, sizes.as_mut_ptr(), null, 1, int(from)?, null, 1, int(to)?, kind, int(rows)?)
                .map_err(error)?;
        let plan = Plan(handle);
        fft::set_stream(handle, stream.cu_stream().cast()).map_err(error)?;
        Ok(plan)
    }
}
