//! The queue is too short for the bursts that come.

use std::time::Duration;

use super::{
    evidence::{count, from, is_plain, remedy, text},
    queue::{Occupancy, QueueFacts},
    sysctl::Place,
    words::at,
};
use crate::model::{Backlog, Cause, Certainty, Diagnosis, Process, Remedy, When};

/// What Linux gives since v5.4 to a program that asks for as much as there is, and what is little
/// enough to do no harm: a place costs nothing while nobody waits in it.
const ENOUGH: u32 = 4096;
/// `net.core.somaxconn` may be larger, but the backlog of older programs may not.
const MOST: u32 = 65_535;

const SOMAXCONN: &str = "net.core.somaxconn";

pub(super) fn diagnose(facts: &QueueFacts<'_>) -> Option<Diagnosis> {
    let limit = facts.queue.limit;
    let occupancy = Occupancy::of(facts.samples, limit);
    // One that is always full would be full all the same were it longer.
    if occupancy == Some(Occupancy::Always) {
        return None;
    }
    let is_small = limit < ENOUGH;
    if occupancy.is_none() && !is_small {
        return None;
    }
    let binding = Binding::of(limit, facts.backlog);
    let inferred = Inferred::of(facts, binding);
    let binding = inferred.as_ref().map_or(binding, |inferred| inferred.binding);
    let wanted = limit.saturating_mul(4).clamp(ENOUGH, MOST);
    let mut unknown = Vec::new();
    if occupancy.is_none() {
        unknown.push("whether it is full in bursts or always: too few looks at it".to_owned());
    }
    if binding == Binding::Unknown || inferred.is_some() {
        unknown.push("what backlog the program asked for: its listen(2) was not seen".to_owned());
    }
    let is_known = binding != Binding::Unknown && inferred.is_none();
    let is_certain = occupancy == Some(Occupancy::Bursts) && is_known;
    let places = u64::from(limit) + 1;
    let why = format!(
        "the accept queue holds {places} connections{}",
        inferred
            .as_ref()
            .map_or_else(|| binding.words(limit, facts.backlog), |inferred| inferred.words(limit))
    );
    let why = match occupancy {
        Some(_) => format!("{why}; it is empty but for bursts of clients, which are longer"),
        None => format!("{why}; a burst of clients fills it"),
    };
    let mut evidence = Vec::new();
    if let Some(somaxconn) = facts.backlog.somaxconn {
        evidence.push(from(count("somaxconn", somaxconn.into(), "connections"), SOMAXCONN));
    }
    if let Some(requested) = facts.backlog.requested {
        evidence
            .push(from(count("backlog_requested", requested.into(), "connections"), "listen(2)"));
    }
    evidence.push(text("bound_by", binding.name()));
    Some(Diagnosis {
        cause: Cause::BacklogTooSmall,
        certainty: if is_certain { Certainty::Certain } else { Certainty::Likely },
        why,
        evidence,
        remedies: remedies(facts, binding, wanted),
        unknown,
    })
}

/// What made the queue's limit what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// listen(2)'s argument.
    Argument,
    /// somaxconn as it is.
    Somaxconn,
    /// somaxconn as it was when the program called listen(2): it was raised since.
    FormerSomaxconn,
    /// The argument or a former somaxconn.
    Unknown,
}

impl Binding {
    pub(super) fn of(limit: u32, backlog: Backlog) -> Self {
        match (backlog.requested, backlog.somaxconn) {
            // A negative argument is a very large one (net/socket.c __sys_listen_socket, v6.18).
            (Some(requested), Some(somaxconn)) if requested > limit && somaxconn > limit => {
                Self::FormerSomaxconn
            }
            (Some(requested), _) if requested > limit => Self::Somaxconn,
            (Some(_), _) => Self::Argument,
            (None, Some(somaxconn)) if somaxconn == limit => Self::Somaxconn,
            (None, _) => Self::Unknown,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Argument => "listen_argument",
            Self::Somaxconn => "somaxconn",
            Self::FormerSomaxconn => "somaxconn_at_listen",
            Self::Unknown => "unknown",
        }
    }

    fn words(self, limit: u32, backlog: Backlog) -> String {
        let now = backlog.somaxconn.map_or_else(String::new, |now| format!(" (now {now})"));
        match self {
            Self::Argument if backlog.somaxconn.is_some_and(|now| now > limit) => {
                format!(", as the program asked; {SOMAXCONN}{now} would give more")
            }
            Self::Argument => format!(
                ", as the program asked{}",
                if now.is_empty() {
                    String::new()
                } else {
                    format!("; {SOMAXCONN}{now} gives no more")
                }
            ),
            Self::Somaxconn => format!(": {SOMAXCONN}{now} gives no more"),
            Self::FormerSomaxconn => format!(
                ": {SOMAXCONN} was raised{now} after the program called listen(2), which \
                 keeps what it was given"
            ),
            // The smaller one of the two, of that time.
            Self::Unknown => {
                format!(": listen(2) was called with {limit}, or {SOMAXCONN} was {limit} then{now}")
            }
        }
    }
}

/// What dates tell of a listen(2) that nobody saw.
#[derive(Clone, Debug)]
struct Inferred {
    binding: Binding,
    /// The line that sets somaxconn at boot.
    place: String,
    configured: u64,
}

