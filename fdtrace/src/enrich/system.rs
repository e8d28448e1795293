//! Limits of the whole system, from /proc/sys/fs: the one place where they are read.

use std::{fs, path::Path};

use crate::model::{FileHandles, SystemLimits};

/// Reads them now; `proc` is where /proc is.
#[must_use]
pub fn system_limits(proc: &Path) -> SystemLimits {
    let fs = proc.join("sys/fs");
    read(|name| fs::read_to_string(fs.join(name)).ok())
}

/// The same, where `text` gives what is in a file below /proc/sys/fs.
pub(super) fn read(mut text: impl FnMut(&str) -> Option<String>) -> SystemLimits {
    let mut number = |name: &str| text(name)?.trim().parse().ok();
    SystemLimits {
        nr_open: number("nr_open"),
        inotify_instances: number("inotify/max_user_instances"),
        pipe_pages: number("pipe-user-pages-hard"),
        handles: text("file-nr").and_then(|text| file_nr(&text)),
    }
}

/// `USED UNUSED MAX`; the second is 0 since 2.6 (Documentation/admin-guide/sysctl/fs.rst).
fn file_nr(text: &str) -> Option<FileHandles> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let used: u64 = numbers.next()?.ok()?;
    let unused: u64 = numbers.next()?.ok()?;
    let max = numbers.next()?.ok()?;
    Some(FileHandles { used: used.saturating_sub(unused), max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(system_limits(root.path()), SystemLimits::default());
        let fs = root.path().join("sys/fs");
        fs::create_dir_all(fs.join("inotify")).unwrap();
        fs::write(fs.join("file-nr"), "1632\t0\t9223372036854775807\n").unwrap();
        fs::write(fs.join("nr_open"), "1048576\n").unwrap();
        fs::write(fs.join("inotify/max_user_instances"), "many\n").unwrap();
        let want = SystemLimits {
            nr_open: Some(1_048_576),
            inotify_instances: None,
            pipe_pages: None,
            handles: Some(FileHandles { used: 1632, max: 9_223_372_036_854_775_807 }),
        };
        assert_eq!(system_limits(root.path()), want);
        let here = system_limits(Path::new("/proc"));
        assert!(here.nr_open.is_some() && here.handles.is_some());
    }
}
