//! A file of lines that others rotate, and that may be on a full disk.
//!
//! What cannot be written waits in memory, up to a bound, and is tried again at every tick: when there
//! is space again, not even these lines are lost. Beyond the bound they are counted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// So much waits.
const MOST_WAITING: usize = 256 << 10;

/// Appends lines.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    id: (u64, u64),
    /// Whole lines that are not in the file.
    waiting: Vec<u8>,
    /// So much of the first of them is in the file already.
    sent: usize,
    /// Lines that found no room.
    lost: u64,
}

impl LogFile {
    /// Opens it, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, id) = open(path)?;
        let path = path.to_owned();
        Ok(Self { path, file, id, waiting: Vec::new(), sent: 0, lost: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All lines that are lost once nothing is written to it any more.
    pub(super) fn abandon(&self) -> u64 {
        // After the last line end there is nothing.
        let waiting = self.waiting.split(|byte| *byte == b'\n').count() - 1;
        self.lost + waiting as u64
    }

    /// Lines that are lost for good.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Opens the file again where it was renamed or removed, and writes what waits. To be called
    /// about once a second.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        let is_ours = fs::metadata(&self.path).is_ok_and(|there| id(&there) == self.id);
        if !is_ours {
            self.reopen()?;
        }
        self.flush()
    }

    /// Opens the file by its name again.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.id) = open(&self.path)?;
        // A line stands whole in one file.
        self.sent = 0;
        Ok(())
    }
}

impl Write for LogFile {
    /// Takes whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.waiting.len() + lines.len() > MOST_WAITING && !self.waiting.is_empty() {
            self.lost += 1;
        } else {
            self.waiting.extend_from_slice(lines);
        }
        Ok(lines.len())
    }

    /// Writes what waits, as far as it goes.
    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.waiting.len() {
            match self.file.write(&self.waiting[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let ends = self.waiting[..self.sent].iter().rposition(|byte| *byte == b'\n');
            let done = ends.map_or(0, |at| at + 1);
            self.waiting.drain(..done);
            self.sent -= done;
        }
        // What a storm made it grow to is not kept for months.
        self.waiting.shrink_to(4096);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    // Whoever wrote to it before may have been killed within a line.
    if metadata.is_file() && metadata.len() > 0 {
        let mut last = [b'\n'];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok((file, id(&metadata)))
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(file: &mut LogFile, text: &str) -> io::Result<()> {
        file.write_all(text.as_bytes())?;
        file.flush()
    }

    #[test]
    fn a_renamed_or_removed_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("x.jsonl"), dir.path().join("x.jsonl.1"));
        let mut file = LogFile::open(&path).unwrap();
        line(&mut file, "one\n").unwrap();
        file.tick().unwrap();
        fs::rename(&path, &old).unwrap();
        line(&mut file, "two\n").unwrap();
        file.tick().unwrap();
        line(&mut file, "three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        fs::remove_file(&path).unwrap();
        file.tick().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_line_that_was_cut_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        fs::write(&path, "one\n{\"cut").unwrap();
        let mut file = LogFile::open(&path).unwrap();
        line(&mut file, "two\n").unwrap();
        drop(LogFile::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n{\"cut\ntwo\n");
    }

    /// /dev/full is a disk without space.
    #[test]
    fn what_cannot_be_written_waits_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let mut file = LogFile::open(&path).unwrap();
        file.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!(line(&mut file, "one\n").is_err());
        // As if half of it had found room.
        file.sent = 2;
        file.reopen().unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        file.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let long = "x".repeat(MOST_WAITING / 2 - 1) + "\n";
        for _ in 0..3 {
            line(&mut file, &long).unwrap_err();
        }
        assert_eq!((file.lost(), file.waiting.len()), (1, MOST_WAITING));
    }
}
