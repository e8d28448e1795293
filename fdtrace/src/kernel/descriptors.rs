//! What a process has open, by a program that iterates over it: some 0.2 microseconds for each,
//! where `/proc` takes two.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf,
    maps::{Array, MapData},
    programs::{Iter, ProgramFd},
};
use fdtrace_common::{Descriptor, names};

use super::attach::take;

/// The program.
pub(super) const PROGRAM: &str = "fds_it";
/// The function that stands for what it iterates over.
pub(super) const ITERATED: &str = "bpf_iter_task_file";
/// What it iterates over, as the kernel calls it.
const TARGET: &str = "task_file";
/// Iterating over one process only came with this field (6.1).
pub(super) const OF_ONE: &str = "bpf_iter_aux_info.task";

/// Where but every so many-th is given, they come in smaller parts.
const FEW: u32 = 16;

/// Reads what a process has open.
pub struct Descriptors {
    program: ProgramFd,
    /// One at a time: the map is the same for all.
    every: Mutex<Array<MapData, u32>>,
}

impl Descriptors {
    /// Loads the program. It is attached to nothing, and costs nothing until it is asked.
    pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> anyhow::Result<Self> {
        let every = Mutex::new(Array::try_from(take(ebpf, names::EVERY)?)?);
        let program = ebpf.program_mut(PROGRAM).context("the object has no such program")?;
        let program: &mut Iter = program.try_into()?;
        program.load(TARGET, btf)?;
        Ok(Self { program: program.fd()?.try_clone()?, every })
    }

    /// Hands every `every`-th descriptor of a process to `take`, as bytes of a
    /// [`fdtrace_common::Descriptor`], until that says no. Says whether it was all.
    ///
    /// A process that is gone has none.
    pub fn read(
        &self,
        pid: u32,
        every: u32,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<bool> {
        let mut map = self.every.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, every, 0).map_err(io::Error::other)?;
        let link = link(self.program.as_fd().as_raw_fd(), pid)?;
        let mut file = File::from(iterator(&link)?);
        // The kernel's own buffer is as large where pages are 4 KiB (kernel/bpf/bpf_iter.c
        // prepare_seq_file). Where it is larger, one that is cut goes on in the next read.
        // A read ends when it is full: of a few among many that would be too late to stop.
        let room = if every > FEW { 1 << 10 } else { 32 << 10 };
        let mut bytes = vec![0; room];
        let mut kept = 0;
        loop {
            match file.read(&mut bytes[kept..]) {
                Ok(0) => return Ok(true),
                Ok(length) => {
                    let end = kept + length;
                    let whole = end - end % Descriptor::SIZE;
                    for descriptor in bytes[..whole].chunks_exact(Descriptor::SIZE) {
                        if !take(descriptor) {
                            return Ok(false);
                        }
                    }
                    bytes.copy_within(whole..end, 0);
                    kept = end - whole;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It found nothing in a while, and is to be asked again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// `BPF_LINK_CREATE` and `BPF_ITER_CREATE`, include/uapi/linux/bpf.h: aya makes links of iterators,
/// but has no way to say whose descriptors.
fn link(program: RawFd, pid: u32) -> io::Result<OwnedFd> {
    const LINK_CREATE: u32 = 28;
    const TRACE_ITER: u32 = 28;
    /// `union bpf_iter_link_info`, `task`.
    #[repr(C)]
    struct Whose {
        tid: u32,
        pid: u32,
        pid_fd: u32,
    }
    const WHOSE_LEN: u32 = 12;
    const _: () = assert!(size_of::<Whose>() == WHOSE_LEN as usize);
    /// `union bpf_attr`, `link_create`.
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        whose: u64,
        length: u32,
        padding: u32,
    }
    let whose = Whose { tid: 0, pid, pid_fd: 0 };
    let attributes = LinkCreate {
        program: program.cast_unsigned(),
        target: 0,
        attach_type: TRACE_ITER,
        flags: 0,
        whose: (&raw const whose) as u64,
        length: WHOSE_LEN,
        padding: 0,
    };
    bpf(LINK_CREATE, &attributes)
}

fn iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    const ITER_CREATE: u32 = 33;
    /// `union bpf_attr`, `iter_create`.
    #[repr(C)]
    struct IterCreate {
        link: u32,
        flags: u32,
    }
    bpf(ITER_CREATE, &IterCreate { link: link.as_raw_fd().cast_unsigned(), flags: 0 })
}

/// A command that makes a descriptor.
fn bpf<T>(command: u32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told that there are.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let made = RawFd::try_from(made).map_err(io::Error::other)?;
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made right now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
