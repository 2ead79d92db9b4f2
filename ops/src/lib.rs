//! Audio for music representation learning: where clips come from, what is drawn for a view of
//! one, and how that view is rendered.
//!
//! A *clip* is one audio file or one procedural piece ([`source`]). A *view* is one augmented
//! rendering of a *segment* of a clip; its parameters are a *draw* ([`views`]), a narrow row that
//! goes to and from Arrow ([`draw_table`]). [`render`] turns (audio, draw) into samples and is a
//! pure function: the same row gives the same view on every machine of one CPU class.
//! [`features`] turns samples into the log-mel frames that encoders read.
//!
//! [`metrics`], [`ridge`], [`neighbours`] and [`reduction`] are the arithmetic of evaluations, which stages and SQL
//! share.
//!
//! All randomness is counter-based and keyed ([`rng`]), so neither order nor threads matter.

mod address;
pub mod audio;
mod biquad;
pub mod chain;
mod convolution;
pub mod dist;
pub mod draw_table;
pub mod error;
pub mod features;
pub mod gpu;
pub mod jams;
mod kaiser;
pub mod labels;
pub mod loudness;
pub mod matrix;
pub mod measure;
pub mod metrics;
pub mod mir;
pub mod neighbours;
pub mod operator;
pub mod operators;
pub mod opus;
mod partners;
pub mod reduction;
pub mod render;
pub mod resample;
pub mod ridge;
pub mod rng;
pub mod search;
pub mod source;
mod speed;
pub mod synth;
pub mod views;
pub mod vocoder;
pub mod wav;
mod wet;

pub use audio::Audio;
pub use error::{AudioError, RejectKind};
