//! `LimitNOFILE=` of a unit, as systemd would load it now from its files.
//!
//! What the manager has loaded can be older than the files: that is for the diagnosis to say, from
//! the dates.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::root::{Root, Text};
use crate::model::{FdLimits, FileFact, Limit, Manager, Place, Setting, SettingSource, Unit};

/// What a unit's files say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnitFacts {
    pub(super) settings: Vec<Setting>,
    /// `PAMName=`: a service that opens a session, so that PAM's limits apply to it after all.
    pub(super) pam_name: Option<String>,
    pub(super) unknown: Vec<String>,
}

/// Reads a unit's files. `home` is that of the user whose manager runs it.
pub(super) fn unit(root: &Root, unit: &Unit, home: Option<&Path>) -> UnitFacts {
    let mut facts = UnitFacts::default();
    let paths = unit_paths(unit.manager, home);
    let names = names(&unit.name);
    let files = unit_files(root, &paths, &names, &mut facts.unknown);
    let found_any = !files.is_empty();
    let mut limit = None;
    for file in &files {
        for assignment in assignments(&file.text, "Service") {
            match assignment.key {
                "LimitNOFILE" => {
                    if let Some(limits) = parse_limits(assignment.value) {
                        limit = Some((limits, file.at(assignment.line)));
                    }
                }
                "PAMName" => {
                    let name = assignment.value;
                    facts.pam_name = (!name.is_empty()).then(|| name.to_owned());
                }
                _ => {}
            }
        }
    }
    if !found_any {
        facts.unknown.push(format!("found no unit file of {}", unit.name));
        return facts;
    }
    let setting = limit.map_or_else(
        || manager_default(root, unit, home, &mut facts.unknown),
        |(limits, file)| {
            let source = SettingSource::Unit(unit.clone());
            Some(setting(source, limits, Place::File(file)))
        },
    );
    facts.settings.extend(setting);
    facts
}

fn setting(source: SettingSource, limits: FdLimits, place: Place) -> Setting {
    Setting { source, soft: Some(limits.soft), hard: Some(limits.hard), place }
}

/// Since v240 (src/core/main.c): the kernel's soft limit, and a hard one of 512 × 1024. A user's
/// manager gives what it has itself.
const BUILT_IN: FdLimits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(512 * 1024) };

fn manager_default(
    root: &Root,
    unit: &Unit,
    home: Option<&Path>,
    unknown: &mut Vec<String>,
) -> Option<Setting> {
    let name = match unit.manager {
        Manager::System => "system.conf",
        Manager::User(_) => "user.conf",
    };
    let mut dirs: Vec<PathBuf> = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"]
        .iter()
        .map(|dir| Path::new(dir).join("systemd"))
        .collect();
    if let (Manager::User(_), Some(home)) = (unit.manager, home) {
        dirs.insert(0, home.join(".config/systemd"));
    }
    let main = dirs.iter().find_map(|dir| read(root, &dir.join(name), unknown));
    let drop_in_dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(format!("{name}.d"))).collect();
    let drop_ins = drop_ins(root, &drop_in_dirs, unknown);
    let mut limit = None;
    for file in main.iter().chain(&drop_ins) {
        for assignment in assignments(&file.text, "Manager") {
            if assignment.key == "DefaultLimitNOFILE"
                && let Some(limits) = parse_limits(assignment.value)
            {
                limit = Some((limits, file.at(assignment.line)));
            }
        }
    }
    let source = SettingSource::UnitDefault(unit.clone());
    match (limit, unit.manager) {
        (Some((limits, file)), _) => Some(setting(source, limits, Place::File(file))),
        (None, Manager::System) => {
            let file: Option<FileFact> = main.map(|file| file.fact);
            Some(setting(source, BUILT_IN, Place::BuiltIn(file)))
        }
        (None, Manager::User(_)) => None,
    }
}

/// systemd.unit(5), the one that wins first.
fn unit_paths(manager: Manager, home: Option<&Path>) -> Vec<PathBuf> {
    match manager {
        Manager::System => [
            "/etc/systemd/system.control",
            "/run/systemd/system.control",
            "/run/systemd/transient",
            "/run/systemd/generator.early",
            "/etc/systemd/system",
            "/etc/systemd/system.attached",
            "/run/systemd/system",
            "/run/systemd/system.attached",
            "/run/systemd/generator",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
            "/run/systemd/generator.late",
        ]
        .iter()
        .map(PathBuf::from)
        .collect(),
        Manager::User(uid) => {
            let runtime = PathBuf::from(format!("/run/user/{uid}/systemd"));
            let in_home = |path: &str| home.map(|home| home.join(path));
            let in_runtime = |path: &str| Some(runtime.join(path));
            let plain = |path: &str| Some(PathBuf::from(path));
            [
                in_home(".config/systemd/user.control"),
                in_runtime("user.control"),
                in_runtime("transient"),
                in_runtime("generator.early"),
                in_home(".config/systemd/user"),
                plain("/etc/systemd/user"),
                in_runtime("user"),
                plain("/run/systemd/user"),
                in_runtime("generator"),
                in_home(".local/share/systemd/user"),
                plain("/usr/local/lib/systemd/user"),
                plain("/usr/lib/systemd/user"),
                plain("/lib/systemd/user"),
                in_runtime("generator.late"),
            ]
            .into_iter()
            .flatten()
            .collect()
        }
    }
}

