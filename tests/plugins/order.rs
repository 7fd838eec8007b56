//! Order: the relay preserves it, whatever a plugin does with the signals of a call.

use redis::AsyncTypedCommands as _;

use super::in_each_language;
use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::row_of;
use crate::harness::command::Project;
use crate::harness::database::Database;

/// The samples publish the messages of a call as one list, and do nothing for order.
async fn a_retry_holds_back_only_its_own_order_key(language: &str) {
    let broker = Broker::shared(Kind::Redis);
    let stream = format!("orders-{language}");
    let database = Database::sqlite().await;
    database
        .run(
            "CREATE TABLE order_placed (id INTEGER PRIMARY KEY, customer TEXT, outcome TEXT);
             INSERT INTO order_placed VALUES
                 (1, 'Ada', NULL), (2, 'Ada', 'retry'), (3, 'Grace', NULL), (4, 'Ada', NULL),
                 (5, 'Grace', 'reject'), (6, 'Grace', NULL), (7, 'Ada', 'skip'), (8, NULL, NULL)",
        )
        .await;
    let config = format!(
        "[database]\nurl = {:?}\n[connections.bus]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {:?}\n\
         order_by = ['id']\norder_key = ['customer']\n\
         grants = {{ connections = ['bus'] }}\nsettings = {{ connection = 'bus', destination = {stream:?}, outcome_column = 'outcome' }}\n",
        database.url,
        broker.url(),
        super::sample(language),
    );
    let project = Project::new(database.folder(), &config);
    let mut connection = broker.redis().await;
    let mut arrived = async || {
        let entries = connection.xrange_all(&stream).await.unwrap().ids;
        let ids = entries.iter().map(|entry| entry.get::<String>("id").unwrap());
        ids.map(|id| row_of(&id).trim_start_matches("OrderPlaced:").to_owned()).collect::<Vec<_>>()
    };

    let said = project.run(&["flush", "-w", "0"]);
    let mut first = arrived().await;
    let grace: Vec<_> = first.iter().filter(|id| ["3", "6"].contains(&id.as_str())).cloned().collect();
    assert_eq!(grace, ["3", "6"], "{said:#?}");
    first.sort();
    assert_eq!(first, ["1", "3", "6", "8"], "{said:#?}");
    assert_eq!(database.lines("SELECT CAST(id AS TEXT) FROM order_placed ORDER BY id").await, ["2", "4", "5", "7"]);
    let charged =
        database.lines("SELECT signal_key || ' ' || attempts FROM signalbus_hold WHERE state = 'retry' AND attempts > 0").await;
    assert_eq!(charged, ["2 1"], "{said:#?}");

    database.run("UPDATE order_placed SET outcome = NULL WHERE id = 2").await;
    let said = project.run(&["flush", "-w", "10"]);
    assert_eq!(arrived().await[4..], ["2", "4"], "{said:#?}");
    assert_eq!(database.waiting().await, 0, "{said:#?}");
}

in_each_language!(a_retry_holds_back_only_its_own_order_key: rust, c, cpp, zig, go, python, javascript, typescript);

/// What a plugin says that it has sent is sent, even behind a failure: to send it again would not put it in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_no_order_is_at_fault() {
    let database = Database::sqlite().await;
    database
        .run(
            "CREATE TABLE order_placed (id INTEGER PRIMARY KEY, payload TEXT);
             INSERT INTO order_placed VALUES (1, 'sent'), (2, 'retry'), (3, 'sent'), (4, 'retry')",
        )
        .await;
    let config = format!(
        "[database]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {:?}\norder_by = ['id']\n",
        database.url,
        crate::harness::guest("disorders")
    );
    let said = Project::new(database.folder(), &config).run(&["flush", "-w", "0"]);
    assert_eq!(database.lines("SELECT CAST(id AS TEXT) FROM order_placed ORDER BY id").await, ["2", "4"], "{said:#?}");
    let held =
        database.lines("SELECT signal_key || ' ' || attempts FROM signalbus_hold WHERE state = 'retry' AND attempts > 0").await;
    assert_eq!(held, ["2 1"], "{said:#?}");
    assert!(said.stderr.contains("signal sent out of order by its plugin") && said.stderr.contains("OrderPlaced:3"), "{said:#?}");
}
