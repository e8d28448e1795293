//! What a process has open: an iterator over its descriptors (bpf_iter of task_file, v5.8). It is
//! attached to nothing; it runs in the loader's read(2) of it, and changes nothing.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::seq_file,
    helpers::{bpf_seq_write, generated::bpf_probe_read_kernel_str},
};
use fdtrace_common::{ABSENT, Descriptor};

use crate::{
    fields::{load, offset, read},
    listener::{AF_INET, AF_INET6, S_IFMT, S_IFSOCK},
    maps::EVERY,
};

const IPPROTO_TCP: u16 = 6;

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c.
#[repr(C)]
struct TaskFile {
    meta: *const Meta,
    task: *const c_void,
    number: u32,
    file: *const c_void,
}

/// The loader says whose descriptors.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn fds_it(ctx: *const TaskFile) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "80")]
    const LENGTH: u32 = Descriptor::SIZE as u32;
    // SAFETY: the kernel hands over one of these. `meta` is never null; the verifier knows.
    let (seq, file, number) = unsafe { ((*(*ctx).meta).seq, (*ctx).file, (*ctx).number) };
    // It is called once more at the end.
    if file.is_null() || !is_wanted(number) {
        return 0;
    }
    let mut descriptor = Descriptor { number, ..Descriptor::EMPTY };
    // SAFETY: the verifier knows the type of `file`, and of what is reached from it.
    unsafe { describe(file, &mut descriptor) };
    // SAFETY: as many bytes as it has. What did not fit is asked for again (kernel/bpf/bpf_iter.c
    // bpf_seq_read).
    unsafe {
        bpf_seq_write(seq, (&raw mut descriptor).cast(), LENGTH);
    }
    0
}

/// Of very many a sample is wanted, and numbers that are regular must not be preferred.
#[inline(always)]
fn is_wanted(number: u32) -> bool {
    match EVERY.get(0).copied() {
        None | Some(0 | 1) => true,
        Some(every) => (number.wrapping_mul(0x9e37_79b1) >> 16).is_multiple_of(every),
    }
}

/// # Safety
/// `file` must be what the verifier knows to be a `struct file`.
#[inline(always)]
unsafe fn describe(file: *const c_void, descriptor: &mut Descriptor) {
    // SAFETY: each is reached from a typed pointer, and as wide as its field.
    unsafe {
        let inode: *const c_void = load(file, offset!(file_inode));
        descriptor.inode = load(inode, offset!(inode_ino));
        descriptor.mode = load(inode, offset!(inode_mode));
        if offset!(inode_links) != ABSENT {
            descriptor.links = load(inode, offset!(inode_links));
        }
        if offset!(inode_super_block) != ABSENT && offset!(super_block_magic) != ABSENT {
            let super_block: *const c_void = load(inode, offset!(inode_super_block));
            descriptor.magic = load(super_block, offset!(super_block_magic));
        }
        if descriptor.mode & S_IFMT == S_IFSOCK {
            let socket: *const c_void = load(file, offset!(file_private_data));
            let _ = socket_facts(socket, descriptor);
        } else if offset!(file_dentry) != ABSENT {
            let dentry: *const c_void = load(file, offset!(file_dentry));
            name(dentry, descriptor);
        }
    }
}

/// What a file that is in no directory is called says what it is: `[eventpoll]`.
#[inline(always)]
fn name(dentry: *const c_void, descriptor: &mut Descriptor) {
    if offset!(dentry_parent) == ABSENT || offset!(dentry_name) == ABSENT {
        return;
    }
    let parent = read::<*const c_void>(dentry, offset!(dentry_parent));
    descriptor.is_root = (parent == Ok(dentry)).into();
    let Ok(name) = read::<*const c_void>(dentry, offset!(dentry_name)) else { return };
    let start = (&raw mut descriptor.local).cast::<c_void>();
    // SAFETY: `local` and `peer` are 32 bytes in a row, which `layout` proves.
    unsafe { bpf_probe_read_kernel_str(start, 32, name) };
}

#[inline(always)]
fn socket_facts(socket: *const c_void, descriptor: &mut Descriptor) -> Result<(), i32> {
    let sk = read::<*const c_void>(socket, offset!(socket_sk))?;
    descriptor.family = read(sk, offset!(sock_family))?;
    descriptor.protocol = read(sk, offset!(sock_protocol))?;
    #[expect(clippy::cast_possible_truncation, reason = "there are six")]
    {
        descriptor.socket_type = read::<u16>(sk, offset!(sock_type))? as u8;
    }
    descriptor.state = read(sk, offset!(sock_state))?;
    match descriptor.family {
        AF_INET => {
            let local: [u8; 4] = read(sk, offset!(sock_v4_address))?;
            let peer: [u8; 4] = read(sk, offset!(sock_v4_peer))?;
            descriptor.local[..4].copy_from_slice(&local);
            descriptor.peer[..4].copy_from_slice(&peer);
        }
        AF_INET6 => {
            descriptor.local = read(sk, offset!(sock_v6_address))?;
            descriptor.peer = read(sk, offset!(sock_v6_peer))?;
        }
        _ => return Ok(()),
    }
    descriptor.port = read(sk, offset!(sock_port))?;
    descriptor.peer_port = u16::from_be(read(sk, offset!(sock_peer_port))?);
    if descriptor.protocol == IPPROTO_TCP {
        let received: u32 = read(sk, offset!(tcp_received))?;
        let copied: u32 = read(sk, offset!(tcp_copied))?;
        descriptor.unread = received.wrapping_sub(copied);
    }
    Ok(())
}
