//! Log-mel frames of a batch, wherever they are.

use crate::Result;
use candle_core::{DType, Tensor};
use std::borrow::Cow;

/// The features of views: `[views, frames, mels]` in dB, row-major.
#[derive(Debug, Clone)]
pub enum Features {
    /// In memory of the host.
    Host(Vec<f32>),
    /// Rendered where the training is. It takes them over: masks are written in their place, for clones too.
    Device(Tensor),
}

impl Default for Features {
    fn default() -> Self {
        Self::Host(Vec::new())
    }
}

impl From<Vec<f32>> for Features {
    fn from(values: Vec<f32>) -> Self {
        Self::Host(values)
    }
}

impl From<Tensor> for Features {
    fn from(tensor: Tensor) -> Self {
        Self::Device(tensor)
    }
}

/// Features on the host are compared by value, others by whether they are the same tensor.
impl PartialEq for Features {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => a == b,
            (Self::Device(a), Self::Device(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}

impl Features {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Device(tensor) => tensor.elem_count(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values on the host; waits for the device where they are there.
    ///
    /// # Errors
    /// When the device fails.
    pub fn host(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match self {
            Self::Host(values) => Cow::Borrowed(values),
            Self::Device(tensor) => Cow::Owned(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        })
    }
}
