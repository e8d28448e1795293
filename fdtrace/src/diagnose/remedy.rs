//! What to do about a low limit: now, and for good.

mod place;

pub(super) use self::place::{next_run, restart_of, restart_of_script};
use self::place::{of_program, of_setting, run_script};
use super::{
    Bite, LimitFacts,
    words::{at, name, quoted},
};
use crate::model::{
    Ancestor, ConfiguredSysctl, FileFact, Program, Provenance, Remedy, Role, Runtime,
    SettingSource, When,
};

/// Enough for a server where nothing says how many it needs.
pub(super) const ENOUGH: u64 = 65_536;

/// The limit to ask for: `wanted` where a setting says so, else generous.
pub(super) fn target(provenance: &Provenance, bite: Bite, wanted: Option<u64>) -> u64 {
    let generous = if bite.soft < ENOUGH / 2 { ENOUGH } else { bite.soft.saturating_mul(4) };
    let most = provenance.system.nr_open.value.unwrap_or(u64::MAX);
    wanted.unwrap_or(generous).min(most)
}

/// Without a restart.
pub(super) fn now(facts: &LimitFacts<'_>, bite: Bite, wanted: Option<u64>) -> Vec<Remedy> {
    let provenance = facts.provenance;
    let Some(own) = provenance.chain.first() else { return Vec::new() };
    let target = target(provenance, bite, wanted);
    let mut remedies = Vec::new();
    let note = caches(&provenance.runtime);
    let mut mildest = None;
    if bite.soft < bite.hard {
        // A hard limit of millions is no reason to take all of it.
        let soft = if bite.hard <= ENOUGH { bite.hard } else { bite.hard.min(target) };
        let most = super::limit(bite.hard);
        remedies.push(remedy(
            When::Now,
            format!("raise its soft limit to {soft}, no restart; its hard limit is {most}{note}"),
            Some(format!("prlimit --pid {} --nofile={soft}:", own.id.pid)),
        ));
        mildest = Some(soft);
    }
    if bite.hard < target {
        let hard = format!(
            "raise both its limits to {target}, no restart; above its hard limit that needs \
             CAP_SYS_RESOURCE in the initial user namespace{note}"
        );
        let command = format!("prlimit --pid {} --nofile={target}:{target}", own.id.pid);
        remedies.push(remedy(When::Now, hard, Some(command)));
        mildest = mildest.or(Some(target));
    }
    if provenance.runtime == Runtime::Program(Program::Redis) {
        remedies.extend(mildest.and_then(|limit| more_clients(own, limit)));
    }
    let supervisor = provenance.chain.iter().skip(1).find(|one| one.role.restarts_children());
    if let Some(supervisor) = supervisor
        // Where it has a higher one, what it starts is given less on the way.
        && supervisor.limits.is_some_and(|limits| super::number(limits.soft) <= bite.soft)
        && bite.soft < target
    {
        remedies.push(remedy(
            When::Now,
            format!(
                "raise the limits of {} too: then a restart of the program alone gives it the \
                 higher limit",
                name(supervisor)
            ),
            Some(format!("prlimit --pid {} --nofile={target}:{target}", supervisor.id.pid)),
        ));
    }
    remedies
}

/// For good, in the place that governs: the nearest setting that can give the process more.
pub(super) fn for_good(
    facts: &LimitFacts<'_>,
    bite: Bite,
    holder: usize,
    wanted: Option<u64>,
) -> Vec<Remedy> {
    let provenance = facts.provenance;
    let target = target(provenance, bite, wanted);
    let mut remedies = Vec::new();
    let ceiling = provenance.system.nr_open.value.unwrap_or(u64::MAX);
    if wanted.is_some_and(|wanted| wanted > ceiling) {
        remedies.push(remedy(
            When::ForGood,
            format!("no limit can be above fs.nr_open, which is {ceiling}: raise that first"),
            None,
        ));
    }
    for (at, process) in provenance.chain.iter().enumerate() {
        let above = provenance.chain.get(at + 1);
        // Above the holder, a setting is no use to the process: it would not inherit it.
        let settings = process.settings.iter().filter(|_| at <= holder);
        for setting in settings {
            let own = &provenance.chain[0];
            let found = match &setting.source {
                SettingSource::Own { program } => {
                    of_program(facts, setting, *program, target, bite)
                }
                SettingSource::RunScript => run_script(process, above, setting, target, bite),
                _ => of_setting(process, above, own, setting, target, bite),
            };
            if let Some(found) = found {
                remedies.push(found);
                return remedies;
            }
        }
    }
    let above = provenance.chain.get(holder + 1);
    let holder = provenance.chain.get(holder);
    remedies.extend(holder.map(|holder| by_hand(holder, within(holder, above, target, bite))));
    remedies
}

