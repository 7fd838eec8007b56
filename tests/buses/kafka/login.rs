//! Logins by token, from a real OpenID provider.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Topic;
use crate::harness::PATIENCE;
use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{Shop, certificates};
use crate::harness::server::free_port;
use crate::harness::target;

/// The provider, which knows the client `relay` with the secret `hidden treasure`; it ends when dropped.
struct Provider {
    process: Child,
    port: u16,
    /// With `ca.pem`, and with `jwks.json`, the public keys of its tokens.
    folder: TempDir,
}

impl Provider {
    fn start() -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        certificates(folder.path());
        let begun = Instant::now();
        // Now and then it neither listens nor ends.
        loop {
            if let Some(process) = Self::tried(port, folder.path()) {
                return Self { process, port, folder };
            }
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "the provider does not start: {log}");
        }
    }

    /// Starts it; `None` if it does not listen for long.
    fn tried(port: u16, folder: &Path) -> Option<Child> {
        let server = target().join("tools/oidc/server.js");
        assert!(server.exists(), "{} is missing: run `make servers` first", server.display());
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("node");
        command.arg(server).arg(port.to_string()).arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let (mut process, begun) = (command.spawn().unwrap(), Instant::now());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.try_wait().unwrap().is_some() || begun.elapsed() > Duration::from_secs(30) {
                let _ = process.kill();
                process.wait().unwrap();
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(process)
    }

    /// A server of Kafka's that takes its tokens, at a second port.
    fn broker(&self) -> (Broker, u16) {
        const MODULE: &str = "org.apache.kafka.common.security.oauthbearer";
        let (login, folder) = (free_port(), self.folder.path());
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        std::fs::write(folder.join("own.pem"), read("server.key") + &read("server.pem")).unwrap();
        let lines = [
            format!("SASL_SSL://127.0.0.1:{login}"),
            "sasl.enabled.mechanisms=OAUTHBEARER".into(),
            format!("listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={MODULE}.OAuthBearerLoginModule required;"),
            format!(
                "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=\
                 {MODULE}.OAuthBearerValidatorCallbackHandler"
            ),
            format!("sasl.oauthbearer.jwks.endpoint.url=file://{}/jwks.json", folder.display()),
            format!("ssl.keystore.type=PEM\nssl.keystore.location={}/own.pem", folder.display()),
            format!("sasl.oauthbearer.expected.audience=kafka\nsasl.oauthbearer.expected.issuer=https://127.0.0.1:{}", self.port),
            format!("ssl.truststore.type=PEM\nssl.truststore.location={}/ca.pem", folder.display()),
            "listener.name.sasl_ssl.ssl.client.auth=required".into(),
        ];
        (Broker::start(Kind::Kafka, &lines.join("\n")), login)
    }

    /// The connection of a client with this secret; `more` are further options.
    fn connection(&self, login: u16, secret: &str, more: &str) -> String {
        format!(
            "url = 'kafkas://relay:{secret}@127.0.0.1:{login}?mechanism=OAUTHBEARER'\nca = '{}/ca.pem'\n\
             options = {{ \"sasl.oauthbearer.token.endpoint.url\" = 'https://127.0.0.1:{}/token', \
             \"sasl.oauthbearer.scope\" = 'send'{more} }}",
            self.folder.path().display(),
            self.port
        )
    }

    /// The options with a client's certificate.
    fn certificate(&self) -> String {
        let folder = self.folder.path().display();
        format!(", \"ssl.certificate.location\" = '{folder}/server.pem', \"ssl.key.location\" = '{folder}/server.key'")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server wants both: a certificate, and a token.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_a_token_let_in() {
    let (mut provider, broker, login) = tokio::task::spawn_blocking(|| {
        let provider = Provider::start();
        let (broker, login) = provider.broker();
        (provider, broker, login)
    })
    .await
    .unwrap();
    let topic = Topic { servers: broker.url(), name: "orders".into() };
    topic.create(&[]).await;
    let certificate = provider.certificate();
    let with = |secret: &str, more: &str| provider.connection(login, secret, more);
    Shop::small(&with("hidden%20treasure", &certificate), &topic.destination()).await.sends().await;
    assert_eq!(topic.records().len(), 2);
    let wrong = format!("{}\ntimeout = '5s'", with("hunter2", &certificate));
    Shop::small(&wrong, &topic.destination()).await.cannot(78, &["refuses the login", "invalid_client"]).await;
    let unknown = format!("{}\ntimeout = '5s'", with("hidden%20treasure", ""));
    Shop::small(&unknown, &topic.destination()).await.cannot(69, &["certificate"]).await;
    // Without a provider nobody is refused, and nothing is charged.
    provider.process.kill().unwrap();
    let without = provider.connection(login, "hidden%20treasure", &certificate) + "\ntimeout = '5s'";
    Shop::small(&without, &topic.destination()).await.cannot(69, &["/token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_login_by_token_needs_is_named() {
    const ENDPOINT: &str = "\"sasl.oauthbearer.token.endpoint.url\"";
    let at = |login: &str, options: &str| {
        format!("url = 'kafkas://{login}127.0.0.1:9?mechanism=OAUTHBEARER'\noptions = {{ {options} }}")
    };
    let endpoint = format!("{ENDPOINT} = 'https://127.0.0.1:9/token'");
    for (connection, words) in [
        (at("id:secret@", ""), ENDPOINT),
        (at("id:secret@", &format!("{ENDPOINT} = 'http://127.0.0.1:9/token'")), "the https:// URL that gives tokens"),
        (at("id@", &endpoint), "the id and the secret of a client in the URL"),
        (at("id:secret@", &format!("{endpoint}, \"sasl.oauthbearer.client.id\" = 'x'")), "the client in the URL"),
        ("url = 'kafka://127.0.0.1:9?mechanism=AWS_MSK_IAM'".into(), "is for kafkas:// without a user"),
        ("url = 'kafkas://127.0.0.1:9?mechanism=AWS_MSK_IAM'".into(), "name the region of AWS with `&region=`"),
        ("url = 'kafkas://127.0.0.1:9?region=eu-west-1'".into(), "`?region=` is for `?mechanism=AWS_MSK_IAM`"),
        (format!("url = 'kafkas://id:secret@127.0.0.1:9'\noptions = {{ {endpoint} }}"), "is for `?mechanism=OAUTHBEARER`"),
    ] {
        Shop::small(&connection, "destination = 'orders'").await.cannot(78, &[words]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_of_aws_nothing_is_charged() {
    let server = super::Guarded::shared().await;
    let ca = server.certificates.path().join("ca.pem");
    let url = format!("kafkas://127.0.0.1:{}?mechanism=AWS_MSK_IAM&region=eu-west-1", server.secure);
    let connection = format!("url = '{url}'\nca = {ca:?}\ntimeout = '5s'");
    Shop::small(&connection, "destination = 'orders'").await.cannot(69, &["credentials of AWS"]).await;
}
