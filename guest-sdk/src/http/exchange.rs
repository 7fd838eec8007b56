//! Exchanges over `wasi:http`, many in flight at once.
//!
//! A plugin has one thread, so all exchanges are polled in one loop, which must never wait for a single
//! one. `http` defines requests and responses.

use super::{Answer, Error, Request, Requests, Response};
use std::time::Duration;
use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// Maximum number of bytes read from a body at once.
const CHUNK: u64 = 64 << 10;

/// Sends all requests, at most `at_most` concurrently, and waits for all responses.
pub(crate) fn exchange(requests: &mut dyn Requests, at_most: usize) {
    let mut flying: Vec<Exchange> = Vec::new();
    loop {
        while flying.len() < at_most
            && let Some((index, request)) = requests.next()
        {
            match Exchange::begin(request, index) {
                Ok(exchange) => flying.push(exchange),
                Err(error) => requests.answered(index, Err(error)),
            }
        }
        if flying.is_empty() {
            break;
        }
        wait(&flying);
        let now = monotonic_clock::now();
        flying.retain_mut(|exchange| {
            let answer = exchange.step().or_else(|| (exchange.deadline <= now).then_some(Err(Error::Timeout)));
            let goes_on = answer.is_none();
            answer.into_iter().for_each(|answer| requests.answered(exchange.index, answer));
            goes_on
        });
    }
}

/// Waits until an exchange can proceed, or has run out of time.
fn wait(flying: &[Exchange]) {
    let deadline = flying.iter().map(|exchange| exchange.deadline).min().unwrap_or_default();
    let timer = monotonic_clock::subscribe_instant(deadline);
    let mut pollables: Vec<&Pollable> = flying.iter().flat_map(Exchange::pollables).collect();
    pollables.push(&timer);
    poll(&pollables);
}

/// A request in flight.
struct Exchange {
    index: usize,
    deadline: u64,
    limit: usize,
    upload: Option<Upload>,
    stage: Stage,
}

enum Stage {
    Waiting(Waiting),
    Reading(Reading),
}

/// Fields are dropped in this order: a child resource must be dropped before its parent.
struct Waiting {
    ready: Pollable,
    future: FutureIncomingResponse,
}

/// Fields are dropped in this order, too.
struct Reading {
    ready: Pollable,
    stream: InputStream,
    _body: IncomingBody,
    response: Response,
}

impl Exchange {
    fn begin(request: Request, index: usize) -> Result<Self, Error> {
        let outgoing = outgoing(&request)?;
        let (deadline, limit) = (monotonic_clock::now().saturating_add(nanoseconds(request.timeout)), request.limit);
        let options = options(request.timeout);
        let mut upload = Upload::from_bytes(request.body, &outgoing)?;
        // A body that fits into the relay's buffer is written before the request starts.
        if upload.as_mut().is_some_and(|upload| upload.step()) {
            upload.take().map_or(Ok(()), Upload::finish)?;
        }
        let future = handle(outgoing, Some(options)).map_err(error)?;
        Ok(Self { index, deadline, limit, upload, stage: Stage::Waiting(Waiting { ready: future.subscribe(), future }) })
    }

    fn pollables(&self) -> impl Iterator<Item = &Pollable> {
        let ready = match &self.stage {
            Stage::Waiting(Waiting { ready, .. }) | Stage::Reading(Reading { ready, .. }) => ready,
        };
        std::iter::once(ready).chain(self.upload.as_ref().map(|upload| &upload.ready))
    }

    /// Proceeds as far as possible without waiting; returns the answer once it is complete.
    fn step(&mut self) -> Option<Answer> {
        if self.upload.as_mut().is_some_and(Upload::step)
            && let Some(Err(error)) = self.upload.take().map(Upload::finish)
        {
            return Some(Err(error));
        }
        loop {
            match &mut self.stage {
                Stage::Waiting(waiting) => match waiting.future.get()? {
                    Ok(Ok(response)) => match Reading::begin(response) {
                        Ok(reading) => self.stage = Stage::Reading(reading),
                        Err(response) => return Some(Ok(response)),
                    },
                    Ok(Err(code)) => return Some(Err(error(code))),
                    Err(()) => return Some(Err(Error::Broken("there is no response".to_owned()))),
                },
                Stage::Reading(reading) => {
                    let over = reading.step(self.limit);
                    return over.then(|| Ok(std::mem::replace(&mut reading.response, Response::new(0))));
                }
            }
        }
    }
}

impl Reading {
    /// Starts reading a response's body.
    ///
    /// # Errors
    /// Returns the response itself if it has no body.
    fn begin(incoming: IncomingResponse) -> Result<Self, Response> {
        let headers = incoming.headers().entries().into_iter();
        let headers = headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
        let response = Response { status: incoming.status(), headers, body: Vec::new(), truncated: false };
        let Ok(body) = incoming.consume() else { return Err(response) };
        let Ok(stream) = body.stream() else { return Err(response) };
        Ok(Self { ready: stream.subscribe(), stream, _body: body, response })
    }

