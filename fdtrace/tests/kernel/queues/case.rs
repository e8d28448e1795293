//! One listener in a namespace of its own, and what fdtrace must say of it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    network::{Counters, Network},
    segments::Segments,
};
use crate::{support::Run, workload::Workload};

/// fdtrace's failure, and the kernel's counter of the same.
const PAIRS: [(&str, &str); 3] = [
    ("accept_queue_full", "ListenOverflows"),
    ("syn_queue_full", "TCPReqQFullDrop"),
    ("syn_cookie_sent", "TCPReqQFullDoCookies"),
];

pub(super) struct Case {
    pub(super) label: String,
    pub(super) network: Network,
    pub(super) server: Workload,
    /// How many distinct clients were refused, where that is known.
    pub(super) refused: Option<u64>,
    /// How far fdtrace may be off: 0, except where two CPUs race.
    pub(super) off_by: u64,
    syncookies: u32,
    start: Counters,
    kernel: Option<Counters>,
}

impl Case {
    /// A listener in a namespace with that `tcp_syncookies` and more sysctls.
    pub(super) fn new(
        label: &str,
        syncookies: u32,
        sysctls: &[(&str, u32)],
        server: &Value,
    ) -> Self {
        let network = Network::new(&[&[("ipv4/tcp_syncookies", syncookies)], sysctls].concat());
        Self {
            label: label.to_owned(),
            server: network.server(server),
            refused: None,
            off_by: 0,
            syncookies,
            start: network.kernel(),
            kernel: None,
            network,
        }
    }

    pub(super) fn port(&self) -> u16 {
        u16::try_from(self.server.port()).unwrap()
    }

    /// Where clients of that address find it.
    pub(super) fn at(&self, ip: &str) -> String {
        format!("{ip}:{}", self.port())
    }

    /// Handmade clients.
    pub(super) fn segments(&self) -> Segments {
        Segments::new(&self.network, SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Handmade clients that look at no answer.
    pub(super) fn flood(&self) -> Segments {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port());
        Segments::blind(&self.network, &self.network, server)
    }

    /// The same in another namespace, on a cable.
    pub(super) fn flood_from(&self, other: &Network) -> Segments {
        let server = SocketAddrV4::new(Ipv4Addr::new(10, 8, 0, 1), self.port());
        Segments::blind(other, &self.network, server)
    }

    /// Ends all its traffic and takes the kernel's word for what there was.
    pub(super) fn freeze(&mut self) {
        self.kernel = Some(self.network.freeze());
    }

    /// What the kernel counted so far is of no interest.
    pub(super) fn forget(&mut self) {
        self.start = self.network.kernel();
    }

    /// What the kernel counted until the end.
    #[track_caller]
    pub(super) fn kernel(&self, counter: &str) -> u64 {
        self.kernel.as_ref().expect("frozen").of(counter) - self.start.of(counter)
    }

    /// Its listener in fdtrace's reports.
    pub(super) fn listener(&self) -> Value {
        json!({ "port": self.port(), "netns": self.network.number() })
    }

    /// Fails if the kernel counted something else than what the test meant to cause.
    #[track_caller]
    pub(super) fn assert_kernel(&self, expected: [(&str, u64); 4]) {
        let counted = expected.map(|(counter, _)| (counter, self.kernel(counter)));
        assert_eq!(counted, expected, "{}", self.label);
    }

    /// Each difference between fdtrace and the kernel.
    fn differences(&self, run: &Run) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differ = |what: &str, expected: Value, found: &Value| {
            if expected != *found {
                differences.push(format!("{what}: expected {expected}, got {found}"));
            }
        };
        let listener = self.listener();
        let mut seen = Vec::new();
        // The kernel counts these as refused and as answered by a cookie, and refused is what they
        // are.
        let both = run.count(&json!({ "listener": listener, "syn_queue_full": true }));
        for (failure, counter) in PAIRS {
            let count = run.count(&json!({ "listener": listener, "failure": failure }));
            seen.push(count);
            let kernel = match (counter, self.syncookies) {
                // Every SYN is answered with one: that says nothing of the queue.
                ("TCPReqQFullDoCookies", 2) => 0,
                ("TCPReqQFullDoCookies", _) => self.kernel(counter).saturating_sub(both),
                _ => self.kernel(counter),
            };
            if count.abs_diff(kernel) > self.off_by {
                differ(failure, json!(kernel), &json!(count));
            }
        }
        let kernel: Vec<_> = PAIRS.iter().map(|(_, counter)| self.kernel(counter)).collect();
        let drops = self.kernel("ListenDrops");
        println!("  {}: kernel {kernel:?}, ListenDrops {drops}; fdtrace {seen:?}", self.label);

        let namespace = run.summary()["kernel"]["namespaces"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["netns"] == self.network.number()));
        let other = drops - self.kernel("ListenOverflows") - self.kernel("TCPReqQFullDrop");
        for (counter, unattributed) in [
            ("ListenOverflows", 0),
            ("ListenDrops", other),
            ("TCPReqQFullDrop", 0),
            ("TCPReqQFullDoCookies", 0),
        ] {
            let delta = self.kernel(counter);
            // A namespace in which nothing happened need not be there.
            let Some(namespace) = namespace else {
                differ(counter, json!(delta), &json!(0));
                continue;
            };
            let pair = &namespace[counter];
            differ(&format!("{counter}'s delta"), json!(delta), &pair["delta"]);
            if self.syncookies == 2 && counter == "TCPReqQFullDoCookies" {
                differ("cookies under 2", json!(null), &pair["seen"]);
            } else {
                let found = pair["unattributed"].as_i64();
                let expected = i64::try_from(unattributed).unwrap();
                if found.is_none_or(|found| found.abs_diff(expected) > self.off_by) {
                    let what = format!("{counter} unattributed");
                    differ(&what, json!(expected), &pair["unattributed"]);
                }
            }
        }
        differences.extend(self.wrong_owners(run));
        differences.extend(self.wrong_clients(run));
        differences.iter().map(|text| format!("{}: {text}", self.label)).collect()
    }

    fn wrong_owners(&self, run: &Run) -> Vec<String> {
        let totals = run.totals(&json!({ "listener": self.listener() }));
        let wrong = totals.iter().filter(|total| total["process"]["pid"] != self.server.pid());
        wrong.map(|total| format!("not the owner {}: {total}", self.server.pid())).collect()
    }

    /// Clients are told apart by a hash, and those that look like one are estimated. Of the 45 of
    /// most cases a quarter of a pair look alike on average: five do once in 200 000 cases, three
    /// once in 500.
    fn wrong_clients(&self, run: &Run) -> Option<String> {
        let expected = self.refused?;
        let fields = json!({ "listener": self.listener(), "failure": "accept_queue_full" });
        let closed = run.of_kind("episode_closed", &fields);
        let found: Vec<_> =
            closed.iter().map(|report| report["refused"]["connections"].as_u64()).collect();
        match found[..] {
            [Some(found)] if found.abs_diff(expected) <= 4 => None,
            _ => Some(format!("{expected} clients were refused, not {found:?}: {closed:?}")),
        }
    }
}

/// Waits while everybody's timers run, and ends all traffic.
pub(super) fn wait_and_freeze(cases: &mut [Case], wait: Duration) {
    thread::sleep(wait);
    cases.iter_mut().for_each(Case::freeze);
}

/// Fails unless fdtrace says of every case what the kernel does.
#[track_caller]
pub(super) fn assert_equal(run: &Run, cases: &[Case]) {
    let differences: Vec<_> = cases.iter().flat_map(|case| case.differences(run)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    run.assert_lost_nothing();
}
