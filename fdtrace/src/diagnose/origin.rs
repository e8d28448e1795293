//! From whom a limit is inherited, and which setting gave it to them.

use std::time::{Duration, SystemTime};

use super::{
    Bite, Side, number,
    words::{Raises, gives_on_what_it_got, raises},
};
use crate::model::{Ancestor, FdLimits, FileFact, Place, Provenance, Setting, SettingSource};

/// Dates of starts are up to a second too early: the kernel tells the boot's date in seconds.
const DATE_ERROR: Duration = Duration::from_secs(1);

/// Where a limit comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin<'a> {
    /// The highest of the ancestors, without a gap, that have the same limit or started others with
    /// it; 0 is the process.
    pub(super) holder: usize,
    /// The nearest one up to there that has raised its own limit, and gave on the one it got.
    pub(super) past: Option<&'a Ancestor>,
    /// The limits of the one above that.
    pub(super) above: Option<FdLimits>,
    /// The setting that explains it.
    pub(super) explained: Option<&'a Setting>,
    /// A setting that was raised too late for it.
    pub(super) raised: Option<Raised<'a>>,
    /// Settings that say something else, and were there before: somebody set the limit meanwhile.
    pub(super) contradicts: Vec<&'a Setting>,
}

/// A setting that would give more, and was changed after its process started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raised<'a> {
    /// The process whose start it missed.
    pub(super) at: usize,
    pub(super) setting: &'a Setting,
    /// What it says now.
    pub(super) value: u64,
    pub(super) file: &'a FileFact,
    /// How long after the start, and whether the content was changed then, or only the file put in
    /// place.
    pub(super) after: Duration,
    pub(super) by_content: bool,
    /// Whether the setting is known to be the one that is applied to that process.
    pub(super) applies: bool,
}

impl<'a> Origin<'a> {
    pub(super) fn find(provenance: &'a Provenance, bite: Bite) -> Self {
        let chain = &provenance.chain;
        let side = bite.side();
        let holder = holder(provenance, side, bite.soft);
        let below = chain.iter().take(holder + 1).skip(1);
        let mut origin = Self {
            holder,
            past: below.into_iter().find(|process| !has(process, side, bite.soft)),
            above: chain.get(holder + 1).and_then(|above| above.limits),
            explained: None,
            raised: None,
            contradicts: Vec::new(),
        };
        'chain: for (at, process) in chain.iter().enumerate().take(holder + 1) {
            for setting in &process.settings {
                if origin.weigh(at, process, setting, side, bite.soft) == Go::No {
                    break 'chain;
                }
            }
        }
        if origin.raised.is_none()
            && let Some(login) = provenance.login.as_ref().filter(|login| login.applies.is_none())
            && let Some(process) = chain.get(holder)
        {
            let raised = |setting| raised(holder, process, setting, side, bite.soft);
            origin.raised = login
                .settings
                .iter()
                .find_map(raised)
                .map(|raised| Raised { applies: false, ..raised });
        }
        origin
    }

    /// What a setting says that should be in force and is not.
    pub(super) fn wanted(&self, bite: Bite) -> Option<u64> {
        let values = self.contradicts.iter().filter_map(|setting| value(setting, bite.side()));
        values.filter(|value| *value > bite.soft).max()
    }

    /// Takes one setting into account, and says whether one further up can still matter.
    fn weigh(
        &mut self,
        at: usize,
        process: &Ancestor,
        setting: &'a Setting,
        side: Side,
        limit: u64,
    ) -> Go {
        let Some(value) = value(setting, side) else { return Go::On };
        // Which version of systemd it is, and so which default it has, is not known.
        let is_vague = matches!(
            (&setting.source, &setting.place),
            (SettingSource::UnitDefault(_), Place::BuiltIn(_))
        );
        let is_last = !setting.only_raises()
            && !is_vague
            // The default may have changed since the container was made.
            && !matches!(setting.source, SettingSource::Container { .. });
        if value == limit {
            self.explained = self.explained.or(Some(setting));
        } else if let Some(raised) = raised(at, process, setting, side, limit) {
            self.raised = Some(raised);
            return Go::No;
        } else if !is_vague
            && (value > limit || !setting.only_raises())
            && !matches!(setting.source, SettingSource::ContainerDefault { .. })
        {
            self.contradicts.push(setting);
        }
        if is_last { Go::No } else { Go::On }
    }
}

/// See [`Origin::holder`].
fn holder(provenance: &Provenance, side: Side, limit: u64) -> usize {
    let chain = &provenance.chain;
    // Who raises its own limit did not inherit a low one.
    let may_pass = side == Side::Soft && raises(&provenance.runtime) != Raises::Yes;
    let passes =
        |process: &Ancestor| may_pass && process.go.as_deref().is_some_and(gives_on_what_it_got);
    let mut holder = 0;
    let mut end = 0;
    for (at, process) in chain.iter().enumerate() {
        if has(process, side, limit) {
            holder = at;
        } else if at == 0 || !passes(process) {
            break;
        }
        end = at;
    }
    // Those at the end gave on what they had from above, or were given limits on the way: by a
    // setting, or by whoever also gave them another hard limit. Otherwise, with another soft limit
    // above, this one was not theirs.
    let hard = |at: usize| Some(chain.get(at)?.limits?.hard);
    let has_setting =
        |process: &Ancestor| process.settings.iter().any(|setting| value(setting, side).is_some());
    let was_given = hard(end + 1).is_none_or(|above| hard(end) != Some(above))
        || chain.get(end).is_some_and(has_setting);
    if was_given { end } else { holder }
}

fn has(process: &Ancestor, side: Side, limit: u64) -> bool {
    process.limits.is_some_and(|limits| on(side, limits) == limit)
}

#[derive(PartialEq, Eq)]
enum Go {
    On,
    No,
}

/// The limit that a setting gives.
pub(super) fn value(setting: &Setting, side: Side) -> Option<u64> {
    let limit = match side {
        Side::Soft => setting.soft,
        Side::Hard => setting.hard,
    };
    limit.map(number)
}

fn on(side: Side, limits: FdLimits) -> u64 {
    number(match side {
        Side::Soft => limits.soft,
        Side::Hard => limits.hard,
    })
}

fn raised<'a>(
    at: usize,
    process: &Ancestor,
    setting: &'a Setting,
    side: Side,
    limit: u64,
) -> Option<Raised<'a>> {
    let value = value(setting, side).filter(|value| *value > limit)?;
    let Place::File(file) = &setting.place else { return None };
    let started = process.started_at?;
    let after = |date: Option<SystemTime>| {
        date?.duration_since(started).ok().filter(|after| *after > DATE_ERROR)
    };
    let (after, by_content) = match (after(file.modified), after(file.changed)) {
        (Some(after), _) => (after, true),
        (None, Some(after)) => (after, false),
        (None, None) => return None,
    };
    Some(Raised { at, setting, value, file, after, by_content, applies: true })
}
