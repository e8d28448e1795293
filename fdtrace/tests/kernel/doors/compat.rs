//! System calls by their 32-bit numbers, as programs built for i386 make them. They come to the same
//! functions in the kernel, but to no tracepoint of `syscalls` (x86: `trace_get_syscall_nr` says -1
//! for them).

use std::{arch::asm, collections::BTreeMap, ptr};

use nix::{
    errno::Errno,
    libc,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use serde_json::{Value, json};

use super::{
    fdtrace,
    seen::{Counts, Sight, add, counted},
    table::fill,
};
use crate::{
    Test,
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[
    ("calls_by_32_bit_numbers", calls_by_32_bit_numbers),
    ("accepts_by_32_bit_numbers_without_fds", accepts_without_fds),
];

const LIMIT: usize = 64;
/// `getpid` of arch/x86/entry/syscalls/syscall_32.tbl, where all these numbers are from.
const GETPID: u32 = 20;
const SOCKETCALL: u32 = 102;
/// Of linux/net.h: which call socketcall(2) is to make.
const SYS_SOCKET: u32 = 1;
const SYS_ACCEPT: u32 = 5;
const SYS_SOCKETPAIR: u32 = 8;
const SYS_ACCEPT4: u32 = 18;

/// One call: its name, what fdtrace may call it, its number and its arguments.
struct Call {
    name: &'static str,
    door: &'static str,
    number: u32,
    arguments: fn(&Low) -> [u32; 5],
}

const fn call(
    name: &'static str,
    door: &'static str,
    number: u32,
    arguments: fn(&Low) -> [u32; 5],
) -> Call {
    Call { name, door, number, arguments }
}

const UNIX: u32 = libc::AF_UNIX.unsigned_abs();
const STREAM: u32 = libc::SOCK_STREAM.unsigned_abs();
const CLOEXEC: u32 = libc::O_CLOEXEC.unsigned_abs();
const AT_FDCWD: u32 = libc::AT_FDCWD.cast_unsigned();

const CALLS: &[Call] = &[
    call("accept4", "accept4", 364, |low| [low.listener, 0, 0, CLOEXEC, 0]),
    call("socketcall accept", "accept", SOCKETCALL, |low| {
        [SYS_ACCEPT, low.words(&[low.listener, 0, 0]), 0, 0, 0]
    }),
    call("socketcall accept4", "accept4", SOCKETCALL, |low| {
        [SYS_ACCEPT4, low.words(&[low.listener, 0, 0, CLOEXEC]), 0, 0, 0]
    }),
    call("socket", "socket", 359, |_| [UNIX, STREAM, 0, 0, 0]),
    call("socketcall socket", "socket", SOCKETCALL, |low| {
        [SYS_SOCKET, low.words(&[UNIX, STREAM, 0]), 0, 0, 0]
    }),
    call("socketpair", "socketpair", 360, |low| [UNIX, STREAM, 0, low.scratch(), 0]),
    call("socketcall socketpair", "socketpair", SOCKETCALL, |low| {
        [SYS_SOCKETPAIR, low.words(&[UNIX, STREAM, 0, low.scratch()]), 0, 0, 0]
    }),
    call("open", "open", 5, |low| [low.path(), 0, 0, 0, 0]),
    call("openat", "openat", 295, |low| [AT_FDCWD, low.path(), 0, 0, 0]),
    call("dup", "dup", 41, |_| [0, 0, 0, 0, 0]),
    call("fcntl64", "fcntl", 221, |_| [0, 0, 0, 0, 0]),
    call("pipe", "pipe", 42, |low| [low.scratch(), 0, 0, 0, 0]),
    call("pipe2", "pipe2", 331, |low| [low.scratch(), CLOEXEC, 0, 0, 0]),
    call("epoll_create1", "epoll_create1", 329, |_| [0, 0, 0, 0, 0]),
    call("eventfd2", "eventfd2", 328, |_| [0, 0, 0, 0, 0]),
    call("memfd_create", "memfd_create", 356, |low| [low.path(), 1, 0, 0, 0]),
];

/// As in `calls`: each fails as often as no other one.
fn times(place: usize) -> u64 {
    53 + 2 * place as u64
}

/// A page below 4 GiB, for what calls point to, and the listener.
struct Low {
    page: *mut u32,
    listener: u32,
}

impl Low {
    /// Where things are in the page, in words; the path is at its beginning.
    const SCRATCH: usize = 16;
    const WORDS: usize = 32;

    fn new(listener: u32) -> Self {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
        );
        // SAFETY: a new mapping anywhere.
        let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        let page: *mut u32 = page.cast();
        let path = c"/dev/null".to_bytes_with_nul();
        // SAFETY: within the page, which is ours alone.
        unsafe { ptr::copy_nonoverlapping(path.as_ptr(), page.cast(), path.len()) };
        Self { page, listener }
    }

    fn at(&self, offset: usize) -> u32 {
        u32::try_from(self.page.addr() + offset * size_of::<u32>()).unwrap()
    }

    fn path(&self) -> u32 {
        self.at(0)
    }

    fn scratch(&self) -> u32 {
        self.at(Self::SCRATCH)
    }

    /// Puts numbers where socketcall(2) looks for its arguments.
    fn words(&self, words: &[u32]) -> u32 {
        for (index, word) in words.iter().enumerate() {
            // SAFETY: within the page.
            unsafe { self.page.add(Self::WORDS + index).write_volatile(*word) };
        }
        self.at(Self::WORDS)
    }
}

/// A system call of i386.
fn int80(number: u32, arguments: [u32; 5]) -> Result<u32, Errno> {
    let mut answer = number;
    // SAFETY: pointers in the arguments are of `Low`. The compiler keeps rbx to itself, so it is put
    // away; older kernels clear r8 to r11.
    unsafe {
        asm!(
            "mov {kept}, rbx",
            "mov ebx, {first:e}",
            "int 0x80",
            "mov rbx, {kept}",
            kept = out(reg) _,
            first = in(reg) arguments[0],
            inlateout("eax") answer,
            in("ecx") arguments[1],
            in("edx") arguments[2],
            in("esi") arguments[3],
            in("edi") arguments[4],
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    match answer.cast_signed() {
        error @ -4095..0 => Err(Errno::from_raw(-error)),
        _ => Ok(answer),
    }
}

/// Whether this kernel takes such calls at all: without, they end in SIGSEGV.
fn is_possible() -> bool {
    // SAFETY: this process has one thread, and the child only makes system calls.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0))
        }
        ForkResult::Child => {
            let answer = int80(GETPID, [0; 5]);
            let is_right = answer == Ok(std::process::id());
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(!is_right)) }
        }
    }
}

