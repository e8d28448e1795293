use std::{
    collections::HashMap,
    net::TcpListener,
    os::fd::{AsRawFd, RawFd},
};

use tokio::time::timeout;

use super::{fixture::Fixture, *};
use crate::{
    enrich::Processes,
    model::{BootTime, Pid},
};

const SOON: Duration = Duration::from_secs(20);

async fn scanned(owners: &mut Owners) {
    timeout(SOON, owners.scanned()).await.expect("a scan ends");
}

fn pids(owners: &Owners, inode: u64) -> Option<Vec<u32>> {
    owners.known(inode).map(|owners| owners.iter().map(|owner| owner.id.pid.0).collect())
}

#[tokio::test]
async fn asked_and_answered() {
    let fixture = Fixture::new();
    fixture.process(1, "systemd", 1, &["socket:[123]"]);
    fixture.process(20, "web", 501, &["socket:[123]"]);
    fixture.process(30, "web", 500, &["socket:[123]"]);
    let mut owners = Owners::new(fixture.path().to_owned());
    owners.request(123);
    owners.request(9);
    assert!(owners.running.is_none(), "coalesced until somebody waits");
    assert_eq!(owners.known(123), None);
    scanned(&mut owners).await;
    assert_eq!(pids(&owners, 123), Some(vec![30, 20, 1]));
    assert_eq!(pids(&owners, 9), Some(Vec::new()));
    assert_eq!(owners.known(123).unwrap()[0], fixture.owner(30, "web", 500));

    // Both are fresh, so nothing is wanted.
    owners.request(123);
    owners.request(9);
    assert!(owners.wanted.is_empty());
    assert!(timeout(Duration::from_millis(50), owners.scanned()).await.is_err());
    assert!(owners.running.is_none());
}

#[tokio::test]
async fn dropped_while_waiting() {
    let fixture = Fixture::new();
    fixture.process(20, "web", 501, &["socket:[123]"]);
    let found = HashMap::from([(123, vec![fixture.owner(20, "web", 501)])]);
    let mut owners = Owners::new(fixture.path().to_owned());
    let (sender, answer) = oneshot::channel();
    let wanted = HashSet::from([123]);
    let targets = Arc::new(wanted.clone());
    owners.running = Some(Running { began: Instant::now(), targets, wanted, answer });
    tokio::select! {
        biased;
        () = owners.scanned() => panic!("it has not ended"),
        () = std::future::ready(()) => {}
    }
    owners.request(123);
    assert!(owners.wanted.is_empty(), "it is being looked for");
    sender.send(Ok(Scan { found, ..Scan::default() })).unwrap();
    assert_eq!(owners.known(123), None);
    scanned(&mut owners).await;
    assert_eq!(pids(&owners, 123), Some(vec![20]));
}

#[tokio::test]
async fn rests_between_two_scans() {
    let fixture = Fixture::new();
    let mut owners = Owners::new(fixture.path().to_owned());
    // It rests from the start of a scan on.
    let began = Instant::now();
    owners.request(1);
    scanned(&mut owners).await;
    for inode in 2..100_000 {
        owners.request(inode);
    }
    assert_eq!(owners.wanted.len(), MOST_CACHED);
    scanned(&mut owners).await;
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());

    let scan = Scan { took: Duration::from_secs(3), ..Scan::default() };
    let began = Instant::now();
    let answer = oneshot::channel().1;
    let (targets, wanted) = (Arc::default(), HashSet::new());
    owners.running = Some(Running { began, targets, wanted, answer });
    owners.take_in(scan);
    assert_eq!(owners.rested, Some(began + Duration::from_secs(33)));
}

#[tokio::test]
async fn a_scan_refreshes_everything_remembered() {
    let fixture = Fixture::new();
    fixture.process(20, "web", 501, &["socket:[123]"]);
    fixture.process(21, "web", 502, &["socket:[123]"]);
    let mut owners = Owners::new(fixture.path().to_owned());
    owners.request(123);
    scanned(&mut owners).await;
    fixture.end(20);
    owners.request(9);
    scanned(&mut owners).await;
    assert_eq!(pids(&owners, 123), Some(vec![21]));
}

#[tokio::test]
async fn a_scan_that_fails_leaves_everything_as_it_was() {
    let mut owners = Owners::new(PathBuf::from("/nonexistent"));
    let process = ProcessId { pid: Pid(20), started: BootTime::default() };
    owners.note(123, process, &Comm::from_bytes(b"web"));
    owners.note(0, process, &Comm::default());
    owners.request(123);
    owners.request(0);
    assert!(timeout(Duration::from_millis(50), owners.scanned()).await.is_err());
    assert_eq!(pids(&owners, 123), Some(vec![20]));
    assert_eq!(pids(&owners, 0), None);
    assert_eq!(owners.wanted, HashSet::from([123]), "and is tried again");
    assert!(owners.rested.is_some());
}

/// A listener of this very process, in the real `/proc`.
#[tokio::test]
async fn the_running_kernel() {
    let inode_of = |fd: RawFd| -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let link = link.to_str().unwrap();
        link.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode_of(listener.as_raw_fd());
    let mut owners = Owners::new(PathBuf::from("/proc"));
    owners.request(inode);
    scanned(&mut owners).await;
    // Another test's child may hold a copy for a moment, between fork and exec.
    let is_this = |owner: &&Owner| owner.id.pid.0 == std::process::id();
    let this = owners.known(inode).unwrap().iter().find(is_this).unwrap().clone();
    let described = Processes::new(PathBuf::from("/proc")).describe(this.id, &this.comm);
    assert_eq!(described.exe, Some(std::env::current_exe().unwrap()));

    drop(listener);
    owners.request(0xffff_ffff_ffff);
    scanned(&mut owners).await;
    assert!(!owners.known(inode).unwrap().iter().any(|owner| is_this(&owner)));
}
