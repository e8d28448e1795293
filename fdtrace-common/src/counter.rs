//! What the eBPF side could not do, counted per CPU.

/// One way of not doing what was promised. The value is the index in `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A failure was not counted: every slot is in use.
    KeysFull = 0,
    /// A failure was not counted: the kernel refused to store its key.
    KeyRefused = 1,
    /// A record was not delivered: the ring buffer, or a perf buffer, is full. The failure is counted all the same.
    RingFull = 2,
    /// The listener could not be read from kernel memory: counted without its listener.
    ListenerUnread = 3,
    /// kprobe form: a call returned unseen, because more tasks were inside the function than the
    /// kernel keeps return probes for (kernel/kprobes.c `maxactive`).
    ReturnUnseen = 4,
}

/// What a [`Counter`] takes away from the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Failures that no total contains.
    Failures,
    /// Calls that may have failed unseen.
    Calls,
    /// Notices; every total is still right.
    Notices,
    /// The listener of failures that the totals do contain.
    Attribution,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 5;

    /// Every counter, in the order of the wire.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::KeysFull,
        Self::KeyRefused,
        Self::RingFull,
        Self::ListenerUnread,
        Self::ReturnUnseen,
    ];

    /// The name outputs give to it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeysFull => "keys_full",
            Self::KeyRefused => "key_refused",
            Self::RingFull => "ring_full",
            Self::ListenerUnread => "listener_unread",
            Self::ReturnUnseen => "return_unseen",
        }
    }

    /// What it takes away.
    #[must_use]
    pub const fn lost(self) -> Lost {
        match self {
            Self::KeysFull | Self::KeyRefused => Lost::Failures,
            Self::RingFull => Lost::Notices,
            Self::ListenerUnread => Lost::Attribution,
            Self::ReturnUnseen => Lost::Calls,
        }
    }
}
