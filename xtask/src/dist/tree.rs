//! What is in the package, and where.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::proc::output;
use crate::repo;

/// Where each shell looks for what packages bring.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/fdtrace"),
    ("zsh", "usr/share/zsh/vendor-completions/_fdtrace"),
    ("fish", "usr/share/fish/vendor_completions.d/fdtrace.fish"),
];

/// Files of the repository: from, to.
const COPIES: [(&str, &str); 8] = [
    ("deploy/logrotate/fdtrace", "etc/logrotate.d/fdtrace"),
    ("deploy/systemd/fdtrace.service", "usr/lib/systemd/system/fdtrace.service"),
    ("deploy/fdtrace.toml", "etc/fdtrace/fdtrace.toml"),
    ("deploy/prometheus/fdtrace.rules.yml", "usr/share/fdtrace/prometheus/fdtrace.rules.yml"),
    ("deploy/prometheus/fdtrace.test.yml", "usr/share/fdtrace/prometheus/fdtrace.test.yml"),
    ("deploy/grafana/fdtrace.json", "usr/share/fdtrace/grafana/fdtrace.json"),
    ("deploy/debian/copyright", "usr/share/doc/fdtrace/copyright"),
    ("LICENSE-MIT", "usr/share/doc/fdtrace/LICENSE-MIT"),
];
/// All of this directory: what is installed names its files.
const DOCUMENTS: (&str, &str) = ("docs", "usr/share/doc/fdtrace/docs");
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// What an administrator may change.
const CONFFILES: &str = "/etc/fdtrace/fdtrace.toml\n/etc/logrotate.d/fdtrace\n";

/// Writes files below a directory, all of one time.
struct Tree<'a> {
    root: &'a Path,
    time: SystemTime,
}

/// Lays the package's files below `root`; their size in KiB.
pub(crate) fn lay(root: &Path, program: &Path, epoch: u64) -> Result<u64> {
    let tree = Tree { root, time: SystemTime::UNIX_EPOCH + Duration::from_secs(epoch) };
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    tree.file("usr/bin/fdtrace", 0o755, &read(program)?)?;
    for (from, to) in COPIES {
        tree.file(to, 0o644, &read(&repo::root().join(from))?)?;
    }
    let (from, to) = DOCUMENTS;
    for entry in fs::read_dir(repo::root().join(from)).context(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        tree.file(&format!("{to}/{}", name.display()), 0o644, &read(&path)?)?;
    }
    for (shell, to) in COMPLETIONS {
        let text = output(Command::new(program).args(["completions", shell]))?;
        tree.file(to, 0o644, text.as_bytes())?;
    }
    for (name, text) in manual(program)? {
        tree.compressed(&format!("usr/share/man/man1/{name}.1"), text.as_bytes())?;
    }
    let date = output(Command::new("date").args(["-u", "-R", "-d", &format!("@{epoch}")]))?;
    let changes = format!(
        "fdtrace ({}) unstable; urgency=medium\n\n  * CHANGELOG.md tells what is new.\n\n \
         -- The fdtrace authors <maintainers@fdtrace.invalid>  {}\n",
        env!("CARGO_PKG_VERSION"),
        date.trim()
    );
    tree.compressed("usr/share/doc/fdtrace/changelog", changes.as_bytes())?;
    let changelog = read(&repo::root().join("CHANGELOG.md"))?;
    tree.compressed("usr/share/doc/fdtrace/CHANGELOG.md", &changelog)?;
    size(root).map(|bytes| bytes.div_ceil(1024))
}

/// What dpkg reads of the package, and its scripts.
pub(crate) fn control(root: &Path, text: &str) -> Result<()> {
    let tree = Tree { root, time: SystemTime::UNIX_EPOCH };
    tree.file("DEBIAN/control", 0o644, text.as_bytes())?;
    tree.file("DEBIAN/conffiles", 0o644, CONFFILES.as_bytes())?;
    for name in SCRIPTS {
        let script = read(&repo::root().join("deploy/debian").join(name))?;
        tree.file(&format!("DEBIAN/{name}"), 0o755, &script)?;
    }
    Ok(())
}

/// The first page of the manual, and those that it names.
fn manual(program: &Path) -> Result<Vec<(String, String)>> {
    let first = output(Command::new(program).arg("man"))?;
    let mut pages = Vec::new();
    for name in named(&first) {
        let page = output(Command::new(program).args(["man", &name]))?;
        pages.push((format!("fdtrace-{name}"), page));
    }
    pages.push(("fdtrace".to_owned(), first));
    Ok(pages)
}

/// The commands of a page's list: `fdtrace\-NAME(1)`.
fn named(page: &str) -> Vec<String> {
    let mentions = page.split("fdtrace\\-").skip(1).filter_map(|rest| rest.split_once("(1)"));
    let names = mentions.map(|(name, _)| name.replace('\\', ""));
    names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        sum += if is_dir { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

impl Tree<'_> {
    fn file(&self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        // Whatever our umask is: each directory that is new on the way.
        let dir = path.parent().context("a file has a directory")?;
        fs::create_dir_all(dir)?;
        for dir in dir.ancestors().take_while(|dir| *dir != self.root) {
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        }
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        File::open(&path)?.set_times(FileTimes::new().set_modified(self.time))?;
        Ok(())
    }

    /// As Debian wants manuals and changes: with no name and no time in it.
    fn compressed(&self, name: &str, contents: &[u8]) -> Result<()> {
        self.file(name, 0o644, contents)?;
        let path = self.root.join(name);
        output(Command::new("gzip").args(["-9", "--no-name"]).arg(&path))?;
        let path = self.root.join(format!("{name}.gz"));
        File::open(&path)?.set_times(FileTimes::new().set_modified(self.time))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_first_page_names_the_others() {
        let page = ".SH SUBCOMMANDS\n.TP\nfdtrace\\-trace(1)\nThe same\n.TP\nfdtrace\\-x\\-y(1)\n";
        assert_eq!(named(page), ["trace", "x-y"]);
    }
}
