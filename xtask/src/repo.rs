//! Where things are: the workspace, its target directory, cargo's own files.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root. Cargo tells where xtask's manifest is when it runs it; the path known at
/// compile time is for an xtask that was started without cargo.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.parent().map_or_else(|| manifest_dir.clone(), Path::to_path_buf)
}

/// The target directory that cargo uses for the host's code.
pub(crate) fn target_dir() -> PathBuf {
    let root = root();
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// `~/.cargo`, or where the user moved it.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The directories in which programs are looked for. `cargo install` puts its own in cargo's home,
/// which need not be on PATH where Rust came from a distribution.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = env::split_paths(&path).collect();
    dirs.extend(cargo_home().map(|home| home.join("bin")));
    // Servers are here, and a user's PATH often lacks it.
    dirs.push(PathBuf::from("/usr/sbin"));
    dirs
}

/// The program of this name that would be run, if there is one.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}
