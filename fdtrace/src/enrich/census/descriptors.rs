//! Looking at the descriptors of one process, in `/proc/PID/fd`.
//!
//! A look takes two microseconds, so of many descriptors only a sample can be looked at. A number
//! below the size of the process's table is tried whether it is open or not: a listing would cost
//! 0.8 microseconds more for each, and could not be stopped halfway without preferring low numbers.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::fs::{
    AtFlags, FileType, OFlags, PROC_SUPER_MAGIC, RawDir, StatxFlags, fstat, fstatfs, getxattr,
    readlinkat_raw, statx,
};

use super::{
    budget::Meter,
    classify::{self, Link},
};
use crate::{enrich::task_dir::TaskDir, model::FdKind};

/// Up to so many are listed, which makes their number exact on every kernel.
const MOST_LISTED: usize = 4096;
/// Directory entries of one getdents64(2): that many that the clock can be looked at in between.
const BUFFER: usize = 4 * 1024;
/// PATH_MAX
pub(super) const PATH: usize = 4096;
/// Between looks at the clock.
const AT_ONCE: usize = 32;
/// Percent of the budget, up to which descriptors are listed.
const LIST_SHARE: u32 = 25;
/// And looked at. The rest is for adding up.
const SHARE: u32 = 90;

/// One descriptor, as whatever looks at descriptors tells it to the tally.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Descriptor<'a> {
    /// A socket. `protocol` need only be asked for where the TCP table does not know the inode.
    Socket { inode: u64, protocol: FdKind },
    /// A path and what it leads to.
    Path { path: &'a [u8], kind: FdKind },
    /// Anything else.
    Other(FdKind),
}

/// How many there are, as far as that was counted, and tried.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// All of them, counted.
    pub(super) open: Option<u64>,
    /// Numbers below this may be open.
    pub(super) table: u64,
    /// Numbers that were tried.
    pub(super) tried: u64,
    /// Those of them that were open.
    pub(super) looked_at: u64,
    /// Those that were open, but did not say what they are.
    pub(super) unreadable: u64,
}

impl Walked {
    /// How many there are, going by the part of the numbers tried that were open.
    pub(super) fn estimate(&self) -> u64 {
        let found = u128::from(self.looked_at + self.unreadable);
        let all = found * u128::from(self.table) / u128::from(self.tried.max(1));
        u64::try_from(all).unwrap_or(u64::MAX)
    }
}

/// The descriptors of a process, to be looked at.
pub(super) struct Descriptors {
    dir: OwnedFd,
    open: Option<u64>,
    /// Their numbers, where there are not too many.
    listed: Option<Vec<u32>>,
    table: u32,
}

