//! A `/proc` of made-up processes. Real ones are in tests/processes.

use std::{fs, io::ErrorKind, os::unix::fs::symlink, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::{
    enrich::{owners, parse::Stat},
    model::{FdKind, Pid, TcpState},
};

const TICKS: u64 = 88_123;

fn id() -> ProcessId {
    let stat = Stat { state: b'S', threads: 1, start_ticks: TICKS };
    ProcessId { pid: Pid(812), started: owners::started(stat) }
}

/// One process with these links.
fn proc_with(links: &[&str]) -> TempDir {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("812");
    fs::create_dir_all(dir.join("fd")).unwrap();
    fs::create_dir_all(dir.join("net")).unwrap();
    let stat = format!("812 (x) S 1 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 1 0 {TICKS} 9");
    fs::write(dir.join("stat"), stat).unwrap();
    for (number, link) in links.iter().enumerate() {
        symlink(link, dir.join("fd").join(number.to_string())).unwrap();
    }
    root
}

fn budget() -> Budget {
    Budget { cpu: Duration::from_secs(5), wall: Duration::from_secs(5) }
}

fn taken(root: &TempDir) -> io::Result<Census> {
    take(root.path(), id(), budget())
}

const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
   0: 0100007F:2380 00000000:0000 0A 00000000:00000081 00:00000000 00000000  1000        0 11 1 x\n   \
   1: 0100007F:2380 0700000A:A5B2 08 00000000:00000000 00:00000000 00000000  1000        0 12 1 x\n   \
   2: 0100007F:2380 0700000A:A5B3 06 00000000:00000000 00:00000000 00000000     0        0 0 3 x\n";

#[test]
fn from_files_alone() {
    let links = [
        "socket:[11]",
        "socket:[12]",
        "socket:[99]",
        "pipe:[5]",
        "anon_inode:[eventpoll]",
        "/etc",
        "/nonexistent/file",
    ];
    let root = proc_with(&links);
    fs::write(root.path().join("812/net/tcp"), TCP).unwrap();
    let census = taken(&root).unwrap();
    let expected = [
        (FdKind::Tcp(TcpState::CloseWait), 1),
        (FdKind::Tcp(TcpState::Listen), 1),
        // There is nothing behind these links.
        (FdKind::SocketUnread, 1),
        (FdKind::Directory, 1),
        (FdKind::Pipe, 1),
        (FdKind::PathUnread, 1),
        (FdKind::Epoll, 1),
    ];
    assert_eq!(census.kinds, expected);
    assert_eq!((census.open, census.looked_at), (OpenFds::Exact(7), 7));
    assert_eq!((census.end_was_read, census.listeners[0].close_wait), (1, 1));
    assert!(census.silence.is_empty(), "/proc does not tell");
    assert!(census.unknown.is_empty(), "{:?}", census.unknown);
}

#[test]
fn without_a_table_of_sockets() {
    let census = taken(&proc_with(&["socket:[11]", "pipe:[5]"])).unwrap();
    assert_eq!(census.kinds, [(FdKind::SocketUnread, 1), (FdKind::Pipe, 1)]);
    assert!(census.unknown[0].starts_with("the states of TCP sockets: "), "{:?}", census.unknown);
}

#[test]
fn nobody_to_look_at() {
    let root = proc_with(&[]);
    let empty = taken(&root).unwrap();
    assert_eq!((empty.open, empty.kinds.len()), (OpenFds::Exact(0), 0));
    fs::remove_dir(root.path().join("812/fd")).unwrap();
    assert_eq!(taken(&root).unwrap_err().kind(), ErrorKind::NotFound);
    let other = ProcessId { pid: Pid(813), ..id() };
    let error = take(root.path(), other, budget()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn without_time_nothing_is_looked_at() {
    let root = proc_with(&["pipe:[5]"]);
    let none = Budget { cpu: Duration::ZERO, wall: Duration::ZERO };
    let census = take(root.path(), id(), none).unwrap();
    assert_eq!((census.open, census.looked_at), (OpenFds::Exact(1), 0));
    assert!(census.is_sampled() && census.kinds.is_empty());
}
