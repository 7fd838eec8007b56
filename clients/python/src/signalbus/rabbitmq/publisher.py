"""Publishes lists of messages, and returns when the broker has confirmed all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel
from pika.exceptions import AMQPError

__all__ = ["ConnectionError", "DeliveryError", "Message", "MessageProperties", "Publisher", "TimeoutError"]

MessageProperties = pika.BasicProperties


class Message(NamedTuple):
    """A message. `mandatory`: it is an error if no queue takes it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: MessageProperties | None = None
    mandatory: bool = False


class DeliveryError(Exception):
    """The broker has refused a message, or no queue takes it."""


class ConnectionError(Exception):
    """The broker is unreachable, or the connection was lost before everything was confirmed."""


class TimeoutError(Exception):
    """The broker did not confirm everything in time."""


class Publisher:
    """Publishes through one connection for each thread, opened when it is first needed.

    The address is that of the application's configuration `SIGNALBUS_RABBITMQ_URL` (or another, `url_config_key`), or
    `url`.
    """

    def __init__(
        self, app: Any = None, *, url_config_key: str = "SIGNALBUS_RABBITMQ_URL", url: str | None = None
    ) -> None:
        self.url_config_key = url_config_key
        self._url = url
        self._local = threading.local()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Takes the address from a Flask application's configuration."""
        self._url = app.config[self.url_config_key]

    def publish_messages(
        self, messages: Iterable[Message], *, timeout: float | None = None, allow_retry: bool = True
    ) -> None:
        """Publishes messages, and returns when the broker has confirmed every one of them.

        Raises `DeliveryError`, `ConnectionError` or `TimeoutError` (after `timeout` seconds); some messages may have
        been published nevertheless. A connection that was lost since it was last used is replaced once, unless
        `allow_retry` is false; messages may then be published twice.
        """
        if self._url is None:
            raise RuntimeError("no address: pass `url`, or an application")
        listed = list(messages)
        end = None if timeout is None else time.monotonic() + timeout
        former: _Kept | None = getattr(self._local, "kept", None)
        try:
            self._publish(former or _Kept(self._url), listed, end)
        except ConnectionError:
            if former is None or not allow_retry:
                raise
            self._publish(_Kept(self._url), listed, end)

    def close(self) -> None:
        """Closes the connection of this thread. Those of other threads are closed when these end."""
        self._local.kept = None

    def _publish(self, kept: _Kept, messages: list[Message], end: float | None) -> None:
        """Keeps the connection for the next call only if nothing is left unknown."""
        self._local.kept = None
        try:
            kept.link.publish(messages, end)
        except DeliveryError:
            self._local.kept = kept
            raise
        self._local.kept = kept


class _Kept:
    """Closes a connection when nobody has it any more: its publisher or its thread has gone."""

    def __init__(self, url: str) -> None:
        self.link = _Link(url)

    def __del__(self) -> None:
        if link := self.__dict__.get("link"):
            link.close()


class _Link:
    """A connection with one channel in confirm mode. All of it happens in the thread that calls `publish`."""

    def __init__(self, url: str) -> None:
        self._begin([])
        self._ready = False
        self._lost: BaseException | None = None
        self._channel: Channel | None = None
        self._published = 0
        self._connection = SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
        )
        self._loop: Any = self._connection.ioloop

    def publish(self, messages: list[Message], end: float | None) -> None:
        self._begin(messages)
        timer = None if end is None else self._loop.call_later(max(0.0, end - time.monotonic()), self._expire)
        if self._ready:
            self._loop.add_callback_threadsafe(self._send)
        self._run()
        if timer is not None and self._lost is None:
            self._loop.remove_timeout(timer)
        if self._lost is not None:
            raise ConnectionError(str(self._lost)) from self._lost
        if self._expired:
            raise TimeoutError(f"{len(self._unconfirmed)} messages were not confirmed in time")
        if self._refused or self._returned:
            raise DeliveryError("received nack" if self._refused else "returned messages")

    def close(self) -> None:
        """Closes the connection, without waiting for long."""
        self._expired = False
        self._loop.call_later(1.0, self._expire)
        if not (self._connection.is_closed or self._connection.is_closing):
            self._connection.close()
        while not (self._connection.is_closed or self._expired):
            self._loop.start()
        # The socket is closed in a later round than the connection.
        self._loop.call_later(0, self._loop.stop)
        self._loop.start()
        self._loop.close()

    def _begin(self, messages: list[Message]) -> None:
        self._messages = messages
        self._unconfirmed: set[int] = set()
        self._refused = self._returned = self._expired = False

    def _run(self) -> None:
        """Runs until everything is confirmed, the time is up, or the connection lost."""
        if self._lost is None:
            try:
                self._loop.start()
            except (AMQPError, OSError) as error:
                self._lost = error

    def _opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._failed)
        channel.add_on_return_callback(self._unroutable)
        channel.confirm_delivery(self._confirmed, callback=self._confirming)

    def _confirming(self, _frame: Any) -> None:
        self._ready = True
        self._send()

    def _send(self) -> None:
        assert self._channel is not None
        try:
            for message in self._messages:
                self._channel.basic_publish(
                    message.exchange, message.routing_key, message.body, message.properties, message.mandatory
                )
                self._published += 1
                self._unconfirmed.add(self._published)
        except AMQPError as error:
            self._failed(self._channel, error)
        self._finish()

    def _confirmed(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        self._refused = self._refused or isinstance(frame.method, pika.spec.Basic.Nack)
        confirmed = {number for number in self._unconfirmed if number <= tag} if multiple else {tag}
        self._unconfirmed -= confirmed
        self._finish()

    def _unroutable(self, *_: Any) -> None:
        self._returned = True

    def _expire(self) -> None:
        self._expired = True
        self._loop.stop()

    def _finish(self) -> None:
        if not self._unconfirmed:
            self._loop.stop()

    def _failed(self, _source: Any, reason: BaseException | str) -> None:
        if self._lost is None:
            self._lost = reason if isinstance(reason, BaseException) else AMQPError(reason)
        self._loop.stop()
