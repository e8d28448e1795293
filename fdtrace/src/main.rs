//! Parse, run, exit code.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    process,
};

use anyhow::Context as _;
use fdtrace::{
    cli::{self, ExitCode, TraceSettings},
    kernel::{HostError, Options},
    output::{Colour, Json, Sink, Terminal},
    pipeline::{self, Config, End},
};

fn main() -> process::ExitCode {
    let settings = match cli::parse_from(std::env::args_os()) {
        Ok(settings) => settings,
        Err(message) => {
            // Help that nobody reads is no error.
            let _ = message.print();
            let clean = message.exit_code() == 0;
            return if clean { ExitCode::Clean } else { ExitCode::Usage }.into();
        }
    };
    let fail_on_exhaustion = settings.fail_on_exhaustion;
    match run(settings) {
        Ok(End::Done { exhaustion: true }) if fail_on_exhaustion => ExitCode::Exhaustion,
        Ok(End::Done { .. } | End::OutputClosed) => ExitCode::Clean,
        Err(error) => {
            let _ = writeln!(io::stderr(), "fdtrace: {error:#}");
            match error.downcast_ref::<HostError>() {
                Some(HostError::NotPermitted(_)) => ExitCode::NotPermitted,
                Some(HostError::Unsupported(_)) => ExitCode::Unsupported,
                None => ExitCode::Runtime,
            }
        }
    }
    .into()
}

fn run(settings: TraceSettings) -> anyhow::Result<End> {
    init_log(settings.verbose);
    let stdout = io::stdout();
    let mut sink: Box<dyn Sink> = if settings.json {
        Box::new(Json::new(stdout))
    } else {
        let no_color = std::env::var_os("NO_COLOR");
        let coloured = settings.colour.is_on(stdout.is_terminal(), no_color.as_deref());
        Box::new(Terminal::new(stdout, if coloured { Colour::Always } else { Colour::Never }))
    };
    let config = Config {
        kernel: Options {
            btf: settings.btf,
            slots: settings.max_keys,
            ring_bytes: settings.ring_bytes,
        },
        filter: settings.filter,
        interval: settings.interval,
        duration: settings.duration,
        output: io::stdout().as_fd().try_clone_to_owned().ok(),
    };
    // One thread: records are rare, and a second thread would wake up for nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the event loop")?;
    runtime.block_on(pipeline::trace(config, sink.as_mut()))
}

/// Logs are for stderr; findings are for stdout and never pass through here.
fn init_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| writeln!(out, "fdtrace: {}: {}", record.level(), record.args()))
        .init();
}
