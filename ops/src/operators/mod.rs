//! The operators. One file each, and one line here.

mod background;
mod bit_crush;
mod clipping;
mod codec;
mod colored_noise;
mod dc_offset;
mod distortion;
mod equalizer;
mod fade;
mod filter;
mod gain;
mod mixup;
mod pitch_shift;
mod polarity;
mod random_crop;
mod reverse;
mod sample_rate_reduction;
pub(crate) mod spec;
mod tape_speed;
mod time_mask;
mod time_stretch;

use crate::operator::OperatorDef;

#[rustfmt::skip]
static ALL: &[&OperatorDef] = &[
    &gain::DEF,
    &polarity::DEF,
    &colored_noise::DEF,
    &filter::DEF,
    &pitch_shift::DEF,
    &time_stretch::DEF,
    &equalizer::DEF,
    &distortion::DEF,
    &clipping::DEF,
    &bit_crush::DEF,
    &sample_rate_reduction::DEF,
    &codec::DEF,
    &tape_speed::DEF,
    &dc_offset::DEF,
    &reverse::DEF,
    &time_mask::DEF,
    &fade::DEF,
    &random_crop::DEF,
    &background::DEF,
    &mixup::DEF,
];

/// Every operator, in the order in which `loev ops` lists them.
pub fn all() -> &'static [&'static OperatorDef] {
    ALL
}

/// The operator of a name.
pub fn find(name: &str) -> Option<&'static OperatorDef> {
    ALL.iter().copied().find(|def| def.name == name)
}
