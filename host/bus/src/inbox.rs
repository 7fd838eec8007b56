//! The inbox of another service: a table in its PostgreSQL database, with a row per message.
//!
//! A message must never count as sent before its row is committed. `shared_connection` connects;
//! `instrumented` measures and redacts.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout, timeout_at};

use super::shared_connection::SharedConnection;
use super::{
    Bus, ConnectionConfig, Failure, IDLE, Receipt, ReceivingRuns, Run, at_most, broken, goes_on, outage, refuse_options, reject,
    unavailable,
};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to the database of another service.
pub(super) struct Inbox {
    options: PgConnectOptions,
    /// Shown in messages.
    address: String,
    connection: SharedConnection<Session>,
}

struct Session {
    /// Connections, so that one call does not wait for the commit of another; the first is always there.
    connections: [Mutex<Option<Connection>>; CONNECTIONS],
    /// The server takes no more.
    full: AtomicBool,
}

/// A connection, and when it last answered.
struct Connection(PgConnection, Instant);

const CONNECTIONS: usize = 4;

/// Why an insertion failed.
enum Fault {
    /// At least one of the rows is at fault.
    Row(String),
    /// The table is at fault: no row could be inserted.
    Table(String),
    Connection(Failure),
}

impl Inbox {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        refuse_options("PostgreSQL", config)?;
        config.refuse_unknown(&["host", "options", "sslmode", "sslrootcert", "sslcert", "sslkey"])?;
        let mut url = config.url.clone();
        if url.query().is_some() {
            let pairs = config.url.query_pairs().map(|(name, value)| match name.as_ref() {
                "sslrootcert" | "sslcert" | "sslkey" => (name, config.folder.join(value.as_ref()).display().to_string()),
                _ => (name, value.into_owned()),
            });
            url.query_pairs_mut().clear().extend_pairs(pairs);
        }
        let options: PgConnectOptions = url.as_str().parse().map_err(|error: sqlx::Error| error.to_string())?;
        let options = match config.host().filter(|_| matches!(config.url.host(), Some(url::Host::Ipv6(_)))) {
            Some(host) => options.host(&host),
            None => options,
        };
        let options = options.application_name("signalbus").extra_float_digits(None).disable_statement_logging();
        let options = match &config.ca {
            Some(ca) => options.ssl_root_cert_from_pem(ca.clone().into_bytes()),
            None => options,
        };
        Ok(Self { options, address: config.server(5432), connection: SharedConnection::default() })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        match self.options.connect().await {
            Ok(first) => {
                let mut connections = [const { None }; CONNECTIONS];
                connections[0] = Some(Connection(first, Instant::now()));
                Ok(Session { connections: connections.map(Mutex::new), full: AtomicBool::default() })
            }
            Err(error) => {
                let said = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
                let reason = format!("PostgreSQL at {}: {said}", self.address);
                let code = state(&error).unwrap_or_default();
                // Wrong credentials or a missing database.
                match code.starts_with("28") || code == "3D000" {
                    true => Err(Outage::Misconfigured { reason }),
                    false => Err(unavailable(reason)),
                }
            }
        }
    }

    /// Publishes the first messages of each run that are for one table.
    async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let mut session = self.connection.get(|_| true, self.connect(), deadline).await?;
        if !session.is_alive().await {
            self.connection.lose(&session).await;
            session = self.connection.get(|_| true, self.connect(), deadline).await?;
        }
        let mut receipts: Vec<Vec<Receipt>> = vec![Vec::new(); runs.len()];
        let mut tables: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
        for (run, messages) in runs.iter().enumerate() {
            let Some(first) = messages.first() else { continue };
            receipts[run].extend(unsupported(first).map(Ok));
            let rows = messages.iter().take_while(|row| row.destination == first.destination && unsupported(row).is_none());
            tables.entry(&first.destination).or_default().extend(rows.map(|message| Row { run, message }));
        }
        let mut steps = vec![0; runs.len()];
        tables.values().flatten().for_each(|row| steps[row.run] += 1);
        let inserted = async {
            let mut connection = session.free(&self.options).await;
            let Some(Connection(connection, used)) = connection.as_mut() else {
                let begun = receipts.iter_mut().zip(&steps).filter(|(told, step)| goes_on(told) && **step > 0);
                return begun.for_each(|(told, _)| told.push(Err(broken("PostgreSQL: the connection was lost"))));
            };
            for (table, rows) in tables {
                insert(connection, table, rows, &mut receipts).await;
            }
            *used = Instant::now();
        };
        let in_time = timeout_at(deadline, inserted).await.is_ok();
        let late = receipts.iter_mut().zip(steps).filter(|(told, step)| !in_time && goes_on(told) && told.len() < *step);
        for (told, _) in late {
            told.push(Err(outage(format!("PostgreSQL at {} did not answer in time", self.address))));
        }
        self.connection.end_call(&session, &receipts.concat(), in_time).await;
        Ok(receipts)
    }
}

