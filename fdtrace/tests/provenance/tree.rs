//! A host's files, as far as limits are concerned.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};

use fdtrace::{
    enrich::provenance,
    model::{Pid, Provenance},
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

/// A host that was booted on a day, everything in its first second.
pub(crate) struct Tree {
    dir: TempDir,
    booted: SystemTime,
}

/// One process of it.
pub(crate) struct Process<'a> {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) command: &'a str,
    pub(crate) limits: (&'a str, &'a str),
    pub(crate) cgroup: &'a str,
}

impl Tree {
    /// Booted long ago: every file can have been changed since.
    pub(crate) fn new() -> Self {
        Self::booted(1_700_000_000)
    }

    /// Booted in the future: no file can have been changed since, its ctime neither.
    pub(crate) fn of_tomorrow() -> Self {
        Self::booted(4_000_000_000)
    }

    fn booted(seconds: u64) -> Self {
        let booted = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let tree = Self { dir: TempDir::new().unwrap(), booted };
        tree.write("proc/stat", &format!("cpu 1 2 3\nbtime {seconds}\nprocesses 9\n"));
        tree.write("proc/sys/fs/nr_open", "1048576\n");
        tree.write("proc/sys/fs/file-max", "500000\n");
        tree.write("proc/sys/fs/file-nr", "2000\t0\t500000\n");
        tree.write("proc/sys/fs/inotify/max_user_instances", "128\n");
        tree.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        tree.write("etc/group", "root:x:0:\n");
        tree
    }

    /// A file that was written when the host was booted.
    pub(crate) fn write(&self, path: &str, text: &str) {
        self.changed(path, text, 0);
    }

    /// A file that was changed so many days after the boot.
    pub(crate) fn changed(&self, path: &str, text: &str, days: u32) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(self.booted + DAY * days)
            .unwrap();
    }

    /// A process of root's; its short name is its program's.
    pub(crate) fn process(&self, process: &Process<'_>) {
        let Process { pid, parent, command, limits: (soft, hard), cgroup } = process;
        let words: Vec<&str> = command.split(' ').collect();
        // A script's name is its process's.
        let named =
            words.iter().take(2).rev().find(|word| word.starts_with('/')).unwrap_or(&words[0]);
        let comm = Path::new(named).file_name().unwrap().to_str().unwrap();
        let comm = &comm[..comm.len().min(15)];
        let file = |name: &str, text: &str| self.write(&format!("proc/{pid}/{name}"), text);
        file("comm", &format!("{comm}\n"));
        file("cmdline", &format!("{}\0", words.join("\0")));
        file(
            "stat",
            &format!("{pid} ({comm}) S {parent} 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 1 0 5 9\n"),
        );
        file(
            "status",
            &format!(
                "Name:\t{comm}\nPPid:\t{parent}\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
            ),
        );
        file("limits", &format!("Max open files            {soft}   {hard}   files     \n"));
        file("cgroup", &format!("0::{cgroup}\n"));
        let dir = self.dir.path().join("proc").join(pid.to_string());
        fs::create_dir_all(dir.join("ns")).unwrap();
        for (name, target) in [
            ("exe", words[0]),
            ("cwd", "/srv"),
            ("root", self.dir.path().to_str().unwrap()),
            ("ns/user", "user:[4026531837]"),
        ] {
            symlink(target, dir.join(name)).unwrap();
        }
    }

    /// Has a process run a program that was built with that Go, under the name that it has.
    pub(crate) fn built_with_go(&self, pid: u32, version: &str) {
        let link = self.dir.path().join(format!("proc/{pid}/exe"));
        let name = fs::read_link(&link).unwrap();
        let name = name.strip_prefix(self.dir.path()).unwrap_or(&name);
        let program = self.dir.path().join(name.strip_prefix("/").unwrap_or(name));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, go_program(version)).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(program, link).unwrap();
    }

    /// systemd.
    pub(crate) fn systemd(&self) {
        self.process(&Process {
            pid: 1,
            parent: 0,
            command: "/usr/lib/systemd/systemd --system",
            limits: ("1073741816", "1073741816"),
            cgroup: "/init.scope",
        });
    }

    /// A supervisord with the configuration in /etc, and the Go server of the story.
    pub(crate) fn supervised(&self, soft: &str, hard: &str, cgroup: &str) {
        self.process(&Process {
            pid: 812,
            parent: 1,
            command: "/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf",
            limits: (soft, hard),
            cgroup,
        });
        self.process(&Process {
            pid: 14807,
            parent: 812,
            command: "/srv/dataforwardsrv 9088",
            limits: (soft, hard),
            cgroup,
        });
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.dir.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn read(&self, pid: u32) -> Provenance {
        provenance::read(self.dir.path(), Pid(pid))
    }
}

/// An ELF file with nothing but what Go's linker writes of its version, and what leads there.
fn go_program(version: &str) -> Vec<u8> {
    const NAMES: &[u8] = b".shstrtab\0.go.buildinfo\0";
    const HEADER: u64 = 64;
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    info.push(version.len().try_into().unwrap());
    info.extend(version.as_bytes());
    let section = |name: u32, offset: u64, size: u64| {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&offset.to_le_bytes());
        header[32..40].copy_from_slice(&size.to_le_bytes());
        header
    };
    let (of_names, of_info) = (NAMES.len() as u64, info.len() as u64);
    let sections = [section(0, HEADER, of_names), section(10, HEADER + of_names, of_info)];
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    file[40..48].copy_from_slice(&(HEADER + of_names + of_info).to_le_bytes());
    // The sizes of a segment's and a section's header, and how many sections there are.
    for (at, value) in [(54, 56_u16), (58, 64), (60, 2), (62, 0)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    [&file[..], NAMES, &info, &sections.concat()].concat()
}
