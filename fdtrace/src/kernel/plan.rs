//! Which form each probe gets: a pure function of what the host supports and what was asked for.

use super::{
    probes::{Form, FormKind, PROBES, Probe, Step, Wanted},
    records::Buffer,
    support::Support,
};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The forms that may be used, by probe; the last that is about a probe counts.
    pub forms: Vec<FormRequest>,
    /// Whether every call that creates a descriptor is to be seen.
    pub fds: bool,
    /// What carries records; `None` is the best that the host has.
    pub buffer: Option<Buffer>,
}

/// A form asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormRequest {
    /// The probe; `None` is every probe.
    pub probe: Option<String>,
    /// The form.
    pub form: FormChoice,
}

/// Forms that can be asked for. A probe that has no such form uses what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormChoice {
    /// The best the host allows.
    Auto,
    /// `fexit`, `fentry`
    Fexit,
    /// `kprobe`
    Kprobe,
    /// `tracepoint`, `tp_btf`, `cgroup_skb`
    Tracepoint,
    /// `sock_diag`: nothing is attached, and refused clients are polled.
    Polled,
}

impl FormChoice {
    const fn allows(self, kind: FormKind) -> bool {
        match self {
            Self::Auto => true,
            Self::Polled => false,
            Self::Fexit => matches!(kind, FormKind::Fexit | FormKind::Fentry),
            Self::Kprobe => matches!(kind, FormKind::Kprobe),
            Self::Tracepoint => {
                matches!(kind, FormKind::Tracepoint | FormKind::TpBtf | FormKind::CgroupSkb)
            }
        }
    }
}

/// Names of the probes, in the order of outputs.
pub fn probe_names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name)
}

/// Why a form is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The form.
    pub form: &'static str,
    /// Why, for a person.
    pub why: String,
    /// The host forbids it, rather than lacks it.
    pub is_forbidden: bool,
}

/// What is done for one probe.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) probe: &'static Probe,
    /// The form chosen, with the steps that this host has.
    pub(super) chosen: Option<(FormKind, Vec<Step>)>,
    /// Better forms, and why they are not used.
    pub(super) refused: Vec<Refused>,
    /// What was asked for.
    pub(super) choice: FormChoice,
}

/// What is done for every probe that is wanted.
#[derive(Debug)]
pub(super) struct AttachPlan {
    pub(super) probes: Vec<Planned>,
}

impl AttachPlan {
    pub(super) fn from_support(support: &Support, request: &Request) -> Self {
        let wanted = PROBES.iter().filter(|probe| probe.wanted != Wanted::ForFds || request.fds);
        Self { probes: wanted.map(|probe| Planned::new(probe, support, request)).collect() }
    }
}

impl Planned {
    fn new(probe: &'static Probe, support: &Support, request: &Request) -> Self {
        let asked = request
            .forms
            .iter()
            .rev()
            .find(|asked| asked.probe.as_ref().is_none_or(|name| name == probe.name));
        let choice = asked.map_or(FormChoice::Auto, |asked| asked.form);
        let mut refused = Vec::new();
        for form in probe.forms.iter().filter(|form| choice.allows(form.kind)) {
            match usable(form, support) {
                Ok(steps) => {
                    let chosen = Some((form.kind, steps));
                    return Self { probe, chosen, refused, choice };
                }
                Err(why) => refused.push(why),
            }
        }
        Self { probe, chosen: None, refused, choice }
    }
}

