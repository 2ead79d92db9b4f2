//! Features of views that are on the device: masks over time and frequency, and whether they are finite.

use super::{KERNELS, arguments};
use loev_ops::gpu::{Buffer, Gpu, GpuError, Launch};

/// Ranges of frames and of bands, the same number of them for each view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// Ranges of frames of a view.
    pub times: usize,
    /// Ranges of bands of a view.
    pub bands: usize,
    /// First and last but one of each range: of all frames of a view, then of its bands, view after view.
    pub words: Vec<u32>,
}

arguments! {
    struct Mask { features: u64, mean: u64, ranges: u64, frames: i32, mels: i32, times: i32, bands: i32 }
}

/// Puts the mean of each band in the place of what lies in a view's `ranges`, whose words are `words` on the device.
/// `features` is the address of `[views, frames, mean.len()]` values.
///
/// # Errors
/// [`GpuError::Shape`] when there are not as many ranges, [`GpuError::Kernel`].
pub fn mask(
    gpu: &Gpu,
    features: u64,
    [views, frames]: [usize; 2],
    mean: &Buffer<f32>,
    ranges: &Ranges,
    words: &Buffer<u32>,
) -> Result<(), GpuError> {
    let Ranges { times, bands, .. } = *ranges;
    if words.len() != views * 2 * (times + bands) {
        let have = words.len() / 2;
        return Err(GpuError::Shape(format!("{have} ranges are not {} of {views} views", times + bands)));
    }
    let arguments = Mask {
        features,
        mean: mean.address(),
        ranges: words.address(),
        frames: frames as i32,
        mels: mean.len() as i32,
        times: times as i32,
        bands: bands as i32,
    };
    gpu.launch(&KERNELS, "mask_features", Launch::blocks([views, 1, 1], 256), &arguments)
}

arguments! {
    struct Finite { features: u64, faults: u64, values: i64 }
}

arguments! {
    struct First { faults: u64, first: u64, views: i64 }
}

/// Writes the number, from 1, of the first of `views` views of `values` values that are not all finite to `first`, in
/// double precision; 0 where there is none.
///
/// # Errors
/// [`GpuError::Memory`], [`GpuError::Kernel`].
pub fn first_fault(
    gpu: &Gpu,
    features: u64,
    [views, values]: [usize; 2],
    first: u64,
) -> Result<(), GpuError> {
    let faults = gpu.memory::<f32>(views)?;
    let finite = Finite { features, faults: faults.address(), values: values as i64 };
    gpu.launch(&KERNELS, "finite_views", Launch::blocks([views, 1, 1], 256), &finite)?;
    let arguments = First { faults: faults.address(), first, views: views as i64 };
    gpu.launch(&KERNELS, "first_fault", Launch::blocks([1, 1, 1], 1024), &arguments)
}
