//! fdtrace/bpf/fdtrace.toml: what the committed object is, and what it was made from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::sources;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// SHA-256 of fdtrace.o.
    pub(crate) object: String,
    /// `sources::digest` at the time.
    pub(crate) sources: String,
    /// What each tool said its version was.
    pub(crate) tools: BTreeMap<String, String>,
}

impl Record {
    pub(crate) fn new(object: &[u8], tools: &BTreeMap<String, String>) -> Result<Self> {
        Ok(Self { object: sha256(object), sources: sources::digest()?, tools: tools.clone() })
    }

    pub(crate) fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: run `cargo xtask build-ebpf`", path.display())
        })?;
        toml::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    pub(crate) fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# Written by `cargo xtask build-ebpf`: what fdtrace.o beside this file is, what it \
             was\n# built from, and with what. Both digests are SHA-256.\n",
        );
        let mut line = |name: &str, value: &str| {
            // A TOML literal string: no version text has a single quote or a line break.
            let _ = writeln!(text, "{name} = '{value}'");
        };
        line("object", &self.object);
        line("sources", &self.sources);
        for (name, version) in &self.tools {
            line(&format!("tools.{name}"), version);
        }
        text
    }
}

fn path() -> PathBuf {
    super::dir().join("fdtrace.toml")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Record};

    #[test]
    fn what_is_written_can_be_read() {
        let tools = BTreeMap::from([("bpf-linker".to_owned(), "bpf-linker 0.13.0".to_owned())]);
        let record = Record { object: "ab".into(), sources: "cd".into(), tools };
        let read: Record = toml::from_str(&record.text()).unwrap();
        assert_eq!(
            (read.object, read.sources, read.tools),
            (record.object, record.sources, record.tools)
        );
    }
}
