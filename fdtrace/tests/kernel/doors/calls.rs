//! Every call that gives out a descriptor, made with none to give.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::CStr,
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    libc::{self, c_int, c_long},
};
use serde_json::{Value, json};

use super::table::fill;
use crate::workload::{Spec, say, wait};

/// The soft limit of the workload.
pub(super) const LIMIT: usize = 64;

/// One call, and the door that fdtrace knows it by.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) door: &'static str,
    number: fn(&Objects) -> c_long,
}

/// A system call by its number: a function of libc may make another one.
macro_rules! call {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        // SAFETY: every pointer is to something that outlives the call, or null where the kernel
        // takes that for absent.
        unsafe { libc::syscall(libc::$number $(, $argument)*) }
    };
}

const fn door(door: &'static str, number: fn(&Objects) -> c_long) -> Call {
    Call { name: door, door, number }
}

const fn named(name: &'static str, door: &'static str, number: fn(&Objects) -> c_long) -> Call {
    Call { name, door, number }
}

/// What a call that gives two descriptors answers as if it gave one; the other stays open.
fn first_of(answer: c_long, pair: [i32; 2]) -> c_long {
    if answer < 0 { answer } else { c_long::from(pair[0]) }
}

/// Of a call that makes a process: there must be none.
fn parent(answer: c_long) -> c_long {
    if answer == 0 {
        // SAFETY: ends the child, which has run nothing else.
        unsafe { libc::_exit(0) }
    }
    answer
}

const FILE: &CStr = c"/dev/null";
const ROOT: &CStr = c"/";
/// Not in libc: linux/nsfs.h, linux/userfaultfd.h, asm-generic/socket.h, linux/mount.h.
const NS_GET_USERNS: c_long = 0xb701;
const UFFD_USER_MODE_ONLY: c_int = 1;
const SO_PEERPIDFD: c_int = 77;
const FSCONFIG_CMD_CREATE: c_int = 6;
const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// Calls that every architecture has.
const EVERYWHERE: &[Call] = &[
    door("accept", |o| call!(SYS_accept, o.listener.as_raw_fd(), 0, 0)),
    door("accept4", |o| call!(SYS_accept4, o.listener.as_raw_fd(), 0, 0, libc::SOCK_CLOEXEC)),
    door("socket", |_| call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    door("socketpair", |_| {
        let mut pair = [0_i32; 2];
        first_of(call!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &raw mut pair), pair)
    }),
    door("openat", |_| call!(SYS_openat, libc::AT_FDCWD, FILE.as_ptr(), libc::O_RDONLY)),
    named("openat O_PATH", "openat", |_| {
        call!(SYS_openat, libc::AT_FDCWD, FILE.as_ptr(), libc::O_PATH)
    }),
    door("openat2", |_| {
        let how = [0_u64; 3];
        call!(SYS_openat2, libc::AT_FDCWD, FILE.as_ptr(), &raw const how, size_of_val(&how))
    }),
    door("dup", |_| call!(SYS_dup, 0)),
    named("fcntl F_DUPFD", "fcntl", |_| call!(SYS_fcntl, 0, libc::F_DUPFD, 0)),
    // From a start above 0: the descriptors below it do not matter.
    named("fcntl F_DUPFD_CLOEXEC", "fcntl", |_| {
        call!(SYS_fcntl, 0, libc::F_DUPFD_CLOEXEC, LIMIT - 2)
    }),
    door("pipe2", |_| {
        let mut pair = [0_i32; 2];
        first_of(call!(SYS_pipe2, &raw mut pair, libc::O_CLOEXEC), pair)
    }),
    door("epoll_create1", |_| call!(SYS_epoll_create1, 0)),
    door("eventfd2", |_| call!(SYS_eventfd2, 0, 0)),
    door("timerfd_create", |_| call!(SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0)),
    door("signalfd4", |_| {
        let mask = 0_u64;
        call!(SYS_signalfd4, -1, &raw const mask, size_of_val(&mask), 0)
    }),
    door("inotify_init1", |_| call!(SYS_inotify_init1, 0)),
    door("fanotify_init", |_| call!(SYS_fanotify_init, libc::FAN_CLASS_NOTIF, 0)),
    door("memfd_create", |_| call!(SYS_memfd_create, FILE.as_ptr(), libc::MFD_CLOEXEC)),
    door("memfd_secret", |_| call!(SYS_memfd_secret, 0)),
    door("pidfd_open", |_| call!(SYS_pidfd_open, std::process::id(), 0)),
    door("pidfd_getfd", |o| call!(SYS_pidfd_getfd, o.pidfd, 0, 0)),
    door("open_by_handle_at", |o| {
        let (mount, handle) = (o.mount.as_raw_fd(), &raw const o.handle);
        call!(SYS_open_by_handle_at, mount, handle, libc::O_RDONLY)
    }),
    door("userfaultfd", |_| call!(SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY)),
    door("perf_event_open", |_| {
        let attributes = PerfEvent::dummy();
        call!(SYS_perf_event_open, &raw const attributes, 0, -1, -1, 0)
    }),
    door("bpf", |_| {
        // The first members of a map's attributes: type, size of keys and of values, entries.
        let mut attributes = [0_u32; 18];
        attributes[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 4, 1]);
        call!(SYS_bpf, BPF_MAP_CREATE, &raw mut attributes, size_of_val(&attributes))
    }),
    door("io_uring_setup", |_| {
        let mut parameters = [0_u32; 30];
        call!(SYS_io_uring_setup, 1, &raw mut parameters)
    }),
    door("mq_open", |_| {
        let name = c"fdtrace-test";
        call!(SYS_mq_open, name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, 0)
    }),
    door("open_tree", |_| call!(SYS_open_tree, libc::AT_FDCWD, ROOT.as_ptr(), 0)),
    door("fsopen", |_| call!(SYS_fsopen, c"tmpfs".as_ptr(), 0)),
    door("fspick", |_| call!(SYS_fspick, libc::AT_FDCWD, ROOT.as_ptr(), 0)),
    named("ioctl NS_GET_USERNS", "ioctl", |o| {
        call!(SYS_ioctl, o.namespace.as_raw_fd(), NS_GET_USERNS)
    }),
    door("landlock_create_ruleset", |_| {
        let handled_access_fs = 1_u64;
        let size = size_of_val(&handled_access_fs);
        call!(SYS_landlock_create_ruleset, &raw const handled_access_fs, size, 0)
    }),
    named("clone CLONE_PIDFD", "clone", |_| {
        let mut pidfd = 0_i32;
        let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
        parent(call!(SYS_clone, flags, 0, &raw mut pidfd, 0, 0))
    }),
    named("clone3 CLONE_PIDFD", "clone3", |_| {
        let mut pidfd = 0_i32;
        let pointer: *mut i32 = &raw mut pidfd;
        // The first size of clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, its
        // size, tls.
        let mut arguments = [0_u64; 8];
        arguments[0] = u64::from(libc::CLONE_PIDFD.cast_unsigned());
        arguments[1] = pointer.expose_provenance() as u64;
        arguments[4] = u64::from(libc::SIGCHLD.cast_unsigned());
        parent(call!(SYS_clone3, &raw mut arguments, size_of_val(&arguments)))
    }),
    named("seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER", "seccomp", |_| {
        let allow = libc::BPF_RET | libc::BPF_K;
        let code = u16::try_from(allow).unwrap();
        let mut filter = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
        let mut program = libc::sock_fprog { len: 1, filter: &raw mut filter };
        let (operation, flag) =
            (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        call!(SYS_seccomp, operation, flag, &raw mut program)
    }),
    // A call that fdtrace has no name for.
    named("getsockopt SO_PEERPIDFD", "other", |o| {
        let (mut pidfd, mut size) = (-1_i32, size_of::<i32>());
        let answer = call!(
            SYS_getsockopt,
            o.pair.0.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            &raw mut pidfd,
            &raw mut size
        );
        if answer < 0 { answer } else { c_long::from(pidfd) }
    }),
];