pub(super) fn run(_: &Spec<'_>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let low = Low::new(std::os::fd::AsRawFd::as_raw_fd(&listener).cast_unsigned());
    let is_possible = is_possible();
    let _held = fill(LIMIT, 0);
    say(
        "ready",
        &json!({ "possible": is_possible, "port": listener.local_addr().unwrap().port() }),
    );
    wait();
    let mut answers = serde_json::Map::new();
    for (place, call) in CALLS.iter().enumerate().filter(|_| is_possible) {
        let mut counts = BTreeMap::<String, u64>::new();
        for _ in 0..times(place) {
            let answer = int80(call.number, (call.arguments)(&low));
            *counts.entry(format!("{answer:?}")).or_default() += 1;
        }
        answers.insert(call.name.to_owned(), json!(counts));
    }
    say("done", &Value::Object(answers));
    wait();
}

/// `None` where this kernel takes no such calls.
#[track_caller]
fn failed() -> Option<Workload> {
    let mut workload = Workload::start("doors=compat");
    if workload.ready["possible"] == false {
        println!("  this kernel has no IA32 emulation: nothing to test");
        return None;
    }
    workload.go();
    let answers = workload.done();
    for (place, call) in CALLS.iter().enumerate() {
        let expected = json!({ "Err(EMFILE)": times(place) });
        assert_eq!(answers[call.name], expected, "{}", call.name);
    }
    Some(workload)
}

fn sum(expected: &mut Counts, is_it: impl Fn(&str) -> bool) {
    for (place, call) in CALLS.iter().enumerate().filter(|(_, call)| is_it(call.door)) {
        add(expected, call.door, "EMFILE", times(place));
    }
}

const SOCKETS: [&str; 2] = ["socket", "socketpair"];

fn is_accept(door: &str) -> bool {
    door.starts_with("accept")
}

/// A number means another call than in 64 bits: 41 is dup, not socket. fdtrace says what it was.
fn calls_by_32_bit_numbers() {
    let fdtrace = fdtrace(&["--fds"]);
    let Some(workload) = failed() else { return };
    let run = fdtrace.stop();
    let sight = Sight::of(&run);
    let mut expected = Counts::new();
    if sight.all_allocations() {
        sum(&mut expected, |_| true);
    } else if sight.compat_accepts() {
        sum(&mut expected, is_accept);
    } else {
        println!("  not seen by this form");
    }
    assert_eq!(counted(&run, workload.pid()), expected, "{:#}", run.summary());
    run.assert_lost_nothing();
}

fn accepts_without_fds() {
    let fdtrace = fdtrace(&[]);
    let Some(workload) = failed() else { return };
    let run = fdtrace.stop();
    let sight = Sight::of(&run);
    let mut counted = counted(&run, workload.pid());
    // These take no part in serving: whether a form sees them is its own affair.
    counted.retain(|(door, _), _| !SOCKETS.contains(&door.as_str()));
    let mut expected = Counts::new();
    if sight.compat_accepts() {
        sum(&mut expected, is_accept);
        let listener = json!({ "listener": { "port": workload.port() } });
        assert_eq!(run.count(&listener), expected.values().sum::<u64>());
    } else {
        println!("  not seen by this form");
    }
    assert_eq!(counted, expected, "{:#}", run.summary());
    run.assert_lost_nothing();
}