impl Bus for Inbox {
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send(runs, deadline))
    }
}

/// A message, and the number of its run.
#[derive(Clone, Copy)]
struct Row<'a> {
    run: usize,
    message: &'a Message,
}

impl Session {
    /// Pings a connection that was idle, since the server or a pooler may have closed it: the messages
    /// of the call would be lost with it.
    async fn is_alive(&self) -> bool {
        // A connection in use is checked by its user.
        let Ok(mut first) = self.connections[0].try_lock() else { return true };
        match first.as_mut() {
            Some(first) => first.is_alive().await,
            None => false,
        }
    }

    /// Returns a connection that nobody uses, if there is one or can be; else waits for the first.
    async fn free(&self, options: &PgConnectOptions) -> MutexGuard<'_, Option<Connection>> {
        for slot in &self.connections {
            let Ok(mut slot) = slot.try_lock() else { continue };
            if let Some(connection) = slot.as_mut()
                && connection.is_alive().await
            {
                return slot;
            }
            *slot = None;
            if !self.full.load(Relaxed) {
                let connected = timeout(IDLE, options.connect()).await;
                *slot = connected.ok().and_then(Result::ok).map(|connection| Connection(connection, Instant::now()));
                self.full.store(slot.is_none(), Relaxed);
            }
            if slot.is_some() {
                return slot;
            }
        }
        self.connections[0].lock().await
    }
}

impl Connection {
    async fn is_alive(&mut self) -> bool {
        self.1.elapsed() < IDLE || timeout(IDLE, self.0.ping()).await.is_ok_and(|answer| answer.is_ok())
    }
}

/// Inserts rows, those of a run in their order, and adds their receipts. If one is at fault, retries with halves of the list
/// until it is alone; nothing of its run follows it.
async fn insert(connection: &mut PgConnection, table: &str, rows: Vec<Row<'_>>, receipts: &mut [Vec<Receipt>]) {
    let mut parts = vec![rows];
    while let Some(part) = parts.pop() {
        let part: Vec<Row<'_>> = part.into_iter().filter(|row| goes_on(&receipts[row.run])).collect();
        if part.is_empty() {
            continue;
        }
        let receipt = match insert_rows(connection, table, &part).await {
            Ok(conflicts) => {
                for (n, row) in part.into_iter().enumerate() {
                    receipts[row.run].push(Ok(if conflicts.contains(&n) {
                        reject(format!("inbox \"{table}\" has another message with this id"))
                    } else {
                        Outcome::Sent
                    }));
                }
                continue;
            }
            Err(Fault::Row(_)) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second.to_vec(), first.to_vec()]);
                continue;
            }
            Err(Fault::Row(reason)) => Ok(reject(format!("inbox \"{table}\" refuses the row: {reason}"))),
            Err(Fault::Table(reason)) => Ok(Outcome::retry(format!("inbox \"{table}\": {reason}"))),
            Err(Fault::Connection(failure)) => Err(failure),
        };
        // After the connection has failed, nothing else is tried on it.
        let left = if receipt.is_err() { std::mem::take(&mut parts) } else { Vec::new() };
        for row in part.into_iter().chain(left.into_iter().rev().flatten()) {
            if goes_on(&receipts[row.run]) {
                receipts[row.run].push(receipt.clone());
            }
        }
    }
}

