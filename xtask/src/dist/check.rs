//! The package, installed into an empty directory and purged from it. Its scripts run outside of that
//! directory and change what is in there alone (dpkg(1), `--force-script-chrootless`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::proc::{is_root, output, run};
use crate::repo;

/// What must be there; the pages of the manual are as many as there are commands.
const FILES: [&str; 9] = [
    "/etc/fdtrace/fdtrace.toml",
    "/usr/bin/fdtrace",
    "/usr/lib/systemd/system/fdtrace.service",
    "/etc/logrotate.d/fdtrace",
    "/usr/share/bash-completion/completions/fdtrace",
    "/usr/share/fdtrace/prometheus/fdtrace.rules.yml",
    "/usr/share/fish/vendor_completions.d/fdtrace.fish",
    "/usr/share/man/man1/fdtrace.1.gz",
    "/usr/share/zsh/vendor-completions/_fdtrace",
];
/// That the unit starts with the system.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/fdtrace.service";
/// dpkg's own, which a purge leaves.
const OF_DPKG: [&str; 4] =
    ["/var/lib/dpkg", "/var/log/dpkg.log", "/var/lib/systemd", "/etc/systemd"];

pub(crate) fn package(package: &Path) -> Result<()> {
    if repo::find_program("lintian").is_some() {
        let mut lintian = Command::new("lintian");
        run(lintian
            .args(["--fail-on", "error", "--allow-root", "--tag-display-limit=0"])
            .arg(package))?;
    } else {
        println!("not looked over: there is no lintian");
    }
    if !is_root()? {
        println!("not installed: that needs root, also into a directory");
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let root = root.path();
    fs::create_dir_all(root.join("var/lib/dpkg"))?;
    fs::write(root.join("var/lib/dpkg/status"), "")?;

    dpkg(root, &["--install"], package.as_os_str().to_str().unwrap_or_default())?;
    let installed = files(root)?;
    for file in FILES.iter().chain([&ENABLED]) {
        ensure!(installed.contains(*file), "{file} is not there: {installed:#?}");
    }
    let version = output(Command::new(root.join("usr/bin/fdtrace")).arg("--version"))?;
    ensure!(version.trim() == concat!("fdtrace ", env!("CARGO_PKG_VERSION")), "{version}");

    documents_are_there(root, &installed)?;

    // What runs leave, and what an administrator changed.
    fs::create_dir_all(root.join("var/log/private/fdtrace"))?;
    fs::write(root.join("var/log/private/fdtrace/fdtrace.jsonl"), "{}\n")?;
    std::os::unix::fs::symlink("private/fdtrace", root.join("var/log/fdtrace"))?;
    fs::write(root.join("etc/fdtrace/fdtrace.toml"), "# ours\n")?;

    dpkg(root, &["--remove"], "fdtrace")?;
    let kept = files(root)?;
    ensure!(kept.contains(FILES[0]), "removing must leave the configuration");
    ensure!(!kept.contains(FILES[1]) && !kept.contains(FILES[2]), "removed: {kept:#?}");

    dpkg(root, &["--purge"], "fdtrace")?;
    let left: Vec<_> = files(root)?
        .into_iter()
        .filter(|file| !OF_DPKG.iter().any(|own| file.starts_with(own)) || file.contains("fdtrace"))
        .collect();
    if !left.is_empty() {
        bail!("a purge leaves {left:#?}");
    }
    println!("installed {} files, removed, purged: nothing is left", installed.len());
    Ok(())
}

/// Every document that the installed files and the command's help name by `docs/NAME`.
fn documents_are_there(root: &Path, installed: &BTreeSet<String>) -> Result<()> {
    let mut texts = output(Command::new(root.join("usr/bin/fdtrace")).arg("--help"))?;
    for file in installed {
        let path = root.join(file.trim_start_matches('/'));
        let extension = path.extension().unwrap_or_default();
        let is_text = ["toml", "service", "yml"].iter().any(|one| *one == extension);
        // Links lead out of the directory.
        if is_text && !path.is_symlink() {
            let text = fs::read_to_string(&path);
            texts += &text.with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    let mut named = BTreeSet::new();
    for rest in texts.split("docs/").skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-_".contains(c));
        named.insert(rest[..end.unwrap_or(rest.len())].trim_end_matches('.'));
    }
    ensure!(named.len() > 2, "this looks for nothing: {named:?}");
    for name in named {
        let file = format!("/usr/share/doc/fdtrace/docs/{name}");
        ensure!(installed.contains(&file), "docs/{name} is named, and {file} is not there");
    }
    Ok(())
}

fn dpkg(root: &Path, action: &[&str], what: &str) -> Result<()> {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display()));
    // The directory has no libraries; PATH is of this machine.
    dpkg.args(["--force-script-chrootless", "--force-depends", "--force-confold"]);
    run(dpkg.args(action).arg(what))
}

/// Every file, link and empty directory that is ours by name, as seen from the root.
fn files(root: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            let is_dir = entry.file_type()?.is_dir();
            if !is_dir || entry.file_name().to_string_lossy().contains("fdtrace") {
                found.insert(format!("/{}", path.strip_prefix(root)?.display()));
            }
            if is_dir {
                dirs.push(path);
            }
        }
    }
    Ok(found)
}
