from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from flask import Flask, current_app

from servers import Rabbitmq, free_port, wait_until
from signalbus.rabbitmq import (
    ConnectionError,
    Consumer,
    DeliveryError,
    Message,
    MessageProperties,
    Publisher,
    TerminatedConsumption,
    TerminatedConsumtion,
    TimeoutError,
)

NAMES = (f"queue{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def channel(rabbitmq: Rabbitmq) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        yield connection.channel()


@pytest.fixture
def declare(channel: Any) -> Callable[..., str]:
    def queue(**arguments: Any) -> str:
        name = next(NAMES)
        channel.queue_declare(name, arguments=arguments)
        return name

    return queue


def count(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def message(queue: str, body: str, **more: Any) -> Message:
    return Message("", queue, body.encode(), **more)


def test_messages_are_published(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare()
    app = Flask("shop")
    app.config["SIGNALBUS_RABBITMQ_URL"] = rabbitmq.url
    publisher = Publisher(app)
    publisher.publish_messages([])
    publisher.publish_messages([message(queue, str(n)) for n in range(1000)])
    properties = MessageProperties(content_type="text/plain", headers={"a": "b"})
    publisher.publish_messages([message(queue, "last", properties=properties, mandatory=True)], timeout=10)
    assert count(channel, queue) == 1001
    bodies = [channel.basic_get(queue, auto_ack=True) for _ in range(1001)]
    assert [body for _, _, body in bodies[:-1]] == [str(n).encode() for n in range(1000)]
    _, received, body = bodies[-1]
    assert (body, received.content_type, received.headers) == (b"last", "text/plain", {"a": "b"})


def test_each_thread_has_its_connection(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare()
    publisher = Publisher(url=rabbitmq.url)
    threads = [
        threading.Thread(target=lambda: [publisher.publish_messages([message(queue, "x")]) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(channel, queue) == 80


def test_what_no_queue_takes_is_an_error(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare()
    publisher = Publisher(url=rabbitmq.url)
    publisher.publish_messages([message("nowhere", "lost")])
    with pytest.raises(DeliveryError, match="returned messages"):
        publisher.publish_messages([message("nowhere", "lost", mandatory=True), message(queue, "a")])
    publisher.publish_messages([message(queue, "b")])
    assert count(channel, queue) == 2


def test_what_the_broker_refuses_is_an_error(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    publisher = Publisher(url=rabbitmq.url)
    publisher.publish_messages([message(queue, "a")])
    with pytest.raises(DeliveryError, match="received nack"):
        publisher.publish_messages([message(queue, str(n)) for n in range(5)])
    channel.queue_purge(queue)
    publisher.publish_messages([message(queue, "b")])
    assert count(channel, queue) == 1


def test_unknown_exchanges_are_errors(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    publisher = Publisher(url=rabbitmq.url)
    with pytest.raises(ConnectionError, match="no exchange"):
        publisher.publish_messages([Message("nowhere", "key", b"body")])
    queue = declare()
    publisher.publish_messages([message(queue, "a")])
    assert count(channel, queue) == 1


def test_unreachable_brokers_are_errors() -> None:
    publisher = Publisher(url=f"amqp://guest:guest@127.0.0.1:{free_port()}/%2f?retry_delay=0")
    with pytest.raises(ConnectionError):
        publisher.publish_messages([message("a", "b")])
    with pytest.raises(RuntimeError, match="no address"):
        Publisher().publish_messages([])


def test_the_time_is_limited(rabbitmq: Rabbitmq) -> None:
    publisher = Publisher(url=rabbitmq.url)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        publisher.publish_messages([message("a", "b")], timeout=0)
    assert time.monotonic() - begun < 5
    publisher.publish_messages([message("a", "b")], timeout=10)


class Forwarder:
    """Stands between a client and a server, and cuts their connections."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self.listener.getsockname()[1]
        self.ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65536):
                sink.sendall(part)
        except OSError:
            pass

    def cut(self) -> None:
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()

    def close(self) -> None:
        self.cut()
        self.listener.close()


def test_a_lost_connection_is_replaced_once(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare()
    forwarder = Forwarder(rabbitmq.port)
    publisher = Publisher(url=rabbitmq.url.replace(str(rabbitmq.port), str(forwarder.port)))
    publisher.publish_messages([message(queue, "a")])
    forwarder.cut()
    publisher.publish_messages([message(queue, "b")], timeout=10)
    assert count(channel, queue) == 2
    forwarder.cut()
    with pytest.raises(ConnectionError):
        publisher.publish_messages([message(queue, "c")], allow_retry=False)
    forwarder.close()
    assert count(channel, queue) == 2


class Recorder(Consumer):
    """Processes what it is told to by the message itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.processed: list[bytes] = []
        self.gate = threading.Event()

    def process_message(self, body: bytes, properties: MessageProperties) -> bool:
        if body == b"raise":
            raise ValueError("raised")
        if body == b"wait":
            self.gate.wait(10)
        if self.app:
            assert current_app.name == "shop"
        self.processed.append(body)
        return body != b"reject"


def consume(consumer: Consumer) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            consumer.start()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_consumer_takes_its_configuration_from_the_application() -> None:
    consumer = Consumer()
    assert (consumer.url, consumer.queue, consumer.threads) == (None, None, 1)
    assert (consumer.prefetch_size, consumer.prefetch_count) == (0, 1)
    with pytest.raises(RuntimeError, match="SIGNALBUS_RABBITMQ_QUEUE"):
        consumer.start()
    app = Flask("shop")
    app.config.update(MY_URL="amqp://h", MY_QUEUE="q", MY_THREADS=3, MY_PREFETCH_SIZE=4, MY_PREFETCH_COUNT=5)
    consumer = Consumer(app, config_prefix="MY")
    assert (consumer.url, consumer.queue, consumer.threads) == ("amqp://h", "q", 3)
    assert (consumer.prefetch_size, consumer.prefetch_count) == (4, 5)
    consumer = Consumer(app, config_prefix="MY", url="amqp://i", queue="r", threads=6, prefetch_count=7)
    assert (consumer.url, consumer.queue, consumer.threads, consumer.prefetch_count) == ("amqp://i", "r", 6, 7)
    assert TerminatedConsumtion is TerminatedConsumption


@pytest.mark.parametrize("threads", [1, 4])
def test_messages_are_consumed(rabbitmq: Rabbitmq, channel: Any, declare: Any, threads: int) -> None:
    dead = declare()
    queue = declare(**{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    bodies = [str(n) for n in range(200)] + ["reject"]
    Publisher(url=rabbitmq.url).publish_messages([message(queue, body) for body in bodies])
    consumer = Recorder(Flask("shop"), url=rabbitmq.url, queue=queue, threads=threads, prefetch_count=20)
    thread, raised = consume(consumer)
    wait_until(lambda: len(consumer.processed) == 201, "consumed", 20)
    wait_until(lambda: count(channel, dead) == 1, "dead letter", 20)
    consumer.stop()
    thread.join(20)
    assert isinstance(raised[0], TerminatedConsumption)
    assert sorted(consumer.processed) == sorted(body.encode() for body in bodies)
    assert count(channel, queue) == 0


def test_an_exception_stops_the_consumer(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    queue = declare()
    Publisher(url=rabbitmq.url).publish_messages([message(queue, body) for body in ("a", "raise", "b", "c")])
    consumer = Recorder(url=rabbitmq.url, queue=queue, prefetch_count=10)
    with pytest.raises(ValueError, match="raised"):
        consumer.start()
    assert consumer.processed == [b"a"]
    wait_until(lambda: count(channel, queue) == 3, "back in the queue", 20)


def test_stop_finishes_what_is_in_work(rabbitmq: Rabbitmq, channel: Any, declare: Any) -> None:
    """It is a handler for signals, too."""
    queue = declare()
    Publisher(url=rabbitmq.url).publish_messages([message(queue, body) for body in ("wait", "b", "c")])
    consumer = Recorder(url=rabbitmq.url, queue=queue, prefetch_count=10)
    former = signal.signal(signal.SIGTERM, consumer.stop)

    def stop() -> None:
        time.sleep(0.3)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)
        consumer.gate.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(TerminatedConsumption):
            consumer.start()
    finally:
        stopper.join()
        signal.signal(signal.SIGTERM, former)
    assert consumer.processed == [b"wait"]
    wait_until(lambda: count(channel, queue) == 2, "back in the queue", 20)
