//! A process that asks for descriptors through io_uring, and counts its failed completions.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::TcpListener,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use nix::{errno::Errno, libc};
use serde_json::{Value, json};

use super::table::{fill, limit};
use crate::workload::{Spec, Workload, say, wait};

/// Its soft limit.
pub(super) const LIMIT: usize = 64;

static HOW: types::OpenHow = types::OpenHow::new();
const ACCEPT: u64 = 1;
const CANCEL: u64 = 2;
const GATE: u64 = 3;

/// A ring and what to ask it for, again and again.
pub(super) struct Asker {
    ring: IoUring,
    entry: squeue::Entry,
    /// Completions give out descriptors of the process, and not the ring's own.
    gives_descriptors: bool,
    is_pending: bool,
    held: Vec<OwnedFd>,
    answers: Answers,
}

/// What completions said.
#[derive(Default)]
struct Answers {
    failed: BTreeMap<String, u64>,
    succeeded: u64,
}

impl Answers {
    fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn take(&mut self) -> Value {
        let answers = std::mem::take(self);
        json!({
            "failures": answers.failures(),
            "errnos": answers.failed,
            "succeeded": answers.succeeded,
        })
    }
}

/// Runs it: `op` says what to ask for, `sqpoll` and `async` on which thread the kernel does it,
/// `room` how many descriptors are left, `slots` how many direct descriptors there are.
pub(super) fn run(spec: &Spec<'_>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unconnected = spec.text("op") == Some("accept_unconnected");
    // SAFETY: numbers only.
    let unconnected = unconnected.then(|| unsafe {
        OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))
    });
    let target = unconnected.as_ref().map_or(listener.as_raw_fd(), OwnedFd::as_raw_fd);
    let mut asker = match Asker::new(spec, target) {
        Ok(asker) => asker,
        Err(reason) => {
            say("ready", &json!({ "unsupported": reason }));
            wait();
            return;
        }
    };
    let (gate, opener) = std::io::pipe().unwrap();
    let _held = fill(LIMIT, spec.number("room", 0));
    let port = listener.local_addr().unwrap().port();
    match spec.text("then") {
        None => {
            say("ready", &json!({ "port": port }));
            wait();
            let failures = spec.number("failures", 1) as u64;
            while asker.answers.failures() < failures {
                asker.ask();
            }
            say("done", &asker.answers.take());
        }
        Some("cancel") => {
            say("ready", &json!({ "port": port }));
            wait();
            for _ in 0..spec.number("failures", 1) {
                asker.ask_and_cancel();
            }
            say("done", &asker.answers.take());
        }
        Some("raise") => {
            asker.submit();
            say("ready", &json!({ "port": port }));
            wait();
            limit(2 * LIMIT);
            say("raised", &Value::Null);
            // What was submitted before knows the limit of then.
            while asker.answers.failures() == 0 {
                asker.ask();
            }
            say("done", &asker.answers.take());
            wait();
            while asker.answers.succeeded == 0 {
                asker.ask();
            }
            say("done", &asker.answers.take());
        }
        Some("raise_before_it_is_done") => {
            asker.submit_behind(gate.as_raw_fd());
            say("ready", &json!({ "port": port }));
            wait();
            limit(2 * LIMIT);
            (&opener).write_all(b"x").unwrap();
            while asker.is_pending {
                asker.ask();
            }
            say("done", &asker.answers.take());
        }
        Some(other) => panic!("then={other}"),
    }
    wait();
}

