//! The mirror finds what it is there to find.

use super::arguments::arguments;
use super::*;

arguments! {
    struct View { at: i64, stride: i64, frames: i32, gap: i32 }
    struct MeasureAll { samples: u64, views: u64, measures: u64, channels: i32, gap: i32 }
    struct Short { samples: u64 }
    struct Values { x: u64, length: i64 }
}

/// Energies and peaks of two sounds, one block each, with barriers in between.
#[test]
fn kernels_run_barriers_hold_and_faults_are_found() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let samples = gpu.upload(&(0..200).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let view = |at| View { at, stride: 100, frames: 100, gap: 0 };
    let views = gpu.upload(&[view(0), view(100)]).unwrap();
    let measures = gpu.memory::<f64>(4).unwrap();
    assert!(gpu.download(&measures).unwrap().iter().all(|x| x.is_nan()));
    let measure = MeasureAll {
        samples: samples.address(),
        views: views.address(),
        measures: measures.address(),
        channels: 1,
        gap: 0,
    };
    gpu.launch(&KERNELS, "measure", Launch::blocks([2, 1, 1], 96), &measure).unwrap();
    let got = gpu.download(&measures).unwrap();
    assert_eq!((got[0], got[2]), (328_350.0, 2_318_350.0));
    assert_eq!((got[1].to_bits() as u32, got[3].to_bits() as u32), (99f32.to_bits(), 199f32.to_bits()));

    let beyond = gpu.launch(&KERNELS, "measure", Launch::blocks([3, 1, 1], 96), &measure);
    assert!(beyond.is_err_and(|e| e.to_string().contains("outside a buffer")));
    let short = gpu.launch(&KERNELS, "measure", Launch::blocks([1, 1, 1], 32), &Short { samples: 0 });
    assert!(short.is_err_and(|e| e.to_string().contains("another structure")));
    assert!(gpu.launch(&KERNELS, "no_such_kernel", Launch::items(1, 32), &measure).is_err());
}

static FAULTS: Kernels = Kernels {
    name: "faults",
    sources: concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/mirror/faults"),
    image: &[],
};

#[test]
fn the_mirror_finds_faults() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
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

#[test]
fn values_come_while_the_host_goes_on() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let buffer = gpu.upload(&[1.5f64, -2.0, 3.0]).unwrap();
    let coming = gpu.fetch(&buffer, gpu.pinned(2).unwrap()).unwrap();
    assert_eq!(coming.wait(&gpu).unwrap()[..], [1.5, -2.0]);
    assert!(matches!(gpu.fetch(&buffer, gpu.pinned(4).unwrap()), Err(GpuError::Shape(_))));
}

#[test]
fn the_time_of_kernels_is_taken_while_somebody_looks() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let x = gpu.upload(&[0.0f32; 256]).unwrap();
    let values = Values { x: x.address(), length: 256 };
    let run = || {
        gpu.launch(&FAULTS, "with_barrier", Launch::blocks([4, 1, 1], 64).shared(256), &values).unwrap();
    };
    run();
    gpu.begin_profile();
    run();
    run();
    let mut spectrum = gpu.memory::<f32>(2 * 129).unwrap();
    gpu.clone().forward(256, 1, &x, &mut spectrum).unwrap();
    let spent = gpu.end_profile().unwrap();
    let counts = |name| spent.iter().find(|spent| spent.name == name).map(|spent| spent.count);
    assert_eq!((counts("with_barrier"), counts("transform"), spent.len()), (Some(2), Some(1), 2));
    assert!(spent.iter().all(|spent| spent.seconds > 0.0) && spent[0].seconds >= spent[1].seconds);
    assert!(gpu.end_profile().unwrap().is_empty(), "nobody looks any more");
}