/// Calls that can be made once for each thing that was prepared, failed or not: [`PREPARED`] times.
const ONCE: &[Call] = &[door("fsmount", |o| {
    let place = o.used.get();
    o.used.set(place + 1);
    call!(SYS_fsmount, o.contexts[place].as_raw_fd(), 0, 0)
})];
pub(super) const PREPARED: usize = 17;

/// Calls that newer architectures such as arm64 never had.
#[cfg(target_arch = "x86_64")]
const OLD: &[Call] = &[
    door("open", |_| call!(SYS_open, FILE.as_ptr(), libc::O_RDONLY)),
    door("creat", |_| call!(SYS_creat, FILE.as_ptr(), 0o600)),
    door("pipe", |_| {
        let mut pair = [0_i32; 2];
        first_of(call!(SYS_pipe, &raw mut pair), pair)
    }),
    door("epoll_create", |_| call!(SYS_epoll_create, 1)),
    door("eventfd", |_| call!(SYS_eventfd, 0)),
    door("signalfd", |_| {
        let mask = 0_u64;
        call!(SYS_signalfd, -1, &raw const mask, size_of_val(&mask))
    }),
    door("inotify_init", |_| call!(SYS_inotify_init)),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Call] = &[];

/// Calls that fail at the limit for another reason than that nothing is left: theirs is a bad
/// argument, and fdtrace must not count them.
pub(super) const NOT_EXHAUSTED: &[(Errno, Call)] = &[
    #[cfg(target_arch = "x86_64")]
    (Errno::EBADF, door("dup2", |_| call!(SYS_dup2, 0, LIMIT))),
    (Errno::EBADF, door("dup3", |_| call!(SYS_dup3, 0, LIMIT + 7, 0))),
    (Errno::EINVAL, named("F_DUPFD", "fcntl", |_| call!(SYS_fcntl, 0, libc::F_DUPFD, LIMIT))),
    (Errno::EBADF, door("dup", |_| call!(SYS_dup, LIMIT))),
    (
        Errno::EINVAL,
        door("openat2", |_| {
            // Flags that openat2 does not know are looked at first.
            let how = [u64::MAX, 0, 0];
            call!(SYS_openat2, libc::AT_FDCWD, FILE.as_ptr(), &raw const how, size_of_val(&how))
        }),
    ),
];

