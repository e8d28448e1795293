//! What runtimes write, as `/proc/PID/cgroup` shows it.

use super::*;
use crate::model::Engine;

const ID: &str = "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";
const OTHER: &str = "0011223344556677889900aabbccddeeff00112233445566778899aabbccddee";

#[track_caller]
fn check(text: &str, unit: Option<&str>, container: Option<&str>) {
    let found = place(text);
    let id = found.container.map(|container| container.id);
    assert_eq!((found.unit.as_deref(), id.as_deref()), (unit, container), "{text}");
}

fn place(text: &str) -> Placement {
    let text = text.replace("<ID>", ID).replace("<OTHER>", OTHER).replace("<UID>", UID);
    placement(&text.replace("<U_ID>", &UID.replace('-', "_")))
}

const UID: &str = "0f3a9c1e-6b1d-4a41-9d5e-1c2b3a4d5e6f";

/// The runtime, and the UID of the pod.
#[track_caller]
fn check_pod(text: &str, engine: Option<Engine>, pod: Option<&str>) {
    let found = place(text);
    let container = found.container.unwrap_or_else(|| panic!("no container: {text}"));
    let uid = found.pod.map(|pod| pod.uid);
    assert_eq!(
        (container.id.as_str(), container.engine, uid.as_deref()),
        (ID, engine, pod),
        "{text}"
    );
}

