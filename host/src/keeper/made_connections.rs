//! Connections that are made rather than accepted: outbound ones, and those behind a handshake of
//! TLS.

use crate::keeper::acceptor::{Acceptor, DIALED};
use crate::keeper::hand_queue::Announced;
use crate::keeper::handshake_news::Purpose;
use crate::protocol::keeper::{ClientTls, EndpointId, HandshakeWanted};
use greenroom_state::address::Address;
use mio::{Registry, Token};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

impl Acceptor {
    /// Takes in a connection whose handshake is done. Returns its key, to be handed to the worker.
    /// A session has its connection already: the error is that one's number.
    pub(super) fn shaken(&mut self, handshake: u64, fd: OwnedFd, purpose: Purpose) -> Result<u32, u64> {
        let endpoint = match purpose {
            Purpose::Accepted(endpoint) => endpoint,
            Purpose::Dialed(_) => EndpointId::NONE,
            Purpose::Session(connection) => {
                self.handshakes.is_connection(connection, handshake);
                return Err(connection);
            }
        };
        let (key, connection) = self.connections.add(fd, endpoint);
        self.handshakes.is_connection(connection, handshake);
        if let Purpose::Dialed(number) = purpose {
            self.dialer.is_open(connection, number);
        }
        Ok(key)
    }

    /// Begins the handshake of a connection that has a session, unless it is under way or done.
    /// Fails without a descriptor to spare, or if the connection is over.
    pub(super) fn start_tls(
        &mut self,
        (key, number): (u32, u64),
        wanted: HandshakeWanted,
    ) -> Result<(), String> {
        if self.handshakes.is_done(number) {
            return Ok(());
        }
        self.table.room(self.connections.len() + self.handshakes.len())?;
        let fd = self.connections.duplicate(key, number).ok_or("the connection is over")?;
        self.handshakes.begin_for(Purpose::Session(number), fd.map_err(|e| e.to_string())?, wanted);
        Ok(())
    }

    /// Begins an outbound connection that may take `patience`. The error says why it cannot begin.
    /// A number that was dialed before and is open or under way is left alone.
    pub(super) fn dial(
        &mut self,
        registry: &Registry,
        number: u64,
        (addr, over_tls): (Address, Option<ClientTls>),
        patience: Duration,
    ) -> Result<(), String> {
        let room = self.table.room(self.connections.len() + self.handshakes.len());
        room.map_err(|why| format!("{} can't be connected to: {why}", addr.stored_text()))?;
        let token = Token(DIALED + number as usize);
        self.dialer.begin(registry, token, number, (addr, over_tls), patience)
    }

    /// Outcome of an outbound connection that the poll reported: its key once it is open, or why it
    /// failed. `None`: still under way, or its handshake is.
    pub(super) fn dialed(&mut self, registry: &Registry, number: u64) -> Option<Result<u32, String>> {
        let (fd, over_tls) = match self.dialer.outcome(registry, number)? {
            Ok(connected) => connected,
            Err(why) => return Some(Err(why)),
        };
        if let Some(ClientTls { service, server_name }) = over_tls {
            let server_name = Some(server_name);
            let wanted = HandshakeWanted { service, server_name, input: Vec::new(), is_awaited: true };
            self.handshakes.begin_for(Purpose::Dialed(number), fd, wanted);
            return None;
        }
        let (key, connection) = self.connections.add(fd, EndpointId::NONE);
        self.dialer.is_open(connection, number);
        Some(Ok(key))
    }

    /// Notes that the handshake of an outbound connection has failed.
    pub(super) fn handshake_failed(&mut self, number: u64) {
        self.dialer.handshake_failed(number);
    }

    /// Gives up an outbound connection. False: it is not under way.
    pub(super) fn give_up(&mut self, registry: &Registry, number: u64) -> bool {
        let in_handshake = self.dialer.handshake_failed(number);
        if in_handshake {
            self.handshakes.give_up(Purpose::Dialed(number));
        }
        in_handshake || self.dialer.give_up(registry, number)
    }

    /// Notes that a process begins, which has asked for no outbound connection yet.
    pub(super) fn forget_who_asked(&mut self) {
        self.dialer.forget_who_asked();
    }

    /// Gives up the outbound connections that the process did not ask for, once it is ready: it
    /// has repeated all requests that it wants. O(under way).
    pub(super) fn give_up_unasked(&mut self, registry: &Registry) {
        for number in self.dialer.give_up_unasked(registry) {
            self.handshakes.give_up(Purpose::Dialed(number));
        }
    }

    /// Gives up the outbound connections that took too long. Returns their numbers.
    pub(super) fn take_late(&mut self, registry: &Registry, now: Instant) -> Vec<u64> {
        self.dialer.take_late(registry, now)
    }

    /// The outbound ones of these connections, each with the number of its request, and those over
    /// TLS, each with the number of its handshake.
    pub(super) fn announced_among(&self, connections: &[(u32, u64)]) -> Announced {
        let (dialed, shaken) = (self.dialer.among(connections), self.handshakes.among(connections));
        Announced { dialed, shaken }
    }
}
