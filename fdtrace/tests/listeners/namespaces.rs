//! Listeners of other network namespaces, and what an ordinary user is shown.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    listener::{Listener, backlog},
    output::{alone, assert_same, lines, listed, netns, run, with_inode},
    owners::Sleeper,
    support::{binary, number},
};

/// A network namespace of its own, with a somaxconn of 16 and a listener capped by it.
fn other_netns() -> (u64, Listener) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    // Not every container may.
    let capped = fs::write("/proc/sys/net/core/somaxconn", "16").is_ok();
    let listener = Listener::new("0.0.0.0:0", backlog(if capped { 4096 } else { 16 }));
    (netns(), listener)
}

/// Runs what changes the thread it is on.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| {
        std::panic::resume_unwind(panic);
    })
}

#[test]
fn another_network_namespace() {
    let _alone = alone();
    if !geteuid().is_root() {
        return;
    }
    let ((other, listener), _member) = on_a_thread(|| (other_netns(), Sleeper::start(|_| {})));
    assert_ne!(other, netns());
    let output = run(&["--json", "--port", &listener.port()]);
    let (lines, summary) = lines(&output);
    assert!(number(&summary, "/namespaces") >= 2);
    let line = with_inode(&lines, listener.inode());
    let wanted = json!({
        "process": {"pid": std::process::id()},
        "listener": {"netns": other, "address": "0.0.0.0"},
        "accept_queue": {"length": 0, "limit": 16},
        "drops_at_most": 0,
    });
    assert_same(line, &wanted);
    if number(line, "/backlog/somaxconn") == 16 {
        assert_eq!(line["limit_set_by"], "somaxconn");
    }
    let text = String::from_utf8(run(&["--port", &listener.port()]).stdout).unwrap();
    assert!(text.lines().next().unwrap().ends_with("  NETNS"), "{text}");
    assert!(text.lines().nth(1).unwrap().ends_with(&format!("  {other}")), "{text}");
}

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// As `ip netns add` leaves it: no process is in it.
#[test]
fn a_mounted_network_namespace() {
    let _alone = alone();
    if !geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a namespace");
    fs::write(&path, "").unwrap();
    let mounted = on_a_thread(|| {
        let other = other_netns();
        let link = Some("/proc/thread-self/ns/net");
        mount(link, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map(|()| other)
    });
    // Not every container may.
    let Ok((other, listener)) = mounted else {
        return;
    };
    let _mount = Mount(&path);
    let lines = listed(&["--port", &listener.port()]);
    let wanted = json!({"listener": {"netns": other}, "accept_queue": {"limit": 16}});
    assert_same(with_inode(&lines, listener.inode()), &wanted);
}

const NOBODY: u32 = 65534;

/// A user who is nobody sees the listener, not its owner; and of a namespace of its own that it may
/// not enter, what /proc shows.
#[test]
fn without_root() {
    let _alone = alone();
    if !geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("fdtrace");
    fs::copy(binary(), &program).unwrap();
    let nobody = |command: &mut Command| {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    };
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        nobody(&mut command);
        command.arg("listeners").args(args).output().unwrap()
    };

    let listener = Listener::new("127.0.0.1:0", backlog(9)).with_clients(2);
    let output = run(&["--json", "--port", &listener.port()]);
    let wanted = json!({
        "process": null, "processes": [], "accept_queue": {"length": 2, "limit": 9},
        "fds": {"pid": null, "open": null}, "drops_at_most": 0,
    });
    assert_same(with_inode(&lines(&output).0, listener.inode()), &wanted);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error.matches("processes of other users cannot be looked into").count(),
        1,
        "{error}"
    );
    let text = String::from_utf8(run(&["--port", &listener.port()]).stdout).unwrap();
    assert_eq!(text.lines().nth(1).unwrap().split_whitespace().next(), Some("?"), "{text}");

    let ((other, listener), _member) = on_a_thread(|| (other_netns(), Sleeper::start(nobody)));
    let output = run(&["--json", "--port", &listener.port()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let (lines, summary) = lines(&output);
    let wanted = json!({
        "listener": {"netns": other}, "accept_queue": {"length": 0, "limit": null},
        "backlog": {"somaxconn": null}, "limit_set_by": null, "drops_at_most": null, "risks": [],
    });
    assert_same(with_inode(&lines, listener.inode()), &wanted);
    assert_eq!(number(&summary, "/unseen/without_limits"), 1);
    let told = format!("network namespace {other}: limits and drops are unknown");
    assert!(error.contains(&told), "{error}");
}
