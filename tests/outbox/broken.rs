//! Rows that cannot be decoded: each costs itself only.

use signalbus::outbox::Outbox;

use crate::harness::command::{Project, config};
use crate::harness::database::Database;

/// A database whose server does not know how its texts are encoded.
async fn unencoded() -> Database {
    let mut database = Database::postgres().await;
    let name = format!("{}_unencoded", database.url.rsplit_once('/').unwrap().1);
    database.run(&format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")).await;
    database.url = format!("{}_unencoded", database.url);
    assert!(Outbox::open(&database.url, 1).unwrap().migrate().await.unwrap());
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_decoded_makes_a_dead_letter() {
    let database = unencoded().await;
    database.run("CREATE TABLE order_placed (id int PRIMARY KEY, customer text)").await;
    database.run("INSERT INTO order_placed SELECT i, CASE WHEN i = 3 THEN 'Ren' || chr(233) ELSE 'Ann' END FROM generate_series(1, 5) i").await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", "")]));
    let said = project.run(&["flush", "-w", "0"]);
    assert!(said.stdout.starts_with("sent 4"), "{said:#?}");
    assert_eq!(said.stdout, "sent 4, deferred 0, buried 1\n");
    let listed = project.run(&["dead", "list"]).stdout;
    assert!(listed.contains("column \"customer\" cannot be decoded"), "{listed}");
    assert_eq!(project.run(&["flush", "-w", "0"]).stdout, "sent 0, deferred 0, buried 0\n");
    database.run("UPDATE order_placed SET customer = 'Rene'").await;
    assert_eq!(project.run(&["flush", "-w", "0"]).stdout, "sent 1, deferred 0, buried 0\n");
}

/// As behind any other dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_broken_row_is_held_if_dead_letters_hold() {
    let database = unencoded().await;
    database.run("CREATE TABLE order_placed (id int PRIMARY KEY, half int, customer text)").await;
    for (more, sent) in [("", [4, 0]), ("on_dead = 'hold'", [2, 2]), ("order_key = ['half']\non_dead = 'hold'", [3, 1])] {
        database.run("INSERT INTO order_placed SELECT i, i % 2, CASE WHEN i = 3 THEN 'Ren' || chr(233) ELSE 'Ann' END FROM generate_series(1, 5) i").await;
        let more = format!("order_by = ['id']\n{more}");
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", &more)]));
        let [first, behind] = sent;
        assert_eq!(project.run(&["flush", "-w", "0"]).stdout, format!("sent {first}, deferred 0, buried 1\n"), "{more}");
        assert_eq!(project.run(&["flush", "-w", "0"]).stdout, "sent 0, deferred 0, buried 0\n", "{more}");
        database.run("UPDATE order_placed SET customer = 'Rene' WHERE id = 3").await;
        assert_eq!(project.run(&["flush", "-w", "0"]).stdout, format!("sent {}, deferred 0, buried 0\n", 1 + behind), "{more}");
    }
}

/// Nothing can be recorded of it, so it stays where it is; the last one is where ranges end.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_decoded_stops_nobody() {
    let database = unencoded().await;
    database.run("CREATE TABLE order_placed (id text PRIMARY KEY)").await;
    database.run("INSERT INTO order_placed VALUES ('a'), ('b' || chr(233)), ('c'), ('d'), ('z' || chr(233))").await;
    for more in ["", "burst_count = 1", "order_by = ['id']"] {
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", more)]));
        assert_eq!(project.run(&["flushmany"]).stdout, "sent 3, deferred 0, buried 0\n", "{more}");
        assert_eq!(database.count("order_placed").await, 2);
        database.run("INSERT INTO order_placed VALUES ('a'), ('c'), ('d')").await;
    }
}
