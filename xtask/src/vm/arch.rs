//! The machines' architectures, and what differs between them.

/// An architecture, by the name that `--arch` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// The host's own.
    #[value(name = "x86-64")]
    X86_64,
    /// 64-bit ARM.
    Arm64,
}

impl Arch {
    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The emulator.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// What of the emulator's arguments is of the architecture. ARM's pointer authentication, with
    /// the algorithm that the architecture names, is most of what emulation would do.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "-cpu max",
            Self::Arm64 => "-machine virt -cpu max,pauth-impdef=on",
        }
    }

    /// The kernel's name for the first serial line.
    pub(crate) fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }

    /// The command that gets what machines of this architecture need.
    pub(crate) fn setup(self) -> &'static str {
        match self {
            Self::X86_64 => "cargo xtask setup",
            Self::Arm64 => "cargo xtask setup --arm64",
        }
    }

    /// A name for a file or directory of this architecture; the host's own has none added.
    pub(crate) fn suffixed(self, name: &str) -> String {
        match self {
            Self::X86_64 => name.to_owned(),
            Self::Arm64 => format!("{name}-arm64"),
        }
    }
}
