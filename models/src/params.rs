//! The parameters of a model, by name and in the order of names.

use crate::{ModelError, Result, layers::init::Init};
use candle_core::{DType, Device, Tensor, Var};
use loev_ops::rng::Key;
use std::collections::BTreeMap;

/// What a parameter is before it has values.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Dotted name, unique in a model.
    pub name: String,
    /// Shape; weights are `[out, in]`.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Whether weight decay applies: to matrices, not to biases, norms, tokens and positions.
    pub decay: bool,
}

/// A parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its values.
    pub var: Var,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// All parameters of a model. One order, that of names, holds for clipping, saving and updates.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, Parameter>);

impl Params {
    /// Parameters with their initial values.
    pub fn new(specs: &[Spec], key: Key, device: &Device, dtype: DType) -> Result<Self> {
        let mut params = BTreeMap::new();
        for Spec { name, shape, init, decay } in specs {
            let values = init.values(shape, key.with_str(name));
            let values = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
            let var = Var::from_tensor(&values.to_dtype(dtype)?.to_device(device)?)?;
            if params.insert(name.clone(), Parameter { var, decay: *decay }).is_some() {
                return Err(ModelError::Config(format!("two parameters are called {name:?}")));
            }
        }
        Ok(Self(params))
    }

    /// The values of a parameter, as part of the graph.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let parameter = self.0.get(name);
        parameter
            .map(|p| p.var.as_tensor().clone())
            .ok_or_else(|| ModelError::Config(format!("the model has no parameter {name:?}")))
    }

    /// Names and parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// Number of values in all parameters.
    pub fn count(&self) -> usize {
        self.0.values().map(|p| p.var.elem_count()).sum()
    }
}
