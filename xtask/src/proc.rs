//! Running programs, and saying so: every command that changes something is printed before it runs.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::repo;

/// A title that can be found again in a long log.
pub(crate) fn heading(text: &str) {
    println!("\n== {text} ==");
}

/// A command as a person would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let cargo = env::var_os("CARGO");
    let program = Some(command.get_program()).filter(|program| Some(*program) != cargo.as_deref());
    let program = program.unwrap_or(OsStr::new("cargo"));
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command with our own stdout and stderr; any other end than success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// What a command writes to stdout; any other end than success is an error with its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command writes to stdout, with our own stderr: for builds, whose progress is there.
pub(crate) fn output_with_progress(command: &mut Command) -> Result<String> {
    println!("$ {}", shown(command));
    output(command.stderr(Stdio::inherit()))
}

/// The cargo that started us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repo::root());
    // These describe xtask itself: a build script or a test must not take them for its own.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            cargo.env_remove(name);
        }
    }
    cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    cargo
}

/// Whether we may do what only root may.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// A command that runs as root: directly, or through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    if repo::find_program("sudo").is_none() {
        bail!("this needs root: run it as root, or install sudo");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}
