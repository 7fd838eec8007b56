//! When the watcher polls, and which runners it wakes; the test gives it its answers, as in `fake`.

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::fake::*;
use crate::ports::Claims as _;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A question of the watcher, and where its answer goes.
enum Asked {
    /// The names of signal types, and whether each is looked through from its start.
    Look(Vec<(String, bool)>, oneshot::Sender<Result<Vec<Option<bool>>, Error>>),
    Watch(oneshot::Sender<Result<Option<Box<dyn Watch>>, Error>>),
}

struct FakeOutbox(mpsc::UnboundedSender<Asked>);

impl Watched for FakeOutbox {
    type Table = FakeTable;

    fn look<'a>(&'a self, views: &'a [(&'a FakeTable, bool)]) -> BoxFuture<'a, Result<Vec<Option<bool>>, Error>> {
        let views = views.iter().map(|(table, thorough)| (table.signal_type().name.clone(), *thorough));
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked::Look(views.collect(), answer)).unwrap();
        Box::pin(async { answered.await.unwrap() })
    }

    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked::Watch(answer)).unwrap();
        Box::pin(async { answered.await.unwrap() })
    }
}

/// Commits that the test announces.
struct Commits(mpsc::UnboundedReceiver<Result<Option<String>, Error>>);

impl Watch for Commits {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async { self.0.recv().await.unwrap() })
    }
}

/// A watcher of two signal types, which do not run.
struct Fixture {
    watcher: Arc<OutboxWatcher<FakeOutbox, FakePlugin>>,
    types: [Arc<FakeRunner>; 2],
    asked: mpsc::UnboundedReceiver<Asked>,
    stop: CancellationToken,
}

impl Fixture {
    fn new() -> Self {
        let (outbox, asked) = mpsc::unbounded_channel();
        let (runners, activity) = (Arc::<Runners<_, _>>::default(), LastActivity::new());
        let types = ["A", "B"].map(|name| Arc::new(runner(name, activity.clone()).0));
        types.iter().for_each(|runner| runners.put(runner.clone()));
        let watcher = Arc::new(OutboxWatcher::new(FakeOutbox(outbox), runners, activity, Some(MAX_INTERVAL)));
        Self { watcher, types, asked, stop: CancellationToken::new() }
    }

    fn polling() -> Self {
        let fixture = Self::new();
        let (watcher, stop) = (fixture.watcher.clone(), fixture.stop.clone());
        tokio::spawn(async move { watcher.poll(&stop).await });
        fixture
    }

    fn listening() -> Self {
        let fixture = Self::new();
        let (watcher, stop) = (fixture.watcher.clone(), fixture.stop.clone());
        tokio::spawn(async move { watcher.listen(&stop).await });
        fixture
    }

    async fn next(&mut self) -> Asked {
        let asked = tokio::time::timeout(DAY, self.asked.recv()).await;
        asked.expect("nothing is asked").expect("the watcher has ended")
    }

    /// Answers the next question, which must be for what is due. Returns how long it was in coming.
    async fn look(&mut self, due: Result<[bool; 2], Error>) -> Duration {
        let begun = Instant::now();
        let Asked::Look(_, answer) = self.next().await else { panic!("not a look") };
        answer.send(due.map(|due| due.map(Some).to_vec())).unwrap();
        begun.elapsed()
    }

    /// The same, after a time.
    async fn look_late(&mut self, time: Duration) -> Duration {
        let begun = Instant::now();
        let Asked::Look(_, answer) = self.next().await else { panic!("not a look") };
        let asked = begun.elapsed();
        self.none_for(time).await;
        answer.send(Ok(vec![Some(false); 2])).unwrap();
        asked
    }

    /// Answers the next question, which must be for announcements. Returns how long it was in coming.
    async fn watch(&mut self, watch: Result<Option<Box<dyn Watch>>, Error>) -> Duration {
        let begun = Instant::now();
        let Asked::Watch(answer) = self.next().await else { panic!("not a watch") };
        assert!(answer.send(watch).is_ok());
        begun.elapsed()
    }

