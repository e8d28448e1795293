//! Telling systemd how it goes: sd_notify(3), one datagram each.
//!
//! The socket is opened once. A crate for it exists, and opens one for each message: when descriptors
//! have run out, the watchdog would not be fed any more, and systemd would end fdtrace just then.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Who is told, if anybody.
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// systemd ends a service that says nothing for `period`.
struct Watchdog {
    period: Duration,
    fed: Instant,
}

impl Notify {
    /// What the environment asks for.
    pub(super) fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let socket = open(&name);
            socket.inspect_err(|error| log::warn!("cannot tell systemd: {error}")).ok()
        });
        let variable = |name| env::var(name).ok();
        let period = period(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), process::id());
        let watchdog = period.map(|period| Watchdog { period, fed: Instant::now() });
        Self { socket, watchdog }
    }

    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// After [`Self::reloading`].
    pub(super) fn reloaded(&self) {
        self.tell("READY=1");
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=writing the summary");
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// To be called about once a second, and not when anything is stuck.
    pub(super) fn tick(&mut self) {
        const TICK: Duration = Duration::from_secs(1);
        let Some(watchdog) = &mut self.watchdog else { return };
        // At half the period, or before: the next tick would be later than that.
        if watchdog.fed.elapsed() + TICK > watchdog.period / 2 {
            watchdog.fed = Instant::now();
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            log::debug!("cannot tell systemd: {error}");
        }
    }
}

fn open(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long systemd waits, where it waits for us (sd_watchdog_enabled(3)).
fn period(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let micros = usec?.parse().ok().filter(|micros| *micros > 0)?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_may_be_of_another_process() {
        let of = |usec: &str, pid: Option<&str>| {
            period(Some(usec.to_owned()), pid.map(str::to_owned), 7)
        };
        assert_eq!(of("3000000", None), Some(Duration::from_secs(3)));
        assert_eq!(of("3000000", Some("7")), Some(Duration::from_secs(3)));
        assert_eq!(of("3000000", Some("8")), None);
        assert_eq!(of("0", None), None);
        assert_eq!(of("soon", None), None);
        assert_eq!(period(None, None, 7), None);
    }

    #[test]
    fn it_is_told_at_half_the_period() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let said = |socket: &UnixDatagram| {
            let mut bytes = [0; 256];
            socket.recv(&mut bytes).map(|length| bytes[..length].to_vec()).ok()
        };
        let fed = Instant::now();
        let watchdog = Some(Watchdog { period: Duration::from_secs(60), fed });
        let mut notify = Notify { socket: Some(ours), watchdog };
        notify.tick();
        assert_eq!(said(&theirs), None);
        notify.watchdog = Some(Watchdog { period: Duration::from_millis(1500), fed });
        notify.tick();
        assert_eq!(said(&theirs).unwrap(), b"WATCHDOG=1");
        notify.ready("watching");
        assert_eq!(said(&theirs).unwrap(), b"READY=1\nSTATUS=watching");
        notify.reloading();
        assert!(said(&theirs).unwrap().starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
        // Nobody has to listen.
        drop(theirs);
        notify.stopping();
    }
}
