use super::*;
use crate::{
    diagnose::fixtures::{
        fds, file, listener, login, minfds, of_unit, process, provenance, server, systemd,
    },
    model::{
        Ancestor, Audited, Backlog, ConfiguredSysctl, FileFact, ListenerAddress, LoginLimits,
        Place, UnixName,
    },
};

type Told = (Level, FindingKind, String, Option<Cause>, Option<String>);

fn told(finding: &Finding) -> Told {
    let command = finding.fix.as_ref().map(|fix| match &fix.command {
        Some(command) => command.clone(),
        None => fix.text.clone(),
    });
    (finding.level, finding.kind, finding.what.clone(), finding.cause, command)
}

/// What is found of a process that has `open` descriptors of the limits that the chain says.
#[track_caller]
fn audited(open: u64, chain: Vec<Ancestor>, listeners: &[ListenerReport]) -> Vec<Told> {
    of(open, &provenance(chain), listeners)
}

#[track_caller]
fn of(open: u64, provenance: &Provenance, listeners: &[ListenerReport]) -> Vec<Told> {
    let own = &provenance.chain[0];
    let limits = own.limits.unwrap();
    let (soft, hard) = (limits.soft.number().unwrap(), limits.hard.number().unwrap());
    let fds = Some(fds(own.id.pid.0, open, soft, hard));
    let facts = AuditFacts { fds, listeners, provenance: Some(provenance), own_netns: Some(1) };
    audit(&facts).iter().map(told).collect()
}

fn high() -> Vec<Ancestor> {
    vec![process(7, "web", 100_000, 524_288), systemd()]
}

#[test]
fn nothing_is_wrong() {
    let web = [server(7, "web")];
    assert!(audited(20, high(), &[listener(80, &web, 0, 511)]).is_empty());
    // A limit of 65536 is enough for a server, whatever it could have.
    let chain = vec![process(7, "web", 65_536, 524_288), systemd()];
    assert!(audited(20, chain, &[listener(80, &web, 0, 4096)]).is_empty());
}

#[test]
fn descriptors_that_run_out_are_a_risk_and_a_low_limit_is_a_warning() {
    let mut own = process(7, "web", 1024, 4096);
    own.settings = vec![of_unit("web.service", 1024, file("/etc/systemd/system/web.service:7", 0))];
    let chain = vec![own, systemd()];
    let low = (
        Level::Warn,
        FindingKind::LimitLow,
        "its soft limit is 1024, and its hard one 4096".to_owned(),
        Some(Cause::SoftLimitLow),
        Some(
            "sed -i '7s|.*|LimitNOFILE=65536|' /etc/systemd/system/web.service && systemctl \
             daemon-reload && systemctl restart web.service"
                .to_owned(),
        ),
    );
    assert_eq!(audited(20, chain.clone(), &[]), std::slice::from_ref(&low));
    let now = Some("prlimit --pid 7 --nofile=4096:".to_owned());
    let cause = Some(Cause::SoftLimitLow);
    let what = "900 of its 1024 descriptors are in use (87 %)".to_owned();
    let filling = (Level::Risk, FindingKind::FdsFilling, what, cause, now.clone());
    assert_eq!(audited(900, chain.clone(), &[]), [filling, low.clone()]);
    let what = "all of its 1024 descriptors are in use: accept fails with EMFILE".to_owned();
    let exhausted = (Level::Risk, FindingKind::FdsExhausted, what, cause, now);
    assert_eq!(audited(1024, chain, &[]), [exhausted, low]);
    let hard = audited(20, vec![process(7, "web", 512, 512), systemd()], &[]);
    assert_eq!(
        (hard[0].1, &*hard[0].2),
        (FindingKind::LimitLow, "its limit is 512, soft and hard")
    );
}

