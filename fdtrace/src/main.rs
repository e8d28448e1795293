//! Parse, run, exit code.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    process,
};

use anyhow::Context as _;
use fdtrace::{
    audit,
    cli::{
        self, AuditSettings, ColourChoice, ConfigError, DaemonSettings, DoctorSettings, ExitCode,
        ExplainSettings, ListenersSettings, Settings, TraceSettings,
    },
    daemon, doctor, explain,
    kernel::{HostError, Options},
    listeners,
    model::DoctorVerdict as Verdict,
    output::{Colour, Json, Queued, Sink, Terminal, WhenFull},
    pipeline::{self, Config, End},
};
use tokio::runtime::Runtime;

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
    let result = match settings {
        Settings::Trace(settings) => trace(settings),
        Settings::Listeners(settings) => list(&settings),
        Settings::Doctor(settings) => examine(&settings),
        Settings::SelfTest => doctor::misbehave().map(|()| ExitCode::Clean),
        Settings::Explain(settings) => explain(&settings),
        Settings::Audit(settings) => audit(&settings),
        Settings::Daemon(settings) => daemon(&settings),
        Settings::Text(text) => write(&text),
    };
    let code = result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "fdtrace: {error:#}");
        match error.downcast_ref::<HostError>() {
            Some(HostError::NotPermitted(_)) => ExitCode::NotPermitted,
            Some(HostError::Unsupported(_)) => ExitCode::Unsupported,
            None if error.is::<ConfigError>() => ExitCode::Usage,
            None => ExitCode::Runtime,
        }
    });
    code.into()
}

/// More lines than anybody reads.
const MOST_LINES: usize = 16_384;
/// So many bytes of output wait for whoever reads it: hours of a host where much fails.
const MOST_WAITING: usize = 4 << 20;

fn trace(settings: TraceSettings) -> anyhow::Result<ExitCode> {
    init_log(settings.verbose);
    // Who stops a terminal, or reads on in a pager, does not stop what is looked at.
    let stdout = Queued::new(io::stdout(), MOST_WAITING, WhenFull::Wait);
    let mut sink: Box<dyn Sink> = if settings.json {
        Box::new(Json::new(stdout.clone()))
    } else {
        Box::new(Terminal::new(stdout.clone(), colour(settings.colour)))
    };
    let config = Config {
        kernel: Options {
            btf: settings.btf,
            slots: settings.max_keys,
            ring_bytes: settings.ring_bytes,
            gauge_share: settings.warn_at.lowest().unwrap_or(0).into(),
            request: settings.request,
        },
        filter: settings.filter,
        interval: settings.interval,
        thresholds: settings.warn_at,
        packets_rest: settings.packets_rest,
        most_lines: MOST_LINES,
        duration: settings.duration,
        output: io::stdout().as_fd().try_clone_to_owned().ok(),
    };
    let end = runtime()?.block_on(pipeline::trace(config, sink.as_mut()));
    match stdout.drain(None) {
        // It was closed, which is a way to end it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::Clean),
        result => result.context("cannot write the output")?,
    }
    Ok(match end? {
        End::Done { exhaustion: true } if settings.fail_on_exhaustion => ExitCode::Exhaustion,
        End::Done { .. } | End::OutputClosed => ExitCode::Clean,
    })
}

fn list(settings: &ListenersSettings) -> anyhow::Result<ExitCode> {
    init_log(settings.verbose);
    let exhaustion = listeners::list(settings, colour(settings.colour), &mut io::stdout())?;
    let fail = exhaustion && settings.fail_on_exhaustion;
    Ok(if fail { ExitCode::Exhaustion } else { ExitCode::Clean })
}

fn examine(settings: &DoctorSettings) -> anyhow::Result<ExitCode> {
    // What the loader warns of is in the report.
    init_log_from(log::LevelFilter::Error, settings.verbose);
    let runtime = runtime()?;
    let _inside = runtime.enter();
    Ok(match doctor::examine(settings, colour(settings.colour), &mut io::stdout())? {
        Verdict::Works | Verdict::Untested(_) => ExitCode::Clean,
        Verdict::Blind(_) | Verdict::Unsupported(_) => ExitCode::Unsupported,
        Verdict::NotPermitted(_) => ExitCode::NotPermitted,
        Verdict::Failed(_) => ExitCode::Runtime,
    })
}

fn explain(settings: &ExplainSettings) -> anyhow::Result<ExitCode> {
    init_log(settings.verbose);
    explain::explain(settings, colour(settings.colour), &mut io::stdout())?;
    Ok(ExitCode::Clean)
}

fn audit(settings: &AuditSettings) -> anyhow::Result<ExitCode> {
    init_log(settings.verbose);
    let fail = audit::audit(settings, colour(settings.colour), &mut io::stdout())?;
    Ok(if fail { ExitCode::Exhaustion } else { ExitCode::Clean })
}

fn daemon(settings: &DaemonSettings) -> anyhow::Result<ExitCode> {
    init_log_from(log::LevelFilter::Info, settings.verbose);
    if settings.check {
        daemon::check(settings, &mut io::stdout())?;
    } else {
        runtime()?.block_on(daemon::run(settings, colour(ColourChoice::Auto)))?;
    }
    Ok(ExitCode::Clean)
}

fn write(text: &[u8]) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        Ok(()) | Err(_) => Ok(ExitCode::Clean),
    }
}

/// One thread: records are rare, and a second thread would wake up for nothing.
fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")
}

fn colour(choice: ColourChoice) -> Colour {
    let no_color = std::env::var_os("NO_COLOR");
    let coloured = choice.is_on(io::stdout().is_terminal(), no_color.as_deref());
    if coloured { Colour::Always } else { Colour::Never }
}

/// Logs are for stderr; findings are for stdout and never pass through here.
fn init_log(verbose: u8) {
    init_log_from(log::LevelFilter::Warn, verbose);
}

fn init_log_from(quiet: log::LevelFilter, verbose: u8) {
    let level = match verbose {
        0 => quiet,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let libraries = if verbose > 1 { level } else { level.min(log::LevelFilter::Warn) };
    env_logger::Builder::new()
        .filter_level(level)
        // Of how each program is put together only who asks for everything wants to read.
        .filter_module("aya", libraries)
        .filter_module("aya_obj", libraries)
        .format(|out, record| writeln!(out, "fdtrace: {}: {}", record.level(), record.args()))
        .init();
}
