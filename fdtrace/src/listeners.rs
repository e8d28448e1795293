//! `fdtrace listeners`: wires enrich → output for one look at the host, without the kernel side.

mod people;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, anyhow};

pub(crate) use self::people::People;
use crate::{
    cli::ListenersSettings,
    enrich::{HostListeners, NetnsListeners, host_listeners, read_clocks},
    model::{
        BootTime, Listener, ListenerAddress, ListenerReport, ListenersReport, ListeningSocket,
        Unseen,
    },
    output::{Colour, listeners_json, listeners_text},
};

/// Lists the listeners, and says whether anything of those listed has run out.
pub fn list(
    settings: &ListenersSettings,
    colour: Colour,
    output: &mut dyn Write,
) -> anyhow::Result<bool> {
    let clock = read_clocks();
    let report = report(settings, clock.boot)?;
    let bytes = if settings.json {
        listeners_json(&report, &clock)?
    } else {
        listeners_text(&report, colour).into_bytes()
    };
    let is_read = write(output, &bytes)?;
    Ok(is_read && report.listeners.iter().any(ListenerReport::is_exhausted))
}

/// Writes all of an output; whether somebody reads it.
pub(crate) fn write(output: &mut dyn Write, bytes: &[u8]) -> anyhow::Result<bool> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        // Nobody wants to know.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the output"),
    }
}

fn report(settings: &ListenersSettings, at: BootTime) -> anyhow::Result<ListenersReport> {
    let survey = survey(Path::new("/proc"), |on| settings.filter.wants_port(on))?;
    let Survey { mut listeners, namespaces, own_netns, unseen, sees_all, .. } = survey;
    listeners.retain(|listener| settings.unix || is_inet(listener) || !listener.risks().is_empty());
    tell(sees_all, &listeners);
    listeners.retain(|listener| settings.filter.owners.wants_any(&listener.owners));
    listeners.sort_by_cached_key(|listener| {
        let worst = listener.risks().first().copied();
        let on = &listener.socket.listener;
        // Those at risk come first.
        (worst.is_none(), worst, on.address.port(), on.clone(), listener.socket.inode)
    });
    Ok(ListenersReport { at, listeners, namespaces, own_netns, unseen })
}

/// One look at all listeners and their owners.
pub(crate) struct Survey {
    /// The listeners asked for.
    pub(crate) listeners: Vec<ListenerReport>,
    /// Network namespaces that were looked into.
    pub(crate) namespaces: u32,
    /// The one fdtrace is in.
    pub(crate) own_netns: Option<u32>,
    /// What is missing.
    pub(crate) unseen: Unseen,
    /// Whether other users' processes could be looked into.
    pub(crate) sees_all: bool,
    /// Everybody that was looked at.
    pub(crate) people: People,
}

/// Looks at the listeners that are `wanted`, and says on stderr which could not be seen.
pub(crate) fn survey(root: &Path, wanted: impl Fn(&Listener) -> bool) -> anyhow::Result<Survey> {
    let HostListeners { namespaces, sees_all } = host_listeners(root);
    let own_netns = namespaces.first().and_then(|own| own.netns);
    let mut found = Found::default();
    for namespace in namespaces {
        found.take(namespace);
    }
    let Found { mut sockets, namespaces, unseen, error } = found;
    if let (0, Some(error)) = (namespaces, error) {
        return Err(anyhow!("cannot list listeners: {error}"));
    }
    sockets.retain(|(socket, _)| wanted(&socket.listener));
    let inodes = sockets.iter().map(|(socket, _)| socket.inode);
    let mut people = People::look(root, inodes);
    let listeners =
        sockets.into_iter().map(|(socket, somaxconn)| people.report(socket, somaxconn)).collect();
    Ok(Survey { listeners, namespaces, own_netns, unseen, sees_all, people })
}

fn is_inet(listener: &ListenerReport) -> bool {
    matches!(listener.socket.listener.address, ListenerAddress::Inet { .. })
}

/// What the namespaces gave, and what they did not.
#[derive(Default)]
struct Found {
    /// With the somaxconn of their namespace.
    sockets: Vec<(ListeningSocket, Option<u32>)>,
    /// How many could be looked into.
    namespaces: u32,
    unseen: Unseen,
    /// Why the first could not.
    error: Option<io::Error>,
}

impl Found {
    /// Takes the listeners of one, and says on stderr what is missing.
    fn take(&mut self, of: NetnsListeners) {
        let NetnsListeners { netns, somaxconn, tcp, unix } = of;
        let name = netns.map_or_else(|| "unknown".to_owned(), |netns| netns.to_string());
        match tcp {
            Ok(tcp) => {
                self.namespaces += 1;
                self.sockets.extend(tcp.sockets.into_iter().map(|socket| (socket, somaxconn)));
                if let Some(why) = tcp.fallback {
                    self.unseen.without_limits += 1;
                    log::warn!(
                        "network namespace {name}: limits and drops are unknown, as only /proc shows \
                         its listeners: {why}"
                    );
                }
            }
            Err(error) => {
                self.unseen.namespaces += 1;
                log::warn!("network namespace {name}: its listeners cannot be seen: {error}");
                self.error.get_or_insert(error);
            }
        }
        match unix {
            Ok(unix) => {
                self.sockets.extend(unix.into_iter().map(|socket| (socket, somaxconn)));
            }
            Err(error) => {
                self.unseen.without_unix += 1;
                log::info!("network namespace {name}: no AF_UNIX listeners: {error}");
            }
        }
    }
}

/// Says once on stderr what an ordinary user is not shown.
pub(crate) fn tell(sees_all: bool, listeners: &[ListenerReport]) {
    let ownerless = listeners.iter().filter(|listener| listener.owners.is_empty()).count();
    if sees_all {
        log::info!("listeners of which no process was found: {ownerless}");
    } else {
        log::warn!(
            "processes of other users cannot be looked into: they are not shown as owners \
             (listeners without any: {ownerless}), nor are their network namespaces; run as root"
        );
    }
}
