use std::time::{Duration, SystemTime};

use super::*;
use crate::diagnose::fixtures;
use crate::model::{
    BootTime, Comm, ConfiguredSysctl, Container, FileFact, ListenerAddress, Pid, ProcessId,
    Syscall, Thread, ThreadState, Tid, When,
};

struct Case {
    listener: Listener,
    owners: Vec<Process>,
    limit: u32,
    backlog: Backlog,
    lengths: Vec<u32>,
    acceptors: Vec<Acceptor>,
    accept_fails: Option<Errno>,
    own_netns: Option<u32>,
    provenance: Option<Provenance>,
}

impl Default for Case {
    fn default() -> Self {
        let address = ListenerAddress::Inet { ip: [0, 0, 0, 0].into(), port: 80, dual_stack: None };
        Self {
            listener: Listener { netns: Some(1), address },
            owners: vec![owner(7, "web")],
            limit: 128,
            backlog: Backlog { requested: None, somaxconn: Some(4096) },
            lengths: Vec::new(),
            acceptors: Vec::new(),
            accept_fails: None,
            own_netns: Some(1),
            provenance: None,
        }
    }
}

impl Case {
    fn diagnose(&self) -> Vec<Diagnosis> {
        let sample = |(second, length): (u64, &u32)| QueueSample {
            at: BootTime(Duration::from_secs(second)),
            length: *length,
        };
        let samples: Vec<_> = (0..).zip(&self.lengths).map(sample).collect();
        queue(&QueueFacts {
            listener: &self.listener,
            owners: &self.owners,
            queue: AcceptQueue { length: self.limit + 1, limit: self.limit },
            backlog: self.backlog,
            samples: &samples,
            acceptors: &self.acceptors,
            accept_fails: self.accept_fails,
            provenance: self.provenance.as_ref(),
            refused_per_second: Some(20.0),
            own_netns: self.own_netns,
        })
    }

    #[track_caller]
    fn one(&self) -> Diagnosis {
        let mut found = self.diagnose();
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }
}

fn owner(pid: u32, comm: &str) -> Process {
    let id = ProcessId { pid: Pid(pid), started: BootTime::default() };
    Process::unread(id, Comm::from_bytes(comm.as_bytes()))
}

fn acceptor(pid: u32, state: ThreadState, cpu: f64) -> Acceptor {
    let thread = Thread {
        tid: Tid(pid),
        comm: Comm::from_bytes(b"web"),
        state,
        is_steady: true,
        cpu: Some(cpu),
        starved: Some(0.0),
        wchan: None,
        syscall: None,
    };
    Acceptor {
        pid: Pid(pid),
        window: Duration::from_millis(100),
        thread_count: 1,
        threads: vec![thread],
        tracer: None,
        unknown: Vec::new(),
    }
}

fn commands(diagnosis: &Diagnosis) -> Vec<&str> {
    diagnosis.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect()
}

fn texts(diagnosis: &Diagnosis) -> String {
    diagnosis.remedies.iter().map(|remedy| remedy.text.as_str()).collect::<Vec<_>>().join("; ")
}

const BURSTS: [u32; 6] = [0, 129, 3, 0, 129, 1];
const ALWAYS: [u32; 5] = [129, 129, 128, 129, 129];

#[test]
fn a_consequence_of_failures() {
    let errno = Errno(u16::try_from(libc::EMFILE).unwrap());
    let stopped = vec![acceptor(7, ThreadState::Stopped, 0.0)];
    let case = Case { accept_fails: Some(errno), acceptors: stopped, ..Case::default() };
    let found = case.one();
    assert_eq!((found.cause, found.certainty), (Cause::AcceptFails, Certainty::Certain));
    assert!(found.why.starts_with("accept fails with EMFILE"), "{}", found.why);
    assert!(found.remedies.is_empty(), "those of the cause");
}

#[test]
fn stopped() {
    let stopped = |pid| acceptor(pid, ThreadState::Stopped, 0.0);
    let found = Case { acceptors: vec![stopped(7)], ..Case::default() }.one();
    assert_eq!((found.cause, found.certainty), (Cause::SlowAcceptor, Certainty::Certain));
    assert_eq!(found.why, "process 7 was stopped by a signal");
    assert_eq!(commands(&found), ["kill -CONT 7"]);
    assert_eq!(found.remedies[0].when, When::Now);

    let owners = || vec![owner(7, "web"), owner(8, "web")];
    let both =
        Case { owners: owners(), acceptors: vec![stopped(7), stopped(8)], ..Case::default() };
    let found = both.one();
    assert_eq!(found.why, "process 7 was stopped by a signal, and 1 more like it");
    assert_eq!(commands(&found), ["kill -CONT 7", "kill -CONT 8"]);

    let idle = acceptor(8, ThreadState::Sleeping, 0.0);
    for acceptors in [vec![stopped(7), idle], vec![stopped(7)]] {
        let case = Case { owners: owners(), acceptors, ..Case::default() };
        let found = case.diagnose();
        assert!(found.iter().all(|found| found.cause != Cause::SlowAcceptor), "{found:#?}");
    }
}