/// The story that fdtrace was written for.
#[test]
fn a_limit_that_was_raised_too_late_is_a_risk_before_it_hurts() {
    let mut supervisord = process(812, "supervisord", 1024, 4096);
    supervisord.settings = vec![minfds(100_000, file("/etc/supervisord.conf:7", 23))];
    let chain = vec![process(14807, "web", 1024, 4096), supervisord, systemd()];
    let found = audited(20, chain, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    let (level, kind, what, cause, fix) = &found[0];
    assert_eq!((*level, *kind), (Level::Risk, FindingKind::LimitOutdated));
    assert_eq!(*cause, Some(Cause::RaisedAfterStart));
    assert_eq!(
        what,
        "its limit is 1024; /etc/supervisord.conf:7 says 100000, but was changed 23 days after \
         supervisord[812] started"
    );
    let fix = fix.as_deref().unwrap();
    assert!(
        fix.starts_with("the setting is right by now: restart supervisord[812] itself"),
        "{fix}"
    );
    // A limit that is no low one can be outdated too.
    let mut own = process(7, "web", 65_536, 65_536);
    own.settings = vec![of_unit("web.service", 1_000_000, file("/etc/web.service:7", 2))];
    assert_eq!(audited(20, vec![own, systemd()], &[])[0].1, FindingKind::LimitOutdated);
}

/// Whether PAM has given it is not known.
#[test]
fn what_is_only_likely_is_a_warning() {
    let mut provenance = provenance(vec![process(7, "web", 1024, 4096), systemd()]);
    let settings = vec![login(100_000, file("/etc/security/limits.conf:57", 23))];
    provenance.login = Some(LoginLimits { settings, applies: None });
    let found = of(20, &provenance, &[]);
    assert_eq!((found[0].0, found[0].1), (Level::Warn, FindingKind::LimitOutdated));
}

#[test]
fn queues() {
    let web = [server(7, "web")];
    let found = |listener: ListenerReport| audited(20, high(), &[listener]);
    let full = found(listener(80, &web, 129, 128));
    assert_eq!((full[0].0, full[0].1), (Level::Risk, FindingKind::QueueFull));
    assert_eq!(full[0].2, "its accept queue is full (129/128): clients are refused");
    let filling = found(listener(80, &web, 100, 128));
    assert_eq!((filling[0].0, filling[0].1), (Level::Warn, FindingKind::QueueFilling));

    let small = found(listener(80, &web, 0, 1));
    let (level, kind, what, cause, fix) = &small[0];
    assert_eq!((small.len(), *level, *kind), (1, Level::Warn, FindingKind::BacklogSmall));
    assert_eq!(what, "its accept queue holds 2 connections, as it asked");
    assert_eq!(*cause, Some(Cause::BacklogTooSmall));
    let fix = fix.as_deref().unwrap();
    assert!(fix.starts_with("have the program ask for more in listen(2), 4096 or so"), "{fix}");
    // nginx has a setting for it.
    let nginx = found(listener(80, &[server(7, "nginx")], 0, 1));
    assert!(nginx[0].4.as_deref().unwrap().starts_with("add backlog=4096 to its listen directive"));
    // Local clients wait.
    let mut unix = listener(80, &web, 0, 1);
    unix.socket.listener.address = ListenerAddress::Unix(UnixName::Path(b"/run/x".to_vec()));
    assert!(found(unix).is_empty());
    // Unknown is no finding.
    let mut unknown = listener(80, &web, 9, 1);
    unknown.socket.limit = None;
    assert!(found(unknown).is_empty());
}

#[test]
fn a_queue_that_somaxconn_cuts() {
    let mut service = server(7, "web");
    service.unit = Some("web.service".into());
    let mut cut = listener(80, &[service], 0, 128);
    cut.backlog = Backlog { requested: None, somaxconn: Some(128) };
    let found = audited(20, high(), &[cut]);
    let (level, kind, what, _, fix) = &found[0];
    assert_eq!((found.len(), *level, *kind), (1, Level::Warn, FindingKind::BacklogCut));
    assert_eq!(what, "its accept queue is held to 128 by net.core.somaxconn");
    assert_eq!(
        fix.as_deref(),
        Some(
            "sysctl -w net.core.somaxconn=4096 && echo 'net.core.somaxconn = 4096' > \
             /etc/sysctl.d/90-somaxconn.conf && systemctl restart web.service"
        )
    );
    // As much as Linux gives to whoever asks for all.
    assert!(audited(20, high(), &[listener(80, &[server(7, "web")], 0, 4096)]).is_empty());
}

#[test]
fn a_listener_that_is_older_than_the_sysctl() {
    let Place::File(fact) = file("/etc/sysctl.d/net.conf:3", 2) else { panic!() };
    let configured = |value, file: &FileFact| ConfiguredSysctl { value, file: file.clone() };
    let mut provenance = provenance(high());
    let listeners = [listener(80, &[server(7, "web")], 0, 128)];
    assert!(of(20, &provenance, &listeners).is_empty(), "as it asked, for all that is known");
    provenance.system.somaxconn = Some(configured(4096, &fact));
    let found = of(20, &provenance, &listeners);
    assert_eq!((found[0].0, found[0].1), (Level::Warn, FindingKind::BacklogOutdated));
    assert_eq!(
        found[0].2,
        "its accept queue is held to 128; net.core.somaxconn was raised to 4096 in \
         /etc/sysctl.d/net.conf:3 2 days after it started"
    );
    let fix = "restart the program, for a listener keeps the limit of its listen(2)";
    assert_eq!(found[0].4.as_deref(), Some(fix));
    // Not in force, or not in this namespace.
    provenance.system.somaxconn = Some(configured(8192, &fact));
    assert!(of(20, &provenance, &listeners).is_empty());
    provenance.system.somaxconn = Some(configured(4096, &fact));
    let mut elsewhere = listeners.clone();
    elsewhere[0].socket.listener.netns = Some(2);
    assert!(of(20, &provenance, &elsewhere).is_empty());
}

#[test]
fn one_finding_for_listeners_that_are_alike() {
    let web = [server(7, "web")];
    let listeners = [80, 81, 82].map(|port| listener(port, &web, 0, 1));
    let facts = AuditFacts { fds: None, listeners: &listeners, provenance: None, own_netns: None };
    let found = audit(&facts);
    assert_eq!((found.len(), found[0].listeners.len()), (1, 3));
    // Sockets that share a port are one there.
    let shared = [listener(80, &web, 0, 1), listener(80, &web, 0, 1)];
    let facts = AuditFacts { listeners: &shared, ..facts };
    assert_eq!(audit(&facts)[0].listeners.len(), 1);
}

/// A master and three workers, one of which is nearly full, a service manager that holds the socket
/// too, and a listener of nobody.
#[test]
fn workers_are_one_entry() {
    let nginx: Vec<_> = (812..=815).map(|pid| server(pid, "nginx")).collect();
    let manager = server(1, "systemd");
    let owners: Vec<_> = nginx.iter().chain([&manager]).cloned().collect();
    let listeners =
        [listener(80, &owners, 0, 1), listener(443, &owners, 9, 1), listener(25, &[], 0, 100)];
    let open = |pid| match pid {
        1 => fds(1, 50, 1_000_000, 1_000_000),
        814 => fds(814, 900, 1024, 4096),
        815 => fds(815, 9, 512, 4096),
        pid => fds(pid, 20, 1024, 4096),
    };
    let groups = groups(&listeners, |id| open(id.pid.0));
    let pids: Vec<Vec<u32>> = groups
        .iter()
        .map(|group| group.processes.iter().map(|process| process.id.pid.0).collect())
        .collect();
    assert_eq!(pids, [vec![812, 813, 814, 815], vec![1], vec![]]);
    let looks: Vec<u32> = groups[0].looks.iter().map(|fds| fds.pid.0).collect();
    assert_eq!(looks, [814, 815], "one for each pair of limits, the fullest");

    let provenance = |fds: &OwnerFds| {
        let limits = fds.usage.limits.unwrap();
        let (soft, hard) = (limits.soft.number().unwrap(), limits.hard.number().unwrap());
        provenance(vec![process(fds.pid.0, "nginx", soft, hard), systemd()])
    };
    let mut audited: Vec<Audited> = groups
        .into_iter()
        .map(|group| {
            let provenances: Vec<Provenance> = group.looks.iter().map(provenance).collect();
            group.audited(&provenances, Some(1))
        })
        .collect();
    worst_first(&mut audited);
    let first = &audited[0];
    assert_eq!(first.fds.unwrap().pid.0, 814);
    assert_eq!(first.listeners[0].socket.inode, 443, "the worst first");
    let kinds: Vec<FindingKind> = first.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(
        kinds,
        [
            FindingKind::QueueFull,
            FindingKind::FdsFilling,
            FindingKind::LimitLow,
            FindingKind::BacklogSmall
        ]
    );
    let rest: Vec<(Option<Level>, bool)> =
        audited[1..].iter().map(|one| (one.level(), one.is_unknown())).collect();
    // Nobody's listener is short of places; who holds it is unknown. The manager is no acceptor.
    assert_eq!(rest, [(Some(Level::Warn), false), (None, false)]);
    assert!(audited[1].processes.is_empty());
}
