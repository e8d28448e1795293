//! Attaching what the plan says. What the host refuses is a new fact, and the plan is made anew.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Btf, Ebpf, Endianness,
    maps::{Array, Map, MapData},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, FExit, KProbe,
        Program, ProgramError, TracePoint, cgroup_skb::CgroupSkbLinkId,
    },
};
use fdtrace_common::names;

use super::{
    HostError,
    error::errno_of,
    plan::{AttachPlan, FormChoice, Planned, Refused, Request},
    probes::{FormKind, NO_FORM, POLLED_FORM, Packets, Point, Step, Wanted},
    return_probe::ReturnProbe,
    support::{Support, forbidden},
};

/// One probe, as it is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The fact it observes.
    pub probe: &'static str,
    /// Its form; `none` where the host allows none, `sock_diag` where it is polled then.
    pub form: &'static str,
    /// What it is attached to.
    pub points: Vec<String>,
    /// Better forms that the host refused, and why.
    pub refused: Vec<Refused>,
}

impl Attached {
    /// Whether the packet program observes it, which [may rest](super::Kernel::rest_packets).
    #[must_use]
    pub fn is_of_packets(&self) -> bool {
        self.form == FormKind::CgroupSkb.name()
    }
}

/// What was attached, and where the kernel tells how each program fares.
pub(super) struct AttachReport {
    pub(super) probes: Vec<Attached>,
    pub(super) programs: Vec<Running>,
    pub(super) packets: Option<PacketProgram>,
}

/// The packet program, which costs every packet something while it is attached.
pub(super) struct PacketProgram {
    name: &'static str,
    /// The cgroup that has every process, open for as long as we run.
    root: File,
    link: Option<CgroupSkbLinkId>,
}

impl PacketProgram {
    pub(super) const fn is_attached(&self) -> bool {
        self.link.is_some()
    }

    /// Attaches it where it is not.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        if self.link.is_none() {
            let name = self.name;
            let link = attach_packets(packet_program(ebpf, name)?, &self.root);
            self.link = Some(link.map_err(|error| explain(error, &format!("attaching {name}")))?);
        }
        Ok(())
    }

    /// Detaches it where it is attached. It stays loaded.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        if let Some(link) = self.link.take() {
            let name = self.name;
            let program = packet_program(ebpf, name)?;
            program.detach(link).map_err(|error| explain(error, &format!("detaching {name}")))?;
        }
        Ok(())
    }
}

fn packet_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut CgroupSkb> {
    let program = ebpf.program_mut(name);
    Ok(program.with_context(|| format!("the object has no program {name}"))?.try_into()?)
}

fn attach_packets(program: &mut CgroupSkb, root: &File) -> Result<CgroupSkbLinkId, ProgramError> {
    // A link is always one of many on a cgroup; the mode is for the older way.
    program.attach(root, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)
}

/// A program that is attached.
pub(super) struct Running {
    pub(super) name: &'static str,
    /// `/proc/self/fdinfo` of it, open for as long as we run: on a host that runs out of file
    /// handles nothing new can be opened.
    pub(super) info: File,
    /// Where it is at the return of a function by a kprobe.
    pub(super) return_probe: Option<ReturnProbe>,
}

