//! A network that can be broken: forwards connections to a server until it is cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Forwards connections to a port of this machine.
pub struct Proxy {
    pub port: u16,
    wire: Arc<Wire>,
}

struct Wire {
    target: AtomicU16,
    state: AtomicU8,
    streams: Mutex<Vec<TcpStream>>,
}

const WHOLE: u8 = 0;
/// Nothing passes and no connection ends, as if packets were lost.
const SILENT: u8 = 1;

impl Proxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::new(Wire { target: target.into(), state: AtomicU8::new(WHOLE), streams: Mutex::default() });
        let shared = wire.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let wire = shared.clone();
                std::thread::spawn(move || wire.connect(client));
            }
        });
        Self { port, wire }
    }

    /// Sends new connections to another port, and closes the open ones.
    pub fn redirect(&self, target: u16) {
        self.wire.target.store(target, Ordering::SeqCst);
        self.reset();
    }

    /// Closes every connection.
    pub fn reset(&self) {
        for stream in self.wire.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops all traffic, as if a cable were pulled.
    pub fn cut(&self) {
        self.wire.state.store(SILENT, Ordering::SeqCst);
    }

    /// Resumes traffic, held-up data included.
    pub fn mend(&self) {
        self.wire.state.store(WHOLE, Ordering::SeqCst);
    }
}

impl Wire {
    fn connect(self: Arc<Self>, client: TcpStream) {
        self.wait();
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target.load(Ordering::SeqCst))) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let (back_from, back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let wire = self.clone();
        std::thread::spawn(move || wire.pump(back_from, back_to));
        self.pump(client, server);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait();
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn wait(&self) {
        while self.state.load(Ordering::SeqCst) == SILENT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
