//! Where a process belongs: its unit, container and pod; and how somebody asks for those.

/// Where a process stands, as far as its cgroup tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The innermost systemd service or scope of the host.
    ///
    /// Units of a systemd inside a container are left out: the host does not know them, and the
    /// limits that a remedy would change are the host's.
    pub unit: Option<String>,
    /// The slice of the user whose session or service manager it belongs to: `user-1000.slice`.
    pub user_slice: Option<String>,
    /// The innermost container.
    pub container: Option<Container>,
    /// The pod of that container.
    pub pod: Option<Pod>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits; of systemd-nspawn and LXC, which have no such ids, the name.
    pub id: String,
    /// Who keeps it; `None` where its cgroup does not tell.
    pub engine: Option<Engine>,
}

impl Container {
    /// How many digits of an id people use, as in `docker ps`.
    const SHORT: usize = 12;

    /// The id as people write it.
    #[must_use]
    pub fn short(&self) -> &str {
        if self.is_named() { &self.id } else { self.id.get(..Self::SHORT).unwrap_or(&self.id) }
    }

    /// Whether it has a name in place of an id.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        matches!(self.engine, Some(Engine::Nspawn | Engine::Lxc))
    }
}

/// A container runtime, as its cgroups tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker.
    Docker,
    /// containerd, also for Kubernetes and nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// systemd-nspawn.
    Nspawn,
    /// LXC, also under LXD and Incus.
    Lxc,
}

impl Engine {
    /// Its name, as commands and packages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Nspawn => "systemd-nspawn",
            Self::Lxc => "lxc",
        }
    }
}

/// A pod of Kubernetes, or of Podman.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes's UID, with dashes as the API has it; of Podman the pod's id.
    pub uid: String,
    /// Its hostname, which is its name unless its specification says otherwise.
    pub name: Option<String>,
}

/// Which containers are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerQuery {
    /// Those whose id starts so.
    Id(String),
    /// The one that an engine knows by that name.
    Name(Engine, String),
}

impl ContainerQuery {
    /// Whether that container is.
    #[must_use]
    pub fn wants(&self, container: &Container) -> bool {
        match self {
            Self::Id(start) => !container.is_named() && container.id.starts_with(start),
            Self::Name(engine, name) => container.engine == Some(*engine) && container.id == *name,
        }
    }
}

impl Pod {
    /// Whether it is called that: its UID or its name, whole.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.uid == name || self.name.as_deref() == Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_by_their_start_and_names_whole() {
        let of = |id: &str, engine| Container { id: id.to_owned(), engine };
        let id = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
        let docker = of(id, Some(Engine::Docker));
        let unknown = of(id, None);
        let lxc = of("4f1c", Some(Engine::Lxc));
        assert_eq!((docker.short(), lxc.short()), ("4f1c0d6f2f5a", "4f1c"));
        let start = ContainerQuery::Id("4f1c".to_owned());
        assert!(start.wants(&docker) && start.wants(&unknown) && !start.wants(&lxc));
        assert!(!ContainerQuery::Id("f1c0".to_owned()).wants(&docker));
        let named = |engine, name: &str| ContainerQuery::Name(engine, name.to_owned());
        assert!(named(Engine::Lxc, "4f1c").wants(&lxc));
        assert!(!named(Engine::Lxc, "4f1").wants(&lxc));
        assert!(!named(Engine::Nspawn, "4f1c").wants(&lxc));
        assert!(!named(Engine::Lxc, id).wants(&docker));
    }

    #[test]
    fn pods_by_uid_or_name() {
        let pod = Pod { uid: "0f3a".to_owned(), name: Some("web-0".to_owned()) };
        assert!(pod.is_called("0f3a") && pod.is_called("web-0"));
        assert!(!pod.is_called("web") && !pod.is_called(""));
        assert!(!Pod { name: None, ..pod }.is_called("web-0"));
    }
}