/// Attaches every probe that is asked for in the best form that the host allows. `ids` is BTF that
/// tells the ids of functions.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    support: &mut Support,
    request: &Request,
    ids: &[u8],
) -> anyhow::Result<AttachReport> {
    let mut attacher = Attacher::new(ebpf, ids)?;
    let mut done: Vec<Attached> = Vec::new();
    loop {
        let plan = AttachPlan::from_support(support, request);
        let Some(next) = plan.probes.into_iter().nth(done.len()) else { break };
        let Some((kind, steps)) = next.chosen.as_ref() else {
            done.push(without(next)?);
            continue;
        };
        match attacher.form(*kind, steps, support) {
            Ok(()) => done.push(Attached {
                probe: next.probe.name,
                form: kind.name(),
                points: steps.iter().map(|step| step.point.name()).collect(),
                refused: next.refused,
            }),
            Err((point, error)) => {
                log::debug!("{}: {}: {error:#}", next.probe.name, point.name());
                support.learn(point, error.to_string(), is_forbidden(&error));
            }
        }
    }
    let Attacher { programs, packet_program, .. } = attacher;
    let report = AttachReport { probes: done, programs, packets: packet_program };
    // The start line says what is not seen; that figures are bounds is worth the reasons, too.
    for probe in report.probes.iter().filter(|probe| probe.form == POLLED_FORM) {
        let why: Vec<_> = probe.refused.iter().map(describe).collect();
        if !why.is_empty() {
            log::warn!("{}: using the form `{}`: {}", probe.probe, probe.form, why.join("; "));
        }
    }
    Ok(report)
}

/// What is left where no form can be attached.
fn without(planned: Planned) -> Result<Attached, HostError> {
    let Planned { probe, refused, choice, .. } = planned;
    let may_poll = probe.forms.iter().any(|form| form.kind == FormKind::CgroupSkb);
    let is_forced = match choice {
        FormChoice::Auto => false,
        FormChoice::Polled => !may_poll,
        _ => true,
    };
    if is_forced || probe.wanted == Wanted::Needed {
        let why: Vec<_> = refused.iter().map(describe).collect();
        let why = if why.is_empty() { "it has no such form".to_owned() } else { why.join("; ") };
        let asked = if is_forced { " in the form that --form asks for" } else { "" };
        let text = format!("`{}` cannot be observed{asked}: {}", probe.name, why);
        let advice = if is_forced { ". Without --form the next best form is used" } else { "" };
        let forbidden = if refused.iter().any(|refused| refused.is_forbidden) {
            format!(". {}", forbidden())
        } else {
            String::new()
        };
        return Err(HostError::Unsupported(format!("{text}{advice}{forbidden}")));
    }
    let form = if may_poll { POLLED_FORM } else { NO_FORM };
    Ok(Attached { probe: probe.name, form, points: Vec::new(), refused })
}

fn describe(refused: &Refused) -> String {
    format!("{}: {}", refused.form, refused.why)
}

/// Attaches programs of one object.
pub(super) struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    /// What the packet program counts.
    packets: Array<MapData, u32>,
    /// BTF that tells the ids of the kernel's functions.
    ids: &'a [u8],
    /// The same, parsed by the first program that needs it.
    btf: Option<Btf>,
    programs: Vec<Running>,
    packet_program: Option<PacketProgram>,
}

impl<'a> Attacher<'a> {
    /// `ids` is BTF that tells the ids of functions.
    pub(super) fn new(ebpf: &'a mut Ebpf, ids: &'a [u8]) -> anyhow::Result<Self> {
        let packets = Array::try_from(take(ebpf, names::PACKETS)?)?;
        Ok(Self { ebpf, packets, ids, btf: None, programs: Vec::new(), packet_program: None })
    }

    /// Attaches every step, or none: then the one that failed is told, and why.
    pub(super) fn form(
        &mut self,
        kind: FormKind,
        steps: &[Step],
        support: &Support,
    ) -> Result<(), (Point, anyhow::Error)> {
        let before = self.programs.len();
        for step in steps {
            if let Err(error) = self.step(*step, support) {
                self.take_back(before);
                return Err((step.point, error));
            }
        }
        log::debug!("attached {}: {} programs", kind.name(), self.programs.len() - before);
        Ok(())
    }

    /// Detaches every program but the first so many.
    pub(super) fn take_back(&mut self, but: usize) {
        for running in self.programs.drain(but..) {
            self.packet_program.take_if(|packets| packets.name == running.name);
            if let Some(program) = self.ebpf.program_mut(running.name)
                && let Err(error) = unload(program)
            {
                log::warn!("{}: cannot be taken back: {error}", running.name);
            }
        }
    }

