//! The manifests, held against Kubernetes's own types: what is written there and not here is no field
//! of theirs.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Namespace, ServiceAccount},
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{CAPABILITIES, read};

#[track_caller]
fn documents() -> Vec<Value> {
    let text = read("kubernetes/fdtrace.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).unwrap()).collect()
}

#[track_caller]
fn document(kind: &str) -> Value {
    documents().into_iter().find(|document| document["kind"] == kind).unwrap()
}

/// Reads it as its type and writes it again: the types leave out what they do not know.
#[track_caller]
fn typed<T: DeserializeOwned + Serialize>(kind: &str) -> T {
    let document = document(kind);
    let typed: T = serde_json::from_value(document.clone()).unwrap();
    let again = serde_json::to_value(&typed).unwrap();
    assert_eq!(again, document, "{kind} has what is no field, or is none of that type");
    typed
}

#[test]
fn every_document_is_of_its_type() {
    typed::<Namespace>("Namespace");
    typed::<ServiceAccount>("ServiceAccount");
    typed::<ConfigMap>("ConfigMap");
    typed::<DaemonSet>("DaemonSet");
    assert_eq!(documents().len(), 4);
}

#[test]
fn the_daemon_set_selects_its_pods_and_uses_what_there_is() {
    let set: DaemonSet = typed("DaemonSet");
    let spec = set.spec.unwrap();
    assert_eq!(spec.selector.match_labels, spec.template.metadata.unwrap().labels);
    let pod = spec.template.spec.unwrap();
    let account: ServiceAccount = typed("ServiceAccount");
    assert_eq!(pod.service_account_name, account.metadata.name);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!((pod.host_pid, pod.host_network), (Some(true), None));
    let names = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
    let volumes = pod.volumes.unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert!(mounts.iter().all(|mount| mount.read_only == Some(true)));
    assert_eq!(
        names(volumes.iter().map(|volume| volume.name.clone()).collect()),
        names(mounts.into_iter().map(|mount| mount.name).collect())
    );
    let map = volumes.iter().find_map(|volume| volume.config_map.as_ref()).unwrap();
    assert_eq!(Some(&map.name), typed::<ConfigMap>("ConfigMap").metadata.name.as_ref());
}

#[test]
fn the_container_is_not_privileged() {
    let set: DaemonSet = typed("DaemonSet");
    let container = set.spec.unwrap().template.spec.unwrap().containers.remove(0);
    let context = container.security_context.unwrap();
    assert_eq!(context.privileged, None);
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    let capabilities = context.capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    assert_eq!(capabilities.add.unwrap(), CAPABILITIES);
    let port = container.ports.unwrap().remove(0);
    let get = container.readiness_probe.unwrap().http_get.unwrap();
    assert_eq!(get.path.as_deref(), Some("/healthz"));
    // What is listened on is what is scraped.
    let set: DaemonSet = typed("DaemonSet");
    let notes = set.spec.unwrap().template.metadata.unwrap().annotations.unwrap();
    assert_eq!(notes["prometheus.io/port"], port.container_port.to_string());
    let data = typed::<ConfigMap>("ConfigMap").data.unwrap();
    let config: toml::Table = toml::from_str(&data["fdtrace.toml"]).unwrap();
    let listen = config["metrics"]["listen"].as_str().unwrap();
    assert!(listen.ends_with(&format!(":{}", port.container_port)), "{listen}");
}
