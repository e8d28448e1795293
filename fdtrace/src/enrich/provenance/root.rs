//! Files below a root directory, as a process that has it as its root sees them.
//!
//! Names come from command lines and configuration of processes that nobody trusts, and are read
//! with all privileges. So symbolic links stay below the root (a container's links must not lead
//! to files of the host), only regular files are read (a pipe would never end), and no more of
//! them than a bound.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStringExt, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};

use crate::model::FileFact;

/// Configuration files are a few kilobytes.
const MOST_BYTES: u64 = 512 * 1024;
/// Entries of a directory of configuration files.
const MOST_ENTRIES: usize = 4096;

/// A directory that stands for `/`.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    /// Its name, for what is read by name: `/proc`.
    path: PathBuf,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) fact: FileFact,
}

impl Text {
    /// The file and one of its lines, counted from 0.
    pub(super) fn at(&self, line: usize) -> FileFact {
        FileFact { line: u32::try_from(line + 1).ok(), ..self.fact.clone() }
    }
}

impl Root {
    /// Opens a directory by its name in our own tree.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { dir, path: path.to_owned() })
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file; `None` where there is none, an error in words where there is one.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Text>, String> {
        match self.try_read(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(format!("could not read {}: {}", path.display(), reason(&error))),
        }
    }

    /// Whether there is something of that name.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.open_in(path, OFlags::PATH).is_ok()
    }

    /// Where a symbolic link of that name leads to; `None` where it is none.
    pub(super) fn link(&self, path: &Path) -> Option<PathBuf> {
        let link = self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let target = readlinkat(&link, "", Vec::new()).ok()?;
        Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Names in a directory, sorted by bytes. Empty where there is no such directory.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<OsString>, String> {
        match self.try_list(path) {
            Ok(names) => Ok(names),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(format!("could not list {}: {}", path.display(), reason(&error))),
        }
    }

    fn try_list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let dir = self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)?;
        let mut names = Vec::new();
        for entry in Dir::new(dir)?.take(MOST_ENTRIES) {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn try_read(&self, path: &Path) -> io::Result<Text> {
        // The type is looked at before the file is opened for reading: opening a pipe or a device
        // can have effects.
        let handle = self.open_in(path, OFlags::PATH)?;
        let stat = statat(&handle, "", rustix::fs::AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::from(self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("longer than {MOST_BYTES} bytes")));
        }
        let fact = FileFact {
            path: path.to_owned(),
            line: None,
            modified: date(metadata.mtime(), metadata.mtime_nsec()),
            changed: date(metadata.ctime(), metadata.ctime_nsec()),
        };
        Ok(Text { text: String::from_utf8_lossy(&bytes).into_owned(), fact })
    }

    /// openat2(2) is in Linux since 5.6; without it nothing is read, and the reason is said.
    fn open_in(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        // openat2(2) refuses flags that say nothing beside O_PATH.
        let no_tty = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY };
        let flags = flags | OFlags::CLOEXEC | no_tty;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // A rename anywhere in the system meanwhile makes it give up (fs/namei.c, IN_ROOT).
        let mut tries = 4;
        loop {
            match openat2(&self.dir, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) if tries > 0 => tries -= 1,
                result => return Ok(result?),
            }
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// An error without Rust's `(os error 13)`.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn date(seconds: i64, nanos: i64) -> Option<SystemTime> {
    let after = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(after)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_stay_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/x.conf"), "a\nb\n").unwrap();
        symlink("/etc/x.conf", dir.path().join("absolute")).unwrap();
        symlink("../../../../etc/x.conf", dir.path().join("etc/climbing")).unwrap();
        symlink("/dev/null", dir.path().join("masked")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["/etc/x.conf", "/absolute", "/etc/climbing", "/../etc/x.conf", "etc/x.conf"] {
            assert_eq!(root.read(Path::new(path)).unwrap().unwrap().text, "a\nb\n", "{path}");
        }
        for path in ["/etc/passwd", "/masked", "/etc/x.conf/y"] {
            assert!(root.read(Path::new(path)).unwrap().is_none(), "{path}");
            assert!(!root.exists(Path::new(path)), "{path}");
        }
        assert_eq!(root.link(Path::new("/masked")), Some("/dev/null".into()));
        assert_eq!(root.link(Path::new("/etc/x.conf")), None);
        assert_eq!(root.list(Path::new("/etc")).unwrap(), ["climbing", "x.conf"]);
        assert!(root.list(Path::new("/none")).unwrap().is_empty());
    }

    #[test]
    fn only_regular_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(dir.path().join("long"), vec![b'#'; 600 * 1024]).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let error = |name: &str| root.read(Path::new(name)).unwrap_err();
        assert_eq!(error("/fifo"), "could not read /fifo: not a regular file");
        assert_eq!(error("/"), "could not read /: not a regular file");
        assert_eq!(error("/long"), "could not read /long: longer than 524288 bytes");
    }
}
