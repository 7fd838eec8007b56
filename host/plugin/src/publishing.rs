//! How much the relay holds of what plugins publish, shared out by signal type.
//!
//! A message is copied out of its guest only when there is room for it, part by part if need be. So what all plugins
//! publish together is bounded, and what one type has under way keeps no other from its share. `producer` sends the parts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmList, WasmStr};

use super::guest::State;
use super::logs::PluginContext;
use super::wit::signalbus::plugin::producer::Host as _;
use super::wit::signalbus::plugin::types as wit;
use signalbus_core::signal::Outcome;
use signalbus_shares::Taken;
use signalbus_telemetry as telemetry;

/// The units of which messages take one each, and one more for every [`UNIT`] bytes: 64 MiB together. A client of a bus
/// copies them several times.
pub(super) const UNITS: u32 = 4096;
const UNIT: usize = 16 << 10;
/// No part takes more.
const LARGEST: u32 = UNITS / 2;
/// What a message, a header and an option take beside their content.
const MESSAGE: usize = 512;
const PAIR: usize = 64;

type Store<'a> = StoreContextMut<'a, State>;
type Pairs = WasmList<(WasmStr, WasmStr)>;
type Published = Result<Vec<wit::Outcome>, wit::Outage>;

/// A message that is still in its guest.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Unlifted {
    connection: WasmStr,
    destination: WasmStr,
    key: Option<WasmStr>,
    #[component(name = "content-type")]
    content_type: Option<WasmStr>,
    headers: Pairs,
    body: WasmList<u8>,
    id: Option<WasmStr>,
    options: Pairs,
}

