//! The systemd unit, and the file for logrotate of what it writes. That fdtrace works under both is
//! tested on a machine with systemd.

use std::fs;

use crate::{CAPABILITIES, path, read, run};

fn settings(key: &str) -> Vec<String> {
    let unit = read("systemd/fdtrace.service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_unit_gives_those_capabilities_and_says_what_for() {
    let expected = CAPABILITIES.map(|name| format!("CAP_{name}")).join(" ");
    assert_eq!(settings("AmbientCapabilities"), [expected.as_str()]);
    assert_eq!(settings("CapabilityBoundingSet"), [expected.as_str()]);
    let unit = read("systemd/fdtrace.service");
    for name in CAPABILITIES {
        let reason = unit.lines().filter(|line| line.starts_with(&format!("# CAP_{name} ")));
        assert_eq!(reason.count(), 1, "CAP_{name}");
    }
    let privileges = fs::read_to_string(path("../docs/privileges.md")).unwrap();
    assert!(CAPABILITIES.iter().all(|name| privileges.contains(&format!("`CAP_{name}`"))));
}

/// With the program that cargo built, for systemd looks whether it is there.
#[test]
fn systemd_understands_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = read("systemd/fdtrace.service");
    let unit = unit.replace("/usr/bin/fdtrace", env!("CARGO_BIN_EXE_fdtrace"));
    let file = dir.path().join("fdtrace.service");
    fs::write(&file, unit).unwrap();
    run("systemd-analyze", &["verify", "--man=no", file.to_str().unwrap()]);
}

/// And it is for the file that the configuration has as its example.
#[test]
fn logrotate_understands_its_file() {
    run("logrotate", &["--debug", path("logrotate/fdtrace").to_str().unwrap()]);
    let config = read("fdtrace.toml");
    let file = config.lines().find_map(|line| line.strip_prefix("#json_file = \"")).unwrap();
    let (directory, name) = file.trim_end_matches('"').rsplit_once('/').unwrap();
    let extension = name.rsplit_once('.').unwrap().1;
    let pattern = format!("{directory}/*.{extension} {{");
    assert!(read("logrotate/fdtrace").lines().any(|line| line == pattern), "{pattern}");
    let unit = settings("LogsDirectory");
    assert_eq!(unit, [directory.strip_prefix("/var/log/").unwrap()]);
}
