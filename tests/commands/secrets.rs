//! Secrets never appear in output or logs, whatever command runs and whatever goes wrong.

use crate::harness::command::{Project, Said, config};
use crate::harness::database::{Database, System};

const SECRET: &str = "Tr0ub4dor&3";
const PASSWORD: &str = "correct-h0rse";
const SCHEMES: [&str; 14] = [
    "amqp",
    "amqps",
    "nats",
    "tls",
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-sentinel",
    "mqtt",
    "mqtts",
    "kafka",
    "kafkas",
    "postgres",
    "postgresql",
];

/// Runs a command with full logging, and asserts that no secret appears anywhere.
fn silent(project: &Project, args: &[&str]) -> Said {
    let mut first = None;
    for format in ["text", "json"] {
        let mut command = project.command(&[&["--log-format", format], args].concat());
        let said = Said::from(command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").output().unwrap());
        for secret in [SECRET, PASSWORD, "Tr0ub4dor", "correct-h"] {
            for text in [&said.stdout, &said.stderr] {
                let line = text.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{args:?} with --log-format {format}");
            }
        }
        first.get_or_insert(said);
    }
    first.unwrap()
}

fn with_password(database: &Database) -> String {
    match database.system {
        System::Sqlite => database.url.clone(),
        System::Postgres => database.url.replace("signalbus@", &format!("signalbus:{PASSWORD}@")),
        // The server's root has no password, so this one is rejected.
        System::Mariadb => database.url.replace("root@", &format!("root:{PASSWORD}@")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_plugin_leaks_are_redacted() {
    for how in ["reject", "retry", "panic", "unavailable", "misconfigured"] {
        let database = Database::sqlite().await;
        database.orders(2).await;
        // The shorter secret is part of the longer one.
        let more = format!(
            "[signals.OrderPlaced.settings]\nhow = {how:?}\n[signals.OrderPlaced.secrets]\npart = {:?}\nkey = {SECRET:?}",
            &SECRET[..8]
        );
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "leaks", &more)]));
        let said = silent(&project, &["flush", "-w", "0", "--json"]);
        assert!(said.stderr.contains("[secret]"), "{how}: the plugin was called: {said:#?}");
        for args in [&["dead", "list"][..], &["dead", "show", "1"], &["check"], &["signals", "--json"], &["pending"]] {
            silent(&project, args);
        }
        let stored = "SELECT count(*) FROM (SELECT reason FROM signalbus_hold WHERE state = 'retry' UNION ALL SELECT reason FROM signalbus_hold WHERE state = 'dead') \
                      WHERE reason LIKE '%Tr0ub4dor%' OR reason LIKE '%dor&3%'";
        assert_eq!(database.number(stored).await, 0, "{how}");
    }
}

/// A secret is looked for before it is escaped or cut.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_escaped_are_redacted() {
    for secret in ["Tr0ub4dor&3\"x", "Tr0ub4dor&3\\x", "Tr0ub4dor&3\tx", "Tr0ub4dor&3\u{1b}x"] {
        let database = Database::sqlite().await;
        database.orders(1).await;
        let secret = secret.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t").replace('\u{1b}', "\\u001b");
        let more = format!("[signals.OrderPlaced.secrets]\nkey = \"{secret}\"");
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "leaks", &more)]));
        let said = silent(&project, &["flush", "-w", "0"]);
        assert!(said.stderr.contains("the key is") && said.stderr.contains("[secret]"), "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_passwords_never_appear() {
    for database in [Database::postgres().await, Database::mariadb().await] {
        database.orders(2).await;
        let url = with_password(&database);
        let nowhere = url.replace("127.0.0.1:", "127.0.0.1:1");
        let more = "[signals.OrderPlaced.secrets]\nkey = 'Tr0ub4dor&3'";
        for url in
            [url.clone(), format!("{url}_not"), format!("{url}?password={PASSWORD}"), nowhere, url.replace("127.0.0.1:", "[")]
        {
            let project = Project::new(database.folder(), &config(&url, &[("OrderPlaced", "secrets", more)]));
            for args in [&["check"][..], &["flush", "-w", "0"]] {
                silent(&project, args);
            }
        }
    }
}

#[test]
fn secrets_in_an_invalid_configuration_never_appear() {
    let folder = tempfile::TempDir::new().unwrap();
    for (url, secrets) in [
        (format!("oracle://user:{PASSWORD}@host/x"), format!("key = ['{SECRET}']")),
        (format!("postgres://user:{PASSWORD}@host:port/x"), format!("key = '{SECRET}")),
        (format!("mysql://user:{PASSWORD}@"), format!("key = {SECRET}")),
        (PASSWORD.to_owned(), format!("key = '{SECRET}' '{SECRET}'")),
    ] {
        let text = format!("[database]\nurl = {url:?}\n[signals.A]\nplugin = 'p.wasm'\n[signals.A.secrets]\n{secrets}\n");
        let project = Project::new(folder.path(), &text);
        for args in [&["check"][..], &["flush"], &["pending", "--json"]] {
            assert_eq!(silent(&project, args).status, 78, "{text}");
        }
    }
}

/// Tries a port where nothing listens, and one where nothing answers.
#[tokio::test(flavor = "multi_thread")]
async fn connection_passwords_never_appear() {
    let silent_server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent_server.local_addr().unwrap().port();
    let closed = crate::harness::server::free_port();
    let mut projects = Vec::new();
    for scheme in SCHEMES {
        let path = match scheme {
            "amqp" | "amqps" | "redis" | "rediss" => "/1".to_owned(),
            "rediss-sentinel" => format!("/mymaster/1?sentinel_password={PASSWORD}"),
            _ => String::new(),
        };
        for port in [port, closed] {
            let database = Database::sqlite().await;
            database.orders(1).await;
            let more = format!(
                "[signals.OrderPlaced.grants]\nconnections = [\"bus\"]\n\
                 [connections.bus]\nurl = \"{scheme}://user:{PASSWORD}@127.0.0.1:{port}{path}\"\ntimeout = \"1s\""
            );
            let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "publishes", &more)]));
            projects.push((scheme, project, database));
        }
    }
    std::thread::scope(|scope| {
        for (scheme, project, _) in &projects {
            scope.spawn(move || {
                silent(project, &["check"]);
                let said = silent(project, &["flush", "-w", "0", "--json"]);
                assert_eq!(said.status, 69, "{scheme}: {said:#?}");
            });
        }
    });
}
