//! Binding: one socket a thread for each address, all with SO_REUSEPORT, so that the kernel spreads the connections.
//!
//! Always true:
//! - All sockets of an address have the same real port, also for port 0.
//! - A port that anybody else listens on is an error that names the address. SO_REUSEPORT alone would let two nodes of one
//!   user share a port silently, so each address is first bound without it.
//! - An IPv6 address means IPv6 only: `0.0.0.0` and `[::]` may stand beside one another.
//!
//! Not here: accepting (`accept`).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenConfig;

/// Connections that the kernel holds for a socket until they are accepted. Linux caps it by `net.core.somaxconn`.
const BACKLOG_MAX: i32 = 4096;

/// Why the node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, maybe another node, listens there.
    #[error("listen on {address}: the port is in use by another process (another brim, maybe)")]
    AddrInUse {
        /// The address as configured.
        address: SocketAddr,
    },
    /// No right to listen there.
    #[error("listen on {address}: not permitted (ports below 1024 need the capability CAP_NET_BIND_SERVICE)")]
    Denied {
        /// The address as configured.
        address: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("listen on {address}: this machine does not have that address")]
    NotLocal {
        /// The address as configured.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("listen on {address}: {source}")]
    Io {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// The address as configured.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::AddrInUse { address }
            | Self::Denied { address }
            | Self::NotLocal { address }
            | Self::Io { address, .. } => *address,
        }
    }

    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddrInUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Io { address, source },
        }
    }
}

/// Bound sockets for all threads.
#[derive(Debug)]
pub struct Listeners {
    threads: Vec<ThreadListeners>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
}

/// The sockets of one thread.
#[derive(Debug, Default)]
pub struct ThreadListeners {
    pub(super) sockets: Vec<BoundSocket>,
}

/// One socket, listening.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) listener: TcpListener,
    pub(super) scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Listeners {
    /// Binds all addresses for all threads. Clients can connect from here on; they wait until [`super::serve`] runs.
    pub fn bind(config: &ListenConfig) -> Result<Self, BindError> {
        let thread_count = config.threads.max(1);
        let mut bound = Self {
            threads: std::iter::repeat_with(ThreadListeners::default).take(thread_count).collect(),
            http: Vec::with_capacity(config.http.len()),
            https: Vec::with_capacity(config.https.len()),
        };
        for &address in &config.http {
            let real = bound.bind_on_all_threads(address, Scheme::Http).map_err(|e| BindError::new(address, e))?;
            bound.http.push(real);
        }
        for &address in &config.https {
            let real = bound.bind_on_all_threads(address, Scheme::Https).map_err(|e| BindError::new(address, e))?;
            bound.https.push(real);
        }
        Ok(bound)
    }

    /// The real addresses of `listen.http`, in its order.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The real addresses of `listen.https`, in its order.
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// One for each thread; each goes to a [`super::serve`].
    pub fn into_threads(self) -> Vec<ThreadListeners> {
        self.threads
    }

    fn bind_on_all_threads(&mut self, address: SocketAddr, scheme: Scheme) -> io::Result<SocketAddr> {
        if address.port() != 0 {
            // Fails if anybody listens there. Closed again before the real sockets are bound.
            socket(address)?.bind(&address.into())?;
        }
        let mut real = address;
        for thread in &mut self.threads {
            let socket = socket(real)?;
            socket.set_reuse_port(true)?;
            // Port 0: the kernel picks a port that nobody has, with or without SO_REUSEPORT.
            socket.bind(&real.into())?;
            socket.listen(BACKLOG_MAX)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            real = listener.local_addr()?;
            thread.sockets.push(BoundSocket { listener, scheme });
        }
        Ok(real)
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port whose last connections are in TIME_WAIT may be bound again; one that is listened on may not.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(http: &[&str], threads: usize) -> ListenConfig {
        let http = http.iter().map(|address| address.parse().expect("an address")).collect();
        ListenConfig { http, https: Vec::new(), threads, ..super::super::tests::harness::config() }
    }

    #[test]
    fn port_zero_gives_all_threads_the_same_port() {
        let bound = Listeners::bind(&config(&["127.0.0.1:0", "127.0.0.1:0"], 3)).expect("bound");
        let addresses = bound.http().to_vec();
        assert_eq!(addresses.len(), 2);
        assert_ne!(addresses[0], addresses[1]);
        for thread in bound.into_threads() {
            let real: Vec<_> =
                thread.sockets.iter().map(|socket| socket.listener.local_addr().expect("an address")).collect();
            assert_eq!(real, addresses);
        }
    }

    #[test]
    fn a_port_in_use_is_named_also_when_its_owner_shares_it() {
        let first = Listeners::bind(&config(&["127.0.0.1:0"], 1)).expect("bound");
        let address = first.http()[0];
        let second = Listeners::bind(&config(&[&address.to_string()], 2)).expect_err("in use");
        assert!(matches!(second, BindError::AddrInUse { .. }), "{second:?}");
        assert_eq!(second.address(), address);
        assert!(second.to_string().contains(&address.to_string()), "{second}");
        drop(first);
        Listeners::bind(&config(&[&address.to_string()], 2)).expect("free again");
    }

    #[test]
    fn the_same_address_twice_is_in_use() {
        let free = Listeners::bind(&config(&["127.0.0.1:0"], 1)).expect("bound").http()[0].to_string();
        let twice = Listeners::bind(&config(&[&free, &free], 1)).expect_err("in use");
        assert!(matches!(twice, BindError::AddrInUse { .. }), "{twice:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = Listeners::bind(&config(&["192.0.2.1:0"], 1)).expect_err("TEST-NET-1 is nobody's");
        assert!(matches!(error, BindError::NotLocal { .. }), "{error:?}");
    }
}
