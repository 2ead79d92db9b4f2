//! "Did you mean": the known name nearest to a mistyped one.

/// The candidate that `name` most likely stands for, or `None` if nothing is near.
///
/// Near means a Damerau-Levenshtein distance of at most a third of the longer name (at least 1,
/// so that short names get one slip), or that one name starts with the other (`instrument`,
/// `instruments`). Case does not count. Of equally near names the first in order wins.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let known = candidate.to_lowercase();
        let longer = wanted.chars().count().max(known.chars().count());
        let edits = strsim::damerau_levenshtein(&wanted, &known);
        let prefix = wanted.len() >= 3
            && known.len() >= 3
            && (known.starts_with(&wanted) || wanted.starts_with(&known));
        let near = edits <= (longer / 3).max(1) && edits < longer;
        if (near || prefix) && best.is_none_or(|(least, kept)| (edits, candidate) < (least, kept)) {
            best = Some((edits, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Names as prose: at most `limit` of them, then how many more.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, limit: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(limit).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(limit) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let tables = ["clips", "embeddings", "probes", "views"];
        assert_eq!(nearest("clps", tables), Some("clips"));
        assert_eq!(nearest("CLIPS", tables), Some("clips"));
        assert_eq!(nearest("embeding", tables), Some("embeddings"));
        assert_eq!(nearest("veiws", tables), Some("views"));
        assert_eq!(nearest("emb", tables), Some("embeddings"));
        assert_eq!(nearest("rejects", tables), None);
        assert_eq!(nearest("x", tables), None);
    }

    #[test]
    fn long_lists_are_counted() {
        assert_eq!(listed(["a", "b"], 3), "a, b");
        assert_eq!(listed(["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}
