//! Steps with connections: accept, dial, hand to the worker.
//!
//! The acceptor owns the descriptors, and the worker process the queue of keys to hand over. Every
//! step is repeated by the keeper's loop, so none of them waits: a full socket or a busy worker
//! leaves the connections where they are, in a queue or in the kernel.

use crate::config::socket_file::SocketFile;
use crate::keeper::Keeper;
use crate::keeper::acceptor::Accepted;
use crate::keeper::bind::MadeFile;
use crate::keeper::handshake_news::{Purpose, Shaken};
use crate::protocol::keeper::{ClientTls, HandshakeWanted, HeldPort, ToWorker};
use greenroom_core::limits::names::Limit;
use greenroom_core::reload::ports::{Port, overlap};
use greenroom_state::address::Address;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

impl Keeper {
    /// Whether connections may be accepted now. If not, they wait in the kernel's queue.
    pub(super) fn may_accept(&self) -> bool {
        self.worker.takes_connections() && !self.stop.is_requested()
    }

    /// Accepts from a listener that the poll reported.
    pub(super) fn accept(&mut self, index: usize) {
        let may = self.may_accept();
        let accepted = self.acceptor.accept(index, may);
        self.accepted(accepted);
    }

    /// Accepts from listeners that had to wait, or had more than their share.
    pub(super) fn accept_again(&mut self) {
        let may = self.may_accept();
        let accepted = self.acceptor.accept_again(may, Instant::now());
        self.accepted(accepted);
    }

    /// Queues accepted connections for the worker.
    pub(super) fn accepted(&mut self, accepted: Accepted) {
        self.worker.queue(accepted.keys);
        self.count_reached(Limit::OpenFiles, u64::from(accepted.out_of_files));
    }

    /// Makes the file of a Unix socket anew that is gone. `status` shows a failure.
    pub(super) fn listen_anew(&mut self, gone: &MadeFile) {
        let registry = self.poll.registry();
        let made = self.acceptor.listen_anew(registry, gone, self.worker.ports());
        let path = Path::new(&*gone.path);
        let failed = match made {
            Ok(None) => None,
            Ok(Some(accepted)) => {
                self.belongings.count_made("sockets of services", path);
                self.has_listeners(accepted);
                None
            }
            Err(why) => Some(why),
        };
        self.failing.note(format!("{}, which is gone", path.display()), failed);
    }

    /// Notes that other listeners are in force, and queues the connections of those before.
    pub(super) fn has_listeners(&mut self, accepted: Accepted) {
        self.belongings.hold_sockets(self.acceptor.socket_files());
        self.accepted(accepted);
    }

    /// Begins an outbound connection that the worker asked for, within limit `connect_ms`.
    pub(super) fn dial(&mut self, number: u64, addr: Address, over_tls: Option<ClientTls>) {
        let patience = Duration::from_millis(self.options.config.limits.connect_ms);
        if let Err(why) = self.acceptor.dial(self.poll.registry(), number, (addr, over_tls), patience) {
            self.worker.send(&ToWorker::ConnectFailed(number, why));
        }
    }

    /// Opens ports for the worker, all or none.
    pub(super) fn open_ports(&mut self, ports: Vec<Port>) {
        let observer = self.observer.addr().map(Address::Tcp);
        let is_taken = observer.filter(|at| ports.iter().any(|(_, wanted)| overlap(at, wanted)));
        let opened = self.acceptor.open(ports).map_err(|why| match &is_taken {
            Some(at) => {
                format!(
                    "{why}; the observer listens on {at}: move observe.listen first, in a change of its own"
                )
            }
            None => why,
        });
        self.worker.send(&ToWorker::Opened(opened));
    }

    /// Gives files of Unix sockets their access. `status` shows a failure.
    pub(super) fn allow_socket_files(&mut self, files: Vec<(Address, SocketFile)>) {
        let failed = self.acceptor.allow(files).err();
        self.failing.note("the file of a socket".into(), failed);
    }

    /// Follows the ports of a reload that the worker has committed. Ports opened since are kept: a
    /// later reload has asked for them.
    pub(super) fn follow_ports(&mut self, ports: Vec<HeldPort>) {
        if self.worker.uses_ports(ports) {
            let accepted = self.acceptor.follow(self.poll.registry(), self.worker.ports());
            self.has_listeners(accepted);
        }
    }