#[test]
fn the_master_of_stopped_workers_does_not_count() {
    let mut master = acceptor(7, ThreadState::Sleeping, 0.0);
    let syscall = Syscall { number: 130, name: Some("rt_sigsuspend"), first_argument: 0 };
    master.threads[0].syscall = Some(syscall);
    let case = Case {
        owners: vec![owner(7, "nginx"), owner(8, "nginx")],
        acceptors: vec![master, acceptor(8, ThreadState::Stopped, 0.0)],
        ..Case::default()
    };
    assert_eq!(commands(&case.one()), ["kill -CONT 8"]);
}

#[test]
fn frozen() {
    let with = |owner| {
        let mut frozen = acceptor(7, ThreadState::Sleeping, 0.0);
        frozen.threads[0].wchan = Some("do_freezer_trap".to_owned());
        Case { owners: vec![owner], acceptors: vec![frozen], ..Case::default() }.one()
    };
    let unit = Process { unit: Some("web@1.service".to_owned()), ..owner(7, "web") };
    assert_eq!(commands(&with(unit)), ["systemctl thaw web@1.service"]);
    let odd = Process { unit: Some("web;reboot.service".to_owned()), ..owner(7, "web") };
    assert_eq!(commands(&with(odd)), [""; 0]);
    let container = Some(Container { id: "0123456789abcdef".to_owned(), engine: None });
    let found = with(Process { container, ..owner(7, "web") });
    assert!(texts(&found).contains("container 0123456789ab,"), "{}", texts(&found));
}

#[test]
fn blocked_on_a_disk() {
    let mut blocked = acceptor(7, ThreadState::Uninterruptible, 0.0);
    blocked.threads[0].wchan = Some("rpc_wait_bit_killable".to_owned());
    let found = Case { acceptors: vec![blocked], ..Case::default() }.one();
    assert_eq!((found.cause, found.certainty), (Cause::SlowAcceptor, Certainty::Likely));
    assert!(found.why.contains("(in rpc_wait_bit_killable)"), "{}", found.why);
}

#[test]
fn one_thread_on_a_core() {
    let spins = || vec![acceptor(7, ThreadState::Running, 0.98)];
    let always = Case { acceptors: spins(), lengths: ALWAYS.to_vec(), ..Case::default() };
    let found = always.one();
    assert_eq!((found.cause, found.certainty), (Cause::SlowAcceptor, Certainty::Certain));
    assert!(found.why.starts_with("one thread, web[7], uses a core up (98 %)"), "{}", found.why);
    // Too few looks: it may be either.
    let found = Case { acceptors: spins(), ..Case::default() }.diagnose();
    let causes: Vec<_> = found.iter().map(|found| (found.cause, found.certainty)).collect();
    let likely = Certainty::Likely;
    assert_eq!(causes, [(Cause::SlowAcceptor, likely), (Cause::BacklogTooSmall, likely)]);
    // It keeps up, but for bursts.
    let bursts = Case { acceptors: spins(), lengths: BURSTS.to_vec(), ..Case::default() };
    assert_eq!(bursts.one().cause, Cause::BacklogTooSmall);
}

#[test]
fn a_thread_without_a_core() {
    let mut starved = acceptor(7, ThreadState::Running, 0.2);
    starved.threads[0].starved = Some(0.8);
    let case = Case { acceptors: vec![starved], lengths: ALWAYS.to_vec(), ..Case::default() };
    let found = case.one();
    assert_eq!((found.cause, found.certainty), (Cause::SlowAcceptor, Certainty::Likely));
    assert!(found.why.contains("gets no core for 80 % of the time"), "{}", found.why);
}

