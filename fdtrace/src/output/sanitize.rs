//! Text that a process chose → text that cannot act on a terminal or pass for something else.
//!
//! Two names that differ look different: what is escaped starts with a backslash, and a backslash
//! is escaped too.

use std::fmt::Write as _;

/// Appends `bytes`, escaped: control characters and bytes that are no UTF-8 as `\xNN`, other
/// characters that do not show or that turn the text around as `\u{…}`, a backslash as `\\`.
pub(super) fn push(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match char {
                '\\' => text.write_str("\\\\"),
                '\0'..='\x1f' | '\x7f' => write!(text, "\\x{:02x}", u32::from(char)),
                // Not \xNN, which would be the same as the byte of that value.
                _ if hides(char) => write!(text, "\\u{{{:x}}}", u32::from(char)),
                _ => text.write_char(char),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// [`push`] to a new string.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push(&mut text, bytes);
    text
}

/// Whether a character is invisible, moves others, or commands a terminal.
pub(super) fn hides(char: char) -> bool {
    match char {
        // What Debug escapes for its own sake.
        '"' | '\'' | '\\' => false,
        // Letters to Unicode, blank to the eye: the Hangul fillers.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => true,
        // The standard library knows Unicode's categories. Debug escapes controls (C0, C1, DEL),
        // formats (bidi, zero width), separators but the space, what is unassigned or private, and
        // characters that join the one before them.
        _ => char.escape_debug().len() > 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let cases: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"nginx", "nginx"),
            (b"tmux: server", "tmux: server"),
            (b"it's \"x\"", "it's \"x\""),
            ("größe-日本".as_bytes(), "größe-日本"),
            (b"a\\b", "a\\\\b"),
            (b"\\x1b", "\\\\x1b"),
            (b"\x1b[31mred", "\\x1b[31mred"),
            (b"a\nb\tc\rd\0e\x07f\x08g", "a\\x0ab\\x09c\\x0dd\\x00e\\x07f\\x08g"),
            (b"del\x7f", "del\\x7f"),
            // C1: one byte (no UTF-8), and its UTF-8 form, which some terminals act on.
            (b"\x9b31m", "\\x9b31m"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"cut \xe6\x97", "cut \\xe6\\x97"),
            // Bidi.
            ("\u{202e}gpj".as_bytes(), "\\u{202e}gpj"),
            ("\u{2066}\u{2069}\u{200e}\u{61c}".as_bytes(), "\\u{2066}\\u{2069}\\u{200e}\\u{61c}"),
            // Zero width.
            ("ng\u{200b}inx".as_bytes(), "ng\\u{200b}inx"),
            ("\u{200d}\u{2060}\u{feff}\u{ad}".as_bytes(), "\\u{200d}\\u{2060}\\u{feff}\\u{ad}"),
            // Line and paragraph separators, and spaces that are not the space.
            ("\u{2028}\u{2029}".as_bytes(), "\\u{2028}\\u{2029}"),
            ("\u{a0}\u{3000}".as_bytes(), "\\u{a0}\\u{3000}"),
            // Joins the character before it.
            ("e\u{301}".as_bytes(), "e\\u{301}"),
            // Blank letter, tag, private use.
            ("\u{3164}\u{e0041}\u{e000}".as_bytes(), "\\u{3164}\\u{e0041}\\u{e000}"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escape(bytes), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn every_byte_alone_differs_and_is_printable() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=u8::MAX {
            let text = escape(&[byte]);
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
            assert!(seen.insert(text), "{byte}");
        }
    }
}
