//! Several statements in one text: where each begins and ends, and whether the last one is finished.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// The statements of `text`, in order. What stands before a statement is blank in it, but for line breaks, so that
/// errors name the lines of `text`. Text that cannot be read is the last one as it stands.
///
/// ```
/// let statements = loev_sql::statements("select ';'; -- one\nselect 2");
/// assert_eq!(statements, ["select ';'", "                  \nselect 2"]);
/// ```
pub fn statements(text: &str) -> Vec<String> {
    let Some(tokens) = tokens(text) else { return vec![text.to_owned()] };
    let starts = line_starts(text);
    let mut statements = Vec::new();
    let (mut from, mut seen) = (None, false);
    let mut push = |from: Option<usize>, to: usize| {
        if let Some(part) = from.and_then(|from: usize| Some((text.get(..from)?, text.get(from..to)?))) {
            let blank = part.0.chars().map(|c| if c == '\n' { c } else { ' ' });
            statements.push(blank.chain(part.1.trim_end().chars()).collect());
        }
    };
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                push(from.take(), byte_of(text, &starts, token));
                seen = false;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ if seen => {}
            _ => (from, seen) = (Some(byte_of(text, &starts, token)), true),
        }
    }
    push(from, text.len());
    statements
}

/// Whether `text` ends where a statement ends: behind a semicolon that is in no string and no comment, or with nothing
/// but space and comments. Text that can never be read counts as finished, so that its error is seen.
pub fn is_finished(text: &str) -> bool {
    match Tokenizer::new(&GenericDialect {}, text).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_) | Token::EOF));
            matches!(last, None | Some(Token::SemiColon))
        }
        // A string or comment that goes on in the next line.
        Err(error) => {
            let message = error.message.to_lowercase();
            !(message.contains("unterminated")
                || message.contains("eof")
                || message.contains("expected close"))
        }
    }
}

/// Whether a statement answers with rows, by its first word; others only change the session, or write files.
pub fn gives_rows(statement: &str) -> bool {
    let tokens = tokens(statement).unwrap_or_default();
    let first = tokens.iter().find_map(|token| match &token.token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    });
    !matches!(first.as_deref(), Some("create" | "set" | "reset" | "drop" | "copy" | "deallocate" | "prepare"))
}

fn tokens(text: &str) -> Option<Vec<TokenWithSpan>> {
    Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// Where a token begins.
fn byte_of(text: &str, starts: &[usize], token: &TokenWithSpan) -> usize {
    let number = |n: u64| usize::try_from(n).unwrap_or(1).saturating_sub(1);
    let line = starts.get(number(token.span.start.line)).copied().unwrap_or(text.len());
    let rest = text.get(line..).unwrap_or_default();
    line + rest.char_indices().nth(number(token.span.start.column)).map_or(rest.len(), |(byte, _)| byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_keep_their_places() {
        let text = "-- first;\nselect 'é;' as a; ; select 2\n  as b; -- end;";
        let found = statements(text);
        let trimmed: Vec<&str> = found.iter().map(|statement| statement.trim()).collect();
        assert_eq!(trimmed, ["select 'é;' as a", "select 2\n  as b"]);
        for statement in &found {
            let before = &statement[..statement.len() - statement.trim_start().len()];
            let line = text.lines().nth(before.matches('\n').count()).unwrap();
            let column = before.rsplit('\n').next().unwrap().chars().count();
            assert!(line.chars().skip(column).collect::<String>().starts_with("select"));
        }
        assert_eq!(statements(" -- nothing\n;;"), [] as [&str; 0]);
        assert_eq!(statements("select 'open"), ["select 'open"]);
    }

    #[test]
    fn a_statement_ends_at_its_semicolon() {
        for text in ["select 1;", "select 1; -- done", "", "  ", "-- only words", "select 1; /* a */ "] {
            assert!(is_finished(text), "{text}");
        }
        for text in
            ["select 1", "select ';", "select 1 -- ;", "select 1; select", "select /* ;", "select \"a;"]
        {
            assert!(!is_finished(text), "{text}");
        }
    }

    #[test]
    fn statements_that_change_the_session_have_no_rows() {
        assert!(gives_rows("-- a\n with a as (select 1) select * from a") && gives_rows("(select 1)"));
        assert!(!gives_rows("create view a as select 1") && !gives_rows("SET x = 1"));
    }
}
