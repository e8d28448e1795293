//! Slots: where keys are counted, read from mapped memory, and given back exactly.

use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, Queue};
use fdtrace_common::{FailureCell, FailureKey, FailureRecord, Peers, RECORD_FAILURE};

use super::mapped::Mapped;

/// A key's count over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Failures.
    pub total: u64,
    /// `CLOCK_BOOTTIME` of the last one, in ns.
    pub last_boot_ns: u64,
}

const CELL_WORDS: usize = size_of::<FailureCell>() / 8;
const RECORD_WORDS: usize = FailureRecord::SIZE / 8;
const KIND_WORD: usize = std::mem::offset_of!(FailureRecord, kind) / 8;

/// A key as bytes of the wire.
pub(super) type KeyBytes = [u8; size_of::<FailureKey>()];

/// The kernel side's tables.
pub(super) struct Slots {
    pub(super) count: u32,
    pub(super) cpus: u32,
    pub(super) cells: Mapped,
    pub(super) first_records: Mapped,
    pub(super) peers: Mapped,
    pub(super) keys: HashMap<MapData, KeyBytes, u32>,
    pub(super) free: Queue<MapData, u32>,
}

impl Slots {
    /// Makes every slot available.
    pub(super) fn fill(&mut self) -> anyhow::Result<()> {
        for slot in 0..self.count {
            self.free.push(slot, 0).with_context(|| format!("fill the queue with slot {slot}"))?;
        }
        Ok(())
    }

    /// Whether bpf(2) on a map is permitted.
    pub(super) fn may_use_maps(&self) -> bool {
        let nobody = [0; size_of::<FailureKey>()];
        matches!(self.keys.get(&nobody, 0), Ok(_) | Err(aya::maps::MapError::KeyNotFound))
    }

    /// Makes what is counted for the slot readable.
    pub(super) fn map(&self, slot: u32) -> io::Result<()> {
        for cpu in 0..self.cpus {
            let word = self.cell_word(cpu, slot);
            self.cells.map(word..word + CELL_WORDS)?;
        }
        self.peers.map(peer_words(slot))?;
        self.first_records.map(record_words(slot))
    }

    fn cell_word(&self, cpu: u32, slot: u32) -> usize {
        (cpu as usize * self.count as usize + slot as usize) * CELL_WORDS
    }

    /// The count of whatever key uses the slot.
    pub(super) fn read(&self, slot: u32) -> Count {
        if let Err(error) = self.map(slot) {
            log::error!("the count of slot {slot} cannot be read: mmap: {error}");
        }
        (0..self.cpus).fold(Count::default(), |sum, cpu| {
            let word = self.cell_word(cpu, slot);
            let load = |word| {
                self.cells.word(word).map_or(0, |word: &AtomicU64| word.load(Ordering::Relaxed))
            };
            Count {
                total: sum.total + load(word),
                last_boot_ns: sum.last_boot_ns.max(load(word + 1)),
            }
        })
    }

    /// The first record of the key that uses the slot; `None` where none does.
    pub(super) fn first_record(&self, slot: u32) -> io::Result<Option<[u8; FailureRecord::SIZE]>> {
        let words = record_words(slot);
        self.first_records.map(words.clone())?;
        let Some(kind) = self.first_records.word(words.start + KIND_WORD) else { return Ok(None) };
        // The kernel side sets `kind` last, after everything else is written.
        let kind = kind.load(Ordering::Acquire).to_ne_bytes();
        if kind[..4] != RECORD_FAILURE.to_ne_bytes() {
            return Ok(None);
        }
        let mut record = [0; FailureRecord::SIZE];
        for (bytes, word) in record.chunks_exact_mut(8).zip(self.first_records.words(words)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Ok(Some(record))
    }

    /// Linear counting: of `n` clients hashed to `m` bits, about `m * exp(-n / m)` bits stay clear
    /// (Whang et al., 1990). Off by one or two for a hundred clients, by a few percent for thousands.
    pub(super) fn refused_clients(&self, slots: &[u32]) -> Option<u64> {
        let bits = f64::from(Peers::BITS);
        // A client that met several sockets of a listener, or both doors of one, is one client.
        let mut union = [0; Peers::WORDS];
        for slot in slots {
            for (all, word) in union.iter_mut().zip(self.peers.words(peer_words(*slot))) {
                *all |= word.load(Ordering::Relaxed);
            }
        }
        let set: u32 = union.iter().map(|word| word.count_ones()).sum();
        let clear = bits - f64::from(set);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 4096 * ln(4096)"
        )]
        let clients = (bits * (bits / clear).ln()).round() as u64;
        (clear > 0.0).then_some(clients)
    }

    pub(super) fn forget_clients(&self, slot: u32) {
        for word in self.peers.words(peer_words(slot)) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Step one of giving a slot back: from now on a failure of its key takes a new slot. The
    /// count stays readable, and a program that found the key before may still add to it.
    pub(super) fn retire(&mut self, slot: u32) -> anyhow::Result<()> {
        let Some(record) = self.first_record(slot).context("read a key")? else { return Ok(()) };
        let key = record.first_chunk::<{ size_of::<FailureKey>() }>().context("key of a record")?;
        match self.keys.remove(key) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).context("remove a key"),
        }
    }

    /// Step two, once no program can still hold the slot: the last count, and the slot is free.
    pub(super) fn recycle(&mut self, slot: u32) -> anyhow::Result<Count> {
        self.map(slot).context("map a slot into memory")?;
        let count = self.read(slot);
        for cpu in 0..self.cpus {
            let word = self.cell_word(cpu, slot);
            for cell in self.cells.words(word..word + CELL_WORDS) {
                cell.store(0, Ordering::Relaxed);
            }
        }
        self.forget_clients(slot);
        if let Some(kind) = self.first_records.word(record_words(slot).start + KIND_WORD) {
            kind.store(0, Ordering::Release);
        }
        self.free.push(slot, 0).context("give a slot back")?;
        Ok(count)
    }
}

const fn record_words(slot: u32) -> Range<usize> {
    let start = slot as usize * RECORD_WORDS;
    start..start + RECORD_WORDS
}

const fn peer_words(slot: u32) -> Range<usize> {
    let start = slot as usize * Peers::WORDS;
    start..start + Peers::WORDS
}