impl Asker {
    /// What the kernel lacks where it cannot be done.
    pub(super) fn new(spec: &Spec<'_>, listener: RawFd) -> Result<Self, String> {
        let mut builder = IoUring::builder();
        if spec.text("sqpoll").is_some() {
            builder.setup_sqpoll(1000);
        }
        let ring = builder.build(8).map_err(|error| format!("io_uring_setup: {error}"))?;
        let slots = u32::try_from(spec.number("slots", 0)).unwrap();
        if slots > 0 {
            let registered = ring.submitter().register_files_sparse(slots);
            registered.map_err(|error| format!("io_uring_register: {error}"))?;
        }
        let (listener, none) = (types::Fd(listener), ptr::null_mut());
        let accept = opcode::Accept::new(listener, none, none.cast());
        let slot = (slots > 0).then(types::DestinationSlot::auto_target);
        let (code, entry) = match spec.text("op").unwrap() {
            "accept" | "accept_unconnected" => (opcode::Accept::CODE, accept.build()),
            "multishot" => (opcode::Accept::CODE, opcode::AcceptMulti::new(listener).build()),
            "direct" => (opcode::Accept::CODE, accept.file_index(slot).build()),
            "direct_multishot" => {
                let accept = opcode::AcceptMulti::new(listener).allocate_file_index(true);
                (opcode::Accept::CODE, accept.build())
            }
            "openat" => {
                let directory = types::Fd(libc::AT_FDCWD);
                let open = opcode::OpenAt::new(directory, c"/dev/null".as_ptr());
                (opcode::OpenAt::CODE, open.file_index(slot).build())
            }
            "openat2" => {
                let directory = types::Fd(libc::AT_FDCWD);
                let open = opcode::OpenAt2::new(directory, c"/dev/null".as_ptr(), &raw const HOW);
                (opcode::OpenAt2::CODE, open.file_index(slot).build())
            }
            "socket" => {
                let socket = opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0);
                (opcode::Socket::CODE, socket.file_index(slot).build())
            }
            other => panic!("op={other}"),
        };
        let mut probe = Probe::new();
        let probed = ring.submitter().register_probe(&mut probe);
        probed.map_err(|error| format!("io_uring_register: {error}"))?;
        if !probe.is_supported(code) {
            return Err(format!("operation {code}"));
        }
        let entry = match spec.text("async") {
            None => entry,
            Some(_) => entry.flags(squeue::Flags::ASYNC),
        };
        Ok(Self {
            ring,
            entry: entry.user_data(ACCEPT),
            gives_descriptors: slots == 0,
            is_pending: false,
            held: Vec::new(),
            answers: Answers::default(),
        })
    }

    /// Asks until it was refused so many times, always with that errno.
    #[track_caller]
    pub(super) fn fail(&mut self, times: usize, errno: Errno) {
        while self.answers.failures() < times as u64 {
            self.ask();
        }
        assert_eq!(self.answers.take()["errnos"], json!({ format!("{errno:?}"): times }));
    }

    fn submit(&mut self) {
        // SAFETY: the entry points to nothing, or to what is static.
        unsafe { self.ring.submission().push(&self.entry) }.unwrap();
        self.ring.submit().unwrap();
        self.is_pending = true;
    }

    /// Asks for what is done as soon as there is something to read, but looked at now.
    fn submit_behind(&mut self, gate: RawFd) {
        let readable = u32::from(libc::POLLIN.cast_unsigned());
        let poll = opcode::PollAdd::new(types::Fd(gate), readable).build();
        let poll = poll.flags(squeue::Flags::IO_LINK).user_data(GATE);
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.submission().push(&poll) }.unwrap();
        self.submit();
    }

    /// Asks, unless what was asked for goes on, and takes the next answers.
    fn ask(&mut self) {
        if !self.is_pending {
            self.submit();
        }
        self.ring.submit_and_wait(1).unwrap();
        while let Some(completion) = self.completion() {
            if completion.user_data() == ACCEPT {
                self.note(&completion);
            }
        }
    }

    fn completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn note(&mut self, completion: &cqueue::Entry) {
        let goes_on = cqueue::more(completion.flags());
        let result = completion.result();
        if result < 0 {
            assert!(!goes_on, "what failed goes on");
            let errno = Errno::from_raw(-result);
            *self.answers.failed.entry(format!("{errno:?}")).or_default() += 1;
        } else {
            self.answers.succeeded += 1;
            if self.gives_descriptors {
                // SAFETY: the kernel has just given us the descriptor.
                self.held.push(unsafe { OwnedFd::from_raw_fd(result) });
            }
        }
        self.is_pending = goes_on;
    }

    /// Asks for what does not come, and takes that back.
    fn ask_and_cancel(&mut self) {
        self.submit();
        let cancel = opcode::AsyncCancel::new(ACCEPT).build().user_data(CANCEL);
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.submission().push(&cancel) }.unwrap();
        self.ring.submit_and_wait(2).unwrap();
        while let Some(completion) = self.completion() {
            if completion.user_data() == ACCEPT {
                self.note(&completion);
            }
        }
    }
}

/// Starts that workload; `None` where this kernel has no such thing.
#[track_caller]
pub(super) fn start(spec: &str) -> Option<Workload> {
    let workload = Workload::start(&format!("doors=uring {spec}"));
    match &workload.ready["unsupported"] {
        Value::Null => Some(workload),
        reason => {
            println!("  {spec}: not on this kernel: {reason}");
            None
        }
    }
}
