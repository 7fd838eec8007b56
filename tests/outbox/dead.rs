//! Dead letters: signals that are not sent again until someone redrives them.

mod cases {
    use std::time::Duration;

    use signalbus::outbox::Selection;
    use signalbus::settlement::Settlement;

    use crate::harness::database::{Database, System};
    use crate::harness::lane::{
        Relay, attempts, burials, buried, claim, deferred, drain, keys, nothing, orders, sent, settle, source,
    };

    fn of(signals: &[&str]) -> Selection {
        Selection { signals: signals.iter().map(|&signal| signal.to_owned()).collect(), ..Selection::default() }
    }

    async fn bury_all(relay: &Relay) {
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 1000).await;
        settle(&mut worker, &batch, &burials(&batch)).await;
    }

    pub async fn a_dead_letter_stays_in_its_table(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        let settlement = Settlement { delete: vec![0, 2], bury: vec![buried(&batch, 1)], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        nothing(&mut worker).await;
        assert_eq!((database.count("order_placed").await, relay.outbox.pending(&orders()).await.unwrap()), (1, 0));
        let letters = relay.outbox.dead_letters(&[], 10).await.unwrap();
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((letter.signal.as_str(), letter.key.as_str(), letter.attempts), ("OrderPlaced", "2", 1));
        assert_eq!(letter.reason, "it's broken");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert!(letter.died_at.unsigned_abs().abs_diff(u64::try_from(now).unwrap()) < 60_000);
        assert_eq!(relay.outbox.dead_letter(letter.id).await.unwrap().as_ref(), Some(letter));
        let row = relay.lane.dead_row(letter).await.unwrap().unwrap();
        let row: Vec<(&str, Option<&str>)> = row.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let payload = "x".repeat(200);
        assert_eq!(row, [("id", Some("2")), ("customer", Some("customer 2")), ("payload", Some(payload.as_str()))]);
    }

    /// By their reasons, in which numbers do not matter, and by their age.
    pub async fn letters_are_selected_by_reason_and_age(database: Database) {
        database.orders(6).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 6).await;
        let mut settlement = burials(&batch);
        for (n, burial) in settlement.bury.iter_mut().enumerate() {
            burial.reason = if n < 4 { format!("no route for order {n}") } else { "too large".to_owned() };
        }
        settle(&mut worker, &batch, &settlement).await;
        database.run("UPDATE signalbus_hold SET since = since - 7200000 WHERE signal_key = '2'").await;
        let groups = relay.outbox.dead_groups(&Selection::default()).await.unwrap();
        let counts: Vec<(u64, bool)> = groups.iter().map(|group| (group.count, group.reason.contains("route"))).collect();
        assert_eq!(counts, [(4, true), (2, false)], "{groups:?}");
        let routes = Selection { group: Some(groups[0].group.clone()), ..of(&["OrderPlaced"]) };
        let old = Selection { older_than: Some(Duration::from_secs(3600)), ..routes.clone() };
        let keys_of = async |selection: &Selection| {
            let letters = relay.outbox.select_dead(selection, 0, 9).await.unwrap();
            letters.into_iter().map(|letter| letter.key).collect::<Vec<_>>()
        };
        assert_eq!(keys_of(&old).await, ["2"]);
        assert_eq!(keys_of(&routes).await, ["1", "2", "3", "4"]);
        assert_eq!(relay.outbox.redrive_selected(&of(&["Other"])).await.unwrap(), 0);
        assert_eq!(relay.outbox.redrive_selected(&routes).await.unwrap(), 4);
        assert_eq!(drain(&mut worker, 9).await, ["1", "2", "3", "4"]);
        assert_eq!(relay.outbox.redrive_selected(&Selection::default()).await.unwrap(), 2);
        assert_eq!(drain(&mut worker, 9).await, ["5", "6"]);
    }

    pub async fn a_redriven_letter_is_sent_again(database: Database) {
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        settle(&mut worker, &batch, &burials(&batch)).await;
        let letters = relay.outbox.dead_letters(&["OrderPlaced".into()], 10).await.unwrap();
        assert_eq!(relay.outbox.redrive(&[letters[1].id]).await.unwrap(), 1);
        assert_eq!(relay.outbox.redrive(&[letters[1].id, 99]).await.unwrap(), 0);
        let again = claim(&mut worker, 9).await;
        assert_eq!((keys(&again), attempts(&again)), (vec!["2".into()], vec![1]));
        assert_eq!(again.signals[0].id, batch.signals[1].id, "it is the same signal");
        settle(&mut worker, &again, &sent(&again)).await;
        assert_eq!(relay.lane.discard(&letters).await.unwrap(), 1);
        assert_eq!(relay.lane.discard(&letters).await.unwrap(), 0);
        assert!(relay.outbox.dead_letter(letters[0].id).await.unwrap().is_none());
        assert_eq!((database.count("signalbus_hold").await, database.count("order_placed").await), (0, 0));
    }

    /// Nothing that depends on a row, and nothing that the database fills in, is touched.
    pub async fn redriving_leaves_children_and_filled_columns_alone(database: Database) {
        let (definition, rows) = (
            database.either(
                "CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, price INT, twice INT AS (price * 2), \
                 at TEXT DEFAULT CURRENT_TIMESTAMP, above INTEGER REFERENCES parent ON DELETE SET NULL)",
                "CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price int, \
                 twice int GENERATED ALWAYS AS (price * 2) STORED, at timestamptz DEFAULT now(), above bigint REFERENCES parent ON DELETE SET NULL)",
                "CREATE TABLE parent (id BIGINT AUTO_INCREMENT PRIMARY KEY, price INT, twice INT AS (price * 2) STORED, \
                 at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), above BIGINT, \
                 FOREIGN KEY (above) REFERENCES parent (id) ON DELETE SET NULL)",
            ),
            database.either(
                "INSERT INTO parent (id, price, at) VALUES (41, 5, '2001-01-01'), (42, 6, NULL); UPDATE parent SET above = 41 WHERE id = 42",
                "INSERT INTO parent (id, price, at) OVERRIDING SYSTEM VALUE VALUES (41, 5, '2001-01-01'), (42, 6, NULL); \
                 UPDATE parent SET above = 41 WHERE id = 42",
                "INSERT INTO parent (id, price, at) VALUES (41, 5, '2001-01-01'), (42, 6, NULL); \
                 UPDATE parent SET above = 41, at = NULL WHERE id = 42",
            ),
        );
        let child = database.either(
            "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent ON DELETE CASCADE)",
            "CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)",
            "CREATE TABLE child (id BIGINT PRIMARY KEY, parent BIGINT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE)",
        );
        database.run(&format!("{definition}; {child}; {rows}; INSERT INTO child VALUES (1, 41), (2, 41), (3, 42)")).await;
        let print = database.either(
            "SELECT quote(id) || quote(price) || quote(twice) || quote(at) || quote(above) FROM parent ORDER BY id",
            "SELECT parent::text || xmin::text FROM parent ORDER BY id",
            "SELECT CONCAT_WS('|', id, price, twice, COALESCE(at, 'NULL'), COALESCE(above, 'NULL')) FROM parent ORDER BY id",
        );
        let before = database.lines(print).await;
        let relay = Relay::open(&database, &source("parent")).await;
        bury_all(&relay).await;
        let letters: Vec<i64> = relay.outbox.dead_letters(&[], 9).await.unwrap().iter().map(|letter| letter.id).collect();
        assert_eq!(relay.outbox.redrive(&letters).await.unwrap(), 2);
        assert_eq!((database.lines(print).await, database.count("child").await), (before, 3));
        let mut worker = relay.worker();
        assert_eq!(drain(&mut worker, 9).await, ["41", "42"]);
        assert_eq!((database.count("parent").await, database.count("child").await), (0, 0));
    }

    /// A row that is repaired is sent as it is now; one that takes a dead one's place inherits nothing.
    pub async fn a_hold_belongs_to_one_version_of_its_row(database: Database) {
        database.orders(4).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        let defer = vec![deferred(&batch, 2, Duration::ZERO)];
        let bury = vec![buried(&batch, 0), buried(&batch, 1), buried(&batch, 3)];
        settle(&mut worker, &batch, &Settlement { defer, bury, ..Settlement::default() }).await;
        database.run("UPDATE order_placed SET customer = 'repaired' WHERE id = 1").await;
        database.run("DELETE FROM order_placed WHERE id IN (2, 3)").await;
        database.run("INSERT INTO order_placed VALUES (3, 'another', '')").await;
        assert!(relay.lane.sweep(0, 3).await.unwrap().1);
        assert_eq!(
            relay.outbox.dead_letters(&[], 9).await.unwrap().iter().map(|letter| letter.key.clone()).collect::<Vec<_>>(),
            ["4"]
        );
        let mut again = Vec::new();
        while again.len() < 2 {
            let batch = claim(&mut worker, 9).await;
            assert!(attempts(&batch).iter().all(|attempt| *attempt == 1), "{batch:?}");
            settle(&mut worker, &batch, &sent(&batch)).await;
            again.extend(keys(&batch));
        }
        again.sort();
        assert_eq!(again, ["1", "3"]);
        nothing(&mut worker).await;
        assert_eq!((database.count("order_placed").await, database.count("signalbus_hold").await), (1, 1));
    }

    /// Rewriting a table, and adding columns to it, brings no dead letter back to life.
    pub async fn dead_letters_survive_changes_of_their_table(database: Database) {
        database.orders(2).await;
        bury_all(&Relay::open(&database, &orders()).await).await;
        for change in database
            .either(
                "ALTER TABLE order_placed ADD flag INT NOT NULL DEFAULT 7; VACUUM",
                "ALTER TABLE order_placed ADD flag int NOT NULL DEFAULT 7; ALTER TABLE order_placed ALTER id TYPE int; \
                 ALTER TABLE order_placed SET UNLOGGED; VACUUM FULL order_placed",
                "ALTER TABLE order_placed ADD flag INT NOT NULL DEFAULT 7; ALTER TABLE order_placed MODIFY id INT; \
                 OPTIMIZE TABLE order_placed",
            )
            .split("; ")
        {
            database.run(change).await;
            let relay = Relay::open(&database, &orders()).await;
            assert_eq!(relay.lane.sweep(0, 9).await.unwrap(), (None, false), "{change}");
            nothing(&mut relay.worker()).await;
        }
    }

    pub async fn letters_are_listed_by_type_and_page(database: Database) {
        database.orders(5).await;
        database.run("CREATE TABLE paid (id BIGINT PRIMARY KEY); INSERT INTO paid VALUES (1)").await;
        bury_all(&Relay::open(&database, &orders()).await).await;
        let paid = signalbus::outbox::Source { signal: "Paid".into(), ..source("paid") };
        let relay = Relay::open(&database, &paid).await;
        bury_all(&relay).await;
        let all = relay.outbox.dead_letters(&[], 100).await.unwrap();
        assert_eq!(all.len(), 6);
        let first = relay.outbox.dead_letters(&["OrderPlaced".into()], 3).await.unwrap();
        let second = relay.outbox.select_dead(&of(&["OrderPlaced"]), first[2].id, 3).await.unwrap();
        assert_eq!([&first[..], &second[..]].concat(), all[..5]);
        assert_eq!(relay.outbox.dead_letters(&["Paid".into(), "Nobody".into()], 9).await.unwrap(), all[5..]);
        assert_eq!(relay.lane.discard(&all[..1]).await.unwrap(), 0, "the letter belongs to another type");
    }

    /// As `plugin replay` reads it: every value has its type, and nothing is changed.
    pub async fn a_dead_letter_is_read_as_its_original_row(database: Database) {
        database
            .run(database.either(
                "CREATE TABLE mixed (id TEXT PRIMARY KEY, n INTEGER, price NUMERIC, photo BLOB, ratio REAL, twice INT AS (n * 2)); \
             INSERT INTO mixed VALUES ('a,b', 9007199254740993, 12.5, X'00FF00', 0.1), ('%', NULL, NULL, X'', NULL)",
                "CREATE TABLE mixed (id text PRIMARY KEY, n bigint, price numeric, photo bytea, ratio float8, doc jsonb, at timestamptz, \
             tags text[], twice bigint GENERATED ALWAYS AS (n * 2) STORED); \
             INSERT INTO mixed VALUES ('a,b', 9007199254740993, 12.50, '\\x00ff00', 0.1, '{\"a\": 1}', '2026-02-28 23:59:59.5+02', '{x,y}'), \
             ('%', NULL, NULL, '', 'Infinity', NULL, NULL, NULL)",
                "CREATE TABLE mixed (id VARCHAR(60) COLLATE utf8mb4_bin PRIMARY KEY, n BIGINT, price DECIMAL(60, 20), photo BLOB, ratio DOUBLE, \
             flag BIT(3), at DATETIME(6), color ENUM('red', 'blue'), twice BIGINT AS (n * 2)); \
             INSERT INTO mixed (id, n, price, photo, ratio, flag, at, color) VALUES \
             ('a,b', 9007199254740993, 12.5, X'00FF00', 0.1, b'101', '2026-02-28 23:59:59.5', 'blue'), ('%', NULL, NULL, '', NULL, NULL, NULL, NULL)",
            ))
            .await;
        let relay = Relay::open(&database, &source("mixed")).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        settle(&mut worker, &batch, &burials(&batch)).await;
        for letter in relay.outbox.dead_letters(&[], 9).await.unwrap() {
            let signal = relay.lane.dead_signal(&letter).await.unwrap();
            let before = batch.signals.iter().find(|before| before.key == letter.key);
            assert_eq!(signal.as_ref(), before);
        }
        let [first, _] = &relay.outbox.dead_letters(&[], 9).await.unwrap()[..] else { panic!("there are two") };
        database.run("DELETE FROM mixed").await;
        assert_eq!(relay.lane.dead_signal(first).await.unwrap(), None);
    }

    pub async fn a_letter_with_an_unusual_key_is_redriven(database: Database) {
        let kind = if database.system == System::Mariadb { "VARCHAR(60) COLLATE utf8mb4_bin" } else { "TEXT" };
        database.run(&format!("CREATE TABLE strange (id {kind} PRIMARY KEY)")).await;
        let strange = "INSERT INTO strange VALUES ('a,b'), ('a:b'), ('100%'), ('it''s'), ('?'), (''), ('ünï'), ('%2C')";
        database.run(strange).await;
        let relay = Relay::open(&database, &source("strange")).await;
        bury_all(&relay).await;
        assert_eq!(database.count("strange").await, 8);
        let letters: Vec<i64> = relay.outbox.dead_letters(&[], 9).await.unwrap().iter().map(|letter| letter.id).collect();
        assert_eq!(relay.outbox.redrive(&letters).await.unwrap(), 8);
        let mut seen = drain(&mut relay.worker(), 3).await;
        seen.sort();
        assert_eq!(seen, ["", "%252C", "100%25", "?", "a%2Cb", "a%3Ab", "it's", "ünï"]);
    }
}

crate::on_each_version!(
    a_dead_letter_stays_in_its_table,
    letters_are_selected_by_reason_and_age,
    a_redriven_letter_is_sent_again,
    redriving_leaves_children_and_filled_columns_alone,
    a_hold_belongs_to_one_version_of_its_row,
    dead_letters_survive_changes_of_their_table,
    letters_are_listed_by_type_and_page,
    a_dead_letter_is_read_as_its_original_row,
    a_letter_with_an_unusual_key_is_redriven,
);
