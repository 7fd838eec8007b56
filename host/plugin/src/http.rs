//! The `wasi:http` interfaces: outgoing requests to granted origins.
//!
//! A request must never leave for an origin that is not granted, and a secret is inserted only after
//! that check. Whatever the relay holds for an instance is bounded. `client` keeps the connections and checks
//! addresses; `budget` bounds what bodies take.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::header::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use http_body_util::{BodyDataStream, BodyExt as _, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types as bindings;
use wasmtime_wasi_http::p2::bindings::http::types::{Host as _, HostOutgoingRequest as HostRequest};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{
    Error, FieldMap, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::budget::{Budget, Budgeted};
pub use super::client::check_authorities;
use super::client::{CONNECT, LONGEST_HEAD, Unreachable, Unresolved};
pub(super) use super::client::{Client, Clients};
use super::descriptors::Held;
use super::endpoints::{HttpOrigin, undotted};
use super::guest::State;
use super::plugin_context::PluginContext;
use signalbus_shares::Taken;
use signalbus_telemetry as telemetry;

/// Default time limit for a response, and for each further part of its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// A time limit that no request reaches.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum size of one `wasi:http` write; a body up to this size is buffered whole.
const CHUNK: usize = 1 << 20;

/// Maximum number of requests that an instance has in flight, until their responses have been read; further
/// ones wait. Also how many it may have prepared and not sent.
const REQUESTS: usize = 256;
/// Maximum size of the headers of a request, with what they take in memory.
const FIELDS: usize = 32 << 10;
/// Maximum size of a method, and of an authority.
const LONGEST_NAME: usize = 4 << 10;
/// The part of an instance's memory that bodies may take in each direction: one in this many.
const BODIES: usize = 4;

/// Sends the requests of one instance.
struct OutgoingHttp {
    context: PluginContext,
    turns: Arc<Semaphore>,
    /// For the bodies and heads of requests.
    sent: Budget,
    /// For the bodies of responses.
    received: Budget,
}

/// What a request holds until its response has been read.
struct Flight {
    _turn: Option<OwnedSemaphorePermit>,
    _descriptor: Option<Held>,
}

/// The HTTP part of a store's state.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    outgoing: OutgoingHttp,
}

impl Http {
    pub(super) fn new(context: PluginContext, memory: usize) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS);
        let [sent, received] = [(); 2].map(|()| Budget::new(memory / BODIES));
        Self { ctx, outgoing: OutgoingHttp { context, turns: Arc::new(Semaphore::new(REQUESTS)), sent, received } }
    }

    /// Returns the budget for the bodies of requests.
    pub(super) fn budget(&self) -> Budget {
        self.outgoing.sent.clone()
    }

    /// Returns the view that the bindings work on.
    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table, ctx: &mut self.ctx }
    }
}

/// Links the interfaces of `wasi:http` that plugins may import.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::add_to_linker::<State, WasiHttp>(linker, &bindings::LinkOptions::default(), State::http)?;
    linker.allow_shadowing(true);
    bound_requests(linker)?;
    linker.allow_shadowing(false);
    add_outgoing_handler(linker)
}

/// Replaces the functions by which a guest makes the relay hold any amount of bytes.
fn bound_requests(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Request = Resource<HostOutgoingRequest>;
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap("[constructor]outgoing-request", |mut store, (headers,): (Resource<FieldMap>,)| {
        let mut view = store.data_mut().http();
        let prepared = view.table.iter_mut().filter(|entry| entry.is::<HostOutgoingRequest>()).count();
        wasmtime::ensure!(prepared < REQUESTS, "more than {REQUESTS} HTTP requests are prepared and not sent");
        Ok((HostRequest::new(&mut view, headers)?,))
    })?;
    types.func_wrap("[method]outgoing-request.set-method", |mut store, (request, method): (Request, bindings::Method)| {
        let is_long = matches!(&method, bindings::Method::Other(name) if name.len() > LONGEST_NAME);
        Ok((if is_long { Err(()) } else { store.data_mut().http().set_method(request, method)? },))
    })?;
    types.func_wrap("[method]outgoing-request.set-authority", |mut store, (request, name): (Request, Option<String>)| {
        let is_long = name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME);
        Ok((if is_long { Err(()) } else { store.data_mut().http().set_authority(request, name)? },))
    })?;
    types.func_wrap("[method]outgoing-body.write", |mut store, (body,): (Resource<HostOutgoingBody>,)| {
        let budget = store.data().http_budget();
        let view = store.data_mut().http();
        let Some(stream) = view.table.get_mut(&body)?.take_output_stream() else { return Ok((Err(()),)) };
        let stream: DynOutputStream = Box::new(Budgeted::new(stream, budget));
        Ok((Ok(view.table.push_child(stream, &body)?),))
    })
}

