//! An outbox whose signals the `publishes` guest takes to a bus.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Row as _};

use super::broker::Broker;
use super::command::{Project, Said};
use super::database::Database;
use super::proxy::Proxy;
use super::relay::{Running, section};
use super::server::run;
use super::{PATIENCE, pause};

/// How soon a bus that is back is used again: within five seconds, of which a busy machine makes more.
pub const RECOVERY: Duration = Duration::from_secs(20);

/// What passes a narrow network in a second.
pub const NARROW: u32 = 64_000;

pub struct Shop {
    pub database: Database,
    pub project: Project,
    pub sections: String,
}

impl Shop {
    /// This many orders; `connection` are lines of the connection's section, `settings` of the guest's.
    pub async fn with(rows: u32, connection: &str, settings: &str) -> Self {
        let database = Database::sqlite().await;
        database.orders(rows).await;
        Self::of(database, connection, settings)
    }

    /// Two orders.
    pub async fn small(connection: &str, settings: &str) -> Self {
        Self::with(2, connection, settings).await
    }

    pub fn of(database: Database, connection: &str, settings: &str) -> Self {
        Self::of_plugin("publishes", database, connection, settings)
    }

    /// The same with the plugin `publish`, whose settings may name columns, and orders of so many customers.
    pub async fn of_customers(customers: u32, rows: u32, connection: &str, settings: &str) -> Self {
        let database = Database::sqlite().await;
        database.orders(rows).await;
        database.run(&format!("UPDATE order_placed SET customer = id % {customers}")).await;
        Self::of_plugin("signalbus_publish", database, connection, &format!("connection = 'bus'\n{settings}"))
    }

    fn of_plugin(plugin: &str, database: Database, connection: &str, settings: &str) -> Self {
        let plugin = super::guest(plugin);
        let sections = format!(
            "[connections.bus]\n{connection}\n[signals.OrderPlaced]\nplugin = {plugin:?}\nburst_count = 50\nconcurrency = 2\n\
             timeout = '60s'\n[signals.OrderPlaced.grants]\nconnections = ['bus']\n[signals.OrderPlaced.settings]\n{settings}\n"
        );
        let project = Project::new(database.folder(), &format!("[database]\nurl = {:?}\n{sections}", database.url));
        Self { database, project, sections }
    }

    /// Five hundred orders of two kilobytes, in batches of so many.
    pub async fn heavy(burst: u32, connection: &str, settings: &str) -> Self {
        let mut shop = Self::with(500, connection, settings).await;
        shop.database.run("UPDATE order_placed SET payload = printf('%.2000c', 'x')").await;
        let burst = format!("burst_count = {burst}");
        shop.sections = shop.sections.replace("burst_count = 50", &burst).replace("concurrency = 2", "concurrency = 4");
        shop
    }

