//! Unsuitable tables, and side tables that are missing or belong to another release.

mod cases {
    use signalbus::outbox::{Fault, Outbox, Schema};

    use crate::harness::database::{Database, System};
    use crate::harness::lane::{ordered, source};

    async fn fatal(database: &Database, source: &signalbus::outbox::Source) -> Vec<String> {
        let outbox = Outbox::open(&database.url, 2).unwrap();
        let error = outbox.signal_table(source).await.map(drop).unwrap_err().to_string();
        let faults = outbox.faults(source).await.unwrap();
        let texts = faults.into_iter().map(|fault| match fault {
            Fault::Fatal(text) => text,
            Fault::Doubtful(text) => panic!("{text}"),
        });
        let texts: Vec<String> = texts.collect();
        assert_eq!(error, texts.join("; "));
        texts
    }

    pub async fn a_missing_table_is_reported(database: Database) {
        let faults = fatal(&database, &source("order_placed")).await;
        assert_eq!(
            faults,
            ["signal type \"OrderPlaced\": table \"order_placed\" does not exist; create it, or set `table` to another"]
        );
        let outbox = Outbox::open(&database.url, 2).unwrap();
        let error = outbox.pending(&source("order_placed")).await.unwrap_err().to_string();
        assert!(error.starts_with("signal type \"OrderPlaced\": "), "{error}");
    }

    pub async fn a_table_needs_a_primary_key(database: Database) {
        database.run("CREATE TABLE loose (id INT NOT NULL UNIQUE)").await;
        let faults = fatal(&database, &source("loose")).await;
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("has no primary key"), "{faults:?}");
    }

    pub async fn every_unknown_column_is_reported_with_a_suggestion(database: Database) {
        database.orders(0).await;
        let faults = fatal(&database, &ordered("order_placed", &["idd", "id"], &["custmer"])).await;
        assert_eq!(faults.len(), 2);
        assert!(faults[0].contains("`order_by` names column \"idd\"") && faults[0].contains("\"id\""), "{faults:?}");
        assert!(faults[1].contains("`order_key` names column \"custmer\"") && faults[1].contains("\"customer\""), "{faults:?}");
    }

    pub async fn an_order_without_an_index_is_slow(database: Database) {
        database.run("CREATE TABLE moves (id INT PRIMARY KEY, at INT, account INT)").await;
        let outbox = Outbox::open(&database.url, 2).unwrap();
        let slow = async |order_by: &[&str]| {
            let faults = outbox.faults(&ordered("moves", order_by, &["account"])).await.unwrap();
            matches!(&faults[..], [Fault::Doubtful(text)] if text.contains("no index of table \"moves\""))
        };
        assert!(slow(&["at"]).await && slow(&["at desc", "id"]).await);
        assert!(!slow(&["id"]).await);
        database.run("CREATE INDEX moves_at ON moves (at, account)").await;
        assert!(!slow(&["at"]).await && !slow(&["at", "account"]).await);
        assert!(slow(&["account"]).await && slow(&["at", "id"]).await);
        outbox.signal_table(&ordered("moves", &["account"], &[])).await.unwrap();
    }

    pub async fn missing_side_tables_are_reported_with_the_cure(database: Database) {
        database.orders(1).await;
        for table in ["schema", "lane", "claim", "hold"] {
            database.run(&format!("DROP TABLE signalbus_{table}")).await;
        }
        let outbox = Outbox::open(&database.url, 2).unwrap();
        assert_eq!(outbox.schema().await.unwrap(), Schema::Missing);
        for error in [
            outbox.require_schema().await.unwrap_err(),
            outbox.signal_table(&source("order_placed")).await.map(drop).unwrap_err(),
            outbox.dead_letters(&[], 1).await.unwrap_err(),
            outbox.dead_letter(1).await.unwrap_err(),
            outbox.redrive(&[1]).await.unwrap_err(),
        ] {
            assert!(error.to_string().ends_with("; run `signalbus migrate`"), "{error}");
        }
        assert!(outbox.migrate().await.unwrap());
        assert!(!outbox.migrate().await.unwrap());
        assert_eq!(outbox.schema().await.unwrap(), Schema::Current);
        outbox.signal_table(&source("order_placed")).await.unwrap();
    }

    pub async fn side_tables_of_a_newer_release_are_left_alone(database: Database) {
        database.run("INSERT INTO signalbus_schema VALUES (99, '')").await;
        let outbox = Outbox::open(&database.url, 2).unwrap();
        assert_eq!(outbox.schema().await.unwrap(), Schema::New(99));
        for error in [outbox.require_schema().await.unwrap_err(), outbox.migrate().await.unwrap_err()] {
            assert!(error.to_string().contains("newer than this release"), "{error}");
        }
    }

    pub async fn concurrent_migrations_create_the_side_tables_once(database: Database) {
        for table in ["schema", "lane", "claim", "hold"] {
            database.run(&format!("DROP TABLE signalbus_{table}")).await;
        }
        let (one, two) = (Outbox::open(&database.url, 2).unwrap(), Outbox::open(&database.url, 2).unwrap());
        let (first, second) = tokio::join!(one.migrate(), two.migrate());
        // The database may refuse one of the two: then it has the tables of the other.
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        one.require_schema().await.unwrap();
    }

    /// Side tables that were made by a release that did not know it yet.
    pub async fn a_missing_index_is_created(database: Database) {
        let outbox = Outbox::open(&database.url, 2).unwrap();
        assert!(!outbox.migrate().await.unwrap());
        if database.system == System::Mariadb {
            return;
        }
        database.run("DROP INDEX signalbus_hold_order").await;
        assert!(outbox.migrate().await.unwrap());
        database.run("DROP INDEX signalbus_hold_order").await;
    }

    pub async fn an_unknown_url_scheme_is_rejected(database: Database) {
        let error = Outbox::open("oracle://x", 1).map(drop).unwrap_err().to_string();
        assert_eq!(error, "database url: unknown scheme \"oracle\"; use sqlite, postgres or mysql");
        drop(database);
    }
}

