//! Components of a cgroup path that a container is named after.

use crate::model::{Container, Engine};

/// All containers on a path, the outermost first: one can run in another. With each the number of
/// the component that is its own.
pub(super) fn all<'a>(components: &'a [&'a str]) -> impl Iterator<Item = (usize, Container)> + 'a {
    (0..components.len()).filter_map(|place| Some((place, at(components, place)?)))
}

fn at(components: &[&str], place: usize) -> Option<Container> {
    let component = *components.get(place)?;
    let parent = place.checked_sub(1).and_then(|parent| components.get(parent)).copied();
    let child = components.get(place + 1).copied();
    by_id(component, parent)
        .or_else(|| lxc(component, parent, place))
        .or_else(|| machine(component, child))
        .or_else(|| machine_service(component, parent))
}

/// What runtimes put before the id.
///
/// `crio-conmon-` and `libpod-conmon-` are missing on purpose: conmon watches the container from
/// outside of it.
const PREFIXES: [(&str, Engine); 6] = [
    ("docker-", Engine::Docker),
    ("cri-containerd-", Engine::Containerd),
    ("nerdctl-", Engine::Containerd),
    ("crio-", Engine::Crio),
    ("libpod-payload-", Engine::Podman),
    ("libpod-", Engine::Podman),
];

/// Runtimes whose ids are 64 hexadecimal digits.
fn by_id(component: &str, parent: Option<&str>) -> Option<Container> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    // `SLICE:cri-containerd:ID`: the CRI plugin of containerd told to use systemd's names while
    // runc uses the cgroupfs driver, which takes them for one name.
    let mut parts = name.rsplit(':');
    let last = parts.next()?;
    let before = parts.next();
    let prefixed = PREFIXES
        .iter()
        .find_map(|(prefix, engine)| Some((last.strip_prefix(prefix)?, Some(*engine))));
    let (id, engine) = prefixed.unwrap_or_else(|| {
        let is_named = |engine: &&(&str, Engine)| engine.0.strip_suffix('-') == before;
        let named = PREFIXES.iter().find(is_named).map(|(_, engine)| *engine);
        // The default parent of Docker's cgroupfs driver. Kubernetes's parents are the same with
        // every runtime.
        let docker = (parent == Some("docker")).then_some(Engine::Docker);
        (last, named.or(docker))
    });
    is_hex(id, 64).then(|| Container { id: id.to_owned(), engine })
}

/// Whether it is so many digits, as they are written in ids.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `lxc.payload.NAME` since LXC 4, `lxc.payload/NAME` and `lxc/NAME` before. The monitor has
/// `lxc.monitor.NAME` and is outside.
fn lxc(component: &str, parent: Option<&str>, place: usize) -> Option<Container> {
    let older = || {
        let is_below = parent == Some("lxc.payload") || (parent == Some("lxc") && place == 2);
        is_below.then_some(component)
    };
    let name = component.strip_prefix("lxc.payload.").or_else(older)?;
    named(name, Engine::Lxc)
}

/// `machine-NAME.scope` of systemd-machined. systemd-nspawn itself may be in `supervisor` below.
fn machine(component: &str, child: Option<&str>) -> Option<Container> {
    let name = component.strip_prefix("machine-")?.strip_suffix(".scope")?;
    let name = unescape(name)?;
    if child == Some("supervisor") || is_of_libvirt(&name) {
        return None;
    }
    named(&name, Engine::Nspawn)
}

/// Below `systemd-nspawn@NAME.service`: `payload`, or what the container's own systemd makes.
/// systemd-nspawn itself is in the service, or in `supervisor`.
fn machine_service(component: &str, parent: Option<&str>) -> Option<Container> {
    let name = parent?.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
    let is_inside = matches!(component, "payload" | "init.scope")
        || component.rsplit_once('.').is_some_and(|(_, kind)| kind == "slice");
    if !is_inside {
        return None;
    }
    named(&unescape(name)?, Engine::Nspawn)
}

/// libvirt registers its machines too, as `DRIVER-NUMBER-NAME`: `qemu-3-web` is no container, but
/// the emulator.
fn is_of_libvirt(name: &str) -> bool {
    let mut parts = name.splitn(3, '-');
    let driver = matches!(parts.next(), Some("qemu" | "lxc" | "xen" | "ch" | "bhyve"));
    let number = parts.next().is_some_and(|number| number.parse::<u32>().is_ok());
    driver && number && parts.next().is_some()
}

/// Undoes systemd's `unit_name_escape()`: `\x2d` is a `-`, and a `-` would be a `/`.
fn unescape(name: &str) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        let byte = u8::from_str_radix(after.get(..2)?, 16).ok()?;
        text.push(byte.is_ascii().then_some(char::from(byte))?);
        rest = after.get(2..)?;
    }
    text.push_str(rest);
    Some(text)
}

/// A container that has a name only. Others than host names are not given to any.
fn named(name: &str, engine: Engine) -> Option<Container> {
    const MOST: usize = 255;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name =
        (1..=MOST).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain);
    is_name.then(|| Container { id: name.to_owned(), engine: Some(engine) })
}
