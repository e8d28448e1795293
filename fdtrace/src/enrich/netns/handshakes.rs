//! What becomes of SYNs in a network namespace: the kernel's counters of cookies and of connections
//! that listeners were given. Asked for when a SYN queue is full, and not before.

use std::{fs::File, io::Read as _, path::Path};

use super::look::netns_of;
use crate::model::{Handshakes, Pid};

/// `snmp` is 1 KiB today.
const MOST_SNMP: u64 = 64 * 1024;

/// Reads the text of a `netstat`, and of a `snmp` where there is one.
///
/// SyncookiesSent grows with each cookie, SyncookiesRecv with each ACK that has a valid one, also
/// where the accept queue is full then (net/ipv4/tcp_output.c tcp_make_synack's callers,
/// net/ipv4/syncookies.c cookie_tcp_check, v6.18); PassiveOpens with each socket that is made for a
/// handshake's last ACK (net/ipv4/tcp_minisocks.c tcp_create_openreq_child).
pub(super) fn parse(netstat: &str, snmp: Option<&str>) -> Handshakes {
    let count = |text: &str, prefix: &str, name: &str| -> Option<u64> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let (names, values) = (lines.next()?, lines.next()?);
        let at = names.split_ascii_whitespace().position(|column| column == name)?;
        values.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    let of_netstat = |name| count(netstat, "TcpExt:", name);
    Handshakes {
        cookies_sent: of_netstat("SyncookiesSent"),
        cookies_returned: of_netstat("SyncookiesRecv"),
        cookies_invalid: of_netstat("SyncookiesFailed"),
        completed: snmp.and_then(|snmp| count(snmp, "Tcp:", "PassiveOpens")),
    }
}

/// The `snmp` of a namespace, by way of one of its members.
pub(super) fn snmp(root: &Path, netns: u32, members: &[Pid]) -> Option<String> {
    members.iter().find_map(|pid| {
        let file = File::open(root.join(format!("{pid}/net/snmp"))).ok()?;
        let mut text = String::new();
        file.take(MOST_SNMP).read_to_string(&mut text).ok()?;
        // The process may have gone somewhere else meanwhile, or be another one.
        (netns_of(root, &pid.to_string()) == Some(netns)).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_by_name() {
        let netstat = "TcpExt: SyncookiesSent SyncookiesRecv X SyncookiesFailed\nTcpExt: 1 2 3 4\n";
        let snmp = "Ip: PassiveOpens\nIp: 9\nTcp: A PassiveOpens MaxConn\nTcp: 1 7 -1\n";
        let all = Handshakes {
            cookies_sent: Some(1),
            cookies_returned: Some(2),
            cookies_invalid: Some(4),
            completed: Some(7),
        };
        assert_eq!(parse(netstat, Some(snmp)), all);
        assert_eq!(parse(netstat, None), Handshakes { completed: None, ..all });
        assert_eq!(parse("", Some("Tcp: PassiveOpens\n")), Handshakes::default());
    }

    #[test]
    fn the_running_kernel() {
        let root = Path::new("/proc");
        let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
        let own = netns_of(root, "self").unwrap();
        let snmp = snmp(root, own, &[Pid(u32::MAX), Pid(std::process::id())]);
        let now = parse(&text, snmp.as_deref());
        assert!(now.completed.is_some() && now.cookies_sent.is_some());
        assert!(now.cookies_returned.is_some() && now.cookies_invalid.is_some());
        assert_eq!(super::snmp(root, own + 1, &[Pid(std::process::id())]), None);
    }
}
