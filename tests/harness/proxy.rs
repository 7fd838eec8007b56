//! A network that can be broken: forwards connections to a server until it is cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Forwards connections to a port of this machine.
pub struct Proxy {
    pub port: u16,
    wire: Arc<Wire>,
}

struct Wire {
    target: AtomicU16,
    /// Nothing passes, nobody is told: packets are lost.
    silent: Mutex<bool>,
    mended: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        Self::at("127.0.0.1:0", target)
    }

    /// The same, listening on this address.
    pub fn at(address: &str, target: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire =
            Arc::new(Wire { target: target.into(), silent: Mutex::default(), mended: Condvar::new(), streams: Mutex::default() });
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

    /// Sends new connections to another port; the open ones stay.
    pub fn lead(&self, target: u16) {
        self.wire.target.store(target, Ordering::SeqCst);
    }

    /// Closes every connection.
    pub fn reset(&self) {
        for stream in self.wire.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops all traffic, as if a cable were pulled.
    pub fn cut(&self) {
        *self.wire.silent.lock().unwrap() = true;
    }

    /// Resumes traffic, held-up data included.
    pub fn mend(&self) {
        *self.wire.silent.lock().unwrap() = false;
        self.wire.mended.notify_all();
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
        drop(self.mended.wait_while(self.silent.lock().unwrap(), |silent| *silent).unwrap());
    }
}