    fn step(&mut self, step: Step, support: &Support) -> anyhow::Result<()> {
        let Step { program: name, point, .. } = step;
        let is_new = self.programs.iter().all(|running| running.name != name);
        let result = if let Point::Packets(kind) = point {
            self.packets(name, kind, is_new, support)
        } else {
            self.function(name, point, is_new)
        };
        if let Err(error) = result {
            // It may be loaded all the same, and another step that shares it loads it anew.
            if is_new && let Err(error) = unload(self.program(name)?) {
                log::debug!("{name}: was not loaded: {error}");
            }
            return Err(error);
        }
        if is_new {
            let program = self.program(name)?;
            let path = format!("/proc/self/fdinfo/{}", program.fd()?.as_fd().as_raw_fd());
            let info = File::open(&path).with_context(|| format!("open {path}"))?;
            let return_probe = match program {
                Program::KProbe(program) if matches!(point, Point::Kretprobe(_)) => {
                    program.info().ok().and_then(|info| ReturnProbe::of(info.id()))
                }
                _ => None,
            };
            self.programs.push(Running { name, info, return_probe });
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))
    }

    fn function(&mut self, name: &'static str, point: Point, is_new: bool) -> anyhow::Result<()> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))?;
        let loading = |error| refused(error, &format!("loading {name}"));
        let attaching =
            |error: ProgramError| explain(error, &format!("attaching {name} to {}", point.name()));
        match point {
            Point::Fentry(function) => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function.name, parsed(&mut self.btf, self.ids)?).map_err(loading)?;
                program.attach().map_err(attaching)?;
            }
            Point::Fexit(function) => {
                let program: &mut FExit = program.try_into()?;
                program.load(function.name, parsed(&mut self.btf, self.ids)?).map_err(loading)?;
                program.attach().map_err(attaching)?;
            }
            Point::TpBtf(tracepoint) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(tracepoint, parsed(&mut self.btf, self.ids)?).map_err(loading)?;
                program.attach().map_err(attaching)?;
            }
            Point::Kprobe(function) | Point::Kretprobe(function) => {
                let program: &mut KProbe = program.try_into()?;
                program.load().map_err(loading)?;
                program.attach(function.name, 0).map_err(attaching)?;
            }
            Point::SysExit(call) => {
                let program: &mut TracePoint = program.try_into()?;
                if is_new {
                    program.load().map_err(loading)?;
                }
                let event = format!("sys_exit_{call}");
                program.attach("syscalls", &event).map_err(attaching)?;
            }
            Point::Packets(_) => return Err(anyhow!("{} is no function", point.name())),
        }
        Ok(())
    }

    fn packets(
        &mut self,
        name: &'static str,
        kind: Packets,
        is_new: bool,
        support: &Support,
    ) -> anyhow::Result<()> {
        if is_new {
            let root = support.cgroup.as_deref().unwrap_or(Path::new("/sys/fs/cgroup"));
            let shown = root.display();
            let root = File::open(root).with_context(|| format!("open {shown}"))?;
            let program = packet_program(self.ebpf, name)?;
            program.load().map_err(|error| refused(error, &format!("loading {name}")))?;
            let link = attach_packets(program, &root)
                .map_err(|error| explain(error, &format!("attaching {name} to {shown}")))?;
            self.packet_program = Some(PacketProgram { name, root, link: Some(link) });
        }
        Ok(self.packets.set(kind as u32, 1, 0)?)
    }
}

/// Parses what was not parsed yet.
fn parsed<'a>(btf: &'a mut Option<Btf>, ids: &[u8]) -> anyhow::Result<&'a Btf> {
    match btf {
        Some(btf) => Ok(btf),
        none => {
            let btf = Btf::parse(ids, Endianness::default());
            Ok(none.insert(btf.context("index the kernel's functions")?))
        }
    }
}

fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::CgroupSkb(program) => program.unload(),
        _ => Ok(()),
    }
}

