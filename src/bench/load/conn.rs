//! A connection of the load client.

use std::io::{self, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::exchange::Exchange;
use super::record::Record;

/// How much of a request is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    All,
    Some,
}

/// A socket and what it is used for.
#[derive(Debug)]
pub struct Conn {
    pub stream: TcpStream,
    /// The handshake is over.
    pub connected: bool,
    /// Bytes of the request that are out.
    pub written: usize,
    /// Bytes of the whole request.
    pub length: usize,
    /// The job whose request is in flight, if `exchange` is there.
    pub job: usize,
    pub exchange: Option<Exchange>,
    /// `[DONE]` came and the record is away; only the body's end is awaited.
    pub lingers: bool,
    /// Another request went over it before.
    pub reused: bool,
    /// Tells its deadline from older ones of the same place.
    pub serial: u64,
}

impl Conn {
    pub fn open(registry: &Registry, address: SocketAddr, token: Token) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Conn {
            stream,
            connected: false,
            written: 0,
            length: 0,
            job: 0,
            exchange: None,
            lingers: false,
            reused: false,
            serial: 0,
        })
    }

    /// Writes what is left of `bytes`, as far as the socket takes it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Sent> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(Sent::Some),
                Err(e) => return Err(e),
            }
        }
        while self.written < bytes.len() {
            match self.stream.write(&bytes[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Some),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Sent::All)
    }

    /// The record of the request in flight, if it has not been taken.
    pub fn take_record(&mut self) -> Option<Record> {
        let exchange = self.exchange.take()?;
        (!self.lingers).then_some(exchange.record)
    }
}
