//! Rust source as words and signs, without what only people read: comments and the contents of
//! strings. Enough to find the paths in it.

/// A word, or one sign (`::` counts as one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            'r' | 'b' | 'c' if raw_string(rest).is_some() => (raw_string(rest).unwrap_or(1), false),
            '\'' => (char_or_lifetime(rest), false),
            _ if first == '_' || first.is_alphanumeric() => (word(rest), true),
            _ if rest.starts_with("::") => (2, true),
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        let (text, after) = rest.split_at(length);
        if is_token {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string that starts with its quote.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of `r"…"`, `br#"…"#` and the like; `None` when that is not what is here.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix);
        after.is_some_and(|after| after.trim_start_matches('#').starts_with('"'))
    })?;
    let hashes = rest[prefix.len()..].find('"')?;
    let open = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()))
}

/// The length of `'a'`, `'\n'` or of the quote of a lifetime.
fn char_or_lifetime(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            // The escaped sign may itself be a quote.
            let from = at + escaped.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn paths_come_apart() {
        assert_eq!(words("use a::{b, c};"), ["use", "a", "::", "{", "b", ",", "c", "}", ";"]);
    }

    #[test]
    fn comments_and_strings_are_gone() {
        assert!(words("// a::b\n/* a /* b */ c */ \"a::\\\"b\" r#\"a\"b\"# br\"a\"").is_empty());
    }

    #[test]
    fn a_quote_is_a_character_or_a_lifetime() {
        let want = ["x", "<", "a", ">", "y", "z"];
        assert_eq!(words(r#"x<'a> 'b' y '\'' '"' '\u{1F}' z"#), want);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let last = tokens("/*\n*/ \"\n\"\n// x\nend").pop().unwrap();
        assert_eq!((last.text, last.line), ("end", 5));
    }
}
