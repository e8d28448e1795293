//! Reading fields of kernel structures at the offsets the loader found.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_probe_read_kernel};
use fdtrace_common::ABSENT;

use crate::maps::{BOOT_OFFSET_NS, HOST, OFFSETS};

/// The value of an offset, a constant to the verifier.
macro_rules! offset {
    ($field:ident) => {
        $crate::fields::constant(core::mem::offset_of!(fdtrace_common::Offsets, $field))
    };
}
/// A fact about the host, the same.
macro_rules! host {
    ($field:ident: $type:ty) => {
        $crate::fields::fact::<$type>(core::mem::offset_of!(fdtrace_common::Host, $field))
    };
}
pub(crate) use {host, offset};

/// One number of the offsets. Reading just that one keeps the others off the stack.
#[inline(always)]
pub(crate) fn constant(byte: usize) -> u32 {
    let offsets = (&raw const OFFSETS).cast::<u32>();
    // SAFETY: `byte` is the place of a field. The global is initialised and never written after
    // load; a volatile read keeps the compiler from using the value it had at build time.
    unsafe { core::ptr::read_volatile(offsets.byte_add(byte)) }
}

/// One fact of [`fdtrace_common::Host`], of the type it has there.
#[inline(always)]
pub(crate) fn fact<T: Copy>(byte: usize) -> T {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile((&raw const HOST).byte_add(byte).cast::<T>()) }
}

/// CLOCK_BOOTTIME in ns. Before 5.8 what it was ahead of CLOCK_MONOTONIC when the programs were
/// loaded: a suspend since then is not in it.
#[inline(always)]
pub(crate) fn boot_time_ns() -> u64 {
    // SAFETY: the helpers take nothing.
    unsafe {
        if host!(has_boot_clock: u32) == 0 {
            bpf_ktime_get_ns() + BOOT_OFFSET_NS.load()
        } else {
            bpf_ktime_get_boot_ns()
        }
    }
}

/// How fields are reached from a pointer.
pub(crate) trait Access: Copy {
    /// Reads a field; 0 where the address is bad.
    ///
    /// # Safety
    /// All zero must be a `T`, and `T` no wider than the field. `base` must be a pointer that this
    /// access is for.
    unsafe fn get<T: Copy>(base: *const c_void, offset: u32) -> T;
}

/// Through a pointer whose type the verifier knows, unmodified.
#[derive(Clone, Copy)]
pub(crate) struct Typed;

/// Through an address the verifier knows nothing about.
#[derive(Clone, Copy)]
pub(crate) struct Untyped;

/// Whatever this kernel has for the current task.
#[derive(Clone, Copy)]
pub(crate) struct OfTask;

impl Access for Typed {
    #[inline(always)]
    unsafe fn get<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's word.
        unsafe { load(base, offset) }
    }
}

impl Access for Untyped {
    #[inline(always)]
    unsafe fn get<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's word: all zero is a `T`.
        read(base, offset).unwrap_or_else(|_| unsafe { core::mem::zeroed() })
    }
}

impl Access for OfTask {
    #[inline(always)]
    unsafe fn get<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's word; the pointer is typed where the helper that gave it is.
        unsafe {
            if host!(has_typed_task: u32) == 0 {
                Untyped::get(base, offset)
            } else {
                Typed::get(base, offset)
            }
        }
    }
}

/// Loads a field through a pointer whose type the verifier knows.
///
/// Such a load cannot fault: where the address is bad it gives 0 (kernel/bpf/verifier.c,
/// `BPF_PROBE_MEM`, v5.5+). It costs one instruction, not a helper call.
///
/// # Safety
/// `base` must be such a pointer, unmodified, and `T` a type no wider than the field.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: see above; the verifier checks the very same.
    unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) }
}

/// Reads a field through an address the verifier knows nothing about. Fails where this kernel has
/// no such field.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: *const c_void, offset: u32) -> Result<T, i32> {
    const ENOENT: i32 = -2;
    if offset == ABSENT {
        return Err(ENOENT);
    }
    // SAFETY: bpf_probe_read_kernel() takes any address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(base.wrapping_byte_add(offset as usize).cast::<T>()) }
}