impl Descriptors {
    /// Counts or lists them.
    pub(super) fn open(process: &TaskDir, meter: &Meter<'_>) -> io::Result<Self> {
        let dir = process.open_below("fd", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let counted = counted(&dir)?;
        let is_many = counted.is_some_and(|counted| counted > MOST_LISTED as u64);
        let table = fd_size(&process.text("status").unwrap_or_default());
        let (listed, is_complete) =
            if is_many && table.is_some() { (Vec::new(), false) } else { list(&dir, meter)? };
        if is_complete {
            return Ok(Self {
                dir,
                open: Some(listed.len() as u64),
                listed: Some(listed),
                table: 0,
            });
        }
        let listed = table.is_none().then_some(listed);
        Ok(Self { dir, open: counted, listed, table: table.unwrap_or(0) })
    }

    /// Looks at them in no order, until all were or the budget is spent. `knows` says of which
    /// sockets the protocol is known already.
    pub(super) fn walk(
        &self,
        meter: &Meter<'_>,
        knows: impl Fn(u64) -> bool,
        mut take: impl FnMut(Descriptor<'_>),
    ) -> Walked {
        let listed = self.listed.as_deref();
        let size = listed.map_or(self.table, |listed| u32::try_from(listed.len()).unwrap_or(0));
        let mut walked = Walked { open: self.open, table: u64::from(size), ..Walked::default() };
        let mut buffer = [MaybeUninit::uninit(); PATH];
        for (turn, index) in Shuffled::new(size).enumerate() {
            let is_enough = self.open.is_some_and(|open| walked.looked_at >= open);
            if is_enough || (turn.is_multiple_of(AT_ONCE) && !meter.is_within(SHARE)) {
                break;
            }
            let Some(number) = listed
                .map_or(Some(index), |listed| listed.get(usize::try_from(index).ok()?).copied())
            else {
                break;
            };
            walked.tried += 1;
            match self.look(number, &mut buffer, &knows, &mut take) {
                Ok(()) => walked.looked_at += 1,
                // Not open, or not any more.
                Err(rustix::io::Errno::NOENT) => {}
                Err(rustix::io::Errno::SRCH) => break,
                Err(_) => walked.unreadable += 1,
            }
        }
        walked
    }

    fn look(
        &self,
        number: u32,
        buffer: &mut [MaybeUninit<u8>],
        knows: impl Fn(u64) -> bool,
        mut take: impl FnMut(Descriptor<'_>),
    ) -> rustix::io::Result<()> {
        let mut name = itoa_buffer(number);
        let name = name.text();
        let (text, _) = readlinkat_raw(&self.dir, name, buffer)?;
        take(match classify::link(text) {
            Link::Socket(inode) if knows(inode) => {
                Descriptor::Socket { inode, protocol: FdKind::TcpUnread }
            }
            Link::Socket(inode) => Descriptor::Socket { inode, protocol: self.protocol(number) },
            Link::Kind(kind) => Descriptor::Other(kind),
            Link::Path => Descriptor::Path { kind: self.kind(name), path: text },
        });
        Ok(())
    }

    /// What a path leads to.
    fn kind(&self, name: &str) -> FdKind {
        // A network file system is not asked: its server may be gone, and we would hang with it.
        let flags = AtFlags::STATX_DONT_SYNC;
        let Ok(found) = statx(&self.dir, name, flags, StatxFlags::TYPE | StatxFlags::NLINK) else {
            return FdKind::PathUnread;
        };
        classify::path(FileType::from_raw_mode(found.stx_mode.into()), found.stx_nlink)
    }

    fn protocol(&self, number: u32) -> FdKind {
        // There is no getxattrat(2) before v6.13: our own link to the directory stands in for it.
        let path = format!("/proc/self/fd/{}/{number}", self.dir.as_raw_fd());
        let mut name = [0; 64];
        let Ok(length) = getxattr(path, "system.sockprotoname", &mut name) else {
            return FdKind::SocketUnread;
        };
        let name = name.get(..length).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        classify::protocol(&String::from_utf8_lossy(&name[..end]))
    }
}

/// How many there are, where the kernel counts them: since v6.2 that is the size of the directory,
/// before, it is 0 (fs/proc/fd.c proc_fd_getattr).
pub(super) fn counted(dir: &OwnedFd) -> io::Result<Option<u64>> {
    // What is not in /proc has another idea of size.
    if fstatfs(dir)?.f_type != PROC_SUPER_MAGIC {
        return Ok(None);
    }
    let size = u64::try_from(fstat(dir)?.st_size).ok();
    Ok(size.filter(|size| *size > 0))
}

/// Lists numbers, and says whether these are all.
fn list(dir: &OwnedFd, meter: &Meter<'_>) -> io::Result<(Vec<u32>, bool)> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut listed = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_str().map(str::parse);
        if let Ok(Ok(number)) = name {
            let is_time = listed.len().is_multiple_of(AT_ONCE) && !listed.is_empty();
            if listed.len() == MOST_LISTED || (is_time && !meter.is_within(LIST_SHARE)) {
                return Ok((listed, false));
            }
            listed.push(number);
        }
    }
    Ok((listed, true))
}

/// How large the table of descriptors is.
pub(super) fn fd_size(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()
}

/// A number as text, without an allocation for each of many thousands.
pub(super) struct NumberText {
    bytes: [u8; 10],
    start: usize,
}

pub(super) fn itoa_buffer(mut number: u32) -> NumberText {
    let mut text = NumberText { bytes: [b'0'; 10], start: 10 };
    loop {
        text.start -= 1;
        text.bytes[text.start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return text;
        }
    }
}

impl NumberText {
    pub(super) fn text(&mut self) -> &str {
        str::from_utf8(&self.bytes[self.start..]).unwrap_or("0")
    }
}

/// The numbers below `size`, each once, in an order that has nothing to do with theirs: every start
/// of it is a fair sample.
pub(super) struct Shuffled {
    size: u32,
    bits: u32,
    next: u64,
}

impl Shuffled {
    pub(super) const fn new(size: u32) -> Self {
        let bits = 32 - size.saturating_sub(1).leading_zeros();
        Self { size, bits: if bits == 0 { 1 } else { bits }, next: 0 }
    }

    /// A permutation of the numbers of so many bits: each step can be undone.
    const fn permuted(&self, number: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        let half = self.bits.div_ceil(2);
        let mut mixed = number;
        let mut round = 0;
        while round < 3 {
            mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x85eb_ca6b) & mask;
            mixed ^= mixed >> half;
            round += 1;
        }
        mixed
    }
}

impl Iterator for Shuffled {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.next < 1 << self.bits {
            let number = u32::try_from(self.permuted(self.next)).ok()?;
            self.next += 1;
            if number < self.size {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_numbers_come_once_each() {
        for size in [0, 1, 2, 3, 64, 100, 1023, 1024, 1025, 40_000] {
            let mut seen: Vec<u32> = Shuffled::new(size).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..size), "{size}");
        }
    }

    /// What a process holds is often regular: every second descriptor a client, the first half
    /// files. A sample has to have its fair part of each.
    #[test]
    fn every_start_is_a_fair_sample() {
        for size in [20_000, 32_768, 100_000, 131_072, 1_048_576] {
            let sample: Vec<u32> = Shuffled::new(size).take(8_000).collect();
            let share = |is: &dyn Fn(u32) -> bool| {
                let count = sample.iter().filter(|number| is(**number)).count();
                f64::from(u32::try_from(count).unwrap()) / 8_000.0
            };
            for period in [2, 3, 4, 5, 8, 10, 16, 64, 100] {
                for rest in [0, 1, period - 1] {
                    let found = share(&|number| number % period == rest);
                    let fair = 1.0 / f64::from(period);
                    assert!((found - fair).abs() < 0.02, "{size} % {period} = {rest}: {found}");
                }
            }
            for tenth in 0..10 {
                let found = share(&|number| number / (size / 10 + 1) == tenth);
                assert!((found - 0.1).abs() < 0.02, "{size}: tenth {tenth}: {found}");
            }
        }
    }

    #[test]
    fn texts_of_numbers() {
        for number in [0, 7, 10, 99, 1024, u32::MAX] {
            assert_eq!(itoa_buffer(number).text(), number.to_string());
        }
        assert_eq!(fd_size("Name:\tx\nFDSize:\t32768\n"), Some(32768));
        assert_eq!(fd_size("FDSize:\t?\n"), None);
        assert_eq!(fd_size(""), None);
    }
}
