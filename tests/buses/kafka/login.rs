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
use crate::harness::command::send;
use crate::harness::relay::Running;
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
    /// Its tokens are for so many seconds.
    fn start(seconds: u32) -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        certificates(folder.path());
        let begun = Instant::now();
        // Now and then it neither listens nor ends.
        loop {
            if let Some(process) = Self::tried(port, folder.path(), seconds) {
                return Self { process, port, folder };
            }
            assert!(begun.elapsed() < PATIENCE, "the provider does not start: {}", log(folder.path()));
        }
    }

    /// Starts it; `None` if it does not listen for long.
    fn tried(port: u16, folder: &Path, seconds: u32) -> Option<Child> {
        let server = target().join("tools/oidc/server.js");
        assert!(server.exists(), "{} is missing: run `make servers` first", server.display());
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("node");
        command
            .arg(server)
            .args([port.to_string().as_ref(), folder.as_os_str(), seconds.to_string().as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
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

    /// The number of tokens that it has given.
    fn given(&self) -> usize {
        log(self.folder.path()).matches("a token is given").count()
    }

    /// A server of Kafka's that takes its tokens, at a second port, and a connection for as long as its token.
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
            "listener.name.sasl_ssl.ssl.client.auth=required\nconnections.max.reauth.ms=3600000".into(),
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

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A provider whose tokens are for so many seconds, a server of Kafka's that takes them, and at which port.
async fn provided(seconds: u32) -> (Provider, Broker, u16) {
    let started = tokio::task::spawn_blocking(move || {
        let provider = Provider::start(seconds);
        let (broker, login) = provider.broker();
        (provider, broker, login)
    });
    started.await.unwrap()
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
    let (mut provider, broker, login) = provided(60).await;
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
    // Without a provider, or one that answers, nobody is refused, and nothing is charged.
    let without = with("hidden%20treasure", &certificate) + "\ntimeout = '5s'";
    send(&provider.process, "STOP");
    Shop::small(&without, &topic.destination()).await.cannot(69, &["/token: no token within 1.7 s"]).await;
    provider.process.kill().unwrap();
    Shop::small(&without, &topic.destination()).await.cannot(69, &["/token"]).await;
}

/// The server closes connections whose token has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_followed_by_another() {
    // (What Kafka's client has of it, is more than a second, for which its server wants no second login.)
    let (provider, broker, login) = provided(20).await;
    let topic = Topic { servers: broker.url(), name: "orders".into() };
    topic.create(&[]).await;
    let connection = provider.connection(login, "hidden%20treasure", &provider.certificate());
    let shop = Shop::with(1, &connection, &topic.destination()).await;
    let mut relay = Running::spawn(&shop.database, &shop.sections, "");
    let mut rows = 1;
    while provider.given() < 3 {
        relay.wait_empty(&shop.database, "order_placed").await;
        rows += 1;
        shop.database.run(&format!("INSERT INTO order_placed VALUES ({rows}, 'c', 'p')")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    relay.wait_empty(&shop.database, "order_placed").await;
    assert_eq!(relay.stop(), Some(0));
    assert!(!relay.witness.text().contains("misconfigured"), "{}", relay.witness.text());
    assert_eq!((topic.records().len(), shop.reasons("retry").await), (rows, vec![]));
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
