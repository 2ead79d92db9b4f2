//! Places in a statement: the line with a caret under it, and the bytes they stand for.

use std::ops::Range;

use crate::error::Place;

/// Characters of a long line that are shown around the place.
const WINDOW: usize = 100;
/// Characters kept before the place when a long line is cut.
const LEAD: usize = 40;

/// The line of `place` with a caret line under it, or `None` if there is no such line.
pub(crate) fn snippet(statement: &str, place: Place) -> Option<String> {
    let line: Vec<char> = statement.lines().nth(place.line.checked_sub(1)?)?.chars().collect();
    let column = place.column.max(1) - 1;
    let start = if line.len() > WINDOW { column.saturating_sub(LEAD).min(line.len()) } else { 0 };
    let end = (start + WINDOW).min(line.len());
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < line.len() { "…" } else { "" });

    let shown: String = line[start..end].iter().collect();
    // A tab before the place stays a tab under it, so that the caret lines up in any terminal.
    let indent: String = before
        .chars()
        .map(|_| ' ')
        .chain((start..column).map(|i| if line.get(i) == Some(&'\t') { '\t' } else { ' ' }))
        .collect();
    let carets = "^".repeat(place.length.min(end.saturating_sub(column)).max(1));
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    Some(format!("  {number} | {before}{shown}{after}\n  {gutter} | {indent}{carets}"))
}

/// The bytes of `place` in `statement`, or `None` if it lies outside.
pub(crate) fn byte_range(statement: &str, place: Place) -> Option<Range<usize>> {
    let line_start = match place.line {
        0 => return None,
        1 => 0,
        line => statement.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    let rest = &statement[line_start..];
    let offset = |chars: usize| rest.char_indices().nth(chars).map_or(rest.len(), |(byte, _)| byte);
    let first = place.column.max(1) - 1;
    Some(line_start + offset(first)..line_start + offset(first + place.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let place = Place { line: 2, column: 6, length: 4 };
        assert_eq!(snippet("select *\nfrom clps", place).unwrap(), "  2 | from clps\n    |      ^^^^");
        assert_eq!(byte_range("select *\nfrom clps", place), Some(14..18));
    }

    #[test]
    fn tabs_and_wide_characters_keep_their_columns() {
        let place = Place { line: 1, column: 4, length: 1 };
        assert_eq!(snippet("\té x", place).unwrap(), "  1 | \té x\n    | \t  ^");
        assert_eq!(byte_range("\té x", place), Some(4..5));
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let statement = format!("select {} nope from clips {}", "a, ".repeat(80), "x".repeat(200));
        let column = statement.find("nope").unwrap() + 1;
        let text = snippet(&statement, Place { line: 1, column, length: 4 }).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].chars().count() <= WINDOW + 10);
        let caret = lines[1].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[0].chars().skip(caret).take(4).collect::<String>(), "nope");
    }

    #[test]
    fn places_outside_the_text_are_none() {
        assert_eq!(snippet("select 1", Place { line: 9, column: 1, length: 1 }), None);
        assert_eq!(byte_range("select 1", Place { line: 9, column: 1, length: 1 }), None);
        // One past the end is where "something is missing" points.
        assert_eq!(byte_range("select", Place { line: 1, column: 7, length: 1 }), Some(6..6));
        assert!(snippet("select", Place { line: 1, column: 7, length: 1 }).unwrap().ends_with("      ^"));
    }
}
