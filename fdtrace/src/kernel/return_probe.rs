//! What the kernel tells of a return probe: how many returns it did not see, because more tasks were
//! inside the function than it had places for (kernel/kprobes.c `maxactive`).

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use rustix::io::fcntl_dupfd_cloexec;

/// The link between a program and its return probe, open for as long as we run.
#[derive(Debug)]
pub(super) struct ReturnProbe(OwnedFd);

/// The numbers of include/uapi/linux/bpf.h that the question takes.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_TYPE_PERF_EVENT: u64 = 7;
const BPF_PERF_EVENT_KRETPROBE: u64 = 4;

/// `bpf_attr` of that command.
#[repr(C)]
struct Question {
    fd: u32,
    length: u32,
    info: u64,
}

/// `bpf_link_info` in words: type and id; program; kind of perf event; length and place of the name of
/// the function, and the offset in it; its address; what was missed.
const WORDS: usize = 16;
const KIND: usize = 2;
const MISSED: usize = 6;

impl ReturnProbe {
    /// The link of a program that has one. aya keeps it to itself, and the kernel shows it to everybody
    /// who looks at their own descriptors. Must run before other threads exist.
    pub(super) fn of(program_id: u32) -> Option<Self> {
        let program = format!("prog_id:\t{program_id}");
        let is_it = |text: &str| {
            text.lines().any(|line| line == "link_type:\tperf")
                && text.lines().any(|line| line == program)
        };
        let entry = fs::read_dir("/proc/self/fdinfo")
            .ok()?
            .filter_map(Result::ok)
            .find(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| is_it(&text)))?;
        let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
        // SAFETY: it is open, and nobody else runs who could close it.
        let link = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_dupfd_cloexec(link, 0).ok().map(Self)
    }

    /// How many returns it did not see. `None` where the kernel does not say (before 6.7).
    pub(super) fn missed(&self) -> Option<u64> {
        let mut words = [0_u64; WORDS];
        let mut question = Question {
            fd: self.0.as_raw_fd().cast_unsigned(),
            length: u32::try_from(size_of_val(&words)).ok()?,
            info: words.as_mut_ptr().expose_provenance() as u64,
        };
        let size = size_of_val(&question);
        // SAFETY: the kernel reads the question, and writes at most `length` bytes where it says, and
        // how many it has for us into `length`.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut question, size)
        };
        if result != 0 {
            return None;
        }
        missed(&words, question.length as usize)
    }
}

/// The same of what the kernel said, which was so many bytes.
fn missed(words: &[u64; WORDS], length: usize) -> Option<u64> {
    let low_half = |word: u64| word & 0xffff_ffff;
    let is_return = low_half(words[0]) == BPF_LINK_TYPE_PERF_EVENT
        && low_half(words[KIND]) == BPF_PERF_EVENT_KRETPROBE;
    let is_told = length >= (MISSED + 1) * size_of::<u64>();
    (is_return && is_told).then_some(words[MISSED])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_wrote_counts() {
        let mut words = [0; WORDS];
        words[0] = 91 << 32 | BPF_LINK_TYPE_PERF_EVENT;
        words[KIND] = BPF_PERF_EVENT_KRETPROBE;
        words[MISSED] = 54;
        assert_eq!(missed(&words, 64), Some(54));
        assert_eq!(missed(&words, 56), Some(54));
        // As before 6.7.
        assert_eq!(missed(&words, 48), None);
        words[KIND] -= 1;
        assert_eq!(missed(&words, 64), None, "an entry has no places");
    }

    #[test]
    fn a_program_without_a_link_has_none() {
        assert!(ReturnProbe::of(u32::MAX).is_none());
    }
}
