//! The parameters of addresses of our own: `scheme:what?name=value&name=value`.

/// The values of `names`, in their order, from the part of an address behind its `?`.
///
/// # Errors
/// What is wrong: a parameter that is missing, unknown or given twice, or something that is none.
pub(crate) fn parameters<'a, const N: usize>(
    query: &'a str,
    names: [&str; N],
) -> Result<[&'a str; N], String> {
    let mut found = [None; N];
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not name=value"))?;
        let place = names.iter().zip(&mut found).find(|(known, _)| **known == name);
        let (_, place) = place.ok_or_else(|| format!("unknown parameter `{name}`"))?;
        if place.replace(value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    match names.iter().zip(&found).find(|(_, value)| value.is_none()) {
        Some((name, _)) => Err(format!("`{name}` is missing")),
        None => Ok(found.map(Option::unwrap_or_default)),
    }
}

/// The number that a parameter is.
///
/// # Errors
/// When it is none.
pub(crate) fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{value}` is not a number for `{name}`"))
}
