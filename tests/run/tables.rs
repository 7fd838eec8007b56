//! Tables that change while the relay runs, and types that cannot run: each concerns itself only.

use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};

mod cases {
    use super::*;

    /// What is done to a column, a value of it then, and how it arrives.
    type Retyped = &'static [(&'static str, &'static str, &'static str)];

    const RETYPED_POSTGRES: Retyped = &[
        ("ALTER price TYPE numeric(10, 2)", "1234.50", "decimal:1234.50"),
        ("ALTER price TYPE text", "'x7'", "text:x7"),
        ("ALTER price TYPE int USING 9", "12", "int64:12"),
        ("ALTER price TYPE text", "'1'", "text:1"),
        ("ALTER price TYPE jsonb USING price::jsonb", "'{\"a\": 1}'", "json:{"),
        (
            "ALTER price TYPE uuid USING NULL",
            "'00000000-0000-0000-0000-00000000000a'",
            "uuid:00000000-0000-0000-0000-00000000000a",
        ),
        ("ALTER price TYPE text", "'00000000-0000-0000-0000-00000000000b'", "text:00000000-0000-0000-0000-00000000000b"),
        ("ALTER price TYPE bigint USING 1", "9007199254740993", "int64:9007199254740993"),
        ("ALTER price TYPE float8", "0.5", "float64:3fe0000000000000"),
    ];
    const RETYPED_MARIADB: Retyped = &[
        ("MODIFY price DECIMAL(10, 2)", "1234.50", "decimal:1234.50"),
        ("MODIFY price VARCHAR(20)", "'x7'", "text:x7"),
        ("MODIFY price INT", "12", "int64:12"),
        ("MODIFY price BIGINT UNSIGNED", "18446744073709551615", "decimal:18446744073709551615"),
        ("MODIFY price BIGINT", "-1", "int64:-1"),
        ("MODIFY price DOUBLE", "0.5", "float64:3fe0000000000000"),
        ("MODIFY price JSON", "'{\"a\": 1}'", "json:{"),
    ];

    /// Runs statements, the last one of which inserts a row, and returns what the plugin logs of that.
    async fn received(database: &Database, relay: &Running, statements: &[&str]) -> String {
        let before = relay.witness.text().matches(" echo ").count();
        for statement in statements {
            database.run(statement).await;
        }
        relay.wait_empty(database, "thing").await;
        let text = relay.witness.text();
        let mut echoes = text.lines().filter(|line| line.contains(" echo "));
        let echo = echoes.nth(before).unwrap_or_else(|| panic!("nothing was received: {text}"));
        assert!(echoes.next().is_none(), "it was sent twice: {text}");
        echo.to_owned()
    }

    pub async fn an_altered_table_is_read_as_it_is_now(database: Database) {
        let text = database.either("TEXT", "text", "VARCHAR(50)");
        database.run(&format!("CREATE TABLE thing (id BIGINT PRIMARY KEY, price INT, note {text})")).await;
        let relay = Running::start(&database, &section("Thing", &guest("echoes"), ""));
        let expect = async |statements: &[&str], cells: &[&str], not: &str| {
            let echo = received(&database, &relay, statements).await;
            for cell in cells {
                assert!(echo.contains(cell), "{statements:?}: {cell} is missing: {echo}");
            }
            assert!(not.is_empty() || !echo.contains(&format!(" {not}=")), "{statements:?}: {not}: {echo}");
        };
        let insert = "INSERT INTO thing VALUES (1, 5, 'a')";
        expect(&[insert], &["int64:5", "note=text:a"], "extra").await;
        let add = format!("ALTER TABLE thing ADD COLUMN extra {text}");
        expect(&[&add, "INSERT INTO thing VALUES (2, 6, 'a', 'more')"], &["int64:6", "extra=text:more"], "").await;
        expect(
            &["ALTER TABLE thing RENAME COLUMN note TO remark", "INSERT INTO thing VALUES (3, 7, 'b', 'x')"],
            &["remark=text:b", "int64:7"],
            "note",
        )
        .await;
        expect(&["ALTER TABLE thing DROP COLUMN extra", "INSERT INTO thing VALUES (4, 8, 'c')"], &["int64:8"], "extra").await;
        for (n, (change, value, cell)) in database.choose::<Retyped>(&[], RETYPED_POSTGRES, RETYPED_MARIADB).iter().enumerate() {
            let change = format!("ALTER TABLE thing {change}");
            let insert = format!("INSERT INTO thing VALUES ({}, {value}, 'c')", 10 + n);
            expect(&[&change, &insert], &[cell], "").await;
        }
        // Another table takes its place.
        expect(
            &[
                &format!("CREATE TABLE other (id BIGINT PRIMARY KEY, title {text})"),
                "ALTER TABLE thing RENAME TO gone",
                "ALTER TABLE other RENAME TO thing",
                "INSERT INTO thing VALUES (1, 'new')",
            ],
            &["title=text:new"],
            "price",
        )
        .await;
        relay.wait_ready();
    }

    pub async fn a_type_without_its_table_pauses_alone(database: Database) {
        for table in ["a", "b"] {
            database.run(&format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY)")).await;
        }
        let relay = Running::start(&database, &(section("A", &guest("counts"), "") + &section("B", &guest("counts"), "")));
        database.run("ALTER TABLE a RENAME TO away").await;
        database.run("INSERT INTO b VALUES (1)").await;
        relay.wait_empty(&database, "b").await;
        relay.wait("the relay does not tell", || relay.get("/readyz").body.contains("table \\\"a\\\" does not exist"));
        assert_eq!(relay.status_of("A")["state"], "failing");
        database.run("INSERT INTO away VALUES (1)").await;
        database.run("INSERT INTO b VALUES (2)").await;
        relay.wait_empty(&database, "b").await;
        database.run("ALTER TABLE away RENAME TO a").await;
        relay.wait_empty(&database, "a").await;
        relay.wait_ready();
        assert_eq!(relay.witness.counts().len(), 3);
    }

    pub async fn what_cannot_start_is_parked(database: Database) {
        database.run("CREATE TABLE a (id BIGINT PRIMARY KEY)").await;
        database.run("INSERT INTO a VALUES (1)").await;
        let plugin = database.folder().join("plugin.wasm");
        std::fs::write(&plugin, "this is no component").unwrap();
        let sections =
            section("A", &guest("counts"), "") + &section("B", &guest("counts"), "") + &section("C", &plugin, "table = 'a_too'");
        database.run("CREATE TABLE a_too (id BIGINT PRIMARY KEY)").await;
        let relay = Running::spawn(&database, &sections, "");
        relay.wait_empty(&database, "a").await;
        relay.wait("not all were tried", || !relay.get("/readyz").body.contains("it is being loaded"));
        let ready = relay.get("/readyz");
        assert!(ready.status == 503 && ready.body.contains("table \\\"b\\\" does not exist"), "{ready:?}");
        assert!(ready.body.contains("plugin.wasm") && !ready.body.contains("\"A: "), "{ready:?}");
        assert_eq!(relay.status_of("B")["state"], "failing");
        let swapped = relay.post("/api/v1/signals/C/plugin");
        assert!(swapped.body.contains("is not running: ") && swapped.body.contains("not a WebAssembly component"), "{swapped:?}");
        assert!((relay.metric("signalbus_ready{signal=\"B\"}")).abs() < 0.1);
        // A reload concerns what was changed.
        relay.signal("HUP");
        relay.witness.wait_until("configuration reloaded");
        database.run("CREATE TABLE b (id BIGINT PRIMARY KEY)").await;
        database.run("INSERT INTO b VALUES (1)").await;
        std::fs::copy(guest("counts"), &plugin).unwrap();
        relay.wait_empty(&database, "b").await;
        relay.wait_ready();
        database.run("INSERT INTO a_too VALUES (1)").await;
        relay.wait_empty(&database, "a_too").await;
    }
}

crate::on_databases!([sqlite postgres postgres18 mariadb] an_altered_table_is_read_as_it_is_now);
crate::on_each_database!(a_type_without_its_table_pauses_alone, what_cannot_start_is_parked);