/// Puts a function that waits for its share in the place of the generated one.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut producer = linker.instance("signalbus:plugin/producer@0.1.1")?;
    producer.func_wrap_async("publish", |store: Store<'_>, (messages,): (WasmList<Unlifted>,)| {
        Box::new(async move { Ok((publish(store, messages).await?,)) })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Publishes messages part by part. An outage is one of the call only if it is one of the first part.
async fn publish(mut store: Store<'_>, messages: WasmList<Unlifted>) -> wasmtime::Result<Published> {
    let mut queue = Queue::new(messages, store.data().most_passed());
    let (mut outcomes, mut unconfirmed) = (Vec::new(), false);
    loop {
        queue.weigh(&mut store)?;
        let (context, time) = (store.data().context().clone(), store.data().left_for_calls());
        let taken = match queue.take(&context, time).await {
            Ok(taken) => taken,
            Err(outage) if outcomes.is_empty() => return Ok(Err(outage)),
            Err(_) => break,
        };
        let part = queue.part(&mut store, taken.as_ref().map_or(LARGEST, Taken::units))?;
        match store.data_mut().publish(part).await? {
            Ok(more) => {
                outcomes.extend(more);
                unconfirmed |= store.data().unconfirmed();
            }
            Err(outage) if outcomes.is_empty() => return Ok(Err(outage)),
            Err(_) => break,
        }
        if queue.is_empty() {
            break;
        }
    }
    store.data_mut().set_unconfirmed(unconfirmed || outcomes.len() < queue.messages.len());
    outcomes.resize_with(queue.messages.len(), || Outcome::Held.into());
    Ok(Ok(outcomes))
}

/// The messages of a call, from the first that is not published.
struct Queue {
    messages: WasmList<Unlifted>,
    next: usize,
    /// The units that the next ones take, and their sum.
    weights: VecDeque<u32>,
    units: u32,
    /// The bytes that the others may have.
    left: usize,
}

impl Queue {
    fn new(messages: WasmList<Unlifted>, most: usize) -> Self {
        Self { messages, next: 0, weights: VecDeque::new(), units: 0, left: most }
    }

    fn is_empty(&self) -> bool {
        self.next == self.messages.len()
    }

    fn message(&self, store: &mut Store<'_>, n: usize) -> wasmtime::Result<Unlifted> {
        self.messages.get(store, n).unwrap_or_else(|| Err(wasmtime::format_err!("a list of messages became shorter")))
    }

    /// Weighs as many messages as a part may have.
    fn weigh(&mut self, store: &mut Store<'_>) -> wasmtime::Result<()> {
        while self.units < LARGEST && self.next + self.weights.len() < self.messages.len() {
            let bytes = self.message(store, self.next + self.weights.len())?.bytes(store)?;
            // The same bytes may be passed again and again.
            let left = self.left.checked_sub(bytes);
            self.left = left.ok_or_else(|| wasmtime::format_err!("too much data is being copied out of the guest"))?;
            let weight = u32::try_from(1 + (bytes + MESSAGE) / UNIT).unwrap_or(u32::MAX);
            self.weights.push_back(weight);
            self.units = self.units.saturating_add(weight);
        }
        Ok(())
    }

    /// Waits for room for the next message, and for more as far as there is some.
    async fn take(&self, context: &PluginContext, time: Duration) -> Result<Option<Taken>, wit::Outage> {
        let Some(share) = &context.publishing else { return Ok(None) };
        let begun = Instant::now();
        let least = self.weights.front().copied().unwrap_or(1);
        let wait = share.take_some(least, self.units.max(1));
        let taken = tokio::time::timeout(time, wait).await;
        telemetry::waited(&context.signal_type, "publishing", begun.elapsed());
        taken.map_err(|_| {
            let reason = "other messages took the time of the plugin's call".to_owned();
            wit::Outage::Unavailable(wit::Retry { reason, after_ms: None })
        })
    }

    /// Lifts the next messages: at least one, and no more than so many units are for.
    fn part(&mut self, store: &mut Store<'_>, mut room: u32) -> wasmtime::Result<Vec<wit::Message>> {
        let mut part = Vec::new();
        while let Some(&weight) = self.weights.front()
            && (part.is_empty() || weight <= room)
        {
            part.push(self.message(store, self.next)?.lift(store)?);
            room = room.saturating_sub(weight);
            self.units = self.units.saturating_sub(weight);
            self.weights.pop_front();
            self.next += 1;
        }
        Ok(part)
    }
}

impl Unlifted {
    /// Returns about how many bytes the message takes in the relay.
    fn bytes(&self, store: &mut Store<'_>) -> wasmtime::Result<usize> {
        let texts =
            [Some(&self.connection), Some(&self.destination), self.key.as_ref(), self.content_type.as_ref(), self.id.as_ref()];
        let mut bytes = self.body.len();
        for text in texts.into_iter().flatten() {
            bytes += text.to_str(&*store)?.len();
        }
        for pairs in [&self.headers, &self.options] {
            each(pairs, store, |name, value| bytes += PAIR + name.len() + value.len())?;
        }
        Ok(bytes)
    }

    fn lift(&self, store: &mut Store<'_>) -> wasmtime::Result<wit::Message> {
        let (headers, options) = (lifted(&self.headers, store)?, lifted(&self.options, store)?);
        let text = |text: &WasmStr| text.to_str(&*store).map(String::from);
        Ok(wit::Message {
            connection: text(&self.connection)?,
            destination: text(&self.destination)?,
            key: self.key.as_ref().map(text).transpose()?,
            content_type: self.content_type.as_ref().map(text).transpose()?,
            headers,
            body: self.body.as_le_slice(&*store).to_vec(),
            id: self.id.as_ref().map(text).transpose()?,
            options,
        })
    }
}

fn lifted(pairs: &Pairs, store: &mut Store<'_>) -> wasmtime::Result<Vec<(String, String)>> {
    let mut lifted = Vec::new();
    each(pairs, store, |name, value| lifted.push((name.to_owned(), value.to_owned())))?;
    Ok(lifted)
}

/// Calls a function with each name and value.
fn each(pairs: &Pairs, store: &mut Store<'_>, mut function: impl FnMut(&str, &str)) -> wasmtime::Result<()> {
    for n in 0..pairs.len() {
        let Some(pair) = pairs.get(&mut *store, n) else { break };
        let (name, value) = pair?;
        function(&name.to_str(&*store)?, &value.to_str(&*store)?);
    }
    Ok(())
}
