//! Descriptors for the moment when there are no others: fdtrace's own limit, or the host's, may be what
//! has run out.

use std::{fs::File, io};

/// One to attach a program by, and what listeners are looked for with: /proc, the way into a namespace
/// and back, a socket, the file that is read.
const COUNT: usize = 8;

/// Files that nobody reads. Each is also one of the host's file handles.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<File>);

impl Spare {
    /// Opens what is missing, as far as it goes.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        while self.0.len() < COUNT {
            self.0.push(File::open("/")?);
        }
        Ok(())
    }

    /// Closes them: what is opened now has room.
    pub(super) fn release(&mut self) {
        self.0.clear();
    }
}
