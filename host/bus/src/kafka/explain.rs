//! Why the servers do not confirm messages: the client library tries again by itself, and then only says that time is up.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use tokio::runtime::Handle;

use super::drop_in_thread::DropInThread;
use super::events::ClientEvents;

/// Returns which partition of a topic has too few replicas in sync. Blocks, for up to twice the patience.
pub(super) fn replicas(
    settings: &ClientConfig,
    events: ClientEvents,
    topic: &str,
    patience: Duration,
    runtime: &Handle,
) -> Option<String> {
    let admin: DropInThread<AdminClient<ClientEvents>> = DropInThread::new(settings.create_with_context(events).ok()?);
    let admin = admin.get()?;
    let options = AdminOptions::new().request_timeout(Some(patience));
    let described = runtime.block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
    let config = described.ok()?.pop()?.ok()?;
    let needed: usize = config.get("min.insync.replicas")?.value.as_ref()?.parse().ok()?;
    let metadata = admin.inner().fetch_metadata(Some(topic), patience).ok()?;
    let partitions = metadata.topics().first()?.partitions();
    let short = partitions.iter().min_by_key(|partition| partition.isr().len())?;
    let (id, found, all) = (short.id(), short.isr().len(), short.replicas().len());
    (found < needed).then(|| {
        format!(
            "topic \"{topic}\" takes messages with {needed} replicas in sync (`min.insync.replicas`): partition {id} has {found} of {all}"
        )
    })
}
