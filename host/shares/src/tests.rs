use super::*;
use futures::FutureExt as _;

fn now(share: &Share, units: u32) -> Option<Taken> {
    tokio::task::unconstrained(share.take(units)).now_or_never().flatten()
}

#[tokio::test]
async fn a_share_is_kept_for_each_type() {
    let pool = Pool::new(256, Measure::Units);
    let shares: Vec<Share> = (0..16).map(|n| pool.share(&format!("type {n}"))).collect();
    // Half of all is shared out: eight for each. Of the other half, one may have everything.
    let greedy: Vec<Taken> = std::iter::from_fn(|| now(&shares[0], 1)).collect();
    assert_eq!(greedy.len(), 128 + 8);
    for share in &shares[1..] {
        let taken = now(share, 8);
        assert!(taken.is_some() && now(share, 1).is_none());
        std::mem::forget(taken);
    }
    drop(greedy);
    assert!(now(&shares[1], 100).is_some());
}

#[tokio::test]
async fn who_holds_the_least_comes_first() {
    let pool = Pool::new(4, Measure::Units);
    let [a, b] = [pool.share("a"), pool.share("b")];
    let mut held: Vec<Taken> = vec![now(&a, 1).unwrap(), now(&a, 1).unwrap(), now(&a, 1).unwrap(), now(&b, 1).unwrap()];
    let (mut more, mut other) = (Box::pin(a.take(1)), Box::pin(b.take(1)));
    assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_none());
    held.remove(0);
    assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_some());
}

/// A type that was quiet is served at once, and has saved nothing up.
#[tokio::test]
async fn turns_go_by_the_time_that_was_used() {
    let pool = Pool::new(1, Measure::Time);
    let [a, b] = [pool.share("a"), pool.share("b")];
    let times = |name: &str| pool.state().members[name].time;
    for _ in 0..3 {
        let turn = now(&a, 1).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        drop(turn);
    }
    let turn = now(&a, 1).unwrap();
    let (mut more, mut other) = (Box::pin(a.take(1)), Box::pin(b.take(1)));
    assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_none());
    drop(turn);
    assert!((&mut more).now_or_never().is_none());
    assert!((&mut other).now_or_never().is_some());
    assert!(times("b") >= Duration::from_millis(10), "{:?}", times("b"));
}

#[tokio::test]
async fn who_waits_no_more_takes_nothing() {
    let pool = Pool::new(1, Measure::Units);
    let share = pool.share("a");
    let taken = now(&share, 1).unwrap();
    assert!(now(&share, 1).is_none());
    drop(taken);
    assert!(now(&share, 1).is_some());
    assert_eq!(pool.state().free, 1);
}

/// A turn that took an hour is not paid for with an hour.
#[tokio::test]
async fn what_a_type_owes_has_an_end() {
    let pool = Pool::new(1, Measure::Time);
    let [a, b] = [pool.share("a"), pool.share("b")];
    drop(now(&a, 1));
    pool.state().change(&"a".into(), |member| member.time += Duration::from_secs(3600));
    let _turn = now(&b, 1).unwrap();
    assert!(now(&a, 1).is_none());
    let state = pool.state();
    assert_eq!(state.members["a"].time, state.floor + MOST_OWED);
}

/// However many of a type wait, another one that asks comes next.
#[tokio::test]
async fn those_who_wait_queue_by_type() {
    let pool = Pool::new(1, Measure::Time);
    let [a, b] = [pool.share("a"), pool.share("b")];
    let mut turn = now(&a, 1).unwrap();
    let mut crowd: Vec<_> = (0..1000).map(|_| Box::pin(tokio::task::unconstrained(a.take(1)))).collect();
    assert!(crowd.iter_mut().all(|waits| waits.now_or_never().is_none()));
    for n in 0..10 {
        let mut other = Box::pin(b.take(1));
        assert!((&mut other).now_or_never().is_none());
        // Its turn took longer than one of the other's does.
        pool.state().change(&"a".into(), |member| member.time += Duration::from_secs(60));
        drop(turn);
        turn = (&mut other).now_or_never().unwrap().unwrap();
        let more = crowd.iter_mut().filter_map(|waits| waits.now_or_never()).count();
        assert_eq!(more, 0, "after {n} turns");
        drop(turn);
        turn = crowd.remove(0).now_or_never().unwrap().unwrap();
    }
    assert_eq!(pool.used(), 1);
    drop((turn, crowd));
    assert_eq!((pool.used(), pool.state().queue.len()), (0, 0));
}

/// What can be divided never waits for more than the type's share.
#[tokio::test]
async fn a_part_is_taken_of_what_can_be_divided() {
    let pool = Pool::new(64, Measure::Units);
    let [a, b] = [pool.share("a"), pool.share("b")];
    let some = |share: &Share, least, most| {
        let taken = tokio::task::unconstrained(share.take_some(least, most)).now_or_never().flatten();
        taken.map(|taken| (taken.units(), taken))
    };
    let units = |taken: &Option<(u32, Taken)>| taken.as_ref().map(|taken| taken.0);
    let first = some(&a, 1, 100);
    let second = some(&a, 1, 100);
    // A quarter is kept for the other.
    assert_eq!([&first, &second].map(units), [Some(32), Some(16)]);
    let third = some(&a, 1, 1);
    let other = some(&b, 1, 100);
    assert_eq!([&third, &other].map(units), [None, Some(16)]);
    assert_eq!(units(&some(&b, 1, 1)), None);
    drop(first);
    assert_eq!(units(&some(&b, 20, 100)), Some(32));
}

/// Those who have given up, and types that are gone, leave nothing behind.
#[tokio::test]
async fn nothing_is_left_of_those_who_are_gone() {
    let pool = Pool::new(16, Measure::Units);
    let [a, b] = [pool.share("a"), pool.share("b")];
    let most = now(&a, 8).unwrap();
    for _ in 0..100 {
        assert!(now(&a, 8).is_none());
    }
    assert!(pool.state().members["a"].waiting.is_empty());
    drop(a);
    let kept = |pool: &Pool| {
        let state = pool.state();
        (state.kept, state.lacking)
    };
    assert_eq!(kept(&pool), (4, 4));
    drop(most);
    assert_eq!((kept(&pool), pool.used(), b.members()), ((8, 8), 0, 1));
}
