//! Pages of the book, whose examples are run as they stand there.

use redis::AsyncTypedCommands as _;
use redis::streams::StreamId;

use crate::harness::broker::{Broker, Kind};
use crate::harness::command::Project;
use crate::harness::database::{Database, System};
use crate::harness::guest;
use crate::harness::server::{Kind as ServerKind, Server};

/// The examples in one language, in their order.
fn examples(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    page.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Tables of a poller and of Debezium are sent as they are: under their ids, in their order, marked or deleted.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_there_already_are_sent() {
    let page = include_str!("../../docs/src/moving.md");
    let server = tokio::task::spawn_blocking(|| Server::shared(ServerKind::Postgres)).await.unwrap();
    let database = Database::without_outbox(System::Postgres, server).await;
    for statements in examples(page, "sql") {
        database.run(&statements).await;
    }
    let rows = "INSERT INTO message (topic, body, status) SELECT 'mails', 'body ' || i, \
                CASE WHEN i < 4 THEN 'SENT' ELSE 'NEW' END FROM generate_series(1, 9) i ORDER BY i";
    database.run(rows).await;
    let rows = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) SELECT 'order', 'o' || i % 3, 'OrderPlaced', \
                jsonb_build_object('n', i) FROM generate_series(1, 9) i ORDER BY i";
    database.run(rows).await;
    let mut written = database.lines("SELECT aggregateid || id FROM outbox ORDER BY created_at, id").await;
    let broker = tokio::task::spawn_blocking(|| Broker::start(Kind::Redis, "")).await.unwrap();
    let signals = examples(page, "toml").concat().replace("publish.wasm", &guest("signalbus_publish").display().to_string());
    let config = format!("[database]\nurl = {:?}\n{signals}\n[connections.bus]\nurl = {:?}\n", database.url, broker.url());
    let project = Project::new(database.folder(), &config);
    project.ok(&["migrate"]);
    assert_eq!(project.ok(&["pending"]).lines().last(), Some("Total pending: 15"));
    project.ok(&["flush", "--wait", "0"]);
    let mut redis = broker.redis().await;
    let mut entries = async |stream: &str| redis.xrange_all(stream).await.unwrap().ids;
    let event = |entry: &StreamId| Some(entry.get::<String>("key")? + &entry.get::<String>("id")?);
    let mut events: Vec<String> = entries("outbox.event.order").await.iter().filter_map(event).collect();
    // (Each key has an order of its own.)
    [&mut written, &mut events].into_iter().for_each(|ids| ids.sort_by(|one, other| one[..2].cmp(&other[..2])));
    assert_eq!(events, written);
    let mails: Vec<String> = entries("mails").await.iter().filter_map(|entry| entry.get("body")).collect();
    assert_eq!(mails, (4..=9).map(|n| format!("body {n}")).collect::<Vec<_>>());
    assert_eq!(database.count("outbox").await, 0);
    let marked = "SELECT count(*) FROM message WHERE status = 'SENT' AND (sent_at IS NULL) = (id < 4)";
    assert_eq!(database.number(marked).await, 9);
}
