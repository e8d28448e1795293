//! A process with a limit of 100, so that what is used is the share.

use super::*;
use crate::model::Pid;

const PROCESS: Watched =
    Watched::Fds(ProcessId { pid: Pid(7), started: BootTime(Duration::from_secs(1)) });
const QUEUE: Watched = Watched::Queue(5);

fn at(seconds: f64) -> BootTime {
    BootTime(Duration::from_secs_f64(seconds))
}

fn warnings() -> Warnings {
    Warnings::new(Thresholds::new(vec![80, 95]).unwrap())
}

/// What is said of looks a second apart, by the second.
fn said(warnings: &mut Warnings, what: Watched, from: u32, used: &[u64]) -> Vec<(u32, Warning)> {
    let looks = (from..).zip(used).filter_map(|(second, used)| {
        let gauge = Gauge { used: *used, limit: 100 };
        Some((second, warnings.look(at(second.into()), what, gauge, false)?))
    });
    looks.collect()
}

/// The second, the threshold, and whether it is over.
fn brief(said: &[(u32, Warning)]) -> Vec<(u32, u8, bool)> {
    let brief = said.iter().map(|(at, said)| (*at, said.threshold, said.outcome.is_some()));
    brief.collect()
}

#[test]
fn each_threshold_once_then_over() {
    let mut warnings = warnings();
    let used = [70, 78, 80, 82, 90, 95, 96, 97, 96, 60, 50, 40, 40, 40];
    let said = said(&mut warnings, PROCESS, 10, &used);
    assert_eq!(brief(&said), [(13, 80, false), (16, 95, false), (21, 95, true)]);
    let [(_, first), (_, second), (_, over)] = said[..] else { panic!() };
    assert_eq!((first.gauge.used, first.since, first.most), (82, at(12.0), 82));
    assert_eq!((second.gauge.used, second.since), (96, at(12.0)));
    assert_eq!((over.gauge.used, over.since, over.most), (40, at(12.0), 97));
    assert_eq!((over.outcome, over.filling), (Some(Outcome::Recovered), None));
    // 12 in 3 s: 18 more in 4.5 s.
    let filling = first.filling.unwrap();
    assert!((filling.per_second - 4.0).abs() < 1e-9, "{filling:?}");
    assert_eq!(filling.full_in, Duration::from_millis(4_500));
}

#[test]
fn what_goes_up_and_down_around_a_threshold_is_one_warning() {
    let mut warnings = warnings();
    let around: Vec<u64> = (0..200).map(|turn| 78 + turn * 7 % 5).collect();
    let said = said(&mut warnings, PROCESS, 10, &around);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].1.threshold, 80);
}

#[test]
fn a_moment_below_is_no_end_and_a_moment_above_no_warning() {
    let mut warnings = warnings();
    let peaks = [60, 60, 90, 60, 60, 99, 60];
    assert_eq!(said(&mut warnings, PROCESS, 10, &peaks), []);
    let dips = [85, 85, 60, 60, 85, 60, 60, 85, 75, 75, 75, 75];
    assert_eq!(brief(&said(&mut warnings, PROCESS, 20, &dips)), [(21, 80, false)]);
    assert_eq!(brief(&said(&mut warnings, PROCESS, 40, &[74, 74, 74])), [(42, 80, true)]);
}

#[test]
fn a_jump_is_one_warning_of_the_highest_threshold() {
    let mut warnings = warnings();
    let said = said(&mut warnings, PROCESS, 10, &[60, 99, 99, 99]);
    assert_eq!(brief(&said), [(12, 95, false)]);
    assert!(said[0].1.filling.is_some());
}

#[test]
fn the_higher_threshold_is_warned_of_again_only_after_it_was_out_of_reach() {
    let mut warnings = warnings();
    let used = [96, 96, 91, 91, 91, 96, 96, 89, 89, 89, 96, 96];
    let said = said(&mut warnings, PROCESS, 10, &used);
    assert_eq!(brief(&said), [(11, 95, false), (21, 95, false)]);
}

#[test]
fn no_growth_no_time_left() {
    let mut warnings = warnings();
    let said = said(&mut warnings, PROCESS, 10, &[90, 85]);
    assert_eq!(brief(&said), [(11, 80, false)]);
    assert_eq!(said[0].1.filling, None);
}