    /// Reads the available bytes; returns `true` at the end of the body.
    fn step(&mut self, limit: usize) -> bool {
        let response = &mut self.response;
        loop {
            match self.stream.read(CHUNK) {
                Ok(bytes) if bytes.is_empty() => return false,
                Ok(bytes) if response.body.is_empty() && bytes.len() <= limit => response.body = bytes,
                Ok(bytes) => {
                    let room = limit.saturating_sub(response.body.len());
                    response.truncated = bytes.len() > room;
                    response.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    if response.truncated {
                        return true;
                    }
                }
                Err(StreamError::Closed) => return true,
                Err(StreamError::LastOperationFailed(_)) => {
                    response.truncated = true;
                    return true;
                }
            }
        }
    }
}

/// A request body that is being sent.
struct Upload {
    ready: Pollable,
    stream: OutputStream,
    body: OutgoingBody,
    bytes: Vec<u8>,
    written: usize,
}

impl Upload {
    fn from_bytes(bytes: Vec<u8>, request: &OutgoingRequest) -> Result<Option<Self>, Error> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let refused = |()| Error::Invalid("a body is not allowed".to_owned());
        let body = request.body().map_err(refused)?;
        let stream = body.write().map_err(refused)?;
        Ok(Some(Self { ready: stream.subscribe(), stream, body, bytes, written: 0 }))
    }

    /// Writes as much as possible; returns `true` once all is written, or the server stops reading.
    fn step(&mut self) -> bool {
        while self.written < self.bytes.len() {
            let Ok(room) = self.stream.check_write() else { return true };
            if room == 0 {
                return false;
            }
            let end = self.bytes.len().min(self.written.saturating_add(usize::try_from(room).unwrap_or(usize::MAX)));
            if self.stream.write(&self.bytes[self.written..end]).is_err() {
                return true;
            }
            self.written = end;
        }
        true
    }

    /// Finishes the body. If the server stopped reading early, it may still respond.
    fn finish(self) -> Result<(), Error> {
        let Self { ready, stream, body, bytes, written } = self;
        drop(ready);
        drop(stream);
        if written == bytes.len() { OutgoingBody::finish(body, None).map_err(error) } else { Ok(()) }
    }
}

fn outgoing(request: &Request) -> Result<OutgoingRequest, Error> {
    let invalid = |what: &str| Error::Invalid(what.to_owned());
    let mut headers: Vec<(String, Vec<u8>)> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec())).collect();
    if !request.body.is_empty() || matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
        headers.retain(|(name, _)| name != "content-length");
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let headers = Fields::from_list(&headers).map_err(|fault| Error::Invalid(format!("invalid header: {fault}")))?;
    let (scheme, rest) = request.url.split_once("://").ok_or_else(|| invalid("the URL has no scheme"))?;
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ => return Err(invalid("the URL starts with neither https:// nor http://")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let outgoing = OutgoingRequest::new(headers);
    outgoing.set_method(&method(&request.method)).map_err(|()| invalid("invalid method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| invalid("invalid scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| invalid("the URL has no valid host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| invalid("the URL has no valid path"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Sets the limit of each part to that of the whole exchange, which `exchange` enforces.
fn options(timeout: Duration) -> RequestOptions {
    let (options, timeout) = (RequestOptions::new(), Some(nanoseconds(timeout)));
    // A relay that does not support a limit applies its own.
    let _ = options.set_connect_timeout(timeout);
    let _ = options.set_first_byte_timeout(timeout);
    let _ = options.set_between_bytes_timeout(timeout);
    options
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn error(code: ErrorCode) -> Error {
    let unreachable = |cause: &str| Error::Unreachable(cause.to_owned());
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Error::Denied,
        ErrorCode::DnsError(payload) => Error::Unreachable(payload.rcode.unwrap_or_else(|| "no such host".to_owned())),
        ErrorCode::DnsTimeout => unreachable("name lookup timed out"),
        ErrorCode::DestinationNotFound => unreachable("no such host"),
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => unreachable("no route to it"),
        ErrorCode::ConnectionRefused => unreachable("connection refused"),
        ErrorCode::ConnectionTimeout => unreachable("connection timed out"),
        ErrorCode::ConnectionLimitReached => unreachable("too many connections"),
        ErrorCode::TlsCertificateError => unreachable("its certificate is not trusted"),
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => unreachable("TLS handshake failed"),
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionReadTimeout | ErrorCode::ConnectionWriteTimeout => Error::Timeout,
        ErrorCode::HttpRequestUriInvalid => Error::Invalid("invalid URL".to_owned()),
        ErrorCode::HttpRequestMethodInvalid => Error::Invalid("invalid method".to_owned()),
        ErrorCode::ConnectionTerminated => Error::Broken("closed by the server".to_owned()),
        ErrorCode::HttpResponseHeaderSectionSize(_) => Error::Broken("the head of the response is too large".to_owned()),
        ErrorCode::HttpProtocolError => Error::Broken("the response is not HTTP".to_owned()),
        ErrorCode::InternalError(Some(cause)) => Error::Broken(cause),
        other => Error::Broken(other.to_string()),
    }
}