/// As much of the target as who may not raise its hard limit has from above. Where that is not more
/// than it has now, it has to come from there.
fn within(process: &Ancestor, above: Option<&Ancestor>, target: u64, bite: Bite) -> u64 {
    let may_not = process.may_raise_hard == Some(false);
    let most = above.filter(|_| may_not).and_then(|above| above.limits);
    let most = most.map(|limits| super::number(limits.hard)).filter(|most| *most > bite.soft);
    target.min(most.unwrap_or(u64::MAX))
}

/// Where no setting was found: whoever starts it must.
fn by_hand(holder: &Ancestor, target: u64) -> Remedy {
    let who = name(holder);
    let text = match holder.role {
        Role::Shell | Role::Multiplexer => {
            format!(
                "run \"ulimit -n {target}\" in the shell or script before it starts the program"
            )
        }
        Role::Pm2 => {
            format!("stop {who} with \"pm2 kill\" and start it again after \"ulimit -n {target}\"")
        }
        Role::Supervisord if holder.may_raise_hard != Some(false) => {
            format!("set minfds={target} in the configuration of {who}, then restart {who} itself")
        }
        _ => format!(
            "give {who} a limit of {target} where it is started: no setting that governs it was found"
        ),
    };
    remedy(When::ForGood, text, None)
}

/// What a program does with a limit that was raised under it.
fn caches(runtime: &Runtime) -> &'static str {
    match runtime {
        Runtime::Program(Program::Nginx) => {
            ". nginx also stops at worker_connections, and each proxied client takes two descriptors"
        }
        Runtime::Program(Program::Redis) => {
            ". Redis still turns away whoever is beyond its maxclients, and no failed call tells"
        }
        Runtime::Program(Program::Haproxy) => {
            ". HAProxy has sized its tables when it started: it needs a restart to use more"
        }
        Runtime::Program(Program::Mysql) => {
            ". The server has read its limit when it started: it needs a restart to use more"
        }
        Runtime::Java { .. } => {
            ". The Java VM has read its hard limit when it started: above that it may need a restart"
        }
        Runtime::Python => ". Code that uses select() stops at descriptor 1023 whatever the limit",
        _ => "",
    }
}

/// So many descriptors Redis wants beside those of its clients (src/server.h
/// `CONFIG_MIN_RESERVED_FDS`).
const REDIS_RESERVED: u64 = 32;

/// Redis fits maxclients to its limit when it starts, and never lifts it by itself.
fn more_clients(own: &Ancestor, limit: u64) -> Option<Remedy> {
    let clients = limit.checked_sub(REDIS_RESERVED).filter(|clients| *clients > 0)?;
    // Its title: "redis-server 127.0.0.1:6379".
    let title = own.cmdline.as_deref().unwrap_or_default().join(&b' ');
    let title = String::from_utf8_lossy(&title).into_owned();
    let mut words = title.split(' ').skip(1);
    let port = words.next().and_then(|word| word.rsplit(':').next()?.parse::<u16>().ok());
    let set = format!("config set maxclients {clients}");
    let command = port
        .filter(|port| *port > 0 && own.container.is_none())
        .map(|port| format!("redis-cli -p {port} {set}"));
    let text = format!(
        "then, for more clients than before, lift Redis's maxclients as well: redis-cli {set} (with \
         its address and password), before it is reached again: from then on Redis turns redis-cli \
         away too"
    );
    Some(remedy(When::Now, text, command))
}

/// Replaces a line of a file.
pub(super) fn replace(file: &FileFact, by: &str) -> Option<String> {
    let script = format!("{}s|.*|{by}|", file.line?);
    Some(format!("sed -i {} {}", quoted(&script), path(file)))
}

fn path(file: &FileFact) -> String {
    quoted(&file.path.to_string_lossy())
}

pub(super) fn remedy(when: When, text: String, command: Option<String>) -> Remedy {
    Remedy { when, text, command }
}

/// Sets a sysctl now, and for good.
pub(super) fn sysctl(key: &str, target: u64, configured: Option<&ConfiguredSysctl>) -> Vec<Remedy> {
    let now = remedy(
        When::Now,
        format!("raise {key} to {target}, no restart"),
        Some(format!("sysctl -w {key}={target}")),
    );
    let value = format!("{key} = {target}");
    let keep = if let Some(configured) = configured {
        let text = format!("write \"{value}\" to {}", at(&configured.file));
        remedy(When::ForGood, text, replace(&configured.file, &value))
    } else {
        let path = "/etc/sysctl.d/90-file-limits.conf";
        let command = format!("echo {} >> {path}", quoted(&value));
        remedy(When::ForGood, format!("write \"{value}\" to {path}"), Some(command))
    };
    vec![now, keep]
}
