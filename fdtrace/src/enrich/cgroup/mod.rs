//! The text of `/proc/PID/cgroup` → systemd unit, user slice, container and pod.
//!
//! Pure. A name that no runtime is known to write is not guessed at: it stays `None`.

mod container;
mod pod;

use crate::model::Placement;

/// Reads the lines `ID:CONTROLLERS:PATH` of `/proc/PID/cgroup`, cgroup v1, v2 or both.
#[must_use]
pub fn placement(text: &str) -> Placement {
    let mut lines: Vec<Line<'_>> = text.lines().filter_map(Line::parse).collect();
    lines.sort_by_key(|line| line.rank);
    let all: Vec<Placement> = lines.iter().map(|line| of_path(line.path)).collect();
    // The unit comes from the hierarchy that knows the container: on hybrid hosts the others say
    // only which service started the container's runtime.
    let in_container = all.iter().find(|placement| placement.container.is_some());
    let in_unit = || all.iter().find(|placement| placement.unit.is_some());
    in_container.or_else(in_unit).cloned().unwrap_or_default()
}

struct Line<'a> {
    /// Lower is asked first.
    rank: u8,
    path: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let rank = match (id, controllers) {
            // Where systemd keeps a v1 hierarchy of its own, that one is always right; v2 beside
            // it may be mounted and unused.
            (_, "name=systemd") => 0,
            ("0", "") => 1,
            _ => 2,
        };
        // kernel/cgroup/cgroup.c proc_cgroup_show() marks a cgroup that was removed.
        Some(Self { rank, path: path.strip_suffix(" (deleted)").unwrap_or(path) })
    }
}

/// From inside a cgroup namespace the path of what is outside of it starts with `..`
/// (fs/kernfs/dir.c `kernfs_path_from_node`), and that of its root is `/`: it tells less then.
fn of_path(path: &str) -> Placement {
    let components: Vec<&str> = path.split('/').collect();
    let containers: Vec<_> = container::all(&components).collect();
    let outermost = containers.first().map_or(components.len(), |(place, _)| *place);
    let host = &components[..outermost];
    let innermost = containers.into_iter().next_back();
    Placement {
        unit: unit(host),
        user_slice: user_slice(host),
        pod: innermost.as_ref().and_then(|(place, _)| pod::around(&components[..=*place])),
        container: innermost.map(|(_, container)| container),
    }
}

fn unit(components: &[&str]) -> Option<String> {
    let mut units = components.iter().rev().filter(|component| {
        ["service", "scope"].iter().any(|kind| {
            component
                .rsplit_once('.')
                .is_some_and(|(name, suffix)| suffix == *kind && !name.is_empty())
        })
    });
    let innermost = units.next()?;
    // A service manager keeps itself in an init.scope below the unit that runs it
    // (user@1000.service), and that unit says more.
    let unit =
        if *innermost == "init.scope" { units.next().unwrap_or(innermost) } else { innermost };
    Some(unescaped(unit).to_owned())
}

/// `user-1000.slice`: logind has one for each user who is there.
fn user_slice(components: &[&str]) -> Option<String> {
    let is_one = |component: &&&str| {
        let uid = component.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
        uid.is_some_and(|uid| uid.parse::<u32>().is_ok())
    };
    components.iter().find(is_one).map(|slice| (*slice).to_owned())
}

/// systemd's `cg_escape()` puts a `_` before names that the kernel might use itself.
fn unescaped(component: &str) -> &str {
    component.strip_prefix('_').unwrap_or(component)
}

#[cfg(test)]
mod tests;
