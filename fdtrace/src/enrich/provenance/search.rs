//! Which settings give a limit to which process of a chain.
//!
//! A setting is put beside the process that gets its limit from it: the first process of a unit,
//! of a container, of a login; a supervisor that sets its own.

use super::{
    chain::{Member, highest, is_login, is_user_manager},
    container, pam, program,
    root::Root,
    run_script, supervisord, systemd,
    users::{self, User},
};
use crate::model::{FdLimits, LoginLimits, Manager, Role, Runtime, Setting, Unit};

/// What the search knows and has found.
pub(super) struct Search<'a> {
    pub(super) host: &'a Root,
    pub(super) members: &'a [Member],
    pub(super) unknown: Vec<String>,
    pub(super) nr_open: Option<u64>,
}

/// Whether the process descends from a login that PAM gave limits to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Session {
    /// From one: the process that it started, and whose login it was.
    Of { first: usize, uid: Option<u32> },
    /// From one to which PAM gives no limits.
    WithoutLimits,
    /// Nothing tells.
    Unknown,
}

impl Search<'_> {
    /// The settings of each process of the chain, and what a login would get where none is known.
    pub(super) fn settings(
        &mut self,
        runtime: &Runtime,
    ) -> (Vec<Vec<Setting>>, Option<LoginLimits>) {
        let session = self.session();
        let mut login = self.login(&session);
        let mut all = Vec::new();
        for at in 0..self.members.len() {
            let mut settings = Vec::new();
            if at == 0 {
                settings.extend(self.own(runtime));
            }
            settings.extend(self.minfds(at));
            settings.extend(self.run_script(at));
            if matches!(session, Session::Of { first, .. } if first == at) {
                settings.extend(login.take().map(|login| login.settings).unwrap_or_default());
            }
            settings.extend(self.container(at));
            settings.extend(self.unit(at, &mut login));
            all.push(settings);
        }
        (all, login)
    }

    fn own(&mut self, runtime: &Runtime) -> Option<Setting> {
        let Runtime::Program(program) = runtime else { return None };
        let own = self.members.first()?;
        let root = self.root_of(0)?;
        let parent = self.members.get(1).map(|parent| &parent.ancestor);
        let cwd = own.cwd.as_deref();
        program::setting(&root, *program, &own.ancestor, parent, cwd, &mut self.unknown)
    }

    fn minfds(&mut self, at: usize) -> Option<Setting> {
        let member = &self.members[at];
        if member.ancestor.role != Role::Supervisord {
            return None;
        }
        let child = at.checked_sub(1).and_then(|child| self.members.get(child));
        let child = child.map(Member::arguments);
        let root = self.root_of(at)?;
        let cwd = member.cwd.as_deref();
        supervisord::minfds(&root, member.arguments(), cwd, child, &mut self.unknown)
    }

    /// Of a supervisor's script for the process that it becomes, of another one for its shell.
    fn run_script(&mut self, at: usize) -> Option<Setting> {
        let supervisor = self.members.get(at + 1);
        let supervises =
            |member: &&Member| matches!(member.ancestor.role, Role::Runsv | Role::S6Supervise);
        let Some(supervisor) = supervisor.filter(supervises) else {
            return self.shell_script(at);
        };
        let Some(dir) = &supervisor.cwd else {
            let pid = supervisor.pid();
            self.unknown.push(format!("could not read /proc/{pid}/cwd: the service's directory"));
            return None;
        };
        let root = self.root_of(at + 1)?;
        run_script::setting(&root, dir, &mut self.unknown)
    }

    fn shell_script(&mut self, at: usize) -> Option<Setting> {
        let (own, member) = (&self.members[0], &self.members[at]);
        // One with other limits has not given them.
        let has_same = |limits: FdLimits| {
            own.ancestor
                .limits
                .is_some_and(|own| own.soft == limits.soft || own.hard == limits.hard)
        };
        if member.ancestor.role != Role::Shell || !member.ancestor.limits.is_some_and(has_same) {
            return None;
        }
        let root = self.root_of(at)?;
        let cwd = member.cwd.as_deref();
        run_script::of_shell(&root, member.arguments(), cwd, &mut self.unknown)
    }

    fn container(&mut self, at: usize) -> Vec<Setting> {
        let container = |at: usize| self.members.get(at)?.ancestor.container.as_deref();
        match container(at) {
            Some(id) if container(at + 1) != Some(id) => {
                container::settings(self.host, id, &mut self.unknown)
            }
            _ => Vec::new(),
        }
    }

    /// The unit's setting for its first process, and PAM's where the unit opens a session.
    fn unit(&mut self, at: usize, login: &mut Option<LoginLimits>) -> Vec<Setting> {
        let member = &self.members[at].ancestor;
        let Some(unit) = member.unit.as_ref().filter(|unit| unit.is_service()) else {
            return Vec::new();
        };
        let above = self.members.get(at + 1).map(|above| &above.ancestor);
        let is_first = above.is_none_or(|above| above.unit.as_ref() != Some(unit));
        if !is_first || member.container.is_some() {
            return Vec::new();
        }
        let home = match unit.manager {
            Manager::System => None,
            Manager::User(uid) => users::user(self.host, uid, None, &mut self.unknown).home,
        };
        let facts = systemd::unit(self.host, unit, home.as_deref());
        self.unknown.extend(facts.unknown);
        let mut settings = Vec::new();
        if let Some(service) = facts.pam_name
            && pam::applies(self.host, &service) == Some(true)
            && let Some(login) = login.take()
        {
            settings.extend(login.settings);
        }
        settings.extend(facts.settings);
        settings
    }

    /// What PAM gives to a login of the user whose limit this is.
    fn login(&mut self, session: &Session) -> Option<LoginLimits> {
        let own = self.members.first()?;
        if own.ancestor.container.is_some() || *session == Session::WithoutLimits {
            return None;
        }
        // The limit is a supervisor's, where there is one, and so is the user.
        let supervised =
            self.members.iter().find(|member| member.ancestor.role.restarts_children());
        let whose = supervised.unwrap_or(own);
        let of_session = match session {
            Session::Of { uid, .. } => *uid,
            _ => None,
        };
        let uid = of_session.or(whose.ancestor.uid)?;
        let user = self.user(uid, whose.gid);
        let settings = pam::login_limits(self.host, &user, self.nr_open, &mut self.unknown);
        let is_in_service = whose
            .ancestor
            .unit
            .as_ref()
            .is_some_and(|unit| unit.is_service() && unit.manager == Manager::System);
        let applies = is_in_service.then_some(false);
        (!settings.is_empty()).then_some(LoginLimits { settings, applies })
    }

    fn user(&mut self, uid: u32, gid: Option<u32>) -> User {
        users::user(self.host, uid, gid, &mut self.unknown)
    }

    /// The login that the process descends from, as the processes above it, its cgroup or the
    /// kernel's login uid tell.
    fn session(&mut self) -> Session {
        let members = self.members;
        if members.first().is_none_or(|own| own.ancestor.container.is_some()) {
            return Session::Unknown;
        }
        let mut is_without = false;
        for at in 1..members.len() {
            if !is_login(&members[at]) {
                continue;
            }
            let service = service(&members[at]);
            match pam::applies(self.host, service) {
                Some(true) => {
                    let first = at - 1;
                    return Session::Of { first, uid: members[first].ancestor.uid };
                }
                Some(false) => is_without = true,
                None => self.unknown.push(format!(
                    "could not tell from /etc/pam.d/{service} whether PAM gives limits to logins"
                )),
            }
        }
        if is_without {
            return Session::WithoutLimits;
        }
        if let Some(first) = members.iter().position(is_user_manager) {
            let uid = members[first].ancestor.uid;
            return self.of_services(&["systemd-user"], first, uid);
        }
        let Some((first, uid)) = by_cgroup(members).or_else(|| by_login_uid(members)) else {
            return Session::Unknown;
        };
        // What opened it is not among the ancestors any more.
        self.of_services(&["sshd", "login", "su", "sudo", "cron", "crond"], first, uid)
    }

    /// A session that one of several PAM services opened.
    fn of_services(&self, services: &[&str], first: usize, uid: Option<u32>) -> Session {
        let answers: Vec<_> =
            services.iter().map(|service| pam::applies(self.host, service)).collect();
        if answers.contains(&Some(true)) {
            Session::Of { first, uid }
        } else if answers.contains(&Some(false)) {
            Session::WithoutLimits
        } else {
            Session::Unknown
        }
    }

    /// The root that a process sees; the host's where that cannot be opened and it has no other.
    fn root_of(&mut self, at: usize) -> Option<Root> {
        let member = &self.members[at];
        let path = self.host.path().join("proc").join(member.pid().to_string()).join("root");
        match Root::open(&path) {
            Ok(root) => Some(root),
            Err(_) if member.ancestor.container.is_none() => Root::open(self.host.path()).ok(),
            Err(error) => {
                let (pid, reason) = (member.pid(), super::root::reason(&error));
                self.unknown.push(format!("could not open /proc/{pid}/root: {reason}"));
                None
            }
        }
    }
}

