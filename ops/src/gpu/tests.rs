//! The mirror finds what it is there to find.

use super::*;

#[derive(Clone, Copy)]
#[repr(C)]
struct Scale {
    x: u64,
    factor: u64,
    length: i64,
    views: i32,
    gap: i32,
}
// SAFETY: numbers without gaps.
#[allow(unsafe_code)]
unsafe impl Plain for Scale {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Sum {
    x: u64,
    sums: u64,
    length: i64,
}
// SAFETY: numbers without gaps.
#[allow(unsafe_code)]
unsafe impl Plain for Sum {}

#[test]
fn kernels_run_and_barriers_hold() {
    let gpu = Gpu::mirror().unwrap();
    let x = gpu.upload(&(0..200).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let factor = gpu.upload(&[2.0f32, -1.0]).unwrap();
    let scale = Scale { x: x.address(), factor: factor.address(), length: 100, views: 2, gap: 0 };
    gpu.launch(&KERNELS, "scale", Launch::items(200, 64), &scale).unwrap();
    let sums = gpu.memory::<f32>(2).unwrap();
    assert!(gpu.download(&sums).unwrap().iter().all(|x| x.is_nan()));
    let sum = Sum { x: x.address(), sums: sums.address(), length: 100 };
    gpu.launch(&KERNELS, "sum", Launch::blocks([2, 1, 1], 96), &sum).unwrap();
    assert_eq!(gpu.download(&sums).unwrap(), [9_900.0, -14_950.0]);
}

static FAULTS: Kernels =
    Kernels { name: "faults", sources: concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/mirror/faults"), image: &[] };

#[derive(Clone, Copy)]
#[repr(C)]
struct Values {
    x: u64,
    length: i64,
}
// SAFETY: numbers without gaps.
#[allow(unsafe_code)]
unsafe impl Plain for Values {}

#[test]
fn the_mirror_finds_faults() {
    let gpu = Gpu::mirror().unwrap();
    let run = |kernel: &'static str| {
        let x = gpu.upload(&(0..256).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        let values = Values { x: x.address(), length: 256 };
        gpu.launch(&FAULTS, kernel, Launch::blocks([4, 1, 1], 64).shared(256), &values)?;
        gpu.download(&x)
    };
    let turned: Vec<f32> = (0..256).map(|i| (i / 64 * 64 + (i + 1) % 64) as f32).collect();
    assert_eq!(run("with_barrier").unwrap(), turned);
    assert_ne!(run("no_barrier").unwrap(), turned);
    // Of two launches one runs the blocks in the order that hides the fault.
    assert_ne!(run("across_blocks").unwrap(), run("across_blocks").unwrap());
    let message = |kernel| run(kernel).unwrap_err().to_string();
    assert!(message("beyond_the_end").contains("outside a buffer"));
    assert!(message("different_barriers").contains("different barriers"));
    assert!(message("no_such_kernel").contains("no_such_kernel"));
    let error = gpu.launch(&FAULTS, "no_barrier", Launch::blocks([1, 1, 1], 1), &0u64).unwrap_err();
    assert!(error.to_string().contains("another structure"), "{error}");
}
