//! Encoders, contrastive training and probes for music representation learning.
//!
//! A [`model::Model`] maps log-mel frames of a *view* to one embedding per *subspace* ("head"): an
//! [`encoder`] of transformer blocks with one class token per subspace, and a projection per subspace
//! that only training uses. [`train`] fits it with one contrastive [`loss`] per subspace, whose
//! positives come as group ids, one per view. [`checkpoint`] keeps it.
//!
//! Speed and correctness rest on two layers. [`kernels`] holds hand-written forward and backward
//! passes over CPU slices, generic over `f32` and `f64`; [`encoder`] hands them to candle as two
//! custom operations, so that everything between (projections, loss) is ordinary candle autograd.
//! On other devices the same network is composed of candle operations ([`layers`]), and tests hold
//! the two against each other and against finite differences in `f64`.
//!
//! All randomness is keyed ([`loev_ops::rng`]); results do not depend on the number of threads.

pub mod card;
pub mod checkpoint;
pub mod device;
pub mod encoder;
pub mod error;
pub mod evaluate;
pub mod gpu;
#[cfg(test)]
mod gradients;
pub mod kernels;
pub mod layers;
pub mod loss;
pub mod model;
pub mod optim;
pub mod params;
pub mod probe;
pub mod train;

pub use candle_core::{DType, Device, Tensor};
pub use error::{ModelError, Result};
pub use loev_ops::metrics;
pub use model::{Method, Model, ModelConfig};
