//! A network that can be broken, or is narrow: forwards connections to a server until it is cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

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
    /// How many bytes a second pass to the server, those of all connections together.
    rate: Option<u32>,
    /// How long it takes to pass, each way.
    delay: Duration,
    passing: Mutex<()>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        Self::at("127.0.0.1:0", target)
    }

    /// The same, listening on this address.
    pub fn at(address: &str, target: u16) -> Self {
        Self::with(address, target, None, Duration::ZERO)
    }

    /// A network through which so many bytes a second pass to the server; back, any number.
    pub fn narrow(target: u16, rate: u32) -> Self {
        Self::with("127.0.0.1:0", target, Some(rate), Duration::ZERO)
    }

    /// A network through which everything takes so long, each way, and that carries any amount.
    pub fn distant(target: u16, delay: Duration) -> Self {
        Self::with("127.0.0.1:0", target, None, delay)
    }

    fn with(address: &str, target: u16, rate: Option<u32>, delay: Duration) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::new(Wire {
            target: target.into(),
            silent: Mutex::default(),
            mended: Condvar::new(),
            streams: Mutex::default(),
            rate,
            delay,
            passing: Mutex::default(),
        });
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
        std::thread::spawn(move || wire.pump(back_from, back_to, None));
        self.pump(client, server, self.rate);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, rate: Option<u32>) {
        if !self.delay.is_zero() {
            return carry(from, to, self.delay);
        }
        let mut buffer = vec![0; if rate.is_some() { 2 << 10 } else { 64 << 10 }];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait();
            if let Some(rate) = rate {
                let _passing = self.passing.lock().unwrap();
                std::thread::sleep(Duration::from_secs_f64(f64::from(u32::try_from(length).unwrap()) / f64::from(rate)));
            }
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

/// Passes everything on, each part so much later than it came.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
    let back = from.try_clone().unwrap();
    let arrival = std::thread::spawn(move || {
        for (due, bytes) in under_way {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    arrival.join().unwrap();
}
