//! EMFILE of inotify_init: a user has all the instances it may have, whatever the process's limit
//! (fs/notify/inotify/inotify_user.c inotify_new_group).

use super::{LimitFacts, remedy, words::name};
use crate::model::{Cause, Certainty, Diagnosis, Evidence, Value};

pub(super) fn diagnose(facts: &LimitFacts<'_>) -> Diagnosis {
    let sysctl = &facts.provenance.system.inotify_instances;
    let own = facts.provenance.chain.first();
    let mut unknown = facts.provenance.unknown.clone();
    let instances = facts.inotify_instances;
    let is_certain = instances.zip(sysctl.value).is_some_and(|(instances, most)| instances >= most);
    if !is_certain {
        unknown.push("how many inotify instances the user had when it failed".into());
    }
    let user = own.and_then(|own| own.uid).map_or("the user".into(), |uid| format!("user {uid}"));
    let of = own.map_or(String::new(), |own| format!(" of {}", name(own)));
    let most = sysctl.value.map_or(String::new(), |value| format!(" ({value})"));
    let count = |fact, value: Option<u64>, source: Option<&str>| {
        value.map(|value| Evidence {
            fact,
            value: Value::Count(value),
            unit: Some("inotify instances"),
            source: source.map(str::to_owned),
        })
    };
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let evidence = [
        count("inotify_instances", instances, None),
        count("max_user_instances", sysctl.value, Some(path)),
    ];
    let target = sysctl.value.unwrap_or(128).saturating_mul(8).max(1024);
    let key = "fs.inotify.max_user_instances";
    Diagnosis {
        cause: Cause::InotifyInstances,
        certainty: if is_certain { Certainty::Certain } else { Certainty::Likely },
        why: format!(
            "inotify_init{of} failed: {user} {} as many inotify instances as {key}{most} allows; \
             its limit of descriptors is not in question",
            if is_certain { "has" } else { "had, it seems," }
        ),
        evidence: evidence.into_iter().flatten().collect(),
        remedies: remedy::sysctl(key, target, sysctl.configured.as_ref()),
        unknown,
    }
}
