//! What /healthz says. The thread that answers does not depend on the one that traces.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::model::{LostCount, LostKind};

/// A tick that is later than that means that the trace is stuck: they come once a second.
const MOST_LATE: Duration = Duration::from_secs(5);

/// Shared by whoever knows and whoever answers.
#[derive(Clone, Debug)]
pub(super) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    ticked: Notify,
}

#[derive(Debug)]
struct State {
    ticked: Instant,
    probes_down: Vec<&'static str>,
    outputs: Vec<OutputState>,
}

/// How an output fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutputState {
    /// Its name, which is also the reason for what it lost.
    pub(super) name: &'static str,
    /// Why it cannot be written to.
    pub(super) failing: Option<String>,
    /// Reports that it did not get.
    pub(super) lost: u64,
}

impl Health {
    pub(super) fn new() -> Self {
        let state = State { ticked: Instant::now(), probes_down: Vec::new(), outputs: Vec::new() };
        Self(Arc::new(Inner { state: Mutex::new(state), ticked: Notify::new() }))
    }

    /// The trace goes on, without those probes, and the outputs stand like this.
    pub(super) fn tick(&self, probes_down: &[&'static str], outputs: Vec<OutputState>) {
        let mut state = self.state();
        state.ticked = Instant::now();
        state.probes_down.clear();
        state.probes_down.extend_from_slice(probes_down);
        state.outputs = outputs;
        drop(state);
        self.0.ticked.notify_waiters();
    }

    /// Waits for the next tick.
    pub(super) async fn next_tick(&self) {
        self.0.ticked.notified().await;
    }

    /// What is wrong; nothing where all is well.
    pub(super) fn problems(&self) -> Vec<String> {
        let state = self.state();
        let late = state.ticked.elapsed();
        let is_late = late > MOST_LATE;
        let stuck = is_late.then(|| format!("the trace is stuck for {} s", late.as_secs()));
        let down = state.probes_down.iter();
        let down = down.map(|probe| format!("the probe `{probe}` is not attached"));
        let failing = state.outputs.iter().filter_map(|output| {
            Some(format!("{} cannot be written: {}", output.name, output.failing.as_ref()?))
        });
        stuck.into_iter().chain(down).chain(failing).collect()
    }

    /// Reports that did not reach an output.
    pub(super) fn lost(&self) -> Vec<LostCount> {
        let state = self.state();
        let lost = state.outputs.iter().map(|output| LostCount {
            reason: output.name,
            kind: LostKind::Notices,
            count: Some(output.lost),
        });
        lost.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can leave it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_is_said() {
        let health = Health::new();
        assert!(health.problems().is_empty());
        let failing = Some("No space left on device".to_owned());
        let outputs = vec![
            OutputState { name: "json_file", failing, lost: 3 },
            OutputState { name: "stdout", failing: None, lost: 0 },
        ];
        health.tick(&["syn"], outputs);
        health.state().ticked = Instant::now().checked_sub(Duration::from_secs(9)).unwrap();
        let problems = health.problems();
        assert_eq!(
            problems,
            [
                "the trace is stuck for 9 s",
                "the probe `syn` is not attached",
                "json_file cannot be written: No space left on device",
            ]
        );
        let lost = health.lost();
        assert_eq!((lost[0].reason, lost[0].count), ("json_file", Some(3)));
        // It was attached again.
        health.tick(&[], Vec::new());
        assert!(health.problems().is_empty());
    }
}
