//! The operators. One file each, and one line here.

mod chorus;
mod colored_noise;
mod compressor;
mod filter;
mod flanger;
mod gain;
mod limiter;
mod loudness;
mod modulation;
mod pan;
mod phaser;
mod pitch_shift;
mod polarity;
pub(crate) mod spec;
mod stereo_width;
mod time_stretch;

use crate::operator::OperatorDef;

#[rustfmt::skip]
static ALL: &[&OperatorDef] = &[
    &gain::DEF,
    &polarity::DEF,
    &colored_noise::DEF,
    &filter::DEF,
    &compressor::DEF,
    &limiter::DEF,
    &loudness::DEF,
    &chorus::DEF,
    &flanger::DEF,
    &phaser::DEF,
    &pan::DEF,
    &stereo_width::DEF,
    &pitch_shift::DEF,
    &time_stretch::DEF,
];

/// Every operator, in the order in which `loev ops` lists them.
pub fn all() -> &'static [&'static OperatorDef] {
    ALL
}

/// The operator of a name.
pub fn find(name: &str) -> Option<&'static OperatorDef> {
    ALL.iter().copied().find(|def| def.name == name)
}
