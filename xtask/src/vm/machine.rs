//! The emulated machine itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

use super::console::{self, Seen};
use super::kernel::Kernel;
use super::{Boot, Outcome};
use crate::proc::shown;

/// KVM is not asked for even where it is: a guest on a machine that is itself a guest may hang.
const EMULATION: &str = "-accel tcg,thread=multi -smp 2 -m 1G";
/// No disk, no network, no display: nothing to look for at boot.
const DEVICES: &str = "-nodefaults -no-user-config -display none -monitor none -serial stdio";
/// A panic resets the machine, and a reset ends it.
const ENDINGS: &str = "-no-reboot";
const PARAMETERS: &str = "quiet panic=-1";
/// How often a machine is started that the emulator spoils.
const MOST_BOOTS: u32 = 3;

/// Boots and follows the console. Neither a boot that hangs, nor one that ends without telling an
/// exit code, is an outcome: it is an error.
pub(crate) fn boot(kernel: &Kernel, boot: &Boot<'_>, initramfs: &Path) -> Result<Outcome> {
    let arch = boot.arch;
    let of_userland = boot.userland.parameters();
    let parameters =
        format!("console={} {PARAMETERS} {of_userland} {}", arch.console(), boot.append);
    let fixed = [arch.machine(), EMULATION, DEVICES, ENDINGS];
    let mut qemu = Command::new(arch.qemu());
    qemu.args(fixed.into_iter().flat_map(str::split_whitespace))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", parameters.trim_end()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    println!("$ {}", shown(&qemu));
    // What the emulator does wrong says nothing about what runs in it.
    for again in (0..MOST_BOOTS).rev() {
        let seen = follow(&mut qemu, kernel, boot)?;
        if let Some(exit_code) = seen.exit_code {
            return Ok(Outcome { exit_code, counts: seen.counts, results: seen.results });
        }
        if !seen.lost_breakpoint || again == 0 {
            break;
        }
        println!("vm: the emulator lost a breakpoint of the kernel's own: once more");
    }
    bail!("Linux {} went off before its task had ended", kernel.release);
}

/// Runs the machine until it is off.
fn follow(qemu: &mut Command, kernel: &Kernel, boot: &Boot<'_>) -> Result<Seen> {
    let arch = boot.arch;
    let child = qemu
        .spawn()
        .with_context(|| format!("cannot run {}: run `{}`", arch.qemu(), arch.setup()))?;
    let mut running = Running(child);
    let console = running.0.stdout.take().context("qemu has no stdout")?;

    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more after a timeout.
        let _ = ended.send(console::follow(console));
    });
    let Ok(seen) = end.recv_timeout(boot.timeout) else {
        bail!("Linux {} was not done after {} s", kernel.release, boot.timeout.as_secs());
    };
    Ok(seen)
}

/// Ends qemu when it is dropped, however its boot went.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // What is left of the machine's life is of no use: it has told its result, or hangs.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
