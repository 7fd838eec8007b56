//! Redis Sentinel: the master is asked for whenever the relay connects.
//!
//! A server that is no longer the master refuses to write, or closes its connections: the relay then asks again.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::super::connection_config::decoded;
use super::super::{ConnectionConfig, unavailable};
use super::access::{Access, Address, Endpoint};
use super::server::Session;
use signalbus_core::signal::Outage;

/// The sentinels that watch over a master, and the access to whichever server that is.
pub(super) struct Sentinels {
    sentinels: Vec<Endpoint>,
    /// The name under which they know it.
    name: String,
    servers: Access,
}

impl Sentinels {
    /// # Errors
    /// The URL names no master, or cannot be used otherwise.
    pub(super) fn new(config: &ConnectionConfig, sentinels: Vec<Address>) -> Result<Self, String> {
        let scheme = config.url.scheme();
        let path = config.url.path().trim_start_matches('/');
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(format!("{scheme}:// needs the name of the master: {scheme}://host:26379/mymaster"));
        }
        let servers = Access::new(config, database)?;
        // The database shows in the access to a server only.
        servers.to(sentinels[0].clone())?;
        let (user, password) = (config.query("sentinel_username"), config.query("sentinel_password"));
        let access = servers.with_login(user.as_deref().unwrap_or_default(), password.as_deref())?;
        let sentinels = sentinels.into_iter().map(|address| access.to(address)).collect::<Result<_, _>>()?;
        Ok(Self { sentinels, name: decoded(name), servers })
    }

    /// Connects to the master that one of the sentinels names: the first that answers, and names one that is.
    ///
    /// # Errors
    /// None does.
    pub(super) async fn connect(&self) -> Result<Session, Outage> {
        let mut asked: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.connect_by(sentinel)).collect();
        let mut outages = Vec::new();
        while let Some(connected) = asked.next().await {
            match connected {
                Ok((master, connection)) => return Session::begin(&master, connection).await,
                Err(outage) => outages.push(outage),
            }
        }
        Err(summary(outages))
    }

    async fn connect_by(&self, sentinel: &Endpoint) -> Result<(Endpoint, MultiplexedConnection), Outage> {
        let (name, address) = (&self.name, &sentinel.address);
        let mut connection = sentinel.connect().await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer: RedisResult<Option<(String, u16)>> = question.query_async(&mut connection).await;
        let Some((host, port)) = answer.map_err(|error| sentinel.refused(&error))? else {
            return Err(Outage::Misconfigured { reason: format!("the sentinel at {address} knows no master \"{name}\"") });
        };
        let master = self.servers.to(Address::new(&host, port)).map_err(unavailable)?;
        let mut connection = master.connect().await?;
        let role: RedisResult<Vec<Value>> = redis::cmd("ROLE").query_async(&mut connection).await;
        match role.as_deref() {
            // Where the user may not ask, it is seen at the first write.
            Ok([Value::BulkString(role), ..]) if role != b"master" => {
                let (role, server) = (String::from_utf8_lossy(role), &master.address);
                Err(unavailable(format!("Redis at {server} is a {role}, but the sentinel at {address} takes it for the master")))
            }
            Err(error) if error.is_io_error() => Err(master.refused(error)),
            _ => Ok((master, connection)),
        }
    }
}

/// Returns what several sentinels said: only if it is all wrong in the configuration, waiting does not help.
fn summary(outages: Vec<Outage>) -> Outage {
    let (mut reasons, mut passes) = (Vec::new(), false);
    for outage in outages {
        passes |= matches!(outage, Outage::Unavailable { .. });
        let (Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) = outage;
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let reason = reasons.join("; ");
    if passes { unavailable(reason) } else { Outage::Misconfigured { reason } }
}
