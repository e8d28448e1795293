//! Words → lines of a terminal.

use crate::output::sanitize;

/// Lines are no longer than this, where words allow it.
pub(super) const WIDTH: usize = 80;

/// Appends `text`, escaped, after `first`, and goes on below, `indent` columns from the left. A word
/// that is longer than a line stays whole.
pub(super) fn push(out: &mut String, first: &str, indent: usize, text: &str) {
    out.push_str(first);
    let mut column = first.chars().count();
    let mut is_first = true;
    let text = sanitize::escape(text.as_bytes());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if is_first {
            is_first = false;
        } else if column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(first: &str, indent: usize, text: &str) -> String {
        let mut out = String::new();
        push(&mut out, first, indent, text);
        out
    }

    #[test]
    fn lines_fit_and_words_stay_whole() {
        assert_eq!(pushed("a  ", 3, "b  c"), "a  b c\n");
        assert_eq!(pushed("a", 1, ""), "a\n");
        let word = "x".repeat(39);
        let text = [word.as_str(); 5].join(" ");
        let two = format!("{word} {word}");
        assert_eq!(pushed(" ", 1, &text), format!(" {two}\n {two}\n {word}\n"));
        assert_eq!(pushed("", 0, "a\x1b b"), "a\\x1b b\n");
        let long = "x".repeat(200);
        assert_eq!(pushed("  ", 2, &format!("a {long} b")), format!("  a\n  {long}\n  b\n"));
    }
}
