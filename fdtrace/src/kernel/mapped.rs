//! A BPF array in memory (`BPF_F_MMAPABLE`): read without a system call.
//!
//! In pieces, each mapped when it is first needed: the kernel maps every page at once, so that a host
//! on which nothing fails would pay for thousands of keys, and for each of its CPUs.

use std::{
    cell::OnceCell,
    io,
    ops::Range,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

/// Words of a piece: 64 KiB, which is a page or several wherever fdtrace runs.
const PIECE: usize = (64 << 10) / size_of::<u64>();

/// The array, as 64-bit words.
#[derive(Debug)]
pub(super) struct Mapped {
    map: OwnedFd,
    words: usize,
    pieces: Box<[OnceCell<Piece>]>,
}

impl Mapped {
    /// An array of `words` 64-bit words; nothing is mapped yet.
    pub(super) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let pieces = (0..words.div_ceil(PIECE)).map(|_| OnceCell::new()).collect();
        Ok(Self { map: map.try_clone_to_owned()?, words, pieces })
    }

    /// Maps the pieces that have these words.
    pub(super) fn map(&self, words: Range<usize>) -> io::Result<()> {
        let words = words.start..words.end.min(self.words);
        for index in words.start / PIECE..words.end.div_ceil(PIECE) {
            if self.pieces[index].get().is_none() {
                let length = PIECE.min(self.words - index * PIECE);
                let piece = Piece::map(&self.map, index * PIECE, length)?;
                // Nobody else can have been faster: this is `!Sync`.
                let _ = self.pieces[index].set(piece);
            }
        }
        Ok(())
    }

    /// A word; `None` outside the array, and where it was not mapped.
    pub(super) fn word(&self, word: usize) -> Option<&AtomicU64> {
        self.pieces.get(word / PIECE)?.get()?.words().get(word % PIECE)
    }

    /// Those of these words that are mapped.
    pub(super) fn words(&self, words: Range<usize>) -> impl Iterator<Item = &AtomicU64> {
        words.filter_map(|word| self.word(word))
    }
}

/// A mapping.
#[derive(Debug)]
struct Piece {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is shared with the kernel already; every access is atomic.
unsafe impl Send for Piece {}

impl Piece {
    fn map(map: &OwnedFd, first: usize, words: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(first * size_of::<u64>()).map_err(io::Error::other)?;
        // SAFETY: a new mapping of a file; nothing that exists is touched.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                words * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, words })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, lives as long as `self`, and is only
        // ever accessed atomically here. The kernel's side stores whole aligned words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; no slice outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::AsFd as _, sync::atomic::Ordering};

    use super::*;

    /// Any file can be mapped.
    fn mapped(words: usize) -> (File, Mapped) {
        let mut file = tempfile::tempfile().unwrap();
        for word in 0..words {
            file.write_all(&u64::try_from(word).unwrap().to_ne_bytes()).unwrap();
        }
        let mapped = Mapped::new(file.as_fd(), words).unwrap();
        (file, mapped)
    }

    #[test]
    fn only_what_is_needed_is_mapped() {
        let (_file, mapped) = mapped(PIECE * 3 + 5);
        assert!(mapped.word(0).is_none(), "nothing is mapped at first");
        mapped.map(PIECE - 1..PIECE + 1).unwrap();
        let load = |word| Some(mapped.word(word)?.load(Ordering::Relaxed));
        let expected = |word: usize| Some(u64::try_from(word).unwrap());
        for word in [0, PIECE - 1, PIECE, PIECE * 2 - 1] {
            assert_eq!(load(word), expected(word));
        }
        assert_eq!(load(PIECE * 2), None);
        // The last piece is not whole.
        mapped.map(PIECE * 3..PIECE * 4).unwrap();
        assert_eq!(load(PIECE * 3 + 4), expected(PIECE * 3 + 4));
        assert_eq!(load(PIECE * 3 + 5), None);
        assert_eq!(mapped.words(PIECE * 3 + 3..PIECE * 3 + 9).count(), 2);
        mapped.map(PIECE * 9..PIECE * 9 + 1).unwrap();
    }

    #[test]
    fn what_is_stored_is_there_for_the_other_side() {
        use std::os::unix::fs::FileExt as _;
        let (file, mapped) = mapped(8);
        mapped.map(0..8).unwrap();
        mapped.word(3).unwrap().store(77, Ordering::Relaxed);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 24).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 77);
    }
}