/// The first process of a session of logind, and its user.
fn by_cgroup(members: &[Member]) -> Option<(usize, Option<u32>)> {
    let session_of = |member: &Member| {
        let unit = member.ancestor.unit.as_ref()?;
        unit.name.starts_with("session-").then(|| unit.name.clone())
    };
    let from = members.iter().position(|member| session_of(member).is_some())?;
    let name = session_of(&members[from]);
    let first = highest(members, from, |member| session_of(member) == name);
    Some((first, members[first].login_uid.or(members[from].ancestor.uid)))
}

/// The first process with the login uid of the process, which only logins set; and services that
/// open a session, whose units say so themselves.
fn by_login_uid(members: &[Member]) -> Option<(usize, Option<u32>)> {
    let from = members.iter().position(|member| member.login_uid.is_some())?;
    let uid = members[from].login_uid;
    if members[from].ancestor.unit.as_ref().is_some_and(Unit::is_service) {
        return None;
    }
    Some((highest(members, from, |member| member.login_uid == uid), uid))
}

/// The PAM service of what opened a session.
fn service(member: &Member) -> &'static str {
    match (member.ancestor.role, member.ancestor.comm.as_bytes()) {
        (Role::Sshd, _) => "sshd",
        (Role::Login, _) => "login",
        (Role::Su, b"runuser") => "runuser",
        (Role::Su, _) => "su",
        (Role::Sudo, b"doas") => "doas",
        (Role::Sudo, _) => "sudo",
        (_, b"crond") => "crond",
        (_, b"atd") => "atd",
        _ => "cron",
    }
}
