//! The text of one argument → its value, or what to type instead.
//!
//! clap puts `invalid value '…' for '--…': ` before each message.

use std::{net::IpAddr, time::Duration};

use crate::{
    kernel::{Buffer, FormChoice, FormRequest, probe_names},
    model::{
        Comm, ContainerQuery, Engine, Errno, ListenerQuery, Pid, Subject, Thresholds, UnixName,
    },
};

/// Shorter ones would report faster than the kernel side tells (`DEFAULT_RECORD_INTERVAL_NS`).
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// The kernel maps whole pages.
const LEAST_RING_BYTES: u32 = 4096;

/// Units of a duration in milliseconds. `ms` comes before the units it ends like.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest name the kernel keeps: `TASK_COMM_LEN` is 16, with its NUL.
const MOST_COMM: usize = fdtrace_common::COMM_LEN - 1;

pub(super) fn pid(text: &str) -> Result<Pid, String> {
    let pid = text.parse().ok().filter(|pid| (1..=i32::MAX.cast_unsigned()).contains(pid));
    pid.map(Pid).ok_or_else(|| "give the number of a process, as `ps` shows it".to_owned())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| "give a port from 1 to 65535".to_owned())
}

pub(super) fn comm(text: &str) -> Result<Comm, String> {
    if text.is_empty() {
        return Err("give the name of a process, as `ps -o comm` shows it".to_owned());
    }
    if text.len() > MOST_COMM {
        let mut end = MOST_COMM;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        return Err(format!(
            "the kernel keeps {MOST_COMM} bytes of a name, so none is that long; try '{}'",
            &text[..end]
        ));
    }
    Ok(Comm::from_bytes(text.as_bytes()))
}

pub(super) fn errno(text: &str) -> Result<Errno, String> {
    Errno::parse(text).ok_or_else(|| {
        let names: Vec<&str> = Errno::names().collect();
        format!("give a number from 1 to 4095 or one of {}", names.join(", "))
    })
}

/// `PID`, `:PORT`, `ADDRESS:PORT`, `unix:PATH`, or else a name.
pub(super) fn subject(text: &str) -> Result<Subject, String> {
    if text.is_empty() {
        return Err("give a PID, :PORT, unix:PATH or the name of a program".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_port = port(text).is_ok();
        let hint = if is_port { format!("; a port is :{text}") } else { String::new() };
        return pid(text).map(Subject::Pid).map_err(|message| message + &hint);
    }
    if let Some(name) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text))
    {
        let name = match name.strip_prefix('@') {
            Some(name) => UnixName::Abstract(name.as_bytes().to_vec()),
            None => UnixName::Path(name.as_bytes().to_vec()),
        };
        return Ok(Subject::Listener(ListenerQuery::Unix(name)));
    }
    // What has a colon and is no address may be a name: `tmux: server`.
    let Some((address, number)) = text.rsplit_once(':') else {
        return Ok(Subject::Name(text.to_owned()));
    };
    let inner = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let ip = inner.unwrap_or(address).parse::<IpAddr>();
    match (address, ip) {
        ("" | "*", _) => Ok(Subject::Listener(ListenerQuery::Port(port(number)?))),
        (_, Ok(ip)) if ip.is_ipv4() == inner.is_none() => {
            Ok(Subject::Listener(ListenerQuery::Address(ip, port(number)?)))
        }
        (_, Ok(_)) => Err("write an IPv6 address and its port as [ADDRESS]:PORT".to_owned()),
        (_, Err(_)) => Ok(Subject::Name(text.to_owned())),
    }
}

/// What a systemd unit's name is made of (systemd's `VALID_CHARS_WITH_AT`).
const UNIT_PUNCTUATION: &[u8] = b"@:-_.\\";
/// Longest name of a unit (systemd's `UNIT_NAME_MAX`).
const MOST_UNIT: usize = 255;
/// Units that have no processes of their own.
const WITHOUT_PROCESSES: [&str; 9] =
    ["slice", "socket", "timer", "target", "mount", "automount", "swap", "path", "device"];

