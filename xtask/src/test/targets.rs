//! Which test programs the workspace has, and which of them need root.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::proc::{cargo, output};

/// These change or load the kernel, start servers, run what the README tells an operator to, or are
/// for a machine of their own.
const PRIVILEGED: [&str; 4] = ["kernel", "readme", "servers", "systemd"];

pub(crate) struct Targets(Vec<String>);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Targets {
    pub(crate) fn read() -> Result<Self> {
        let json = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
        let members = metadata
            .packages
            .into_iter()
            .filter(|package| metadata.workspace_default_members.contains(&package.id));
        let tests = members
            .flat_map(|package| package.targets)
            .filter(|target| target.kind.iter().any(|kind| kind == "test"));
        Ok(Self(tests.map(|target| target.name).collect()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    pub(crate) fn require(&self, name: &str) -> Result<()> {
        if !self.has(name) {
            bail!("the workspace has no tests of the name {name}");
        }
        Ok(())
    }

    pub(crate) fn unprivileged(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| !PRIVILEGED.contains(name))
    }
}