    /// Sets up announcements, and returns where to announce commits.
    async fn announce(&mut self) -> mpsc::UnboundedSender<Result<Option<String>, Error>> {
        let (announce, commits) = mpsc::unbounded_channel();
        self.watch(Ok(Some(Box::new(Commits(commits))))).await;
        self.none_for(MS).await;
        announce
    }

    /// Lets `time` pass, in which nothing may be asked.
    async fn none_for(&mut self, time: Duration) {
        assert!(tokio::time::timeout(time, self.asked.recv()).await.is_err(), "asked too early");
    }

    /// Returns which of the types were woken since the last call.
    fn woken(&self) -> [bool; 2] {
        [0, 1].map(|n| self.types[n].take_woken())
    }
}

#[tokio::test(start_paused = true)]
async fn polls_become_rarer_the_longer_nothing_is_claimed() {
    let mut watcher = Fixture::polling();
    let begun = Instant::now();
    let mut intervals = Vec::new();
    while begun.elapsed() < SECOND * 120 {
        let idle = begun.elapsed();
        intervals.push((idle, watcher.look(Ok([false; 2])).await));
    }
    let after = |idle: Duration| intervals.iter().find(|(begun, _)| *begun >= idle).unwrap().1;
    assert_eq!((after(MS), after(SECOND * 3)), (MS * 10, MS * 10));
    assert!((MS * 900..MS * 1100).contains(&after(SECOND * 13)), "{:?}", after(SECOND * 13));
    assert_eq!((after(SECOND * 58), after(SECOND * 110)), (SECOND * 5, SECOND * 5));
    assert!(intervals[1..].is_sorted_by_key(|(_, interval)| *interval), "{intervals:?}");
    assert_eq!(watcher.woken(), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_after_a_quiet_time_makes_polls_frequent_again() {
    let mut watcher = Fixture::polling();
    let begun = Instant::now();
    while begun.elapsed() < SECOND * 60 {
        watcher.look(Ok([false; 2])).await;
    }
    watcher.none_for(SECOND).await;
    watcher.watcher.activity.mark();
    assert_eq!(watcher.look(Ok([false; 2])).await, Duration::ZERO);
    for _ in 0..100 {
        assert_eq!(watcher.look(Ok([false; 2])).await, MS * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn polls_take_at_most_a_tenth_of_the_time() {
    let mut watcher = Fixture::polling();
    watcher.look_late(MS * 300).await;
    watcher.look_late(MS * 200).await;
    assert_eq!(watcher.look(Ok([false; 2])).await, SECOND * 2);
    assert_eq!(watcher.look(Ok([false; 2])).await, MS * 10);
}

/// However long a lock, or a silent network, has held it up.
#[tokio::test(start_paused = true)]
async fn a_poll_that_took_long_is_repeated_within_seconds() {
    let mut watcher = Fixture::polling();
    watcher.look_late(SECOND * 25).await;
    assert!(watcher.look_late(SECOND * 25).await < SECOND * 5);
    assert_eq!(watcher.look(Ok([false; 2])).await, SECOND * 5);
}

/// A claim that waits for the same lock keeps the next poll from seeing anything.
#[tokio::test(start_paused = true)]
async fn a_relay_is_blind_until_a_poll_sees_or_something_is_claimed() {
    for claimed in [false, true] {
        let mut watcher = Fixture::polling();
        watcher.look(Err(unreachable())).await;
        for seen in [None, Some(false)] {
            let Asked::Look(_, answer) = watcher.next().await else { panic!("not a look") };
            assert!(watcher.watcher.blind().is_some());
            if claimed {
                watcher.watcher.activity.mark();
            }
            answer.send(Ok(vec![seen, Some(false)])).unwrap();
            watcher.none_for(MS).await;
            assert_eq!(watcher.watcher.blind().is_some(), seen.is_none() && !claimed);
            if claimed {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn types_with_something_due_are_woken() {
    let mut watcher = Fixture::polling();
    for due in [[true, false], [false, true], [true, true], [false, false]] {
        watcher.look(Ok(due)).await;
        watcher.none_for(MS).await;
        assert_eq!(watcher.woken(), due);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_fails_is_repeated() {
    let mut watcher = Fixture::polling();
    watcher.look(Err(unreachable())).await;
    for _ in 0..10 {
        assert_eq!(watcher.look(Err(unreachable())).await, MS * 10);
    }
    watcher.none_for(MS).await;
    assert_eq!(watcher.woken(), [false, false]);
    assert_eq!(watcher.look(Ok([true; 2])).await, MS * 9);
    watcher.none_for(MS).await;
    assert_eq!(watcher.woken(), [true, true]);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_table_hides_no_other() {
    let mut watcher = Fixture::polling();
    watcher.look(Err(refused(false))).await;
    watcher.none_for(MS).await;
    assert_eq!(watcher.woken(), [true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_for_the_next_poll() {
    let mut watcher = Fixture::polling();
    watcher.look(Ok([false; 2])).await;
    watcher.none_for(MS).await;
    watcher.stop.cancel();
    watcher.none_for(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn an_announced_commit_wakes_its_type_only() {
    let mut watcher = Fixture::listening();
    let announce = watcher.announce().await;
    // There may have been commits before.
    assert_eq!(watcher.woken(), [true, true]);
    for (name, woken) in [("A", [true, false]), ("B", [false, true]), ("C", [false, false])] {
        announce.send(Ok(Some(name.into()))).unwrap();
        watcher.none_for(MS).await;
        assert_eq!(watcher.woken(), woken);
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_commit_of_an_unknown_type_is_looked_for_at_once() {
    let mut watcher = Fixture::listening();
    let announce = watcher.announce().await;
    watcher.woken();
    announce.send(Ok(None)).unwrap();
    let Asked::Look(views, answer) = watcher.next().await else { panic!("not a look") };
    assert_eq!(views, [("A".into(), true), ("B".into(), true)]);
    answer.send(Ok(vec![Some(false), Some(true)])).unwrap();
    watcher.none_for(MS).await;
    assert_eq!(watcher.woken(), [false, true]);
    // There is nothing to look for where there is one type only.
    watcher.watcher.runners.remove("B");
    announce.send(Ok(None)).unwrap();
    watcher.none_for(MS).await;
    assert_eq!(watcher.woken(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn announcements_make_polls_rare_until_they_are_lost() {
    let mut listening = Fixture::listening();
    let announce = listening.announce().await;
    let (watcher, stop) = (listening.watcher.clone(), listening.stop.clone());
    tokio::spawn(async move { watcher.poll(&stop).await });
    listening.look(Ok([false; 2])).await;
    for _ in 0..3 {
        assert_eq!(listening.look(Ok([false; 2])).await, SECOND * 5);
    }
    listening.watcher.activity.mark();
    // Claims do not make polls more frequent.
    assert_eq!(listening.look(Ok([false; 2])).await, SECOND * 5);
    announce.send(Err(unreachable())).unwrap();
    let begun = Instant::now();
    listening.watch(Ok(None)).await;
    listening.look(Ok([false; 2])).await;
    assert!(begun.elapsed() <= SECOND * 5, "{:?}", begun.elapsed());
    for _ in 0..3 {
        assert!(listening.look(Ok([false; 2])).await < SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_announcements_are_set_up_again_after_a_second() {
    let mut watcher = Fixture::listening();
    for _ in 0..3 {
        let announce = watcher.announce().await;
        assert_eq!(watcher.woken(), [true, true]);
        announce.send(Err(unreachable())).unwrap();
        watcher.none_for(SECOND - MS).await;
    }
    for _ in 0..3 {
        watcher.watch(Err(unreachable())).await;
        assert_eq!(watcher.watch(Err(unreachable())).await, SECOND);
        watcher.none_for(SECOND - MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn announcements_that_are_not_set_up_are_looked_for_every_ten_minutes() {
    let mut watcher = Fixture::listening();
    watcher.watch(Ok(None)).await;
    assert_eq!(watcher.watch(Err(refused(false))).await, SECOND * 600);
    assert_eq!(watcher.watch(Ok(None)).await, SECOND * 600);
    assert_eq!(watcher.woken(), [false, false]);
    watcher.stop.cancel();
    watcher.none_for(HOUR).await;
}
