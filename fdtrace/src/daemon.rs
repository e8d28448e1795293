//! `fdtrace daemon`: a trace for months, with its settings in a file.

use std::{fs, io, path::Path};

use crate::cli::{CONFIG_FILE, ConfigError, DaemonConfig, DaemonSettings};

/// Says that the configuration is right, or why it is not.
pub fn check(settings: &DaemonSettings, out: &mut dyn io::Write) -> anyhow::Result<()> {
    let file = settings.config.as_deref().unwrap_or(Path::new(CONFIG_FILE));
    read_config(settings)?;
    writeln!(out, "{}: right", file.display())?;
    Ok(())
}

/// Reads the file. One that nobody named may be missing: then everything is as by default.
fn read_config(settings: &DaemonSettings) -> Result<DaemonConfig, ConfigError> {
    let file = settings.config.as_deref().unwrap_or(Path::new(CONFIG_FILE));
    let name = file.display().to_string();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && settings.config.is_none() => {
            String::new()
        }
        Err(error) => return Err(ConfigError::unreadable(&name, &error)),
    };
    DaemonConfig::parse(&name, &text)
}