/// Links the outgoing handler. The guest gives its options away, but wasmtime-wasi-http 48 keeps them
/// in the table, where they would count as the guest's resources; so they are deleted here.
fn add_outgoing_handler(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Given = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
    let handle = |mut store: StoreContextMut<'_, State>, (request, options): Given| {
        let mut view = store.data_mut().http();
        let rep = options.as_ref().map(Resource::rep);
        let response = match view.handle(request, options) {
            Ok(response) => Ok(response),
            Err(error) => Err(view.convert_error_code(error)?),
        };
        if let Some(options) = rep {
            let _gone = view.table.delete(Resource::<RequestOptions>::new_own(options));
        }
        Ok((response,))
    };
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap("handle", handle)
}

type Answer = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl OutgoingHttp {
    /// Converts a request into the one that is sent, if it is granted.
    fn outgoing(&self, request: http::Request<WasiBody>) -> Result<reqwest::Request, Error> {
        let (parts, body) = request.into_parts();
        let url = self.destination(&parts.uri)?;
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = self.headers(parts.headers)?;
        if !body.is_end_stream() {
            *outgoing.body_mut() = Some(reqwest::Body::wrap_stream(BodyDataStream::new(body)));
        }
        Ok(outgoing)
    }

    /// Returns the normalised URL, which is matched against the grants.
    fn destination(&self, uri: &http::Uri) -> Result<Url, Error> {
        let mut url = Url::parse(&uri.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let origin = HttpOrigin::from_url(&url).ok_or(Error::HttpRequestUriInvalid)?;
        if !self.context.grants.http.contains(&origin) {
            self.deny(&format!("\"{origin}\" is not granted: add it to `grants.http`"));
            return Err(Error::HttpRequestDenied);
        }
        if let (Host::Domain(name), Some(_)) = (undotted(origin.host().clone()), url.domain()) {
            url.set_host(Some(&name)).map_err(|_| Error::HttpRequestUriInvalid)?;
        }
        Ok(url)
    }

    /// Replaces the placeholders in headers with secrets.
    fn headers(&self, mut headers: HeaderMap) -> Result<HeaderMap, Error> {
        for value in headers.values_mut() {
            let Ok(text) = std::str::from_utf8(value.as_bytes()) else { continue };
            let filled = self.context.grants.fill_in(text).map_err(|name| {
                self.deny(&format!("a header uses secret \"{name}\", which is not configured: add it to `secrets`"));
                Error::HttpRequestDenied
            })?;
            if filled != text {
                let mut secret = HeaderValue::from_str(&filled).map_err(|_| {
                    self.deny("a secret in a header contains line breaks or control characters: correct it");
                    Error::HttpRequestDenied
                })?;
                secret.set_sensitive(true);
                *value = secret;
            }
        }
        Ok(headers)
    }

    fn deny(&self, reason: &str) {
        deny(&self.context, reason);
    }

    /// Counts the head of a request against the budget.
    fn head(&self, request: &http::Request<WasiBody>) -> Result<OwnedSemaphorePermit, Error> {
        let uri = request.uri();
        let names = request.method().as_str().len()
            + uri.authority().map_or(0, |authority| authority.as_str().len())
            + uri.path_and_query().map_or(0, |path| path.as_str().len());
        self.sent.take(names + size(request.headers())).ok_or_else(|| {
            let reason = "the requests of an instance take more than their part of its memory";
            telemetry::bound_reached(&self.context.signal_type, reason);
            Error::InternalError(Some(reason.to_owned()))
        })
    }
}

/// Returns about how many bytes headers take.
fn size(headers: &HeaderMap) -> usize {
    const EACH: usize = 32;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH).sum()
}

/// Waits for a turn, for a descriptor, and for room for the head of the response, which is held until it has arrived.
async fn begin(turns: Arc<Semaphore>, context: &PluginContext) -> (Flight, Option<Taken>) {
    let turn = turns.acquire_owned().await.ok();
    let descriptor = match &context.descriptors {
        Some(account) => Some(account.wait().await),
        None => None,
    };
    let head = match &context.heads {
        Some(heads) => {
            let begun = Instant::now();
            let head = heads.take(1).await;
            telemetry::waited(&context.signal_type, "response", begun.elapsed());
            head
        }
        None => None,
    };
    (Flight { _turn: turn, _descriptor: descriptor }, head)
}

fn deny(context: &PluginContext, reason: &str) {
    telemetry::denied_because(&context.signal_type, "grants.http", &context.grants.redact(reason));
}

