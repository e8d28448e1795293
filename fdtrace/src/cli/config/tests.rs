//! Files, good and bad.

use super::*;
use crate::model::{Comm, Errno};

fn parse(text: &str) -> Result<DaemonConfig, String> {
    DaemonConfig::parse("fdtrace.toml", text).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = parse(text).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.trace.filter, Filter::default());
    assert_eq!(config.trace.warn_at, Thresholds::new(vec![80, 95]).unwrap());
    assert_eq!(config.trace.interval, Duration::from_secs(5));
    assert_eq!(config.output.stdout, Stdout::Text);
    assert_eq!(config.output.journal, Journal::Auto);
    assert_eq!(config.metrics.listen, Some("127.0.0.1:9435".parse().unwrap()));
    assert_eq!(config.metrics.max_series, 1000);
}

/// Every key of the example is right as it stands, and once more with the comment signs gone.
#[test]
fn the_example_is_right() {
    let example = include_str!("../../../../deploy/fdtrace.toml");
    assert_eq!(parse(example).unwrap(), parse("").unwrap());
    let mut keys = 0;
    let all: String = example
        .lines()
        .map(|line| {
            let key = line.strip_prefix('#').filter(|rest| {
                let word = rest.split(' ').next().unwrap_or_default();
                rest.contains(" = ") && !word.is_empty()
            });
            keys += usize::from(key.is_some());
            key.unwrap_or(line).to_owned() + "\n"
        })
        .collect();
    let config = parse(&all).unwrap();
    assert_eq!(keys, 16, "{all}");
    assert_eq!(config.trace.filter.ports, [9088]);
    assert_eq!(config.trace.filter.processes.comms, [Comm::from_bytes(b"nginx")]);
    assert_eq!(config.trace.filter.processes.units, ["nginx.service"]);
    assert_eq!(config.trace.filter.processes.containers.len(), 1);
    assert_eq!(config.trace.filter.processes.pods, ["web-0"]);
    assert_eq!(config.trace.packets_rest, parse("").unwrap().trace.packets_rest);
    assert_eq!(config.trace.filter.errnos, [Errno::EMFILE, Errno::ENFILE]);
    assert_eq!(config.output.json_file, Some(PathBuf::from("/var/log/fdtrace/fdtrace.jsonl")));
    assert_eq!(config.metrics.socket, Some(PathBuf::from("/run/fdtrace/metrics.sock")));
}

#[test]
fn every_key_is_documented() {
    let docs = include_str!("../../../../docs/daemon.md");
    let mut table = "";
    for line in include_str!("../../../../deploy/fdtrace.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ")
            && let Some(key) = key.strip_prefix('#').filter(|key| !key.contains(' '))
        {
            assert!(docs.contains(&format!("`{table}.{key}`")), "{table}.{key}");
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    refused("[trace]\nports = [80]\nportz = [1]\n", "fdtrace.toml:3: unknown field `portz`");
    refused("[trace]\nportz = [1]\n", "expected one of `ports`, `comms`");
    refused("\n[trase]\n", "fdtrace.toml:2: unknown field `trase`");
    refused("[trace]\nports = 80\n", "fdtrace.toml:2: invalid type: integer `80`");
    refused("[trace]\nports = 80\n", "in `ports = 80`");
    refused("[trace\n", "fdtrace.toml:1: ");
}

#[test]
fn values_are_refused_with_what_to_write_instead() {
    refused(
        "[trace]\ninterval = \"1ms\"\n",
        "fdtrace.toml:2: trace.interval: \"1ms\" is not possible: give 100ms or more",
    );
    refused("[trace]\nports = [80,\n0]\n", "fdtrace.toml:3: trace.ports: \"0\" is not possible");
    refused("[trace]\nerrnos = [\"EWHAT\"]\n", "trace.errnos: \"EWHAT\" is not possible: give a");
    refused("[trace]\ncomms = [\"a-name-that-is-too-long\"]\n", "trace.comms: ");
    refused("[trace]\nwarn_at = [80, 100]\n", "trace.warn_at: \"80,100\" is not possible: give");
    refused("[output]\nstdout = \"xml\"\n", "give one of \"text\", \"json\", \"none\"");
    refused("[output]\njson_file = \"fdtrace.jsonl\"\n", "give a path that starts with /");
    refused("[metrics]\nlisten = \"9435\"\n", "metrics.listen: \"9435\" is not possible: give ADD");
    refused("[metrics]\nmax_series = 0\n", "metrics.max_series: 0 is not possible: give a number");
}

#[test]
fn off_is_said_so() {
    let config = parse("[trace]\nwarn_at = []\n[metrics]\nlisten = \"\"\n").unwrap();
    assert_eq!(config.trace.warn_at.lowest(), None);
    assert_eq!(config.metrics.listen, None);
    let always = parse("[trace]\npackets = \"always\"\n").unwrap();
    assert_eq!(always.trace.packets_rest, None);
}
