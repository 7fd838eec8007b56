//! Redis and Valkey streams: a message becomes an entry of the stream that its destination names.
//!
//! A message must never count as sent before the server has answered. `shared_connection` connects;
//! `instrumented` measures and redacts. `server` is a single server, or the master that `sentinels` name, and
//! `cluster` many servers; `entry` is what they are sent, `access` how they are reached.

mod access;
mod cluster;
mod entry;
mod sentinels;
mod server;

use tokio::time::Instant;

use super::{Bus, ConnectionConfig, Receipt, ReceivingRuns, Run, refuse_options};
use access::{Access, Address};
use cluster::Cluster;
use entry::together;
use sentinels::Sentinels;
use server::{Place, Server};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to Redis, shared by all calls.
pub(super) struct Redis(Servers);

enum Servers {
    One(Server),
    Cluster(Cluster),
}

impl Redis {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        const REPLICAS: &str = "replicas";
        refuse_options("Redis", config)?;
        let replicas = config.query(REPLICAS).unwrap_or_else(|| "0".into());
        let replicas = replicas.parse().map_err(|_| format!("`?{REPLICAS}={replicas}` is not a number"))?;
        let path = config.url.path();
        let servers = |port| {
            let parsed = config.servers(port).into_iter().map(|server| {
                let (host, port) = server.rsplit_once(':')?;
                Some(Address::new(host, port.parse().ok()?))
            });
            parsed.collect::<Option<Vec<_>>>().ok_or("a server has an invalid port")
        };
        match config.url.scheme().split_once('-').map(|(_, kind)| kind) {
            None => {
                config.refuse_unknown(&[REPLICAS])?;
                let endpoint = Access::new(config, path)?.to(servers(6379)?.remove(0))?;
                Ok(Self(Servers::One(Server::new(Place::Known(endpoint), replicas))))
            }
            Some("sentinel") => {
                config.refuse_unknown(&[REPLICAS, "sentinel_username", "sentinel_password"])?;
                let sentinels = Sentinels::new(config, servers(26379)?)?;
                Ok(Self(Servers::One(Server::new(Place::Master(sentinels), replicas))))
            }
            Some(_) => {
                config.refuse_unknown(&[REPLICAS])?;
                if !["", "/", "/0"].contains(&path) {
                    return Err(format!("{}:// takes no path: a cluster has only database 0", config.url.scheme()));
                }
                Ok(Self(Servers::Cluster(Cluster::new(Access::new(config, "")?, servers(6379)?, replicas)?)))
            }
        }
    }

    /// Publishes runs, each by one command.
    async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        match &self.0 {
            Servers::Cluster(cluster) => cluster.send(runs, deadline).await,
            Servers::One(server) => {
                let sent: Vec<Run<'_>> = runs.iter().copied().filter(|run| !run.is_empty()).collect();
                let mut answers = server.send(&sent, false, deadline).await?.into_iter();
                let told = |run: &Run<'_>| {
                    let first = run.first()?;
                    Some(answers.next()?.unwrap_or_else(|_| vec![Ok(elsewhere(first))]))
                };
                Ok(runs.iter().map(told).map(Option::unwrap_or_default).collect())
            }
        }
    }

    async fn send_in_order(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let has_slots = matches!(self.0, Servers::Cluster(_));
        let parts: Vec<Run<'_>> = runs.iter().map(|run| &run[..together(run, has_slots)]).collect();
        self.send(&parts, deadline).await
    }
}

impl Bus for Redis {
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send_in_order(runs, deadline))
    }
}

fn elsewhere(message: &Message) -> Outcome {
    let stream = &message.destination;
    Outcome::retry(format!("stream \"{stream}\" is on another node of a cluster: begin the URL with redis-cluster://"))
}
