//! The certificates that all buses trust: the system's, and those of the configuration.
//!
//! Verification must never be turned off. Each bus with TLS takes its trusted certificates from here.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Installs the cryptography provider for all clients that leave the choice open. Can be called again.
pub(super) fn provide() {
    // An error means that one is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns the TLS configuration of a client; `ca` is PEM.
///
/// # Errors
/// `ca` contains no certificate.
pub(super) fn client(ca: Option<&str>) -> Result<ClientConfig, String> {
    provide();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca.map(certificates).transpose()?.unwrap_or_default() {
        roots.add(certificate).map_err(|error| format!("`ca`: {error}"))?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Tries a TLS handshake with a server, and returns in words why it fails. Client libraries say little about it, and not
/// the same. `None` if it succeeds, or if the server cannot be reached.
pub(super) async fn explain(host: &str, port: u16, ca: Option<&str>, patience: Duration) -> Option<String> {
    let name = host.to_owned().try_into().ok()?;
    let connector = TlsConnector::from(Arc::new(client(ca).ok()?));
    let deadline = Instant::now() + patience;
    let stream = timeout_at(deadline, TcpStream::connect((host, port))).await.ok()?.ok()?;
    let Ok(connected) = timeout_at(deadline, connector.connect(name, stream)).await else {
        return Some(format!("{host}:{port} does not answer a TLS handshake within {patience:?}"));
    };
    let error = connected.err()?;
    let plain = || format!("{host}:{port} does not seem to speak TLS");
    Some(match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(fault)) => match fault {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate of {host}:{port} is for another name than \"{host}\"")
            }
            CertificateError::UnknownIssuer => format!("the authority of the certificate of {host}:{port} is unknown: set `ca`"),
            fault => format!("the certificate of {host}:{port} is not valid: {fault}"),
        },
        Some(Error::InvalidMessage(_)) => plain(),
        Some(other) => format!("TLS handshake with {host}:{port}: {other}"),
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => plain(),
        None => return None,
    })
}

/// Returns the trusted certificates as PEM, for clients that would otherwise trust `ca` alone.
///
/// # Errors
/// `ca` contains no certificate.
pub(super) fn roots(ca: &str) -> Result<String, String> {
    let own = certificates(ca)?;
    let mut text = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs.iter().chain(&own) {
        let base64 = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for at in (0..base64.len()).step_by(64) {
            let _ = writeln!(text, "{}", &base64[at..base64.len().min(at + 64)]);
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

fn certificates(ca: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err("`ca` contains no certificate".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("`ca`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_certificates_are_refused() {
        for ca in ["", "x", "-----BEGIN CERTIFICATE-----\nAA=A\n-----END CERTIFICATE-----\n"] {
            assert!(client(Some(ca)).is_err() && roots(ca).is_err(), "{ca}");
        }
        assert!(client(None).is_ok());
    }
}
