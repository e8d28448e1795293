//! Loading the object, and reading what its programs write.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, Queue},
};
use fdtrace_common::{
    CONTEXTS, Counter, Doors, FailureCell, FailureRecord, Host, Numbers, Offsets, Peers, names,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    HostError,
    attach::{self, AttachReport, Attached, PacketProgram, Running, take},
    btf::{Btf, wanted_structs},
    descriptors::{self, Descriptors},
    error::errno_of,
    mapped::Mapped,
    plan::Request,
    probes::POLLED_FORM,
    program_log::{self, ProgramLog},
    records::{Buffer, LOG_MAP, Records},
    return_probe::ReturnProbe,
    slots::{Count, Slots},
    support::{self, Support},
};

/// The compiled programs; `cargo xtask build-ebpf` makes them.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/fdtrace.o");

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// The running kernel's BTF.
    pub btf: PathBuf,
    /// How many keys can be counted at once.
    pub slots: u32,
    /// Size of the ring buffer in bytes: a power of two, a page at least. A perf buffer has a quarter
    /// of that for each CPU, and a page at least.
    pub ring_bytes: u32,
    /// From which share of its soft limit on a process that accepts is told of, in percent; 0 is never.
    pub gauge_share: u32,
    /// What to observe, and how.
    pub request: Request,
}

/// The object, loaded on a host that was looked at; nothing is attached.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) support: Support,
    /// BTF that tells the ids of functions.
    pub(super) ids: Vec<u8>,
    buffer: Buffer,
    cpus: u32,
}

impl Loaded {
    /// Checks the host and loads. Must run before other threads exist.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        support::check_capabilities(Path::new("/proc/self/status"))?;
        support::check_lockdown(Path::new(support::LOCKDOWN))?;
        let bytes = support::read_btf(&options.btf)?;
        let btf = index(&bytes, &options.btf)?;
        let offsets = offsets(&btf, &options.btf)?;
        let support = Support::look(&btf);
        let buffer = Buffer::choose(&support, options.request.buffer)?;
        let host = support.host(&btf, buffer);
        let ids = btf.names_and_ids();
        drop(bytes);
        let cpus = possible_cpus()?;
        let ebpf = load(options, &offsets, &host, buffer, cpus)?;
        Ok(Self { ebpf, support, ids, buffer, cpus })
    }
}

/// The attached programs. Dropping it detaches them.
pub struct Kernel {
    /// Owns the programs and their links.
    ebpf: Ebpf,
    records: Records,
    log: ProgramLog,
    slots: Slots,
    counters: Mapped,
    pub(super) programs: Vec<Running>,
    probes: Vec<Attached>,
    packets: Option<PacketProgram>,
    descriptors: Option<Arc<Descriptors>>,
}

impl Kernel {
    /// Checks the host, loads and attaches. Must run before other threads exist and inside a
    /// tokio runtime.
    pub fn attach(options: &Options) -> anyhow::Result<Self> {
        let Loaded { mut ebpf, mut support, ids, buffer, cpus } = Loaded::new(options)?;
        let mut slots = Slots {
            count: options.slots,
            cpus,
            cells: map_array::<FailureCell>(&mut ebpf, names::CELLS, cpus * options.slots)?,
            first_records: map_array::<FailureRecord>(
                &mut ebpf,
                names::FIRST_RECORDS,
                options.slots,
            )?,
            peers: map_array::<Peers>(&mut ebpf, names::PEERS, options.slots)?,
            keys: HashMap::try_from(take(&mut ebpf, names::SLOTS)?)?,
            free: Queue::try_from(take(&mut ebpf, names::FREE_SLOTS)?)?,
        };
        slots.fill()?;
        let counters =
            map_array::<u64>(&mut ebpf, names::COUNTERS, cpus * CONTEXTS * Counter::COUNT)?;
        counters.map(0..(cpus * CONTEXTS * Counter::COUNT) as usize).context("map the counters")?;
        let records = Records::open(take(&mut ebpf, names::RECORDS)?, options.ring_bytes)?;
        let log = ProgramLog::open(&mut ebpf, buffer)?;
        let AttachReport { probes, programs, packets } =
            attach::attach(&mut ebpf, &mut support, &options.request, &ids)?;
        let descriptors = iterator(&mut ebpf, &support, &ids).map(Arc::new);
        give_memory_back();
        Ok(Self { ebpf, records, log, slots, counters, programs, probes, packets, descriptors })
    }

