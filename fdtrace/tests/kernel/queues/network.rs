//! A network namespace of the test's own: what the kernel counts there is what the test has done.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::Ipv4Addr,
    os::unix::fs::MetadataExt as _,
    panic::resume_unwind,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use super::device;
use crate::workload::Workload;

const CABLE: &str = "cable";

/// A namespace with loopback up and nothing else in it. It lasts as long as this.
pub(super) struct Network {
    namespace: File,
}

impl Network {
    /// Makes one, with sysctls such as `("ipv4/tcp_syncookies", 0)`.
    pub(super) fn new(sysctls: &[(&str, u32)]) -> Self {
        let sysctls: Vec<_> =
            sysctls.iter().map(|(name, value)| (format!("/proc/sys/net/{name}"), *value)).collect();
        // Only this thread moves: the test itself stays where it is.
        let maker = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            device::set_up("lo", true);
            for (path, value) in sysctls {
                fs::write(path, value.to_string()).unwrap();
            }
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self { namespace: maker.join().unwrap() }
    }

    /// Does something inside. Sockets and processes made there stay there.
    pub(super) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a server in it: see [`crate::queue_workload`].
    pub(super) fn server(&self, spec: &Value) -> Workload {
        self.enter(|| Workload::start(&spec.to_string()))
    }

    /// Its number, as in `net:[4026531840]`.
    pub(super) fn number(&self) -> u64 {
        self.namespace.metadata().unwrap().ino()
    }

    /// What the kernel has counted since the namespace was made.
    pub(super) fn kernel(&self) -> Counters {
        Counters(self.enter(|| {
            let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
            let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let values = values.split(' ').map(|value| value.parse().unwrap());
            names.split(' ').map(str::to_owned).zip(values).collect()
        }))
    }

    /// Lays a cable to another: this one is 10.8.0.1 on it, and the other 10.8.0.2.
    pub(super) fn join(&self, other: &Self) {
        self.enter(|| device::add_veth(CABLE, &other.namespace));
        for (end, number) in [(self, 1), (other, 2)] {
            end.enter(|| {
                // Who sends is whoever he says he is.
                for which in ["all", CABLE] {
                    fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "0").unwrap();
                }
                device::set_address(CABLE, Ipv4Addr::new(10, 8, 0, number));
                device::set_up(CABLE, true);
            });
        }
        for end in [self, other] {
            end.enter(|| device::wait_until_running(CABLE));
        }
    }

    /// Ends all traffic, also that of timers, and takes the last count.
    pub(super) fn freeze(&self) -> Counters {
        self.enter(|| {
            let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let names = devices.lines().filter_map(|line| line.split_once(':'));
            names.for_each(|(name, _)| device::set_up(name.trim(), false));
        });
        // What was on its way is dealt with by now.
        thread::sleep(Duration::from_millis(20));
        self.kernel()
    }
}

/// TcpExt of /proc/net/netstat.
#[derive(Debug)]
pub(super) struct Counters(BTreeMap<String, u64>);

impl Counters {
    #[track_caller]
    pub(super) fn of(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the kernel has no counter {name}"))
    }
}
