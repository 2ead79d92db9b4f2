//! The allocator of every program of this library: mimalloc, told to give freed pages back at once, and without huge
//! pages.
//!
//! Rendering takes and frees large buffers on many threads. The system's allocator, and mimalloc as it comes, let
//! resident memory grow with the length of a run, by pages that nobody uses any more. A huge page stays whole for one
//! small block in it: without them a run takes a quarter less memory, in the same time.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in the header of mimalloc 2 and 3: milliseconds that freed pages are kept. The bindings do
/// not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Sets the options of the allocator; once, at the start of a program.
#[allow(unsafe_code)]
pub fn start() {
    // SAFETY: sets an integer option that mimalloc reads whenever it frees pages; no pointer is involved.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
    }
    // mimalloc's own option is read before `main`. Where the system has no such switch, nothing is different.
    #[cfg(target_os = "linux")]
    {
        let (disable, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: numbers alone, of the width that the system reads.
        unsafe {
            libc::prctl(libc::PR_SET_THP_DISABLE, disable, unused, unused, unused);
        }
    }
}
