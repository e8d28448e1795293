//! Clients that a listener refused.

use super::*;
use crate::model::Figures;

#[test]
fn a_full_accept_queue_from_its_first_refusal_to_its_end() {
    line(
        overflow(),
        "21:56:43.120 OVERFLOW   nginx[812] +3 *:80  accept queue full  queue 129/128 full  \
         3 connections refused (9 attempts)  limit is listen()'s backlog 128",
    );
    line(
        lasting(overflow()),
        "21:56:48.120 ongoing    nginx[812] +3 *:80  accept queue full  +120 (24/s)  \
         queue 129/128 full  3112 attempts",
    );
    line(
        over(overflow(), Outcome::Recovered),
        "21:58:01.440 RECOVERED  nginx[812] +3 *:80  accept queue full  \
         after 1m18s: 214 connections refused (3112 attempts)",
    );
    line(
        over(overflow(), Outcome::Exited),
        "21:58:01.440 EXITED     nginx[812] +3 *:80  accept queue full  \
         after 1m18s: 214 connections refused (3112 attempts)",
    );
    line(
        over(overflow(), Outcome::Unfinished),
        "21:58:01.440 unfinished nginx[812] +3 *:80  accept queue full  \
         after 1m18s: 214 connections refused (3112 attempts) so far",
    );
    let refused = Some(Refused { attempts: 1, connections: Some(1), figures: Figures::Exact });
    line(
        EpisodeReport { count: 1, refused, ..over(overflow(), Outcome::Recovered) },
        "21:58:01.440 RECOVERED  nginx[812] +3 *:80  accept queue full  \
         after 1 connection refused",
    );
}

#[test]
fn the_segment_and_a_full_syn_queue_besides_change_no_word() {
    let failure = Failure::AcceptQueueFull { syn_queue_full: true };
    let other = EpisodeReport { door: Door::Ack, failure, ..overflow() };
    assert_eq!(text(&episode(other)), text(&episode(overflow())));
}

#[test]
fn a_full_syn_queue() {
    line(
        syn_queue(Failure::SynQueueFull),
        "21:56:43.120 SYN FULL   nginx[812] +3 *:80  SYN queue full  accept queue 3/128  \
         9 SYNs dropped (3 clients)  limit is listen()'s backlog 128",
    );
    line(
        lasting(syn_queue(Failure::SynQueueFull)),
        "21:56:48.120 ongoing    nginx[812] +3 *:80  SYN queue full  +120 (24/s)  \
         accept queue 3/128  3112 SYNs dropped (214 clients)",
    );
    line(
        over(syn_queue(Failure::SynQueueFull), Outcome::Recovered),
        "21:58:01.440 RECOVERED  nginx[812] +3 *:80  SYN queue full  \
         after 1m18s: 3112 SYNs dropped (214 clients)",
    );
}

#[test]
fn cookies_lose_no_client() {
    line(
        syn_queue(Failure::SynCookieSent),
        "21:56:43.120 COOKIES    nginx[812] +3 *:80  SYN queue full  accept queue 3/128  \
         9 SYNs answered by cookies  limit is listen()'s backlog 128",
    );
    line(
        lasting(syn_queue(Failure::SynCookieSent)),
        "21:56:48.120 ongoing    nginx[812] +3 *:80  SYN queue full  +120 (24/s)  \
         accept queue 3/128  3112 SYNs answered by cookies",
    );
    line(
        over(syn_queue(Failure::SynCookieSent), Outcome::Recovered),
        "21:58:01.440 RECOVERED  nginx[812] +3 *:80  SYN queue full  \
         after 1m18s: 3112 SYNs answered by cookies",
    );
}

#[test]
fn what_is_unknown_of_a_refusal_is_left_out() {
    line(
        EpisodeReport {
            owners: Vec::new(),
            target: ipv4(9088),
            queue: None,
            refused: None,
            ..overflow()
        },
        "21:56:43.120 OVERFLOW   ? 192.0.2.7:9088  accept queue full  9 attempts refused",
    );
    let refused = Some(Refused { attempts: 9, connections: None, figures: Figures::Exact });
    let backlog = Some(Backlog { requested: None, somaxconn: None });
    line(
        EpisodeReport { backlog, refused, ..overflow() },
        "21:56:43.120 OVERFLOW   nginx[812] +3 *:80  accept queue full  queue 129/128 full  \
         9 attempts refused",
    );
    line(
        EpisodeReport { refused: None, backlog: None, ..lasting(overflow()) },
        "21:56:48.120 ongoing    nginx[812] +3 *:80  accept queue full  +120 (24/s)  \
         queue 129/128 full  3112 attempts",
    );
}

#[test]
fn where_the_limit_comes_from() {
    let line_of = |requested, somaxconn, limit: &str| {
        let backlog = Some(Backlog { requested, somaxconn });
        line(
            EpisodeReport { backlog, ..overflow() },
            &format!(
                "21:56:43.120 OVERFLOW   nginx[812] +3 *:80  accept queue full  \
                 queue 129/128 full  3 connections refused (9 attempts)  {limit}"
            ),
        );
    };
    line_of(Some(128), Some(4096), "limit is listen()'s backlog 128");
    line_of(Some(511), Some(128), "limit is somaxconn 128 (listen asked for 511)");
    line_of(None, Some(128), "limit equals somaxconn");
    line_of(None, Some(4096), "limit is listen()'s backlog, or somaxconn then (now 4096)");
}

#[test]
fn clients_refused_because_a_call_fails() {
    let refused = Some(Refused { attempts: 612, connections: Some(214), figures: Figures::Exact });
    line(
        EpisodeReport { refused, ..updated() },
        "21:56:48.120 ongoing    dataforwardsrv[14807] *:9088  EMFILE  +7 (1/s)  \
         queue 129/128 full  214 connections refused",
    );
    line(
        EpisodeReport { refused, ..closed(Outcome::Recovered) },
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] *:9088  EMFILE  \
         after 1m18s: 119 failed accepts, 214 connections refused",
    );
    line(
        EpisodeReport { refused, count: 1, ..closed(Outcome::Unfinished) },
        "21:58:01.440 unfinished dataforwardsrv[14807] *:9088  EMFILE  \
         after 1 failed accept, 214 connections refused so far",
    );
    let refused = Some(Refused { attempts: 612, connections: None, figures: Figures::Exact });
    line(
        EpisodeReport { refused, ..closed(Outcome::Recovered) },
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] *:9088  EMFILE  \
         after 1m18s: 119 failed accepts, 612 attempts refused",
    );
    let refused = Some(Refused { attempts: 0, connections: Some(0), figures: Figures::Exact });
    assert_eq!(text(&episode(EpisodeReport { refused, ..updated() })), text(&episode(updated())));
}