/// Between idle and busy, the time that it was ready and had no core tells what is short.
#[test]
fn a_thread_with_a_part_of_a_core() {
    let with = |cpu, starved| {
        let mut acceptor = acceptor(7, ThreadState::Running, cpu);
        acceptor.threads[0].starved = starved;
        Case { acceptors: vec![acceptor], lengths: ALWAYS.to_vec(), ..Case::default() }.one()
    };
    for (cpu, starved, runs, kept) in [(0.6, 0.38, "60", "38"), (0.85, 0.12, "85", "12")] {
        let found = with(cpu, Some(starved));
        let expected = format!(
            "thread web[7] runs for {runs} % of the time, and is ready to run and gets no core for \
             {kept} % of it: the host, or the CPU quota of its cgroup, is used up"
        );
        assert_eq!((found.why.as_str(), found.certainty), (expected.as_str(), Certainty::Likely));
        let facts: Vec<_> = found.evidence.iter().map(|evidence| evidence.fact).collect();
        assert_eq!(facts[..3], ["thread", "thread_cpu", "thread_starved"]);
        assert!(texts(&found).contains("more CPU"), "{}", texts(&found));
        assert!(texts(&found).contains("take the work off"), "{}", texts(&found));
    }
    // It sleeps for the rest: it is neither, and nobody knows what it waits for.
    let nothing = "what keeps the acceptor: no thread of it uses a core up";
    let busiest = |part| format!("{nothing}; the busiest, web[7], runs for {part} % of the time");
    for (cpu, starved, expected) in [
        (0.7, Some(0.02), format!("{}, and otherwise waits for something else", busiest(70))),
        (
            0.6,
            Some(0.2),
            format!(
                "{}, is ready and gets no core for 20 %, and otherwise waits for something else",
                busiest(60)
            ),
        ),
        (
            0.8,
            None,
            format!("{}; whether it was kept from a core, the kernel does not tell", busiest(80)),
        ),
        (0.2, Some(0.02), nothing.to_owned()),
    ] {
        let found = with(cpu, starved);
        assert!(found.why.starts_with("the accept queue is full all the time"), "{}", found.why);
        assert_eq!(found.unknown, [expected]);
    }
}

#[test]
fn always_full() {
    let found = Case { lengths: ALWAYS.to_vec(), ..Case::default() }.one();
    assert_eq!((found.cause, found.certainty), (Cause::SlowAcceptor, Certainty::Likely));
    assert_eq!(found.unknown, ["what the acceptor's threads do"]);
}

#[test]
fn nothing_known() {
    let case = Case { limit: 8192, ..Case::default() };
    let found = case.one();
    assert_eq!((found.cause, found.remedies.len()), (Cause::Unknown, 0));
    assert_eq!(found.unknown.len(), 2);
}

/// What binds decides what is to be done.
#[test]
fn which_number_binds() {
    let with = |limit, requested, somaxconn| {
        let backlog = Backlog { requested, somaxconn };
        let lengths = [0, limit + 1, 0, 1, 0].to_vec();
        Case { limit, backlog, lengths, ..Case::default() }.one()
    };
    let sysctl = "sysctl -w net.core.somaxconn=4096 && \
                  echo 'net.core.somaxconn = 4096' > /etc/sysctl.d/90-somaxconn.conf";
    let asked = with(5, Some(5), Some(4096));
    assert_eq!((asked.cause, asked.certainty), (Cause::BacklogTooSmall, Certainty::Certain));
    assert!(asked.why.starts_with("the accept queue holds 6 connections, as the program asked"));
    assert_eq!(commands(&asked), [""; 0], "somaxconn is large enough");
    assert!(texts(&asked).contains("ask for more in listen(2), 4096"), "{}", texts(&asked));

    let capped = with(128, Some(511), Some(128));
    assert!(capped.why.contains("net.core.somaxconn (now 128) gives no more"), "{}", capped.why);
    assert_eq!(commands(&capped), [sysctl]);
    assert!(texts(&capped).contains("restart the program"), "{}", texts(&capped));

    let older = with(128, Some(511), Some(4096));
    assert!(older.why.contains("was raised (now 4096) after"), "{}", older.why);
    assert_eq!(commands(&older), [""; 0]);
    assert!(texts(&older).starts_with("restart the program"), "{}", texts(&older));

    let unseen = with(128, None, Some(4096));
    assert_eq!(unseen.certainty, Certainty::Likely);
    assert!(unseen.unknown.iter().any(|unknown| unknown.contains("listen(2) was not seen")));
    let equal = with(128, None, Some(128));
    assert_eq!((equal.certainty, commands(&equal)), (Certainty::Certain, vec![sysctl]));
    let both = with(100, Some(100), Some(128));
    assert_eq!(commands(&both), [sysctl], "the program's number alone would not do");
    assert_eq!(both.remedies.len(), 2);
    // Larger still where it was large.
    let large = with(8192, Some(8192), Some(8192));
    assert!(texts(&large).contains("net.core.somaxconn = 32768"), "{}", texts(&large));
}

