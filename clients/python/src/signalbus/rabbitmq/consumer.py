"""Consumes a queue in several threads."""

from __future__ import annotations

import functools
import queue
import threading
from typing import Any, NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from .publisher import MessageProperties

__all__ = ["Consumer", "TerminatedConsumption", "TerminatedConsumtion"]


class TerminatedConsumption(Exception):
    """The consumer was stopped. What it had received and not processed goes back to the queue."""


#: As Flask-SignalBus spells it.
TerminatedConsumtion = TerminatedConsumption


class _Delivery(NamedTuple):
    tag: int
    body: bytes
    properties: MessageProperties


class Consumer:
    """Calls `process_message`, which a derived class defines, for every message of a queue.

    url, queue, threads, prefetch_size, prefetch_count
        Each by default what the application's configuration says: `SIGNALBUS_RABBITMQ_URL`, `…_QUEUE` (required),
        `…_THREADS` (1), `…_PREFETCH_SIZE` (0: no limit) and `…_PREFETCH_COUNT` (1): how many messages may be on their
        way and in work.
    config_prefix
        What these names begin with.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        config_prefix: str = "SIGNALBUS_RABBITMQ",
        url: str | None = None,
        queue: str | None = None,
        threads: int | None = None,
        prefetch_size: int | None = None,
        prefetch_count: int | None = None,
    ) -> None:
        self.config_prefix = config_prefix
        self._given = {
            "URL": url,
            "QUEUE": queue,
            "THREADS": threads,
            "PREFETCH_SIZE": prefetch_size,
            "PREFETCH_COUNT": prefetch_count,
        }
        self._stopped = threading.Event()
        self._connection: BlockingConnection | None = None
        self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Takes what was not given to the constructor from a Flask application's configuration."""
        self.app = app
        config = {} if app is None else app.config

        def value(name: str, default: Any = None) -> Any:
            given = self._given[name]
            return config.get(f"{self.config_prefix}_{name}", default) if given is None else given

        self.url: str | None = value("URL")
        self.queue: str | None = value("QUEUE")
        self.threads = max(1, int(value("THREADS", 1)))
        self.prefetch_size = int(value("PREFETCH_SIZE", 0))
        self.prefetch_count = int(value("PREFETCH_COUNT", 1))

    def process_message(self, body: bytes, properties: MessageProperties) -> bool:
        """Returns true if the message was processed; false: it is rejected, and goes where the queue's dead letters go.

        An exception stops the consumer; the message goes back to the queue.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Consumes until `stop` is called, or something fails; it never returns.

        Raises `TerminatedConsumption` after `stop`, what `process_message` raised, or pika's exceptions.
        """
        if not self.url or not self.queue:
            raise RuntimeError(f"{self.config_prefix}_URL and {self.config_prefix}_QUEUE are required")
        with BlockingConnection(pika.URLParameters(self.url)) as connection:
            self._connection = connection
            try:
                self._consume(connection)
            finally:
                self._connection = None

    def stop(self, signum: int | None = None, frame: Any = None) -> None:
        """Has `start` finish the messages in work, and end. A handler for signals; any thread may call it."""
        self._stopped.set()

    def _consume(self, connection: BlockingConnection) -> None:
        channel = connection.channel()
        channel.basic_qos(prefetch_size=self.prefetch_size, prefetch_count=self.prefetch_count)
        works: queue.SimpleQueue[_Delivery | None] = queue.SimpleQueue()
        failures: list[BaseException] = []
        work = functools.partial(self._work, connection, channel, works, failures)
        threads = [threading.Thread(target=work, name=f"signalbus-consumer-{n}") for n in range(self.threads)]
        for thread in threads:
            thread.start()
        try:
            channel.basic_consume(
                self.queue or "",
                lambda _channel, method, properties, body: works.put(
                    _Delivery(method.delivery_tag or 0, body, properties)
                ),
            )
            while not failures and not self._stopped.is_set() and channel.is_open:
                connection.process_data_events(time_limit=0.2)
        finally:
            self._end(connection, works, threads)
        raise failures[0] if failures else TerminatedConsumption

    def _end(self, connection: BlockingConnection, works: Any, threads: list[threading.Thread]) -> None:
        """Lets the threads finish the message that each of them is working on, and passes their answers on."""
        self._stopped.set()
        for _ in threads:
            works.put(None)
        while any(thread.is_alive() for thread in threads):
            if connection.is_open:
                connection.process_data_events(time_limit=0.05)
            else:
                threads[0].join(0.05)
        if connection.is_open:
            connection.process_data_events(time_limit=0)

    def _work(self, connection: BlockingConnection, channel: BlockingChannel, works: Any, failures: list[Any]) -> None:
        while (delivery := works.get()) is not None and not self._stopped.is_set():
            try:
                done = self._process(delivery)
            except BaseException as error:
                failures.append(error)
                return
            answer = channel.basic_ack if done else functools.partial(channel.basic_reject, requeue=False)
            try:
                connection.add_callback_threadsafe(functools.partial(answer, delivery.tag))
            except pika.exceptions.AMQPError:
                # The connection is lost; the broker delivers the message again.
                return

    def _process(self, delivery: _Delivery) -> bool:
        if self.app is None:
            return self.process_message(delivery.body, delivery.properties)
        with self.app.app_context():
            return self.process_message(delivery.body, delivery.properties)
