//! What was told of an episode, so that nothing is told twice.

use std::time::{Duration, Instant};

use crate::model::{Cause, Certainty, Diagnosis, Failure, Known};

/// An episode like one before is not diagnosed again so soon: it would say the same.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Which look at an episode it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    First,
    Again,
    Last,
}

/// What was told of an episode, and holds for those like it.
#[derive(Debug)]
pub(super) struct Told {
    at: Instant,
    cause: Option<Known>,
    all: Vec<Cause>,
    had_census: bool,
}

impl Told {
    /// Nothing yet.
    pub(super) const fn nothing(at: Instant) -> Self {
        Self { at, cause: None, all: Vec::new(), had_census: false }
    }

    /// Whether it holds still.
    pub(super) fn is_recent(&self) -> bool {
        self.at.elapsed() < AGAIN_AFTER
    }

    /// The cause to act on.
    pub(super) const fn cause(&self) -> Option<Known> {
        self.cause
    }

    /// Its process's descriptors were looked at.
    pub(super) const fn take_census(&mut self) {
        self.had_census = true;
    }

    /// Whether they were.
    pub(super) const fn had_census(&self) -> bool {
        self.had_census
    }

    /// Takes what a look has found; gives what is new in it.
    pub(super) fn take(
        &mut self,
        mut found: Vec<Diagnosis>,
        failure: Failure,
        round: Round,
    ) -> Vec<Diagnosis> {
        let is_of_syns = matches!(failure, Failure::SynQueueFull | Failure::SynCookieSent);
        // What is not known yet may be so at the next look.
        let is_settled = match round {
            Round::First => true,
            Round::Again => !is_of_syns && self.all.is_empty(),
            Round::Last => self.all.is_empty(),
        };
        found.retain(|diagnosis| is_settled || diagnosis.cause != Cause::Unknown);
        // A queue that filled while nobody accepted is not short, however empty it is since then.
        let stood = Known { cause: Cause::SlowAcceptor, certainty: Certainty::Certain };
        found.retain(|diagnosis| {
            self.cause != Some(stood) || diagnosis.cause != Cause::BacklogTooSmall
        });
        // What an acceptor does about its failures is not why they happen.
        let decides = round == Round::First || failure.is_refusal();
        if let Some(first) = found.first().map(Diagnosis::known).filter(|_| decides) {
            // The same and no surer is what was known already.
            let is_known = self.cause.is_some_and(|cause| {
                cause.cause == first.cause && cause.certainty == Certainty::Certain
            });
            if !is_known {
                self.cause = Some(first);
            }
        }
        found.retain(|diagnosis| !self.all.contains(&diagnosis.cause));
        self.all.extend(found.iter().map(|diagnosis| diagnosis.cause));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Errno;

    const EMFILE: Failure = Failure::Errno(Errno::EMFILE);
    const FULL: Failure = Failure::AcceptQueueFull { syn_queue_full: false };

    fn of(causes: &[(Cause, Certainty)]) -> Vec<Diagnosis> {
        let diagnosis = |&(cause, certainty): &(Cause, Certainty)| Diagnosis {
            cause,
            certainty,
            why: String::new(),
            evidence: Vec::new(),
            remedies: Vec::new(),
            unknown: Vec::new(),
        };
        causes.iter().map(diagnosis).collect()
    }

    fn causes(found: &[Diagnosis]) -> Vec<Cause> {
        found.iter().map(|diagnosis| diagnosis.cause).collect()
    }

    #[test]
    fn what_an_acceptor_does_is_new_and_no_cause() {
        use Certainty::Certain;
        let mut told = Told::nothing(Instant::now());
        assert!(told.is_recent());
        let first = of(&[(Cause::SoftLimitLow, Certain), (Cause::Load, Certainty::Likely)]);
        let found = told.take(first, EMFILE, Round::First);
        assert_eq!(causes(&found), [Cause::SoftLimitLow, Cause::Load]);
        let busy = || of(&[(Cause::BusyLoop, Certain)]);
        assert_eq!(causes(&told.take(busy(), EMFILE, Round::Again)), [Cause::BusyLoop]);
        assert!(told.take(busy(), EMFILE, Round::Last).is_empty());
        let known = Known { cause: Cause::SoftLimitLow, certainty: Certain };
        assert_eq!(told.cause(), Some(known));
    }

    #[test]
    fn more_looks_at_a_queue_change_its_cause() {
        use Certainty::{Certain, Likely};
        let mut told = Told::nothing(Instant::now());
        told.take(of(&[(Cause::BacklogTooSmall, Likely)]), FULL, Round::First);
        let surer = told.take(of(&[(Cause::BacklogTooSmall, Certain)]), FULL, Round::Again);
        assert!(surer.is_empty(), "the text would be the same");
        assert_eq!(told.cause().unwrap().certainty, Certain);
        let other = told.take(of(&[(Cause::GaveUp, Certain)]), FULL, Round::Last);
        assert_eq!(causes(&other), [Cause::GaveUp]);
        assert_eq!(told.cause().unwrap().cause, Cause::GaveUp);
        assert!(told.take(of(&[(Cause::Unknown, Likely)]), FULL, Round::Again).is_empty());
    }

    #[test]
    fn a_queue_is_not_short_because_its_acceptor_stood() {
        use Certainty::{Certain, Likely};
        for (certainty, then) in [(Certain, Cause::SlowAcceptor), (Likely, Cause::BacklogTooSmall)]
        {
            let mut told = Told::nothing(Instant::now());
            told.take(of(&[(Cause::SlowAcceptor, certainty)]), FULL, Round::First);
            let bursts = told.take(of(&[(Cause::BacklogTooSmall, Certain)]), FULL, Round::Again);
            assert_eq!(bursts.is_empty(), certainty == Certain);
            assert_eq!(told.cause(), Some(Known { cause: then, certainty: Certain }));
        }
    }

    #[test]
    fn of_syns_nothing_is_said_before_it_is_known() {
        let unknown = || of(&[(Cause::Unknown, Certainty::Likely)]);
        let mut told = Told::nothing(Instant::now());
        assert!(told.take(unknown(), Failure::SynCookieSent, Round::Again).is_empty());
        assert_eq!(told.cause(), None);
        assert_eq!(told.take(unknown(), Failure::SynCookieSent, Round::Last).len(), 1);
    }
}
