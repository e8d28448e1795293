//! A digest of everything in this repository that decides what the object is: the files of the
//! eBPF crate and of the wire crate, the versions and checksums of what they depend on, and the
//! way of building. Dependencies of the host's code alone are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{compile, record};
use crate::repo;

const CRATES: [&str; 2] = ["fdtrace-common", "fdtrace-ebpf"];
const FILES: [&str; 3] = ["Cargo.toml", "build.rs", "src"];

/// The digest, in hexadecimal.
pub(crate) fn digest() -> Result<String> {
    let root = repo::root();
    let mut files = BTreeSet::new();
    for name in CRATES.iter().flat_map(|krate| FILES.map(|file| Path::new(krate).join(file))) {
        collect(&root, &name, &mut files)?;
    }
    let mut hash = Sha256::new();
    for file in &files {
        let contents =
            fs::read(root.join(file)).with_context(|| format!("cannot read {}", file.display()))?;
        add(&mut hash, file.to_string_lossy().as_bytes());
        add(&mut hash, &contents);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    for package in closure(&lock, "fdtrace-ebpf")? {
        add(&mut hash, package.as_bytes());
    }
    for setting in compile::settings() {
        add(&mut hash, setting.as_bytes());
    }
    Ok(record::hex(&hash.finalize()))
}

/// Each part with its length before it, so that no two lists of parts are the same bytes.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn collect(root: &Path, name: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let path = root.join(name);
    if path.is_dir() {
        for entry in
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?
        {
            collect(root, &name.join(entry?.file_name()), files)?;
        }
    } else if path.is_file() {
        files.insert(name.to_path_buf());
    }
    Ok(())
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// `name version checksum` of each package from elsewhere that `top` depends on, at any remove.
/// Packages of the workspace have no checksum: their files are in the digest.
fn closure(lock: &str, top: &str) -> Result<BTreeSet<String>> {
    let lock: Lock = toml::from_str(lock).context("Cargo.lock is malformed")?;
    let mut by_name: BTreeMap<&str, Vec<&Locked>> = BTreeMap::new();
    for package in &lock.package {
        by_name.entry(&package.name).or_default().push(package);
    }
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut todo = vec![top];
    while let Some(dependency) = todo.pop() {
        if !seen.insert(dependency) {
            continue;
        }
        // "name", or "name version" where the lock file has several of that name.
        let mut words = dependency.split(' ');
        let name = words.next().unwrap_or_default();
        let version = words.next();
        let package = by_name
            .get(name)
            .into_iter()
            .flatten()
            .find(|package| version.is_none_or(|version| version == package.version))
            .with_context(|| format!("Cargo.lock has no package {dependency}"))?;
        if let Some(checksum) = &package.checksum {
            found.insert(format!("{} {} {checksum}", package.name, package.version));
        }
        todo.extend(package.dependencies.iter().map(String::as_str));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::closure;

    const LOCK: &str = r#"
        version = 4
        [[package]]
        name = "top"
        version = "0.1.0"
        dependencies = ["a 2.0.0", "wire"]
        [[package]]
        name = "wire"
        version = "0.1.0"
        [[package]]
        name = "a"
        version = "1.0.0"
        checksum = "aa1"
        [[package]]
        name = "a"
        version = "2.0.0"
        checksum = "aa2"
        dependencies = ["b"]
        [[package]]
        name = "b"
        version = "3.0.0"
        checksum = "bb"
        dependencies = ["a 2.0.0"]
        [[package]]
        name = "unrelated"
        version = "1.0.0"
        checksum = "cc"
    "#;

    #[test]
    fn only_what_the_object_depends_on_is_in_its_digest() {
        let found: Vec<_> = closure(LOCK, "top").unwrap().into_iter().collect();
        assert_eq!(found, ["a 2.0.0 aa2", "b 3.0.0 bb"]);
    }

    #[test]
    fn a_lock_file_without_the_crate_is_an_error() {
        assert!(closure("version = 4\npackage = []", "top").is_err());
    }
}