    /// Gives the worker numbers for sessions without a connection.
    pub(super) fn give_numbers(&mut self, count: u32) {
        let first = self.acceptor.number_block(count);
        self.worker.send(&ToWorker::Numbers(first, count));
    }

    /// Looks at an outbound connection that the poll reported. An open one goes to the worker like
    /// an accepted one.
    pub(super) fn look_at_dialed(&mut self, number: u64) {
        match self.acceptor.dialed(self.poll.registry(), number) {
            None => {}
            Some(Ok(key)) => self.worker.queue([key]),
            // Without a worker the message is dropped: a successor asks again, as its record of the
            // request is still there.
            Some(Err(why)) => self.worker.send(&ToWorker::ConnectFailed(number, why)),
        }
    }

    /// Hears the handshaker, gives it connections, and joins it with the worker that serves.
    pub(super) fn shake_hands(&mut self) {
        let heard = self.acceptor.handshakes.hear(self.poll.registry());
        for news in heard.into_iter().chain(self.acceptor.handshakes.give_up_late()) {
            match news {
                Shaken::Done(handshake, fd, purpose) => match self.acceptor.shaken(handshake, fd, purpose) {
                    Ok(key) => self.worker.queue([key]),
                    // Without a worker the message is dropped: a successor is told with the
                    // connection.
                    Err(connection) => self.worker.send(&ToWorker::Shaken(vec![(connection, handshake)])),
                },
                Shaken::Failed(purpose, why) => self.handshake_failed(purpose, why),
                Shaken::Late => self.count_reached(Limit::HandshakeMs, 1),
                Shaken::GivenUp => self.count_reached(Limit::HandshakesMax, 1),
                Shaken::Failing(what, why) => self.failing.note(what, why),
            }
        }
        // Connections may have all descriptors but these.
        let starts = self.acceptor.handshakes.start_is_due();
        if starts {
            self.start_places.give();
        }
        self.acceptor.handshakes.go_on(self.poll.registry());
        if starts {
            let _ = self.start_places.keep();
        }
        if self.acceptor.handshakes.take_paced() {
            self.count_reached(Limit::HandshakesPerS, 1);
        }
        if !self.worker.serves() {
            return;
        }
        let Some((socket, first)) = self.acceptor.handshakes.join(self.worker.incarnation()) else { return };
        if !matches!(self.worker.send_with(&ToWorker::Handshaker(first), &[socket.as_fd()]), Some(Ok(true))) {
            // The next round makes another pair.
            self.acceptor.handshakes.part();
        }
    }

    /// Hears the observer, and does what is due for it.
    pub(super) fn look_at_observer(&mut self) {
        for (what, why) in self.observer.hear(self.poll.registry()) {
            self.failing.note(what, why);
        }
        self.observer.go_on(self.poll.registry());
    }

    /// Tells whoever waits for a handshake that it has failed. Without a worker the message is
    /// dropped: a successor asks again.
    fn handshake_failed(&mut self, purpose: Purpose, why: String) {
        match purpose {
            Purpose::Accepted(_) => {}
            Purpose::Dialed(number) => {
                self.acceptor.handshake_failed(number);
                self.worker.send(&ToWorker::ConnectFailed(number, format!("TLS: {why}")));
            }
            Purpose::Session(connection) => self.worker.send(&ToWorker::TlsFailed(connection, why)),
        }
    }

    /// Begins the handshake of a connection that has a session.
    pub(super) fn start_tls(&mut self, connection: (u32, u64), wanted: HandshakeWanted) {
        if let Err(why) = self.acceptor.start_tls(connection, wanted) {
            self.worker.send(&ToWorker::TlsFailed(connection.1, why));
        }
    }

    /// Gives up an outbound connection that nobody waits for any more.
    pub(super) fn give_up_dial(&mut self, number: u64) {
        if self.acceptor.give_up(self.poll.registry(), number) {
            self.worker.send(&ToWorker::ConnectFailed(number, "it was given up".into()));
        }
    }

    /// Hands the worker the connections that it does not have yet, until the socket is full or too
    /// many batches are unacknowledged. Then tells a starting worker to serve, if it has all.
    pub(super) fn hand_connections(&mut self) {
        loop {
            let Some(keys) = self.worker.next_batch() else { break };
            let n = keys.len();
            let batch = self.acceptor.batch(keys);
            let announced = self.acceptor.announced_among(&batch.connections);
            if !self.worker.hand(n, batch, announced) {
                break;
            }
        }
        self.worker.tell_to_start();
    }
}
