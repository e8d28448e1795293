//! Who a process is and how many descriptors it has: the stage's face to the pipeline.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
};

use super::{cgroup, proc_dir::ProcDir};
use crate::model::{Comm, FdLimits, FdUsage, Placement, Pod, Process, ProcessId};

/// What is remembered of how many processes. The oldest is forgotten first.
const MOST_CACHED: usize = 4096;

/// Arguments can be megabytes; the first ones tell programs apart.
const MOST_CMDLINE_BYTES: u64 = 4096;
const MOST_ARGUMENTS: usize = 64;

/// Reads `/proc`, and remembers what does not change while a process lives.
#[derive(Debug)]
pub struct Processes {
    root: PathBuf,
    known: HashMap<ProcessId, Process>,
    /// Keys of `known`, oldest first.
    order: VecDeque<ProcessId>,
}

impl Processes {
    /// Reads under `proc_root`, which is `/proc` but for tests and containers.
    #[must_use]
    pub fn new(proc_root: PathBuf) -> Self {
        Self { root: proc_root, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Everything known of a process. `comm` is what the kernel side saw.
    ///
    /// A process that is gone, or whose pid is another's now, has nothing but its id and `comm`.
    /// What was read once is kept: a program that replaces itself with exec(3) after it was first
    /// described goes on under its old `exe`.
    pub fn describe(&mut self, id: ProcessId, comm: &Comm) -> Process {
        if let Some(known) = self.known.get(&id) {
            return Process { comm: comm.clone(), ..known.clone() };
        }
        match ProcDir::open(&self.root, id) {
            Ok(dir) => {
                let process = read(&dir, id, comm);
                self.remember(process.clone());
                process
            }
            // Not remembered: what failed may work the next time.
            Err(_) => unread(id, comm),
        }
    }

    /// Everything known of a process that was found in `/proc`; `None` if it is gone meanwhile.
    pub fn describe_found(&mut self, id: ProcessId) -> Option<Process> {
        if let Some(known) = self.known.get(&id) {
            return Some(known.clone());
        }
        let comm = ProcDir::open(&self.root, id).ok()?.comm()?;
        Some(self.describe(id, &comm))
    }

    /// How many descriptors the process has open now, and may have.
    ///
    /// The limits are today's too, since somebody may have raised them; `limits_at_failure` stands
    /// in where they cannot be read.
    #[must_use]
    pub fn fd_usage(&self, id: ProcessId, limits_at_failure: Option<FdLimits>) -> FdUsage {
        let Ok(dir) = ProcDir::open(&self.root, id) else {
            return FdUsage { open: None, limits: limits_at_failure };
        };
        FdUsage { open: dir.open_fds(), limits: dir.fd_limits().or(limits_at_failure) }
    }

    /// How many descriptors with a number below `limit` the process has open: each is looked at.
    #[must_use]
    pub fn open_below(&self, id: ProcessId, limit: u64) -> Option<u64> {
        ProcDir::open(&self.root, id).ok()?.fds_below(limit)
    }

    /// Whether the process still runs. Where nobody can say, it does: an end is never invented.
    #[must_use]
    pub fn is_alive(&self, id: ProcessId) -> bool {
        match ProcDir::open(&self.root, id) {
            Ok(dir) => dir.stat().is_alive(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    fn remember(&mut self, process: Process) {
        if self.order.len() >= MOST_CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(process.id);
        self.known.insert(process.id, process);
    }
}

fn read(dir: &ProcDir, id: ProcessId, comm: &Comm) -> Process {
    let placement = dir.cgroup().map(|text| cgroup::placement(&text)).unwrap_or_default();
    let Placement { unit, user_slice, container, pod } = placement;
    Process {
        id,
        comm: comm.clone(),
        exe: dir.exe(),
        cmdline: dir.cmdline(MOST_CMDLINE_BYTES, MOST_ARGUMENTS),
        unit,
        user_slice,
        container,
        pod: pod.map(|pod| Pod { name: dir.own_hostname(), ..pod }),
        ns_pid: dir.ns_pid(),
    }
}

fn unread(id: ProcessId, comm: &Comm) -> Process {
    Process::unread(id, comm.clone())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::model::{BootTime, Limit, Pid};

    /// A `/proc` with one process.
    struct Fixture {
        root: TempDir,
        id: ProcessId,
    }

    impl Fixture {
        fn new() -> Self {
            let root = TempDir::new().unwrap();
            let ticks = 88_123;
            let nanos = ticks * 1_000_000_000 / procfs::ticks_per_second() + 3;
            let id = ProcessId { pid: Pid(812), started: BootTime::from_nanos(nanos) };
            let fixture = Self { root, id };
            fs::create_dir(fixture.dir()).unwrap();
            fixture.stat("S", 1, ticks);
            fixture.file("cmdline", b"nginx\0-c\0/etc/nginx.conf\0");
            fixture.file("cgroup", b"0::/system.slice/nginx.service\n");
            fixture.file("status", b"Name:\tnginx\nNSpid:\t812\t7\n");
            fixture.file("limits", b"Max open files            1024     4096     files\n");
            // A real one is a directory whose size is the number of descriptors.
            fs::File::create(fixture.dir().join("fd")).unwrap().set_len(61).unwrap();
            symlink("/usr/sbin/nginx", fixture.dir().join("exe")).unwrap();
            fixture
        }

        fn dir(&self) -> PathBuf {
            self.root.path().join("812")
        }

        fn file(&self, name: &str, bytes: &[u8]) {
            fs::write(self.dir().join(name), bytes).unwrap();
        }

        fn stat(&self, state: &str, threads: u32, ticks: u64) {
            let line =
                format!("812 (x) {state} 1 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 {threads} 0 {ticks} 9");
            self.file("stat", line.as_bytes());
        }

        fn processes(&self) -> Processes {
            Processes::new(self.root.path().to_owned())
        }
    }

    fn comm() -> Comm {
        Comm::from_bytes(b"nginx")
    }

    const AT_FAILURE: FdLimits = FdLimits { soft: Limit::Of(10), hard: Limit::Of(20) };

    #[test]
    fn everything_readable() {
        let fixture = Fixture::new();
        let process = fixture.processes().describe(fixture.id, &comm());
        assert_eq!(process.id, fixture.id);
        assert_eq!(process.comm, comm());
        assert_eq!(process.exe.as_deref(), Some(Path::new("/usr/sbin/nginx")));
        let arguments = [&b"nginx"[..], b"-c", b"/etc/nginx.conf"].map(<[u8]>::to_vec);
        assert_eq!(process.cmdline.as_deref(), Some(&arguments[..]));
        assert_eq!(process.unit.as_deref(), Some("nginx.service"));
        assert_eq!((process.container, process.pod), (None, None));
        assert_eq!(process.ns_pid, Some(Pid(7)));

        let usage = fixture.processes().fd_usage(fixture.id, Some(AT_FAILURE));
        let limits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) };
        assert_eq!(usage, FdUsage { open: Some(61), limits: Some(limits) });
        assert!(fixture.processes().is_alive(fixture.id));
    }

    #[test]
    fn each_source_is_optional() {
        let fixture = Fixture::new();
        for name in ["cmdline", "cgroup", "status", "limits", "fd", "exe"] {
            fs::remove_file(fixture.dir().join(name)).unwrap();
        }
        assert_eq!(fixture.processes().describe(fixture.id, &comm()), unread(fixture.id, &comm()));
        assert_eq!(
            fixture.processes().fd_usage(fixture.id, Some(AT_FAILURE)),
            FdUsage { open: None, limits: Some(AT_FAILURE) }
        );
        assert_eq!(fixture.processes().fd_usage(fixture.id, None), FdUsage::default());
        assert!(fixture.processes().is_alive(fixture.id));
    }

    #[test]
    fn a_pod_has_the_name_of_its_host() {
        let fixture = Fixture::new();
        let uid = "0f3a9c1e-6b1d-4a41-9d5e-1c2b3a4d5e6f";
        let id = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
        fixture.file("cgroup", format!("0::/kubepods/burstable/pod{uid}/{id}\n").as_bytes());
        fixture.file("environ", b"PATH=/bin\0HOSTNAME=web-0\0");
        let uts = |pid: &str, target: &str| {
            let dir = fixture.root.path().join(pid).join("ns");
            fs::create_dir_all(&dir).unwrap();
            let _ = fs::remove_file(dir.join("uts"));
            symlink(target, dir.join("uts")).unwrap();
        };
        let name = || {
            let process = fixture.processes().describe(fixture.id, &comm());
            let pod = process.pod.unwrap();
            assert_eq!(pod.uid, uid);
            pod.name
        };
        // Nobody can say whose name that is; then its own.
        assert_eq!(name(), None);
        uts("812", "uts:[2]");
        assert_eq!(name().as_deref(), Some("web-0"));
        uts("1", "uts:[1]");
        assert_eq!(name().as_deref(), Some("web-0"));
        // That of the host, whatever that is.
        for (pid, host) in [("812", "uts:[4026531838]"), ("812", "uts:[1]"), ("self", "uts:[2]")] {
            uts("812", "uts:[2]");
            uts(pid, host);
            assert_eq!(name(), None, "{host}");
        }
        fs::remove_dir_all(fixture.root.path().join("self")).unwrap();
        fixture.file("environ", b"HOSTNAME=\x1b[31m\0");
        assert_eq!(name(), None);
        fs::remove_file(fixture.dir().join("environ")).unwrap();
        assert_eq!(name(), None);
    }

    #[test]
    fn descriptors_are_listed_where_the_size_says_nothing() {
        let fixture = Fixture::new();
        fixture.file("fd", b"");
        // Not a directory: the listing fails, and the count stays unknown instead of 0.
        assert_eq!(fixture.processes().fd_usage(fixture.id, None).open, None);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let fixture = Fixture::new();
        fixture.stat("S", 1, 90_000);
        let mut processes = fixture.processes();
        assert_eq!(processes.describe(fixture.id, &comm()), unread(fixture.id, &comm()));
        assert_eq!(
            processes.fd_usage(fixture.id, Some(AT_FAILURE)),
            FdUsage { open: None, limits: Some(AT_FAILURE) }
        );
        assert!(!processes.is_alive(fixture.id));
        // Not remembered either.
        fixture.stat("S", 1, 88_123);
        assert!(processes.describe(fixture.id, &comm()).exe.is_some());
    }

    #[test]
    fn within_one_tick_is_the_same_process() {
        let fixture = Fixture::new();
        for ticks in [88_122, 88_123] {
            fixture.stat("S", 1, ticks + 1);
            assert!(fixture.processes().is_alive(fixture.id), "{ticks}");
        }
        fixture.stat("S", 1, 88_125);
        assert!(!fixture.processes().is_alive(fixture.id));
    }

    #[test]
    fn the_dead_and_the_unreadable() {
        let fixture = Fixture::new();
        fixture.stat("Z", 1, 88_123);
        assert!(!fixture.processes().is_alive(fixture.id));
        fixture.stat("Z", 2, 88_123);
        assert!(fixture.processes().is_alive(fixture.id));
        fixture.file("stat", b"?");
        assert!(fixture.processes().is_alive(fixture.id), "nobody knows");
        fs::remove_dir_all(fixture.dir()).unwrap();
        assert!(!fixture.processes().is_alive(fixture.id));
    }

    #[test]
    fn remembers_and_takes_the_new_name() {
        let fixture = Fixture::new();
        let mut processes = fixture.processes();
        let first = processes.describe(fixture.id, &comm());
        fs::remove_dir_all(fixture.dir()).unwrap();
        let renamed = Comm::from_bytes(b"worker");
        let expected = Process { comm: renamed.clone(), ..first };
        assert_eq!(processes.describe(fixture.id, &renamed), expected);
    }

    #[test]
    fn forgets_the_oldest() {
        let mut processes = Processes::new(PathBuf::from("/nonexistent"));
        let id = |pid| ProcessId { pid: Pid(pid), started: BootTime(Duration::ZERO) };
        for pid in 0..5000 {
            processes.remember(unread(id(pid), &comm()));
        }
        assert_eq!(processes.known.len(), MOST_CACHED);
        assert_eq!(processes.order.len(), MOST_CACHED);
        assert!(!processes.known.contains_key(&id(0)));
        assert!(processes.known.contains_key(&id(4999)));
    }

    #[test]
    fn bounded_arguments() {
        let fixture = Fixture::new();
        fixture.file("cmdline", "x\0".repeat(100_000).as_bytes());
        let process = fixture.processes().describe(fixture.id, &comm());
        assert_eq!(process.cmdline.unwrap().len(), MOST_ARGUMENTS);
        fixture.file("cmdline", "x".repeat(100_000).as_bytes());
        let process = fixture.processes().describe(fixture.id, &comm());
        assert_eq!(process.cmdline.unwrap()[0].len(), 4096);
    }

    /// This very process, in the real `/proc`.
    #[test]
    fn the_running_kernel() {
        let pid = std::process::id();
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap();
        let ticks = super::super::parse::stat(&stat).unwrap().start_ticks;
        let started = BootTime::from_nanos(ticks * (1_000_000_000 / procfs::ticks_per_second()));
        let id = ProcessId { pid: Pid(pid), started };
        let mut processes = Processes::new(PathBuf::from("/proc"));
        assert!(processes.is_alive(id));
        let process = processes.describe(id, &comm());
        assert_eq!(process.exe, Some(std::env::current_exe().unwrap()));
        assert!(process.ns_pid.is_some());
        let usage = processes.fd_usage(id, None);
        assert!(usage.open.is_some_and(|open| open >= 3));
        assert!(usage.limits.is_some());
    }
}
