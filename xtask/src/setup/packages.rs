//! Every Debian package that the project's tasks use, with the reason for it.

/// A package that some task needs.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    /// With this program already there, from wherever it came, the package is not installed.
    pub(crate) unless: Option<&'static str>,
    pub(crate) task: Task,
}

/// What a package is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Building and linting the eBPF object.
    Ebpf,
    /// Running the tests, on this machine and in virtual ones.
    Tests,
    /// Virtual machines of arm64.
    Arm64,
    /// What fdtrace is measured beside.
    Bench,
}

const fn ebpf(name: &'static str, why: &'static str) -> Package {
    Package { name, why, unless: None, task: Task::Ebpf }
}

const fn test(name: &'static str, why: &'static str) -> Package {
    Package { name, why, unless: None, task: Task::Tests }
}

const fn test_unless(program: &'static str, name: &'static str, why: &'static str) -> Package {
    Package { name, why, unless: Some(program), task: Task::Tests }
}

const fn arm64(name: &'static str, why: &'static str) -> Package {
    Package { name, why, unless: None, task: Task::Arm64 }
}

const fn bench(program: &'static str, name: &'static str, why: &'static str) -> Package {
    Package { name, why, unless: Some(program), task: Task::Bench }
}

/// The table. Servers are installed, never started: see `apt::install`.
pub(crate) const PACKAGES: &[Package] = &[
    ebpf("rustc-web", "a compiler with LLVM 22 that its package pins"),
    ebpf("libstd-rust-web-dev-bpf", "core, compiled for bpfel-unknown-none"),
    ebpf("rust-web-clippy", "lints for the eBPF crate, from the same compiler"),
    ebpf("llvm-22-dev", "what bpf-linker is linked with; llvm-objcopy"),
    ebpf("libpolly-22-dev", "a part of LLVM that bpf-linker's link names"),
    Package {
        name: "g++",
        why: "links bpf-linker with LLVM, which is C++",
        unless: Some("c++"),
        task: Task::Ebpf,
    },
    test("qemu-system-x86", "runs the kernels of cargo xtask vm"),
    test("busybox-static", "is everything in that machine but fdtrace and its tests"),
    test("debian-archive-keyring", "verifies the kernels of other releases than this one"),
    test("xz-utils", "unpacks kernel modules"),
    test("iproute2", "makes network namespaces and veth pairs; ss to compare with"),
    test("util-linux", "unshare, nsenter, prlimit"),
    test("libcap2-bin", "capsh: fdtrace with fewer capabilities"),
    test("crun", "runs the container of deploy/kubernetes, as Podman and CRI-O run theirs"),
    test("runc", "runs the same, as containerd and Docker do"),
    test("nginx-light", "a server to trace: pre-fork, epoll"),
    test("redis-server", "a server to trace: one thread, epoll"),
    test("haproxy", "a server to trace: stops accepting at its maxconn"),
    test("wrk", "many clients of a server that refuses nobody"),
    test("supervisor", "a parent that passes its soft limit on"),
    test("runit", "a parent that runs its script anew with each start"),
    test("golang-go", "builds a server to trace: net/http backs off after EMFILE"),
    test_unless("node", "nodejs", "a server to trace: libuv's spare-fd trick"),
    test_unless(
        "python3",
        "python3",
        "a server to trace: accepts a hundred times in vain, then waits 1 s",
    ),
    test("prometheus", "promtool tests the alert rules; it scrapes fdtrace and fires them"),
    test("prometheus-alertmanager", "gets the alerts that prometheus fires"),
    test_unless("systemd-analyze", "systemd", "systemd-analyze reads the unit"),
    test("dpkg-dev", "dpkg-shlibdeps: what the Debian package depends on"),
    test("logrotate", "reads the file that the Debian package has for it"),
    test("lintian", "looks over the Debian package of cargo xtask dist"),
    arm64("qemu-system-arm", "runs the kernels of cargo xtask vm --arch arm64"),
    arm64("gcc-aarch64-linux-gnu", "links fdtrace and its tests for that machine"),
    arm64("libc6-dev-arm64-cross", "the C library that they are linked with"),
    bench("strace", "strace", "each failed call of one process"),
    bench("perf", "linux-perf", "perf trace, and perf stat with a filter"),
    bench("bpftrace", "bpftrace", "one-liners"),
    bench("syscount-bpfcc", "bpfcc-tools", "syscount and tcpsynbl in Python"),
    bench("syscount", "libbpf-tools", "syscount and tcpsynbl in C"),
    bench("sysdig", "sysdig", "filters by errno, where its module can be loaded"),
];
