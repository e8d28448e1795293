use std::time::Duration;

use super::*;
use crate::{
    diagnose::fixtures::{fds, listener, process, provenance, server, systemd},
    model::{
        Ancestor, BootTime, Comm, DistinctPeers, FdKind, OpenFds, Peer, PeerShare, Pid,
        QueueSample, Sysctl, TcpState, Thread, ThreadState, Tid,
    },
};

/// A server whose every fact can be changed.
struct Case {
    process: Option<Process>,
    fds: Option<OwnerFds>,
    listeners: Option<Vec<ListenerReport>>,
    provenance: Provenance,
    census: Option<Census>,
    acceptor: Option<Acceptor>,
    samples: Vec<QueueSample>,
}

impl Case {
    /// With so many of its 1024 descriptors, of 4096 at most, and so many clients that wait.
    fn new(open: u64, length: u32) -> Self {
        let web = server(7, "web");
        Self {
            fds: Some(fds(7, open, 1024, 4096)),
            listeners: Some(vec![listener(80, std::slice::from_ref(&web), length, 128)]),
            process: Some(web),
            provenance: provenance(vec![process(7, "web", 1024, 4096), systemd()]),
            census: None,
            acceptor: Some(acceptor(ThreadState::Sleeping)),
            samples: Vec::new(),
        }
    }

    fn explain(&self) -> (Verdict, Vec<Cause>) {
        let acceptors: Vec<Acceptor> = self.acceptor.iter().cloned().collect();
        let (verdict, found) = explain(&ExplainFacts {
            process: self.process.as_ref(),
            fds: self.fds,
            listeners: self.listeners.as_deref(),
            provenance: Some(&self.provenance),
            census: self.census.as_ref(),
            acceptor: self.acceptor.as_ref(),
            acceptors: &acceptors,
            samples: &self.samples,
            own_netns: Some(1),
        });
        (verdict, found.into_iter().map(|found| found.cause).collect())
    }
}

fn acceptor(state: ThreadState) -> Acceptor {
    let thread = Thread {
        tid: Tid(7),
        comm: Comm::from_bytes(b"web"),
        state,
        is_steady: true,
        cpu: Some(0.0),
        starved: Some(0.0),
        wchan: None,
        syscall: None,
    };
    Acceptor {
        pid: Pid(7),
        window: Duration::from_millis(100),
        thread_count: 1,
        threads: vec![thread],
        tracer: None,
        unknown: Vec::new(),
    }
}

/// So many in CLOSE_WAIT, and whether the program has read their end.
fn leaky(open: u64, close_wait: u64, is_read: bool) -> Census {
    let peer = Peer::Client([10, 0, 0, 7].into());
    Census {
        open: OpenFds::Exact(open),
        looked_at: open,
        kinds: vec![
            (FdKind::Tcp(TcpState::CloseWait), close_wait),
            (FdKind::File, open - close_wait),
        ],
        listeners: Vec::new(),
        peers: vec![PeerShare { peer, connections: close_wait, established: 0, close_wait }],
        distinct_peers: DistinctPeers { clients: 1, servers: 0 },
        local_ports: Vec::new(),
        paths: Vec::new(),
        silence: Vec::new(),
        end_was_read: if is_read { close_wait } else { 0 },
        cost: Duration::ZERO,
        unknown: Vec::new(),
    }
}

#[test]
fn a_low_limit_of_a_calm_server_is_a_note() {
    assert_eq!(Case::new(20, 0).explain(), (Verdict::Fine, vec![Cause::SoftLimitLow]));
    let mut roomy = Case::new(20, 0);
    roomy.provenance.chain[0] = process(7, "web", 100_000, 524_288);
    assert_eq!(roomy.explain(), (Verdict::Fine, vec![]));
    // It serves nobody: its limit is its own business.
    let mut client = Case::new(20, 0);
    client.listeners = Some(Vec::new());
    assert_eq!(client.explain(), (Verdict::Fine, vec![]));
}

#[test]
fn what_runs_out_comes_first_and_its_consequence_last() {
    let causes = vec![Cause::SoftLimitLow];
    assert_eq!(Case::new(820, 0).explain(), (Verdict::AtRisk, causes.clone()));
    assert_eq!(Case::new(1024, 0).explain(), (Verdict::Exhausted, causes));
    let causes = vec![Cause::SoftLimitLow, Cause::AcceptFails];
    assert_eq!(Case::new(1024, 129).explain(), (Verdict::Exhausted, causes));
    // A high limit can run out as well.
    let mut high = Case::new(0, 0);
    high.fds = Some(fds(7, 100_000, 100_000, 100_000));
    high.provenance.chain[0] = process(7, "web", 100_000, 100_000);
    assert_eq!(high.explain(), (Verdict::Exhausted, vec![Cause::HardLimitLow]));
}

