//! Debian packages of another release or architecture than this machine's: downloaded and
//! unpacked, never installed. apt verifies them as it does its own, but with settings and lists of
//! ours, so that the machine's sources and architectures stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::proc::{output, run};
use crate::repo;

/// From the package debian-archive-keyring, which is on every Debian and to be had on Ubuntu.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One component of a suite, and where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) server: String,
    pub(crate) suite: String,
    pub(crate) component: String,
    /// Debian's name for the archive: `Debian`, `Debian-Security`.
    label: String,
}

/// Some sources, for one architecture, with lists that were just read.
pub(crate) struct Archive {
    settings: PathBuf,
}

impl Source {
    /// The main component of a suite of Debian's, from the mirror that has `debian` and
    /// `debian-security`, or from where this machine gets them.
    pub(crate) fn main(suite: &str, mirror: Option<&str>) -> Result<Self> {
        let is_security = suite.ends_with("-security");
        let label = if is_security { "Debian-Security" } else { "Debian" };
        let server = if let Some(mirror) = mirror {
            format!("{}/{}", mirror.trim_end_matches('/'), label.to_lowercase())
        } else {
            let ours = Self::of_this_machine()?.into_iter().find(|source| source.label == label);
            ours.map(|source| source.server).with_context(|| {
                format!(
                    "apt's sources name no archive {label}: \
                     give a mirror with `cargo xtask setup --mirror URL`"
                )
            })?
        };
        let [suite, component, label] = [suite, "main", label].map(str::to_owned);
        Ok(Self { server, suite, component, label })
    }

    /// Debian's own among the sources of this machine's apt. Whose they are is in the lists: they
    /// must have been read.
    pub(crate) fn of_this_machine() -> Result<Vec<Self>> {
        let format = "$(SITE)\t$(RELEASE)\t$(COMPONENT)\t$(LABEL)";
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", format, "Created-By: Packages"]);
        Ok(sources(&output(command.arg("Origin: Debian"))?))
    }

    fn line(&self, architecture: &str) -> String {
        let Self { server, suite, component, .. } = self;
        format!("deb [arch={architecture} signed-by={KEYRING}] {server} {suite} {component}\n")
    }
}

fn sources(targets: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for line in targets.lines() {
        let mut fields = line.split('\t').map(str::to_owned);
        if let (Some(server), Some(suite), Some(component), Some(label)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        {
            let source = Source { server, suite, component, label };
            // Once for each architecture of the machine.
            if !found.contains(&source) {
                found.push(source);
            }
        }
    }
    found
}

impl Archive {
    /// Reads the lists of the sources into a directory of this name.
    pub(crate) fn read(name: &str, architecture: &str, sources: &[Source]) -> Result<Self> {
        let dir = repo::target_dir().join("vm/apt").join(format!("{name}-{architecture}"));
        for sub in ["state/lists", "cache"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let write = |file: &str, contents: &str| {
            let path = dir.join(file);
            fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
        };
        let lines: String = sources.iter().map(|source| source.line(architecture)).collect();
        write("sources.list", &lines)?;
        // What dpkg knows of this machine is of no matter here.
        write("status", "")?;
        write("apt.conf", &settings(&dir, architecture))?;
        let archive = Self { settings: dir.join("apt.conf") };
        run(archive.apt("apt-get").args(["update", "--quiet=2"]))?;
        Ok(archive)
    }

    /// The names of the packages that start with this.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads one package, `NAME` or `NAME=VERSION`, and unpacks it as this directory.
    pub(crate) fn unpack(&self, package: &str, dir: &Path) -> Result<()> {
        let parent = dir.parent().context("a directory to unpack to has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let download =
            tempfile::tempdir_in(parent).context("cannot make a directory to download to")?;
        run(self.apt("apt-get").args(["download", "--quiet", package]).current_dir(&download))?;
        let deb = fs::read_dir(&download)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download {package} left no package"))?;
        let unpacked = download.path().join("unpacked");
        run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
        put(&unpacked, dir)
    }

    /// Downloads packages and all that they depend on, and unpacks them as one directory.
    pub(crate) fn unpack_all(&self, packages: &[&str], dir: &Path) -> Result<()> {
        let parent = dir.parent().context("a directory to unpack to has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let place =
            tempfile::tempdir_in(parent).context("cannot make a directory to download to")?;
        let cache = place.path().join("cache");
        fs::create_dir_all(cache.join("archives/partial"))?;
        // Where dpkg knows of no package, all of them are to be installed.
        run(self
            .apt("apt-get")
            .arg(format!("--option=Dir::Cache={}", cache.display()))
            .args(["install", "--download-only", "--no-install-recommends", "--yes", "--quiet=2"])
            .args(packages))?;
        let unpacked = place.path().join("unpacked");
        for entry in fs::read_dir(cache.join("archives"))? {
            let deb = entry?.path();
            if deb.extension().is_some_and(|extension| extension == "deb") {
                output(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
            }
        }
        put(&unpacked, dir)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&self.settings);
        command
    }
}

/// Renames at the end, so that what is there under its name is whole.
fn put(unpacked: &Path, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::rename(unpacked, dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// What is set after the machine's own settings, of which those for its network stay.
fn settings(dir: &Path, architecture: &str) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
// Hooks that tell of new lists, or clean up after them: of the machine's own.
#clear APT::Update;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
// apt's own user cannot write here; without this it warns of it.
APT::Sandbox::User "root";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::{Source, sources};

    #[test]
    fn sources_are_read_once_each() {
        let text = "http://a/debian\tbookworm\tmain\tDebian\n\
                    http://a/debian\tbookworm\tmain\tDebian\n\
                    http://a/sec\tbookworm-security\tmain\tDebian-Security\nbroken\n";
        let found = sources(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].label, "Debian-Security");
        assert_eq!(
            found[1].line("arm64"),
            "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://a/sec bookworm-security main\n"
        );
    }

    #[test]
    fn a_mirror_has_both_archives() {
        let server = |suite| Source::main(suite, Some("http://m/")).unwrap().server;
        assert_eq!(server("bullseye"), "http://m/debian");
        assert_eq!(server("bullseye-security"), "http://m/debian-security");
    }
}
