//! A server, or the master that sentinels name: its connection, and what it answers to a pipeline.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::shared_connection::SharedConnection;
use super::super::{Failure, IDLE, Receipt, Run, outage};
use super::access::{Address, Endpoint, words};
use super::entry::{Answer, Limits, add, classify, failure, is_outage};
use super::sentinels::Sentinels;
use signalbus_core::signal::{Outage, Outcome};

/// A server, with one connection that all calls share.
pub(super) struct Server {
    place: Place,
    /// How many replicas must have a message until it counts as sent.
    replicas: u32,
    connection: SharedConnection<Session>,
}

/// How a server is found, whenever the relay connects.
pub(super) enum Place {
    Known(Endpoint),
    Master(Sentinels),
}

/// A connection to a server.
pub(super) struct Session {
    address: Address,
    connection: MultiplexedConnection,
    limits: Limits,
    /// When the server last answered.
    answered: Mutex<Instant>,
}

impl Server {
    pub(super) fn new(place: Place, replicas: u32) -> Self {
        Self { place, replicas, connection: SharedConnection::default() }
    }

    async fn connect(&self) -> Result<Session, Outage> {
        match &self.place {
            Place::Known(endpoint) => Session::begin(endpoint, endpoint.connect().await?).await,
            Place::Master(sentinels) => sentinels.connect().await,
        }
    }

    async fn session(&self, deadline: Instant) -> Result<Arc<Session>, Outage> {
        let session = self.connection.get(|_| true, self.connect(), deadline).await?;
        if session.is_alive().await {
            return Ok(session);
        }
        self.connection.lose(&session).await;
        self.connection.get(|_| true, self.connect(), deadline).await
    }

