//! What the kernel says of its eBPF programs: their size, how often they ran, and for how long.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::bpf::{
    BPF_ENABLE_STATS, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_GET_FD_BY_ID, BPF_PROG_GET_NEXT_ID,
    PROG_TYPE_CGROUP_SKB, PROG_TYPE_KPROBE, PROG_TYPE_RAW_TRACEPOINT, PROG_TYPE_TRACEPOINT,
    PROG_TYPE_TRACING, bpf, number, owned,
};

/// As many bytes of struct bpf_prog_info as have what is read here.
const INFO_BYTES: usize = 224;

/// A loaded program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) id: u32,
    /// The first 15 letters; empty programs have none.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Instructions after the verifier has changed them for this kernel.
    pub(crate) translated: u64,
    /// Bytes of machine code; 0: it is interpreted.
    pub(crate) jited_bytes: u64,
    /// Instructions that the verifier went through, on all paths; 0: the kernel does not say.
    pub(crate) verified: u64,
    pub(crate) runs: u64,
    /// For how long it ran, the clock's own time included.
    pub(crate) run_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Kprobe,
    Tracepoint,
    CgroupSkb,
    RawTracepoint,
    /// fentry, fexit, tp_btf.
    Tracing,
    Other,
}

/// While it lives, the kernel measures every run of every program (`BPF_ENABLE_STATS`: since 5.8).
pub(crate) struct Timing {
    _statistics: OwnedFd,
}

impl Timing {
    pub(crate) fn start() -> Result<Self> {
        // Attribute type 0: BPF_STATS_RUN_TIME.
        let fd = bpf(BPF_ENABLE_STATS, &mut [0]).context("BPF_ENABLE_STATS")?;
        Ok(Self { _statistics: owned(fd)? })
    }
}

/// Every program of the machine.
pub(crate) fn all() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let mut id = 0;
    while let Some(next) = next(id)? {
        id = next;
        // One that was unloaded meanwhile is none.
        match bpf(BPF_PROG_GET_FD_BY_ID, &mut [u64::from(id)]) {
            Ok(fd) => programs.push(info(&owned(fd)?)?),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error).context("BPF_PROG_GET_FD_BY_ID"),
        }
    }
    Ok(programs)
}

fn next(id: u32) -> Result<Option<u32>> {
    // start_id and next_id are the two halves of the first.
    let mut attr = [u64::from(id), 0];
    match bpf(BPF_PROG_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(u32::try_from(attr[0] >> 32)?)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error).context("BPF_PROG_GET_NEXT_ID"),
    }
}

fn info(program: &OwnedFd) -> Result<Program> {
    let mut info = [0_u64; INFO_BYTES / 8];
    let mut attr = [number(program)? | (INFO_BYTES as u64) << 32, info.as_mut_ptr().addr() as u64];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).context("BPF_OBJ_GET_INFO_BY_FD")?;
    Ok(parse(&info))
}

/// struct bpf_prog_info of linux/bpf.h, little endian; what a kernel does not know stays 0.
fn parse(info: &[u64; INFO_BYTES / 8]) -> Program {
    let half = |at: usize| {
        let shift = if at.is_multiple_of(8) { 0 } else { 32 };
        u32::try_from(info[at / 8] >> shift & 0xffff_ffff).unwrap_or_default()
    };
    let name: Vec<_> = info[8..10].iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Program {
        kind: Kind::of(half(0)),
        id: half(4),
        jited_bytes: u64::from(half(16)),
        translated: u64::from(half(20)) / 8,
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        run_ns: info[24],
        runs: info[25],
        verified: u64::from(half(216)),
    }
}

impl Kind {
    const fn of(number: u32) -> Self {
        match number {
            PROG_TYPE_KPROBE => Self::Kprobe,
            PROG_TYPE_TRACEPOINT => Self::Tracepoint,
            PROG_TYPE_CGROUP_SKB => Self::CgroupSkb,
            PROG_TYPE_RAW_TRACEPOINT => Self::RawTracepoint,
            PROG_TYPE_TRACING => Self::Tracing,
            _ => Self::Other,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::CgroupSkb => "cgroup_skb",
            Self::RawTracepoint => "raw tracepoint",
            Self::Tracing => "tracing",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_what_the_kernel_says() {
        let mut info = [0; INFO_BYTES / 8];
        info[0] = 0x1a | 7 << 32;
        info[2] = 0x190 | 240 << 32;
        info[8] = u64::from_le_bytes(*b"accept_f");
        info[9] = u64::from_le_bytes(*b"x\0\0\0\0\0\0\0");
        (info[24], info[25], info[27]) = (1200, 10, 31 | 9 << 32);
        let program = parse(&info);
        assert_eq!((program.id, program.kind), (7, Kind::Tracing));
        assert_eq!((program.name.as_str(), program.verified), ("accept_fx", 31));
        assert_eq!((program.translated, program.jited_bytes), (30, 400));
        assert_eq!((program.runs, program.run_ns), (10, 1200));
    }
}
