//! System calls that create a file descriptor, by name and by number.

use crate::Door;

/// A system call that creates a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdCall {
    /// Its name, as its tracepoint and its manual page have it.
    pub name: &'static str,
    /// arch/x86/entry/syscalls/syscall_64.tbl
    pub x86_64: Option<u16>,
    /// include/uapi/asm-generic/unistd.h
    pub arm64: Option<u16>,
    /// arch/x86/entry/syscalls/syscall_32.tbl: a 32-bit caller on x86-64.
    pub i386: Option<u16>,
}

impl FdCall {
    /// [`FailureKey::door`](crate::FailureKey::door) of the first of [`FD_CALLS`]; the others
    /// follow.
    pub const FIRST_DOOR: u8 = 32;

    /// The door of a call; [`Door::Other`] of one that is not here.
    #[must_use]
    pub const fn door(name: &str) -> u8 {
        let mut door = Self::FIRST_DOOR;
        let mut calls: &[Self] = &FD_CALLS;
        while let [call, rest @ ..] = calls {
            if is_same(call.name.as_bytes(), name.as_bytes()) {
                return door;
            }
            calls = rest;
            door += 1;
        }
        Door::Other as u8
    }

    /// The call with that door.
    #[must_use]
    pub fn by_door(door: u8) -> Option<&'static Self> {
        FD_CALLS.get(usize::from(door.checked_sub(Self::FIRST_DOOR)?))
    }
}

/// `==`, which is not const.
const fn is_same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, more_a @ ..], [y, more_b @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (more_a, more_b);
    }
    a.is_empty() && b.is_empty()
}

const fn call(name: &'static str, x86_64: u16, arm64: u16, i386: u16) -> FdCall {
    FdCall { name, x86_64: Some(x86_64), arm64: Some(arm64), i386: Some(i386) }
}

/// A call that newer architectures do not have.
const fn old(name: &'static str, x86_64: u16, i386: u16) -> FdCall {
    FdCall { name, x86_64: Some(x86_64), arm64: None, i386: Some(i386) }
}

/// The first so many of [`FD_CALLS`] fail when they get no descriptor. recvmsg(2) does not: it drops
/// the descriptors it was sent and says so in `msg_flags`.
pub const FD_CALLS_THAT_FAIL: usize = FD_CALLS.len() - 2;

/// Every such call but those with a [`Door`] of their own.
pub const FD_CALLS: [FdCall; 39] = [
    old("open", 2, 5),
    call("openat", 257, 56, 295),
    call("openat2", 437, 437, 437),
    old("creat", 85, 8),
    call("open_by_handle_at", 304, 265, 342),
    call("dup", 32, 23, 41),
    call("fcntl", 72, 25, 55),
    old("pipe", 22, 42),
    call("pipe2", 293, 59, 331),
    old("epoll_create", 213, 254),
    call("epoll_create1", 291, 20, 329),
    old("eventfd", 284, 323),
    call("eventfd2", 290, 19, 328),
    call("timerfd_create", 283, 85, 322),
    old("signalfd", 282, 321),
    call("signalfd4", 289, 74, 327),
    old("inotify_init", 253, 291),
    call("inotify_init1", 294, 26, 332),
    call("fanotify_init", 300, 262, 338),
    call("memfd_create", 319, 279, 356),
    call("memfd_secret", 447, 447, 447),
    call("pidfd_open", 434, 434, 434),
    call("pidfd_getfd", 438, 438, 438),
    call("perf_event_open", 298, 241, 336),
    call("bpf", 321, 280, 357),
    call("userfaultfd", 323, 282, 374),
    call("io_uring_setup", 425, 425, 425),
    call("mq_open", 240, 180, 277),
    call("fsopen", 430, 430, 430),
    call("fspick", 433, 433, 433),
    call("fsmount", 432, 432, 432),
    call("open_tree", 428, 428, 428),
    call("landlock_create_ruleset", 444, 444, 444),
    call("clone", 56, 220, 120),
    call("clone3", 435, 435, 435),
    call("ioctl", 16, 29, 54),
    call("seccomp", 317, 277, 354),
    call("recvmsg", 47, 212, 372),
    call("recvmmsg", 299, 243, 337),
];

/// How long the tables of doors are: the highest number of a system call is below.
pub const CALL_NUMBERS: usize = 512;

/// A table from the number of a system call to its door; 0 where it creates no descriptor.
pub type Doors = [u8; CALL_NUMBERS];

/// The processor whose numbers a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// x86-64.
    X86_64,
    /// arm64.
    Arm64,
    /// 32-bit callers on x86-64.
    I386,
}

impl Numbers {
    /// The table of doors.
    #[must_use]
    pub fn doors(self) -> Doors {
        let mut doors = [0; CALL_NUMBERS];
        // accept, accept4, socket, socketpair, io_uring_enter
        let own: [Option<usize>; 5] = match self {
            Self::X86_64 => [Some(43), Some(288), Some(41), Some(53), Some(426)],
            Self::Arm64 => [Some(202), Some(242), Some(198), Some(199), Some(426)],
            // It has socketcall(2) instead of accept.
            Self::I386 => [None, Some(364), Some(359), Some(360), Some(426)],
        };
        let named = [Door::Accept, Door::Accept4, Door::Socket, Door::Socketpair, Door::IoUring];
        for (number, door) in own.into_iter().zip(named) {
            if let Some(place) = number.and_then(|number| doors.get_mut(number)) {
                *place = door as u8;
            }
        }
        for (door, call) in (FdCall::FIRST_DOOR..).zip(FD_CALLS) {
            let number = match self {
                Self::X86_64 => call.x86_64,
                Self::Arm64 => call.arm64,
                Self::I386 => call.i386,
            };
            let place = number.and_then(|number| doors.get_mut(usize::from(number)));
            if let Some(place) = place {
                *place = door;
            }
        }
        if self == Self::I386 {
            // fcntl64
            doors[221] = doors[55];
        }
        doors
    }
}
