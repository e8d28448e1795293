//! SIGHUP: what the file says now holds from now on. The programs stay attached, and no count is lost.

use std::{cell::RefCell, rc::Rc};

use tokio::{signal::unix::Signal, sync::mpsc::Sender};

use super::{notify::Notify, outputs::Outputs, read_config};
use crate::{
    cli::{DaemonConfig, DaemonSettings},
    output::Colour,
    pipeline::Ask,
};

/// What a reload reads and changes.
pub(super) struct Reload<'a> {
    pub(super) settings: &'a DaemonSettings,
    pub(super) colour: Colour,
    pub(super) outputs: Outputs,
    pub(super) notify: Rc<RefCell<Notify>>,
    pub(super) asks: Sender<Ask>,
    /// What holds.
    pub(super) config: DaemonConfig,
}

impl Reload<'_> {
    /// Reloads at every signal, for ever.
    pub(super) async fn run(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.notify.borrow().reloading();
            match self.reload().await {
                Ok(()) => log::info!("read the configuration again"),
                Err(error) => {
                    log::error!("the configuration stays as it was: {error:#}");
                }
            }
            self.notify.borrow().reloaded();
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        let mut new = read_config(self.settings)?;
        self.outputs.change(&new.output, self.colour, &self.settings.journal_socket)?;
        for key in keep_what_stays(&self.config, &mut new) {
            log::warn!("{key} has changed, which takes a restart; the rest holds from now on");
        }
        let change = Ask::Change { filter: new.trace.filter.clone(), interval: new.trace.interval };
        self.asks.send(change).await?;
        self.config = new;
        Ok(())
    }
}

/// Takes what only a start reads from the old configuration; gives the keys that have changed.
fn keep_what_stays(old: &DaemonConfig, new: &mut DaemonConfig) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut keep = |key, has_changed| {
        if has_changed {
            changed.push(key);
        }
    };
    let (trace, metrics) = (&mut new.trace, &mut new.metrics);
    keep("trace.fds", trace.fds != old.trace.fds);
    keep("trace.warn_at", trace.warn_at != old.trace.warn_at);
    keep("trace.packets", trace.packets_rest != old.trace.packets_rest);
    keep("metrics.listen", metrics.listen != old.metrics.listen);
    keep("metrics.socket", metrics.socket != old.metrics.socket);
    keep("metrics.max_series", metrics.max_series != old.metrics.max_series);
    trace.fds = old.trace.fds;
    trace.packets_rest = old.trace.packets_rest;
    trace.warn_at.clone_from(&old.trace.warn_at);
    metrics.clone_from(&old.metrics);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_restart_is_told_and_stays() {
        let parse = |text: &str| DaemonConfig::parse("x.toml", text).unwrap();
        let old = parse("");
        let mut new = parse("[trace]\nfds = true\nports = [80]\n[metrics]\nlisten = \"\"\n");
        assert_eq!(keep_what_stays(&old, &mut new), ["trace.fds", "metrics.listen"]);
        assert_eq!(new.trace.filter.ports, [80]);
        assert!(!new.trace.fds && new.metrics == old.metrics);
        let mut same = old.clone();
        assert!(keep_what_stays(&old, &mut same).is_empty());
    }
}
