//! Why a process's limit is what it is: facts, as they were found.
//!
//! A limit is inherited from parent to child until somebody sets it. So the facts are the chain of
//! ancestors with each one's limits, and beside each ancestor the settings that may have given it
//! its own. Nothing here is a conclusion.

use std::{path::PathBuf, time::SystemTime};

use super::{Comm, FdLimits, Limit, ProcessId};

/// Everything that was found out about one process's limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// The process, its parent, and so on up. Empty where the process is gone.
    pub chain: Vec<Ancestor>,
    /// Where the chain ends.
    pub chain_end: ChainEnd,
    /// What the process is made of, for that decides what it does with its limit.
    pub runtime: Runtime,
    /// What a login of the process's user would get from PAM, where no login is known to have
    /// given it to this process.
    pub login: Option<LoginLimits>,
    /// Limits of the whole system.
    pub system: Sysctls,
    /// What could not be read, each with the reason.
    pub unknown: Vec<String>,
}

/// One process of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Ancestor {
    /// Which.
    pub id: ProcessId,
    /// Its short name.
    pub comm: Comm,
    /// The file it runs.
    pub exe: Option<PathBuf>,
    /// Its first arguments.
    pub cmdline: Option<Vec<Vec<u8>>>,
    /// The date of its start.
    pub started_at: Option<SystemTime>,
    /// Its real user.
    pub uid: Option<u32>,
    /// Its limits.
    pub limits: Option<FdLimits>,
    /// What it is to its children.
    pub role: Role,
    /// Its systemd unit, and the manager of that.
    pub unit: Option<Unit>,
    /// Its container's id.
    pub container: Option<String>,
    /// Whether it has CAP_SYS_RESOURCE in the initial user namespace: it may raise its hard limit.
    pub may_raise_hard: Option<bool>,
    /// Whether it has CAP_SYS_ADMIN in the initial user namespace: file-max does not hold for it.
    pub above_file_max: Option<bool>,
    /// The version of Go that it was built with (`go1.21.3`). Only looked for where its soft limit
    /// is as high as its hard one, and not the process's: Go may have raised it by itself.
    pub go: Option<String>,
    /// The settings that give a limit to it, the one applied last first.
    pub settings: Vec<Setting>,
}

/// What is known to be at the upper end of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEnd {
    /// The first process of the pid namespace.
    Init,
    /// So many ancestors that the rest was not looked at.
    TooLong,
    /// A process that could not be read, and why.
    Unreadable(String),
}

/// What an ancestor is to the processes it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// systemd as the system's first process.
    Systemd,
    /// systemd as a user's service manager.
    SystemdUser,
    /// supervisord.
    Supervisord,
    /// runit's runsv.
    Runsv,
    /// s6-supervise.
    S6Supervise,
    /// pm2's daemon.
    Pm2,
    /// containerd's shim: one for each container or pod.
    ContainerdShim,
    /// conmon: one for each container of Podman or CRI-O.
    Conmon,
    /// dockerd.
    Dockerd,
    /// containerd.
    Containerd,
    /// crio.
    Crio,
    /// cron or at.
    Cron,
    /// sshd, or its process of one session.
    Sshd,
    /// login, on a console.
    Login,
    /// su or runuser.
    Su,
    /// sudo or doas.
    Sudo,
    /// An init that only reaps, as in containers: tini, dumb-init.
    TinyInit,
    /// A shell, interactive or running a script.
    Shell,
    /// tmux or screen.
    Multiplexer,
    /// Anything else.
    Other,
}

impl Role {
    /// Whether it opens PAM sessions for what it starts.
    #[must_use]
    pub const fn opens_sessions(self) -> bool {
        matches!(self, Self::Cron | Self::Sshd | Self::Login | Self::Su | Self::Sudo)
    }

    /// Whether it starts its child again when that ends, so that a limit given to it is the next
    /// child's.
    #[must_use]
    pub const fn restarts_children(self) -> bool {
        matches!(self, Self::Supervisord | Self::Runsv | Self::S6Supervise | Self::Pm2)
    }
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Who runs it.
    pub manager: Manager,
}

impl Unit {
    /// Whether it is a service, the only kind here that sets limits.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }
}

/// A systemd manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The system's.
    System,
    /// That of the user with this number.
    User(u32),
}

/// What a setting says, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose setting.
    pub source: SettingSource,
    /// The soft limit it gives; `None` where it gives none.
    pub soft: Option<Limit>,
    /// The hard limit it gives; `None` where it gives none.
    pub hard: Option<Limit>,
    /// Where it is written.
    pub place: Place,
}

