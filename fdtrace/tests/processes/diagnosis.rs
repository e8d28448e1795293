//! What is concluded of real processes, and that the remedy ends it.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fdtrace::{
    diagnose::{HeldFacts, QueueFacts, held, queue},
    enrich::{
        acceptor::{self, WINDOW},
        census::{self, Budget},
    },
    model::{
        AcceptQueue, Acceptor, Backlog, BootTime, Cause, Certainty, Comm, Diagnosis, Listener,
        ListenerAddress, Process, ThreadState,
    },
};

use super::{Test, holder::Holder};

pub(crate) const TESTS: &[Test] = &[
    ("diagnosis_of_a_close_wait_leak", close_wait),
    ("diagnosis_of_load_from_many", load),
    ("diagnosis_of_load_from_one", load_from_one),
    ("diagnosis_of_a_file_leak", file_leak),
    ("diagnosis_of_many_pipes", pipes),
    ("diagnosis_of_a_stopped_acceptor", stopped),
    ("diagnosis_of_a_spinning_acceptor", spinning),
    ("diagnosis_of_an_acceptor_that_waits_for_a_vfork_child", vforking),
];

fn threads(holder: &Holder) -> Acceptor {
    acceptor::start(PathBuf::from("/proc"), holder.id(), WINDOW).unwrap().wait().unwrap()
}

#[track_caller]
fn of(holder: &Holder) -> Diagnosis {
    let budget = Budget { cpu: Duration::from_secs(5), wall: Duration::from_secs(10) };
    let census = census::take(Path::new("/proc"), holder.id(), budget).unwrap();
    let acceptor = threads(holder);
    let mut found = held(&HeldFacts {
        census: &census,
        at: BootTime::default(),
        before: &[],
        earlier: None,
        acceptor: Some(&acceptor),
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn close_wait() {
    let mut holder = Holder::start("");
    drop(holder.connect("127.0.0.7", 60));
    let _others = holder.connect("127.0.0.8", 10);
    let found = of(&holder);
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely));
    assert_eq!(
        found.why,
        "60 of 74 descriptors are connections in CLOSE_WAIT from 127.0.0.7: the program does not \
         close what its peer has closed"
    );
    // It has seen that they are gone, and keeps them: no more doubt.
    holder.read(60);
    let found = of(&holder);
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Certain));
    assert!(found.why.ends_with("though it has read its end"), "{}", found.why);
}

fn load() {
    let mut holder = Holder::start("");
    let clients: Vec<Vec<TcpStream>> =
        (1..=40).map(|host| holder.connect(&format!("127.0.1.{host}"), 2)).collect();
    let found = of(&holder);
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Certain));
    let port = holder.port;
    assert_eq!(
        found.why,
        format!(
            "80 of 84 descriptors are established connections of clients on 127.0.0.1:{port}, from \
             40 addresses"
        )
    );
    drop(clients);
}

fn load_from_one() {
    let mut holder = Holder::start("");
    let _clients = [holder.connect("127.0.0.7", 70), holder.connect("127.0.0.8", 10)];
    let found = of(&holder);
    assert_eq!((found.cause, found.certainty), (Cause::Load, Certainty::Likely));
    assert!(found.why.ends_with("one client, 127.0.0.7, has 70 of them"), "{}", found.why);
}

fn file_leak() {
    let found = of(&Holder::start("same_file=150"));
    assert_eq!((found.cause, found.certainty), (Cause::FdLeak, Certainty::Likely));
    let exe = std::env::current_exe().unwrap();
    let file = format!("are the same file, {}", exe.display());
    assert!(found.why.contains(&file), "{}", found.why);
}

fn pipes() {
    let found = of(&Holder::start("pipe_pair=100"));
    assert_eq!(found.cause, Cause::Unknown);
    assert!(found.why.starts_with("202 of 204 descriptors are pipe;"), "{}", found.why);
}

/// Why the queue of a holder would overflow.
fn of_queue(holder: &Holder) -> Vec<Diagnosis> {
    let address = ListenerAddress::Inet {
        ip: Ipv4Addr::LOCALHOST.into(),
        port: holder.port,
        dual_stack: None,
    };
    let owner = Process::unread(holder.id(), Comm::from_bytes(b"holder"));
    let samples = [129, 129, 129, 129].map(|length| fdtrace::model::QueueSample {
        at: fdtrace::model::BootTime::default(),
        length,
    });
    queue(&QueueFacts {
        listener: &Listener { netns: None, address },
        owners: &[owner],
        queue: AcceptQueue { length: 129, limit: 128 },
        backlog: Backlog { requested: Some(128), somaxconn: Some(4096) },
        samples: &samples,
        acceptors: &[threads(holder)],
        accept_fails: None,
        provenance: None,
        refused_per_second: None,
        own_netns: None,
    })
}

fn stopped() {
    let holder = Holder::start("acceptor=1");
    run(&format!("kill -STOP {}", holder.pid()));
    until(|| is_all(&holder, ThreadState::Stopped));
    let found = of_queue(&holder);
    assert_eq!((found[0].cause, found[0].certainty), (Cause::SlowAcceptor, Certainty::Certain));
    // The remedy, as it is printed.
    run(found[0].remedies[0].command.as_deref().unwrap());
    until(|| is_all(&holder, ThreadState::Sleeping));
    let found = of_queue(&holder);
    assert!(found.iter().all(|found| found.certainty == Certainty::Likely), "{found:#?}");
}

fn spinning() {
    let holder = Holder::start("spinner=1");
    // Where the host is busy, the thread does not get its core.
    let spins = |found: &Diagnosis| found.why.starts_with("one thread, spins[");
    let starves = |found: &Diagnosis| found.why.starts_with("thread spins[");
    until(|| {
        let found = of_queue(&holder);
        assert_eq!(found[0].cause, Cause::SlowAcceptor);
        let certainty = found[0].certainty;
        spins(&found[0]) && certainty == Certainty::Certain
            || starves(&found[0]) && certainty == Certainty::Likely
    });
}

/// In D state, and no disk has anything to do with it.
fn vforking() {
    let holder = Holder::start("vfork=1");
    until(|| is_all(&holder, ThreadState::Uninterruptible));
    let found = of_queue(&holder);
    assert_eq!((found[0].cause, found[0].certainty), (Cause::SlowAcceptor, Certainty::Likely));
    let why = &found[0].why;
    assert!(why.contains(" has started a child by vfork, and waits until that runs"), "{why}");
    println!("  {why}");
    run(found[0].remedies[0].command.as_deref().unwrap());
}

#[track_caller]
fn run(command: &str) {
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

fn is_all(holder: &Holder, state: ThreadState) -> bool {
    threads(holder).threads.iter().all(|thread| thread.state == state)
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
}
