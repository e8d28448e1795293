//! The kernel side of fdtrace: which programs there are. What they observe is in `probe`, one
//! file per fact; how they count is in `count`. `descriptors` runs when the loader asks.
#![no_std]
#![no_main]
#![expect(
    clippy::inline_always,
    reason = "a BPF function call costs registers and stack, and the verifier checks it apart"
)]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand a program its context so")]

mod count;
mod descriptors;
mod fields;
mod kprobe;
mod listener;
mod maps;
mod probe;
mod task;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an endless loop, so an object in which a panic is reachable never loads.
    loop {}
}

/// bpf(2) compares this text with its list of GPL-compatible licences.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
