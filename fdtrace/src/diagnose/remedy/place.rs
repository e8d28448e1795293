//! What to write where, for each kind of setting.

use std::fmt::Write as _;

use super::{path, remedy, replace, within};
use crate::{
    diagnose::{
        Bite, Failed, LimitFacts, number,
        words::{at, name, quoted},
    },
    model::{
        Ancestor, ContainerRuntime, FileFact, Limit, Manager, Place, Program, Provenance, Remedy,
        Role, Setting, SettingSource, Unit, When,
    },
};

pub(super) fn of_setting(
    process: &Ancestor,
    above: Option<&Ancestor>,
    own: &Ancestor,
    setting: &Setting,
    target: u64,
    bite: Bite,
) -> Option<Remedy> {
    match &setting.source {
        // These need more than their own process.
        SettingSource::Own { .. } | SettingSource::RunScript => None,
        SettingSource::Minfds { program } => {
            // It gives up its privileges first, and does not start where minfds is above what it
            // may have (supervisor/supervisord.py main).
            let hard = process.limits.map(|limits| number(limits.hard));
            let most = hard.filter(|_| process.may_raise_hard == Some(false));
            let target = target.min(most.unwrap_or(u64::MAX));
            let helps = target > bite.soft;
            helps.then(|| minfds(process, own, setting, program.as_deref(), target))
        }
        SettingSource::Login { user } => Some(login(process, above, own, setting, user, target)),
        SettingSource::Container { runtime, id }
        | SettingSource::ContainerDefault { runtime, id } => Some(container(*runtime, id, target)),
        SettingSource::Unit(unit) | SettingSource::UnitDefault(unit) => {
            Some(of_unit(process, own, unit, setting, target, bite))
        }
    }
}

pub(super) fn of_program(
    facts: &LimitFacts<'_>,
    setting: &Setting,
    program: Program,
    target: u64,
    bite: Bite,
) -> Option<Remedy> {
    let provenance = facts.provenance;
    let own = provenance.chain.first()?;
    // A worker of nginx sets its limit with the privileges that its master still has.
    let master = provenance.chain.get(1).filter(|parent| parent.comm == own.comm).unwrap_or(own);
    let most =
        master.limits.filter(|_| program == Program::Nginx && master.may_raise_hard == Some(false));
    let mut target = target.min(most.map_or(u64::MAX, |limits| number(limits.hard)));
    // Redis raises its limit as the user that it runs as, and the hard one with it: as high as that
    // is, it was given so much, or has set it itself.
    let is_bound = program == Program::Redis && own.may_raise_hard == Some(false);
    if is_bound && bite.soft < bite.hard {
        target = target.min(bite.hard);
    } else if is_bound {
        if is_given(provenance, bite) {
            return None;
        }
        target = within(own, provenance.chain.get(1), target, bite);
    }
    if target <= bite.soft {
        return None;
    }
    let directive = program.directive();
    let mut reload = format!("kill -HUP {}", master.id.pid);
    let mut why = "";
    // The master tells of new workers by passing descriptors, and a worker that has no room for one
    // hears nothing from it any more, not even that it shall end (os/unix/ngx_channel.c
    // ngx_read_channel, nginx 1.22).
    if facts.failed != Failed::Nothing && master.id != own.id {
        let _ = write!(reload, " && kill -QUIT {}", own.id.pid);
        why = "; a worker without a free descriptor cannot hear of a reload, and is told itself";
    }
    let (value, then) = match program {
        Program::Nginx => (
            format!("{directive} {target};"),
            format!("then reload nginx, no restart: {reload}{why}"),
        ),
        Program::Redis => (
            format!("{directive} {}", target.saturating_sub(super::REDIS_RESERVED)),
            if is_bound && bite.soft == bite.hard {
                format!(
                    "then restart it, with a hard limit of at least {target}: it needs 32 \
                     descriptors beside those of its clients"
                )
            } else {
                "then restart it; it needs 32 descriptors beside those of its clients".into()
            },
        ),
        Program::Haproxy => (format!("{directive} {target}"), "then restart HAProxy".into()),
        Program::Mysql => (format!("{directive}={target}"), "then restart the server".into()),
    };
    let file = match &setting.place {
        Place::File(file) | Place::BuiltIn(Some(file)) => file,
        Place::CommandLine | Place::BuiltIn(None) => {
            let place = match setting.place {
                Place::CommandLine => "on its command line",
                _ => "in its configuration",
            };
            let text = format!("set \"{value}\" {place}, {then}");
            return Some(remedy(When::ForGood, text, None));
        }
    };
    let is_there = matches!(setting.place, Place::File(_));
    let text = format!("write \"{value}\" to {}, {then}", at(file));
    let edit = match (is_there, program) {
        (true, _) => replace(file, &value),
        // The first line is outside of all blocks.
        (false, Program::Nginx) => {
            Some(format!("sed -i {} {}", quoted(&format!("1i {value}")), path(file)))
        }
        (false, _) => None,
    };
    let command = edit.map(|edit| match program {
        Program::Nginx => format!("{edit} && {reload}"),
        _ => edit,
    });
    Some(remedy(When::ForGood, text, command.filter(|_| own.container.is_none())))
}