#[test]
fn settings_of_programs() {
    let with = |comm: &str| {
        let owners = vec![owner(7, comm)];
        let case = Case { owners, limit: 511, lengths: [0, 512, 0, 0].to_vec(), ..Case::default() };
        texts(&case.one())
    };
    assert_eq!(
        with("nginx"),
        "add backlog=4096 to its listen directive in nginx.conf, then nginx -s reload"
    );
    assert_eq!(with("redis-server"), "set tcp-backlog 4096 in redis.conf, then restart it");
    assert_eq!(
        with("php-fpm8.2"),
        "set listen.backlog = 4096 in its pool's configuration, then restart it"
    );
    assert_eq!(with("node"), "pass { backlog: 4096 } to server.listen(), then restart it");
    assert!(with("dataforwardsrv").contains("mostly called backlog"));
}

#[test]
fn another_namespace_has_its_own_somaxconn() {
    let with = |own_netns, owner: Process| {
        let backlog = Backlog { requested: Some(511), somaxconn: Some(128) };
        let owners = vec![owner];
        Case { own_netns, owners, backlog, lengths: BURSTS.to_vec(), ..Case::default() }.one()
    };
    let unit = Some("web.service".to_owned());
    let here = with(Some(1), Process { unit, ..owner(7, "web") });
    assert_eq!(commands(&here)[1], "systemctl restart web.service");
    let there = with(Some(2), owner(7, "web"));
    assert_eq!(
        commands(&there),
        ["nsenter --net=/proc/7/ns/net sysctl -w net.core.somaxconn=4096"]
    );
    let container = Some(Container { id: "x".to_owned(), engine: None });
    let container = with(Some(2), Process { container, ..owner(7, "web") });
    assert_eq!(commands(&container), [""; 0]);
    assert!(texts(&container).contains("--sysctl net.core.somaxconn=4096"));
    assert!(commands(&with(None, owner(7, "web")))[0].starts_with("sysctl -w"), "nobody knows");
}

#[test]
fn a_program_that_asks_for_no_more_than_there_is() {
    let backlog = Backlog { requested: Some(128), somaxconn: Some(128) };
    let found = Case { backlog, lengths: BURSTS.to_vec(), ..Case::default() }.one();
    assert!(
        found.why.contains("asked; net.core.somaxconn (now 128) gives no more"),
        "{}",
        found.why
    );
    assert_eq!(found.remedies.len(), 2, "neither alone would do");
}

#[test]
fn a_listener_that_is_older_than_fdtrace() {
    let with = |modified: u64| {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut own = fixtures::process(7, "srv", 1024, 1024);
        own.started_at = Some(started);
        let mut provenance = fixtures::provenance(vec![own]);
        let modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(modified));
        let path = "/etc/sysctl.d/net.conf".into();
        let file = FileFact { path, line: Some(3), modified, changed: modified };
        provenance.system.somaxconn = Some(ConfiguredSysctl { value: 4096, file });
        Case { provenance: Some(provenance), ..Case::default() }
    };
    let why = |case: &Case| case.one().why;
    assert_eq!(
        why(&Case::default()),
        "the accept queue holds 129 connections: listen(2) was called with 128, or \
         net.core.somaxconn was 128 then (now 4096); a burst of clients fills it"
    );
    assert_eq!(
        why(&with(500)),
        "the accept queue holds 129 connections: listen(2) was called with 128, it seems, for \
         /etc/sysctl.d/net.conf:3 gave net.core.somaxconn = 4096 before the program started; a \
         burst of clients fills it"
    );
    let raised = with(5000);
    assert_eq!(
        why(&raised),
        "the accept queue holds 129 connections: the program started before \
         /etc/sysctl.d/net.conf:3 was changed to net.core.somaxconn = 4096, and a listener keeps \
         what it was given, it seems; a burst of clients fills it"
    );
    assert_eq!(raised.one().certainty, Certainty::Likely);
    assert!(raised.one().remedies[0].text.starts_with("restart the program"));
    // Of another namespace, the file says nothing.
    let elsewhere = Case { own_netns: Some(2), ..with(5000) };
    assert!(why(&elsewhere).contains("or net.core.somaxconn was 128 then"));
}
