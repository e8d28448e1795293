//! Reports as lines for a person: one line per change of state, a table at the end.
//!
//! Layout only. What is unknown is left out or written `?`, never guessed. The lines are not a
//! format to parse; [`Json`](super::Json) is.

pub(super) mod diagnosis;
mod kernel;
pub(super) mod line;
mod lost;
mod refusal;
mod start;
pub(super) mod table;
#[cfg(test)]
mod tests;
mod warning;
pub(super) mod words;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::Sink;
use crate::model::{Door, EpisodeReport, Failure, Phase, ProcessId, Report, Target, WallClock};
use words::Times;

/// Whether headlines have colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI colours.
    Always,
}

/// Writes lines for a person to `W`.
#[derive(Debug)]
pub struct Terminal<W> {
    writer: W,
    colour: Colour,
    zone: TimeZone,
    /// What the last line was about, where it opened an episode: its diagnosis can follow.
    opened: Option<Opened>,
}

/// What an episode is known by.
type Opened = (Option<ProcessId>, Target, Door, Failure);

impl<W: Write> Terminal<W> {
    /// Times are the system's local times; UTC where the system does not say.
    pub fn new(writer: W, colour: Colour) -> Self {
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        Self { writer, colour, zone, opened: None }
    }

    /// The same with times of another zone.
    #[must_use]
    pub fn with_time_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }
}

impl<W: Write> Sink for Terminal<W> {
    fn write(&mut self, report: &Report, clock: &WallClock) -> io::Result<()> {
        let times = Times { zone: &self.zone, clock };
        let opened = self.opened.take();
        let text = match report {
            Report::Started(started) => start::started(started),
            Report::Episode(episode) => {
                if episode.phase == Phase::Opened {
                    self.opened = Some(about(episode));
                }
                line::episode(episode, &times, self.colour)
            }
            Report::Diagnosed(report) => {
                let follows = opened == Some(about(&report.episode));
                diagnosis::report(report, &times, follows)
            }
            Report::Warning(report) => warning::line(report, &times, self.colour),
            Report::Lost(lost) => lost::lines(lost, &times, self.colour),
            Report::Summary(summary) => table::summary(summary, &times),
        };
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }
}

fn about(episode: &EpisodeReport) -> Opened {
    let EpisodeReport { owners, target, door, failure, .. } = episode;
    (owners.first().map(|owner| owner.id), target.clone(), *door, *failure)
}
