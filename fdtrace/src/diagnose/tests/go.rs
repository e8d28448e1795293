//! Below a parent that is built with Go.

use super::*;

/// A parent built with Go has raised its own soft limit, and gave on the one that it got.
#[test]
fn below_go() {
    let go = |pid, version: &str| Ancestor {
        go: Some(version.into()),
        ..process(pid, "runner", 4096, 4096)
    };
    let shell = Ancestor { role: Role::Shell, ..process(50, "sh", 1024, 4096) };
    let inherited = "soft nofile limit 1024 (hard 4096), inherited from sh[50] (also 1024); its \
                     parent systemd[1] has 1073741816: it was lowered when it started, or the \
                     parent's was raised later; runner[60] has 4096: Go raises its own limit only, \
                     and starts others with the one it got";
    let web = process(70, "web", 1024, 4096);
    let runners = || vec![web.clone(), go(60, "go1.21.3"), go(59, "go1.20.4")];
    let mut below = provenance([runners(), vec![shell.clone(), systemd()]].concat());
    assert_eq!(diagnosed(&below).why, inherited);
    let keep = diagnosed(&below).remedies.pop().unwrap().text;
    assert!(keep.starts_with("run \"ulimit -n 65536\" in the shell"), "{keep}");
    // One of them is too old for that: it would have given on what it has.
    below.chain[2].go = Some("go1.20.3".into());
    let lowered = "soft nofile limit 1024 (hard 4096); its parent runner[60] has 4096: it was lowered \
                   when it started, or the parent's was raised later";
    assert_eq!(diagnosed(&below).why, lowered);
    // The shell has given them something else.
    below.chain = [runners(), vec![process(50, "sh", 2048, 4096), systemd()]].concat();
    assert_eq!(diagnosed(&below).why, lowered);
    // Or whoever started them has given them all of their limits.
    below.chain = [runners(), vec![process(50, "sh", 2048, 8192), systemd()]].concat();
    let why = diagnosed(&below).why;
    assert!(
        why.contains(", inherited from runner[59]; its parent sh[50] has 2048: it was"),
        "{why}"
    );
    // What is above them is not known: it is theirs.
    below.chain = runners();
    let found = diagnosed(&below);
    let theirs = "soft nofile limit 1024 (hard 4096), inherited from runner[59]; runner[60] has 4096: \
                  Go raises its own limit only, and starts others with the one it got";
    assert_eq!((found.why.as_str(), found.cause), (theirs, Cause::SoftLimitLow));
    // Go itself does not inherit a soft limit: somebody has lowered it.
    below.runtime = Runtime::Go("go1.21.3".into());
    assert!(!diagnosed(&below).why.contains("inherited"), "{}", diagnosed(&below).why);
}
