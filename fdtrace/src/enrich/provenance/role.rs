//! What a process is to its children, from its names. Pure.

use std::{os::unix::ffi::OsStrExt, path::Path};

use crate::model::Role;

/// Tells by the short name, the executable and the first arguments. A process chooses its own
/// names: what follows from a role is checked against other facts.
pub(super) fn role(pid: u32, comm: &[u8], exe: Option<&Path>, arguments: &[Vec<u8>]) -> Role {
    let exe = exe.and_then(Path::file_name).map(OsStrExt::as_bytes);
    if comm == b"systemd" || (pid == 1 && exe == Some(b"systemd")) {
        let is_user = arguments.iter().any(|argument| argument == b"--user");
        return if is_user { Role::SystemdUser } else { Role::Systemd };
    }
    if is_script(arguments, b"supervisord") || comm == b"supervisord" {
        return Role::Supervisord;
    }
    let title = arguments.first().map_or(&b""[..], Vec::as_slice);
    if title.starts_with(b"PM2 ") && contains(title, b"God Daemon") {
        return Role::Pm2;
    }
    match comm {
        b"runsv" => Role::Runsv,
        // The kernel keeps 15 bytes.
        b"s6-supervise" => Role::S6Supervise,
        _ if comm.starts_with(b"containerd-shim") => Role::ContainerdShim,
        b"conmon" | b"conmonrs" => Role::Conmon,
        b"dockerd" => Role::Dockerd,
        b"containerd" => Role::Containerd,
        b"crio" => Role::Crio,
        b"cron" | b"crond" | b"atd" | b"fcron" => Role::Cron,
        b"sshd" | b"sshd-session" | b"sshd-auth" | b"dropbear" => Role::Sshd,
        b"login" => Role::Login,
        b"su" | b"runuser" => Role::Su,
        b"sudo" | b"doas" => Role::Sudo,
        b"tini" | b"tini-static" | b"dumb-init" | b"docker-init" | b"catatonit" => Role::TinyInit,
        b"busybox" => Role::Shell,
        b"tmux: server" | b"screen" | b"SCREEN" => Role::Multiplexer,
        // A script that names its shell in its first line gives the process its own name.
        _ if is_shell(comm) || exe.is_some_and(is_shell) => Role::Shell,
        _ => Role::Other,
    }
}

/// Not busybox, which is many other programs as well.
fn is_shell(name: &[u8]) -> bool {
    matches!(name, b"sh" | b"bash" | b"dash" | b"ash" | b"zsh" | b"fish" | b"ksh")
}

/// Whether the command is that program, by itself or as the script of an interpreter.
pub(super) fn is_script(arguments: &[Vec<u8>], name: &[u8]) -> bool {
    arguments.iter().take(2).any(|argument| base(argument) == name)
}

/// The last part of a path.
pub(super) fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for (pid, comm, exe, arguments, expected) in [
            (1, "systemd", "/usr/lib/systemd/systemd", "/sbin/init", Role::Systemd),
            (1, "init", "/usr/lib/systemd/systemd", "/sbin/init", Role::Systemd),
            (900, "systemd", "/usr/lib/systemd/systemd", "systemd --user", Role::SystemdUser),
            (
                5,
                "supervisord",
                "/usr/bin/python3.11",
                "python3 /usr/bin/supervisord -n",
                Role::Supervisord,
            ),
            (5, "python3", "/usr/bin/python3", "python3 /opt/supervisord -c x", Role::Supervisord),
            (5, "python3", "/usr/bin/python3", "python3 x.py /usr/bin/supervisord", Role::Other),
            (5, "runsv", "/usr/bin/runsv", "runsv web", Role::Runsv),
            (5, "s6-supervise", "/bin/s6-supervise", "s6-supervise web", Role::S6Supervise),
            (5, "containerd-shim", "/usr/bin/containerd-shim-runc-v2", "x", Role::ContainerdShim),
            (5, "sh", "/bin/busybox", "sh -c run", Role::Shell),
            (5, "start.sh", "/usr/bin/dash", "/bin/sh ./start.sh", Role::Shell),
            (5, "httpd", "/bin/busybox", "httpd -f", Role::Other),
            (5, "tmux: server", "/usr/bin/tmux", "tmux", Role::Multiplexer),
            (
                5,
                "sshd-session",
                "/usr/lib/openssh/sshd-session",
                "sshd-session: a [priv]",
                Role::Sshd,
            ),
            (5, "nginx", "/usr/sbin/nginx", "nginx: master process nginx", Role::Other),
            (5, "", "", "", Role::Other),
        ] {
            let arguments: Vec<Vec<u8>> =
                arguments.split(' ').map(|part| part.as_bytes().to_vec()).collect();
            let found = role(pid, comm.as_bytes(), Some(Path::new(exe)), &arguments);
            assert_eq!(found, expected, "{comm} {exe}");
        }
        let title = [b"PM2 v5.3.0: God Daemon (/root/.pm2)".to_vec()];
        assert_eq!(role(9, b"PM2 v5.3.0: God", None, &title), Role::Pm2);
    }
}
