//! The parameters of a model, by name and in the order of names.

use crate::{ModelError, Result, layers::init::Init};
use candle_core::{DType, Device, Tensor, Var};
use loev_ops::rng::Key;
use std::collections::{BTreeMap, btree_map::Entry};

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
    ///
    /// # Errors
    /// [`ModelError::Config`] when two have one name.
    pub fn new(
        specs: impl IntoIterator<Item = Spec>,
        key: Key,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        Self::with_values(specs, device, |spec| {
            let values = spec.init.values(&spec.shape, key.with_str(&spec.name));
            Ok(Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?)
        })
    }

    /// Parameters with values from elsewhere, of the shape that each asks for.
    pub(crate) fn with_values(
        specs: impl IntoIterator<Item = Spec>,
        device: &Device,
        mut values: impl FnMut(&Spec) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut params = BTreeMap::new();
        for spec in specs {
            let var = Var::from_tensor(&values(&spec)?.to_device(device)?)?;
            let Spec { name, decay, .. } = spec;
            match params.entry(name) {
                Entry::Vacant(place) => place.insert(Parameter { var, decay }),
                Entry::Occupied(place) => {
                    return Err(ModelError::Config(format!("two parameters are called {:?}", place.key())));
                }
            };
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

    /// A parameter.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// These and others, under one order of names. Values are shared, not copied.
    pub(crate) fn and(&self, others: Self) -> Self {
        let mut all = self.clone();
        all.0.extend(others.0);
        all
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
