//! Writing a cpio archive in the form that Linux unpacks as its first file system ("newc"; see the
//! kernel's Documentation/driver-api/early-userspace/buffer-format.rst). Made here, it needs no
//! root, no cpio program, and no copy of its contents on disk.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

pub(crate) struct Archive<W> {
    out: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, entries: 0, directories: BTreeSet::new() }
    }

    /// A directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut parents: Vec<_> = Path::new(path).ancestors().collect();
        parents.reverse();
        for parent in parents {
            let parent = parent.to_string_lossy();
            let name = parent.trim_start_matches('/');
            if !name.is_empty() && self.directories.insert(name.to_owned()) {
                self.entry(name, DIRECTORY | 0o755, &[])?;
            }
        }
        Ok(())
    }

    /// A file with these permissions, and the directories it is in.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.parent_of(path)?;
        self.entry(path.trim_start_matches('/'), FILE | mode, contents)
    }

    /// A symbolic link, and the directories it is in. What is put below it later is put where it
    /// leads.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parent_of(path)?;
        let name = path.trim_start_matches('/');
        // Were it to become a directory, the kernel would remove the link for that.
        self.directories.insert(name.to_owned());
        self.entry(name, SYMLINK | 0o777, target.as_bytes())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent_of(&mut self, path: &str) -> io::Result<()> {
        match Path::new(path).parent() {
            Some(parent) => self.directory(&parent.to_string_lossy()),
            None => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        self.entries += 1;
        let links = 1;
        let name_size = length(name.len() + 1)?;
        // Inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, and
        // a checksum that this form does not use.
        let header =
            [self.entries, mode, 0, 0, links, 0, length(contents.len())?, 0, 0, 0, 0, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in header {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(6 + 8 * header.len() + name.len() + 1)?;
        self.out.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Every part starts at a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", 0o644, b"hello").unwrap();
        archive.file("/a/c", 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        let magics: Vec<_> =
            bytes.windows(6).enumerate().filter(|(_, w)| *w == b"070701").map(|(i, _)| i).collect();
        assert_eq!(magics.len(), 4, "a, a/b, a/c and the trailer");
        assert!(magics.iter().all(|at| at % 4 == 0));
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[magics[1] + 54..magics[1] + 62], b"00000005");
    }

    #[test]
    fn a_link_stays_one() {
        let mut archive = Archive::new(Vec::new());
        archive.symlink("/bin", "usr/bin").unwrap();
        archive.file("/bin/sh", 0o755, b"").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3, "bin, bin/sh and the trailer: {text}");
        assert!(text.contains("0000a1ff"), "{text}");
    }
}
