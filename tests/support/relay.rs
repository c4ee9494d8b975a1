//! What stands between us and a server and does not let everything through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What it does with what comes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Lets everybody in and says nothing.
    Silent,
    /// An SSH banner without end, a byte every 100 ms.
    Banner,
    /// Nothing more after so many bytes.
    Stall(usize),
    /// A byte a second after so many.
    Drip(usize),
    /// The end after so many.
    Cut(usize),
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicUsize,
    /// Connections that got as far as where it does not go on as usual.
    held: AtomicUsize,
    stopped: AtomicBool,
}

/// The relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// In front of the server at `target`.
    pub fn start(target: &str, way: Way) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let (target, shared) = (target.to_owned(), Arc::clone(&state));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (target, state) = (target.clone(), Arc::clone(&shared));
                std::thread::spawn(move || {
                    // Either side may go whenever it likes.
                    drop(serve(client, &target, way, &state));
                });
            }
        });
        Self { address, state }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Connections that got as far as where it holds them up.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut client: TcpStream, target: &str, way: Way, state: &State) -> std::io::Result<()> {
    let over = || state.stopped.load(Ordering::SeqCst);
    let hold = |client: &TcpStream| {
        state.held.fetch_add(1, Ordering::SeqCst);
        client.set_read_timeout(Some(Duration::from_millis(100)))
    };
    let (limit, drips) = match way {
        Way::Silent | Way::Banner => {
            hold(&client)?;
            if way == Way::Banner {
                client.write_all(b"SSH-2.0-Open")?;
            }
            while !over() {
                std::thread::sleep(Duration::from_millis(100));
                if way == Way::Banner {
                    client.write_all(b"x")?;
                }
            }
            return Ok(());
        }
        Way::Stall(limit) | Way::Cut(limit) => (limit, false),
        Way::Drip(limit) => (limit, true),
    };
    let mut server = TcpStream::connect(target)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Both));
    });
    std::io::copy(&mut Read::take(&mut server, limit as u64), &mut client)?;
    hold(&client)?;
    if let Way::Cut(_) = way {
        return client.shutdown(Shutdown::Both);
    }
    let mut byte = [0];
    while !over() {
        std::thread::sleep(Duration::from_secs(1));
        if drips {
            server.read_exact(&mut byte)?;
            client.write_all(&byte)?;
        }
    }
    Ok(())
}