#[test]
fn an_episode_supersedes_and_nothing_is_said_until_it_has_fallen() {
    let mut warnings = warnings();
    assert_eq!(said(&mut warnings, PROCESS, 10, &[85, 85]).len(), 1);
    let full = Gauge { used: 100, limit: 100 };
    for second in [12.0, 13.0, 14.0] {
        assert_eq!(warnings.look(at(second), PROCESS, full, true), None);
    }
    // The episode is over, and it is still close to its limit: the episode's end told.
    assert_eq!(said(&mut warnings, PROCESS, 15, &[99, 97, 96, 85, 85, 85, 85]), []);
    // It fell from there without a word, as nobody was warned.
    assert_eq!(said(&mut warnings, PROCESS, 30, &[10, 10, 10, 10]), []);
    assert_eq!(brief(&said(&mut warnings, PROCESS, 40, &[85, 85])), [(41, 80, false)]);
}

#[test]
fn who_is_gone_was_warned_of() {
    let mut warnings = warnings();
    said(&mut warnings, PROCESS, 10, &[85, 85, 90]);
    let gone = warnings.gone(at(13.0), PROCESS).unwrap();
    assert_eq!((gone.outcome, gone.threshold), (Some(Outcome::Exited), 80));
    assert_eq!((gone.gauge.used, gone.filling), (90, None));
    assert_eq!(warnings.gone(at(13.0), PROCESS), None);
    // Nobody was told of these.
    said(&mut warnings, PROCESS, 20, &[85]);
    assert_eq!(warnings.gone(at(21.0), PROCESS), None);
    warnings.look(at(30.0), PROCESS, Gauge { used: 100, limit: 100 }, true);
    assert_eq!(warnings.gone(at(31.0), PROCESS), None);
}

#[test]
fn only_what_is_close_is_watched() {
    let mut warnings = warnings();
    let look = |warnings: &mut Warnings, what, used, limit| {
        warnings.look(at(10.0), what, Gauge { used, limit }, false);
        warnings.watches(what)
    };
    assert!(!look(&mut warnings, PROCESS, 500, 1024));
    // The kernel side's next look could be at 80 % already.
    assert!(look(&mut warnings, PROCESS, 705, 1024));
    assert!(!look(&mut warnings, PROCESS, 500, 1024));
    assert!(!look(&mut warnings, QUEUE, 74, 100));
    assert!(look(&mut warnings, QUEUE, 75, 100));
    assert!(!look(&mut warnings, QUEUE, 74, 100));
    for inode in 0..5000 {
        look(&mut warnings, Watched::Queue(inode), 1, 1);
    }
    assert_eq!(warnings.watched.len(), MOST_WATCHED);
    let mut off = Warnings::new(Thresholds::default());
    assert!(!look(&mut off, PROCESS, 1024, 1024));
}

#[test]
fn a_limit_that_is_raised_ends_it() {
    let mut warnings = warnings();
    said(&mut warnings, PROCESS, 10, &[85, 85]);
    let raised = Gauge { used: 85, limit: 1000 };
    assert_eq!(warnings.look(at(12.0), PROCESS, raised, false), None);
    let over = warnings.look(at(14.0), PROCESS, raised, false).unwrap();
    assert_eq!((over.outcome, over.gauge), (Some(Outcome::Recovered), raised));
}

#[test]
fn the_history_is_long_and_bounded() {
    let mut warnings = warnings();
    for second in 0_u32..1000 {
        let gauge = Gauge { used: 85, limit: 100 };
        warnings.look(at(second.into()), PROCESS, gauge, false);
    }
    let samples: Vec<_> = warnings.samples(PROCESS).collect();
    assert!(samples.len() <= MOST_SAMPLES);
    assert_eq!(samples[0].at, at(0.0));
    assert_eq!(samples.last().unwrap().at, at(999.0));
    let recent = samples.iter().filter(|sample| sample.at >= at(970.0)).count();
    assert!(recent >= 29, "{recent}");
    assert!(samples.windows(2).all(|pair| pair[0].at < pair[1].at));
}
