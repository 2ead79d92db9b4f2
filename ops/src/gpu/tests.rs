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

#[test]
fn values_come_while_the_host_goes_on() {
    let gpu = Gpu::mirror().unwrap();
    let buffer = gpu.upload(&[1.5f64, -2.0, 3.0]).unwrap();
    let coming = gpu.fetch(&buffer, gpu.pinned(2).unwrap()).unwrap();
    assert_eq!(coming.wait(&gpu).unwrap()[..], [1.5, -2.0]);
    assert!(matches!(gpu.fetch(&buffer, gpu.pinned(4).unwrap()), Err(GpuError::Shape(_))));
}
