//! The file of `fdtrace daemon` → validated settings.
//!
//! A value of the file is read by the parser of the option that means the same, so that both take
//! the same words and refuse them with the same advice. Nothing here touches the host.

mod raw;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, ops::Range, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{settings::PacketUse, value};
use crate::model::{Filter, ProcessFilter, Thresholds};
use raw::{Raw, RawMetrics, RawOutput, RawTrace};

/// Where metrics are served unless the file says otherwise.
const LISTEN: &str = "127.0.0.1:9435";
/// After how long a quiet time packets are not looked at, as by default on the command line.
const PACKETS_REST: Duration = Duration::from_secs(10);
/// Label sets of one metric, unless the file says otherwise.
const MAX_SERIES: usize = 1000;
/// More would be refused by most servers long before.
const MOST_SERIES: i64 = 100_000;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// `[trace]`
    pub trace: TraceConfig,
    /// `[output]`
    pub output: OutputConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
}

/// `[trace]`: as the options of `fdtrace trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Which failures to report.
    pub filter: Filter,
    /// Every call that gets no descriptor.
    pub fds: bool,
    /// At which shares of a limit to warn.
    pub warn_at: Thresholds,
    /// The least time between two lines about one episode.
    pub interval: Duration,
    /// After how long a quiet time packets are not looked at; `None` is never.
    pub packets_rest: Option<Duration>,
}

/// `[output]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// What is written to stdout.
    pub stdout: Stdout,
    /// The file for JSON lines.
    pub json_file: Option<PathBuf>,
    /// Whether journald gets an entry of each report.
    pub journal: Journal,
}

/// What is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    /// Lines for a person.
    Text,
    /// JSON lines.
    Json,
    /// Nothing.
    None,
}

/// Whether journald gets an entry of each report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// Where there is one.
    Auto,
    /// Without one fdtrace does not start.
    Always,
    /// Not.
    Never,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where they are served; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// The same on a unix socket.
    pub socket: Option<PathBuf>,
    /// The most label sets of one metric.
    pub max_series: usize,
}

/// What is wrong with the file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    what: String,
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// The file cannot be read at all.
    #[must_use]
    pub fn unreadable(file: &str, error: &std::io::Error) -> Self {
        Self { file: file.to_owned(), line: None, what: format!("cannot be read: {error}") }
    }
}

/// `fdtrace.toml:3: trace.interval: give 100ms or more`
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// Where what is read stands.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }

    fn wrong(&self, span: &Range<usize>, what: String) -> ConfigError {
        ConfigError { file: self.file.to_owned(), line: Some(self.line(span)), what }
    }

    /// A value, by the parser of an option.
    fn value<T>(
        &self,
        key: &str,
        value: &Spanned<String>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        parse(value.get_ref()).map_err(|advice| {
            let what = format!("{key}: {:?} is not possible: {advice}", value.get_ref());
            self.wrong(&value.span(), what)
        })
    }

    /// A list, each by the parser of an option.
    fn list<T>(
        &self,
        key: &str,
        list: &[Spanned<String>],
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        list.iter().map(|value| self.value(key, value, parse)).collect()
    }

    /// One of some words.
    fn word<T: Copy>(
        &self,
        key: &str,
        value: Option<&Spanned<String>>,
        words: &[(&str, T)],
        default: T,
    ) -> Result<T, ConfigError> {
        let Some(value) = value else { return Ok(default) };
        let known = words.iter().find(|(word, _)| word == value.get_ref());
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let what = format!(
                "{key}: {:?} is not possible: give one of {}",
                value.get_ref(),
                words.join(", ")
            );
            self.wrong(&value.span(), what)
        })
    }

    fn path(
        &self,
        key: &str,
        value: Option<Spanned<String>>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let Some(value) = value.filter(|value| !value.get_ref().is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(value.get_ref());
        if path.is_relative() {
            let what = format!(
                "{key}: {:?} is not possible: give a path that starts with /, since a daemon's \
                 working directory is anybody's guess",
                value.get_ref()
            );
            return Err(self.wrong(&value.span(), what));
        }
        Ok(Some(path))
    }
}

impl DaemonConfig {
    /// Reads the text of a file; `file` is what it is called.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let what = error.message().to_owned();
            match error.span() {
                Some(span) => {
                    let line = text.lines().nth(source.line(&span) - 1).unwrap_or_default();
                    source.wrong(&span, format!("{what}, in `{}`", line.trim()))
                }
                None => ConfigError { file: file.to_owned(), line: None, what },
            }
        })?;
        Self::from_raw(raw, &source)
    }

    fn from_raw(raw: Raw, source: &Source<'_>) -> Result<Self, ConfigError> {
        let Raw { trace, output, metrics } = raw;
        Ok(Self {
            trace: TraceConfig::from_raw(trace, source)?,
            output: OutputConfig::from_raw(output, source)?,
            metrics: MetricsConfig::from_raw(metrics, source)?,
        })
    }
}