/// The steps of a form on this host, or what stands against it.
pub(super) fn usable(form: &Form, support: &Support) -> Result<Vec<Step>, Refused> {
    let refuse = |why: String, is_forbidden| Refused { form: form.kind.name(), why, is_forbidden };
    let mut steps = Vec::new();
    for step in form.steps {
        let step = support.resolve(*step);
        if let Some(against) = support.against(step.point) {
            return Err(refuse(against.why.clone(), against.is_forbidden));
        }
        match support.missing(step.point) {
            None => steps.push(step),
            Some(_) if support.may_lack(step) => {}
            Some(why) => return Err(refuse(why, false)),
        }
    }
    if steps.is_empty() {
        return Err(refuse("this kernel has none of its attach points".to_owned(), false));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::probes::Point;

    /// `accept=fexit socket=fexit …`
    fn forms(support: &Support, request: &Request) -> String {
        let plan = AttachPlan::from_support(support, request);
        let form = |planned: &Planned| {
            let form = planned.chosen.as_ref().map_or("none", |(kind, _)| kind.name());
            format!("{}={form}", planned.probe.name)
        };
        plan.probes.iter().map(form).collect::<Vec<_>>().join(" ")
    }

    /// What changes where something is taken away from a host that has everything.
    #[track_caller]
    fn without(take: impl FnOnce(&mut Support), want: &str) {
        changes(&Support::capable(), take, want);
    }

    /// The same of any host.
    #[track_caller]
    fn changes(host: &Support, take: impl FnOnce(&mut Support), want: &str) {
        let request = Request { fds: true, ..Request::default() };
        let before = forms(host, &request);
        let mut less = host.clone();
        take(&mut less);
        let after = forms(&less, &request);
        let changed = before.split(' ').zip(after.split(' '));
        let changed: Vec<_> =
            changed.filter(|(before, after)| before != after).map(|(_, after)| after).collect();
        assert_eq!(changed.join(" "), want);
    }

    #[test]
    fn a_capable_host_gets_the_best_of_each() {
        let every = "accept=fexit socket=fexit socketpair=fexit listen=fexit io_uring=fexit";
        assert_eq!(
            forms(&Support::capable(), &Request::default()),
            format!("{every} syn=fentry ack=fentry")
        );
        let fds = Request { fds: true, ..Request::default() };
        assert_eq!(
            forms(&Support::capable(), &fds),
            format!("{every} fds=fexit syn=fentry ack=fentry")
        );
    }

    #[test]
    fn what_is_missing_costs_no_other_probe_its_form() {
        let function = |name| {
            move |host: &mut Support| {
                host.functions.remove(name);
            }
        };
        let takes = |name, arguments| {
            move |host: &mut Support| {
                host.functions.insert(name, arguments);
            }
        };
        without(function("__sys_accept4"), "accept=tracepoint");
        without(function("__sys_socket"), "socket=tracepoint");
        without(function("__sys_socketpair"), "socketpair=tracepoint");
        without(function("__sys_listen"), "listen=tracepoint");
        // What tells an accept of io_uring from the rest is not needed where there is none.
        without(function("io_accept"), "io_uring=tp_btf");
        without(function("alloc_fd"), "fds=tracepoint");
        without(function("alloc_empty_file"), "fds=tracepoint");
        // Less is seen, but the form stays.
        without(function("do_inotify_init"), "");
        without(function("create_pipe_files"), "");
        without(function("tcp_conn_request"), "syn=cgroup_skb");
        without(function("tcp_v4_syn_recv_sock"), "ack=cgroup_skb");
        without(function("tcp_v6_syn_recv_sock"), "ack=cgroup_skb");
        without(takes("__sys_accept4", 5), "accept=tracepoint");
        without(takes("tcp_v4_syn_recv_sock", 6), "");
        without(|host| host.has_func_ret = false, "fds=kprobe");
        without(|host| host.typed_tracepoints.clear(), "");
        without(|host| host.has_kprobes = false, "");
        without(|host| host.cgroup = None, "");
        without(|host| host.sys_exits.clear(), "");
        without(|host| host.no_tracefs = Some("not mounted".to_owned()), "");
        without(|host| _ = host.typed_tracepoints.insert("io_uring_complete", 5), "");
        without(function("io_fixed_fd_install"), "");
        without(|host| host.has_ipv6 = false, "");
        let no_ipv6 = |host: &mut Support| {
            function("tcp_v6_syn_recv_sock")(host);
            host.has_ipv6 = false;
        };
        without(no_ipv6, "");
    }

    /// As the policy of a hardened host.
    fn forbid(host: &mut Support) {
        let point = Point::Fexit(crate::kernel::probes::OLD_ALLOC_FD);
        host.learn(point, "not permitted".to_owned(), true);
    }

    /// Why a probe does without a form.
    fn why(host: &Support, probe: &str, form: &str) -> String {
        let plan = AttachPlan::from_support(host, &Request { fds: true, ..Request::default() });
        let planned = plan.probes.iter().find(|planned| planned.probe.name == probe).unwrap();
        planned.refused.iter().find(|refused| refused.form == form).unwrap().why.clone()
    }

    #[test]
    fn what_the_next_best_forms_take() {
        let mut host = Support::capable();
        forbid(&mut host);
        let calls = "accept=kprobe socket=kprobe socketpair=kprobe listen=kprobe";
        let no_tracefs = |host: &mut Support| host.no_tracefs = Some("not mounted".to_owned());
        changes(&host, no_tracefs, calls);
        changes(&host, |host| host.sys_exits.clear(), calls);
        let one = |host: &mut Support| assert!(host.sys_exits.remove("accept4"));
        changes(&host, one, "accept=kprobe");
        changes(&host, |host| host.typed_tracepoints.clear(), "io_uring=kprobe");
        for known in [3, 7] {
            let takes =
                |host: &mut Support| _ = host.typed_tracepoints.insert("io_uring_complete", known);
            changes(&host, takes, "");
        }
        let unknown =
            |host: &mut Support| _ = host.typed_tracepoints.insert("io_uring_complete", 5);
        changes(&host, unknown, "io_uring=kprobe");
        let no_function = |host: &mut Support| _ = host.functions.remove("tcp_v6_syn_recv_sock");
        changes(&host, no_function, "ack=cgroup_skb");
        let no_ipv6 = |host: &mut Support| {
            no_function(host);
            host.has_ipv6 = false;
        };
        changes(&host, no_ipv6, "");
        changes(&host, |host| host.cgroup = None, "");
        let no_kprobes = |host: &mut Support| host.has_kprobes = false;
        changes(&host, no_kprobes, "fds=tracepoint syn=cgroup_skb ack=cgroup_skb");

        let mut less = host.clone();
        no_tracefs(&mut less);
        assert_eq!(why(&less, "accept", "tracepoint"), "not mounted");
        let mut less = host.clone();
        one(&mut less);
        assert!(why(&less, "accept", "tracepoint").contains("sys_exit_accept4"));
        let mut less = host.clone();
        unknown(&mut less);
        assert!(why(&less, "io_uring", "tp_btf").contains("has 5 arguments"));
        let mut less = host.clone();
        no_kprobes(&mut less);
        changes(&less, |host| host.cgroup = None, "syn=none ack=none");
        assert!(why(&less, "syn", "kprobe").contains("CONFIG_KPROBE_EVENTS"));
    }

    #[test]
    fn a_host_without_trampolines_falls_back_probe_by_probe() {
        let fallen = "accept=tracepoint socket=tracepoint socketpair=tracepoint listen=tracepoint";
        without(
            |host| host.has_kernel_btf = false,
            &format!("{fallen} io_uring=kprobe fds=kprobe syn=kprobe ack=kprobe"),
        );
        without(forbid, &format!("{fallen} io_uring=tp_btf fds=kprobe syn=kprobe ack=kprobe"));
        let only_tracepoints = |host: &mut Support| {
            forbid(host);
            host.has_kprobes = false;
        };
        without(
            only_tracepoints,
            &format!("{fallen} io_uring=tp_btf fds=tracepoint syn=cgroup_skb ack=cgroup_skb"),
        );
        let nothing = |host: &mut Support| {
            only_tracepoints(host);
            host.sys_exits.clear();
            host.typed_tracepoints.clear();
            host.cgroup = None;
        };
        without(
            nothing,
            "accept=none socket=none socketpair=none listen=none io_uring=none fds=none syn=none \
             ack=none",
        );
    }

    #[test]
    fn what_cannot_be_attached_at_one_point_is_attached_elsewhere() {
        // As x86-64 before 6.6: no trampoline for seven arguments.
        let mut host = Support::capable();
        let ack = AttachPlan::from_support(&host, &Request::default()).probes.pop().unwrap();
        let point = ack.chosen.unwrap().1[0].point;
        host.learn(point, "ENOTSUPP".to_owned(), false);
        assert!(forms(&host, &Request::default()).ends_with("syn=fentry ack=kprobe"));
        let ack = AttachPlan::from_support(&host, &Request::default()).probes.pop().unwrap();
        let refused = Refused { form: "fentry", why: "ENOTSUPP".to_owned(), is_forbidden: false };
        assert_eq!(ack.refused, [refused]);
    }

    #[test]
    fn before_5_11_the_allocator_has_another_name() {
        let old = |host: &mut Support| {
            host.functions.remove("alloc_fd");
            host.functions.insert("__alloc_fd", 4);
        };
        // What goes with it in the form fexit takes what is younger.
        without(old, "fds=kprobe");
        let mut host = Support::capable();
        old(&mut host);
        let plan = AttachPlan::from_support(&host, &Request { fds: true, ..Request::default() });
        let fds = plan.probes.iter().find(|planned| planned.probe.name == "fds").unwrap();
        let (_, steps) = fds.chosen.as_ref().unwrap();
        for point in ["kprobe/__alloc_fd", "kretprobe/__alloc_fd"] {
            assert!(steps.iter().any(|step| step.point.name() == point), "{point}");
        }
    }

    #[test]
    fn a_form_asked_for_is_the_only_one() {
        let ask = |form| Request {
            forms: vec![FormRequest { probe: None, form }],
            fds: true,
            buffer: None,
        };
        let all = |form: &str, others: &str| {
            let calls = ["accept", "socket", "socketpair", "listen"];
            let calls: Vec<_> = calls.iter().map(|call| format!("{call}={form}")).collect();
            format!("{} {others}", calls.join(" "))
        };
        let host = Support::capable();
        assert_eq!(
            forms(&host, &ask(FormChoice::Kprobe)),
            all("kprobe", "io_uring=kprobe fds=kprobe syn=kprobe ack=kprobe")
        );
        assert_eq!(
            forms(&host, &ask(FormChoice::Tracepoint)),
            all("tracepoint", "io_uring=tp_btf fds=tracepoint syn=cgroup_skb ack=cgroup_skb")
        );
        let mut less = host.clone();
        less.has_kprobes = false;
        assert!(forms(&less, &ask(FormChoice::Kprobe)).starts_with("accept=none socket=none"));
        // The last word about a probe counts.
        let mut mixed = ask(FormChoice::Fexit);
        let ack = FormRequest { probe: Some("ack".to_owned()), form: FormChoice::Kprobe };
        mixed.forms.push(ack);
        assert!(forms(&host, &mixed).ends_with("syn=fentry ack=kprobe"));
    }
}
