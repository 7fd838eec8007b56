//! Unusual names of tables, columns and signal types.

mod cases {
    use signalbus::outbox::Outbox;
    use signalbus::settlement::Settlement;
    use std::time::Duration;

    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, buried, claim, deferred, drain, keys, ordered, sent, settle, source};

    fn quote(database: &Database, name: &str) -> String {
        match database.system {
            System::Mariadb => format!("`{}`", name.replace('`', "``")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// Sends, defers, dead-letters and redrives rows of a table with three integer columns.
    async fn walk(database: &Database, table: &str, quoted: &str, columns: [&str; 3]) {
        let [id, at, account] = columns.map(|name| quote(database, name));
        database.run(&format!("CREATE TABLE {quoted} ({id} INT PRIMARY KEY, {at} INT, {account} INT)")).await;
        let simple = source(table);
        let strict = ordered(table, &[&format!("{} desc", columns[1])], &[columns[2]]);
        for source in [simple, strict] {
            database.run(&format!("INSERT INTO {quoted} VALUES (1, 40, 1), (2, 30, 2), (3, 20, 3), (4, 10, 4)")).await;
            database.run("DELETE FROM signalbus_lane").await;
            let relay = Relay::open(database, &source).await;
            let names: Vec<&str> = relay.lane.signal_type().columns.iter().map(|column| column.name.as_str()).collect();
            assert_eq!(names, columns);
            let mut worker = relay.worker();
            assert_eq!(relay.outbox.pending(&source).await.unwrap(), 4);
            let boundary = worker.boundary().await.unwrap();
            assert_eq!(boundary.as_deref(), Some("4"));
            let batch = claim(&mut worker, 3).await;
            assert_eq!(keys(&batch), ["1", "2", "3"]);
            let settlement = Settlement {
                delete: vec![0],
                defer: vec![deferred(&batch, 1, Duration::from_secs(3600))],
                bury: vec![buried(&batch, 2)],
                ..Settlement::default()
            };
            settle(&mut worker, &batch, &settlement).await;
            let letter = relay.outbox.dead_letters(&[], 1).await.unwrap()[0].id;
            assert_eq!(relay.outbox.redrive(&[letter]).await.unwrap(), 1);
            let mut left = drain(&mut worker, 1).await;
            left.sort();
            assert_eq!(left, ["3", "4"]);
            database.make_due().await;
            let batch = claim(&mut worker, 3).await;
            assert_eq!(batch.signals[0].attempt, 2);
            settle(&mut worker, &batch, &sent(&batch)).await;
        }
    }

    pub async fn tables_may_have_any_name(database: Database) {
        for table in [
            "Order Placed",
            "select",
            "UPPER",
            "semi;colon",
            "what?",
            "per%cent",
            "dash--",
            "ünï",
            "it's",
            "back`tick",
            "t",
            "d",
            "NOW",
        ] {
            walk(&database, table, &quote(&database, table), ["id", "at", "account"]).await;
        }
        walk(&database, r#""Order ""Placed""""#, &quote(&database, r#"Order "Placed""#), ["id", "at", "account"]).await;
        walk(&database, r#""dot.ted""#, &quote(&database, "dot.ted"), ["id", "at", "account"]).await;
    }

    pub async fn columns_may_have_any_name(database: Database) {
        for (n, columns) in [
            ["signal_key", "order_key", "signal_type"],
            ["attempts", "due_at", "d"],
            ["t", "order", "select"],
            ["letter_id", "position", "value"],
            ["v", "k", "k0"],
            ["expires_at", "NOW", "token"],
            ["with space", "with \"quotes\"", "with `ticks`"],
            ["what?", "$1", ":name"],
            ["Capital", "semi;colon", "it's"],
            ["ünï", "per%cent", "back\\slash"],
        ]
        .into_iter()
        .enumerate()
        {
            let table = format!("table_{n}");
            walk(&database, &table, &quote(&database, &table), columns).await;
        }
    }

    pub async fn composite_keys_may_have_any_name(database: Database) {
        let [a, b] = ["what?", "t \"x\" `y`"].map(|name| quote(&database, name));
        database.run(&format!("CREATE TABLE pairs ({a} INT, {b} INT, PRIMARY KEY ({b}, {a}))")).await;
        database.run("INSERT INTO pairs VALUES (1, 2), (2, 1), (1, 1), (3, 3)").await;
        database.run("DELETE FROM signalbus_lane").await;
        let relay = Relay::open(&database, &source("pairs")).await;
        let mut worker = relay.worker();
        let boundary = worker.boundary().await.unwrap();
        assert_eq!(boundary.as_deref(), Some("3,3"));
        assert_eq!(drain(&mut worker, 1).await, ["1,1", "1,2", "2,1", "3,3"]);
    }

    pub async fn tables_may_be_in_a_schema(database: Database) {
        let id = ["id", "at", "account"];
        match database.system {
            System::Sqlite => walk(&database, "main.Placed", "main.\"Placed\"", id).await,
            System::Postgres => {
                database
                    .run("CREATE SCHEMA shop; CREATE SCHEMA \"Odd.Schema\"; CREATE TABLE placed (other INT PRIMARY KEY)")
                    .await;
                walk(&database, "shop.placed", "shop.placed", id).await;
                walk(&database, "\"Odd.Schema\".Placed", "\"Odd.Schema\".\"Placed\"", id).await;
            }
            System::Mariadb => {
                let name = database.url.rsplit('/').next().unwrap();
                database.run(&format!("CREATE DATABASE `{name} shop`; CREATE TABLE placed (other INT PRIMARY KEY)")).await;
                walk(&database, &format!("{name} shop.placed"), &format!("`{name} shop`.placed"), id).await;
            }
        }
    }

    /// Including the names of side tables.
    pub async fn signal_types_may_have_any_name(database: Database) {
        database.run("CREATE TABLE things (id INT PRIMARY KEY)").await;
        for name in ["it's", "What? A \"type\"", "ünï:%,", "NOW"] {
            database.run("DELETE FROM things; INSERT INTO things VALUES (1), (2)").await;
            let relay = Relay::open(&database, &signalbus::outbox::Source { signal: name.into(), ..source("things") }).await;
            let mut worker = relay.worker();
            let batch = claim(&mut worker, 2).await;
            let settlement = Settlement { delete: vec![0], bury: vec![buried(&batch, 1)], ..Settlement::default() };
            settle(&mut worker, &batch, &settlement).await;
            let letters = relay.outbox.dead_letters(&[name.into()], 9).await.unwrap();
            assert_eq!((letters.len(), letters[0].signal.as_str()), (1, name));
        }
    }

    /// Two services that share the side tables must not meet in one lane.
    pub async fn a_signal_type_belongs_to_one_table(database: Database) {
        database.run("CREATE TABLE things (id INT PRIMARY KEY); CREATE TABLE others (id INT PRIMARY KEY)").await;
        let relay = Relay::open(&database, &source("things")).await;
        let refused = relay.outbox.signal_table(&source("others")).await.err().unwrap().to_string();
        assert!(
            refused.contains("things in this database, and not to ") && refused.contains("rename one of the two"),
            "{refused}"
        );
        // A table that was renamed is the same.
        database.run("DROP TABLE others").await;
        database.run("ALTER TABLE things RENAME TO others").await;
        relay.outbox.signal_table(&source("others")).await.unwrap();
    }

    pub async fn side_tables_may_have_a_schema_of_their_own(database: Database) {
        database.orders(6).await;
        let schema = database.either("x", "own_1", &format!("{}_own", database.url.rsplit('/').next().unwrap())).to_owned();
        let outbox = || Outbox::open(&database.url, 4).unwrap().with_side_schema(Some(schema.clone()));
        if database.system == System::Sqlite {
            let refused = outbox().err().unwrap().to_string();
            assert!(refused.contains("SQLite has no schemas"), "{refused}");
            return;
        }
        // Another service has its side tables where everything else is.
        let others = Relay::open(&database, &source("order_placed")).await;
        let outbox = outbox().unwrap();
        let refused = outbox.signal_table(&source("order_placed")).await.err().unwrap().to_string();
        assert!(refused.contains("signalbus_"), "{refused}");
        assert!(outbox.migrate().await.unwrap() && !outbox.migrate().await.unwrap());
        let faults = outbox.faults(&source("order_placed")).await.unwrap();
        assert!(format!("{faults:?}").contains("outside of schema"), "{faults:?}");
        let lane = outbox.signal_table(&source("order_placed")).await.unwrap();
        let mut worker = lane.session();
        let batch = claim(&mut worker, 3).await;
        assert_eq!(database.count(&format!("{schema}.signalbus_claim")).await, 1);
        let settlement = Settlement {
            delete: vec![0],
            defer: vec![deferred(&batch, 1, std::time::Duration::from_secs(3600))],
            bury: vec![buried(&batch, 2)],
            ..Settlement::default()
        };
        settle(&mut worker, &batch, &settlement).await;
        assert_eq!(database.count(&format!("{schema}.signalbus_hold")).await, 2);
        assert_eq!(drain(&mut worker, 9).await, ["4", "5", "6"]);
        let letters = outbox.dead_letters(&[], 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(outbox.redrive(&[letters[0].id]).await.unwrap(), 1);
        assert_eq!(drain(&mut worker, 9).await, ["3"]);
        assert_eq!(database.count("signalbus_hold").await, 0, "nothing of it is with the other service's");
        drop(others);
    }

    /// Keys and order keys may be longer than an index entry.
    pub async fn keys_may_be_long(database: Database) {
        let text = database.either("TEXT", "text", "LONGTEXT");
        database.run(&format!("CREATE TABLE things (id INT PRIMARY KEY, account {text})")).await;
        let long = database.either("hex(zeroblob(10000))", "repeat(md5('x'), 2000) || i", "repeat(md5('x'), 2000)");
        database.run(&format!("INSERT INTO things SELECT i, {long} FROM {}", database.series(2))).await;
        let relay = Relay::open(&database, &ordered("things", &["id"], &["account"])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 1).await;
        let hour = std::time::Duration::from_secs(3600);
        let settlement = Settlement { defer: vec![deferred(&batch, 0, hour)], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        let left = if database.system == System::Postgres { 1 } else { 0 };
        assert_eq!(drain(&mut worker, 9).await.len(), left, "it holds back its own key only");
        database.make_due().await;
        assert_eq!(drain(&mut worker, 9).await.len(), 2 - left);
    }
}

crate::on_each_database!(
    a_signal_type_belongs_to_one_table,
    side_tables_may_have_a_schema_of_their_own,
    keys_may_be_long,
    tables_may_have_any_name,
    columns_may_have_any_name,
    composite_keys_may_have_any_name,
    tables_may_be_in_a_schema,
    signal_types_may_have_any_name,
);
