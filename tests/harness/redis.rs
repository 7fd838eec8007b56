//! Several Redis servers: a cluster, and a master and its replicas with their sentinels.

use std::process::Command;
use std::time::{Duration, Instant};

use redis::streams::StreamRangeReply;
use redis::{AsyncTypedCommands as _, FromRedisValue};

use super::PATIENCE;
use super::broker::{Broker, Kind};
use super::server::{free_port, run};

/// A server that writes only what a replica can have, so that a failover finds all of it.
const SAFE: &str = "min-replicas-to-write 1\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1";

/// A cluster: three masters, and replicas of them.
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

impl Cluster {
    /// Three masters without replicas. `more` returns lines for a node's configuration.
    pub async fn of_masters(more: impl Fn() -> String) -> Self {
        let cluster = Self { nodes: (0..3).map(|_| Self::node(&more())).collect() };
        let mut create = cluster.administer(&["create"]);
        run(create.args(cluster.nodes.iter().map(address)).arg("--cluster-yes"));
        cluster.wait("agree", async |cluster| cluster.agree("cluster_slots_ok:16384").await).await;
        cluster
    }

    /// Three masters with a replica each, the first with two, so that one is left when it has become the master.
    pub async fn with_replicas() -> Self {
        let mut cluster = Self::of_masters(|| SAFE.to_owned()).await;
        for master in [0, 0, 1, 2] {
            let id: String = ask(&cluster.nodes[master], &["CLUSTER", "MYID"]).await;
            let replica = Self::node(SAFE);
            let mut add = cluster.administer(&["add-node"]);
            run(add.args([&address(&replica), &address(&cluster.nodes[0]), "--cluster-slave", "--cluster-master-id", &id]));
            cluster.nodes.push(replica);
        }
        for (master, count) in [(0, 2), (1, 1), (2, 1)] {
            let online = format!("min_slaves_good_slaves:{count}\r");
            cluster.wait("replicate", async |cluster| info(&cluster.nodes[master], "replication").await.contains(&online)).await;
        }
        cluster.wait("know all", async |cluster| cluster.agree("cluster_known_nodes:7").await).await;
        cluster
    }

    fn node(more: &str) -> Broker {
        let lines = "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 2000";
        // By default it is at a distance of 10,000, where another server may be.
        Broker::start(Kind::Redis, &format!("{lines}\ncluster-port {}\n{more}", free_port()))
    }

    fn administer(&self, what: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.arg("--cluster").args(what);
        command
    }

    /// Whether all nodes say this about the cluster, and that it is well.
    async fn agree(&self, words: &str) -> bool {
        for node in &self.nodes {
            let info: String = ask(node, &["CLUSTER", "INFO"]).await;
            if !info.contains("cluster_state:ok") || !info.contains(words) {
                return false;
            }
        }
        true
    }