impl TraceConfig {
    fn from_raw(raw: RawTrace, source: &Source<'_>) -> Result<Self, ConfigError> {
        const PACKETS: [(&str, PacketUse); 2] =
            [("auto", PacketUse::Auto), ("always", PacketUse::Always)];
        let RawTrace {
            ports,
            comms,
            units,
            containers,
            pods,
            errnos,
            fds,
            warn_at,
            interval,
            packets,
        } = raw;
        let ports: Vec<_> = ports.into_iter().map(raw::to_text).collect();
        let warn_at: Option<Vec<_>> =
            warn_at.map(|list| list.into_iter().map(raw::to_text).collect());
        let warn_at = match warn_at.as_deref() {
            Some([]) => Thresholds::default(),
            Some([first, ..]) => {
                let all: Vec<_> =
                    warn_at.iter().flatten().map(|one| one.get_ref().as_str()).collect();
                let all = Spanned::new(first.span(), all.join(","));
                source.value("trace.warn_at", &all, |text| {
                    value::warn_at(text).map_err(|_| {
                        "give percents from 1 to 99, as in [80, 95]; or [] for none".to_owned()
                    })
                })?
            }
            None => Thresholds::new(vec![80, 95]).unwrap_or_default(),
        };
        Ok(Self {
            filter: Filter {
                ports: source.list("trace.ports", &ports, value::port)?,
                processes: ProcessFilter {
                    pids: Vec::new(),
                    comms: source.list("trace.comms", &comms, value::comm)?,
                    units: source.list("trace.units", &units, value::unit)?,
                    containers: source.list("trace.containers", &containers, value::container)?,
                    pods: source.list("trace.pods", &pods, value::pod)?,
                },
                errnos: source.list("trace.errnos", &errnos, value::errno)?,
            },
            fds: fds.unwrap_or(false),
            warn_at,
            interval: match interval {
                Some(interval) => source.value("trace.interval", &interval, value::interval)?,
                None => Duration::from_secs(5),
            },
            packets_rest: {
                let packets = packets.as_ref();
                let packets = source.word("trace.packets", packets, &PACKETS, PacketUse::Auto)?;
                (packets == PacketUse::Auto).then_some(PACKETS_REST)
            },
        })
    }
}

impl OutputConfig {
    fn from_raw(raw: RawOutput, source: &Source<'_>) -> Result<Self, ConfigError> {
        const STDOUT: [(&str, Stdout); 3] =
            [("text", Stdout::Text), ("json", Stdout::Json), ("none", Stdout::None)];
        const JOURNAL: [(&str, Journal); 3] =
            [("auto", Journal::Auto), ("always", Journal::Always), ("never", Journal::Never)];
        let RawOutput { stdout, json_file, journal } = raw;
        Ok(Self {
            stdout: source.word("output.stdout", stdout.as_ref(), &STDOUT, Stdout::Text)?,
            json_file: source.path("output.json_file", json_file)?,
            journal: source.word("output.journal", journal.as_ref(), &JOURNAL, Journal::Auto)?,
        })
    }
}

impl MetricsConfig {
    fn from_raw(raw: RawMetrics, source: &Source<'_>) -> Result<Self, ConfigError> {
        let RawMetrics { listen, socket, max_series } = raw;
        let listen = listen.unwrap_or_else(|| Spanned::new(0..0, LISTEN.to_owned()));
        let listen = source.value("metrics.listen", &listen, |text| {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| {
                "give ADDRESS:PORT, as 127.0.0.1:9435 or [::1]:9435; or \"\" for off".to_owned()
            })
        })?;
        let max_series = match max_series {
            None => MAX_SERIES,
            Some(value) => usize::try_from(*value.get_ref())
                .ok()
                .filter(|_| (1..=MOST_SERIES).contains(value.get_ref()))
                .ok_or_else(|| {
                    let what = format!(
                        "metrics.max_series: {} is not possible: give a number from 1 to \
                         {MOST_SERIES}",
                        value.get_ref()
                    );
                    source.wrong(&value.span(), what)
                })?,
        };
        Ok(Self { listen, socket: source.path("metrics.socket", socket)?, max_series })
    }
}