/// Whether the process has its limit from its parent, or from a setting of somebody else.
fn is_given(provenance: &Provenance, bite: Bite) -> bool {
    let has = |limit: Option<Limit>| limit.is_some_and(|limit| number(limit) == bite.soft);
    let parent = provenance.chain.get(1).and_then(|parent| parent.limits);
    let mut settings = provenance.chain.first().into_iter().flat_map(|own| &own.settings);
    has(parent.map(|limits| limits.hard))
        || settings.any(|setting| {
            !matches!(setting.source, SettingSource::Own { .. }) && has(setting.hard)
        })
}

fn minfds(
    process: &Ancestor,
    own: &Ancestor,
    setting: &Setting,
    program: Option<&str>,
    target: u64,
) -> Remedy {
    let supervisord = name(process);
    let child = program.map_or_else(|| name(own), str::to_owned);
    let restart = format!(
        "then restart {supervisord} itself, and {child} with it: it sets limits only when it starts, and \
         neither \"supervisorctl reload\" nor \"update\" does"
    );
    let value = format!("minfds={target}");
    let service = process.unit.as_ref().filter(|unit| unit.is_service());
    let (text, edit) = match &setting.place {
        Place::File(file) => {
            (format!("write {value} to {}, {restart}", at(file)), replace(file, &value))
        }
        Place::BuiltIn(Some(file)) => {
            let text = format!(
                "write {value} to {}, section [supervisord], {restart}",
                file.path.display()
            );
            let edit = file.line.map(|line| {
                format!("sed -i {} {}", quoted(&format!("{line}a {value}")), path(file))
            });
            (text, edit)
        }
        Place::CommandLine | Place::BuiltIn(None) => {
            (format!("start supervisord with --minfds={target}, {restart}"), None)
        }
    };
    let command = edit.map(|edit| match service {
        Some(unit) => format!("{edit} && {}", restart_of(unit)),
        None => edit,
    });
    remedy(When::ForGood, text, command.filter(|_| process.container.is_none()))
}

/// A supervisor runs its script anew with each start of the service; any other has to be started
/// again. `above` is the parent of the process.
pub(super) fn run_script(
    process: &Ancestor,
    above: Option<&Ancestor>,
    setting: &Setting,
    target: u64,
    bite: Bite,
) -> Option<Remedy> {
    let target = within(process, above, target, bite);
    let who = name(process);
    let (text, edit, file) = match &setting.place {
        Place::File(file) => {
            let text = format!("raise the limit in {} to {target}", at(file));
            (text, replace_number(file, setting, target), file)
        }
        Place::BuiltIn(Some(file)) => {
            let file_name = file.path.display();
            let text = format!("put \"ulimit -n {target}\" before the last line of {file_name}");
            (text, None, file)
        }
        Place::CommandLine | Place::BuiltIn(None) => return None,
    };
    let (then, command) = match restart_of_script(file, above) {
        Some(restart) => {
            let command = edit.map(|edit| format!("{edit} && {restart}"));
            (format!("then restart {who}: {restart}"), command)
        }
        None => (format!("then end {who} and start it again"), edit),
    };
    let command = command.filter(|_| process.container.is_none());
    Some(remedy(When::ForGood, format!("{text}, {then}"), command))
}

/// How a supervisor runs its script again.
pub(in crate::diagnose) fn restart_of_script(
    script: &FileFact,
    supervisor: Option<&Ancestor>,
) -> Option<String> {
    let dir = quoted(&script.path.parent()?.to_string_lossy());
    match supervisor?.role {
        Role::Runsv => Some(format!("sv restart {dir}")),
        Role::S6Supervise => Some(format!("s6-svc -r {dir}")),
        _ => None,
    }
}

/// Puts another number into the line that has the limit.
fn replace_number(file: &FileFact, setting: &Setting, target: u64) -> Option<String> {
    let limit = number(setting.soft.or(setting.hard)?);
    // "unlimited" is none to raise.
    let limit = Some(limit).filter(|limit| *limit < u64::MAX)?;
    let script = format!(r"{}s/\b{limit}\b/{target}/", file.line?);
    Some(format!("sed -i {} {}", quoted(&script), path(file)))
}

