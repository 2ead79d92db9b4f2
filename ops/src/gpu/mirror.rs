//! The mirror: memory of the host, kernels compiled for the CPU, transforms by realfft.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use libloading::Library;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use super::{GpuError, Kernels, Launch, Machine, Ticket, Transform};

/// Bytes of guard on either side of memory, and what they and fresh memory hold: NaN as `f32` and as `f64`.
const GUARD: usize = 256;
const UNWRITTEN: u8 = 0xFF;

/// What a kernel is in the library: grid, block, shared memory, arguments and their size.
type Entry = unsafe extern "C" fn(*const c_uint, c_uint, c_uint, *const c_void, usize) -> c_int;

#[derive(Default)]
pub(super) struct Mirror {
    memory: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Mirror {
    pub(super) fn new() -> Result<Self, GpuError> {
        let version = Command::new(compiler()).arg("--version").output();
        match version {
            Ok(output) if output.status.success() => Ok(Self::default()),
            _ => Err(GpuError::Absent(format!("the mirror needs the C++ compiler `{}`", compiler()))),
        }
    }

    /// The buffers whose guards were written to.
    fn damaged(&self) -> Option<String> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let guards = |block: &[u8]| {
            let whole = |guard: &[u8]| guard.iter().all(|byte| *byte == UNWRITTEN);
            whole(&block[..GUARD]) && whole(&block[block.len() - GUARD..])
        };
        let block = memory.values().find(|block| !guards(block))?;
        Some(format!("it wrote outside a buffer of {} bytes", block.len() - 2 * GUARD))
    }
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

/// The compiled kernels of a directory; each is compiled once, and kept by what its sources say.
fn library(kernels: &'static Kernels) -> Result<&'static Library, GpuError> {
    static LOADED: OnceLock<Mutex<HashMap<&'static str, &'static Library>>> = OnceLock::new();
    let absent = |message: String| GpuError::Absent(format!("the mirror of `{}`: {message}", kernels.name));
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded.get(kernels.name) {
        return Ok(library);
    }
    let path = compiled(kernels).map_err(absent)?;
    // SAFETY: the library is our own kernels, and has no code that runs when it is loaded.
    #[allow(unsafe_code)]
    let library = unsafe { Library::new(&path) }.map_err(|e| absent(e.to_string()))?;
    // Loaded for as long as the program runs.
    let library: &'static Library = Box::leak(Box::new(library));
    loaded.insert(kernels.name, library);
    Ok(library)
}

fn compiled(kernels: &Kernels) -> Result<PathBuf, String> {
    let common = Path::new(super::KERNELS.sources);
    let mut sources = files(Path::new(kernels.sources), &["cu", "cuh"])?;
    let headers = files(common, &["cuh"])?;
    let mirror = common.join("mirror");
    let all = sources.iter().chain(&headers).cloned().chain([mirror.join("mirror.h")]);
    let mut digest = blake3::Hasher::new();
    for path in all {
        digest.update(path.to_string_lossy().as_bytes());
        digest.update(&std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let name = format!("loev-mirror-{}-{}.so", kernels.name, &digest.finalize().to_hex()[..16]);
    let target = std::env::temp_dir().join(name);
    if target.exists() {
        return Ok(target);
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let includes: String = sources.iter().map(|path| format!("#include \"{}\"\n", path.display())).collect();
    let part = std::env::temp_dir().join(format!("loev-mirror-{}-{}", kernels.name, std::process::id()));
    let (unit, made) = (part.with_extension("cpp"), part.with_extension("so.part"));
    std::fs::write(&unit, includes).map_err(|e| e.to_string())?;
    let output = Command::new(compiler())
        .args(["-std=c++17", "-O1", "-g1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-include"])
        .arg(mirror.join("mirror.h"))
        .arg("-I")
        .arg(common)
        .arg("-o")
        .arg(&made)
        .arg(&unit)
        .output()
        .map_err(|e| e.to_string())?;
    std::fs::remove_file(&unit).ok();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    std::fs::rename(&made, &target).map_err(|e| e.to_string())?;
    Ok(target)
}

/// The files of a directory with one of these extensions, in order of names.
fn files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let wanted = |path: &PathBuf| path.extension().is_some_and(|have| extensions.iter().any(|e| have == *e));
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(wanted).collect();
    files.sort();
    Ok(files)
}

#[allow(unsafe_code)]
impl Machine for Mirror {
    fn name(&self) -> String {
        "mirror".to_owned()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        // A multiple of 8 that is the start of an allocation stays aligned as the device's memory is to 256: the
        // block is moved to such an address inside itself.
        let block = vec![UNWRITTEN; bytes + 2 * GUARD];
        let address = block.as_ptr() as u64 + GUARD as u64;
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(address, block);
        Ok(address)
    }

    fn free(&self, address: u64, _bytes: usize) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: the caller's buffer holds `bytes` bytes.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), GpuError> {
        // SAFETY: the caller's buffer is as long.
        unsafe { (to as *mut u8).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        // SAFETY: the caller's buffer is as long.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from as *const u8, to.len()) };
        Ok(())
    }

    fn fetch(&self, from: u64, to: &mut [u8]) -> Result<Ticket, GpuError> {
        self.download(from, to)?;
        Ok(Ticket(Arc::new(())))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: both of the caller's buffers hold `bytes` bytes.
        unsafe { (to as *mut u8).copy_from(from as *const u8, bytes) };
        Ok(())
    }

    fn launch(
        &self,
        kernels: &'static Kernels,
        name: &'static str,
        launch: Launch,
        arguments: &[u8],
    ) -> Result<(), GpuError> {
        let error = |message: String| GpuError::Kernel { kernel: name.to_owned(), message };
        let symbol = CString::new(name).map_err(|e| error(e.to_string()))?;
        // SAFETY: every kernel has this form; the macro that declares them gives it to them.
        let code = unsafe {
            let entry = library(kernels)?
                .get::<Entry>(symbol.as_bytes_with_nul())
                .map_err(|e| error(e.to_string()))?;
            entry(
                launch.grid.as_ptr(),
                launch.block,
                launch.shared,
                arguments.as_ptr().cast(),
                arguments.len(),
            )
        };
        match code {
            0 => self.damaged().map_or(Ok(()), |message| Err(error(message))),
            1 => Err(error(format!(
                "it takes another structure than the {} bytes it was given",
                arguments.len()
            ))),
            2 => Err(error("its threads wait at different barriers".to_owned())),
            code => Err(error(format!("code {code}"))),
        }
    }

    fn transform(&self, transform: Transform, from: u64, to: u64) -> Result<(), GpuError> {
        let Transform { size, rows, forward } = transform;
        let bins = size / 2 + 1;
        let failed =
            |error: realfft::FftError| GpuError::Failed { what: "transforming", message: error.to_string() };
        let mut planner = RealFftPlanner::<f32>::new();
        // SAFETY: `Gpu::transform` has checked that the buffers hold so much; pairs of floats are complex numbers.
        unsafe {
            let (reals, complex) = if forward { (from, to) } else { (to, from) };
            let reals = std::slice::from_raw_parts_mut(reals as *mut f32, size * rows);
            let complex = std::slice::from_raw_parts_mut(complex as *mut Complex<f32>, bins * rows);
            for (real, complex) in reals.chunks_exact_mut(size).zip(complex.chunks_exact_mut(bins)) {
                if forward {
                    let mut input = real.to_vec();
                    planner.plan_fft_forward(size).process(&mut input, complex).map_err(failed)?;
                } else {
                    complex[0].im = 0.0;
                    if size.is_multiple_of(2) {
                        complex[bins - 1].im = 0.0;
                    }
                    planner.plan_fft_inverse(size).process(complex, real).map_err(failed)?;
                    // Of no use afterwards, so let whoever uses it see that.
                    complex.fill(Complex::new(f32::NAN, f32::NAN));
                }
            }
        }
        Ok(())
    }

    fn synchronise(&self) -> Result<(), GpuError> {
        Ok(())
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8, GpuError> {
        let address = self.allocate(bytes)?;
        self.zero(address, bytes)?;
        Ok(address as *mut u8)
    }

    fn unpin(&self, address: *mut u8, bytes: usize) {
        self.free(address as u64, bytes);
    }

    fn stage(&self, to: u64, from: &[u8]) -> Result<Ticket, GpuError> {
        self.upload(to, from)?;
        Ok(Ticket(Arc::new(())))
    }

    fn after(&self, _: &Ticket) -> Result<(), GpuError> {
        Ok(())
    }

    fn finish(&self, _: &Ticket) -> Result<(), GpuError> {
        Ok(())
    }

    fn mark(&self) -> Result<Ticket, GpuError> {
        Ok(Ticket(Arc::new(Instant::now())))
    }

    fn between(&self, from: &Ticket, to: &Ticket) -> Result<f64, GpuError> {
        let (from, to) = (from.0.downcast_ref::<Instant>(), to.0.downcast_ref::<Instant>());
        Ok(from.zip(to).map_or(0.0, |(from, to)| to.duration_since(*from).as_secs_f64()))
    }
}