impl Inferred {
    fn of(facts: &QueueFacts<'_>, binding: Binding) -> Option<Self> {
        let provenance = facts.provenance.filter(|_| binding == Binding::Unknown)?;
        let configured = provenance.system.somaxconn.as_ref()?;
        // Configuration is for the first network namespace.
        let is_here = facts.listener.netns.is_some() && facts.listener.netns == facts.own_netns;
        let now = facts.backlog.somaxconn.map(u64::from);
        let is_more = u64::from(facts.queue.limit) < configured.value;
        if !is_here || now != Some(configured.value) || !is_more {
            return None;
        }
        let started = provenance.chain.first()?.started_at?;
        // Dates of starts are cut to a second.
        let started = started + Duration::from_secs(1);
        let is_later = configured.file.modified? > started;
        Some(Self {
            binding: if is_later { Binding::FormerSomaxconn } else { Binding::Argument },
            place: at(&configured.file),
            configured: configured.value,
        })
    }

    fn words(&self, limit: u32) -> String {
        let Self { binding, place, configured } = self;
        match binding {
            Binding::FormerSomaxconn => format!(
                ": the program started before {place} was changed to {SOMAXCONN} = {configured}, \
                 and a listener keeps what it was given, it seems"
            ),
            _ => format!(
                ": listen(2) was called with {limit}, it seems, for {place} gave {SOMAXCONN} = \
                 {configured} before the program started"
            ),
        }
    }
}

fn remedies(facts: &QueueFacts<'_>, binding: Binding, wanted: u32) -> Vec<Remedy> {
    let owner = facts.owners.first();
    let is_somaxconn_short = facts.backlog.somaxconn.is_none_or(|somaxconn| somaxconn < wanted);
    let mut remedies = Vec::new();
    if is_somaxconn_short {
        let place = Place::of(facts.listener.netns, facts.own_netns, owner);
        remedies.extend(place.set(SOMAXCONN, wanted, "90-somaxconn.conf"));
    }
    let setting = owner.and_then(Setting::of);
    match (binding, setting) {
        (Binding::Argument | Binding::Unknown, Some(setting)) => {
            let text = format!("{}, then {}", setting.text(wanted), setting.apply);
            remedies.push(remedy(When::ForGood, text, None));
        }
        (Binding::Argument | Binding::Unknown, None) => {
            let text = format!(
                "have the program ask for more in listen(2), {wanted} or so (its setting is mostly \
                 called backlog), then restart it"
            );
            remedies.push(remedy(When::ForGood, text, None));
        }
        (Binding::Somaxconn | Binding::FormerSomaxconn, _) => {
            remedies.push(listen_again(owner));
        }
    }
    remedies
}

/// The sysctl is right by now.
pub(super) fn listen_again(owner: Option<&Process>) -> Remedy {
    let text = "restart the program, for a listener keeps the limit of its listen(2)";
    remedy(When::ForGood, text, restart(owner))
}

fn restart(owner: Option<&Process>) -> Option<String> {
    let unit = owner?.unit.as_deref()?;
    (unit.ends_with(".service") && is_plain(unit)).then(|| format!("systemctl restart {unit}"))
}

/// Where a well-known program has its backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    comm: &'static str,
    /// `{}` stands for the number.
    pattern: &'static str,
    apply: &'static str,
}

impl Setting {
    const KNOWN: [Self; 14] = [
        Self::new(
            "nginx",
            "add backlog={} to its listen directive in nginx.conf",
            "nginx -s reload",
        ),
        Self::new("redis-server", "set tcp-backlog {} in redis.conf", RESTART),
        Self::new("valkey-server", "set tcp-backlog {} in valkey.conf", RESTART),
        Self::new("haproxy", "add backlog {} to its frontend in haproxy.cfg", "reload it"),
        Self::new("apache2", "set ListenBacklog {} in apache2.conf", RESTART),
        Self::new("httpd", "set ListenBacklog {} in httpd.conf", RESTART),
        Self::new("php-fpm", "set listen.backlog = {} in its pool's configuration", RESTART),
        Self::new("mysqld", "set back_log = {} in my.cnf", RESTART),
        Self::new("mariadbd", "set back_log = {} in my.cnf", RESTART),
        Self::new("memcached", "start it with -b {}", RESTART),
        Self::new("gunicorn", "start it with --backlog {}", RESTART),
        Self::new("uwsgi", "start it with --listen {}", RESTART),
        Self::new("node", "pass { backlog: {} } to server.listen()", RESTART),
        Self::new("systemd", "set Backlog={} in its .socket unit", "restart that unit"),
    ];

    const fn new(comm: &'static str, pattern: &'static str, apply: &'static str) -> Self {
        Self { comm, pattern, apply }
    }

    /// By the process's name.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let comm = process.comm.to_text();
        // php-fpm8.2, php-fpm: pool www
        let is = |setting: &&Self| {
            comm == setting.comm || (setting.comm == "php-fpm" && comm.starts_with("php-fpm"))
        };
        Self::KNOWN.iter().find(is).copied()
    }

    fn text(self, wanted: u32) -> String {
        // The last pair of braces, for node has others.
        match self.pattern.rfind("{}") {
            Some(at) => {
                let (before, after) = self.pattern.split_at(at);
                format!("{before}{wanted}{}", &after[2..])
            }
            None => self.pattern.to_owned(),
        }
    }
}

const RESTART: &str = "restart it";
