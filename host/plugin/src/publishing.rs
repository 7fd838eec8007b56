//! How much the relay holds of what plugins publish, shared out by signal type.
//!
//! A message is copied out of its guest only when there is room for it, part by part if need be. So what all plugins
//! publish together is bounded, and what one type has under way keeps no other from its share. `producer` sends the parts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmList, WasmStr};

use super::guest::State;
use super::plugin_context::PluginContext;
use super::wit::signalbus::plugin::ordered_producer::Host as _;
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
type List = WasmList<Unlifted>;
type Published = Result<Vec<wit::Outcome>, wit::Outage>;
type PublishedRuns = Result<Vec<Vec<wit::RunOutcome>>, wit::Outage>;

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

/// Puts functions that wait for their share in the place of the generated ones.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut producer = linker.instance("signalbus:plugin/producer@0.1.1")?;
    producer.func_wrap_async("publish", |store: Store<'_>, (messages,): (List,)| {
        Box::new(async move { Ok((publish(store, messages).await?,)) })
    })?;
    let mut producer = linker.instance("signalbus:plugin/ordered-producer@0.1.1")?;
    producer.func_wrap_async("publish-in-order", |store: Store<'_>, (runs,): (WasmList<List>,)| {
        Box::new(async move { Ok((publish_in_order(store, runs).await?,)) })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Publishes messages part by part. An outage is one of the call only if it is one of the first part.
async fn publish(mut store: Store<'_>, messages: List) -> wasmtime::Result<Published> {
    let length = messages.len();
    let mut queue = Queue::new(vec![messages], store.data().most_passed());
    let (mut outcomes, mut unconfirmed) = (Vec::new(), false);
    loop {
        let (_taken, mut part) = match queue.take(&mut store).await? {
            Ok(part) => part,
            Err(outage) if outcomes.is_empty() => return Ok(Err(outage)),
            Err(_) => break,
        };
        let messages = part.pop().map(|(_, messages)| messages).unwrap_or_default();
        match store.data_mut().publish(messages).await? {
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
    store.data_mut().set_unconfirmed(unconfirmed || outcomes.len() < length);
    outcomes.resize_with(length, || Outcome::Held.into());
    Ok(Ok(outcomes))
}

/// Publishes runs of messages part by part. A run of which something was not sent goes no further.
async fn publish_in_order(mut store: Store<'_>, runs: WasmList<List>) -> wasmtime::Result<PublishedRuns> {
    let mut lists = Vec::with_capacity(runs.len());
    while let Some(run) = runs.get(&mut store, lists.len()) {
        lists.push(run?);
    }
    let lengths: Vec<usize> = lists.iter().map(WasmList::len).collect();
    let mut queue = Queue::new(lists, store.data().most_passed());
    let (mut outcomes, mut begun) = (vec![Vec::new(); lengths.len()], false);
    loop {
        let published = match queue.take(&mut store).await? {
            Ok((_taken, part)) => {
                let (numbers, runs): (Vec<usize>, Vec<_>) = part.into_iter().unzip();
                store.data_mut().publish_in_order(runs).await?.map(|runs| (numbers, runs))
            }
            Err(outage) => Err(outage),
        };
        match published {
            Ok((numbers, runs)) => {
                for (n, run) in numbers.into_iter().zip(runs) {
                    if !run.iter().all(|outcome| matches!(outcome, wit::RunOutcome::Sent | wit::RunOutcome::Skip)) {
                        queue.leave(n);
                    }
                    outcomes[n].extend(run);
                }
            }
            Err(outage) if !begun => return Ok(Err(outage)),
            Err(_) => {
                store.data_mut().note_outage();
                break;
            }
        }
        begun = true;
        if queue.is_empty() {
            break;
        }
    }
    for (outcomes, length) in outcomes.iter_mut().zip(lengths) {
        outcomes.resize(length, wit::RunOutcome::Held);
    }
    let held = outcomes.iter().flatten().any(|outcome| matches!(outcome, wit::RunOutcome::Held));
    store.data_mut().set_unconfirmed(held);
    Ok(Ok(outcomes))
}

/// The messages of a call, in lists, from the first that is not published.
struct Queue {
    lists: Vec<List>,
    /// The messages that come next, by their lists and positions, with the units that each takes.
    weighed: VecDeque<(usize, usize, u32)>,
    /// The sum of these units.
    units: u32,
    /// The message behind them.
    next: (usize, usize),
    /// The bytes that the others may have.
    left: usize,
}

/// Messages that were copied out of a guest, by their lists.
type Part = Vec<(usize, Vec<wit::Message>)>;

impl Queue {
    fn new(lists: Vec<List>, most: usize) -> Self {
        Self { lists, weighed: VecDeque::new(), units: 0, next: (0, 0), left: most }
    }

    fn is_empty(&mut self) -> bool {
        self.weighed.is_empty() && self.following().is_none()
    }

    /// Returns the place of the first message that is not weighed.
    fn following(&mut self) -> Option<(usize, usize)> {
        while self.next.1 >= self.lists.get(self.next.0)?.len() {
            self.next = (self.next.0 + 1, 0);
        }
        Some(self.next)
    }

    /// Leaves out the rest of a list.
    fn leave(&mut self, list: usize) {
        self.weighed.retain(|(other, ..)| *other != list);
        self.units = self.weighed.iter().fold(0, |units, (.., weight)| units.saturating_add(*weight));
        if self.next.0 == list {
            self.next = (list + 1, 0);
        }
    }

    fn message(&self, store: &mut Store<'_>, list: usize, n: usize) -> wasmtime::Result<Unlifted> {
        self.lists[list].get(store, n).unwrap_or_else(|| Err(wasmtime::format_err!("a list of messages became shorter")))
    }

    /// Weighs as many messages as a part may have.
    fn weigh(&mut self, store: &mut Store<'_>) -> wasmtime::Result<()> {
        while self.units < LARGEST
            && let Some((list, n)) = self.following()
        {
            let bytes = self.message(store, list, n)?.bytes(store)?;
            // The same bytes may be passed again and again.
            let left = self.left.checked_sub(bytes);
            self.left = left.ok_or_else(|| wasmtime::format_err!("too much data is being copied out of the guest"))?;
            let weight = u32::try_from(1 + (bytes + MESSAGE) / UNIT).unwrap_or(u32::MAX);
            self.weighed.push_back((list, n, weight));
            self.units = self.units.saturating_add(weight);
            self.next = (list, n + 1);
        }
        Ok(())
    }

    /// Waits for room for the next message, and for more as far as there is some, and copies them.
    async fn take(&mut self, store: &mut Store<'_>) -> wasmtime::Result<Result<(Option<Taken>, Part), wit::Outage>> {
        self.weigh(store)?;
        let (context, time) = (store.data().context().clone(), store.data().left_for_calls());
        Ok(match self.room(&context, time).await {
            Ok(taken) => {
                let part = self.part(store, taken.as_ref().map_or(LARGEST, Taken::units))?;
                Ok((taken, part))
            }
            Err(outage) => Err(outage),
        })
    }

    async fn room(&self, context: &PluginContext, time: Duration) -> Result<Option<Taken>, wit::Outage> {
        let Some(share) = &context.publishing else { return Ok(None) };
        let begun = Instant::now();
        let least = self.weighed.front().map_or(1, |(.., weight)| *weight);
        let wait = share.take_some(least, self.units.max(1));
        let taken = tokio::time::timeout(time, wait).await;
        telemetry::waited(&context.signal_type, "publishing", begun.elapsed());
        taken.map_err(|_| {
            let reason = "other messages took the time of the plugin's call".to_owned();
            wit::Outage::Unavailable(wit::Retry { reason, after_ms: None })
        })
    }

    /// Lifts the next messages: at least one, and no more than so many units are for.
    fn part(&mut self, store: &mut Store<'_>, mut room: u32) -> wasmtime::Result<Part> {
        let mut part: Part = Vec::new();
        while let Some(&(list, n, weight)) = self.weighed.front()
            && (part.is_empty() || weight <= room)
        {
            let message = self.message(store, list, n)?.lift(store)?;
            match part.last_mut() {
                Some((last, messages)) if *last == list => messages.push(message),
                _ => part.push((list, vec![message])),
            }
            room = room.saturating_sub(weight);
            self.units = self.units.saturating_sub(weight);
            self.weighed.pop_front();
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
