//! Kernel modules: which are needed, what they need themselves, and their contents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::proc::shown;

/// What fdtrace and its tests use and Debian's cloud kernels have as modules: the queues of
/// listeners (`sock_diag`) and connections between network namespaces. Nothing in the machine
/// answers the kernel's own requests for a module.
const WANTED: [&str; 3] = ["tcp_diag", "unix_diag", "veth"];

/// A module's name and its contents, uncompressed.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// The wanted modules and those they need, in an order in which they can be loaded.
pub(crate) fn load(kernel: &Kernel) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    collect(&kernel.modules.join("kernel/net"), &mut paths)?;
    collect(&kernel.modules.join("kernel/drivers/net"), &mut paths)?;
    let mut loaded = Vec::new();
    for name in WANTED {
        load_with_dependencies(name, &paths, &mut loaded)?;
    }
    Ok(loaded)
}

fn load_with_dependencies(
    name: &str,
    paths: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<Module>,
) -> Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = paths.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let contents = read(path)?;
    for dependency in dependencies(&contents) {
        load_with_dependencies(&dependency, paths, loaded)?;
    }
    loaded.push(Module { name: name.to_owned(), contents });
    Ok(())
}

fn collect(dir: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if let Some((name, _)) =
            path.file_name().unwrap_or_default().to_string_lossy().split_once(".ko")
        {
            // File names have dashes where the names of modules have underscores, or not.
            paths.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut xz = Command::new("xz");
    xz.args(["--decompress", "--stdout"]).arg(path);
    let output = xz.output().context("cannot run xz: run `cargo xtask setup`")?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(&xz), output.status);
    }
    Ok(output.stdout)
}

/// The names in `depends=a,b`, one of the zero-terminated texts in a module's .modinfo.
fn dependencies(module: &[u8]) -> Vec<String> {
    const LABEL: &[u8] = b"\0depends=";
    let Some(at) = module.windows(LABEL.len()).position(|window| window == LABEL) else {
        return Vec::new();
    };
    let names = &module[at + LABEL.len()..];
    let end = names.iter().position(|byte| *byte == 0).unwrap_or(names.len());
    String::from_utf8_lossy(&names[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(dependencies(b"ELF\0depends=inet_diag,x-y\0name=z\0"), ["inet_diag", "x_y"]);
        assert!(dependencies(b"ELF\0depends=\0name=z\0").is_empty());
        assert!(dependencies(b"ELF").is_empty());
    }
}
