//! fdtrace inside a cgroup namespace, as in a container: the packet program sees the sockets of that
//! cgroup, and of no other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use super::{
    case::{Case, assert_equal},
    clients::Clients,
};
use crate::{
    Test,
    support::{Fdtrace, number},
};

pub(crate) const TESTS: &[Test] =
    &[("inside_a_cgroup_namespace_only_its_sockets_are_seen", only_its_sockets_are_seen)];

const BACKLOG: u64 = 4;
const CLIENTS: usize = 30;

/// A cgroup of the test's own. It lasts as long as this.
struct Cgroup {
    /// Where cgroup v2 is mounted.
    root: PathBuf,
    path: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = PathBuf::from(mounts.find(|fields| fields[2] == "cgroup2").unwrap()[1]);
        let path = root.join(format!("fdtrace-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let before = root.join(own);
        Self { root, path, before }
    }

    /// Does something in it. What is started there stays there.
    fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        /// Also where it fails.
        struct Back<'a>(&'a Path);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                move_to(self.0).unwrap();
            }
        }
        let _back = Back(&self.before);
        move_to(&self.path).unwrap();
        act()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        println!("  {} stays behind", self.path.display());
    }
}

/// Moves this process there.
fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

fn only_its_sockets_are_seen() {
    let cgroup = Cgroup::new();
    let root = cgroup.root.clone();
    let args = ["--form", "syn=tracepoint", "--form", "ack=tracepoint", "--packets", "always"];
    let fdtrace = cgroup.enter(|| {
        Fdtrace::start_changed(&args, move || {
            unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            // Its root is now the cgroup that this process is in.
            umount2(&root, MntFlags::MNT_DETACH)?;
            Ok(mount(Some("cgroup2"), &root, Some("cgroup2"), MsFlags::empty(), none)?)
        })
    });
    let server = json!({ "backlog": BACKLOG });
    let inside = cgroup.enter(|| Case::new("inside", 1, &[], &server));
    let outside = Case::new("outside", 1, &[], &server);
    let mut cases = [inside, outside];
    let clients: Vec<_> = cases
        .iter()
        .map(|case| Clients::knock(&case.network, &case.at("127.0.0.1"), CLIENTS))
        .collect();
    // So that fdtrace meets the namespaces while they are there.
    thread::sleep(Duration::from_secs(2));
    cases.iter_mut().for_each(Case::freeze);
    drop(clients);
    thread::sleep(Duration::from_secs(2));
    let run = fdtrace.stop();
    let [inside, outside] = cases;
    let refused = outside.kernel("ListenOverflows");
    assert!(refused >= CLIENTS as u64 - BACKLOG - 1, "only {refused} were refused");
    assert_eq!(run.count(&json!({ "listener": outside.listener() })), 0, "{:#}", run.summary());
    let namespaces = run.summary()["kernel"]["namespaces"].as_array().unwrap();
    let of_outside = namespaces.iter().find(|one| one["netns"] == outside.network.number());
    let counter = &of_outside.unwrap()["ListenOverflows"];
    for (key, expected) in [("delta", refused), ("seen", 0), ("unattributed", refused)] {
        assert_eq!(number(counter, &format!("/{key}")), expected, "{counter}");
    }
    assert_equal(&run, &[inside]);
}
