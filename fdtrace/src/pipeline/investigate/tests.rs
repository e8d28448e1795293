use std::time::Duration;

use super::*;
use crate::model::Pid;

fn id(pid: u32) -> ProcessId {
    ProcessId { pid: Pid(pid), started: BootTime::default() }
}

/// One that took so long.
fn census(cost: Duration) -> Census {
    Census { cost, ..Census::empty(0) }
}

fn found(census: Option<Census>) -> Found {
    let report = Box::new(crate::output::fixtures::opened());
    let lately = Lately::default();
    let job = Job { report, before: Vec::new(), earlier: None, lately, round: Round::First };
    Found { job, provenance: None, held: None, census, acceptor: None }
}

#[tokio::test]
async fn after_a_census_there_is_a_rest() {
    let mut all = Investigations::new(None);
    all.running = 2;
    all.sender.send(Done::Episode(Box::new(found(None)))).unwrap();
    all.next().await.unwrap();
    assert!(all.pace.allows(Instant::now(), id(1)), "none was taken");
    let one = Some(census(Duration::from_millis(50)));
    all.sender.send(Done::Episode(Box::new(found(one)))).unwrap();
    all.next().await.unwrap();
    assert!(!all.pace.allows(Instant::now(), id(2)));
    assert!(all.pace.allows(Instant::now() + Duration::from_secs(10), id(2)));
}

/// One at a warning is no reason to take none at the failure.
#[tokio::test]
async fn warnings_have_a_rest_of_their_own() {
    let mut all = Investigations::new(None);
    all.close.insert(id(1), None);
    let census = census(Duration::from_millis(50));
    let earlier = Arc::new(EarlierCensus { at: BootTime::default(), census });
    for id in [id(1), id(2)] {
        all.sender.send(Done::Close(id, Some(earlier.clone()))).unwrap();
    }
    // `next` waits for an episode.
    let next = tokio::time::timeout(Duration::from_millis(100), all.next()).await;
    assert!(next.is_err());
    assert_eq!(all.close.get(&id(1)), Some(&Some(earlier)));
    assert!(!all.close.contains_key(&id(2)), "it is not close any more");
    assert!(!all.pace_of_warnings.allows(Instant::now(), id(3)));
    assert!(all.pace.allows(Instant::now(), id(1)));
    all.forget(|_| false);
    assert!(all.close.is_empty());
}