    /// Changes a line of the configuration.
    pub fn set(&self, from: &str, to: &str) {
        let file = self.project.folder().join("signalbus.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replacen(from, to, 1)).unwrap();
    }

    /// The same, with a grant of the connection in part: the further keys of its entry.
    pub fn granting(self, grant: &str) -> Self {
        let whole = "connections = ['bus']";
        let sections = self.sections.replace(whole, &format!("connections = [{{ name = 'bus', {grant} }}]"));
        assert_ne!(sections, self.sections);
        let project = Project::new(self.database.folder(), &format!("[database]\nurl = {:?}\n{sections}", self.database.url));
        Self { project, sections, ..self }
    }

    pub fn flush(&self) -> Said {
        self.project.run(&["flush", "-w", "0"])
    }

    pub async fn left(&self) -> i64 {
        self.database.waiting().await
    }

    /// Everything was sent.
    pub async fn sends(&self) {
        let said = self.flush();
        assert_eq!((said.status, self.left().await), (0, 0), "{said:#?}");
        assert_eq!((self.reasons("retry").await, self.reasons("dead").await), (vec![], vec![]), "{said:#?}");
    }

    /// The reason of each hold in this state.
    pub async fn reasons(&self, state: &str) -> Vec<String> {
        let mut connection = self.database.sqlite_connection().await;
        let query = format!("SELECT reason FROM signalbus_hold WHERE state = '{state}' ORDER BY CAST(signal_key AS INTEGER)");
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// All that is left is to be tried again, for a reason with these words in it.
    pub async fn defers(&self, rows: usize, words: &str) {
        let said = self.flush();
        let reasons = self.reasons("retry").await;
        assert_eq!((said.status, reasons.len()), (1, rows), "{reasons:?}: {said:#?}");
        assert!(reasons.iter().all(|reason| reason.contains(words)), "{reasons:?}");
        assert_eq!((self.left().await, self.reasons("dead").await), (i64::try_from(rows).unwrap(), vec![]));
    }

    /// So many are dead letters, for a reason with these words in it, and the others were sent.
    pub async fn buries(&self, rows: usize, words: &str) {
        let said = self.flush();
        let listed = self.project.run(&["dead", "list", "--json"]).json();
        let letters = listed["dead_letters"].as_array().unwrap();
        let reasons: Vec<&str> = letters.iter().filter_map(|letter| letter["reason"].as_str()).collect();
        assert_eq!((said.status, reasons.len(), self.left().await), (1, rows, 0), "{reasons:?}: {said:#?}");
        assert!(reasons.iter().all(|reason| reason.contains(words)), "{reasons:?}");
    }

    /// An outage, told with these words and without the password: nothing is charged.
    pub async fn cannot(&self, status: i32, words: &[&str]) {
        let left = self.left().await;
        let said = self.flush();
        assert_eq!((said.status, self.left().await), (status, left), "{said:#?}");
        for words in words {
            assert!(said.stderr.contains(words), "{words:?}: {said:#?}");
        }
        assert!(!said.stderr.contains("hunter2"), "{said:#?}");
        assert_eq!((self.reasons("retry").await, self.reasons("dead").await), (vec![], vec![]), "{said:#?}");
    }

    /// Runs the relay, takes the bus away in mid-flow and gives it back: no attempt is charged, and
    /// it flows again at once.
    pub async fn survives(&self, down: impl Fn(), up: impl Fn()) {
        let orders = self.left().await;
        let mut running = Running::spawn(&self.database, &self.sections, "");
        self.wait(orders - 200, PATIENCE, &running).await;
        down();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let left = self.left().await;
        assert!(left > 1000, "the bus was taken away too late: {left} are left");
        up();
        self.wait(left - 1, RECOVERY, &running).await;
        self.wait(0, PATIENCE, &running).await;
        assert_eq!(running.stop(), Some(0), "{}", running.witness.text());
        assert_eq!((self.reasons("retry").await, self.reasons("dead").await), (vec![], vec![]));
    }

    /// The same, with a broker that is killed.
    pub async fn survives_death_of(&self, broker: &Broker) {
        self.survives(|| broker.kill(), || broker.up()).await;
    }

    /// The same, with a cable that is pulled: nobody is told.
    pub async fn survives_silence_of(&self, proxy: &Proxy) {
        self.survives(|| proxy.cut(), || proxy.mend()).await;
    }

    /// Runs the relay, and does something in mid-flow: nobody is charged.
    pub async fn sends_meanwhile(&self, meanwhile: impl AsyncFn()) {
        let orders = self.left().await;
        let mut running = Running::spawn(&self.database, &self.sections, "");
        self.wait(orders - 200, PATIENCE, &running).await;
        let begun = Instant::now();
        meanwhile().await;
        let left = self.left().await;
        println!("{left} of {orders} are left after {:?}", begun.elapsed());
        assert!(left > 0, "it came too late");
        self.wait(0, PATIENCE, &running).await;
        assert_eq!(running.stop(), Some(0), "{}", running.witness.text());
        assert_eq!((self.reasons("retry").await, self.reasons("dead").await), (vec![], vec![]));
    }

    /// Runs the relay with a bus that takes little at a time: it goes on, charges nothing, and says that it is ready.
    pub async fn squeezes(&self) {
        let mut running = Running::spawn(&self.database, &self.sections, "");
        running.wait_ready();
        let (begun, orders) = (Instant::now(), self.left().await);
        let mut unready = 0;
        while self.left().await > 0 {
            let left = self.left().await;
            assert!(
                begun.elapsed() < PATIENCE,
                "{left} of {orders} are left, unready {unready} times: {}",
                running.witness.text()
            );
            unready += usize::from(running.get("/readyz").status != 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{orders} in {:?}, unready {unready} times", begun.elapsed());
        assert_eq!(running.stop(), Some(0), "{}", running.witness.text());
        assert_eq!((self.reasons("retry").await, self.reasons("dead").await), (vec![], vec![]));
        assert_eq!(unready, 0, "{}", running.witness.text());
    }

    /// Runs the relay, restarts the bus while nothing is to be sent, and then sends: nobody notices.
    pub async fn does_not_notice(&self, restart: impl Fn()) {
        let mut running = Running::spawn(&self.database, &self.sections, "");
        self.wait(0, PATIENCE, &running).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        restart();
        self.database.run("INSERT INTO order_placed VALUES (1000000, 'late', 'x')").await;
        self.wait(0, RECOVERY, &running).await;
        assert!(!running.witness.text().contains("not available"), "{}", running.witness.text());
        assert_eq!(running.stop(), Some(0));
    }

    /// Runs the relay while the bus is away, and stops it.
    pub async fn stops(&self) {
        let mut running = Running::spawn(&self.database, &self.sections, "");
        running.witness.wait_until("bus not available");
        let begun = Instant::now();
        assert_eq!(running.stop(), Some(0), "{}", running.witness.text());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}: {}", begun.elapsed(), running.witness.text());
    }

    async fn wait(&self, left: i64, patience: Duration, running: &Running) {
        let begun = Instant::now();
        loop {
            let now = self.left().await;
            if now <= left {
                return;
            }
            assert!(begun.elapsed() < patience, "{now} are left, not {left}, after {patience:?}: {}", running.witness.text());
            tokio::time::sleep(pause(begun)).await;
        }
    }
}

/// Sends 101 orders, some of which their bus cannot carry, and beside them 101 of another type through the
/// same connection, all with the plugin `publish`. Each of `bad` is an SQL expression for the column
/// `customer` of an order, and words of the reason for which it becomes a dead letter.
///
/// Returns the rows that have to arrive, sorted.
pub async fn bad_messages_cost_only_themselves(connection: &str, settings: &str, bad: &[(&str, &str)]) -> Vec<String> {
    let database = with_neighbour().await;
    let key = |number: usize| 10 * number + 3;
    for (number, (customer, _)) in bad.iter().enumerate() {
        database.run(&format!("UPDATE order_placed SET customer = {customer} WHERE id = {}", key(number))).await;
    }
    let project = beside_neighbour(&database, connection, settings);
    let said = project.run(&["flush", "-w", "0"]);
    let listed = project.run(&["dead", "list", "--json"]).json();
    let letters = listed["dead_letters"].as_array().unwrap();
    for (number, (customer, words)) in bad.iter().enumerate() {
        let letter = letters.iter().find(|letter| letter["key"].as_str() == Some(&key(number).to_string()));
        let reason = letter.and_then(|letter| letter["reason"].as_str());
        assert!(reason.is_some_and(|reason| reason.contains(words)), "{customer}: {reason:?}: {said:#?}");
    }
    let neighbours = database.number("SELECT count(*) FROM neighbour").await;
    assert_eq!((said.status, letters.len(), database.waiting().await, neighbours), (1, bad.len(), 0, 0), "{said:#?}");
    let dead: Vec<String> = (0..bad.len()).map(|number| format!("OrderPlaced:{}", key(number))).collect();
    let mut rows = ids(101);
    rows.retain(|row| !dead.contains(row));
    rows.extend((1..=101).map(|id| format!("Neighbour:{id}")));
    rows.sort();
    rows
}

/// 101 orders, and 101 neighbours.
pub async fn with_neighbour() -> Database {
    let database = Database::sqlite().await;
    database.orders(101).await;
    database.run("UPDATE order_placed SET customer = 'good'").await;
    database.run("CREATE TABLE neighbour (id INTEGER PRIMARY KEY, customer TEXT)").await;
    database.run("INSERT INTO neighbour SELECT id, customer FROM order_placed").await;
    database
}

/// Both types use the plugin `publish` and the same connection.
pub fn beside_neighbour(database: &Database, connection: &str, settings: &str) -> Project {
    let of = |name: &str| {
        let more = format!("grants.connections = ['bus']\n[signals.{name}.settings]\nconnection = 'bus'\n{settings}\n");
        section(name, &super::guest("signalbus_publish"), &more)
    };
    let sections = format!("[connections.bus]\n{connection}\n{}{}", of("OrderPlaced"), of("Neighbour"));
    Project::new(database.folder(), &format!("[database]\nurl = {:?}\n{sections}", database.url))
}

/// Fifty orders are one batch: those of each came in their order.
pub fn in_order(arrived: &[String]) {
    let number = |id: &String| row_of(id).strip_prefix("OrderPlaced:").and_then(|key| key.parse::<u32>().ok()).unwrap();
    for batch in 0..=arrived.iter().map(number).max().unwrap_or_default() / 50 {
        let of_batch: Vec<u32> = arrived.iter().map(number).filter(|number| (number - 1) / 50 == batch).collect();
        assert!(of_batch.is_sorted(), "{of_batch:?}");
    }
}

/// Within each key, numbers are `step` apart. What was sent twice starts again further back: there is no gap.
pub fn in_order_after_repetitions(arrived: &[u32], key: impl Fn(u32) -> u32, step: u32) {
    let mut last: HashMap<u32, u32> = HashMap::new();
    for &number in arrived {
        let before = number.checked_sub(step).filter(|before| *before > 0);
        let highest = last.get(&key(number)).copied();
        assert!(before <= highest, "{number} came before {before:?}");
        last.insert(key(number), highest.unwrap_or_default().max(number));
    }
}

/// Commits equal rows one by one into a table whose keys come back, and sends each with the plugin `publish`.
pub async fn equal_commits(commits: u32, connection: &str, settings: &str) {
    let database = Database::sqlite().await;
    database.run("CREATE TABLE visited (id INTEGER PRIMARY KEY, page TEXT NOT NULL)").await;
    let more = format!(
        "[signals.Visited.grants]\nconnections = ['bus']\n[connections.bus]\n{connection}\n\
         [signals.Visited.settings]\nconnection = 'bus'\n{settings}\n"
    );
    let mut relay = Running::start(&database, &section("Visited", &super::guest("signalbus_publish"), &more));
    for _ in 0..commits {
        database.run("INSERT INTO visited (page) VALUES ('/')").await;
        relay.wait_empty(&database, "visited").await;
    }
    assert_eq!(relay.stop(), Some(0));
}

/// The type and key in a signal's id.
pub fn row_of(id: &str) -> &str {
    id.split('~').next().unwrap_or_default()
}

/// The rows with these ids, sorted.
pub fn rows_of(arrived: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = arrived.into_iter().map(|id| row_of(&id).to_owned()).collect();
    rows.sort_unstable();
    rows
}

/// The rows with these ids, each once, however often it arrived; it must have had the same id each time.
pub fn distinct_rows_of(arrived: impl IntoIterator<Item = String>) -> Vec<String> {
    rows_of(arrived.into_iter().collect::<std::collections::BTreeSet<String>>())
}

/// The types and keys of the orders from 1 to `rows`, sorted.
pub fn ids(rows: u32) -> Vec<String> {
    let mut ids: Vec<String> = (1..=rows).map(|order| format!("OrderPlaced:{order}")).collect();
    ids.sort();
    ids
}

/// Puts `ca.pem`, `server.pem` and `server.key` into a folder, for a server on this machine.
pub fn certificates(folder: &Path) {
    let openssl = |args: &[&str]| run(Command::new("openssl").args(args).current_dir(folder));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-subj", "/CN=test", "-days", "9", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&authority[..], &new].concat());
    openssl(&[&["req", "-subj", "/CN=here", "-keyout", "server.key", "-out", "request"][..], &new].concat());
    let sign = ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-days", "9", "-extfile", "names", "-out", "server.pem"]].concat());
    run(Command::new("chmod").arg("-R").arg("a+rX").arg(folder));
}

/// Checks how many messages five hundred orders became: what was in flight when time ran out may come twice.
pub fn few_repetitions(arrived: usize) {
    println!("{arrived} arrived");
    assert!((500..=600).contains(&arrived), "{arrived} arrived");
}
