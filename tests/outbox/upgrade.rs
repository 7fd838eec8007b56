//! The upgrade from version 1 of the side tables, which moved dead letters out of their tables.

mod cases {
    use std::time::Duration;

    use signalbus::outbox::{Outbox, Schema, Source, Upgrade};

    use crate::harness::amount;
    use crate::harness::command::{Project, config};
    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, attempts, claim, drain, keys, nothing, ordered, orders, source};
    use crate::harness::version1::DIED_AT;

    const KEY: &str = "CAST(t.id AS CHAR(9))";

    fn project(database: &Database) -> Project {
        Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", "")]))
    }

    async fn upgrade(database: &Database, sources: &[Source]) -> Upgrade {
        let outbox = Outbox::open(&database.url, 2).unwrap();
        outbox.migrate().await.unwrap();
        outbox.upgrade(sources).await.unwrap()
    }

    /// What stays, and why.
    fn left(upgrade: &Upgrade) -> Vec<(u64, &str)> {
        upgrade.left.iter().map(|left| (left.count, left.reason.as_str())).collect()
    }

    /// The side tables of version 1 that are still there.
    async fn remains(database: &Database) -> Vec<String> {
        let tables = database.either(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND NAMES",
            "SELECT relname::text AS name FROM pg_class WHERE relkind = 'r' AND relNAMES",
            "SELECT table_name FROM information_schema.tables WHERE table_schema = database() AND table_NAMES",
        );
        let names = "name IN ('signalbus_deferral', 'signalbus_dead_letter', 'signalbus_dead_value') ORDER BY 1";
        database.lines(&tables.replace("NAMES", names)).await
    }

    const ROWS: &str = "SELECT customer || ' ' || payload FROM order_placed ORDER BY id";

    async fn rows(database: &Database) -> Vec<String> {
        let mariadb = "SELECT CONCAT(id, customer, payload) FROM order_placed ORDER BY id";
        database.lines(database.either(ROWS, ROWS, mariadb)).await
    }

    pub async fn dead_letters_come_back_and_are_redriven(database: Database) {
        database.orders(4).await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        database.run("INSERT INTO order_placed VALUES (5, 'a', ''), (6, 'b', '')").await;
        let deferral = "INSERT INTO signalbus_deferral (signal_type, signal_key, order_key, attempts, due_at, reason) VALUES ";
        let due = "'', 2, 4000000000000, 'the bus said \"no\"')";
        database.run(&format!("{deferral} ('OrderPlaced', '5', {due}, ('OrderPlaced', '99', {due}, ('Other', '6', {due}")).await;
        let project = project(&database);
        let said = project.run(&["flush", "-w", "0"]);
        assert_eq!(
            (said.status, said.stderr.as_str()),
            (78, "error: the side tables have version 1, this release needs 2; run `signalbus migrate`\n")
        );
        assert_eq!(
            project.ok(&["migrate"]),
            "side tables upgraded\n4 dead letters of an earlier version are back in their tables\n\
             1 signals keep the attempts that an earlier version has charged\n"
        );
        assert_eq!(remains(&database).await, [""; 0]);
        assert_eq!(project.ok(&["migrate"]), "side tables are up to date\n");
        assert!(!project.ok(&["check"]).contains("earlier version"));
        assert_eq!(rows(&database).await[..4], before);
        let listed = project.run(&["dead", "list", "--json"]).json();
        let letters = listed["dead_letters"].as_array().unwrap();
        let told = |n: usize| (letters[n]["key"].as_str(), letters[n]["attempts"].as_i64(), letters[n]["died_at"].as_i64());
        for (n, key) in ["1", "2", "3", "4"].into_iter().enumerate() {
            assert_eq!(told(n), (Some(key), Some(3), Some(DIED_AT)));
            assert_eq!(letters[n]["reason"], "it's broken");
        }
        assert_eq!(
            database.count("signalbus_hold WHERE state = 'retry' AND attempts = 2 AND due_at - 4000000000000 < 60000").await,
            1
        );
        assert_eq!(project.ok(&["flush", "-w", "0"]), "sent 1, deferred 0, buried 0\n");
        assert_eq!(project.ok(&["dead", "redrive", "--all"]), "redriven 4\n");
        assert_eq!(project.ok(&["flush", "-w", "0"]), "sent 4, deferred 0, buried 0\n");
        assert_eq!(database.number("SELECT id FROM order_placed").await, 5);
    }

    /// Identity and generated columns, composite keys, zeros where the database would count, children of other rows.
    pub async fn rows_come_back_as_they_were(database: Database) {
        let tables = database.either(
            "CREATE TABLE filled (id INTEGER PRIMARY KEY AUTOINCREMENT, price INT, twice INT AS (price * 2), \
             thrice INT AS (price * 3) STORED, at TEXT DEFAULT CURRENT_TIMESTAMP, \"odd \"\"?name\" TEXT); \
             INSERT INTO filled (id, price, at) VALUES (41, 5, '2001-01-01'), (0, 6, NULL); \
             CREATE TABLE pair (a TEXT, b INTEGER, above REFERENCES pair_above, note TEXT, PRIMARY KEY (b, a)); \
             CREATE TABLE pair_above (id INTEGER PRIMARY KEY); INSERT INTO pair_above VALUES (7)",
            "CREATE TABLE filled (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price int, \
             thrice int GENERATED ALWAYS AS (price * 3) STORED, at timestamptz DEFAULT now(), \"odd \"\"?name\" text); \
             INSERT INTO filled (id, price, at) OVERRIDING SYSTEM VALUE VALUES (41, 5, '2001-01-01'), (0, 6, NULL); \
             CREATE TABLE pair_above (id int PRIMARY KEY); INSERT INTO pair_above VALUES (7); \
             CREATE TABLE pair (a text, b int, above int REFERENCES pair_above DEFERRABLE INITIALLY DEFERRED, note text, PRIMARY KEY (b, a))",
            "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; CREATE TABLE filled (id BIGINT AUTO_INCREMENT PRIMARY KEY, price INT, \
             twice INT AS (price * 2) VIRTUAL, thrice INT AS (price * 3) STORED, \
             at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), `odd \"?name` TEXT INVISIBLE); \
             INSERT INTO filled (id, price, at) VALUES (41, 5, '2001-01-01'), (0, 6, NULL); \
             CREATE TABLE pair_above (id INT PRIMARY KEY); INSERT INTO pair_above VALUES (7); \
             CREATE TABLE pair (a VARCHAR(60) COLLATE utf8mb4_bin, b INT, above INT, note TEXT, PRIMARY KEY (b, a), \
             FOREIGN KEY (above) REFERENCES pair_above (id))",
        );
        database.run(tables).await;
        database.run("INSERT INTO pair VALUES ('x,y', 1, 7, 'one'), ('', 1, NULL, ''), ('%', 0, 7, NULL)").await;
        let filled = database.either(
            "SELECT quote(id) || quote(price) || quote(thrice) || quote(at) FROM filled ORDER BY id",
            "SELECT filled::text FROM filled ORDER BY id",
            "SELECT CONCAT_WS('|', id, price, twice, thrice, COALESCE(at, 'NULL')) FROM filled ORDER BY id",
        );
        let paired = database.either(
            "SELECT quote(a) || quote(b) || quote(above) || quote(note) FROM pair ORDER BY b, a",
            "SELECT pair::text FROM pair ORDER BY b, a",
            "SELECT CONCAT_WS('|', a, b, COALESCE(above, 'NULL'), COALESCE(note, 'NULL')) FROM pair ORDER BY b, a",
        );
        let pairs = Source { signal: "Pair".into(), ..ordered("pair", &["b"], &["b"]) };
        let before = (database.lines(filled).await, database.lines(paired).await);
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "filled", KEY).await;
        let part = "replace(replace(t.a, '%', '%25'), ',', '%2C')";
        let key = if database.system == System::Mariadb {
            format!("CONCAT_WS(',', t.b, {part})")
        } else {
            format!("CAST(t.b AS CHAR(9)) || ',' || {part}")
        };
        database.bury_by_version_1("Pair", "pair", &key).await;
        assert_eq!((database.count("filled").await, database.count("pair").await), (0, 0));
        let upgrade = upgrade(&database, &[source("filled"), pairs.clone()]).await;
        assert_eq!((upgrade.restored, left(&upgrade)), (5, vec![]));
        assert_eq!((database.lines(filled).await, database.lines(paired).await), before);
        assert_eq!(database.count("signalbus_hold WHERE signal_type = 'Pair' AND order_key = '1'").await, 2);
        for source in [source("filled"), pairs] {
            let relay = Relay::open(&database, &source).await;
            nothing(&mut relay.worker()).await;
            assert_eq!(relay.lane.sweep(0, 99).await.unwrap(), (None, false));
            let letters = relay.outbox.dead_letters(&[source.signal], 9).await.unwrap();
            let letters: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
            relay.outbox.redrive(&letters).await.unwrap();
            assert_eq!(drain(&mut relay.worker(), 9).await.len(), letters.len());
        }
    }

    /// Each stays for its own reason, and goes back once that is gone.
    pub async fn what_cannot_be_put_back_stays_and_says_why(database: Database) {
        database.orders(40).await;
        database.run("CREATE TABLE paid (id BIGINT PRIMARY KEY); INSERT INTO paid VALUES (1)").await;
        let number = database.either("INTEGER", "bigint", "BIGINT");
        database
            .run(&format!("CREATE TABLE cut (id {number} PRIMARY KEY, a INT, b INT); INSERT INTO cut VALUES (1, 2, 3)"))
            .await;
        database
            .run("UPDATE order_placed SET customer = CASE WHEN id IN (7, 23) THEN '7' ELSE CAST(id + 100 AS CHAR(9)) END")
            .await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        database.bury_by_version_1("Paid", "paid", KEY).await;
        database.bury_by_version_1("Cut", "cut", KEY).await;
        database.run("ALTER TABLE cut DROP COLUMN a").await;
        database
            .run("CREATE UNIQUE INDEX once ON order_placed (customer); INSERT INTO order_placed VALUES (9, 'another', '')")
            .await;
        let project = project(&database);
        project.append(&format!("[signals.Cut]\nplugin = {:?}\ntable = \"cut\"", crate::harness::guest("sends")));
        let said = project.run(&["migrate"]);
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (1, "side tables upgraded\n38 dead letters of an earlier version are back in their tables\n")
        );
        for (signal, reason) in [
            ("Cut", "table \"cut\" no longer has column \"a\""),
            ("Paid", "their signal type is not configured"),
            ("OrderPlaced", "(the first is 9): another row has their key"),
            ("OrderPlaced", "(the first is 23): database: "),
        ] {
            let stays = format!("error: 1 dead letters of type \"{signal}\" stay in `signalbus_dead_letter` (the first is ");
            assert!(said.stderr.lines().any(|line| line.starts_with(&stays) && line.contains(reason)), "{reason}: {said:#?}");
        }
        assert!(said.stderr.to_lowercase().contains("unique") || said.stderr.contains("Duplicate"), "{said:#?}");
        assert_eq!((database.count("signalbus_dead_letter").await, database.count("signalbus_hold").await), (4, 38));
        assert_eq!(database.count("signalbus_dead_value").await, 10);
        let told = project.run(&["check"]).stdout;
        for line in ["\"Cut\": 1 dead letters of", "\"Paid\": 1 dead letters of", "\"OrderPlaced\": 2 dead letters of"] {
            assert!(told.contains(line) && told.contains("run `signalbus migrate` to try again"), "{told}");
        }
        database.run("DELETE FROM order_placed WHERE id = 9; ALTER TABLE cut ADD a INT").await;
        database.run(database.either("DROP INDEX once", "DROP INDEX once", "DROP INDEX once ON order_placed")).await;
        project.append(&format!("[signals.Paid]\nplugin = {:?}\ntable = \"paid\"", crate::harness::guest("sends")));
        let said = project.ok(&["migrate"]);
        assert_eq!(said, "side tables are up to date\n4 dead letters of an earlier version are back in their tables\n");
        assert_eq!((rows(&database).await, remains(&database).await), (before, vec![]));
        assert_eq!(database.count("cut WHERE a = 2 AND b = 3").await, 1);
    }

    /// A trigger of the application's must not make another row of a letter, nor swallow it.
    pub async fn a_row_that_would_change_stays(database: Database) {
        database.orders(3).await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        database
            .run(database.either(
                "CREATE TRIGGER changes AFTER INSERT ON order_placed WHEN NEW.id = 2 BEGIN \
                 UPDATE order_placed SET customer = upper(customer) WHERE id = NEW.id; END",
                "CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS \
                 $$BEGIN IF NEW.id = 2 THEN NEW.customer = upper(NEW.customer); END IF; RETURN NEW; END$$; \
                 CREATE TRIGGER changes BEFORE INSERT ON order_placed FOR EACH ROW EXECUTE FUNCTION changes()",
                "CREATE TRIGGER changes BEFORE INSERT ON order_placed FOR EACH ROW \
                 SET NEW.customer = IF(NEW.id = 2, UPPER(NEW.customer), NEW.customer)",
            ))
            .await;
        let changed = upgrade(&database, &[orders()]).await;
        let reason = "column \"customer\" would not be what it was: by a trigger, or as the column has another type now";
        assert_eq!((changed.restored, left(&changed)), (2, vec![(1, reason)]));
        database
            .run(database.either("DROP TRIGGER changes", "DROP TRIGGER changes ON order_placed", "DROP TRIGGER changes"))
            .await;
        if database.system == System::Postgres {
            database.run("CREATE RULE never AS ON INSERT TO order_placed DO INSTEAD NOTHING").await;
            let swallowed = upgrade(&database, &[orders()]).await;
            assert!(swallowed.left[0].reason.contains("not there once they are inserted"), "{swallowed:?}");
            database.run("DROP RULE never ON order_placed").await;
        }
        assert_eq!(upgrade(&database, &[orders()]).await, Upgrade { restored: 1, ..Upgrade::default() });
        assert_eq!((rows(&database).await, remains(&database).await), (before, vec![]));
    }

    /// A column that is narrower now would cut a value short.
    pub async fn a_value_that_no_longer_fits_stays(database: Database) {
        database.orders(2).await;
        database
            .run("UPDATE order_placed SET customer = 'long' WHERE id = 2; UPDATE order_placed SET customer = 'a' WHERE id = 1")
            .await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        database
            .run(database.either(
                "DROP TABLE order_placed; CREATE TABLE order_placed (id INTEGER PRIMARY KEY, customer TEXT CHECK (length(customer) < 3), payload TEXT)",
                "ALTER TABLE order_placed ALTER customer TYPE varchar(2)",
                "ALTER TABLE order_placed MODIFY customer VARCHAR(2)",
            ))
            .await;
        let narrow = upgrade(&database, &[orders()]).await;
        assert_eq!((narrow.restored, narrow.left.len(), narrow.left[0].count), (1, 1, 1));
        assert_eq!(database.lines("SELECT customer FROM order_placed").await, ["a"]);
        assert_eq!(database.count("signalbus_dead_value").await, 3);
    }

    /// Only rows that the view shows can be held; what it hides stays.
    pub async fn rows_behind_a_view_come_back(database: Database) {
        database.orders(3).await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        database.run("CREATE VIEW shown AS SELECT payload, id, 1 + 1 AS two FROM order_placed WHERE id <> 2").await;
        let view = Source { view: Some("shown".into()), ..orders() };
        let shown = upgrade(&database, std::slice::from_ref(&view)).await;
        assert_eq!((shown.restored, left(&shown)), (2, vec![(1, "the view does not show their rows")]));
        let relay = Relay::open(&database, &view).await;
        assert_eq!(relay.lane.sweep(0, 9).await.unwrap(), (None, false));
        nothing(&mut relay.worker()).await;
        database.run("DROP VIEW shown").await;
        assert_eq!(upgrade(&database, &[orders()]).await.restored, 1);
        assert_eq!(rows(&database).await, before);
    }

    pub async fn a_relay_of_version_1_that_runs_is_in_the_way(database: Database) {
        database.orders(2).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        let claim = |token: &str, expires_at: &str| {
            format!(
                "INSERT INTO signalbus_claim (token, signal_type, owner, takeovers, expires_at) \
                 VALUES ('{token}', 'OrderPlaced', 'o', 0, {expires_at})"
            )
        };
        database.run(&claim("dead", "1000")).await;
        database.run(&claim("live", "9000000000000")).await;
        let outbox = Outbox::open(&database.url, 2).unwrap();
        assert_eq!(outbox.schema().await.unwrap(), Schema::Old(1));
        let running = outbox.migrate().await.unwrap_err().to_string();
        assert_eq!(running, "a relay of an earlier release is running; stop it, then migrate");
        assert_eq!((outbox.schema().await.unwrap(), database.count("signalbus_dead_letter").await), (Schema::Old(1), 2));
        database.run("DELETE FROM signalbus_claim WHERE token = 'live'").await;
        assert_eq!(upgrade(&database, &[orders()]).await.restored, 2);
    }

    /// A signal goes on where it was: with the attempts that it was charged, and as what it is now.
    pub async fn deferrals_keep_their_attempts(database: Database) {
        database.orders(3).await;
        database.return_to_version_1().await;
        let deferrals = "INSERT INTO signalbus_deferral (signal_type, signal_key, order_key, attempts, due_at, reason) \
             VALUES ('OrderPlaced', '1', '', 4, 0, 'no'), ('OrderPlaced', '2', '', 5, 4000000000000, 'no')";
        database.run(deferrals).await;
        let upgrade = upgrade(&database, &[orders()]).await;
        assert_eq!((upgrade.deferred, remains(&database).await), (2, vec![]));
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let batch = claim(&mut worker, 9).await;
            seen.extend(keys(&batch).into_iter().zip(attempts(&batch)));
            std::mem::forget(batch);
        }
        seen.sort();
        assert_eq!(seen, [("1".to_owned(), 5), ("3".to_owned(), 1)]);
        assert_eq!(database.count("signalbus_hold WHERE attempts = 5 AND due_at - 4000000000000 < 60000").await, 1);
    }

    /// Whatever is cut short loses nothing, and doubles nothing.
    pub async fn an_upgrade_may_be_killed(database: Database) {
        let count = amount(2500, 100_000);
        database.orders(count).await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        let project = project(&database);
        let mut killed = 0;
        for patience in (0..).map(|n| Duration::from_millis(40 + 60 * n)) {
            let mut migrate = project.command(&["migrate"]).stdout(std::process::Stdio::null()).spawn().unwrap();
            tokio::time::sleep(patience).await;
            let over = migrate.try_wait().unwrap().is_some_and(|status| status.success());
            migrate.kill().unwrap();
            migrate.wait().unwrap();
            if over {
                break;
            }
            killed += 1;
            database.wait_alone().await;
            let left = remains(&database).await;
            if !["signalbus_dead_letter", "signalbus_dead_value"].iter().all(|table| left.iter().any(|other| other == table)) {
                // It was about to end.
                continue;
            }
            let (restored, left) = (database.count("order_placed").await, database.count("signalbus_dead_letter").await);
            assert_eq!((restored + left, database.count("signalbus_dead_value").await), (i64::from(count), left * 3));
            if restored > 0 {
                assert_eq!(database.count("signalbus_hold WHERE state = 'dead'").await, restored);
            }
        }
        assert!(killed > 0);
        assert_eq!((rows(&database).await, remains(&database).await), (before, vec![]));
        assert_eq!(database.count("signalbus_hold").await, i64::from(count));
    }

    pub async fn two_upgrades_share_the_letters(database: Database) {
        database.orders(1200).await;
        let before = rows(&database).await;
        database.return_to_version_1().await;
        database.bury_by_version_1("OrderPlaced", "order_placed", KEY).await;
        let outboxes = [Outbox::open(&database.url, 2).unwrap(), Outbox::open(&database.url, 2).unwrap()];
        outboxes[0].migrate().await.unwrap();
        let sources = [orders()];
        let (one, two) = tokio::join!(outboxes[0].upgrade(&sources), outboxes[1].upgrade(&sources));
        // One of them may find the tables gone.
        let restored = |upgrade: &Result<Upgrade, _>| upgrade.as_ref().map_or(0, |upgrade| upgrade.restored);
        assert!(restored(&one) + restored(&two) <= 1200 && (one.is_ok() || two.is_ok()), "{one:?} {two:?}");
        upgrade(&database, &[orders()]).await;
        assert_eq!((rows(&database).await, remains(&database).await), (before, vec![]));
        assert_eq!(database.count("signalbus_hold").await, 1200);
    }
}

crate::on_each_version!(
    dead_letters_come_back_and_are_redriven,
    rows_come_back_as_they_were,
    what_cannot_be_put_back_stays_and_says_why,
    a_row_that_would_change_stays,
    a_value_that_no_longer_fits_stays,
    rows_behind_a_view_come_back,
    a_relay_of_version_1_that_runs_is_in_the_way,
    deferrals_keep_their_attempts,
    an_upgrade_may_be_killed,
    two_upgrades_share_the_letters,
);