impl WasiHttpHooks for OutgoingHttp {
    /// Returns `false`: the client derives the header from the URL that was checked.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let outgoing = self.head(&request).and_then(|head| Ok((self.outgoing(request)?, head)));
        let (context, turns, received) = (self.context.clone(), self.turns.clone(), self.received.clone());
        Box::new(async move {
            let client = context.client.clone().ok_or(Error::HttpRequestDenied)?;
            let (outgoing, _head) = outgoing?;
            let flight = begin(turns, &context);
            match send(&client, outgoing, options.unwrap_or_default(), flight, received).await {
                Ok(response) => Ok((response, Box::new(async { Ok(()) }) as Box<_>)),
                Err(Failure::Denied(reason)) => {
                    deny(&context, &reason);
                    Err(Error::HttpRequestDenied)
                }
                Err(Failure::Other(error)) => Err(error),
            }
        })
    }
}

enum Failure {
    /// The name resolves to a forbidden address.
    Denied(String),
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Denied(_) => Self::HttpRequestDenied,
            Failure::Other(error) => error,
        }
    }
}

async fn send(
    client: &reqwest::Client,
    request: reqwest::Request,
    options: RequestOptions,
    flight: impl Future<Output = (Flight, Option<Taken>)>,
    received: Budget,
) -> Result<http::Response<WasiBody>, Failure> {
    // On a connection that is already open, the whole time is left for the response.
    let connect = options.connect_timeout.unwrap_or(CONNECT);
    let answer = Instant::now() + connect.saturating_add(options.first_byte_timeout.unwrap_or(PATIENCE)).min(FOREVER);
    let Ok((flight, head)) = timeout_at(answer, flight).await else { return Err(Failure::Other(Error::ConnectionLimitReached)) };
    let Ok(response) = timeout_at(answer, client.execute(request)).await else {
        return Err(Failure::Other(Error::HttpResponseTimeout));
    };
    drop(head);
    let pause = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response: http::Response<reqwest::Body> = response.map_err(failure)?.into();
    let head = u32::try_from(size(response.headers())).unwrap_or(u32::MAX);
    if head > LONGEST_HEAD {
        return Err(Failure::Other(Error::HttpResponseHeaderSectionSize(Some(head))));
    }
    Ok(response.map(|body| timed(body, pause, flight, received)))
}

/// Wraps a body, which then fails if it pauses for longer than `pause`. What has been received of it counts
/// against the budget until the guest reads it.
fn timed(body: reqwest::Body, pause: Duration, flight: Flight, received: Budget) -> WasiBody {
    let frames = stream::unfold(Some((body, flight, received)), move |rest| async move {
        let (mut body, flight, received) = rest?;
        let next = async {
            let frame = match body.frame().await?.map(Frame::into_data) {
                Ok(Ok(data)) => Ok(Frame::data(received.hold(data).await)),
                Ok(Err(trailers)) => Ok(trailers),
                Err(error) => Err(Error::from(failure(error))),
            };
            Some(frame)
        };
        let frame = tokio::time::timeout(pause, next).await.unwrap_or(Some(Err(Error::ConnectionReadTimeout)))?;
        let rest = frame.is_ok().then_some((body, flight, received));
        Some((frame, rest))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Classifies an error by its causes.
fn failure(error: reqwest::Error) -> Failure {
    let causes = || std::iter::successors(Some(&error as &(dyn StdError + 'static)), |error| cause(*error));
    if let Some(denied) = causes().find_map(|cause| cause.downcast_ref::<Unreachable>()) {
        return Failure::Denied(denied.to_string());
    }
    if error.is_timeout() {
        return Failure::Other(if error.is_connect() { Error::ConnectionTimeout } else { Error::HttpResponseTimeout });
    }
    let known = causes().find_map(|cause| {
        if let Some(Unresolved(reason)) = cause.downcast_ref() {
            return Some(Error::DnsError { rcode: Some(reason.clone()), info_code: None });
        }
        if let Some(error) = cause.downcast_ref::<Error>() {
            // The plugin's own body failed.
            return Some(Error::InternalError(Some(error.to_string())));
        }
        match cause.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse_too_large() => return Some(Error::HttpResponseHeaderSectionSize(None)),
            Some(error) if error.is_parse() => return Some(Error::HttpProtocolError),
            _ => {}
        }
        match cause.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(_)) => return Some(Error::TlsCertificateError),
            Some(_) => return Some(Error::TlsProtocolError),
            None => {}
        }
        by_kind(cause.downcast_ref::<io::Error>()?.kind())
    });
    let last = || causes().last().map(ToString::to_string);
    Failure::Other(known.unwrap_or_else(|| match () {
        () if error.is_connect() => Error::ConnectionRefused,
        () if error.is_request() || error.is_body() => Error::ConnectionTerminated,
        () => Error::InternalError(last()),
    }))
}

/// Returns the cause of an error, looking inside I/O errors as well.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn by_kind(kind: io::ErrorKind) -> Option<Error> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Error::ConnectionRefused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Error::DestinationUnavailable),
        io::ErrorKind::TimedOut => Some(Error::ConnectionTimeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Error::ConnectionTerminated),
        _ => None,
    }
}