/// The names whose drop-in directories apply, the most specific first: for `a-b@c.service` its
/// own, `a-b@.service`, `a-@c.service`, `a-@.service` (src/shared/dropin.c).
fn names(unit: &str) -> Vec<String> {
    let Some((stem, kind)) = unit.rsplit_once('.') else {
        return vec![unit.to_owned()];
    };
    let (prefix, instance) = match stem.split_once('@') {
        Some((prefix, instance)) => (prefix, Some(instance)),
        None => (stem, None),
    };
    let mut names = Vec::new();
    let mut prefix = prefix.to_owned();
    loop {
        match instance {
            Some("") => names.push(format!("{prefix}@.{kind}")),
            Some(instance) => {
                names.push(format!("{prefix}@{instance}.{kind}"));
                names.push(format!("{prefix}@.{kind}"));
            }
            None => names.push(format!("{prefix}.{kind}")),
        }
        let shorter = prefix.strip_suffix('-').unwrap_or(&prefix).rfind('-');
        match shorter {
            None | Some(0) => return names,
            Some(dash) => prefix.truncate(dash + 1),
        }
    }
}

/// The unit's file and its drop-ins, the one that wins last.
fn unit_files(
    root: &Root,
    paths: &[PathBuf],
    names: &[String],
    unknown: &mut Vec<String>,
) -> Vec<Text> {
    let mut files = Vec::new();
    // The unit's own name in every directory, then its template's.
    let own = names.iter().take(2).filter(|name| *name == &names[0] || is_template(name, names));
    for name in own {
        let candidate = paths
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| root.exists(path) || is_masked(root, path));
        if let Some(path) = candidate {
            let is_masked = is_masked(root, &path);
            files.extend((!is_masked).then(|| read(root, &path, unknown)).flatten());
            break;
        }
    }
    let mut dirs = Vec::new();
    for path in paths {
        dirs.extend(names.iter().map(|name| path.join(format!("{name}.d"))));
    }
    // Of every service, the most general last.
    if let Some((_, kind)) = names.first().and_then(|name| name.rsplit_once('.')) {
        dirs.extend(paths.iter().map(|path| path.join(format!("{kind}.d"))));
    }
    files.extend(drop_ins(root, &dirs, unknown));
    files
}

/// Whether the second of the names is the first one's template.
fn is_template(name: &str, names: &[String]) -> bool {
    name.contains("@.") && names[0].contains('@')
}

fn is_masked(root: &Root, path: &Path) -> bool {
    root.link(path).is_some_and(|target| target == Path::new("/dev/null"))
}

/// `*.conf` of several directories in the order of their names; of files with the same name the
/// one in the first directory counts, also where it is masked or empty.
fn drop_ins(root: &Root, dirs: &[PathBuf], unknown: &mut Vec<String>) -> Vec<Text> {
    let mut by_name: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for dir in dirs {
        let names = root.list(dir).unwrap_or_else(|error| {
            unknown.push(error);
            Vec::new()
        });
        for name in names {
            if Path::new(&name).extension().is_some_and(|extension| extension == "conf") {
                let path = dir.join(&name);
                by_name.entry(name).or_insert(path);
            }
        }
    }
    let unmasked = by_name.values().filter(|path| !is_masked(root, path));
    unmasked.filter_map(|path| read(root, path, unknown)).collect()
}

fn read(root: &Root, path: &Path, unknown: &mut Vec<String>) -> Option<Text> {
    root.read(path).unwrap_or_else(|error| {
        unknown.push(error);
        None
    })
}

/// `KEY=VALUE` of a section.
struct Assignment<'a> {
    /// From 0.
    line: usize,
    key: &'a str,
    value: &'a str,
}

/// systemd.syntax(7), as far as settings on one line go: the values wanted here are short.
fn assignments<'a>(text: &'a str, section: &str) -> Vec<Assignment<'a>> {
    let mut found = Vec::new();
    let mut is_in_section = false;
    let mut is_continued = false;
    for (line, text) in text.lines().enumerate() {
        let text = text.trim();
        let was_continued = is_continued;
        if text.starts_with(['#', ';']) {
            continue;
        }
        is_continued = text.ends_with('\\');
        if was_continued {
            continue;
        }
        if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            is_in_section = name == section;
        } else if is_in_section && let Some((key, value)) = text.split_once('=') {
            found.push(Assignment { line, key: key.trim_end(), value: value.trim_start() });
        }
    }
    found
}

/// `rlimit_parse()` of src/basic/rlimit-util.c: `N`, `SOFT:HARD`, `infinity`, no suffixes. Anything
/// else, an empty value too, is ignored by systemd and leaves what was set before.
fn parse_limits(value: &str) -> Option<FdLimits> {
    let one = |text: &str| match text {
        "infinity" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::from_rlim),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let limits = FdLimits { soft: one(soft)?, hard: one(hard)? };
    let number = |limit: Limit| limit.number().unwrap_or(u64::MAX);
    (number(limits.soft) <= number(limits.hard)).then_some(limits)
}

#[cfg(test)]
mod tests;
