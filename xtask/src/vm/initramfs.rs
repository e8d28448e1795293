//! The machine's only file system: busybox, the programs to run, the libraries and the kernel
//! modules they need. Not compressed: unpacking would cost the emulated kernel more than reading.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::arch::Arch;
use super::build::{self, Programs};
use super::cpio::Archive;
use super::environment::Variable;
use super::kernel::Kernel;
use super::{Boot, Task, Userland, modules, userland};
use crate::proc::quoted;
use crate::repo;

const INIT: &str = include_str!("init.sh");
const INIT_OF_SYSTEMD: &str = include_str!("userland.sh");
const TESTS: &str = "/usr/bin/fdtrace-test";
const DIRECTORIES: [&str; 10] = [
    "/dev",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr/bin",
    "/usr/sbin",
    "/var/empty",
];
/// Programs of this machine that the kernel tests use where they are, on machines of the same kind.
const HELPERS: [&str; 2] = ["crun", "setcap"];
/// Who may own a process: tests drop their privileges to nobody.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/var/empty:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Writes the file system for one boot and tells where it is.
pub(crate) fn write(kernel: &Kernel, programs: &Programs, boot: &Boot<'_>) -> Result<PathBuf> {
    let mut name = boot.arch.suffixed(boot.series.name);
    if boot.userland == Userland::Systemd {
        name.push_str("-systemd");
    }
    let path = repo::target_dir().join("vm").join(format!("initramfs-{name}.cpio"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    let init = match boot.userland {
        Userland::Busybox => INIT,
        Userland::Systemd => {
            userland::add(&mut archive, &programs.fdtrace)?;
            INIT_OF_SYSTEMD
        }
    };
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.file("/init", 0o755, init.as_bytes())?;
    archive.file("/etc/passwd", 0o644, PASSWD.as_bytes())?;
    archive.file("/etc/group", 0o644, GROUP.as_bytes())?;
    archive.file("/task", 0o644, task(boot).as_bytes())?;

    let mut list = String::new();
    for module in modules::load(kernel)? {
        let path = format!("/lib/modules/{}.ko", module.name);
        archive.file(&path, 0o644, &module.contents)?;
        list.push_str(&path);
        list.push('\n');
    }
    archive.file("/modules.list", 0o644, list.as_bytes())?;

    let busybox = build::busybox(boot.arch)
        .with_context(|| format!("no busybox: run `{}`", boot.arch.setup()))?;
    let mut libraries = BTreeSet::new();
    let mut add = |from: &Path, to: &str| {
        libraries.append(&mut libraries_of(from)?);
        copy(&mut archive, from, to)
    };
    add(&busybox, "/bin/busybox")?;
    add(&programs.fdtrace, "/usr/bin/fdtrace")?;
    add(&programs.tests, TESTS)?;
    let is_of_this_kind = boot.userland == Userland::Busybox && boot.arch == Arch::X86_64;
    let helpers =
        HELPERS.iter().filter(|_| is_of_this_kind).filter_map(|name| repo::find_program(name));
    for program in helpers.collect::<Vec<_>>().iter().chain(boot.add) {
        let name = program.file_name().context("--add wants a program")?;
        add(program, &format!("/bin/{}", name.display()))?;
    }
    // A userland has the C library of its own release, which is no older.
    for library in libraries.iter().filter(|_| boot.userland == Userland::Busybox) {
        copy(&mut archive, library, &library.to_string_lossy())?;
    }
    archive.finish().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn copy<W: Write>(archive: &mut Archive<W>, from: &Path, to: &str) -> Result<()> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    Ok(archive.file(to, 0o755, &contents)?)
}

/// The script that /init runs.
fn task(boot: &Boot<'_>) -> String {
    let exports = boot.env.iter().map(Variable::export);
    exports.chain([command(&boot.task)]).map(|line| line + "\n").collect()
}

fn command(task: &Task<'_>) -> String {
    match task {
        Task::Shell(line) => (*line).to_owned(),
        Task::Tests(args) => {
            let mut line = format!("exec {TESTS}");
            // Tests count what the whole machine does: one at a time, whatever else is asked.
            if !args.iter().any(|arg| arg.starts_with("--test-threads")) {
                line.push_str(" --test-threads=1");
            }
            for arg in *args {
                line.push(' ');
                line.push_str(&quoted(arg));
            }
            line
        }
    }
}

/// The shared libraries of a program, its loader included; none for a static one.
fn libraries_of(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    // It says "not a dynamic executable" in the user's language, and fails, or does not.
    let known = ldd.arg(program).output().context("cannot run ldd")?;
    Ok(libraries(&String::from_utf8_lossy(&known.stdout)))
}

/// The paths in `name => /path (0x…)` and `/path (0x…)`.
fn libraries(ldd: &str) -> BTreeSet<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .filter(|path| !path.ends_with(':'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::arch::Arch;
    use super::super::kernel::SERIES;
    use super::{Boot, Task, Userland, command, libraries, task};

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(text).into_iter().collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("libc.so.6"));
    }

    #[test]
    fn tests_run_one_at_a_time_unless_asked() {
        let args = ["accept::it's".to_owned()];
        let want = "exec /usr/bin/fdtrace-test --test-threads=1 'accept::it'\\''s'";
        assert_eq!(command(&Task::Tests(&args)), want);
        let args = ["--test-threads=2".to_owned()];
        assert_eq!(command(&Task::Tests(&args)), "exec /usr/bin/fdtrace-test --test-threads=2");
    }

    #[test]
    fn variables_are_set_before_the_command() {
        let env = ["A=1".parse().unwrap(), "B=a b".parse().unwrap()];
        let boot = Boot {
            series: &SERIES[0],
            arch: Arch::X86_64,
            userland: Userland::Busybox,
            append: "",
            task: Task::Shell("true"),
            env: &env,
            add: &[],
            timeout: Duration::ZERO,
        };
        assert_eq!(task(&boot), "export A=1\nexport B='a b'\ntrue\n");
    }
}
