//! How records come up from the programs: through one ring buffer, or on kernels without those (before
//! 5.8) through a perf buffer for each CPU.

use std::{
    borrow::Cow,
    future::poll_fn,
    io,
    os::fd::{AsFd, AsRawFd},
    task::Poll,
};

use anyhow::{Context as _, anyhow};
use aya::{
    maps::{
        Map, MapData, PerfEventArray, RingBuf,
        perf::{PerfEvent, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use fdtrace_common::{FailureRecord, names};
use object::{
    Endianness,
    elf::FileHeader64,
    read::elf::{ElfFile, ElfSection64},
    read::{Object as _, ObjectSection as _, ObjectSymbol as _},
};
use rustix::param::page_size;
use tokio::io::{Interest, unix::AsyncFd};

use super::{HostError, support::Support};

/// aya-log's ring buffer.
pub(super) const LOG_MAP: &str = "AYA_LOGS";

/// What carries records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// One ring buffer.
    Ring,
    /// A perf buffer for each CPU.
    Perf,
}

impl Buffer {
    /// The one that was asked for, or the best that the host has.
    pub(super) fn choose(support: &Support, asked: Option<Self>) -> Result<Self, HostError> {
        let lacks = |what: &str| {
            HostError::Unsupported(format!(
                "this kernel has no {what}, or one with the same backported (RHEL 8.4)"
            ))
        };
        if !support.has_probe_read_kernel {
            // With it came what else is needed: the verifier's knowledge of read-only globals, and
            // maps that can be mapped into memory.
            return Err(lacks("bpf_probe_read_kernel(): fdtrace needs Linux 5.5"));
        }
        match asked {
            Some(Self::Ring) if !support.has_ring_buffer => {
                Err(lacks("BPF ring buffers: `--buffer ring` needs Linux 5.8"))
            }
            Some(asked) => Ok(asked),
            None if support.has_ring_buffer => Ok(Self::Ring),
            None => Ok(Self::Perf),
        }
    }

    /// The object with the map of records made what it is to be.
    pub(super) fn prepare(self, object: &'static [u8]) -> anyhow::Result<Cow<'static, [u8]>> {
        match self {
            Self::Ring => Ok(Cow::Borrowed(object)),
            Self::Perf => with_perf_buffers(object).map(Cow::Owned).context("prepare the object"),
        }
    }

    /// Entries of the map of records: bytes, or CPUs.
    pub(super) const fn entries(self, ring_bytes: u32, cpus: u32) -> u32 {
        match self {
            Self::Ring => ring_bytes,
            Self::Perf => cpus,
        }
    }
}

/// The object, whose ring buffers are perf buffers instead: that of records, and that of the programs'
/// own log, which nobody reads then. aya creates every map that the object defines, with the type
/// that stands there.
fn with_perf_buffers(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut changed = object.to_vec();
    for map in [names::RECORDS, LOG_MAP] {
        make_perf_buffer(&mut changed, map)?;
    }
    Ok(changed)
}

fn make_perf_buffer(object: &mut [u8], map: &str) -> anyhow::Result<()> {
    /// Of `struct bpf_map_def`, the words type, key_size and value_size.
    const PERF_EVENT_ARRAY: [u32; 3] = [4, 4, 4];
    const RINGBUF: [u32; 3] = [27, 0, 0];
    let words = |words: [u32; 3]| words.map(u32::to_ne_bytes).concat();
    let elf: ElfFile<'_, FileHeader64<Endianness>> = ElfFile::parse(&*object)?;
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(map));
    let symbol = symbol.with_context(|| format!("no symbol {map}"))?;
    let section = symbol.section_index().context("a map without a section")?;
    let section: ElfSection64<'_, '_, Endianness> = elf.section_by_index(section)?;
    let (start, _) = section.file_range().context("an empty section of maps")?;
    let start = usize::try_from(start + symbol.address())?;
    let definition = object.get_mut(start..start + size_of_val(&RINGBUF));
    let definition = definition.filter(|definition| **definition == *words(RINGBUF));
    let definition = definition.with_context(|| format!("{map} is no ring buffer"))?;
    definition.copy_from_slice(&words(PERF_EVENT_ARRAY));
    Ok(())
}

/// The loader's end of it.
pub(super) enum Records {
    Ring(AsyncFd<RingBuf<MapData>>),
    /// One for each CPU that was online. What programs cannot deliver on another they count as lost,
    /// as they do where the buffer is full.
    Perf(Vec<AsyncFd<PerfEventArrayBuffer<MapData>>>),
}

impl Records {
    /// Opens the map of records. Must run inside a tokio runtime.
    pub(super) fn open(map: Map, ring_bytes: u32) -> anyhow::Result<Self> {
        match map {
            Map::PerfEventArray(_) => {
                let mut map = PerfEventArray::try_from(map)?;
                let cpus = online_cpus()
                    .map_err(|(file, error)| anyhow!("list the CPUs in {file}: {error}"))?;
                let pages = pages_for_each_cpu(ring_bytes, page_size());
                let open = |cpu| -> anyhow::Result<_> {
                    let buffer = map.open(cpu, Some(pages));
                    let buffer = buffer.with_context(|| format!("open a buffer on CPU {cpu}"))?;
                    poll(buffer).context("poll a perf buffer")
                };
                Ok(Self::Perf(cpus.into_iter().map(open).collect::<Result<_, _>>()?))
            }
            map => Ok(Self::Ring(poll(RingBuf::try_from(map)?).context("poll the ring")?)),
        }
    }

    /// Waits until there is a record.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.readable().await?.clear_ready(),
            Self::Perf(buffers) => {
                poll_fn(|context| {
                    let mut is_any = false;
                    for buffer in buffers {
                        if let Poll::Ready(ready) = buffer.poll_read_ready(context) {
                            ready?.clear_ready();
                            is_any = true;
                        }
                    }
                    if is_any { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Hands each waiting record to `record`.
    pub(super) fn drain(&mut self, mut record: impl FnMut(&[u8])) {
        match self {
            Self::Ring(ring) => {
                let ring = ring.get_mut();
                while let Some(item) = ring.next() {
                    record(&item);
                }
            }
            Self::Perf(buffers) => {
                for buffer in buffers {
                    buffer.get_mut().for_each(|event| match event {
                        PerfEvent::Sample { head, tail } => record(&unpadded(head, tail)),
                        // The program was told of each (kernel/events/core.c __perf_event_output,
                        // v5.5, returns -ENOSPC) and has counted it.
                        PerfEvent::Lost { .. } => {}
                    });
                }
            }
        }
    }
}

/// A record without the bytes that the kernel fills it up with: with its own 4 bytes of size it takes
/// a multiple of 8 (kernel/events/core.c perf_prepare_sample, v5.5).
fn unpadded<'a>(head: &'a [u8], tail: &[u8]) -> Cow<'a, [u8]> {
    if let Some(whole) = head.get(..FailureRecord::SIZE) {
        return Cow::Borrowed(whole);
    }
    let mut whole = [head, tail].concat();
    whole.truncate(FailureRecord::SIZE);
    Cow::Owned(whole)
}

/// Pages of the perf buffer of one CPU: a quarter of what one ring for all would have. A power of two,
/// if `ring_bytes` is.
fn pages_for_each_cpu(ring_bytes: u32, page_size: usize) -> usize {
    (ring_bytes as usize / 4 / page_size).max(1)
}

/// Has tokio wake us when a buffer has something.
fn poll<T: AsFd + AsRawFd>(buffer: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: aya's buffers hold one descriptor for life and always give that.
    let registered = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::load::OBJECT;

    #[test]
    fn the_best_that_the_host_has() {
        let capable = Support::capable();
        let choose = |support: &Support, asked| Buffer::choose(support, asked).ok();
        assert_eq!(choose(&capable, None), Some(Buffer::Ring));
        assert_eq!(choose(&capable, Some(Buffer::Ring)), Some(Buffer::Ring));
        assert_eq!(choose(&capable, Some(Buffer::Perf)), Some(Buffer::Perf));
        // Before 5.8.
        let mut old = capable;
        old.has_ring_buffer = false;
        assert_eq!(choose(&old, None), Some(Buffer::Perf));
        assert_eq!(choose(&old, Some(Buffer::Perf)), Some(Buffer::Perf));
        let error = Buffer::choose(&old, Some(Buffer::Ring)).unwrap_err();
        assert!(error.to_string().contains("5.8"), "{error}");
        // Before 5.5.
        let mut older = old;
        older.has_probe_read_kernel = false;
        for asked in [None, Some(Buffer::Perf), Some(Buffer::Ring)] {
            let error = Buffer::choose(&older, asked).unwrap_err();
            assert!(error.to_string().contains("5.5"), "{error}");
        }
    }

    #[test]
    fn only_the_definitions_of_the_maps_are_changed() {
        let changed = with_perf_buffers(OBJECT).unwrap();
        assert_eq!(changed.len(), OBJECT.len());
        let places = changed.iter().zip(OBJECT).enumerate();
        let places: Vec<_> = places
            .filter(|(_, (changed, was))| changed != was)
            .map(|(place, (changed, was))| (place, *was, *changed))
            .collect();
        assert_eq!(places.len(), 6, "of two maps");
        for places in places.chunks(3) {
            let start = places[0].0;
            assert_eq!(places, [(start, 27, 4), (start + 4, 0, 4), (start + 8, 0, 4)]);
        }
        // What is one already is not taken for something else.
        assert!(with_perf_buffers(&changed).is_err());
        assert!(with_perf_buffers(&OBJECT[..1000]).is_err());
        assert!(matches!(Buffer::Ring.prepare(OBJECT), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_record_that_wraps_is_put_together_and_padding_taken_off() {
        let bytes: Vec<u8> = (0..=250).cycle().take(FailureRecord::SIZE + 4).collect();
        let want = &bytes[..FailureRecord::SIZE];
        for cut in [0, 1, 8, FailureRecord::SIZE - 1, FailureRecord::SIZE, bytes.len()] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(*unpadded(head, tail), *want, "cut at {cut}");
        }
        // Decoding says what is wrong with it.
        assert_eq!(*unpadded(&bytes[..9], &[]), bytes[..9]);
    }

    #[test]
    fn every_cpu_has_a_page_at_least() {
        assert_eq!(pages_for_each_cpu(256 << 10, 4096), 16);
        assert_eq!(pages_for_each_cpu(4096, 4096), 1);
        assert_eq!(pages_for_each_cpu(256 << 10, 64 << 10), 1);
    }
}
