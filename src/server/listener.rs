//! The listening socket, and a word for those who are too many.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::event_loop::Server;
use crate::error::{Error, Kind, Result};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds and listens.
///
/// # Errors
/// An address that cannot be resolved or is taken.
pub fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    let fail = |e: io::Error| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => "; another server is there: give --port",
            _ => "",
        };
        Error::new(Kind::Io, format!("cannot listen on {host} port {port}: {e}{hint}"))
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port).to_socket_addrs().map_err(fail)?.next();
    let address = address.ok_or_else(|| fail(io::ErrorKind::AddrNotAvailable.into()))?;
    let listener = listen(address).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((TcpListener::from_std(listener), bound))
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Tells a client that there are too many, without keeping it.
pub fn turn_away(mut socket: &mio::net::TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
        Content-Length: 114\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
        {\"error\": {\"message\": \"too many connections\", \
        \"type\": \"service_unavailable_error\", \"param\": null, \"code\": 503}}  \n";
    // Best effort: a fresh socket has room for it, and there is nobody to tell otherwise.
    let _ = socket.write(FULL);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

impl Server {
    /// Gives up the spare descriptor for a moment to tell one client that there are too many.
    pub(super) fn out_of_files(&mut self) {
        self.reserve = None;
        if let Some(Ok((socket, _))) = self.listener.as_ref().map(TcpListener::accept) {
            self.stats.connections_refused += 1;
            turn_away(&socket);
        }
        self.reserve = std::fs::File::open("/dev/null").ok();
    }
}