    pub async fn wait(&self, what: &str, done: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self).await {
            assert!(begun.elapsed() < PATIENCE, "the nodes do not {what}: {}", self.nodes[0].log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As it stands in a configuration: the URL of all nodes.
    pub fn url(&self) -> String {
        url("redis-cluster", &self.nodes, "")
    }

    /// Moves so many slots from one master to another.
    pub async fn reshard(&self, from: usize, to: usize, slots: u32) {
        let id = async |node: usize| -> String { ask(&self.nodes[node], &["CLUSTER", "MYID"]).await };
        let (from, to, slots) = (id(from).await, id(to).await, slots.to_string());
        let mut reshard = self.administer(&["reshard", &address(&self.nodes[0]), "--cluster-yes", "--cluster-slots", &slots]);
        reshard.args(["--cluster-from", &from, "--cluster-to", &to]);
        tokio::task::spawn_blocking(move || run(&mut reshard)).await.unwrap();
    }

    /// The position of the master that has this key.
    pub async fn master_of(&self, key: &str) -> usize {
        for (position, node) in self.nodes.iter().enumerate() {
            if ask_any::<u32>(node, &["EXISTS", key]).await.is_ok() {
                return position;
            }
        }
        panic!("no node has \"{key}\"");
    }

    /// A stream that this node has.
    pub async fn stream_at(&self, node: usize) -> String {
        let mut number = 0;
        while ask_any::<u32>(&self.nodes[node], &["EXISTS", &format!("stream-{number}")]).await.is_err() {
            number += 1;
        }
        format!("stream-{number}")
    }

    /// Waits until all nodes say that the cluster is well.
    pub async fn wait_well(&self) {
        self.wait("agree", async |cluster| cluster.agree("cluster_slots_fail:0").await).await;
    }

    /// Waits until this node takes the cluster for down.
    pub async fn wait_down(&self, node: usize) {
        let fails = async |_: &Self| ask::<String>(&self.nodes[node], &["CLUSTER", "INFO"]).await.contains("cluster_state:fail");
        self.wait("notice", fails).await;
    }

    /// Waits until one of these replicas is a master with a replica, and returns it.
    pub async fn wait_replacement(&self, among: &[usize]) -> usize {
        let replaces = async |replica: usize| {
            let told = info(&self.nodes[replica], "replication").await;
            told.contains("role:master") && told.contains("min_slaves_good_slaves:1")
        };
        self.wait("replace the master", async |_| replaces(among[0]).await || replaces(among[1]).await).await;
        if replaces(among[0]).await { among[0] } else { among[1] }
    }

    /// How often the nodes have answered with this error.
    pub async fn errors(&self, code: &str) -> u32 {
        let mut count = 0;
        for node in &self.nodes {
            let stats = info(node, "errorstats").await;
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{code}:count=")).map(str::to_owned));
            count += line.map_or(0, |line| line.trim().parse::<u32>().unwrap());
        }
        count
    }

    /// The ids of all messages in all streams of these nodes, which are masters.
    pub async fn arrived(&self, masters: &[usize]) -> Vec<String> {
        let mut arrived = Vec::new();
        for master in masters {
            arrived.extend(ids_at(&self.nodes[*master], "").await);
        }
        arrived
    }
}

/// A master with two replicas, and three sentinels.
pub struct Watched {
    pub servers: Vec<Broker>,
    pub sentinels: Vec<Broker>,
}

impl Watched {
    pub const SERVERS: &str = "treasure";
    pub const SENTINELS: &str = "s3ntinel";

    pub async fn start() -> Self {
        let (password, own) = (Self::SERVERS, Self::SENTINELS);
        let login = format!("requirepass {password}\nmasterauth {password}\n{SAFE}");
        let mut servers = vec![Broker::start(Kind::Redis, &login)];
        let master = servers[0].port();
        servers.extend((0..2).map(|_| Broker::start(Kind::Redis, &format!("{login}\nreplicaof 127.0.0.1 {master}"))));
        let lines = format!(
            "requirepass {own}\nsentinel sentinel-pass {own}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel auth-pass mymaster {password}\nsentinel down-after-milliseconds mymaster 2000\n\
             sentinel failover-timeout mymaster 10000"
        );
        let sentinels = (0..3).map(|_| Broker::start(Kind::Sentinel, &lines)).collect();
        let watched = Self { servers, sentinels };
        for sentinel in &watched.sentinels {
            let begun = Instant::now();
            loop {
                let state = watched.sentinel(sentinel, &["SENTINEL", "MASTER", "mymaster"]).await;
                if state.contains("num-slaves 2") && state.contains("num-other-sentinels 2") {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{state}: {}", sentinel.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        watched
    }

    /// What a sentinel answers, in one line.
    pub async fn sentinel(&self, sentinel: &Broker, question: &[&str]) -> String {
        let mut connection = connect(sentinel, Self::SENTINELS).await;
        let answer: redis::Value = redis::cmd(question[0]).arg(&question[1..]).query_async(&mut connection).await.unwrap();
        let mut words = Vec::new();
        flatten(&answer, &mut words);
        words.join(" ")
    }

    /// The position of the master, as the sentinels say.
    pub async fn master(&self) -> usize {
        let told = self.sentinel(&self.sentinels[0], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).await;
        self.servers.iter().position(|server| told.ends_with(&format!(" {}", server.port()))).unwrap()
    }

    /// Waits until all sentinels name another master.
    pub async fn wait_other_master(&self, than: usize) {
        let old = format!(" {}", self.servers[than].port());
        for sentinel in &self.sentinels {
            let begun = Instant::now();
            while self.sentinel(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).await.ends_with(&old) {
                assert!(begun.elapsed() < PATIENCE, "{}", sentinel.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// As it stands in a configuration, with these passwords of the servers and of the sentinels, and so many replicas
    /// to wait for.
    pub fn url(&self, servers: &str, sentinels: &str, replicas: u32) -> String {
        let rest = format!("/mymaster?sentinel_password={sentinels}&replicas={replicas}");
        let url = url("redis-sentinel", &self.sentinels, &rest);
        url.replace("://", &format!("://:{servers}@"))
    }

    pub async fn arrived(&self, server: usize) -> Vec<String> {
        ids_at(&self.servers[server], Self::SERVERS).await
    }
}

/// Waits for something in the midst of what does not wait.
pub fn now<T>(awaited: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(awaited))
}

fn address(node: &Broker) -> String {
    format!("127.0.0.1:{}", node.port())
}

fn url(scheme: &str, servers: &[Broker], rest: &str) -> String {
    let servers: Vec<String> = servers.iter().map(address).collect();
    format!("{scheme}://{}{rest}", servers.join(","))
}

fn flatten(value: &redis::Value, words: &mut Vec<String>) {
    match value {
        redis::Value::Array(values) => values.iter().for_each(|value| flatten(value, words)),
        other => words.push(String::from_redis_value_ref(other).unwrap_or_default()),
    }
}

async fn connect(server: &Broker, password: &str) -> redis::aio::MultiplexedConnection {
    let login = if password.is_empty() { String::new() } else { format!(":{password}@") };
    let client = redis::Client::open(server.url().replace("://", &format!("://{login}"))).unwrap();
    let patience = Some(Duration::from_secs(30));
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(patience).set_connection_timeout(patience);
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// What a server without a password answers.
pub async fn ask_any<T: FromRedisValue>(server: &Broker, question: &[&str]) -> redis::RedisResult<T> {
    redis::cmd(question[0]).arg(&question[1..]).query_async(&mut connect(server, "").await).await
}

/// The same, which is no error.
pub async fn ask<T: FromRedisValue>(server: &Broker, question: &[&str]) -> T {
    ask_any(server, question).await.unwrap()
}

async fn info(server: &Broker, section: &str) -> String {
    ask(server, &["INFO", section]).await
}

/// The ids of all messages in all streams of a server.
async fn ids_at(server: &Broker, password: &str) -> Vec<String> {
    let mut connection = connect(server, password).await;
    let mut question = redis::cmd("SCAN");
    question.arg(0).arg("COUNT").arg(1_000_000).arg("TYPE").arg("stream");
    let (_, streams): (u64, Vec<String>) = question.query_async(&mut connection).await.unwrap();
    let mut ids = Vec::new();
    for stream in streams {
        let entries: StreamRangeReply = connection.xrange_all(&stream).await.unwrap();
        ids.extend(entries.ids.iter().map(|entry| String::from_redis_value_ref(&entry.map["id"]).unwrap()));
    }
    ids
}
