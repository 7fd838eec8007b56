//! Dead letters: signals that are not sent again until someone redrives them.

mod cases {
    use signalbus::settlement::Settlement;
    use signalbus::signal::Signal;

    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, attempts, burials, buried, claim, drain, keys, nothing, orders, sent, settle, source};

    async fn bury_all(relay: &Relay) {
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 1000).await;
        settle(&mut worker, &batch, &burials(&batch)).await;
    }

    pub async fn a_dead_letter_keeps_the_whole_row(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        let settlement = Settlement { delete: vec![0, 2], bury: vec![buried(&batch, 1)], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        nothing(&mut worker).await;
        assert_eq!(database.count("order_placed").await, 0);
        let letters = relay.outbox.dead_letters(&[], 10).await.unwrap();
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((letter.signal.as_str(), letter.key.as_str(), letter.attempts), ("OrderPlaced", "2", 1));
        assert_eq!(letter.reason, "it's broken");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert!(letter.died_at.unsigned_abs().abs_diff(u64::try_from(now).unwrap()) < 60_000);
        let (same, row) = relay.outbox.dead_letter(letter.id).await.unwrap().unwrap();
        assert_eq!(&same, letter);
        let row: Vec<(&str, Option<&str>)> = row.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let payload = "x".repeat(200);
        assert_eq!(row, [("id", Some("2")), ("customer", Some("customer 2")), ("payload", Some(payload.as_str()))]);
    }

    pub async fn a_redriven_letter_becomes_a_signal_again(database: Database) {
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        bury_all(&relay).await;
        let letters = relay.outbox.dead_letters(&["OrderPlaced".into()], 10).await.unwrap();
        assert!(relay.lane.redrive(letters[1].id).await.unwrap());
        assert!(!relay.lane.redrive(letters[1].id).await.unwrap());
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["2".into()], vec![1]));
        settle(&mut worker, &batch, &sent(&batch)).await;
        assert!(relay.outbox.discard(letters[0].id).await.unwrap());
        assert!(!relay.outbox.discard(letters[0].id).await.unwrap());
        assert!(relay.outbox.dead_letter(letters[0].id).await.unwrap().is_none());
        assert_eq!(database.count("signalbus_dead_letter").await, 0);
        assert_eq!(database.count("signalbus_dead_value").await, 0);
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
        let second = relay.outbox.dead_letters_after(&["OrderPlaced".into()], first[2].id, 3).await.unwrap();
        assert_eq!([&first[..], &second[..]].concat(), all[..5]);
        assert_eq!(relay.outbox.dead_letters(&["Paid".into(), "Nobody".into()], 9).await.unwrap(), all[5..]);
        assert!(!relay.lane.redrive(all[0].id).await.unwrap(), "the letter belongs to another type");
    }

    pub async fn a_letter_stays_when_its_key_is_taken(database: Database) {
        database.orders(1).await;
        let relay = Relay::open(&database, &orders()).await;
        bury_all(&relay).await;
        database.run("INSERT INTO order_placed VALUES (1, 'another', '')").await;
        let id = relay.outbox.dead_letters(&[], 1).await.unwrap()[0].id;
        let error = relay.lane.redrive(id).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("dead letter {id}: ")), "{error}");
        assert!(error.to_lowercase().contains("unique") || error.contains("Duplicate"), "{error}");
        assert_eq!(database.count("signalbus_dead_value").await, 3);
        assert_eq!(drain(&mut relay.worker(), 5).await, ["1"]);
        assert!(relay.lane.redrive(id).await.unwrap());
    }

    pub async fn a_letter_stays_when_a_column_is_gone(database: Database) {
        database.orders(1).await;
        let relay = Relay::open(&database, &orders()).await;
        bury_all(&relay).await;
        database.run("ALTER TABLE order_placed DROP COLUMN customer").await;
        let id = relay.outbox.dead_letters(&[], 1).await.unwrap()[0].id;
        let expected = format!("dead letter {id}: table \"order_placed\" no longer has column \"customer\"");
        let reopened = Relay::open(&database, &orders()).await;
        assert_eq!(reopened.lane.redrive(id).await.unwrap_err().to_string(), expected);
        // A table opened before the change gets the error from the database.
        relay.lane.redrive(id).await.unwrap_err();
        assert_eq!(database.count("signalbus_dead_value").await, 3);
        database.run(&format!("ALTER TABLE order_placed ADD customer {}", database.either("TEXT", "text", "TEXT"))).await;
        assert!(Relay::open(&database, &orders()).await.lane.redrive(id).await.unwrap());
        assert_eq!(database.lines("SELECT customer FROM order_placed").await, ["customer 1"]);
    }

    pub async fn a_new_column_takes_its_default(database: Database) {
        database.orders(1).await;
        let relay = Relay::open(&database, &orders()).await;
        bury_all(&relay).await;
        database.run("ALTER TABLE order_placed ADD flag INT NOT NULL DEFAULT 7").await;
        let relay = Relay::open(&database, &orders()).await;
        assert!(relay.lane.redrive(relay.outbox.dead_letters(&[], 1).await.unwrap()[0].id).await.unwrap());
        assert_eq!(database.count("order_placed WHERE flag = 7").await, 1);
    }

    pub async fn columns_filled_by_the_database_survive(database: Database) {
        database
            .run(database.either(
                "CREATE TABLE filled (id INTEGER PRIMARY KEY AUTOINCREMENT, price INT, twice INT AS (price * 2), \
             thrice INT AS (price * 3) STORED, at TEXT DEFAULT CURRENT_TIMESTAMP); \
             INSERT INTO filled (id, price, at) VALUES (41, 5, '2001-01-01'), (0, 6, NULL)",
                "CREATE TABLE filled (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price int, \
             thrice int GENERATED ALWAYS AS (price * 3) STORED, at timestamptz DEFAULT now()); \
             INSERT INTO filled (id, price, at) OVERRIDING SYSTEM VALUE VALUES (41, 5, '2001-01-01'), (0, 6, NULL)",
                "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; CREATE TABLE filled (id BIGINT AUTO_INCREMENT PRIMARY KEY, price INT, \
             twice INT AS (price * 2) VIRTUAL, thrice INT AS (price * 3) STORED, \
             at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)); \
             INSERT INTO filled (id, price, at) VALUES (41, 5, '2001-01-01'), (0, 6, NULL)",
            ))
            .await;
        let print = database.either(
            "SELECT quote(id) || quote(price) || quote(thrice) || quote(at) FROM filled ORDER BY id",
            "SELECT filled::text FROM filled ORDER BY id",
            "SELECT CONCAT_WS('|', id, price, twice, thrice, COALESCE(at, 'NULL')) FROM filled ORDER BY id",
        );
        let before = database.lines(print).await;
        let relay = Relay::open(&database, &source("filled")).await;
        bury_all(&relay).await;
        for letter in relay.outbox.dead_letters(&[], 9).await.unwrap() {
            assert!(relay.lane.redrive(letter.id).await.unwrap());
        }
        assert_eq!(database.lines(print).await, before);
    }

    /// Changes that the application made since the claim are kept.
    pub async fn a_dead_letter_keeps_later_changes_of_its_row(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        database.run("UPDATE order_placed SET customer = 'changed' WHERE id = 1").await;
        database.run("DELETE FROM order_placed WHERE id = 2").await;
        settle(&mut worker, &batch, &burials(&batch)).await;
        let letters = relay.outbox.dead_letters(&[], 9).await.unwrap();
        let keys: Vec<&str> = letters.iter().map(|letter| letter.key.as_str()).collect();
        assert_eq!(keys, ["1", "3"], "a deleted row does not become a dead letter");
        let (_, row) = relay.outbox.dead_letter(letters[0].id).await.unwrap().unwrap();
        assert_eq!(row[1].1.as_deref(), Some("changed"));
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
            let before = batch.signals.iter().find(|before| before.key == letter.key).unwrap();
            assert_eq!(signal, Signal { id: signal.id.clone(), ..before.clone() });
        }
        assert_eq!((database.count("mixed").await, database.count("signalbus_dead_letter").await), (0, 2));
        let [first, _] = &relay.outbox.dead_letters(&[], 9).await.unwrap()[..] else { panic!("there are two") };
        assert!(relay.lane.redrive(first.id).await.unwrap());
        let gone = relay.lane.dead_signal(first).await.unwrap_err().to_string();
        assert!(!gone.is_empty());
    }

    pub async fn a_letter_with_an_unusual_key_is_redriven(database: Database) {
        let kind = if database.system == System::Mariadb { "VARCHAR(60) COLLATE utf8mb4_bin" } else { "TEXT" };
        database.run(&format!("CREATE TABLE strange (id {kind} PRIMARY KEY)")).await;
        let strange = "INSERT INTO strange VALUES ('a,b'), ('a:b'), ('100%'), ('it''s'), ('?'), (''), ('ünï'), ('%2C')";
        database.run(strange).await;
        let relay = Relay::open(&database, &source("strange")).await;
        bury_all(&relay).await;
        assert_eq!(database.count("strange").await, 0);
        for letter in relay.outbox.dead_letters(&[], 9).await.unwrap() {
            assert!(relay.lane.redrive(letter.id).await.unwrap());
        }
        let mut seen = drain(&mut relay.worker(), 3).await;
        seen.sort();
        assert_eq!(seen, ["", "%252C", "100%25", "?", "a%2Cb", "a%3Ab", "it's", "ünï"]);
    }
}

crate::on_each_version!(
    a_dead_letter_keeps_the_whole_row,
    a_redriven_letter_becomes_a_signal_again,
    letters_are_listed_by_type_and_page,
    a_letter_stays_when_its_key_is_taken,
    a_letter_stays_when_a_column_is_gone,
    a_new_column_takes_its_default,
    columns_filled_by_the_database_survive,
    a_dead_letter_keeps_later_changes_of_its_row,
    a_dead_letter_is_read_as_its_original_row,
    a_letter_with_an_unusual_key_is_redriven,
);