/// `nginx`, `nginx.service`, `session-3.scope`
pub(super) fn unit(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || UNIT_PUNCTUATION.contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) {
        return Err(
            "give the name of a systemd service or scope, as `systemctl` shows it".to_owned()
        );
    }
    let kind = text.rsplit_once('.').map(|(_, kind)| kind);
    let name = match kind {
        Some("service" | "scope") => text.to_owned(),
        Some(kind) if WITHOUT_PROCESSES.contains(&kind) => {
            return Err(format!("a {kind} has no processes; give a service or a scope"));
        }
        _ => format!("{text}.service"),
    };
    if name.len() > MOST_UNIT {
        return Err(format!("no unit has a name of more than {MOST_UNIT} bytes"));
    }
    Ok(name)
}

/// Digits of an id that tell containers of one host apart.
const LEAST_ID: usize = 4;
const MOST_ID: usize = 64;

/// `4f1c0d6f2f5a`, `lxc:web`, `nspawn:web`
pub(super) fn container(text: &str) -> Result<ContainerQuery, String> {
    let named = match text.split_once(':') {
        Some(("lxc", name)) => Some((Engine::Lxc, name)),
        Some(("nspawn", name)) => Some((Engine::Nspawn, name)),
        _ => None,
    };
    match named {
        Some((engine, name)) if !name.is_empty() => {
            return Ok(ContainerQuery::Name(engine, name.to_owned()));
        }
        Some(_) => return Err("give the container's name after the colon".to_owned()),
        None => {}
    }
    let is_id = (LEAST_ID..=MOST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(format!(
            "give an id or its first digits, {LEAST_ID} to {MOST_ID} of 0-9 and a-f, as `docker ps` or \
             `crictl ps` show it (a name is not in a cgroup); or lxc:NAME, nspawn:NAME"
        ));
    }
    Ok(ContainerQuery::Id(text.to_ascii_lowercase()))
}

/// A UID or a name.
pub(super) fn pod(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    if text.is_empty() || !text.bytes().all(is_plain) {
        return Err("give the UID or the name of a pod, without its namespace".to_owned());
    }
    Ok(text.to_owned())
}

/// `80,95` or `off`
pub(super) fn warn_at(text: &str) -> Result<Thresholds, String> {
    if text == "off" {
        return Ok(Thresholds::default());
    }
    let percents: Option<Vec<u8>> = text.split(',').map(|one| one.trim().parse().ok()).collect();
    percents
        .and_then(Thresholds::new)
        .ok_or_else(|| "give percents from 1 to 99, as in 80,95; or off".to_owned())
}

/// `FORM` or `PROBE=FORM`
pub(super) fn form(text: &str) -> Result<FormRequest, String> {
    let (probe, form) = match text.split_once('=') {
        Some((probe, form)) => (Some(probe), form),
        None => (None, text),
    };
    if let Some(probe) = probe
        && !probe_names().any(|name| name == probe)
    {
        let names: Vec<_> = probe_names().collect();
        return Err(format!("there is no probe `{probe}`; there are {}", names.join(", ")));
    }
    let form = match form {
        "auto" => FormChoice::Auto,
        "fexit" | "fentry" => FormChoice::Fexit,
        "kprobe" => FormChoice::Kprobe,
        "tracepoint" => FormChoice::Tracepoint,
        "sock_diag" if matches!(probe, Some("syn" | "ack")) => FormChoice::Polled,
        _ => return Err("give auto, fexit, kprobe or tracepoint, or PROBE=FORM".to_owned()),
    };
    Ok(FormRequest { probe: probe.map(str::to_owned), form })
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < LEAST_INTERVAL {
        return Err("give 100ms or more".to_owned());
    }
    Ok(interval)
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let example = || "give a number and its unit: 500ms, 10s, 2m, 1h, 1d".to_owned();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .ok_or_else(example)?;
    // u64's own parser takes a plus sign.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(example());
    }
    let millis: Option<u64> = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    match millis {
        Some(0) => Err("give more than nothing".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("give less: this is longer than any run".to_owned()),
    }
}

pub(super) fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok();
    bytes
        .filter(|bytes: &u32| bytes.is_power_of_two() && *bytes >= LEAST_RING_BYTES)
        .ok_or_else(|| format!("give a power of two, {LEAST_RING_BYTES} or more"))
}

pub(super) fn buffer(text: &str) -> Result<Buffer, String> {
    match text {
        "ring" => Ok(Buffer::Ring),
        "perf" => Ok(Buffer::Perf),
        _ => Err("give ring or perf".to_owned()),
    }
}
