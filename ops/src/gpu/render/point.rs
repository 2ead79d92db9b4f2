//! Operators of single frames: what the host works out for `point.cu`.

use super::batch::Run;
use super::round::Kind;
use super::tables::{At, Tables};
use super::{Arena, THREADS, arguments};
use crate::gpu::{GpuError, Launch};
use crate::operators::time_mask::Mask;
use crate::operators::{bit_crush, clipping, fade, gain, pan};

/// What a point kernel does: `Point` of `point.cu`.
mod what {
    pub(super) const GAIN: i32 = 0;
    pub(super) const OFFSET: i32 = 1;
    pub(super) const CLIP: i32 = 2;
    pub(super) const FADE: i32 = 3;
    pub(super) const MASK: i32 = 4;
    pub(super) const REVERSE: i32 = 5;
    pub(super) const PAN: i32 = 6;
    pub(super) const WIDTH: i32 = 7;
    pub(super) const CRUSH: i32 = 8;
}

arguments! {
    struct PointView {
        at: i64, key: u64, x: f64, y: f64, frames: i32, what: i32, i: i32, j: i32, k: i32, measure: i32,
    }
    struct Points { arena: Arena, views: u64, measures: u64 }
}

/// What is done to a view, but for its place; `None` where that is nothing.
pub(super) fn view(
    kind: Kind,
    params: &[f64],
    rate: u32,
    channels: usize,
    frames: usize,
) -> Option<PointView> {
    let nothing = PointView {
        at: 0,
        key: 0,
        x: 0.0,
        y: 0.0,
        frames: frames as i32,
        what: what::GAIN,
        i: 0,
        j: 0,
        k: 0,
        measure: 0,
    };
    let view = |what: i32, x: f64, y: f64| PointView { what, x, y, ..nothing };
    Some(match (kind, params) {
        (Kind::Gain, [db]) => view(what::GAIN, f64::from(gain::factor(*db)), 0.0),
        (Kind::Polarity, _) => view(what::GAIN, -1.0, 0.0),
        (Kind::DcOffset, [offset]) if *offset != 0.0 => view(what::OFFSET, *offset, 0.0),
        (Kind::Clipping, [db]) if *db < 0.0 => view(what::CLIP, clipping::share(*db), 0.0),
        (Kind::Fade, [in_s, out_s, curve]) => {
            let [i, j] = [*in_s, *out_s].map(|seconds| fade::length(seconds, rate, frames) as i32);
            PointView { i, j, k: *curve as i32, ..view(what::FADE, 0.0, 0.0) }
        }
        (Kind::TimeMask, [start, length]) => {
            let Mask { from, masked, edge } = Mask::new(*start, *length, rate, frames);
            PointView { i: from as i32, j: masked as i32, k: edge as i32, ..view(what::MASK, 0.0, 0.0) }
        }
        (Kind::Reverse, _) => view(what::REVERSE, 0.0, 0.0),
        (Kind::Pan, [position]) if *position != 0.0 && channels > 1 => {
            view(what::PAN, pan::gain(-position), pan::gain(*position))
        }
        (Kind::StereoWidth, [width]) if *width != 1.0 && channels > 1 => view(what::WIDTH, *width, 0.0),
        (Kind::BitCrush, [bits, dither]) => {
            let scale = bit_crush::scale(*bits);
            let i = i32::from(*dither as usize == bit_crush::TRIANGULAR);
            PointView { i, ..view(what::CRUSH, scale, 1.0 / scale) }
        }
        _ => return None,
    })
}

/// Views that point kernels go over together.
pub(super) struct PointsPass {
    views: At,
    count: usize,
    frames: usize,
}

impl PointsPass {
    pub fn new(views: &[PointView], tables: &mut Tables) -> Self {
        let frames = views.iter().map(|view| view.frames).max().unwrap_or(0) as usize;
        Self { views: tables.push(views), count: views.len(), frames }
    }
}

pub(super) fn points(run: &Run<'_>, pass: &PointsPass) -> Result<(), GpuError> {
    let arguments =
        Points { arena: run.arena(pass.count), views: run.table(pass.views), measures: run.measures(0) };
    let tiles = pass.frames.div_ceil(THREADS as usize);
    run.launch("point", Launch::blocks([tiles, pass.count, 1], THREADS), &arguments)
}
