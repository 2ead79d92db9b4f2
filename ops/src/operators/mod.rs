//! The operators. One file each, and one line here.

pub(crate) mod background;
pub(crate) mod bit_crush;
pub(crate) mod chorus;
pub(crate) mod clipping;
mod codec;
pub(crate) mod colored_noise;
pub(crate) mod compressor;
pub(crate) mod convolve;
mod dc_offset;
pub(crate) mod delay;
pub(crate) mod distortion;
pub(crate) mod equalizer;
pub(crate) mod fade;
pub(crate) mod filter;
mod flanger;
pub(crate) mod gain;
mod limiter;
mod loudness;
pub(crate) mod mixup;
pub(crate) mod modulation;
pub(crate) mod pan;
mod phaser;
mod pitch_shift;
mod polarity;
mod random_crop;
pub(crate) mod reverb;
mod reverse;
pub(crate) mod room;
mod sample_rate_reduction;
pub(crate) mod spec;
mod stereo_width;
mod tape_speed;
pub(crate) mod time_mask;
mod time_stretch;

use crate::operator::OperatorDef;

#[rustfmt::skip]
static ALL: &[&OperatorDef] = &[
    &gain::DEF,
    &polarity::DEF,
    &loudness::DEF,
    &compressor::DEF,
    &limiter::DEF,
    &pan::DEF,
    &stereo_width::DEF,
    &filter::DEF,
    &equalizer::DEF,
    &distortion::DEF,
    &clipping::DEF,
    &bit_crush::DEF,
    &sample_rate_reduction::DEF,
    &codec::DEF,
    &dc_offset::DEF,
    &colored_noise::DEF,
    &background::DEF,
    &mixup::DEF,
    &reverb::DEF,
    &convolve::DEF,
    &room::DEF,
    &delay::DEF,
    &chorus::DEF,
    &flanger::DEF,
    &phaser::DEF,
    &pitch_shift::DEF,
    &time_stretch::DEF,
    &tape_speed::DEF,
    &random_crop::DEF,
    &reverse::DEF,
    &time_mask::DEF,
    &fade::DEF,
];

/// Every operator, in the order in which `loev ops` lists them.
pub fn all() -> &'static [&'static OperatorDef] {
    ALL
}

/// The operator of a name.
pub fn find(name: &str) -> Option<&'static OperatorDef> {
    ALL.iter().copied().find(|def| def.name == name)
}
