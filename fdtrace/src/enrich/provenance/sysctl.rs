//! Limits of the whole system, and the files that set them at boot.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::root::Root;
use crate::{
    enrich::system,
    model::{ConfiguredSysctl, Sysctl, Sysctls, SystemLimits},
};

/// Reads values and configuration.
pub(super) fn read(root: &Root, unknown: &mut Vec<String>) -> Sysctls {
    let SystemLimits { nr_open, inotify_instances, pipe_pages, handles } = system::read(|name| {
        let path = Path::new("/proc/sys/fs").join(name);
        match root.read(&path) {
            Ok(Some(text)) => Some(text.text),
            Ok(None) => {
                unknown.push(format!("could not read {}: no such file", path.display()));
                None
            }
            Err(error) => {
                unknown.push(error);
                None
            }
        }
    });
    let of = |value| Sysctl { value, configured: None };
    let mut limits = Sysctls {
        nr_open: of(nr_open),
        // Its third number is file-max itself (fs/file_table.c, fs_stat_sysctls, v6.18).
        file_max: of(handles.map(|handles| handles.max)),
        inotify_instances: of(inotify_instances),
        pipe_pages: of(pipe_pages),
        somaxconn: None,
        file_handles: handles.map(|handles| handles.used),
    };
    for path in files(root, unknown) {
        let text = match root.read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => {
                unknown.push(error);
                continue;
            }
        };
        for (at, line) in text.text.lines().enumerate() {
            let Some((key, value)) = assignment(line) else { continue };
            let configured = match &*key {
                "fs.nr_open" => &mut limits.nr_open.configured,
                "fs.file-max" => &mut limits.file_max.configured,
                "fs.inotify.max_user_instances" => &mut limits.inotify_instances.configured,
                "fs.pipe-user-pages-hard" => &mut limits.pipe_pages.configured,
                "net.core.somaxconn" => &mut limits.somaxconn,
                _ => continue,
            };
            *configured = Some(ConfiguredSysctl { value, file: text.at(at) });
        }
    }
    limits
}

/// sysctl.d(5): by name, the first directory wins for the same name. /etc/sysctl.conf is last in
/// `sysctl --system`, and systemd reads it by Debian's link 99-sysctl.conf.
fn files(root: &Root, unknown: &mut Vec<String>) -> Vec<PathBuf> {
    let mut by_name: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for dir in ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"] {
        let dir = Path::new(dir).join("sysctl.d");
        let names = root.list(&dir).unwrap_or_else(|error| {
            unknown.push(error);
            Vec::new()
        });
        for name in names {
            let path = dir.join(&name);
            let is_conf = path.extension().is_some_and(|extension| extension == "conf");
            let target = root.link(&path);
            let leads_to =
                |name: &str| target.as_ref().is_some_and(|target| target.ends_with(name));
            // The link is read under the file's own name.
            if is_conf && !leads_to("sysctl.conf") {
                by_name.entry(name).or_insert(path);
            }
        }
    }
    let is_masked = |path: &PathBuf| root.link(path).as_deref() == Some(Path::new("/dev/null"));
    let named = by_name.into_values().filter(|path| !is_masked(path));
    named.chain(["/etc/sysctl.conf".into()]).collect()
}

/// `fs.nr_open = 7`, also as `fs/nr_open`, and with a `-` that says errors do not matter.
fn assignment(line: &str) -> Option<(String, u64)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let key = key.trim().trim_start_matches('-').replace('/', ".");
    Some((key, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn values_and_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/fs/pipe-user-pages-hard", "0\n"),
            ("proc/sys/fs/file-nr", "1952\t0\t9223372036854775807\n"),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("usr/lib/sysctl.d/50-default.conf", "fs.nr_open=1\nfs.file-max = 2\n"),
            ("run/sysctl.d/60-run.conf", "-fs/nr_open = 3\n"),
            ("usr/lib/sysctl.d/70-masked.conf", "fs.nr_open=4\n"),
            ("usr/lib/sysctl.d/80-replaced.conf", "fs.nr_open=5\n"),
            ("etc/sysctl.d/80-replaced.conf", "#fs.nr_open=6\nnet.core.somaxconn=7\n"),
            ("etc/sysctl.conf", "\nfs.inotify.max_user_instances=512\n;fs.nr_open=8\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink("/dev/null", dir.path().join("etc/sysctl.d/70-masked.conf")).unwrap();
        symlink("../sysctl.conf", dir.path().join("etc/sysctl.d/99-sysctl.conf")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        let limits = read(&root, &mut unknown);
        let of = |sysctl: &Sysctl| {
            let configured = sysctl.configured.as_ref().unwrap();
            let file = configured.file.path.to_str().unwrap().to_owned();
            (sysctl.value.unwrap(), configured.value, file, configured.file.line.unwrap())
        };
        let nr_open = (1_048_576, 3, "/run/sysctl.d/60-run.conf".to_owned(), 1);
        assert_eq!(of(&limits.nr_open), nr_open);
        let file_max = 9_223_372_036_854_775_807;
        let expected = (file_max, 2, "/usr/lib/sysctl.d/50-default.conf".to_owned(), 2);
        assert_eq!(of(&limits.file_max), expected);
        let expected = (128, 512, "/etc/sysctl.conf".to_owned(), 2);
        assert_eq!(of(&limits.inotify_instances), expected);
        assert_eq!(limits.file_handles, Some(1952));
        assert_eq!(limits.somaxconn.unwrap().value, 7);
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut unknown = Vec::new();
        let limits = read(&Root::open(dir.path()).unwrap(), &mut unknown);
        assert_eq!(limits, Sysctls::default());
        assert_eq!(unknown.len(), 4);
        assert_eq!(unknown[0], "could not read /proc/sys/fs/nr_open: no such file");
    }

    #[test]
    fn the_running_kernel() {
        let mut unknown = Vec::new();
        let limits = read(&Root::open(Path::new("/")).unwrap(), &mut unknown);
        assert!(limits.nr_open.value.is_some_and(|value| value >= 1024));
        assert!(limits.file_max.value.is_some() && limits.file_handles.is_some());
    }
}
