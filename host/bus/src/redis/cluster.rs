//! Redis Cluster: each message goes to the node that has the slot of its stream.
//!
//! The nodes are servers like any other, each with a connection and a backoff of its own: one that is down is an outage
//! for the messages of its slots only, unless a call has no others. The pipelines of the library are not used, since
//! they take one slot each, and send everything again, or lose all answers, if a single message is redirected.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use redis::cluster_routing::Slot;
use redis::{FromRedisValue as _, Value};
use tokio::time::Instant;

use super::super::shared_connection::SharedConnection;
use super::super::{Receipt, Run, outage, unavailable};
use super::access::{Access, Address, words};
use super::entry::Answer;
use super::server::{Place, Server};
use signalbus_core::signal::Outage;

/// How often a run is redirected in one call.
const REDIRECTIONS: usize = 5;

/// A connection to a cluster.
pub(super) struct Cluster {
    access: Access,
    replicas: u32,
    /// Those of the URL.
    servers: Vec<Address>,
    /// These, and those that the cluster has named.
    nodes: Mutex<HashMap<Address, Arc<Server>>>,
    slots: SharedConnection<Slots>,
    /// Which node is asked for the slots first: not always the same, which may know less than others.
    turn: AtomicUsize,
}

/// Which node has which slots, as one of the nodes says.
struct Slots {
    masters: Vec<Address>,
    /// Positions in `masters`.
    of_slots: HashMap<Slot, usize>,
    /// That node. It is sent what nobody has: it says why.
    from: Address,
}

/// Where a run goes next, and how.
type Target = (Address, bool);

/// A call: what became of its runs so far.
struct Call<'a> {
    runs: &'a [Run<'a>],
    receipts: Vec<Option<Vec<Receipt>>>,
    /// The positions of the runs to be sent next.
    next: HashMap<Target, Vec<usize>>,
    /// The outages of nodes that got nothing, each with the number of runs.
    refused: Vec<(Outage, usize)>,
    /// Whether the slots are not where they are thought to be.
    moved: bool,
}

impl Cluster {
    /// # Errors
    /// The servers cannot be used.
    pub(super) fn new(access: Access, servers: Vec<Address>, replicas: u32) -> Result<Self, String> {
        let (slots, turn) = (SharedConnection::default(), AtomicUsize::new(0));
        let cluster = Self { access, replicas, servers, nodes: Mutex::default(), slots, turn };
        cluster.servers.iter().try_for_each(|address| cluster.node(address).map(drop))?;
        Ok(cluster)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Server>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the server at this address.
    fn node(&self, address: &Address) -> Result<Arc<Server>, String> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(address) {
            return Ok(node.clone());
        }
        let node = Arc::new(Server::new(Place::Known(self.access.to(address.clone())?), self.replicas));
        nodes.insert(address.clone(), node.clone());
        Ok(node)
    }

    /// Asks the nodes which of them has which slots, until one answers.
    ///
    /// # Errors
    /// None answers.
    async fn find(&self, deadline: Instant) -> Result<Slots, Outage> {
        let mut nodes: Vec<Arc<Server>> = self.nodes().values().cloned().collect();
        let count = nodes.len();
        nodes.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1));
        let mut failed = unavailable("the cluster has no nodes");
        for (asked, node) in nodes.into_iter().enumerate() {
            // One that is silent leaves time to ask the others.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(count - asked).unwrap_or(u32::MAX);
            match Slots::asked(&node, now + share).await {
                Ok(slots) => {
                    self.nodes().retain(|address, _| self.servers.contains(address) || slots.masters.contains(address));
                    return Ok(slots);
                }
                Err(outage) => failed = outage,
            }
        }
        Err(failed)
    }

    /// Publishes runs, each by one command, those for each node in one pipeline, and follows where nodes send them on to.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    pub(super) async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let slots = self.slots.get(|_| true, self.find(deadline), deadline).await?;
        let mut call = Call::new(runs, &slots);
        for _ in 0..=REDIRECTIONS {
            let parts = std::mem::take(&mut call.next);
            if parts.is_empty() {
                break;
            }
            let sent = join_all(parts.iter().map(|(target, part)| self.send_part(target, part, runs, deadline))).await;
            for (part, answers) in parts.values().zip(sent) {
                call.learn(part, answers);
            }
        }
        let (moved, answered) = (call.moved, call.end());
        let nothing = vec![Err(outage("no node got anything"))];
        let receipts = answered.as_ref().map_or(nothing, |answered| answered.concat());
        self.slots.end_call(&slots, &receipts, true).await;
        if moved {
            self.slots.lose(&slots).await;
        }
        answered
    }

    async fn send_part(
        &self,
        (address, asking): &Target,
        part: &[usize],
        runs: &[Run<'_>],
        deadline: Instant,
    ) -> Result<Vec<Answer>, Outage> {
        let node = self.node(address).map_err(unavailable)?;
        let part: Vec<Run<'_>> = part.iter().map(|position| runs[*position]).collect();
        let sent = node.send(&part, *asking, deadline).await;
        sent.map_err(|outage| match outage {
            // A connection does not know whose it would have been.
            Outage::Unavailable { reason, after } if !reason.contains("Redis at") => {
                Outage::Unavailable { reason: format!("Redis at {address}: {reason}"), after }
            }
            other => other,
        })
    }
}

