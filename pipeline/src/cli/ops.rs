//! `loev ops`.

use loev_ops::{operator, operators};

use super::{Failure, print};

/// Lists the operators, or explains the one called `name`.
pub fn ops(name: Option<&str>, reference: bool) -> Result<(), Failure> {
    match name {
        None if reference => print(&operator::reference(operators::all())),
        None => print(&operator::list(operators::all())),
        Some(name) => match operators::find(name) {
            Some(def) => print(&operator::describe(def)),
            None => {
                let names: Vec<&str> = operators::all().iter().map(|def| def.name).collect();
                Err(Failure::Usage(format!("there is no operator `{name}`; there are {}", names.join(", "))))
            }
        },
    }
}
