//! Reading fields of kernel structures at the offsets the loader found.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use fdtrace_common::ABSENT;

use crate::maps::OFFSETS;

/// The value of an offset, a constant to the verifier.
macro_rules! offset {
    ($field:ident) => {
        $crate::fields::constant(core::mem::offset_of!(fdtrace_common::Offsets, $field))
    };
}
pub(crate) use offset;

/// One number of the offsets. Reading just that one keeps the others off the stack.
#[inline(always)]
pub(crate) fn constant(byte: usize) -> u32 {
    let offsets = (&raw const OFFSETS).cast::<u32>();
    // SAFETY: `byte` is the place of a field. The global is initialised and never written after
    // load; a volatile read keeps the compiler from using the value it had at build time.
    unsafe { core::ptr::read_volatile(offsets.byte_add(byte)) }
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
