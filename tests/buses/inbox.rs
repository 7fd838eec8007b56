//! The inbox of another service, in a real PostgreSQL: what arrives, what is refused, and what an
//! outage costs.

use crate::harness::bouncer::Bouncer;

use crate::harness::bus::{NARROW, Shop, bad_messages_cost_only_themselves, equal_commits, ids, rows_of};
use crate::harness::database::{Database, System};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves};
use crate::harness::server::{Kind, Server};

/// The table of the book's page on buses.
const INBOX: &str = "CREATE TABLE inbox (id text PRIMARY KEY, key text, content_type text, headers jsonb, body bytea)";

pub(super) async fn database() -> Database {
    let server = tokio::task::spawn_blocking(|| Server::shared(Kind::Postgres)).await.unwrap();
    Database::without_outbox(System::Postgres, server).await
}

async fn inbox() -> Database {
    let database = database().await;
    database.run(INBOX).await;
    database
}

fn url(database: &Database) -> String {
    format!("url = {:?}", database.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let inbox = inbox().await;
    let settings = "destination = 'inbox'\nkey = 'customer'\nheaders = 'tenant=a,trace=\"b\"'";
    let shop = Shop::with(120, &url(&inbox), settings).await;
    shop.sends().await;
    assert_eq!(rows_of(inbox.lines("SELECT id FROM inbox").await), ids(120));
    let whole = "SELECT count(*) FROM inbox WHERE content_type = 'application/json' \
                 AND headers = '{\"tenant\": \"a\", \"trace\": \"\\\"b\\\"\"}' \
                 AND split_part(id, '~', 1) = 'OrderPlaced:' || (convert_from(body, 'UTF8')::jsonb ->> 'id') \
                 AND key = convert_from(body, 'UTF8')::jsonb ->> 'customer'";
    assert_eq!(inbox.number(whole).await, 120);
    // Through a pooler in transaction mode, too.
    let bouncer = Bouncer::before(Server::shared(Kind::Postgres), "");
    let url =
        format!("url = {:?}", inbox.url.replace(&Server::shared(Kind::Postgres).port().to_string(), &bouncer.port.to_string()));
    inbox.run("DELETE FROM inbox").await;
    Shop::with(2000, &url, settings).await.sends().await;
    assert_eq!(inbox.number("SELECT count(*) FROM inbox").await, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_commits_arrive_each() {
    let inbox = inbox().await;
    equal_commits(300, &url(&inbox), "destination = 'inbox'").await;
    assert_eq!(inbox.number("SELECT count(*) FROM inbox").await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_keys_and_tables_cost_only_themselves() {
    let inbox = inbox().await;
    let bad = [("'a' || char(0)", "invalid byte sequence"), ("char(0)", "invalid byte sequence")];
    let rows = bad_messages_cost_only_themselves(&url(&inbox), "destination = 'inbox'\nkey = '{customer}'", &bad).await;
    assert_eq!(rows_of(inbox.lines("SELECT id FROM inbox").await), rows);
    inbox.run("ALTER TABLE inbox RENAME TO good").await;
    let bad = [("printf('%.64c', 'x')", "at most 63"), ("'a' || char(0)", "is not a table")];
    bad_messages_cost_only_themselves(&url(&inbox), "destination = '{customer}'", &bad).await;
}

/// A repeated message counts as sent; another one with its id never does.
#[tokio::test(flavor = "multi_thread")]
async fn another_message_with_the_same_id_becomes_a_dead_letter() {
    let inbox = inbox().await;
    let shop = Shop::with(6, &url(&inbox), "destination = 'inbox'").await;
    let file = shop.project.folder().join("signalbus.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("burst_count", "id = 'customer'\nburst_count");
    std::fs::write(&file, text).unwrap();
    let first = "SELECT 1, customer, payload FROM order_placed WHERE id = 1";
    shop.database
        .run(&format!("CREATE TABLE kept AS {first}; UPDATE order_placed SET customer = 'customer 1' WHERE id = 2"))
        .await;
    shop.buries(1, "inbox \"inbox\" has another message with this id").await;
    shop.project.ok(&["dead", "discard", "--all"]);
    shop.database.run("INSERT INTO order_placed SELECT * FROM kept").await;
    shop.sends().await;
    assert_eq!(inbox.lines("SELECT id FROM inbox ORDER BY id").await[..2], ["customer 1", "customer 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_can_be_named_with_their_schema() {
    let inbox = inbox().await;
    inbox.run("CREATE SCHEMA \"Shop\"; CREATE TABLE \"Shop\".\"in\"\"box\" (LIKE inbox INCLUDING ALL)").await;
    Shop::small(&url(&inbox), "destination = 'Shop.in\"box'").await.sends().await;
    assert_eq!(inbox.number("SELECT count(*) FROM \"Shop\".\"in\"\"box\"").await, 2);
    Shop::small(&url(&inbox), "destination = 'a.b.c'")
        .await
        .buries(2, "is not a table; write \"table\" or \"schema.table\"")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_faulty_rows_become_dead_letters() {
    let inbox = inbox().await;
    inbox.run("ALTER TABLE inbox ADD CHECK (key <> 'bad'), ADD CHECK (length(body) < 5000)").await;
    // This constraint is checked at the end of the transaction.
    inbox.run("ALTER TABLE inbox ADD twin text, ADD FOREIGN KEY (twin) REFERENCES inbox DEFERRABLE INITIALLY DEFERRED").await;
    let orphan = "BEGIN IF NEW.key = ''orphan'' THEN NEW.twin = ''nobody''; END IF; RETURN NEW; END";
    inbox.run(&format!("CREATE FUNCTION twin() RETURNS trigger LANGUAGE plpgsql AS '{orphan}'")).await;
    inbox.run("CREATE TRIGGER twin BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION twin()").await;
    let shop = Shop::with(50, &url(&inbox), "destination = 'inbox'\nkey = 'customer'").await;
    shop.database.run("UPDATE order_placed SET customer = 'bad' WHERE id = 17").await;
    shop.database.run("UPDATE order_placed SET payload = printf('%.5000c', 'x') WHERE id = 31").await;
    shop.database.run("UPDATE order_placed SET customer = 'orphan' WHERE id = 40").await;
    // PostgreSQL's text has no zero byte.
    shop.database.run("UPDATE order_placed SET customer = 'zero' || char(0) WHERE id = 50").await;
    shop.buries(4, "inbox \"inbox\" refuses the row: ").await;
    assert_eq!(inbox.number("SELECT count(*) FROM inbox").await, 46);
    let mixed = Shop::small(&url(&inbox), "destination = 'inbox'\nid = 'none'").await;
    mixed.buries(2, "the message has no `id`, which an inbox requires").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_table_defers_messages() {
    let inbox = database().await;
    let shop = Shop::small(&url(&inbox), "destination = 'inbox'").await;
    shop.defers(2, "relation \"inbox\" does not exist; create the table as the book's page on buses shows").await;
    inbox.run("CREATE TABLE inbox (id text PRIMARY KEY, body bytea)").await;
    let shop = Shop::small(&url(&inbox), "destination = 'inbox'").await;
    shop.defers(2, "column \"key\" of relation \"inbox\" does not exist; create the table").await;
    inbox.run("DROP TABLE inbox; CREATE TABLE inbox (id text, key text, content_type text, headers jsonb, body bytea)").await;
    Shop::small(&url(&inbox), "destination = 'inbox'").await.defers(2, "no unique or exclusion constraint").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_destination_does_not_harm_another() {
    let inbox = inbox().await;
    let shop = Shop::with(30, &url(&inbox), "destination = 'inbox'").await;
    shop.database.run("ALTER TABLE order_placed ADD COLUMN destination TEXT DEFAULT 'inbox'").await;
    shop.database.run("UPDATE order_placed SET destination = 'gone' WHERE id % 10 = 0").await;
    shop.defers(3, "relation \"gone\" does not exist").await;
    assert_eq!(inbox.number("SELECT count(*) FROM inbox").await, 27);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    let server = tokio::task::spawn_blocking(|| Server::start(Kind::Postgres)).await.unwrap();
    let inbox = Database::without_outbox(System::Postgres, &server).await;
    inbox.run(INBOX).await;
    let shop = Shop::with(12_000, &url(&inbox), "destination = 'inbox'").await;
    shop.survives(|| server.kill(), || server.up()).await;
    assert_eq!(rows_of(inbox.lines("SELECT id FROM inbox").await), ids(12_000));
    let proxy = Proxy::to(server.port());
    let connection =
        format!("url = {:?}\ntimeout = '1s'", inbox.url.replace(&server.port().to_string(), &proxy.port.to_string()));
    Shop::with(6000, &connection, "destination = 'inbox'").await.survives_silence_of(&proxy).await;
    let shop = Shop::small(&url(&inbox), "destination = 'inbox'").await;
    shop.does_not_notice(|| {
        server.kill();
        server.up();
    })
    .await;
    // The same server with users that it refuses.
    inbox.run("CREATE ROLE ann LOGIN PASSWORD 'treasure'").await;
    inbox.run("DO $$ BEGIN EXECUTE format('COPY (SELECT %L) TO %L', 'host all ann all scram-sha-256', current_setting('hba_file')); END $$; SELECT pg_reload_conf()").await;
    let (port, words) = (server.port(), ["connection \"bus\": PostgreSQL at 127.0.0.1:", "password authentication failed"]);
    let of = |login: &str| format!("url = {:?}", inbox.url.replace("//signalbus@", &format!("//{login}@")));
    Shop::small(&of("ann:hunter2"), "destination = 'inbox'").await.cannot(78, &words).await;
    let shop = Shop::small(&of("ann:treasure"), "destination = 'inbox'").await;
    shop.defers(2, "permission denied for table inbox").await;
    let nowhere = format!("url = 'postgres://ann:treasure@127.0.0.1:{port}/nowhere'");
    Shop::small(&nowhere, "").await.cannot(78, &["database \"nowhere\" does not exist"]).await;
    let port = crate::harness::server::free_port();
    let nobody = format!("url = 'postgres://ann:hunter2@127.0.0.1:{port}/x'");
    Shop::small(&nobody, "").await.cannot(69, &[&format!("PostgreSQL at 127.0.0.1:{port}: ")]).await;
}

/// An IPv6 address is what it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_leads_to_its_server() {
    let inbox = inbox().await;
    let (server, name) = inbox.url.rsplit_once('/').unwrap();
    let port = server.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::at("[::1]:0", port);
    let url = format!("url = 'postgres://signalbus@[::1]:{}/{name}'", proxy.port);
    Shop::with(3, &url, "destination = 'inbox'").await.sends().await;
    let refused = Shop::small(&url.replace(name, &format!("{name}?sslmod=off")), "destination = 'inbox'").await.flush();
    assert!(refused.stderr.contains("unknown parameter \"?sslmod=\""), "{refused:#?}");
}

/// Calls take turns where the server grants fewer connections than there are calls at once.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough() {
    let inbox = inbox().await;
    let role = format!("one_{:08x}", fastrand::u32(..));
    inbox.run(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")).await;
    inbox.run(&format!("GRANT ALL ON inbox TO {role}")).await;
    let (_, server) = inbox.url.split_once('@').unwrap();
    let url = format!("url = 'postgres://{role}@{server}'");
    Shop::heavy(20, &url, "destination = 'inbox'").await.sends().await;
    assert_eq!(rows_of(inbox.lines("SELECT id FROM inbox").await), ids(500));
    inbox.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let inbox = inbox().await;
    let port = Server::shared(Kind::Postgres).port();
    let proxy = Proxy::narrow(port, NARROW);
    let url = format!("url = {:?}", inbox.url.replace(&port.to_string(), &proxy.port.to_string()));
    Shop::heavy(500, &url, "destination = 'inbox'").await.squeezes().await;
    assert_eq!(rows_of(inbox.lines("SELECT id FROM inbox").await), ids(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let inbox = inbox().await;
    inbox.run("ALTER TABLE inbox ADD CHECK (key <> 'bad')").await;
    let arrived = async || inbox.lines("SELECT id FROM inbox").await;
    for (bad, words) in [("customer = 'bad'", "violates check constraint"), ("customer = char(0)", "invalid byte sequence")] {
        let refusal = Refusal { settings: "destination = 'inbox'\nkey = '{customer}'", good: "customer = 'good'", bad, words };
        refusals_cost_only_themselves(&url(&inbox), &refusal, &FEW_AND_MANY, arrived).await;
    }
}
