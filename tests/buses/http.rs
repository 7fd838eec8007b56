//! HTTP as a bus: the plugin `webhook`, against a server with bad manners.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::refusal::{FEW_AND_MANY, Refusal, refused_by};
use crate::harness::target;

/// The ids of the requests that were accepted.
type Arrived = Arc<Mutex<Vec<String>>>;

/// Starts a server which treats each request as the field `customer` of its body says; returns its port.
async fn rude(arrived: Arrived) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, arrived.clone()));
        }
    });
    port
}

/// Answers the requests of a connection, until one of them ends it.
async fn serve(stream: TcpStream, arrived: Arrived) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        match body["customer"].as_str().unwrap() {
            "invalid" => stream.write_all(b"HTTP/1.1 422 no\r\ncontent-length: 9\r\n\r\nno such x").await?,
            "crash" => return stream.get_ref().set_zero_linger(),
            "close" => return Ok(()),
            "endless" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"more: of the same, and again\r\n").await?;
                }
            }
            "nonsense" => return stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            _ => {
                let id = header("webhook-id").unwrap();
                arrived.lock().unwrap().push(id.replacen("orderplaced", "OrderPlaced", 1));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let arrived = Arrived::default();
    let url = format!("http://127.0.0.1:{}", rude(arrived.clone()).await);
    let (grants, settings) = (format!("http = ['{url}']"), format!("url = '{url}/'\nsigned = false\n"));
    for (bad, words) in [
        ("customer = 'invalid'", "the server answered 422: no such x"),
        ("customer = 'crash'", "connection broke: closed by the server"),
        ("customer = 'close'", "connection broke: closed by the server"),
        ("customer = 'endless'", "connection broke: the head of the response is too large"),
        ("customer = 'nonsense'", "connection broke: the response is not HTTP"),
    ] {
        let refusal = Refusal { settings: &settings, good: "lane = lane", bad, words };
        let seen = async || arrived.lock().unwrap().clone();
        refused_by(&target().join("plugins/webhook.wasm"), &grants, &refusal, &FEW_AND_MANY, seen).await;
    }
}