/// All that this architecture has.
pub(super) fn all() -> impl Iterator<Item = &'static Call> {
    EVERYWHERE.iter().chain(OLD)
}

/// How often the call with that place among all of them fails: as no other one does.
pub(super) const fn times(place: usize) -> u64 {
    101 + 2 * place as u64
}

/// perf_event_attr in its first size, PERF_ATTR_SIZE_VER0.
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 6],
}

impl PerfEvent {
    fn dummy() -> Self {
        let size = u32::try_from(size_of::<Self>()).unwrap();
        Self { kind: PERF_TYPE_SOFTWARE, size, config: PERF_COUNT_SW_DUMMY, ..Self::default() }
    }
}

/// file_handle with room for the longest, MAX_HANDLE_SZ.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    opaque: [u8; 128],
}

/// What calls need, opened while there is room.
pub(super) struct Objects {
    listener: OwnedFd,
    namespace: File,
    pair: (UnixStream, UnixStream),
    /// File systems that can be mounted, and how many were tried.
    contexts: Vec<OwnedFd>,
    used: Cell<usize>,
    /// -1 where the kernel has none.
    pidfd: RawFd,
    mount: File,
    handle: Handle,
}

impl Objects {
    pub(super) fn open() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        let namespace = File::open("/proc/self/ns/net").unwrap();
        let pair = UnixStream::pair().unwrap();
        let contexts = (0..PREPARED).map(|_| file_system()).collect();
        let used = Cell::new(0);
        let pidfd = RawFd::try_from(call!(SYS_pidfd_open, std::process::id(), 0)).unwrap();
        let mount = File::open("/dev/shm").unwrap();
        let mut handle = Handle { bytes: 128, kind: 0, opaque: [0; 128] };
        let mut mount_id = 0_i32;
        // Where this fails the handle is invalid, and the call says so.
        call!(
            SYS_name_to_handle_at,
            libc::AT_FDCWD,
            c"/dev/shm".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            0
        );
        Self { listener, namespace, pair, contexts, used, pidfd, mount, handle }
    }
}

/// A tmpfs that can be mounted; without the rights or the calls something else, and the call says so.
fn file_system() -> OwnedFd {
    let context = call!(SYS_fsopen, c"tmpfs".as_ptr(), 0);
    let Ok(context @ 0..) = RawFd::try_from(context) else {
        return File::open("/dev/null").unwrap().into();
    };
    call!(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    // SAFETY: the kernel has just given us the descriptor.
    unsafe { OwnedFd::from_raw_fd(context) }
}

impl Call {
    /// Makes it once.
    pub(super) fn make(&self, objects: &Objects) -> Result<OwnedFd, Errno> {
        let fd = Errno::result((self.number)(objects))?;
        // SAFETY: the kernel has just given us the descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap()) })
    }

    /// Calls so many times; how often each errno came, and `0` for success.
    fn repeat(&self, objects: &Objects, times: u64) -> Value {
        let mut answers = BTreeMap::<String, u64>::new();
        for _ in 0..times {
            let answer = match self.make(objects) {
                Ok(_) => "0".to_owned(),
                Err(errno) => format!("{errno:?}"),
            };
            *answers.entry(answer).or_default() += 1;
        }
        json!(answers)
    }
}

/// Makes every call as often as it should fail, and says what came of each; with `call=NAME` only
/// that one, `failures` times.
pub(super) fn run(spec: &Spec<'_>) {
    let objects = Objects::open();
    let _held = fill(LIMIT, spec.number("room", 0));
    say("ready", &json!({ "port": Value::Null }));
    wait();
    let mut answers = serde_json::Map::new();
    match spec.text("call") {
        None => {
            for (place, call) in all().enumerate() {
                answers.insert(call.name.to_owned(), call.repeat(&objects, times(place)));
            }
        }
        Some("not_exhausted") => {
            for (errno, call) in NOT_EXHAUSTED {
                let name = format!("{} {errno:?}", call.name);
                answers.insert(name, call.repeat(&objects, 97));
            }
        }
        Some(name) => {
            let call = all().chain(ONCE).find(|call| call.name == name).unwrap();
            let times = spec.number("failures", 1) as u64;
            answers.insert(name.to_owned(), call.repeat(&objects, times));
        }
    }
    say("done", &json!({ "answers": answers }));
    wait();
}
