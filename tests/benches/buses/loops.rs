//! The loops that the relay is compared with: what one writes with sqlx and the bus's own client.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use sqlx::Executor as _;
use tokio::sync::{Mutex, Semaphore};

use super::Bus;
use super::harness::broker::{Broker, Kind};

/// A client of MQTT, and a permit for each message that is acknowledged.
type Mqtt = (AsyncClient, Arc<Semaphore>);

/// A client of each kind, used for throughput as its documentation recommends.
pub enum Sender {
    Rabbitmq(Vec<lapin::Channel>),
    Nats(async_nats::jetstream::Context),
    Redis(redis::aio::MultiplexedConnection),
    Kafka(FutureProducer),
    Mqtt(Vec<Mqtt>),
    Inbox(Vec<Mutex<sqlx::PgConnection>>),
}

impl Sender {
    pub async fn connect(bus: &Bus, loops: usize) -> Self {
        let broker = match bus {
            Bus::Broker(_, broker) => broker,
            Bus::Inbox(database) => {
                let connections = join_all((0..loops).map(|_| database.postgres_connection())).await;
                return Self::Inbox(connections.into_iter().map(Mutex::new).collect());
            }
        };
        match bus {
            Bus::Broker(Kind::Rabbitmq, _) => Self::Rabbitmq(join_all((0..loops).map(|_| rabbitmq(broker))).await),
            Bus::Broker(Kind::Nats, _) => {
                Self::Nats(async_nats::jetstream::new(async_nats::connect(broker.url()).await.unwrap()))
            }
            Bus::Broker(Kind::Kafka, _) => Self::Kafka(kafka(broker)),
            Bus::Broker(Kind::Mosquitto, _) => Self::Mqtt(join_all((0..loops).map(|_| mqtt(broker))).await),
            Bus::Broker(..) | Bus::Inbox(_) => Self::Redis(broker.redis().await),
        }
    }

    /// Publishes all messages, and waits for every confirmation.
    pub async fn send(&self, number: usize, messages: Vec<(String, Vec<u8>)>) {
        match self {
            Self::Rabbitmq(channels) => {
                let mut confirms = Vec::with_capacity(messages.len());
                for (id, body) in &messages {
                    let properties = lapin::BasicProperties::default()
                        .with_delivery_mode(2)
                        .with_content_type("application/json".into())
                        .with_message_id(id.as_str().into());
                    let options = Default::default();
                    confirms.push(
                        channels[number].basic_publish("".into(), "orders".into(), options, body, properties).await.unwrap(),
                    );
                }
                all(confirms
                    .into_iter()
                    .map(|confirm| async { confirm.await.map(|confirmation| assert!(confirmation.is_ack())) }))
                .await;
            }
            Self::Nats(context) => {
                let mut confirms = Vec::with_capacity(messages.len());
                for (id, body) in messages {
                    let mut headers = async_nats::HeaderMap::new();
                    headers.insert("Nats-Msg-Id", id);
                    headers.insert("Content-Type", "application/json");
                    confirms.push(context.publish_with_headers("orders", headers, body.into()).await.unwrap());
                }
                all(confirms.into_iter().map(|confirm| async { confirm.await.map(drop) })).await;
            }
            Self::Redis(connection) => {
                let mut pipeline = redis::pipe();
                for (id, body) in &messages {
                    pipeline.cmd("XADD").arg("orders").arg("*").arg("id").arg(id).arg("content_type").arg("application/json");
                    pipeline.arg("body").arg(body.as_slice());
                }
                let _: Vec<String> = pipeline.query_async(&mut connection.clone()).await.unwrap();
            }
            Self::Kafka(producer) => to_kafka(producer, messages).await,
            Self::Mqtt(clients) => to_mqtt(&clients[number], messages).await,
            Self::Inbox(connections) => {
                let (ids, bodies): (Vec<String>, Vec<Vec<u8>>) = messages.into_iter().unzip();
                let text = "INSERT INTO orders (id, content_type, body) SELECT id, 'application/json', body \
                            FROM unnest($1::text[], $2::bytea[]) t (id, body) ON CONFLICT (id) DO NOTHING";
                connections[number].lock().await.execute(sqlx::query(text).bind(ids).bind(bodies)).await.unwrap();
            }
        }
    }
}

async fn to_kafka(producer: &FutureProducer, messages: Vec<(String, Vec<u8>)>) {
    let mut confirms = Vec::with_capacity(messages.len());
    for (id, body) in &messages {
        let headers = rdkafka::message::OwnedHeaders::new();
        let headers = headers.insert(rdkafka::message::Header { key: "id", value: Some(id) });
        let record = FutureRecord::<str, _>::to("orders").payload(body).headers(headers);
        confirms.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    all(confirms.into_iter().map(|confirm| async { confirm.await.map(|sent| assert!(sent.is_ok(), "{sent:?}")) })).await;
}

async fn to_mqtt((client, acknowledged): &Mqtt, messages: Vec<(String, Vec<u8>)>) {
    let count = messages.len();
    for (id, body) in messages {
        let properties = rumqttc::v5::mqttbytes::v5::PublishProperties {
            content_type: Some("application/json".to_owned()),
            user_properties: vec![("id".to_owned(), id)],
            ..Default::default()
        };
        client.publish_with_properties("orders", QoS::AtLeastOnce, false, body, properties).await.unwrap();
    }
    acknowledged.acquire_many(count as u32).await.unwrap().forget();
}

pub async fn rabbitmq(broker: &Broker) -> lapin::Channel {
    let connection = lapin::Connection::connect(&broker.url(), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    // The connection lives as long as the benchmark.
    std::mem::forget(connection);
    channel
}

pub fn kafka_servers(broker: &Broker) -> rdkafka::ClientConfig {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", broker.url().trim_start_matches("kafka://"));
    config
}

fn kafka(broker: &Broker) -> FutureProducer {
    let mut config = kafka_servers(broker);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
    config.create().unwrap()
}

async fn mqtt(broker: &Broker) -> Mqtt {
    let port = broker.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut options = MqttOptions::new(format!("bench-{}", fastrand::u32(..)), "127.0.0.1", port);
    options.set_clean_start(true).set_outgoing_inflight_upper_limit(1024);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 1024);
    events.poll().await.unwrap();
    let acknowledged = Arc::new(Semaphore::new(0));
    let permits = acknowledged.clone();
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if matches!(event, Event::Incoming(Incoming::PubAck(_))) {
                permits.add_permits(1);
            }
        }
    });
    (client, acknowledged)
}

async fn all<E: std::fmt::Debug>(confirms: impl Iterator<Item = impl Future<Output = Result<(), E>>>) {
    try_join_all(confirms).await.unwrap();
}