crate::on_each_database!(
    a_missing_table_is_reported,
    a_table_needs_a_primary_key,
    every_unknown_column_is_reported_with_a_suggestion,
    an_order_without_an_index_is_slow,
    missing_side_tables_are_reported_with_the_cure,
    side_tables_of_a_newer_release_are_left_alone,
    concurrent_migrations_create_the_side_tables_once,
    a_missing_index_is_created,
    an_unknown_url_scheme_is_rejected,
);

/// The relay's role may read and delete signals, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_update_is_not_needed() {
    use crate::harness::lane::{Relay, buried, claim, deferred, orders, settle};
    use signalbus::settlement::Settlement;

    let mut database = crate::harness::database::Database::postgres().await;
    database.orders(4).await;
    let (role, name) = ("only_deletes", database.url.rsplit_once('/').unwrap().1.to_owned());
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON order_placed TO {role}; GRANT ALL ON DATABASE {name} TO {role}; \
             GRANT ALL ON signalbus_schema, signalbus_lane, signalbus_claim, signalbus_hold TO {role}"
        ))
        .await;
    let owner = database.url.clone();
    let (scheme, rest) = owner.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    database.url = format!("{scheme}://{role}@{host}");
    let relay = Relay::open(&database, &orders()).await;
    let mut worker = relay.worker();
    let batch = claim(&mut worker, 4).await;
    let defer = vec![deferred(&batch, 1, std::time::Duration::ZERO)];
    let bury = vec![buried(&batch, 2), buried(&batch, 3)];
    settle(&mut worker, &batch, &Settlement { delete: vec![0], defer, bury, ..Settlement::default() }).await;
    let letters = relay.outbox.dead_letters(&[], 9).await.unwrap();
    assert_eq!(relay.lane.sweep(0, 9).await.unwrap(), (None, false));
    assert_eq!(relay.lane.discard(&letters[..1]).await.unwrap(), 1);
    assert!(relay.lane.dead_row(&letters[1]).await.unwrap().is_some());
    assert_eq!(database.count("order_placed").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_transactions_is_rejected() {
    use crate::harness::lane::source;
    use signalbus::outbox::Outbox;

    let database = crate::harness::database::Database::mariadb().await;
    database.run("CREATE TABLE loose (id INT PRIMARY KEY) ENGINE = MyISAM").await;
    let outbox = Outbox::open(&database.url, 2).unwrap();
    let error = outbox.signal_table(&source("loose")).await.map(drop).unwrap_err().to_string();
    assert!(
        error.contains("table \"loose\" uses the engine MyISAM") && error.contains("ALTER TABLE loose ENGINE=InnoDB"),
        "{error}"
    );
    database.run("ALTER TABLE loose ENGINE = InnoDB").await;
    outbox.signal_table(&source("loose")).await.unwrap();
}
