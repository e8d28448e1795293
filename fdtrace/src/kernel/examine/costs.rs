//! What each program costs, by the kernel's own clock.

use std::{os::fd::OwnedFd, os::unix::fs::FileExt as _, time::Duration};

use aya::sys::{Stats, enable_stats};

use crate::{
    kernel::{Kernel, attach::explain},
    model::ProgramCost,
};

/// While this lives, the kernel measures every run of every eBPF program of the host.
#[derive(Debug)]
pub struct Timing(#[expect(dead_code, reason = "closing it ends the measuring")] OwnedFd);

impl Timing {
    /// Starts measuring (`BPF_ENABLE_STATS`: since 5.8, with CAP_SYS_ADMIN).
    pub fn start() -> anyhow::Result<Self> {
        enable_stats(Stats::RunTime).map(Self).map_err(|error| explain(error, "BPF_ENABLE_STATS"))
    }
}

impl Kernel {
    /// Whether the kernel measures all the time (sysctl kernel.bpf_stats_enabled).
    #[must_use]
    pub fn is_measured(&self) -> bool {
        let text = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
        text.is_ok_and(|text| text.trim() == "1")
    }

    /// What each attached program has cost while it was measured.
    #[must_use]
    pub fn costs(&self) -> Vec<ProgramCost> {
        let cost = |name, text: &str| {
            let field = |key| field(text, key);
            ProgramCost {
                program: String::from(name),
                runs: field("run_cnt").unwrap_or(0),
                time: Duration::from_nanos(field("run_time_ns").unwrap_or(0)),
                instructions: field("verified_insns"),
                is_jited: field("prog_jited").map(|value| value != 0),
            }
        };
        self.programs
            .iter()
            .map(|running| {
                let mut bytes = [0; 1024];
                let length = running.info.read_at(&mut bytes, 0).unwrap_or(0);
                cost(running.name, std::str::from_utf8(&bytes[..length]).unwrap_or_default())
            })
            .collect()
    }
}

/// A number in a program's fdinfo (kernel/bpf/syscall.c `bpf_prog_show_fdinfo`).
fn field(fdinfo: &str, key: &str) -> Option<u64> {
    let value = fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn numbers_of_a_program() {
        let text = "pos:\t0\nprog_type:\t5\nprog_jited:\t1\nprog_tag:\tab12\nmemlock:\t4096\n\
                    prog_id:\t7\nrun_time_ns:\t1200\nrun_cnt:\t10\nrecursion_misses:\t0\n";
        assert_eq!(field(text, "run_time_ns"), Some(1200));
        assert_eq!(field(text, "run_cnt"), Some(10));
        assert_eq!(field(text, "prog_jited"), Some(1));
        assert_eq!(field(text, "verified_insns"), None);
        assert_eq!(field(text, "run"), None);
        assert_eq!(field("", "run_cnt"), None);
    }
}
