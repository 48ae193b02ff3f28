//! Free loopback ports below the range from which the system takes ports for outgoing connections.

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a port that is free for TCP and UDP on loopback, and never returns it again.
pub fn free() -> u16 {
    let mut taken = TAKEN.lock().expect("no test panics while it holds the lock");
    let start = std::process::id() as u16 % 10_000;
    for step in 0..12_000u16 {
        let port = 18_000 + (start + step * 7) % 12_000;
        if taken.contains(&port) {
            continue;
        }
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free loopback port between 18000 and 30000");
}
