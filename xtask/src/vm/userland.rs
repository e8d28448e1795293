//! Debian's userland with systemd: what is read by systemd's manager is tried on systemd's manager.
//! Its packages are unpacked by `cargo xtask setup` and installed nowhere; what their installation
//! would have set up is set up by what boots.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::kernel::Series;
use crate::{dist, repo};

/// The release whose kernel it boots with.
pub(crate) const RELEASE: &str = "trixie";
/// With what they depend on. util-linux has prlimit, and a login: runuser. dpkg installs fdtrace's own
/// package, whose scripts use init-system-helpers, which are Perl, and which comes with a file for
/// logrotate. libc-bin has ldconfig, which dpkg asks for.
pub(crate) const PACKAGES: [&str; 7] =
    ["systemd", "util-linux", "dpkg", "init-system-helpers", "perl-base", "libc-bin", "logrotate"];

/// Where the machine has fdtrace's package.
const PACKAGE: &str = "/srv/fdtrace.deb";
/// What it starts, and all that it needs to start for that.
const UNIT: &str = "fdtrace-vm.service";
/// No messages of its own on the console, where results are read.
pub(crate) const PARAMETERS: &str = "rdinit=/usr/lib/systemd/systemd systemd.unit=fdtrace-vm.service \
                                     systemd.show_status=false systemd.log_target=null";

/// Debian has one tree for all programs and libraries; its packages no longer have these links.
const LINKS: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")];
/// Nothing that runs here reads these.
const LEFT_OUT: [&str; 3] = ["usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/udev"];

/// Whether it is of the same release as a kernel.
pub(crate) fn is_for(series: &Series) -> bool {
    series.release == RELEASE
}

/// Where it is unpacked.
pub(crate) fn dir() -> PathBuf {
    repo::target_dir().join("vm").join("systemd")
}

/// The packages that it was unpacked from, in a file beside it.
pub(crate) fn list() -> PathBuf {
    dir().with_extension("packages")
}

/// Whether all that it is to have is unpacked.
pub(crate) fn is_there() -> bool {
    fs::read_to_string(list()).is_ok_and(|list| list == PACKAGES.join("\n")) && dir().is_dir()
}

/// Adds it, with a unit that runs /init, and fdtrace's own package.
pub(crate) fn add<W: Write>(archive: &mut Archive<W>, fdtrace: &Path) -> Result<()> {
    let dir = dir();
    if !is_there() {
        bail!("there is no systemd for the machine: run `cargo xtask setup`");
    }
    for (link, target) in LINKS {
        archive.symlink(link, target)?;
    }
    add_tree(archive, &dir, &dir)?;
    let unit = format!("/etc/systemd/system/{UNIT}");
    archive.file(&unit, 0o644, include_bytes!("userland.service"))?;
    // What a first boot would set; without it systemd asks for it on the console.
    archive.file("/etc/machine-id", 0o444, b"0123456789abcdef0123456789abcdef\n")?;
    for kind in ["auth", "account", "password", "session"] {
        let path = format!("/etc/pam.d/common-{kind}");
        archive.file(&path, 0o644, format!("{kind} required pam_permit.so\n").as_bytes())?;
    }
    archive.directory("/etc/sysctl.d")?;
    // No package is installed yet.
    archive.file("/var/lib/dpkg/status", 0o644, b"")?;
    let place = tempfile::tempdir()?;
    let package = dist::package(fdtrace, place.path())?;
    archive.file(PACKAGE, 0o644, &fs::read(package)?)?;
    Ok(())
}

fn add_tree<W: Write>(archive: &mut Archive<W>, root: &Path, dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let from = entry.path();
        let name = from.strip_prefix(root).context("an entry is below its directory")?;
        if LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)) {
            continue;
        }
        let to = format!("/{}", name.display());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            archive.directory(&to)?;
            add_tree(archive, root, &from)?;
        } else if kind.is_symlink() {
            archive.symlink(&to, &fs::read_link(&from)?.to_string_lossy())?;
        } else {
            let contents =
                fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            archive.file(&to, mode, &contents)?;
        }
    }
    Ok(())
}
