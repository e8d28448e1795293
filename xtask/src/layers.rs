//! `cargo xtask layers`: fails when a stage of fdtrace knows of another stage. Stages import the
//! model and never each other, so that each can be read, tested and replaced alone; only the
//! pipeline sees them all.

mod rules;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::repo;

pub(crate) fn run() -> Result<()> {
    let package = repo::root().join("fdtrace");
    let src = package.join("src");
    let dependencies = dependencies(&package.join("Cargo.toml"))?;
    let mut files = BTreeSet::new();
    collect(&src, &mut files)?;
    let mut findings = Vec::new();
    for path in &files {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = path.strip_prefix(&src).context("a file outside the directory it is in")?;
        for finding in rules::check(file, &text, &dependencies) {
            let file = Path::new("fdtrace/src").join(file);
            findings.push(format!("{}:{}: {}", file.display(), finding.line, finding.what));
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} uses across layers: ARCHITECTURE.md says who may see whom", findings.len());
    }
    println!("{} files, each in its layer", files.len());
    Ok(())
}

fn collect(dir: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(path);
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest {
    #[serde(default)]
    dependencies: toml::Table,
    #[serde(default)]
    dev_dependencies: toml::Table,
}

/// The packages that fdtrace's code can name, by the names it names them.
fn dependencies(manifest: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let manifest: Manifest = toml::from_str(&text).context("fdtrace's manifest is malformed")?;
    let names = manifest.dependencies.keys().chain(manifest.dev_dependencies.keys());
    Ok(names.map(|name| name.replace('-', "_")).collect())
}
