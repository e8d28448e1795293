//! The small pieces that lines and the table share: who, on what, when, how long, how many.

use std::{fmt::Write as _, time::Duration};

use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::Colour;
use crate::{
    model::{BootTime, Door, Failure, ListenerAddress, Process, Target, UnixName, WallClock},
    output::sanitize,
};

/// Boot times as local times.
pub(super) struct Times<'a> {
    pub(super) zone: &'a TimeZone,
    pub(super) clock: &'a WallClock,
}

impl Times<'_> {
    /// `21:56:43.120`
    pub(super) fn precise(&self, at: BootTime) -> String {
        self.local(at).strftime("%H:%M:%S%.3f").to_string()
    }

    /// `21:56:43`
    pub(super) fn brief(&self, at: BootTime) -> String {
        self.local(at).strftime("%H:%M:%S").to_string()
    }

    /// `07-29 21:56:43`
    pub(super) fn dated(&self, at: BootTime) -> String {
        self.local(at).strftime("%m-%d %H:%M:%S").to_string()
    }

    pub(super) fn same_day(&self, one: BootTime, other: BootTime) -> bool {
        self.local(one).date() == self.local(other).date()
    }

    fn local(&self, at: BootTime) -> Zoned {
        // Out of range only where the host's clock is thousands of years off.
        let timestamp = Timestamp::try_from(self.clock.date(at)).unwrap_or_default();
        timestamp.to_zoned(self.zone.clone())
    }
}

/// What a headline says, and so its colour.
#[derive(Clone, Copy)]
pub(in crate::output) enum Tone {
    Bad,
    Good,
    Warning,
    Neutral,
}

/// The headline, padded to the width of the widest one and the space after it.
pub(in crate::output) fn headline(word: &str, tone: Tone, colour: Colour) -> String {
    const WIDTH: usize = 11;
    let padding = " ".repeat(WIDTH.saturating_sub(word.len()));
    let code = match (colour, tone) {
        (Colour::Never, _) | (Colour::Always, Tone::Neutral) => return format!("{word}{padding}"),
        (Colour::Always, Tone::Bad) => 31,
        (Colour::Always, Tone::Good) => 32,
        (Colour::Always, Tone::Warning) => 33,
    };
    format!("\x1b[{code}m{word}\x1b[0m{padding}")
}

/// `dataforwardsrv[14807]`, `nginx[812] +3` where others own the listener too, `nginx[14807] (7 in
/// 4f1c0d6f2f5a)` in a container, `?` where nobody is known to.
pub(in crate::output) fn who(owners: &[Process]) -> String {
    let [lead, others @ ..] = owners else {
        return "?".to_owned();
    };
    let mut text = sanitize::escape(lead.comm.as_bytes());
    if text.is_empty() {
        text.push('?');
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "[{}]", lead.id.pid);
    if let Some(place) = place(lead) {
        let _ = write!(text, " ({place})");
    }
    if !others.is_empty() {
        let _ = write!(text, " +{}", others.len());
    }
    text
}

/// `7 in 4f1c0d6f2f5a`, `7 in pod web-0`: the container that a process is in, and its number there
/// where that is another.
fn place(process: &Process) -> Option<String> {
    let Process { id, container, pod, ns_pid, .. } = process;
    let place = match (pod.as_ref().and_then(|pod| pod.name.as_deref()), container) {
        (Some(name), _) => Some(format!("in pod {}", sanitize::escape(name.as_bytes()))),
        (None, Some(container)) => {
            Some(format!("in {}", sanitize::escape(container.short().as_bytes())))
        }
        (None, None) => None,
    };
    match (ns_pid.filter(|pid| *pid != id.pid), place) {
        (Some(pid), Some(place)) => Some(format!("{pid} {place}")),
        (Some(pid), None) => Some(format!("{pid} in its pid namespace")),
        (None, place) => place,
    }
}

/// Why it failed: `EMFILE`, `accept queue full`.
pub(super) fn why(failure: Failure) -> String {
    match failure {
        Failure::Errno(errno) => errno.to_string(),
        Failure::AcceptQueueFull { .. } => "accept queue full".to_owned(),
        Failure::SynQueueFull => "SYN queue full".to_owned(),
        Failure::SynCookieSent => "SYN cookie sent".to_owned(),
    }
}

/// `*:9088`, or what stands in its place.
///
/// An address is never shortened: it is there to be copied.
pub(super) fn on_what(target: &Target, door: Door) -> String {
    match target {
        Target::None => format!("{door}()"),
        Target::NotSocket => "fd is no socket".to_owned(),
        Target::NotOpen => "fd not open".to_owned(),
        Target::Unread => "listener unknown".to_owned(),
        Target::Listener(listener) => address(&listener.address),
    }
}

/// `*:9088`, `/run/x.sock`
pub(in crate::output) fn address(address: &ListenerAddress) -> String {
    match address {
        // Not by their Display, which does not escape.
        ListenerAddress::Unix(UnixName::Path(path)) => sanitize::escape(path),
        ListenerAddress::Unix(UnixName::Abstract(name)) => {
            let mut text = "@".to_owned();
            sanitize::push(&mut text, name);
            text
        }
        address => address.to_string(),
    }
}

