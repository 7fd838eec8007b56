//! The `wasi:http` interfaces: outgoing requests to granted origins.
//!
//! A request must never leave for an origin that is not granted, and a secret is inserted only after
//! that check. `client` keeps the connections and checks addresses.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use http_body_util::{BodyDataStream, BodyExt as _, StreamBody};
use url::{Host, Url};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types as bindings;
use wasmtime_wasi_http::p2::bindings::http::types::Host as _;
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

pub use super::client::check_authorities;
use super::client::{CONNECT, Unreachable, Unresolved};
pub(super) use super::client::{Client, Clients};
use super::endpoints::{HttpOrigin, undotted};
use super::logs::PluginContext;
use signalbus_telemetry as telemetry;

/// Default time limit for a response, and for each further part of its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum size of one `wasi:http` write; a body up to this size is buffered whole.
const CHUNK: usize = 1 << 20;

/// Sends the requests of one instance.
struct OutgoingHttp(PluginContext);

/// The HTTP part of a store's state.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    outgoing: OutgoingHttp,
}

impl Http {
    pub(super) fn new(context: PluginContext) -> Self {
        Self { ctx: WasiHttpCtx::new(), outgoing: OutgoingHttp(context) }
    }

    /// Returns the view that the bindings work on.
    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table, ctx: &mut self.ctx }
    }
}

/// Links the interfaces of `wasi:http` that plugins may import.
pub(super) fn add_to_linker<T: WasiHttpView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    bindings::add_to_linker::<T, WasiHttp>(linker, &bindings::LinkOptions::default(), T::http)?;
    add_outgoing_handler(linker)
}

/// Links the outgoing handler. The guest gives its options away, but wasmtime-wasi-http 48 keeps them
/// in the table, where they would count as the guest's resources; so they are deleted here.
fn add_outgoing_handler<T: WasiHttpView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    type Given = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
    let handle = |mut store: StoreContextMut<'_, T>, (request, options): Given| {
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
        if !self.0.grants.http.contains(&origin) {
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
            let filled = self.0.grants.fill_in(text).map_err(|name| {
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
        deny(&self.0, reason);
    }
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
        let outgoing = self.outgoing(request);
        let client = self.0.client.clone();
        let context = self.0.clone();
        Box::new(async move {
            let client = client.ok_or(Error::HttpRequestDenied)?;
            match send(&client, outgoing?, options.unwrap_or_default()).await {
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
) -> Result<http::Response<WasiBody>, Failure> {
    // On a connection that is already open, the whole time is left for the response.
    let connect = options.connect_timeout.unwrap_or(CONNECT);
    let answer = connect.saturating_add(options.first_byte_timeout.unwrap_or(PATIENCE));
    let Ok(response) = tokio::time::timeout(answer, client.execute(request)).await else {
        return Err(Failure::Other(Error::HttpResponseTimeout));
    };
    let pause = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response: http::Response<reqwest::Body> = response.map_err(failure)?.into();
    Ok(response.map(|body| timed(body, pause)))
}

/// Wraps a body, which then fails if it pauses for longer than `pause`.
fn timed(body: reqwest::Body, pause: Duration) -> WasiBody {
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        let frame: Result<Frame<Bytes>, Error> = match tokio::time::timeout(pause, body.frame()).await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => Ok(frame),
            Ok(Some(Err(error))) => Err(failure(error).into()),
            Err(_) => Err(Error::ConnectionReadTimeout),
        };
        let rest = frame.is_ok().then_some(body);
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