impl Slots {
    async fn asked(node: &Server, deadline: Instant) -> Result<Self, Outage> {
        let (answer, from) = node.ask::<Vec<Vec<Value>>>(redis::cmd("CLUSTER").arg("SLOTS"), deadline).await?;
        let ranges = answer.map_err(|error| match error.detail() {
            Some(detail) if detail.contains("cluster support disabled") => Outage::Misconfigured {
                reason: format!("Redis at {from} is not a node of a cluster: begin the URL with redis://"),
            },
            _ => unavailable(format!("Redis at {from}: {} (CLUSTER SLOTS)", words(&error))),
        })?;
        let mut slots = Self { masters: Vec::new(), of_slots: HashMap::new(), from };
        // What cannot be read is left out: another node knows better.
        for (first, last, master) in ranges.iter().filter_map(|range| parsed(range, &slots.from)).collect::<Vec<_>>() {
            slots.of_slots.extend((first..=last).filter_map(Slot::new).map(|slot| (slot, slots.masters.len())));
            slots.masters.push(master);
        }
        Ok(slots)
    }

    fn node(&self, stream: &str) -> &Address {
        self.of_slots.get(&Slot::for_key(stream)).map_or(&self.from, |master| &self.masters[*master])
    }
}

/// Parses a range of slots: the first and the last, its master, and replicas.
fn parsed(range: &[Value], from: &Address) -> Option<(u16, u16, Address)> {
    let [first, last, Value::Array(master), ..] = range else { return None };
    let [host, port, ..] = master.as_slice() else { return None };
    let number = |value: &Value| u16::from_redis_value_ref(value).ok();
    let host = Option::<String>::from_redis_value_ref(host).ok()?.filter(|host| host != "?");
    Some((number(first)?, number(last)?, Address::or(host.as_deref(), number(port)?, from)))
}

impl<'a> Call<'a> {
    fn new(runs: &'a [Run<'a>], slots: &Slots) -> Self {
        let mut next: HashMap<Target, Vec<usize>> = HashMap::new();
        for (position, first) in runs.iter().enumerate().filter_map(|(position, run)| Some((position, run.first()?))) {
            next.entry((slots.node(&first.destination).clone(), false)).or_default().push(position);
        }
        Self { runs, receipts: vec![None; runs.len()], next, refused: Vec::new(), moved: false }
    }

    /// Learns what a node has answered for the runs at these positions.
    fn learn(&mut self, part: &[usize], answers: Result<Vec<Answer>, Outage>) {
        match answers {
            Ok(answers) => {
                for (position, answer) in part.iter().zip(answers) {
                    match answer {
                        Ok(receipts) => self.receipts[*position] = Some(receipts),
                        Err(redirect) => {
                            self.moved |= !redirect.asking;
                            self.next.entry((redirect.node, redirect.asking)).or_default().push(*position);
                        }
                    }
                }
            }
            Err(refused) => {
                let (Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) = &refused;
                part.iter().for_each(|position| self.receipts[*position] = Some(vec![Err(outage(reason))]));
                self.refused.push((refused, part.len()));
            }
        }
    }

    /// Returns the receipts.
    ///
    /// # Errors
    /// No node got anything.
    fn end(mut self) -> Result<Vec<Vec<Receipt>>, Outage> {
        if self.refused.iter().map(|(_, count)| count).sum::<usize>() == self.runs.iter().filter(|run| !run.is_empty()).count()
            && let Some((refused, _)) = self.refused.pop()
        {
            return Err(refused);
        }
        let lost = |run: &Run<'_>| vec![Err(outage("the nodes of the cluster send a message back and forth")); run.len()];
        Ok(self.receipts.into_iter().zip(self.runs).map(|(receipts, run)| receipts.unwrap_or_else(|| lost(run))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_known_by_their_address_or_by_who_says_so() {
        let text = |text: &str| Value::BulkString(text.into());
        let range = |host: Value| {
            let (first, last, port) = (Value::Int(0), Value::Int(5460), Value::Int(7001));
            [first, last, Value::Array(vec![host, port, text("id")]), Value::Array(vec![text("replica"), Value::Int(1)])]
        };
        let from = Address::new("from", 1);
        for (host, address) in [(text("a"), "a:7001"), (text(""), "from:7001"), (Value::Nil, "from:7001")] {
            let (first, last, master) = parsed(&range(host), &from).unwrap();
            assert_eq!((first, last, master.to_string().as_str()), (0, 5460, address));
        }
        assert!(parsed(&[Value::Int(0)], &from).is_none());
    }
}
