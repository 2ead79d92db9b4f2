//! Layers composed of candle operations whose gradients are right, for any device and float type.
//!
//! They serve the small tensors of the CPU path (projections, last norms) and the whole network on
//! other devices. candle's own fused norm, soft-max and attention are not used: they drop gradients.

pub mod activation;
pub mod attention;
pub mod block;
pub mod channels;
pub mod conv;
pub mod init;
pub mod linear;
pub mod norm;
pub mod standard;

#[cfg(test)]
pub(crate) mod check;