fn refused(error: ProgramError, step: &str) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            log::debug!("{step}: {io_error}: {verifier_log}");
            not_loaded(io_error, &verifier_log.to_string(), step)
        }
        error => explain(error, step),
    }
}

/// What bpf(2) said of a program, and what the verifier did.
fn not_loaded(error: io::Error, log: &str, step: &str) -> anyhow::Error {
    match (error.raw_os_error(), verdict(log)) {
        // A policy refuses before the verifier has said a word.
        (Some(libc::EPERM), _) | (_, None) => explain(error, step),
        (_, Some(verdict)) => anyhow!("{step}: the verifier refuses it: {verdict}"),
    }
}

/// The last thing the verifier said, but for its figures.
fn verdict(log: &str) -> Option<&str> {
    const FIGURES: [&str; 4] = ["processed ", "verification time", "stack depth", "max_states"];
    let is_figure = |line: &&str| FIGURES.iter().any(|figures| line.starts_with(figures));
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_figure(line))
}

/// Errors of aya end in the verifier's log, which is long.
fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

pub(super) fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(errno_of(error.as_ref()), Some(libc::EPERM | libc::EACCES))
}

/// EPERM here is the host's word, for the capabilities were checked.
pub(super) fn explain<E>(error: E, step: &str) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = match errno_of(&error) {
        Some(libc::EPERM | libc::EACCES) => format!("{step}: not permitted (EPERM)"),
        // ENOTSUPP, which has no name outside the kernel.
        Some(524) => format!("{step}: the kernel cannot do that on this machine (ENOTSUPP)"),
        Some(_) | None => format!("{step}: {}", first_line(&error)),
    };
    anyhow::Error::new(error).context(text)
}

/// Where a map of the object is needed by name.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn what_is_forbidden_is_told_from_what_cannot_be() {
        let log = "0: R1=ctx()\nR2 type=inv expected=fp\nprocessed 1 insns (limit 1000000)\n";
        let verifier = "loading x: the verifier refuses it: R2 type=inv expected=fp";
        let forbidden = "loading x: not permitted (EPERM)";
        let cannot = "loading x: the kernel cannot do that on this machine (ENOTSUPP)";
        for (errno, log, is_for, says) in [
            // A policy refuses without a word of the verifier's, or after it.
            (libc::EPERM, "", true, forbidden),
            (libc::EPERM, log, true, forbidden),
            (libc::EACCES, "", true, forbidden),
            // The verifier says EACCES and EINVAL for what a program may not do.
            (libc::EACCES, log, false, verifier),
            (libc::EINVAL, log, false, verifier),
            (524, "", false, cannot),
        ] {
            let error = not_loaded(io::Error::from_raw_os_error(errno), log, "loading x");
            assert_eq!(error.to_string(), says, "{errno} {log}");
            assert_eq!(is_forbidden(&error), is_for, "{errno} {log}");
        }
        for (errno, is_for, says) in [
            (libc::EPERM, true, "attaching x: not permitted (EPERM)"),
            (524, false, "attaching x: the kernel cannot do that on this machine (ENOTSUPP)"),
            (libc::ENOENT, false, "attaching x: "),
        ] {
            let io_error = io::Error::from_raw_os_error(errno);
            let error = SyscallError { call: "bpf_link_create", io_error };
            let error = refused(ProgramError::SyscallError(error), "attaching x");
            assert!(error.to_string().starts_with(says), "{error}");
            assert_eq!(is_forbidden(&error), is_for, "{errno}");
        }
    }

    #[test]
    fn the_verifier_s_word_is_found_in_its_log() {
        let log = "0: R1=ctx() R10=fp0\n11: (79) r3 = *(u64 *)(r3 +0)\n\
                   dereference of modified ctx ptr R3 off=24 disallowed\n\
                   verification time 2089 usec\nstack depth 0+0\nprocessed 9 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), Some("dereference of modified ctx ptr R3 off=24 disallowed"));
        assert_eq!(verdict(""), None);
    }
}
