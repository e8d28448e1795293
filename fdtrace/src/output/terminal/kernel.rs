//! The kernel's own counters beside fdtrace's, at the end of the summary.

use std::fmt::Write as _;

use crate::model::{CounterPair, Reconciliation};

/// More network namespaces than this nobody reads; JSON has all.
const MOST_NAMESPACES: usize = 20;

/// Said of even where they did not grow.
const ALWAYS: [&str; 2] = ["ListenOverflows", "ListenDrops"];

/// A line per network namespace in which something grew; one line where none did.
pub(super) fn summary(kernel: &[Reconciliation]) -> String {
    let Some(own) = kernel.first() else {
        return "kernel counters not read\n".to_owned();
    };
    let moved: Vec<_> = kernel.iter().filter(|one| one.counters.iter().any(moved)).collect();
    if moved.is_empty() {
        return line(own) + "\n";
    }
    let mut text = String::new();
    for one in moved.iter().take(MOST_NAMESPACES) {
        // Writing to a String cannot fail.
        let _ = match kernel.len() {
            1 => writeln!(text, "{}", line(one)),
            _ => writeln!(text, "netns {}: {}", one.netns, line(one)),
        };
    }
    match moved.len().saturating_sub(MOST_NAMESPACES) {
        0 => {}
        1 => text.push_str("and 1 more network namespace\n"),
        more => {
            let _ = writeln!(text, "and {more} more network namespaces");
        }
    }
    text
}

fn moved(pair: &CounterPair) -> bool {
    pair.delta > 0 || pair.seen.is_some_and(|seen| seen > 0)
}

/// `kernel says ListenOverflows +12  ListenDrops +12;  fdtrace saw 12 / 12;  unattributed 0`
fn line(one: &Reconciliation) -> String {
    let shown = one.counters.iter().filter(|pair| ALWAYS.contains(&pair.name) || moved(pair));
    let (compared, others): (Vec<_>, Vec<_>) = shown.partition(|pair| pair.seen.is_some());
    let others = says(&others);
    if compared.is_empty() {
        return format!("kernel says {others};  fdtrace did not look");
    }
    let saw: Vec<_> = compared.iter().filter_map(|pair| Some(pair.seen?.to_string())).collect();
    let mut parts = vec![
        format!("kernel says {}", says(&compared)),
        format!("fdtrace saw {}", saw.join(" / ")),
        format!("unattributed {}", unattributed(&compared)),
    ];
    if !others.is_empty() {
        parts.push(format!("not compared {others}"));
    }
    parts.join(";  ")
}

/// `ListenOverflows +3112  ListenDrops +3112`
fn says(pairs: &[&CounterPair]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|pair| format!("{} +{}", pair.name, pair.delta)).collect();
    pairs.join("  ")
}

/// `0`, or `ListenDrops 3 (…)`
fn unattributed(pairs: &[&CounterPair]) -> String {
    let of = |name| {
        let pair = pairs.iter().find(|pair| pair.name == name);
        pair.and_then(|pair| pair.unattributed()).unwrap_or(0)
    };
    // What is missing from these two is missing from the drops as well.
    let known = of("ListenOverflows").max(0).saturating_add(of("TCPReqQFullDrop").max(0));
    let rest: Vec<_> = pairs
        .iter()
        .filter_map(|pair| Some((pair.name, pair.unattributed().filter(|rest| *rest != 0)?)))
        .map(|(name, rest)| {
            let other = name == "ListenDrops" && rest > known;
            let note = if other { " (other refusals in LISTEN: see docs)" } else { "" };
            format!("{name} {rest}{note}")
        })
        .collect();
    if rest.is_empty() { "0".to_owned() } else { rest.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixtures::namespace;

    /// Delta and seen, in the order of the names.
    type Counters = &'static [(u64, Option<u64>)];

    #[test]
    fn one_namespace() {
        let cases: &[(Counters, &str)] = &[
            (
                &[(0, Some(0)), (0, Some(0)), (0, Some(0)), (0, Some(0))],
                "kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  \
                 unattributed 0",
            ),
            (
                &[(3112, Some(3112)), (3112, Some(3112)), (0, Some(0)), (0, Some(0))],
                "kernel says ListenOverflows +3112  ListenDrops +3112;  \
                 fdtrace saw 3112 / 3112;  unattributed 0",
            ),
            (
                &[(5, Some(5)), (12, Some(9)), (4, Some(4)), (7, Some(7))],
                "kernel says ListenOverflows +5  ListenDrops +12  TCPReqQFullDrop +4  \
                 TCPReqQFullDoCookies +7;  fdtrace saw 5 / 9 / 4 / 7;  \
                 unattributed ListenDrops 3 (other refusals in LISTEN: see docs)",
            ),
            // Drops that are known to be overflows or SYN drops are nothing else.
            (
                &[(5, Some(4)), (9, Some(6)), (4, Some(2)), (0, Some(0))],
                "kernel says ListenOverflows +5  ListenDrops +9  TCPReqQFullDrop +4;  \
                 fdtrace saw 4 / 6 / 2;  \
                 unattributed ListenOverflows 1, ListenDrops 3, TCPReqQFullDrop 2",
            ),
            (
                &[(5, Some(6)), (5, Some(6)), (0, Some(1)), (0, Some(0))],
                "kernel says ListenOverflows +5  ListenDrops +5  TCPReqQFullDrop +0;  \
                 fdtrace saw 6 / 6 / 1;  \
                 unattributed ListenOverflows -1, ListenDrops -1, TCPReqQFullDrop -1",
            ),
            (
                &[(0, Some(0)), (0, Some(0)), (0, Some(0)), (50_000, None)],
                "kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  \
                 unattributed 0;  not compared TCPReqQFullDoCookies +50000",
            ),
            (
                &[(3112, None), (3113, None), (0, None), (0, None)],
                "kernel says ListenOverflows +3112  ListenDrops +3113;  fdtrace did not look",
            ),
        ];
        for (counters, expected) in cases {
            assert_eq!(summary(&[namespace(1, counters)]), format!("{expected}\n"));
        }
        assert_eq!(summary(&[]), "kernel counters not read\n");
    }

    #[test]
    fn several_namespaces() {
        let still = |netns| namespace(netns, &[(0, Some(0)), (0, Some(0))]);
        let grown = |netns| namespace(netns, &[(3, Some(3)), (3, Some(3))]);
        assert_eq!(
            summary(&[still(1), still(2)]),
            "kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  unattributed 0\n"
        );
        // Not the own one: it must be said which.
        assert_eq!(
            summary(&[still(1), grown(2)]),
            "netns 2: kernel says ListenOverflows +3  ListenDrops +3;  fdtrace saw 3 / 3;  \
             unattributed 0\n"
        );
        let both = summary(&[grown(1), grown(2)]);
        assert!(both.starts_with("netns 1: ") && both.contains("\nnetns 2: "), "{both}");
        let many = |count| summary(&(1..=count).map(grown).collect::<Vec<_>>());
        assert_eq!(many(20).lines().count(), 20);
        assert!(many(21).ends_with("\nand 1 more network namespace\n"));
        assert!(many(23).ends_with("\nand 3 more network namespaces\n"));
    }
}
