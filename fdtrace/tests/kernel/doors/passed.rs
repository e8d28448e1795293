//! Descriptors passed over a socket to a process that has no room for them. recvmsg(2) succeeds, sets
//! MSG_CTRUNC, and the descriptors are gone: nginx, haproxy and systemd pass sockets like that.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    },
};
use serde_json::{Value, json};

use super::{fdtrace, seen::assert_counted, table::fill};
use crate::{
    Test,
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[
    ("passed_descriptors_that_are_dropped", dropped),
    ("passed_descriptors_dropped_by_recvmmsg", dropped_by_recvmmsg),
    ("passed_descriptors_that_a_short_buffer_drops_are_no_exhaustion", short_buffer),
    ("passed_descriptors_that_arrive", all_arrive),
    ("passed_descriptors_without_fds_are_not_counted", without_fds),
];

/// How many are in each message.
const SENT: usize = 3;

/// Sends messages with three descriptors each to itself, and takes them with room for `room`.
pub(super) fn run(spec: &Spec<'_>) {
    let calls = spec.number("calls", 1);
    let capacity = spec.number("capacity", SENT);
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (sender, receiver) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
    let _held = fill(64, spec.number("room", 0));
    say("ready", &Value::Null);
    wait();
    let per_call = match spec.text("call").unwrap() {
        "recvmsg" => 1,
        "recvmmsg" => 2,
        other => panic!("call={other}"),
    };
    let (mut arrived, mut truncated) = (0, 0);
    for _ in 0..calls {
        (0..per_call).for_each(|_| send(&sender));
        for (descriptors, is_truncated) in receive(&receiver, per_call, capacity) {
            arrived += descriptors;
            truncated += usize::from(is_truncated);
        }
    }
    let sent = calls * per_call * SENT;
    say("done", &json!({ "sent": sent, "dropped": sent - arrived, "truncated": truncated }));
    wait();
}

fn send(sender: &OwnedFd) {
    // SAFETY: standard input is open as long as the workload runs.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let descriptors = [stdin.as_raw_fd(); SENT];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(b"x")];
    let sent = sendmsg::<()>(sender.as_raw_fd(), &byte, &control, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(1));
}

/// Takes so many messages with one call; of each, how many descriptors came, all closed again, and
/// whether some were dropped. nix shows none of a message that lacks some.
fn receive(receiver: &OwnedFd, messages: usize, capacity: usize) -> Vec<(usize, bool)> {
    // Longer than needed, and aligned as a cmsghdr must be.
    let mut controls = vec![[0_u64; 8]; messages];
    let mut bytes = vec![0_u8; messages];
    let mut vectors: Vec<_> = bytes
        .iter_mut()
        .map(|byte| libc::iovec { iov_base: (&raw mut *byte).cast(), iov_len: 1 })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .zip(&mut controls)
        .map(|(vector, control)| {
            // SAFETY: all zeros is a valid, empty header.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = &raw mut *vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut *control).cast();
            header.msg_hdr.msg_controllen = cmsg_length(capacity);
            header
        })
        .collect();
    let (fd, first) = (receiver.as_raw_fd(), headers.as_mut_ptr());
    if messages == 1 {
        // SAFETY: a header whose buffers live until the end of this function.
        let result = unsafe { libc::recvmsg(fd, &raw mut (*first).msg_hdr, 0) };
        assert_eq!(Errno::result(result), Ok(1));
    } else {
        let count = libc::c_uint::try_from(messages).unwrap();
        // SAFETY: as many headers, whose buffers live until the end of this function.
        let result = unsafe { libc::recvmmsg(fd, first, count, 0, ptr::null_mut()) };
        assert_eq!(Errno::result(result).map(usize::try_from), Ok(Ok(messages)));
    }
    headers.iter().map(|header| descriptors(&header.msg_hdr)).collect()
}

fn cmsg_length(descriptors: usize) -> usize {
    let bytes = u32::try_from(descriptors * size_of::<RawFd>()).unwrap();
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_LEN(bytes) as usize }
}

/// Of a message that the kernel has filled.
fn descriptors(header: &libc::msghdr) -> (usize, bool) {
    let mut arrived = 0;
    // SAFETY: the control buffer is as long as the header says.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, so within the buffer, with its data behind it: descriptors that the
        // kernel has just given us.
        unsafe {
            let first: *const RawFd = libc::CMSG_DATA(control).cast();
            let count = ((*control).cmsg_len - cmsg_length(0)) / size_of::<RawFd>();
            (0..count).for_each(|index| drop(OwnedFd::from_raw_fd(first.add(index).read())));
            arrived += count;
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    (arrived, header.msg_flags & libc::MSG_CTRUNC != 0)
}

/// The kernel stops at the first descriptor that it cannot give out (net/core/scm.c,
/// `scm_detach_fds`, v6.1 to v6.18): one failure for each message, however many are dropped.
fn dropped() {
    for (room, calls) in [(0, 61), (1, 67), (2, 71)] {
        let fdtrace = fdtrace(&["--fds"]);
        let spec = format!("doors=passed call=recvmsg room={room} calls={calls}");
        let mut workload = Workload::start(&spec);
        workload.go();
        let done = workload.done();
        let dropped = calls * (SENT as u64 - room);
        assert_eq!(done["dropped"], dropped, "{done}");
        assert_eq!(done["truncated"], calls, "{done}");
        assert_counted(&fdtrace.stop(), workload.pid(), &[("recvmsg", "EMFILE", calls)]);
    }
}

/// The first message takes the only place, the second finds none.
fn dropped_by_recvmmsg() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=passed call=recvmmsg room=1 calls=73");
    workload.go();
    let done = workload.done();
    assert_eq!(done, json!({ "sent": 73 * 6, "dropped": 73 * 5, "truncated": 73 * 2 }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[("recvmmsg", "EMFILE", 73 * 2)]);
}

/// The receiver's own mistake: there is room for descriptors, but not for their numbers.
fn short_buffer() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=passed call=recvmsg room=9 capacity=1 calls=79");
    workload.go();
    let done = workload.done();
    assert_eq!(done, json!({ "sent": 79 * 3, "dropped": 79 * 2, "truncated": 79 }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
}

fn all_arrive() {
    let fdtrace = fdtrace(&["--fds"]);
    let mut workload = Workload::start("doors=passed call=recvmsg room=3 calls=83");
    workload.go();
    assert_eq!(workload.done(), json!({ "sent": 83 * 3, "dropped": 0, "truncated": 0 }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
}

fn without_fds() {
    let fdtrace = fdtrace(&[]);
    let mut workload = Workload::start("doors=passed call=recvmsg room=1 calls=5");
    workload.go();
    assert_eq!(workload.done()["truncated"], 5);
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
}