#[track_caller]
fn check_named(text: &str, engine: Engine, name: &str, unit: Option<&str>) {
    let found = place(text);
    let container = found.container.unwrap_or_else(|| panic!("no container: {text}"));
    assert_eq!((container.engine, container.id.as_str()), (Some(engine), name), "{text}");
    assert_eq!(found.unit.as_deref(), unit, "{text}");
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

/// As fdtrace sees them from a container with a cgroup namespace of its own and the host's processes:
/// what is beside its own cgroup or its parents is behind one `..` for each that it is below the root.
#[test]
fn from_inside_a_cgroup_namespace() {
    check("0::/../../system.slice/x.service\n", Some("x.service"), None);
    check("0::/../../../../system.slice/x.service\n", Some("x.service"), None);
    check("0::/../x.service/worker\n", Some("x.service"), None);
    check("0::/../../system.slice/docker-<ID>.scope\n", None, Some(ID));
    check("0::/../../../init.scope\n", Some("init.scope"), None);
    let pod = "0::/../../kubepods-burstable.slice/kubepods-burstable-pod<U_ID>.slice/\
               cri-containerd-<ID>.scope\n";
    check(pod, None, Some(ID));
    check_pod(pod, Some(Engine::Containerd), Some(UID));
    // Beside its own container in the same pod, of which the name stays hidden.
    check("0::/../cri-containerd-<ID>.scope\n", None, Some(ID));
    check("0::/../../user.slice/user-1000.slice/session-3.scope\n", Some("session-3.scope"), None);
    // The root, and what is above the namespace's own.
    check("0::/../..\n", None, None);
    check("0::/\n", None, None);
    // Every hierarchy of a hybrid host has a namespace's root of its own.
    check(
        "5:memory:/../x\n1:name=systemd:/../../system.slice/x.service\n0::/..\n",
        Some("x.service"),
        None,
    );
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
    check(&format!("0::/kubepods.slice/kubepods-{pod}.slice/crio-<ID>.scope\n"), None, Some(ID));
    check(&format!("0::/kubepods/{pod}/crio-<ID>\n"), None, Some(ID));
    check(
        &format!("0::/system.slice/containerd.service/kubepods-{pod}.slice:cri-containerd:<ID>\n"),
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
        "0::/lxc.payload.\n",
        "0::/lxc.monitor.web\n",
        "0::/machine.slice/machine-.scope\n",
        "0::/kubepods.slice/kubepods-burstable.slice\n",
    ] {
        let unit = text.contains(".scope").then_some("machine-.scope");
        check(text, unit, None);
    }
    let upper = format!("0::/docker/{}\n", ID.to_uppercase());
    check(&upper, None, None);
}

#[test]
fn user_slices() {
    let of = |text: &str| place(text).user_slice;
    let user = "0::/user.slice/user-1000.slice/";
    for rest in ["session-3.scope", "user@1000.service/app.slice/web.service", ""] {
        let slice = (!rest.is_empty()).then_some("user-1000.slice");
        assert_eq!(of(&format!("{user}{rest}\n")).as_deref(), slice, "{rest}");
    }
    let podman = format!("{user}user@1000.service/user.slice/libpod-<ID>.scope/container\n");
    assert_eq!(of(&podman).as_deref(), Some("user-1000.slice"));
    // That of a container's own systemd is not the host's.
    assert_eq!(of("0::/system.slice/docker-<ID>.scope/user.slice/user-7.slice/x.scope\n"), None);
    assert_eq!(of("0::/system.slice/nginx.service\n"), None);
    assert_eq!(of("0::/user.slice/user-.slice/x.scope\n"), None);
}

#[test]
fn runtimes_without_pods() {
    for (text, engine) in [
        ("0::/system.slice/docker-<ID>.scope\n", Some(Engine::Docker)),
        ("0::/docker/<ID>\n", Some(Engine::Docker)),
        ("12:pids:/docker/<ID>\n1:name=systemd:/docker/<ID>\n", Some(Engine::Docker)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker-<ID>.scope\n",
            Some(Engine::Docker),
        ),
        ("0::/system.slice/nerdctl-<ID>.scope\n", Some(Engine::Containerd)),
        // Its namespace, and no more.
        ("0::/default/<ID>\n", None),
        ("0::/machine.slice/libpod-<ID>.scope/container\n", Some(Engine::Podman)),
        ("11:memory:/libpod_parent/libpod-<ID>\n", Some(Engine::Podman)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<ID>.scope\n",
            Some(Engine::Podman),
        ),
        ("0::/system.slice/web.service/libpod-payload-<ID>\n", Some(Engine::Podman)),
        // Docker in Docker, Docker in LXC, Podman's systemd.
        ("0::/docker/<OTHER>/docker/<ID>\n", Some(Engine::Docker)),
        ("0::/lxc.payload.web/system.slice/docker-<ID>.scope\n", Some(Engine::Docker)),
        ("0::/machine.slice/libpod-<ID>.scope/system.slice/x.service\n", Some(Engine::Podman)),
    ] {
        check_pod(text, engine, None);
    }
}

#[test]
fn kubernetes_of_every_runtime_and_driver() {
    let systemd = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<U_ID>.slice";
    let v1 = |path: &str| format!("11:memory:/{path}\n4:pids:/{path}\n1:name=systemd:/{path}\n");
    let v2 = |path: &str| format!("0::/{path}\n");
    let containerd = Some(Engine::Containerd);
    for (path, engine) in [
        (format!("{systemd}/cri-containerd-<ID>.scope"), containerd),
        (format!("{systemd}/crio-<ID>.scope"), Some(Engine::Crio)),
        (format!("{systemd}/crio-<ID>.scope/container"), Some(Engine::Crio)),
        (format!("{systemd}/docker-<ID>.scope"), Some(Engine::Docker)),
        ("kubepods.slice/kubepods-pod<U_ID>.slice/cri-containerd-<ID>.scope".to_owned(), containerd),
        // All runtimes write the same with the cgroupfs driver, but for CRI-O.
        ("kubepods/burstable/pod<UID>/<ID>".to_owned(), None),
        ("kubepods/besteffort/pod<UID>/<ID>".to_owned(), None),
        ("kubepods/pod<UID>/crio-<ID>".to_owned(), Some(Engine::Crio)),
        (
            "system.slice/containerd.service/kubepods-besteffort-pod<U_ID>.slice:cri-containerd:<ID>"
                .to_owned(),
            containerd,
        ),
        // A node that is a container itself: kind.
        (
            "system.slice/docker-<OTHER>.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-pod<U_ID>.slice/cri-containerd-<ID>.scope"
                .to_owned(),
            containerd,
        ),
        ("docker/<OTHER>/kubelet/kubepods/burstable/pod<UID>/<ID>".to_owned(), None),
        // A container that a container of the pod runs.
        ("kubepods/pod<UID>/<OTHER>/docker/<ID>".to_owned(), Some(Engine::Docker)),
    ] {
        check_pod(&v1(&path), engine, Some(UID));
        check_pod(&v2(&path), engine, Some(UID));
    }
    // A static pod: the hash of its manifest.
    let hash = "0123456789abcdef0123456789abcdef";
    check_pod(&format!("0::/kubepods/burstable/pod{hash}/<ID>\n"), None, Some(hash));
    // conmon is in the slice of the pod and not in its container.
    let monitor = place(&format!("0::/{systemd}/crio-conmon-<ID>.scope\n"));
    assert_eq!((monitor.container, monitor.pod), (None, None));
}

#[test]
fn pods_of_podman() {
    let slice = format!("machine-libpod_pod_{OTHER}.slice");
    let path = format!("0::/machine.slice/{slice}/libpod-<ID>.scope/container\n");
    check_pod(&path, Some(Engine::Podman), Some(OTHER));
    let user = "user.slice/user-1000.slice/user@1000.service/user.slice";
    let path = format!("0::/{user}/user-libpod_pod_{OTHER}.slice/libpod-<ID>.scope\n");
    check_pod(&path, Some(Engine::Podman), Some(OTHER));
}

#[test]
fn pods_that_are_none() {
    let short = &UID[1..];
    for pod in [
        "podinfo".to_owned(),
        format!("pod{short}"),
        format!("pod{}", UID.to_uppercase()),
        "apod<UID>".to_owned(),
        "other-pod<U_ID>.slice".to_owned(),
        "kubepods-<U_ID>.slice".to_owned(),
        format!("machine-libpod_pod_{}.slice", &ID[1..]),
    ] {
        check_pod(&format!("0::/{pod}/<ID>\n"), None, None);
    }
}

#[test]
fn inside_a_cgroup_namespace() {
    // Of another container than the reader's, and of the reader's.
    check_pod("0::/../docker-<ID>.scope\n", Some(Engine::Docker), None);
    check_pod(
        "0::/../../kubepods-burstable-pod<U_ID>.slice/cri-containerd-<ID>.scope\n",
        Some(Engine::Containerd),
        Some(UID),
    );
    check_pod("0::/../../pod<UID>/<ID>\n", None, Some(UID));
    // Another container of the same pod.
    check_pod("0::/../cri-containerd-<ID>.scope\n", Some(Engine::Containerd), None);
    assert_eq!(place("0::/\n"), Placement::default());
    assert_eq!(place("0::/..\n"), Placement::default());
    assert_eq!(place("0::/../../../..\n"), Placement::default());
}

#[test]
fn systemd_nspawn() {
    let name = |text: &str, name: &str, unit: Option<&str>| {
        check_named(text, Engine::Nspawn, name, unit);
    };
    name("0::/machine.slice/machine-web.scope/payload\n", "web", None);
    name("0::/machine.slice/machine-my\\x2dweb.scope/payload/init.scope\n", "my-web", None);
    name("1:name=systemd:/machine.slice/machine-web.scope/system.slice/x.service\n", "web", None);
    let service = "systemd-nspawn@web.service";
    let path = |rest: &str| format!("0::/machine.slice/{service}{rest}\n");
    name(&path("/payload/system.slice/nginx.service"), "web", Some(service));
    name(&path("/payload"), "web", Some(service));
    name(&path("/init.scope"), "web", Some(service));
    // systemd-nspawn itself.
    check(&path("/supervisor"), Some(service), None);
    check(&path(""), Some(service), None);
    let scope = "machine-web.scope";
    check(&format!("0::/machine.slice/{scope}/supervisor\n"), Some(scope), None);
    // libvirt's emulator is no container.
    let qemu = "machine-qemu\\x2d3\\x2dweb.scope";
    check(&format!("0::/machine.slice/{qemu}/libvirt/emulator\n"), Some(qemu), None);
    // Escapes that end early, and what is no name.
    for wrong in [r"machine-a\x2.scope", r"machine-a\x2fb.scope", r"machine-a\xff.scope"] {
        check(&format!("0::/machine.slice/{wrong}\n"), Some(wrong), None);
    }
}

#[test]
fn lxc_and_lxd() {
    let name = |text: &str, name: &str| check_named(text, Engine::Lxc, name, None);
    name("0::/lxc.payload.web\n", "web");
    name("0::/lxc.payload.web/system.slice/nginx.service\n", "web");
    name("0::/lxc.payload.project_web-1/init.scope\n", "project_web-1");
    name("10:memory:/lxc.payload/web\n1:name=systemd:/lxc.payload/web/init.scope\n", "web");
    name("10:memory:/lxc/web\n1:name=systemd:/lxc/web\n", "web");
    // LXD in LXD.
    name("0::/lxc.payload.web/lxc.payload.inner\n", "inner");
    check("0::/lxc.monitor.web\n", None, None);
    check("0::/system.slice/lxc\n", None, None);
    check("0::/srv/lxc/web\n", None, None);
    check("0::/lxc.payload...\n", None, None);
}
