//! Redis Sentinel, with real servers: the relay follows the master, whoever that is.

use crate::harness::bus::{Shop, distinct_rows_of, ids};
use crate::harness::redis::{Watched, now};

fn connection(watched: &Watched, replicas: u32) -> String {
    format!("url = {:?}", watched.url(Watched::SERVERS, Watched::SENTINELS, replicas))
}

/// Everything has arrived at the present master, and no more than the batches in flight have come twice.
async fn everything_arrived(watched: &Watched, rows: u32) {
    let master = watched.master().await;
    let arrived = watched.arrived(master).await;
    println!("{} of {rows} arrived at server {master}", arrived.len());
    assert!(arrived.len() <= rows as usize + 100, "{}", arrived.len());
    assert_eq!(distinct_rows_of(arrived), ids(rows));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_costs_nothing() {
    let watched = Watched::start().await;
    let shop = Shop::with(20_000, &connection(&watched, 1), "").await;
    let master = watched.master().await;
    shop.survives(|| watched.servers[master].kill(), || now(watched.wait_other_master(master))).await;
    everything_arrived(&watched, 20_000).await;
}

/// It takes messages until it hears of its successor, and one of its replicas still confirms them: only messages that both
/// replicas have confirmed are kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_costs_nothing() {
    let watched = Watched::start().await;
    let shop = Shop::with(20_000, &connection(&watched, 2), "").await;
    let master = watched.master().await;
    shop.sends_meanwhile(async || {
        watched.sentinel(&watched.sentinels[1], &["SENTINEL", "FAILOVER", "mymaster"]).await;
        watched.wait_other_master(master).await;
    })
    .await;
    everything_arrived(&watched, 20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_login_is_told_apart() {
    let watched = Watched::start().await;
    let url = |servers: &str, sentinels: &str| format!("url = {:?}", watched.url(servers, sentinels, 1));
    for (servers, sentinels) in [("hunter2", Watched::SENTINELS), (Watched::SERVERS, "hunter2")] {
        let refuser = if sentinels == "hunter2" { &watched.sentinels } else { &watched.servers };
        let shop = Shop::small(&url(servers, sentinels), "").await;
        let words = refuser.iter().map(|server| format!("Redis at 127.0.0.1:{} refuses the login", server.port()));
        let said = shop.flush();
        assert_eq!(said.status, 78, "{said:#?}");
        assert!(words.into_iter().any(|words| said.stderr.contains(&words)), "{said:#?}");
        shop.cannot(78, &["connection \"bus\": "]).await;
    }
    let other = connection(&watched, 1).replace("mymaster", "other");
    Shop::small(&other, "").await.cannot(78, &["knows no master \"other\""]).await;
    // One sentinel is enough.
    watched.sentinels[0].kill();
    watched.sentinels[2].kill();
    let shop = Shop::small(&connection(&watched, 1), "").await;
    shop.sends().await;
    watched.sentinels[1].kill();
    let words = format!("Redis at 127.0.0.1:{}: ", watched.sentinels[1].port());
    Shop::small(&connection(&watched, 1), "").await.cannot(69, &[&words]).await;
}
