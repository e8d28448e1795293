//! Clients that a listener refused: how many, and against which limit.

use super::words::counted;
use crate::model::{AcceptQueue, Backlog, Failure, Figures, Refused};

/// What happened to clients: `214 connections refused (612 attempts)`, `12 SYNs dropped
/// (3 clients)`, `12 SYNs answered by cookies`.
pub(super) fn refused(failure: Failure, refused: Refused) -> String {
    let attempts = refused.attempts;
    let syns = || counted(attempts, "SYN");
    let clients = clients(refused).filter(|clients| *clients < attempts);
    match failure {
        Failure::SynCookieSent if attempts == 1 => format!("{} answered by a cookie", syns()),
        Failure::SynCookieSent => format!("{} answered by cookies", syns()),
        Failure::SynQueueFull => {
            let clients = clients.map(|clients| format!(" ({})", counted(clients, "client")));
            format!("{} dropped{}", syns(), clients.unwrap_or_default())
        }
        Failure::AcceptQueueFull { .. } | Failure::Errno(_) => {
            let attempts = clients.map(|_| format!(" ({})", counted(attempts, "attempt")));
            format!("{}{}", connections(refused), attempts.unwrap_or_default())
        }
    }
}

/// The short form: `214 connections refused`, or `612 attempts refused` where nobody could tell
/// clients apart.
pub(super) fn connections(refused: Refused) -> String {
    if let Some(clients) = clients(refused) {
        return format!("{} refused", counted(clients, "connection"));
    }
    let bound = match refused.figures {
        Figures::Exact => "",
        Figures::AtLeast => "at least ",
        Figures::AtMost => "at most ",
    };
    format!("{bound}{} refused", counted(refused.attempts, "attempt"))
}

/// An estimate can be off; more clients than attempts it shall not be, nor none behind some.
fn clients(refused: Refused) -> Option<u64> {
    let clients = refused.connections?.min(refused.attempts);
    (clients > 0 || refused.attempts == 0).then_some(clients)
}

/// Where the limit comes from, which is min(listen's argument, somaxconn) of the moment of listen
/// (net/socket.c `__sys_listen`). The SYN queue has the same one
/// (include/net/inet_connection_sock.h `inet_csk_reqsk_queue_is_full`). somaxconn can have changed
/// since.
pub(super) fn limit(queue: AcceptQueue, backlog: Backlog) -> Option<String> {
    let limit = queue.limit;
    // Less than the limit it cannot have been: another listen came after the one that was seen.
    if let Some(requested) = backlog.requested.filter(|requested| *requested >= limit) {
        // Negative ones are usual for `as much as possible`.
        let asked = requested.cast_signed();
        return Some(match backlog.somaxconn {
            _ if requested == limit => format!("limit is listen()'s backlog {limit}"),
            Some(now) if now != limit => {
                format!(
                    "limit is an earlier somaxconn {limit} (now {now}, listen asked for {asked})"
                )
            }
            _ => format!("limit is somaxconn {limit} (listen asked for {asked})"),
        });
    }
    backlog.somaxconn.map(|somaxconn| {
        if somaxconn == limit {
            "limit equals somaxconn".to_owned()
        } else {
            format!("limit is listen()'s backlog, or somaxconn then (now {somaxconn})")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: Failure = Failure::AcceptQueueFull { syn_queue_full: false };

    #[test]
    fn how_many() {
        let cases = [
            (ACCEPT, 612, Some(214), "214 connections refused (612 attempts)"),
            (ACCEPT, 3, Some(1), "1 connection refused (3 attempts)"),
            (ACCEPT, 3, Some(3), "3 connections refused"),
            (ACCEPT, 3, Some(4), "3 connections refused"),
            (ACCEPT, 612, None, "612 attempts refused"),
            (ACCEPT, 1, Some(0), "1 attempt refused"),
            (Failure::SynQueueFull, 12, Some(3), "12 SYNs dropped (3 clients)"),
            (Failure::SynQueueFull, 12, Some(1), "12 SYNs dropped (1 client)"),
            (Failure::SynQueueFull, 12, Some(12), "12 SYNs dropped"),
            (Failure::SynQueueFull, 1, None, "1 SYN dropped"),
            (Failure::SynCookieSent, 12, Some(3), "12 SYNs answered by cookies"),
            (Failure::SynCookieSent, 1, None, "1 SYN answered by a cookie"),
        ];
        for (failure, attempts, connections, expected) in cases {
            let what = Refused { attempts, connections, figures: Figures::Exact };
            assert_eq!(refused(failure, what), expected);
        }
    }

    #[test]
    fn limits() {
        let cases = [
            (128, Some(128), Some(4096), Some("limit is listen()'s backlog 128")),
            (128, Some(128), Some(128), Some("limit is listen()'s backlog 128")),
            (128, Some(128), Some(64), Some("limit is listen()'s backlog 128")),
            (128, Some(128), None, Some("limit is listen()'s backlog 128")),
            (128, Some(511), Some(128), Some("limit is somaxconn 128 (listen asked for 511)")),
            (128, Some(511), None, Some("limit is somaxconn 128 (listen asked for 511)")),
            (128, Some(u32::MAX), Some(128), Some("limit is somaxconn 128 (listen asked for -1)")),
            (
                128,
                Some(511),
                Some(4096),
                Some("limit is an earlier somaxconn 128 (now 4096, listen asked for 511)"),
            ),
            (128, Some(5), Some(128), Some("limit equals somaxconn")),
            (128, None, Some(128), Some("limit equals somaxconn")),
            (
                128,
                None,
                Some(4096),
                Some("limit is listen()'s backlog, or somaxconn then (now 4096)"),
            ),
            (128, None, Some(64), Some("limit is listen()'s backlog, or somaxconn then (now 64)")),
            (128, None, None, None),
            (128, Some(5), None, None),
        ];
        for (of, requested, somaxconn, expected) in cases {
            let queue = AcceptQueue { length: of + 1, limit: of };
            let text = limit(queue, Backlog { requested, somaxconn });
            assert_eq!(text.as_deref(), expected, "{requested:?} {somaxconn:?}");
        }
    }
}