    /// The probes, each with its form.
    #[must_use]
    pub fn probes(&self) -> &[Attached] {
        &self.probes
    }

    /// Whether refused clients are seen by a program; otherwise they are to be polled.
    #[must_use]
    pub fn sees_packets(&self) -> bool {
        self.probes
            .iter()
            .any(|probe| matches!(probe.probe, "syn" | "ack") && probe.form != POLLED_FORM)
    }

    /// Whether a program looks at every packet. It may be [rested](Self::rest_packets).
    #[must_use]
    pub fn looks_at_packets(&self) -> bool {
        self.packets.as_ref().is_some_and(PacketProgram::is_attached)
    }

    /// Has packets looked at again. Without effect where no packet program is needed.
    pub fn watch_packets(&mut self) -> anyhow::Result<()> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.attach(&mut self.ebpf))
    }

    /// Has no packet looked at: until [`Self::watch_packets`] no program sees refused clients.
    pub fn rest_packets(&mut self) -> anyhow::Result<()> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.detach(&mut self.ebpf))
    }

    /// Whether the kernel lets maps be used, as giving slots back takes.
    #[must_use]
    pub fn may_use_maps(&self) -> bool {
        self.slots.may_use_maps()
    }

    /// What tells what a process has open; `None` where `/proc` has to.
    #[must_use]
    pub fn descriptors(&self) -> Option<Arc<Descriptors>> {
        self.descriptors.clone()
    }

    /// How many keys can be counted at once.
    #[must_use]
    pub const fn slot_count(&self) -> u32 {
        self.slots.count
    }

    /// Waits until there is a record.
    pub async fn wait(&mut self) -> io::Result<()> {
        tokio::select! {
            ready = self.records.readable() => ready,
            failed = self.log.run() => failed,
        }
    }

    /// Hands each waiting record to `record`. Writes what the programs logged, too: at the end
    /// nobody waits for that any more.
    pub fn drain(&mut self, record: impl FnMut(&[u8])) {
        self.log.flush();
        self.records.drain(record);
    }

    /// The first record of the key that uses a slot: what a full buffer could not deliver.
    pub fn first_record(&self, slot: u32) -> io::Result<Option<[u8; FailureRecord::SIZE]>> {
        self.slots.first_record(slot)
    }

    /// Makes the count of a slot readable. Where this fails, [`Self::count`] would say nothing was
    /// counted.
    pub fn map_slot(&self, slot: u32) -> io::Result<()> {
        self.slots.map(slot)
    }

    /// The count of the key that uses a slot.
    #[must_use]
    pub fn count(&self, slot: u32) -> Count {
        self.slots.read(slot)
    }

    /// How many distinct clients were refused, by the slots that count them: an estimate. `None`
    /// where there were too many to tell.
    #[must_use]
    pub fn refused_clients(&self, slots: &[u32]) -> Option<u64> {
        self.slots.refused_clients(slots)
    }

    /// Starts counting those clients anew.
    pub fn forget_clients(&self, slot: u32) {
        self.slots.forget_clients(slot);
    }

    /// Takes a slot from its key. Its count is still to be read, by [`Self::recycle`].
    pub fn retire(&mut self, slot: u32) -> anyhow::Result<()> {
        self.slots.retire(slot)
    }

    /// Frees a retired slot and returns its last count. At least a second must have passed: a
    /// program that found the slot before it was retired runs with preemption off, so it is done.
    pub fn recycle(&mut self, slot: u32) -> anyhow::Result<Count> {
        self.slots.recycle(slot)
    }

    /// What the programs could not do.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        let counters = Counter::COUNT as usize;
        (0..(self.slots.cpus * CONTEXTS) as usize)
            .filter_map(|context| self.counters.word(context * counters + counter as usize))
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }

    /// How often the kernel skipped one of the programs because another was running on the same
    /// CPU (kernel/trace/bpf_trace.c `trace_call_bpf`; counted there since v6.7), or because more tasks
    /// were inside its function than a return probe can follow. Any call can be behind it, failed or
    /// not. `None` where the kernel does not say.
    #[must_use]
    pub fn skipped_runs(&self) -> Option<u64> {
        self.programs.iter().try_fold(0, |sum, program| {
            let unfollowed = program.return_probe.as_ref().and_then(ReturnProbe::missed);
            Some(sum + recursion_misses(&program.info)? + unfollowed.unwrap_or(0))
        })
    }
}

