//! What a process has open, as the program that iterates over descriptors tells it, is what the
//! process knows to have open: of a hundred thousand, too.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use fdtrace::{
    enrich::census::{self, Budget},
    kernel::{Kernel, Options, Request},
    model::{Census, DescriptorSource, FdKind, OpenFds, Peer, PeerShare, TcpState},
    pipeline,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    Test,
    holder::{EVERY_KIND, Holder, assert_exact, files},
};

pub(crate) const TESTS: &[Test] = &[
    ("iterated_descriptors_of_every_kind", every_kind),
    ("iterated_connections", connections),
    ("iterated_paths", paths),
    ("iterated_descriptors_of_one_that_is_gone", gone),
    ("a_hundred_thousand_descriptors", a_hundred_thousand),
];

/// What the kernel side gives; `None` where it has no such iterator (before 6.1).
fn source() -> Option<Arc<dyn DescriptorSource>> {
    static SOURCE: OnceLock<Option<Arc<dyn DescriptorSource>>> = OnceLock::new();
    let attached = SOURCE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let options = Options {
            btf: PathBuf::from("/sys/kernel/btf/vmlinux"),
            slots: 64,
            ring_bytes: 4096,
            gauge_share: 0,
            request: Request { forms: Vec::new(), fds: false, buffer: None },
        };
        // What is read needs the program, and no probe.
        pipeline::descriptors(&Kernel::attach(&options).unwrap())
    });
    if attached.is_none() {
        println!("  this kernel cannot iterate over the descriptors of one process");
    }
    attached.clone()
}

const ENOUGH: Budget =
    Budget { cpu: std::time::Duration::from_secs(5), wall: std::time::Duration::from_secs(10) };

#[track_caller]
fn take(source: Option<Arc<dyn DescriptorSource>>, holder: &Holder, budget: Budget) -> Census {
    census::start(PathBuf::from("/proc"), source, holder.id(), budget).unwrap().wait().unwrap()
}

fn every_kind() {
    let Some(source) = source() else { return };
    let (spec, expected) = EVERY_KIND;
    let holder = Holder::start(&format!("{spec} raw=2 packet=3"));
    let expected = [expected, &[("raw", 2), ("packet", 3)]].concat();
    assert_exact(&take(Some(source), &holder, ENOUGH), &expected);
}

fn connections() {
    let Some(source) = source() else { return };
    let mut holder = Holder::start("");
    drop(holder.connect("127.0.0.9", 24));
    let _established = holder.connect("127.0.0.7", 5);
    holder.read(7);
    let census = take(Some(source), &holder, ENOUGH);
    assert_exact(&census, &[("tcp_established", 5), ("tcp_close_wait", 24)]);
    let peer = |last, connections, established, close_wait| PeerShare {
        peer: Peer::Client(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))),
        connections,
        established,
        close_wait,
    };
    assert_eq!(census.peers, [peer(9, 24, 0, 24), peer(7, 5, 5, 0)]);
    assert_eq!(census.listeners[0].connections, 29);
    assert!(census.listeners[0].is_held);
    assert_eq!(census.end_was_read, 7);
    assert!(census.silence_of(TcpState::CloseWait).is_some());
}

fn paths() {
    let Some(source) = source() else { return };
    let holder = Holder::start("same_file=300 new_file=40 eventfd=2");
    let census = take(Some(source), &holder, ENOUGH);
    assert_exact(&census, &[("file", 340), ("eventfd", 2)]);
    let shown = |at: usize| (&census.paths[at].path, census.paths[at].fds, census.paths[at].files);
    let (exe, dir) = (std::env::current_exe().unwrap(), files(holder.pid()));
    assert_eq!((shown(0), shown(1)), ((&exe, 300, None), (&dir, 40, Some(40))));
}

fn gone() {
    let Some(source) = source() else { return };
    let holder = Holder::start("");
    let id = holder.id();
    drop(holder);
    let census = census::start(PathBuf::from("/proc"), Some(source), id, ENOUGH).unwrap().wait();
    assert_eq!(census.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// As many as this host allows, within the budget that a census has beside a storm.
fn a_hundred_thousand() {
    let Some(source) = source() else { return };
    // The hard limit is for the holders, which inherit it. Not every root may raise it.
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, 100_064);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = usize::try_from(hard).unwrap().min(100_064) - 64;
    for (name, kind) in [("eventfd", FdKind::EventFd), ("same_file", FdKind::File)] {
        let holder = Holder::start(&format!("{name}={most}"));
        let looks = |source: &Option<Arc<dyn DescriptorSource>>| {
            // A core that the host takes from a virtual machine counts as used in it.
            let takes = [(); 3].map(|()| take(source.clone(), &holder, Budget::default()));
            takes.into_iter().min_by_key(|census| census.cost).unwrap()
        };
        let (by_kernel, by_proc) = (looks(&Some(source.clone())), looks(&None));
        let open = u64::try_from(most).unwrap() + 4;
        for (who, census) in [("iterator", &by_kernel), ("/proc", &by_proc)] {
            let Census { cost, looked_at, .. } = census;
            println!("  {open} descriptors, {name}: {looked_at} by {who} in {cost:?}");
            assert!(*cost <= Budget::default().cpu, "{cost:?}");
        }
        // Before 6.2 nobody but the iterator counts them, where it has time for all.
        let number = by_kernel.open.number();
        let is_near =
            matches!(by_kernel.open, OpenFds::About(_)) && number.abs_diff(open) * 10 < open;
        assert!(number == open || is_near, "{:?}", by_kernel.open);
        // All, or on a slow machine a fair sample: four times the standard deviation of its share.
        let sampled = f64::from(u32::try_from(by_kernel.looked_at).unwrap());
        let most_off = if by_kernel.is_sampled() { 4.0 * (0.25 / sampled).sqrt() } else { 1e-9 };
        let share = by_kernel.share(by_kernel.count(|found| *found == kind));
        let expected =
            f64::from(u32::try_from(open - 4).unwrap()) / f64::from(u32::try_from(open).unwrap());
        assert!((share - expected).abs() < most_off, "{share} {expected}");
    }
}
