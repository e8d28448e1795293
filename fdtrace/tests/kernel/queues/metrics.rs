//! Refused clients as Prometheus sees them: the kernel's figure and fdtrace's.

use std::time::Duration;

use serde_json::json;

use super::{
    case::{Case, wait_and_freeze},
    clients::Clients,
};
use crate::{Test, support::Daemon};

pub(crate) const TESTS: &[Test] =
    &[("metrics_of_refused_clients_are_the_kernels", metrics_are_the_kernels)];

fn metrics_are_the_kernels() {
    let daemon = Daemon::start(
        "[output]\nstdout = \"none\"\njournal = \"never\"\n\
         [metrics]\nlisten = \"127.0.0.1:PORT\"\n",
    );
    let server = json!({ "address": "127.0.0.1:0", "backlog": 4 });
    let case = Case::new("metrics", 0, &[], &server);
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 50);
    let mut cases = [case];
    wait_and_freeze(&mut cases, Duration::from_millis(1500));
    drop(clients);
    let [case] = cases;
    let refused = case.kernel("ListenOverflows");
    assert!(refused >= 45, "only {refused}");
    // By then an owner is as well known as can be.
    std::thread::sleep(Duration::from_secs(5));
    let listener = format!("listener=\"127.0.0.1:{}\"", case.port());
    let labels = [listener.as_str(), "failure=\"accept_queue_full\""];
    let seen = daemon.metric("fdtrace_failures_total", &labels);
    assert_eq!(seen.to_string(), refused.to_string());
    let kernel = daemon.metric("fdtrace_kernel_total", &["counter=\"ListenOverflows\""]);
    assert!(kernel >= seen, "{kernel}");
    // Whoever else refuses clients on this host is seen as well.
    let unattributed =
        daemon.metric("fdtrace_kernel_unattributed", &["counter=\"ListenOverflows\""]);
    assert!(unattributed.abs() < 0.5, "{unattributed}");
    assert!(daemon.stop().status.success());
}