/// What fdtrace looks for in BTF.
pub(super) fn index<'a>(bytes: &'a [u8], path: &Path) -> Result<Btf<'a>, HostError> {
    let wanted = wanted_types();
    let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    Btf::index(bytes, &wanted).map_err(|error| {
        HostError::Unsupported(format!("{} is no usable BTF: {error}", path.display()))
    })
}

fn wanted_types() -> Vec<String> {
    let structs = wanted_structs().into_iter().map(str::to_owned);
    structs.chain(Support::wanted_types()).collect()
}

fn offsets(btf: &Btf<'_>, path: &Path) -> Result<Offsets, HostError> {
    let offsets = btf.offsets();
    for field in ["task_struct.files", "files_struct.fdt", "fdtable.fd", "file.f_inode"] {
        if offsets.by_path(field) == Some(fdtrace_common::ABSENT) {
            return Err(HostError::Unsupported(format!(
                "{} does not say where {field} is: it is not the BTF of a whole kernel",
                path.display()
            )));
        }
    }
    Ok(offsets)
}

fn possible_cpus() -> anyhow::Result<u32> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(file, error)| anyhow!("count the possible CPUs in {file}: {error}"))?;
    u32::try_from(cpus).context("count the possible CPUs")
}

fn load(
    options: &Options,
    offsets: &Offsets,
    host: &Host,
    buffer: Buffer,
    cpus: u32,
) -> anyhow::Result<Ebpf> {
    /// Tasks that can be inside a function at once, in the kprobe form: a thread each.
    const MOST_CALLS: u32 = 32 << 10;
    let offset_bytes: Vec<u8> = Offsets::PATHS
        .iter()
        .flat_map(|path| offsets.by_path(path).unwrap_or(fdtrace_common::ABSENT).to_ne_bytes())
        .collect();
    let (doors, compat_doors) = doors();
    let host_bytes = host.to_bytes();
    let boot_offset = boot_offset_ns();
    let log_level = program_log::level(buffer);
    let object = buffer.prepare(OBJECT)?;
    EbpfLoader::new()
        // The programs have no relocations against it; parsing it again would cost the start time.
        .btf(None)
        .override_global(names::OFFSETS, offset_bytes.as_slice(), true)
        .override_global(names::HOST, host_bytes.as_slice(), true)
        .override_global(names::DOORS, doors.as_slice(), true)
        .override_global(names::COMPAT_DOORS, compat_doors.as_slice(), true)
        .override_global(names::SLOT_COUNT, &options.slots, true)
        .override_global(names::GAUGE_SHARE, &options.gauge_share, true)
        .override_global(names::BOOT_OFFSET_NS, &boot_offset, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries(names::SLOTS, options.slots)
        .map_max_entries(names::FREE_SLOTS, options.slots)
        .map_max_entries(names::FIRST_RECORDS, options.slots)
        .map_max_entries(names::CELLS, options.slots * cpus)
        .map_max_entries(names::COUNTERS, Counter::COUNT * CONTEXTS * cpus)
        .map_max_entries(names::PEERS, options.slots)
        .map_max_entries(names::CALLS, MOST_CALLS)
        .map_max_entries(names::RECORDS, buffer.entries(options.ring_bytes, cpus))
        .map_max_entries(LOG_MAP, buffer.entries(program_log::BYTES, cpus))
        .load(&object)
        .map_err(|error| match errno_of(&error) {
            Some(libc::EPERM | libc::EACCES) => {
                HostError::Unsupported(format!("bpf(2): not permitted. {}", support::forbidden()))
                    .into()
            }
            Some(libc::ENOSYS) => HostError::Unsupported(
                "this kernel has no bpf(2): it was built without CONFIG_BPF_SYSCALL".to_owned(),
            )
            .into(),
            _ => {
                let line = error.to_string().lines().next().unwrap_or_default().to_owned();
                log::debug!("{error}");
                anyhow!("loading the programs' maps failed: {line}")
            }
        })
}

/// The program that iterates over descriptors, where the host allows it: it is nothing that could
/// not be done without.
fn iterator(ebpf: &mut Ebpf, support: &Support, ids: &[u8]) -> Option<Descriptors> {
    if !support.has_descriptors {
        return None;
    }
    let btf = aya::Btf::parse(ids, aya::Endianness::default()).map_err(anyhow::Error::new);
    let loaded = btf.and_then(|btf| Descriptors::load(ebpf, &btf));
    loaded.inspect_err(|error| log::debug!("{}: {error:#}", descriptors::PROGRAM)).ok()
}

/// What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC.
fn boot_offset_ns() -> u64 {
    let ns = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    // Between the two readings some time passes; the other order would make it too much.
    let monotonic = ns(ClockId::Monotonic);
    u64::try_from(ns(ClockId::Boottime) - monotonic).unwrap_or(0)
}

/// Doors by system call, of this machine's programs and of 32-bit ones.
fn doors() -> (Doors, Doors) {
    if cfg!(target_arch = "aarch64") {
        // 32-bit programs there have numbers of their own; their doors are not told apart.
        return (Numbers::Arm64.doors(), [0; fdtrace_common::CALL_NUMBERS]);
    }
    (Numbers::X86_64.doors(), Numbers::I386.doors())
}

/// An array of `T`s, to be mapped into memory. The map itself stays with the object.
fn map_array<T>(ebpf: &mut Ebpf, name: &str, entries: u32) -> anyhow::Result<Mapped> {
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    let Map::Array(data) = map else { return Err(anyhow!("map {name} is no array")) };
    let words = entries as usize * size_of::<T>() / size_of::<u64>();
    Mapped::new(data.fd().as_fd(), words).with_context(|| format!("take the map {name}"))
}

/// The BTF and the object took 20 MB, and the allocator keeps them: for months, in a daemon.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only memory that is free already is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn recursion_misses(info: &File) -> Option<u64> {
    let mut text = [0; 1024];
    let length = info.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::probes::PROBES;

    #[test]
    fn the_object_has_every_program_and_map_the_loader_names() {
        let object = aya_obj_names();
        let forms = PROBES.iter().flat_map(|probe| probe.forms);
        for step in forms.flat_map(|form| form.steps) {
            let program = step.program;
            assert!(object.contains(program), "no program {program}");
            assert!(program.len() <= 15, "{program} is cut by the kernel");
        }
        for map in [
            names::SLOTS,
            names::FREE_SLOTS,
            names::CELLS,
            names::FIRST_RECORDS,
            names::COUNTERS,
            names::PEERS,
            names::RECORDS,
            names::OFFSETS,
            names::SLOT_COUNT,
            names::GAUGE_SHARE,
            names::HOST,
            names::DOORS,
            names::COMPAT_DOORS,
            names::BOOT_OFFSET_NS,
            names::PACKETS,
            names::CALLS,
            names::EVERY,
            descriptors::PROGRAM,
        ] {
            assert!(object.contains(map), "no symbol {map}");
        }
    }

    /// The object's string tables, as text: symbol names stand there between NULs.
    fn aya_obj_names() -> String {
        String::from_utf8_lossy(OBJECT).into_owned()
    }
}