impl Setting {
    /// Whether it can only raise a limit: what was inherited stays where it is higher.
    #[must_use]
    pub const fn only_raises(&self) -> bool {
        matches!(
            self.source,
            SettingSource::Minfds { .. }
                | SettingSource::Own { program: Program::Redis | Program::Mysql }
        )
    }
}

/// Whose setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingSource {
    /// `LimitNOFILE=` of a unit.
    Unit(Unit),
    /// `DefaultLimitNOFILE=` of a unit's manager, for the unit has none of its own.
    UnitDefault(Unit),
    /// supervisord's `minfds`.
    Minfds {
        /// The name of the program under it, where its section was found.
        program: Option<String>,
    },
    /// limits.conf and limits.d, which PAM applies to logins.
    Login {
        /// Whose login.
        user: String,
    },
    /// What a container was created with.
    Container {
        /// By whom.
        runtime: ContainerRuntime,
        /// Its id.
        id: String,
    },
    /// What its runtime gives to containers that are created with nothing.
    ContainerDefault {
        /// Whose default.
        runtime: ContainerRuntime,
        /// The container's id.
        id: String,
    },
    /// A supervised service's `run` script.
    RunScript,
    /// The program's own configuration.
    Own {
        /// Whose.
        program: Program,
    },
}

/// Who made a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRuntime {
    /// Docker.
    Docker,
    /// containerd, for Kubernetes.
    Kubernetes,
    /// containerd, for anybody else.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
}

/// Programs whose configuration sets their own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// nginx: `worker_rlimit_nofile`.
    Nginx,
    /// Redis or Valkey: `maxclients`, and 32 more.
    Redis,
    /// HAProxy: `ulimit-n`.
    Haproxy,
    /// MySQL or MariaDB: `open_files_limit`.
    Mysql,
}

impl Program {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Redis => "Redis",
            Self::Haproxy => "HAProxy",
            Self::Mysql => "MySQL",
        }
    }

    /// Its directive.
    #[must_use]
    pub const fn directive(self) -> &'static str {
        match self {
            Self::Nginx => "worker_rlimit_nofile",
            Self::Redis => "maxclients",
            Self::Haproxy => "ulimit-n",
            Self::Mysql => "open_files_limit",
        }
    }
}

/// Where a setting is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(FileFact),
    /// On the process's command line.
    CommandLine,
    /// Nowhere: it is what the program does if nothing says otherwise. The file is the one that
    /// would have said it.
    BuiltIn(Option<FileFact>),
}

/// A line of a file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFact {
    /// Its name, as the process that uses it sees it.
    pub path: PathBuf,
    /// The line, from 1; `None` where the file has no lines that mean something.
    pub line: Option<u32>,
    /// When its content was changed: mtime.
    pub modified: Option<SystemTime>,
    /// When anything of it was changed, also its place: ctime. Later than `modified` where the
    /// file was moved here or installed with an old date.
    pub changed: Option<SystemTime>,
}

/// What a login gets, and whether the process's limit can come from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// What the files say.
    pub settings: Vec<Setting>,
    /// `Some(false)`: the process belongs to a service, to which PAM applies nothing. `None`:
    /// nothing tells whether it descends from a login.
    pub applies: Option<bool>,
}

/// What a process is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Go, of this version (`go1.21.3`).
    Go(String),
    /// A Java virtual machine.
    Java {
        /// Whether `-XX:-MaxFDLimit` forbids it to raise its soft limit.
        raises: bool,
    },
    /// Node.js.
    Node,
    /// Python.
    Python,
    /// A program that has a setting of its own.
    Program(Program),
    /// PostgreSQL.
    Postgres,
    /// Something that is none of these.
    Other,
    /// Its executable could not be read.
    Unknown,
}

/// Limits of the whole system, and what configuration says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// `fs.nr_open`: the highest limit a process may have.
    pub nr_open: Sysctl,
    /// `fs.file-max`: how many file handles there may be.
    pub file_max: Sysctl,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Sysctl,
    /// `fs.pipe-user-pages-hard`: 0 is no limit.
    pub pipe_pages: Sysctl,
    /// Configuration of `net.core.somaxconn`, which holds for the first network namespace. Its value
    /// is each namespace's own.
    pub somaxconn: Option<ConfiguredSysctl>,
    /// How many file handles there are, from `fs.file-nr`.
    pub file_handles: Option<u64>,
}

/// One setting of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctl {
    /// Its value now.
    pub value: Option<u64>,
    /// The last of all lines that set it at boot.
    pub configured: Option<ConfiguredSysctl>,
}

/// A line of sysctl.conf or sysctl.d.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredSysctl {
    /// Its value there.
    pub value: u64,
    /// Where.
    pub file: FileFact,
}