fn login(
    process: &Ancestor,
    above: Option<&Ancestor>,
    own: &Ancestor,
    setting: &Setting,
    user: &str,
    target: u64,
) -> Remedy {
    let file = match &setting.place {
        Place::File(file) => at(file),
        _ => "/etc/security/limits.conf".into(),
    };
    let path = "/etc/security/limits.d/zz-nofile.conf";
    let line = format!("{user} - nofile {target}");
    let then = match next_run(above, own) {
        Some(next) => format!("then {next}"),
        None => format!("then log in again and start {} from there", name(process)),
    };
    let text = format!("write \"{line}\" to {path}, which is read after {file}, {then}");
    let line = quoted(&line);
    remedy(When::ForGood, text, Some(format!("echo {line} >> {path}")))
}

fn container(runtime: ContainerRuntime, id: &str, target: u64) -> Remedy {
    let short = id.get(..12).unwrap_or(id);
    let text = match runtime {
        ContainerRuntime::Docker => format!(
            "create the container {short} anew with --ulimit nofile={target}:{target} (ulimits in \
             a compose file), or set \"default-ulimits\" in /etc/docker/daemon.json, restart \
             Docker, and create it anew"
        ),
        ContainerRuntime::Podman => format!(
            "create the container {short} anew with --ulimit nofile={target}:{target}, or set \
             default_ulimits in /etc/containers/containers.conf"
        ),
        ContainerRuntime::Crio => format!(
            "set default_ulimits = [\"nofile={target}:{target}\"] in /etc/crio/crio.conf, restart \
             crio, and delete the pod so that it is created anew"
        ),
        ContainerRuntime::Kubernetes | ContainerRuntime::Containerd => format!(
            "set LimitNOFILE={target} for containerd.service (systemctl edit containerd), restart \
             it, and have the container {short} created anew: containers inherit its limit"
        ),
    };
    remedy(When::ForGood, text, None)
}

/// How a job of cron's has what was set since it started: nobody starts it again for that.
pub(in crate::diagnose) fn next_run(cron: Option<&Ancestor>, own: &Ancestor) -> Option<String> {
    let cron = cron.filter(|cron| cron.role == Role::Cron && cron.id != own.id)?;
    let (cron, own) = (cron.comm.to_text(), name(own));
    Some(format!("end {own}, or wait for its end: {cron} gives its next run the new limit"))
}

fn of_unit(
    process: &Ancestor,
    own: &Ancestor,
    unit: &Unit,
    setting: &Setting,
    target: u64,
    bite: Bite,
) -> Remedy {
    // A hard limit that is higher stays.
    let hard = bite.hard.max(target);
    let value = if hard == target {
        format!("LimitNOFILE={target}")
    } else {
        format!(
            "LimitNOFILE={target}:{}",
            if hard == u64::MAX { "infinity".into() } else { hard.to_string() }
        )
    };
    let shim = process.role == Role::ContainerdShim;
    let then = if shim {
        "and create the container anew: its shim keeps the limit it was started with".to_owned()
    } else if let Some(next) = next_run(Some(process), own) {
        format!("and {next}")
    } else {
        "which restarts this process".to_owned()
    };
    let restart = restart_of(unit);
    let edit = match (&setting.source, &setting.place) {
        // What an administrator wrote is changed where it is; what a package installed is not.
        (SettingSource::Unit(_), Place::File(file)) if file.path.starts_with("/etc") => {
            let text = format!("write {value} to {}, then {restart}, {then}", at(file));
            let command = replace(file, &value).map(|edit| format!("{edit} && {restart}"));
            return remedy(When::ForGood, text, command);
        }
        (SettingSource::Unit(_), Place::File(file)) => file.path.file_name(),
        _ => None,
    };
    // Drop-ins are read in the order of their names.
    let governing = edit.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_drop_in = std::path::Path::new(&governing).extension().is_some_and(|e| e == "conf");
    let names = ["nofile.conf", "zz-nofile.conf", "zzzz-nofile.conf"];
    let drop_in =
        names.into_iter().find(|name| !is_drop_in || **name > *governing).unwrap_or(names[2]);
    let base = match unit.manager {
        Manager::System => "/etc/systemd/system",
        Manager::User(_) => "/etc/systemd/user",
    };
    let dir = format!("{base}/{}.d", unit.name);
    let text = format!(
        "set {value} for {} (systemctl edit {}), then {restart}, {then}",
        unit.name, unit.name
    );
    let dir = quoted(&dir);
    let command =
        format!("mkdir -p {dir} && printf '[Service]\\n{value}\\n' > {dir}/{drop_in} && {restart}");
    remedy(When::ForGood, text, Some(command))
}

/// How a unit is loaded and started again.
pub(in crate::diagnose) fn restart_of(unit: &Unit) -> String {
    let user = match unit.manager {
        Manager::System => "",
        Manager::User(_) => "--user ",
    };
    format!("systemctl {user}daemon-reload && systemctl {user}restart {}", quoted(&unit.name))
}