/// Returns which of the rows were not inserted, since the table has another message under their id.
async fn insert_rows(connection: &mut PgConnection, table: &str, rows: &[Row<'_>]) -> Result<HashSet<usize>, Fault> {
    let messages = || rows.iter().map(|row| row.message);
    let ids: Vec<Option<&str>> = messages().map(|row| row.id.as_deref()).collect();
    let keys: Vec<Option<&str>> = messages().map(|row| row.key.as_deref()).collect();
    let types: Vec<Option<&str>> = messages().map(|row| row.content_type.as_deref()).collect();
    let headers: Vec<String> = messages().map(headers).collect();
    let bodies: Vec<&[u8]> = messages().map(|row| row.body.as_slice()).collect();
    let has_order = rows.windows(2).any(|pair| pair[0].run == pair[1].run);
    let table = quoted(table);
    let insert = format!(
        "INSERT INTO {table} (id, key, content_type, headers, body) \
         SELECT i, k, c, h::jsonb, b FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[]) AS m (i, k, c, h, b) \
         ON CONFLICT (id) DO NOTHING"
    );
    let others = format!(
        "SELECT m.n - 1 FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS m (i, b, n) JOIN {table} t ON t.id = m.i \
         WHERE t.body IS DISTINCT FROM m.b"
    );
    // In a transaction, and without a prepared statement that stays: a pooler may reassign the connection.
    let inserted = async {
        let mut transaction = connection.begin().await?;
        let query = sqlx::query(AssertSqlSafe(insert)).bind(&ids).bind(keys).bind(types).bind(headers).bind(&bodies);
        let inserted = query.persistent(false).execute(&mut *transaction).await?.rows_affected();
        let mut conflicts = HashSet::new();
        if inserted < rows.len() as u64 {
            let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(others)).bind(&ids).bind(&bodies);
            let found = query.persistent(false).fetch_all(&mut *transaction).await?;
            conflicts.extend(found.into_iter().filter_map(|n| usize::try_from(n).ok()));
        }
        // What follows a conflict in its run must not be inserted.
        if has_order && !conflicts.is_empty() {
            transaction.rollback().await?;
            return Ok(Err(Fault::Row("another message has an id of theirs".into())));
        }
        transaction.commit().await.map(|()| Ok(conflicts))
    };
    inserted.await.map_err(|error| fault(&error)).flatten()
}

/// Returns the outcome of a message that an inbox cannot take; `None` if it can.
fn unsupported(message: &Message) -> Option<Outcome> {
    let parts: Vec<&str> = message.destination.split('.').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty() || part.contains('\0')) {
        return Some(reject(format!(
            "destination {:?} is not a table; write \"table\" or \"schema.table\"",
            message.destination
        )));
    }
    // PostgreSQL would cut a longer name, and use another table.
    if let Some(fault) = parts.iter().find_map(|part| at_most(63, "PostgreSQL", "the name of a table", part).err()) {
        return Some(fault);
    }
    if let Some((name, _)) = message.options.iter().find(|(name, _)| name.starts_with("inbox.")) {
        return Some(reject(format!("an inbox has no option \"{name}\"")));
    }
    message.id.is_none().then(|| reject("the message has no `id`, which an inbox requires"))
}

/// Quotes a table's name, and that of its schema, for SQL.
fn quoted(table: &str) -> String {
    let parts: Vec<String> = table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// Returns the headers as a JSON object; values of the same name are joined, as in HTTP.
fn headers(message: &Message) -> String {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &message.headers {
        let entry = headers.entry(name).or_default();
        *entry = if entry.is_empty() { value.clone() } else { format!("{entry}, {value}") };
    }
    serde_json::json!(headers).to_string()
}

fn state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}

fn fault(error: &sqlx::Error) -> Fault {
    let Some(code) = state(error) else {
        return match error {
            sqlx::Error::Encode(error) => Fault::Row(error.to_string()),
            error => Fault::Connection(broken(format!("PostgreSQL: {error}"))),
        };
    };
    let said = error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    match (code.as_str(), &code[..code.len().min(2)]) {
        ("42P01" | "42703" | "42P10" | "3F000", _) => {
            Fault::Table(format!("{said}; create the table as the book's page on buses shows"))
        }
        // Data, constraints, limits, and exceptions of triggers.
        (_, "22" | "23" | "54" | "44") | ("P0001", _) => Fault::Row(said),
        (_, "42") => Fault::Table(said),
        _ => Fault::Connection(outage(format!("PostgreSQL: {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_quoted() {
        assert_eq!(quoted("shop.in\"box; DROP"), "\"shop\".\"in\"\"box; DROP\"");
        for destination in ["", "a.b.c", ".a", "a."] {
            let message = Message { destination: destination.into(), id: Some("1".into()), ..Message::default() };
            assert!(unsupported(&message).is_some(), "{destination}");
        }
    }

    #[test]
    fn headers_of_one_name_are_joined() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let message = Message { headers: vec![pair("a", "1"), pair("b", "\""), pair("a", "2")], ..Message::default() };
        assert_eq!(headers(&message), r#"{"a":"1, 2","b":"\""}"#);
    }
}