#[test]
fn a_queue_that_is_full_all_the_time() {
    let mut case = Case::new(20, 129);
    let sample = |second| QueueSample { at: BootTime(Duration::from_secs(second)), length: 129 };
    case.samples = (0..6).map(sample).collect();
    let causes = vec![Cause::SoftLimitLow, Cause::SlowAcceptor];
    assert_eq!(case.explain(), (Verdict::Exhausted, causes));
    let filling = Case::new(20, 65);
    let causes = vec![Cause::SoftLimitLow, Cause::BacklogTooSmall];
    assert_eq!(filling.explain(), (Verdict::AtRisk, causes));
}

#[test]
fn a_leak_that_is_certain_and_large_is_a_risk_before_it_runs_out() {
    let mut case = Case::new(200, 0);
    case.census = Some(leaky(200, 180, true));
    assert_eq!(case.explain(), (Verdict::AtRisk, vec![Cause::FdLeak, Cause::SoftLimitLow]));
    // It may close them in a moment.
    case.census = Some(leaky(200, 180, false));
    assert_eq!(case.explain(), (Verdict::Fine, vec![Cause::SoftLimitLow, Cause::FdLeak]));
    // A handful is nothing to speak of.
    case.fds = Some(fds(7, 20, 1024, 4096));
    case.census = Some(leaky(20, 18, true));
    assert_eq!(case.explain(), (Verdict::Fine, vec![Cause::SoftLimitLow]));
    // Of a limit of a million, it takes its time.
    let mut large = Case::new(0, 0);
    large.fds = Some(fds(7, 200, 1_000_000, 1_000_000));
    large.provenance.chain[0] = process(7, "web", 1_000_000, 1_000_000);
    large.census = Some(leaky(200, 180, true));
    assert_eq!(large.explain(), (Verdict::Fine, vec![Cause::FdLeak]));
}

#[test]
fn what_fills_the_table_is_told_when_it_fills() {
    let mut case = Case::new(900, 0);
    let mut census = leaky(900, 0, false);
    census.kinds = vec![(FdKind::DeletedFile, 890), (FdKind::Device, 10)];
    case.census = Some(census);
    let causes = vec![Cause::SoftLimitLow, Cause::FdLeak];
    assert_eq!(case.explain(), (Verdict::AtRisk, causes));
    // Nobody can say why there are so many files, but their number is told.
    case.census = Some(leaky(900, 0, false));
    assert_eq!(case.explain(), (Verdict::AtRisk, vec![Cause::SoftLimitLow]));
}

#[test]
fn nobody_accepts_who_is_stopped() {
    let mut case = Case::new(20, 129);
    case.acceptor = Some(acceptor(ThreadState::Stopped));
    let causes = vec![Cause::SlowAcceptor, Cause::SoftLimitLow];
    assert_eq!(case.explain(), (Verdict::Exhausted, causes.clone()));
    case.listeners = Some(vec![listener(80, &[server(7, "web")], 0, 128)]);
    assert_eq!(case.explain(), (Verdict::AtRisk, causes));
    // Who does not listen may stand still.
    case.listeners = Some(Vec::new());
    assert_eq!(case.explain(), (Verdict::Fine, vec![]));
}

#[test]
fn what_could_not_be_read_is_not_fine() {
    let mut case = Case::new(20, 0);
    case.fds = None;
    assert_eq!(case.explain().0, Verdict::Unknown);
    case.listeners = Some(vec![listener(80, &[], 129, 128)]);
    assert_eq!(case.explain().0, Verdict::Exhausted, "what is known is said all the same");
    let mut case = Case::new(20, 0);
    case.listeners = None;
    assert_eq!(case.explain(), (Verdict::Unknown, vec![Cause::SoftLimitLow]));
    let mut listener = listener(80, &[], 7, 128);
    listener.socket.limit = None;
    case.listeners = Some(vec![listener]);
    assert_eq!(case.explain().0, Verdict::Unknown);
}

#[test]
fn the_host_is_out_of_file_handles() {
    let mut case = Case::new(20, 0);
    case.provenance.system.file_handles = Some(100_000);
    let causes = vec![Cause::FileMax, Cause::SoftLimitLow];
    assert_eq!(case.explain(), (Verdict::Exhausted, causes));
    // Not for root.
    let own: &mut Ancestor = &mut case.provenance.chain[0];
    own.above_file_max = Some(true);
    assert_eq!(case.explain().0, Verdict::Fine);
    case.provenance.chain[0].above_file_max = Some(false);
    case.provenance.system.file_max = Sysctl::default();
    assert_eq!(case.explain().0, Verdict::Fine, "unknown is not full");
}