/// `1 failed accept`, `119 failed accepts`, `2 failed socket calls`
pub(super) fn failed_calls(count: u64, door: Door) -> String {
    if door.accepts() {
        counted(count, "failed accept")
    } else {
        counted(count, &format!("failed {door} call"))
    }
}

/// A number and its noun.
pub(in crate::output) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `250ms`, `4.2s`, `12s`, `1m18s`, `2h05m`, `3d04h`: two figures of what matters, rounded.
pub(in crate::output) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (tenths, seconds) = ((millis + 50) / 100, (millis + 500) / 1000);
    let minutes = (seconds + 30) / 60;
    let hours = (seconds + 1800) / 3600;
    if millis < 1000 {
        format!("{millis}ms")
    } else if tenths < 100 {
        format!("{}.{}s", tenths / 10, tenths % 10)
    } else if seconds < 60 {
        format!("{seconds}s")
    } else if seconds < 3600 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else if minutes < 24 * 60 {
        format!("{}h{:02}m", minutes / 60, minutes % 60)
    } else {
        format!("{}d{:02}h", hours / 24, hours % 24)
    }
}

/// `7/s`, `12/min`; `None` where it is too slow to say, or nothing happened.
pub(super) fn rate(count: u64, period: Duration) -> Option<String> {
    let millis = u64::try_from(period.as_millis()).ok().filter(|millis| *millis > 0)?;
    let rounded = |unit: u64| (count.saturating_mul(unit).saturating_add(millis / 2)) / millis;
    if count.saturating_mul(1000) >= millis {
        return Some(format!("{}/s", rounded(1000)));
    }
    let per_minute = rounded(60_000);
    (per_minute > 0).then(|| format!("{per_minute}/min"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Container, Engine, Pid, Pod},
        output::fixtures::process,
    };

    #[test]
    fn who_is_in_a_container() {
        let container = |engine, id: &str| Some(Container { id: id.to_owned(), engine });
        let pod = |name: &str| Some(Pod { uid: "0f3a".to_owned(), name: Some(name.to_owned()) });
        let long = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
        let of = |pid, container, pod| {
            let owner = Process { ns_pid: Some(Pid(pid)), container, pod, ..process() };
            who(&[owner, process()])
        };
        let name = "dataforwardsrv[14807]";
        assert_eq!(of(14807, None, None), format!("{name} +1"));
        assert_eq!(of(7, None, None), format!("{name} (7 in its pid namespace) +1"));
        assert_eq!(of(7, container(None, long), None), format!("{name} (7 in 4f1c0d6f2f5a) +1"));
        let podman = container(Some(Engine::Podman), long);
        assert_eq!(of(14807, podman.clone(), None), format!("{name} (in 4f1c0d6f2f5a) +1"));
        assert_eq!(of(7, podman, pod("web-0")), format!("{name} (7 in pod web-0) +1"));
        // Not cut: it is a name.
        let lxc = container(Some(Engine::Lxc), "web-of-the-shop");
        assert_eq!(of(7, lxc, None), format!("{name} (7 in web-of-the-shop) +1"));
        let hostile = container(Some(Engine::Lxc), "\x1b[31m");
        assert!(!of(7, hostile, None).contains('\x1b'));
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (4_249, "4.2s"),
            (9_949, "9.9s"),
            (9_950, "10s"),
            (12_300, "12s"),
            (59_499, "59s"),
            (59_500, "1m00s"),
            (78_320, "1m18s"),
            (3_599_499, "59m59s"),
            (3_599_500, "1h00m"),
            (7_500_000, "2h05m"),
            (86_369_000, "23h59m"),
            (86_370_000, "1d00h"),
            (273_600_000, "3d04h"),
        ];
        for (millis, expected) in cases {
            assert_eq!(duration(Duration::from_millis(millis)), expected, "{millis}");
        }
    }

    #[test]
    fn rates() {
        let rate = |count, millis| rate(count, Duration::from_millis(millis));
        assert_eq!(rate(7, 5_000).as_deref(), Some("1/s"));
        assert_eq!(rate(5, 5_000).as_deref(), Some("1/s"));
        assert_eq!(rate(1_000_000, 500).as_deref(), Some("2000000/s"));
        assert_eq!(rate(1, 5_000).as_deref(), Some("12/min"));
        assert_eq!(rate(1, 600_000), None);
        assert_eq!(rate(0, 5_000), None);
        assert_eq!(rate(7, 0), None);
        assert_eq!(rate(u64::MAX, 1).as_deref().map(str::len), Some(22));
    }

    #[test]
    fn numbers_are_not_abbreviated() {
        assert_eq!(counted(1, "failure"), "1 failure");
        assert_eq!(counted(0, "failure"), "0 failures");
        assert_eq!(failed_calls(12_345_678, Door::Accept4), "12345678 failed accepts");
        assert_eq!(failed_calls(2, Door::Socketpair), "2 failed socketpair calls");
    }
}
