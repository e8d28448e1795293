//! What packages ship beside the program, made from the command line's own definition.

use std::io;

use clap::{Args, Command, ValueEnum, error::ErrorKind};
use clap_complete::Shell;
use clap_mangen::Man;

pub(super) const AFTER_HELP: &str = "\
Examples:
  fdtrace completions bash >/etc/bash_completion.d/fdtrace
  fdtrace completions zsh >\"${fpath[1]}/_fdtrace\"
  fdtrace completions fish >~/.config/fish/completions/fdtrace.fish";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that is to read it
    #[arg(value_name = "SHELL", value_enum)]
    shell: Known,
}

/// A shell that a package has a place for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Known {
    /// Bourne again
    Bash,
    /// Z
    Zsh,
    /// Friendly interactive
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command whose page it is; none is the first page
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

impl CompletionsArgs {
    pub(super) fn text(&self, command: &Command) -> Vec<u8> {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut shown(command), "fdtrace", &mut text);
        text
    }
}

impl ManArgs {
    pub(super) fn text(&self, command: &Command) -> Result<Vec<u8>, clap::Error> {
        let command = shown(command);
        let page = match &self.command {
            None => command.disable_help_flag(true),
            Some(name) => {
                let Some(found) = command.find_subcommand(name) else {
                    let message = format!("fdtrace has no command {name}\n");
                    return Err(clap::Error::raw(ErrorKind::InvalidValue, message));
                };
                let title = format!("fdtrace-{name}");
                found.clone().display_name(title).bin_name(format!("fdtrace {name}"))
            }
        };
        let mut text = Vec::new();
        let written: io::Result<()> = Man::new(page).render(&mut text);
        written.map_err(|error| clap::Error::raw(ErrorKind::Io, error))?;
        Ok(text)
    }
}

/// Without the commands that nobody is to type.
fn shown(command: &Command) -> Command {
    let mut all = Command::new("fdtrace").version(env!("CARGO_PKG_VERSION"));
    let subcommands: Vec<_> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
    let arguments: Vec<_> = command.get_arguments().cloned().collect();
    all = all.args(arguments).subcommands(subcommands).disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        all = all.about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        all = all.after_help(after.clone());
    }
    all
}
