//! `fdtrace daemon`: a trace for months. Settings come from a file and may change, reports go to
//! several outputs, metrics are served, and systemd is told how it goes.

mod file;
mod health;
mod notify;
mod outputs;
mod privileges;
mod reload;
mod request;
mod server;

use std::{cell::RefCell, fs, io, path::Path, rc::Rc};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    health::Health,
    notify::Notify,
    outputs::Outputs,
    reload::Reload,
    server::{Sockets, Sources},
};
use crate::{
    cli::{CONFIG_FILE, ConfigError, DaemonConfig, DaemonSettings},
    kernel::{Options, Request},
    output::Colour,
    pipeline::{self, Attendant, Attended, Needs},
};

/// Of the totals, which are written as it ends: metrics do not need them.
const MOST_LINES: usize = 2048;

/// Questions to the trace that wait.
const MOST_ASKS: usize = 16;

/// Says that the configuration is right, or why it is not.
pub fn check(settings: &DaemonSettings, out: &mut dyn io::Write) -> anyhow::Result<()> {
    read_config(settings)?;
    writeln!(out, "{}: right", config_file(settings).display())?;
    Ok(())
}

/// Traces until a signal.
pub async fn run(settings: &DaemonSettings, colour: Colour) -> anyhow::Result<()> {
    let config = read_config(settings)?;
    privileges::begin();
    // Before attaching: what cannot be opened is said at once, and a signal never meets the default
    // action.
    let hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
    let mut outputs = Outputs::open(&config.output, colour, &settings.journal_socket)?;
    let sockets = Sockets::bind(&config.metrics)?;
    let notify = Rc::new(RefCell::new(Notify::from_env()));
    let (asks, asked) = mpsc::channel(MOST_ASKS);
    let most_series = config.metrics.max_series;
    let health = Health::new();
    let sources = Sources::new(health.clone(), asks.clone(), most_series);
    let mut attendant = Daemon {
        outputs: outputs.clone(),
        health,
        notify: notify.clone(),
        to_serve: Some((sockets, sources)),
        is_ready: false,
        problems: String::new(),
    };
    let reload =
        Reload { settings, colour, outputs: outputs.clone(), notify, asks, config: config.clone() };
    let attended = Attended { attendant: &mut attendant, asks: asked, most_series };
    let written = outputs.clone();
    let result = tokio::select! {
        end = pipeline::attend(trace(settings, config), &mut outputs, attended) => end.map(|_| ()),
        () = reload.run(hangup) => Ok(()),
    };
    written.finish();
    result
}

fn trace(settings: &DaemonSettings, config: DaemonConfig) -> pipeline::Config {
    let DaemonConfig { trace, .. } = config;
    let request = Request { forms: settings.forms.clone(), fds: trace.fds, ..Request::default() };
    pipeline::Config {
        kernel: Options {
            btf: settings.btf.clone(),
            slots: fdtrace_common::DEFAULT_SLOTS,
            ring_bytes: fdtrace_common::DEFAULT_RING_BYTES,
            gauge_share: trace.warn_at.lowest().unwrap_or(0).into(),
            request: Request { buffer: settings.buffer, ..request },
        },
        filter: trace.filter,
        interval: trace.interval,
        packets_rest: trace.packets_rest,
        most_lines: MOST_LINES,
        thresholds: trace.warn_at,
        duration: None,
        // A reader that goes away is an output that fails, and no reason to end.
        output: None,
    }
}

fn config_file(settings: &DaemonSettings) -> &Path {
    settings.config.as_deref().unwrap_or(Path::new(CONFIG_FILE))
}

/// Reads the file. One that nobody named may be missing: then everything is as by default.
fn read_config(settings: &DaemonSettings) -> Result<DaemonConfig, ConfigError> {
    let file = config_file(settings);
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

/// Looks after the trace.
struct Daemon {
    outputs: Outputs,
    health: Health,
    notify: Rc<RefCell<Notify>>,
    /// Until it is attached.
    to_serve: Option<(Sockets, Sources)>,
    is_ready: bool,
    /// As systemd was told.
    problems: String,
}

impl Attendant for Daemon {
    fn attached(&mut self, down: &[&'static str], needs: &Needs<'_>) -> anyhow::Result<()> {
        privileges::attached(needs);
        self.health.tick(down, self.outputs.states());
        // Not before: a thread that is there already would be in the way of attaching.
        if let Some((sockets, sources)) = self.to_serve.take() {
            sockets.serve(sources).context("start a thread for metrics")?;
        }
        Ok(())
    }

    fn ticked(&mut self, down: &[&'static str]) {
        self.outputs.tick();
        self.health.tick(down, self.outputs.states());
        let problems = self.health.problems().join("; ");
        let status = if problems.is_empty() { "watching" } else { &problems };
        let mut notify = self.notify.borrow_mut();
        if !self.is_ready {
            notify.ready(status);
        } else if problems != self.problems {
            notify.status(status);
        }
        notify.tick();
        self.is_ready = true;
        self.problems = problems;
    }

    fn stopping(&mut self) {
        self.notify.borrow().stopping();
    }
}
