//! The text of `/proc/PID/cgroup` → systemd unit and container id.
//!
//! Pure. A name that no runtime is known to write is not guessed at: it stays `None`.

/// Where a process stands in the cgroup tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The innermost systemd service or scope of the host.
    ///
    /// Units of a systemd inside a container are left out: the host does not know them, and the
    /// limits that a remedy would change are the host's.
    pub unit: Option<String>,
    /// The full id of the innermost container.
    pub container: Option<String>,
}

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

fn of_path(path: &str) -> Placement {
    let components: Vec<&str> = path.split('/').collect();
    let outermost = components.iter().position(|component| container_id(component).is_some());
    let host = &components[..outermost.unwrap_or(components.len())];
    let innermost = components.iter().rev().find_map(|component| container_id(component));
    Placement { unit: unit(host), container: innermost.map(str::to_owned) }
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
    // systemd's cg_escape() puts a '_' before names that the kernel might use itself.
    Some(unit.strip_prefix('_').unwrap_or(unit).to_owned())
}

/// What runtimes put before the id: Docker, containerd's CRI plugin, CRI-O, Podman, nerdctl.
///
/// `crio-conmon-` and `libpod-conmon-` are missing on purpose: conmon watches the container from
/// outside of it.
const PREFIXES: [&str; 6] =
    ["docker-", "cri-containerd-", "crio-", "libpod-payload-", "libpod-", "nerdctl-"];

/// The container id that a component of a cgroup path is named after.
fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    // `SLICE:cri-containerd:ID`: containerd told to use systemd's names with the cgroupfs driver.
    let name = name.rsplit_once(':').map_or(name, |(_, last)| last);
    let id = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
    const OTHER: &str = "0011223344556677889900aabbccddeeff00112233445566778899aabbccddee";

    #[track_caller]
    fn check(text: &str, unit: Option<&str>, container: Option<&str>) {
        let text = text.replace("<ID>", ID).replace("<OTHER>", OTHER);
        let found = placement(&text);
        assert_eq!(
            (found.unit.as_deref(), found.container.as_deref()),
            (unit, container),
            "{text}"
        );
    }

    #[test]
    fn systemd_units() {
        check("0::/system.slice/nginx.service\n", Some("nginx.service"), None);
        check("0::/system.slice/nginx.service/worker\n", Some("nginx.service"), None);
        check(
            "0::/system.slice/system-pg.slice/pg@15-main.service\n",
            Some("pg@15-main.service"),
            None,
        );
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n",
            Some("web.service"),
            None,
        );
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
            Some("user@1000.service"),
            None,
        );
        check("0::/user.slice/user-1000.slice/session-3.scope\n", Some("session-3.scope"), None);
        check("0::/init.scope\n", Some("init.scope"), None);
        check("0::/system.slice/_memory.service\n", Some("memory.service"), None);
        check("0::/system.slice/a:b.service\n", Some("a:b.service"), None);
        check("0::/system.slice/nginx.service (deleted)\n", Some("nginx.service"), None);
    }

    #[test]
    fn hybrid_hierarchies() {
        check(
            "12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/nginx.service\n0::/\n",
            Some("nginx.service"),
            None,
        );
        check(
            "2:cpu,cpuacct:/\n1:name=systemd:/\n0::/system.slice/nginx.service\n",
            Some("nginx.service"),
            None,
        );
        check("3:memory:/docker/<ID>\n1:name=systemd:/\n0::/\n", None, Some(ID));
        // The runtime's own service is not the container's unit.
        check(
            "4:memory:/docker/<ID>\n1:name=systemd:/docker/<ID>\n\
             0::/system.slice/containerd.service\n",
            None,
            Some(ID),
        );
    }

    #[test]
    fn docker() {
        check("0::/docker/<ID>\n", None, Some(ID));
        check("0::/system.slice/docker-<ID>.scope\n", None, Some(ID));
        check("0::/../docker-<ID>.scope\n", None, Some(ID));
        // A systemd inside the container has units that the host does not know.
        check("0::/system.slice/docker-<ID>.scope/system.slice/nginx.service\n", None, Some(ID));
        check("0::/system.slice/docker.service\n", Some("docker.service"), None);
    }

    #[test]
    fn kubernetes() {
        let pod = "pod0f3a9c1e_6b1d_4a41_9d5e_1c2b3a4d5e6f";
        check(
            &format!(
                "0::/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-{pod}.slice/cri-containerd-<ID>.scope\n"
            ),
            None,
            Some(ID),
        );
        check(&format!("0::/kubepods/besteffort/{pod}/<ID>\n"), None, Some(ID));
        check(
            &format!("0::/kubepods.slice/kubepods-{pod}.slice/crio-<ID>.scope\n"),
            None,
            Some(ID),
        );
        check(&format!("0::/kubepods/{pod}/crio-<ID>\n"), None, Some(ID));
        check(
            &format!(
                "0::/system.slice/containerd.service/kubepods-{pod}.slice:cri-containerd:<ID>\n"
            ),
            Some("containerd.service"),
            Some(ID),
        );
        // A node that is a container itself (kind): the innermost one is the process's.
        check(
            &format!(
                "0::/system.slice/docker-<OTHER>.scope/kubelet.slice/\
                 kubelet-kubepods-{pod}.slice/cri-containerd-<ID>.scope\n"
            ),
            None,
            Some(ID),
        );
        check("0::/kubepods.slice\n", None, None);
    }

    #[test]
    fn podman_and_others() {
        check("0::/machine.slice/libpod-<ID>.scope\n", None, Some(ID));
        check("0::/machine.slice/libpod-<ID>.scope/container\n", None, Some(ID));
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<ID>.scope\n",
            Some("user@1000.service"),
            Some(ID),
        );
        check("0::/system.slice/web.service/libpod-payload-<ID>\n", Some("web.service"), Some(ID));
        check("0::/libpod_parent/libpod-<ID>\n", None, Some(ID));
        check("0::/system.slice/nerdctl-<ID>.scope\n", None, Some(ID));
        // The monitor is not in the container.
        check(
            "0::/machine.slice/libpod-conmon-<ID>.scope\n",
            Some(&format!("libpod-conmon-{ID}.scope")),
            None,
        );
    }

    #[test]
    fn unknown_stays_unknown() {
        for text in [
            "",
            "\n",
            "0::/\n",
            "garbage",
            "0::",
            "1:memory",
            "0::/default/redis\n",
            "0::/docker/short\n",
            "0::/.service\n",
            "0::/system.slice\n",
            "0::/lxc.payload.web\n",
        ] {
            check(text, None, None);
        }
        let upper = format!("0::/docker/{}\n", ID.to_uppercase());
        check(&upper, None, None);
    }
}
