//! The operators. One file each, and one line here.

mod background;
mod bit_crush;
mod chorus;
mod clipping;
mod codec;
mod colored_noise;
mod compressor;
mod convolve;
mod dc_offset;
mod delay;
mod distortion;
mod equalizer;
mod fade;
mod filter;
mod flanger;
mod gain;
mod limiter;
mod loudness;
mod mixup;
mod modulation;
mod pan;
mod phaser;
mod pitch_shift;
mod polarity;
mod random_crop;
mod reverb;
mod reverse;
mod room;
mod sample_rate_reduction;
pub(crate) mod spec;
mod stereo_width;
mod tape_speed;
mod time_mask;
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
