//! Reports as JSON lines, for programs.
//!
//! The names and the meaning of fields are promised: docs/json.md and docs/events.schema.json
//! describe every one of them, and tests hold real output against both.

pub(super) mod diagnosis;
mod kernel;
pub(super) mod process;
#[cfg(test)]
mod tests;
pub(super) mod view;
mod warning;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::{Sink, sanitize};
use crate::model::{Report, WallClock};

/// Writes one JSON object per line to `W`.
#[derive(Debug)]
pub struct Json<W> {
    writer: W,
}

impl<W: Write> Json<W> {
    /// Writes to `writer`.
    pub const fn new(writer: W) -> Self {
        Self { writer }
    }

    /// The writer.
    pub const fn writer_mut(&mut self) -> &mut W {
        &mut self.writer
    }
}

impl<W: Write> Sink for Json<W> {
    fn write(&mut self, report: &Report, clock: &WallClock) -> io::Result<()> {
        let mut line = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut line, Visible);
        view::Line::new(report, clock).serialize(&mut serializer)?;
        line.push(b'\n');
        self.writer.write_all(&line)?;
        self.writer.flush()
    }
}

/// What every line of a command that looks once has.
#[derive(Serialize)]
struct Once<'a, T> {
    schema: u32,
    time: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    body: T,
}

/// Appends such a line.
pub(super) fn push_line<T: Serialize>(
    lines: &mut Vec<u8>,
    time: &str,
    kind: &'static str,
    body: T,
) -> io::Result<()> {
    let line = Once { schema: view::SCHEMA, time, kind, body };
    line.serialize(&mut Serializer::with_formatter(&mut *lines, Visible))?;
    lines.push(b'\n');
    Ok(())
}

/// Compact JSON in which invisible characters are `\uNNNN`: the same text to a parser, and harmless
/// to the terminal of whoever looks at it. JSON itself asks that only of C0.
pub(super) struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, char) in fragment.char_indices().filter(|(_, char)| sanitize::hides(*char)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + char.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}
