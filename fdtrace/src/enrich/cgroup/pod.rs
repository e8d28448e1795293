//! Components of a cgroup path that a pod is named after.

use super::container::is_hex;
use crate::model::Pod;

/// The innermost pod on a path that ends at a container.
pub(super) fn around(components: &[&str]) -> Option<Pod> {
    let uid = components
        .iter()
        .rev()
        .find_map(|component| kubernetes(component).or_else(|| podman(component)));
    uid.map(|uid| Pod { uid, name: None })
}

/// `kubepods-burstable-podUID.slice` with `_` for `-`, `kubelet-kubepods-podUID.slice` and the like
/// with the systemd driver (kubelet's `cgroup_manager_linux.go`); `podUID` with the cgroupfs driver.
fn kubernetes(component: &str) -> Option<String> {
    // `SLICE:cri-containerd:ID`
    let name = component.split(':').next()?;
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => {
            let (parents, pod) = slice.rsplit_once('-')?;
            parents.split('-').find(|parent| *parent == "kubepods")?;
            pod.strip_prefix("pod")?.replace('_', "-")
        }
        None => name.strip_prefix("pod")?.to_owned(),
    };
    // A static pod has a hash in place of a UUID.
    (is_uuid(&uid) || is_hex(&uid, 32)).then_some(uid)
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && is_hex(&text.replace('-', ""), 32)
}

/// `machine-libpod_pod_ID.slice`, or `user-libpod_pod_ID.slice` of a user.
fn podman(component: &str) -> Option<String> {
    let (_, id) = component.strip_suffix(".slice")?.split_once("-libpod_pod_")?;
    is_hex(id, 64).then(|| id.to_owned())
}
