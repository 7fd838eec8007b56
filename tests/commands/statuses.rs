//! Exit statuses, and the errors printed with them.

use crate::harness::command::{Project, Said, config};
use crate::harness::database::{Database, System};
use crate::harness::guest;
use crate::harness::server::{Kind, Server};
use tempfile::TempDir;

/// Runs a command with the given configuration text.
fn run(text: &str, args: &[&str]) -> Said {
    let folder = TempDir::new().unwrap();
    Project::new(folder.path(), text).run(args)
}

async fn flush_of(guest: &str) -> (Database, Said) {
    let database = Database::sqlite().await;
    database.orders(3).await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", guest, "")]));
    let said = project.run(&["flush", "-w", "0"]);
    (database, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_when_all_due_signals_are_sent() {
    let (_database, said) = flush_of("sends").await;
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 3, deferred 0, buried 0\n"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_when_signals_could_not_be_sent() {
    for (guest, told) in [("retries", "sent 0, deferred 3, buried 0\n"), ("rejects", "sent 0, deferred 0, buried 3\n")] {
        let (_database, said) = flush_of(guest).await;
        assert_eq!((said.status, said.stdout.as_str()), (1, told), "{said:#?}");
    }
}

#[test]
fn usage_is_64_with_a_suggestion() {
    let config = "[database]\nurl = 'sqlite://none.db'\n[signals.OrderPlaced]\nplugin = 'p.wasm'\n[signals.PriceChanged]\nplugin = 'p.wasm'\n";
    for (args, hint) in [
        (&["flsh"][..], "'flush'"),
        (&["flush", "--wiat", "0"], "'--wait'"),
        (&["flush", "-w", "soon"], "invalid value 'soon'"),
        (&["dead", "redrive"], "--all"),
        (&["dead", "show", "seven"], "invalid value 'seven'"),
        (&["--log-format", "yaml", "pending"], "[possible values: text, json]"),
        (&["dead"], "redrive"),
        (&[], "flushordered"),
    ] {
        let said = run(config, args);
        assert_eq!((said.status, said.stdout.as_str()), (64, ""), "{args:?}: {said:#?}");
        assert!(said.stderr.contains(hint), "{args:?}: {said:#?}");
    }
    let nearest =
        "error: unknown signal type \"OrderPlcaed\"; did you mean \"OrderPlaced\"? (known: OrderPlaced, PriceChanged)\n";
    for args in [
        &["flush", "OrderPlcaed"][..],
        &["flushmany", "-e", "OrderPlcaed"],
        &["flushordered", "PriceChanged", "OrderPlcaed"],
        &["dead", "list", "OrderPlcaed"],
        &["dead", "redrive", "--signal", "OrderPlcaed"],
    ] {
        let said = run(config, args);
        assert_eq!((said.status, said.stderr.as_str()), (64, nearest), "{args:?}: {said:#?}");
    }
}

#[test]
fn help_and_version_are_0() {
    for args in [&["--help"][..], &["flush", "--help"], &["--version"], &["help", "dead"]] {
        let said = run("", args);
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{args:?}: {said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_dead_letter_is_1() {
    let (_database, project) = {
        let database = Database::sqlite().await;
        database.orders(0).await;
        let text = config(&database.url, &[("OrderPlaced", "sends", "")]);
        let project = Project::new(database.folder(), &text);
        (database, project)
    };
    for args in [["dead", "show", "7"], ["dead", "redrive", "7"], ["dead", "discard", "7"]] {
        let said = project.run(&args);
        assert_eq!((said.status, said.stderr.as_str()), (1, "error: dead letter 7 not found; see `signalbus dead list`\n"));
    }
}

/// Asserts that every command that needs the database reports it unreachable in the same way.
fn unreachable(url: &str, expected: &str) {
    let folder = TempDir::new().unwrap();
    let project = Project::new(folder.path(), &config(url, &[("OrderPlaced", "sends", "")]));
    for args in [&["pending"][..], &["flush", "-w", "0"], &["dead", "list"], &["check"]] {
        let said = project.run(args);
        assert_eq!(said.status, 69, "{args:?}: {said:#?}");
        let told = if args == ["check"] { &said.stdout } else { &said.stderr };
        assert!(told.starts_with("error: database: ") && told.contains(expected), "{args:?}: {said:#?}");
        assert!(told.ends_with("; check that it is available and that `database.url` is correct\n"), "{args:?}: {said:#?}");
    }
}

#[test]
fn a_missing_sqlite_file_is_69() {
    unreachable("sqlite://nowhere.db", "unable to open database file");
    unreachable("sqlite:///nowhere/outbox.db?mode=rwc", "unable to open database file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_is_69() {
    for database in [Database::postgres().await, Database::mariadb().await] {
        let expected = if database.system == System::Postgres { "does not exist" } else { "Unknown database" };
        unreachable(&format!("{}_not", database.url), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_69() {
    let database = Database::mariadb().await;
    unreachable(&database.url.replace("root@", "root:wrong@"), "Access denied");
    let database = Database::postgres().await;
    unreachable(&database.url.replace("signalbus@", "nobody:wrong@"), "role \"nobody\" does not exist");
}

#[test]
fn a_server_that_is_down_is_69() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = TempDir::new().unwrap();
    let url = format!("postgres://signalbus@127.0.0.1:{port}/outbox");
    let said = Project::new(folder.path(), &config(&url, &[("OrderPlaced", "sends", "")])).run(&["pending"]);
    assert_eq!(said.status, 69, "{said:#?}");
    let expected =
        "error: database: no connection could be made; check that it is available and that `database.url` is correct\n";
    assert_eq!(said.stderr, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_69_and_charges_nothing() {
    let (database, said) = flush_of("unavailable").await;
    assert_eq!((said.status, said.stdout.as_str()), (69, "sent 0, deferred 0, buried 0\n"), "{said:#?}");
    assert!(said.stderr.contains("error: signal type \"OrderPlaced\": bus unavailable: "), "{said:#?}");
    untouched(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misconfigured_plugin_is_78_and_charges_nothing() {
    let (database, said) = flush_of("misconfigured").await;
    assert_eq!((said.status, said.stdout.as_str()), (78, "sent 0, deferred 0, buried 0\n"), "{said:#?}");
    assert!(said.stderr.contains("error: signal type \"OrderPlaced\": plugin misconfigured: "), "{said:#?}");
    untouched(&database).await;
}

async fn untouched(database: &Database) {
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 3);
    for table in ["hold", "claim WHERE owner <> ''"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM signalbus_{table}")).await, 0, "{table}");
    }
}

#[test]
fn an_invalid_configuration_is_78_with_every_problem_and_its_place() {
    let text = "[databse]\nurl = 'sqlite://outbox.db'\n[signals.A]\nplugin = 'p'\nburst_count = 'many'\n\
                ordr_by = ['id']\n[signals.B]\nmemory = '64MB'\nsecrets = { 'größe' = [1] }\n";
    let expected = "\
error: signalbus.toml:1:1: `[database]` with a `url` is missing
error: signalbus.toml:1:2: unknown key `databse`; did you mean \"database\"?
error: signalbus.toml:5:15: `signals.A.burst_count` must be an integer of at least 1
error: signalbus.toml:6:1: unknown key `signals.A.ordr_by`; did you mean \"order_by\"?
error: signalbus.toml:7:1: `signals.B.plugin` is missing; set it to the path of a .wasm file
error: signalbus.toml:8:10: `signals.B.memory`: invalid size \"64MB\"; write \"512KiB\", \"64MiB\" or \"1GiB\"
error: signalbus.toml:9:23: `signals.B.secrets.größe` must be a string, a number or a boolean, not a list
";
    for args in [&["pending"][..], &["flush"], &["signals"], &["migrate"], &["dead", "list"]] {
        let said = run(text, args);
        assert_eq!((said.status, said.stdout.as_str()), (78, ""), "{args:?}: {said:#?}");
        assert_eq!(said.stderr, expected, "{args:?}");
    }
}

#[test]
fn a_missing_configuration_is_78_with_a_remedy() {
    let folder = TempDir::new().unwrap();
    let said = Project::at(folder.path()).run(&["pending"]);
    assert_eq!(said.status, 78);
    assert!(said.stderr.starts_with("error: signalbus.toml: No such file"), "{said:#?}");
    assert!(said.stderr.contains("`signalbus init`") && said.stderr.contains("`--config`"), "{said:#?}");
}

#[test]
fn the_environment_names_the_file_and_the_option_overrides_it() {
    let folder = TempDir::new().unwrap();
    let project = Project::new(folder.path(), "[database]\nurl = 'sqlite://o.db'\n[signals.A]\nplugin = 'p'\n");
    std::fs::write(folder.path().join("other.toml"), "[database]\nurl = '${NOT_SET}'\n").unwrap();
    let said = Said::from(project.command(&["signals"]).env("SIGNALBUS_CONFIG", "other.toml").output().unwrap());
    assert_eq!(said.status, 78);
    assert_eq!(said.stderr, "error: other.toml:2:7: the environment variable NOT_SET is not set\n");
    let mut command = project.command(&["--config", "signalbus.toml", "signals"]);
    assert_eq!(Said::from(command.env("SIGNALBUS_CONFIG", "other.toml").output().unwrap()).stdout, "A\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn side_tables_are_created_in_a_schema_of_their_own() {
    for (kind, system) in [(Kind::Postgres, System::Postgres), (Kind::Mariadb, System::Mariadb)] {
        let server = tokio::task::spawn_blocking(move || Server::shared(kind)).await.unwrap();
        let database = Database::without_outbox(system, server).await;
        database.orders(5).await;
        let schema = format!("sides-of-{}", database.url.rsplit_once('_').unwrap().1);
        let text = config(&database.url, &[("OrderPlaced", "sends", "")]);
        let text = text.replace("[signals", &format!("side_schema = {schema:?}\n[signals"));
        let project = Project::new(database.folder(), &text);
        let said = project.run(&["flush", "-w", "0"]);
        assert!(said.stderr.contains("run `signalbus migrate`"), "{said:#?}");
        let printed = project.ok(&["migrate", "--print"]);
        assert!(printed.starts_with("CREATE SCHEMA IF NOT EXISTS"), "{printed}");
        database.run(printed.trim()).await;
        assert_eq!(project.ok(&["migrate"]), "side tables are up to date\n");
        if system == System::Postgres {
            project.ok(&["migrate", "--notify"]);
            let places = "SELECT nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE proname = 'signalbus_notify'";
            assert_eq!(database.lines(places).await, [schema.as_str()]);
            database.run("INSERT INTO order_placed SELECT i + 10, 'x', 'y' FROM generate_series(1, 2) AS n (i)").await;
        }
        project.ok(&["flush", "-w", "0"]);
        assert_eq!(database.count("order_placed").await, 0);
        assert_eq!(project.ok(&["check"]).matches("warning").count(), 0);
        let elsewhere = format!(
            "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'signalbus%' AND table_schema = '{}'",
            if system == System::Postgres { "public" } else { database.url.rsplit('/').next().unwrap() }
        );
        assert_eq!(database.number(&elsewhere).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_side_tables_are_78_with_a_remedy() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("new.db").display());
    let text = format!("[database]\nurl = {url:?}\n[signals.A]\nplugin = {:?}\n", guest("sends"));
    let project = Project::new(folder.path(), &text);
    let said = project.run(&["flush", "-w", "0"]);
    assert_eq!(
        (said.status, said.stderr.as_str()),
        (78, "error: the side tables `signalbus_*` are missing; run `signalbus migrate`\n")
    );
    assert_eq!(project.ok(&["migrate"]), "side tables created\n");
    assert_eq!(project.ok(&["migrate"]), "side tables are up to date\n");
    let said = project.run(&["flush", "-w", "0"]);
    assert_eq!(said.status, 78);
    assert!(said.stderr.starts_with("error: signalbus.toml:3:1: signal type \"A\": table \"a\" does not exist"), "{said:#?}");
}