    /// Publishes messages, those of each run by one command; `asking` tells the node of a cluster that a stream is just
    /// moving to it.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    pub(super) async fn send(&self, runs: &[Run<'_>], asking: bool, deadline: Instant) -> Result<Vec<Answer>, Outage> {
        let session = self.session(deadline).await?;
        let answers = session.publish(runs, asking, self.replicas, deadline).await;
        let receipts: Vec<Receipt> = answers.iter().flatten().flatten().cloned().collect();
        self.connection.end_call(&session, &receipts, true).await;
        Ok(answers)
    }

    /// Asks the server something, and returns its answer and its address.
    ///
    /// # Errors
    /// There is no connection; the inner one is the server's answer.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        question: &Cmd,
        deadline: Instant,
    ) -> Result<(RedisResult<T>, Address), Outage> {
        let session = self.session(deadline).await?;
        let answer = timeout_at(deadline, question.query_async(&mut session.connection.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        if answer.as_ref().is_err_and(RedisError::is_io_error) {
            self.connection.lose(&session).await;
        }
        Ok((answer, session.address.clone()))
    }
}

impl Session {
    /// Asks a server to which there is a connection for its limits.
    ///
    /// # Errors
    /// The server refuses the login, or cannot be used now.
    pub(super) async fn begin(endpoint: &Endpoint, mut connection: MultiplexedConnection) -> Result<Self, Outage> {
        // The defaults of Redis, where the user may not ask.
        let longest = setting(endpoint, &mut connection, "proto-max-bulk-len").await?.unwrap_or(512 << 20);
        let total = setting(endpoint, &mut connection, "client-query-buffer-limit").await?.unwrap_or(1 << 30);
        let address = endpoint.address.clone();
        Ok(Self { address, connection, limits: Limits { longest, total }, answered: Mutex::new(Instant::now()) })
    }

    /// Pings a connection that was idle: the server may have closed it or restarted, and the messages of
    /// the call would be lost.
    async fn is_alive(&self) -> bool {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.elapsed() < IDLE {
            return true;
        }
        let (ping, mut connection) = (redis::cmd("PING"), self.connection.clone());
        timeout(IDLE, ping.exec_async(&mut connection)).await.is_ok_and(|answer| !answer.is_err_and(|error| error.is_io_error()))
    }

    async fn publish(&self, runs: &[Run<'_>], asking: bool, replicas: u32, deadline: Instant) -> Vec<Answer> {
        let mut pipeline = Pipeline::with_capacity(runs.len());
        let mut add = |run: &Run<'_>| add(&mut pipeline, run, asking, self.limits);
        let added: Vec<Result<usize, Outcome>> = runs.iter().map(&mut add).collect();
        let told = self.answers(pipeline, replicas, deadline).await;
        let (told, unsure) = told.unwrap_or_else(|failure| (Vec::new(), Some(failure)));
        let mut told = told.into_iter();
        let silent = || outage(format!("Redis at {} did not answer", self.address));
        let mut answer = |run: Run<'_>| match told.next().map(|told| classify(told, run, &self.address)) {
            Some(Ok(mut receipts)) => {
                let sent = receipts.iter_mut().filter(|receipt| **receipt == Ok(Outcome::Sent));
                sent.for_each(|receipt| *receipt = unsure.clone().map_or(Ok(Outcome::Sent), Err));
                Ok(receipts)
            }
            Some(redirect) => redirect,
            None => Ok(vec![Err(unsure.clone().unwrap_or_else(silent)); run.len()]),
        };
        let answers = added.into_iter().zip(runs).map(|(added, run)| match added {
            Ok(count) => answer(&run[..count]),
            Err(outcome) => Ok(vec![Ok(outcome)]),
        });
        answers.collect()
    }

    /// Returns one answer per entry, and why those that were added may not be kept.
    ///
    /// # Errors
    /// There are no answers.
    async fn answers(
        &self,
        mut pipeline: Pipeline,
        replicas: u32,
        deadline: Instant,
    ) -> Result<(Vec<RedisResult<Value>>, Option<Failure>), Failure> {
        if pipeline.is_empty() {
            return Ok((Vec::new(), None));
        }
        if replicas > 0 {
            // It answers before the time of the call is up.
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            pipeline.cmd("WAIT").arg(replicas).arg(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        let mut connection = self.connection.clone();
        let asked = pipeline.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut connection);
        let answers = timeout_at(deadline, asked).await;
        let answers = answers.map_err(|_| outage(format!("Redis at {} did not answer in time", self.address)))?;
        let mut answers = answers.map_err(|error| failure(&error, &self.address))?;
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let waited = if replicas > 0 { answers.pop() } else { None };
        Ok((answers, waited.and_then(|answer| self.check_replicas(answer, replicas).err())))
    }

    /// Checks what the server says about the replicas that have all of a pipeline.
    ///
    /// # Errors
    /// They are too few: the entries may not outlive the server.
    fn check_replicas(&self, answer: RedisResult<Value>, replicas: u32) -> Result<(), Failure> {
        let address = &self.address;
        match answer.map(|count| u32::from_redis_value(count).unwrap_or(0)) {
            Ok(count) if count >= replicas => Ok(()),
            Ok(count) => Err(outage(format!("Redis at {address}: {count} of {replicas} replicas have confirmed the messages"))),
            Err(error) => Err(outage(format!("Redis at {address}: {} (WAIT)", words(&error)))),
        }
    }
}

/// Returns a setting of the server, if the user may ask for it.
async fn setting(endpoint: &Endpoint, connection: &mut MultiplexedConnection, name: &str) -> Result<Option<usize>, Outage> {
    let mut asked = redis::cmd("CONFIG");
    let answer: RedisResult<Vec<String>> = asked.arg("GET").arg(name).query_async(connection).await;
    match answer {
        Ok(answer) => Ok(answer.get(1).and_then(|text| text.parse().ok())),
        Err(error) if error.code() == Some("NOAUTH") || is_outage(&error) => Err(endpoint.refused(&error)),
        Err(_) => Ok(None),
    }
}
