//! Network namespaces that are mounted, as by `ip netns add`, and so may be without a process.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// A host with thousands of containers has megabytes of mounts.
const MOST_MOUNTS: u64 = 16 * 1024 * 1024;

/// One namespace may be mounted many times, and one place is enough.
const MOST_PATHS: usize = 4;

/// Where each of them is mounted.
pub(in crate::enrich) fn namespaces(root: &Path) -> BTreeMap<u32, Vec<PathBuf>> {
    let mut all: BTreeMap<u32, Vec<PathBuf>> = BTreeMap::new();
    // fdtrace may have mounts of its own, when a service manager starts it.
    for process in ["self", "1"] {
        let dir = root.join(process);
        let Ok(file) = File::open(dir.join("mountinfo")) else {
            continue;
        };
        let mut bytes = Vec::new();
        // What was read is of use even if there was an error after it.
        let _ = file.take(MOST_MOUNTS).read_to_end(&mut bytes);
        for (netns, point) in bytes.split(|byte| *byte == b'\n').filter_map(namespace) {
            let point = std::ffi::OsString::from_vec(point);
            let paths = all.entry(netns).or_default();
            if paths.len() < MOST_PATHS {
                paths.push(dir.join("root").join(point));
            }
        }
    }
    all
}

/// The namespace and the mount point in a line of proc_pid_mountinfo(5), without its first `/`.
fn namespace(line: &[u8]) -> Option<(u32, Vec<u8>)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    // The root of the mount is the text of the namespace's link.
    let netns = str::from_utf8(fields.next()?).ok()?;
    let netns = netns.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    Some((netns, unescape(fields.next()?.strip_prefix(b"/")?)))
}

/// Spaces, tabs, line feeds and backslashes are three octal digits after a backslash.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        let digits = rest.get(..3).filter(|_| *first == b'\\');
        let escaped = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        field = if escaped.is_some() { &rest[3..] } else { rest };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let check = |line: &[u8], expected: Option<(u32, &[u8])>| {
            let expected = expected.map(|(netns, point)| (netns, point.to_vec()));
            assert_eq!(namespace(line), expected, "{}", String::from_utf8_lossy(line));
        };
        check(
            b"93 25 0:4 net:[4026532281] /run/netns/blue rw shared:44 - nsfs nsfs rw",
            Some((4_026_532_281, b"run/netns/blue")),
        );
        check(
            b"93 25 0:4 net:[7] /run/a\\040b\\134\\011c rw - nsfs nsfs rw",
            Some((7, b"run/a b\\\tc")),
        );
        check(b"93 25 0:4 net:[7] /run/\\9 rw - nsfs nsfs rw", Some((7, b"run/\\9")));
        check(b"93 25 0:4 mnt:[7] /run/x rw - nsfs nsfs rw", None);
        check(b"25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw", None);
        check(b"93 25 0:4 net:[x] /run/x", None);
        check(b"93 25 0:4 net:[7]", None);
        check(b"", None);
    }

    #[test]
    fn every_place() {
        let root = tempfile::tempdir().unwrap();
        assert!(namespaces(root.path()).is_empty());
        let many = "1 2 0:4 net:[9] /e rw\n".repeat(100);
        for (process, mounts) in [
            ("1", "1 2 0:4 net:[7] /a rw\n1 2 0:4 net:[7] /b rw\n"),
            ("self", &format!("1 2 0:4 net:[7] /a rw\n1 2 0:4 net:[8] /d rw\n{many}")),
        ] {
            std::fs::create_dir(root.path().join(process)).unwrap();
            std::fs::write(root.path().join(process).join("mountinfo"), mounts).unwrap();
        }
        let paths = |paths: &[&str]| paths.iter().map(|path| root.path().join(path)).collect();
        let expected = [
            (7, paths(&["self/root/a", "1/root/a", "1/root/b"])),
            (8, paths(&["self/root/d"])),
            (9, paths(&["self/root/e"; MOST_PATHS])),
        ];
        assert_eq!(namespaces(root.path()), BTreeMap::from(expected));
    }
}
