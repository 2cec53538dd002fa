//! Transfer of bytes: sockets are read into the core, and its output is written to them.
//!
//! *Invariant*: a read goes to the input memory, behind a note of its session and offset. A
//! successor finds bytes there that were read and not committed. Output is written only once it is
//! committed, so no client sees anything that a crash could undo.
//!
//! | the worker dies | a successor finds |
//! | --- | --- |
//! | between note and read | a note, and a kernel that counts no byte of it |
//! | between read and commit | the bytes, as many as the kernel counts, and runs them |
//! | between commit and send | the output in records, and sends it |
//! | between send and the next commit | by the kernel's count what was sent, and sends the rest |
//!
//! A pass costs one system call for each read, and one for up to [`PIECES_AT_ONCE`] pieces of a
//! session's output. The input memory has room for 4 MiB or 4096 reads. If it is full, the loop
//! commits in the middle of the pass ([`Sockets::has_room`]).
//!
//! Errors of a connection end its session and nothing else. The poll's own errors end the worker.

use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::input::{Pool, READ_BYTES};
use crate::net::sockets::Net;
use crate::net::stream::Stream;
use arrayvec::ArrayVec;
use greenroom_core::core::Core;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::limits::host::PIECES_AT_ONCE;
use mio::{Events, Poll, Registry};
use rustix::net::sockopt::set_socket_linger;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// The connections of this process, the poll that watches them, and the memory that reads go to.
/// Only the memory outlives the process.
pub(super) struct Sockets {
    poll: Poll,
    /// Connections by slot, with the keeper's keys.
    net: Net,
    input: Pool,
    /// Connections that are known to be reset: before this process began, or by a write that
    /// failed. The end of their input is an error, although the kernel may report it as an
    /// orderly end.
    broken: BTreeSet<Slot>,
    /// Connections to read in the next pass, even if the poll reports nothing, each once. A slot
    /// may be closed by then: a read of it is harmless.
    again: VecDeque<Slot>,
    /// Those of `again`, to find them.
    listed: HashSet<Slot>,
    /// Scratch of [`Sockets::send`]: empty between two calls.
    sendable: Vec<Slot>,
    /// Sessions without a connection that have output: peers over UDP.
    without: Vec<Slot>,
}

impl Sockets {
    /// Makes a poll without connections. Reads go to `input`.
    pub(super) fn new(input: Pool) -> io::Result<Sockets> {
        let (poll, net, broken) = (Poll::new()?, Net::default(), BTreeSet::new());
        Ok(Sockets {
            poll,
            net,
            input,
            broken,
            again: VecDeque::new(),
            listed: HashSet::new(),
            sendable: Vec::new(),
            without: Vec::new(),
        })
    }

    /// The poll's registry, for the keeper's socket and the waker.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Sleeps until a source is ready, or for `timeout`; `None`: without limit. A signal fails the
    /// call with `Interrupted`.
    pub(super) fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.poll.poll(events, timeout)
    }

    /// Takes a connection in at any free slot. `key` is the keeper's. Fails if the poll cannot
    /// watch one more; the connection is closed here then, and the caller releases it.
    pub(super) fn add(&mut self, socket: Stream, key: u32) -> io::Result<Slot> {
        self.net.add(self.poll.registry(), socket, key)
    }

    /// Takes a predecessor's connection in at a reserved slot. Fails as [`Sockets::add`] does; the
    /// slot stays reserved.
    pub(super) fn put(&mut self, slot: Slot, socket: Stream, key: u32) -> io::Result<()> {
        self.net.put(self.poll.registry(), slot, socket, key)
    }

    /// Reserves this many slots for [`Sockets::put`]. The caller gives those back that stay empty.
    /// Only for a process without connections.
    pub(super) fn reserve(&mut self, slots: usize) {
        self.net.reserve(slots);
    }

    /// Frees a reserved slot, for use in the same pass.
    pub(super) fn give_back(&mut self, slot: Slot) {
        self.net.give_back(slot);
    }

    /// Closes a connection here. Returns the key by which the keeper is to release it; `None`: no
    /// connection has this slot. The peer notices once the keeper has closed its descriptor, too.
    /// The slot is free from the next pass on, because events of this one may still name it.
    pub(super) fn close(&mut self, slot: Slot) -> Option<u32> {
        self.broken.remove(&slot);
        self.net.close(self.poll.registry(), slot)
    }

    /// Key by which the keeper knows a connection. `None`: no connection has this slot.
    pub(super) fn key(&self, slot: Slot) -> Option<u32> {
        self.net.key(slot)
    }

    /// Socket of a connection. `None`: no connection has this slot.
    pub(super) fn socket(&mut self, slot: Slot) -> Option<&Stream> {
        self.net.get(slot).map(|socket| &*socket)
    }

    /// Ends the outgoing direction of a connection. An error means that the connection is gone; the
    /// next read finds that out.
    pub(super) fn shut_down(&mut self, slot: Slot) {
        if let Some(socket) = self.net.get(slot) {
            let _ = socket.shut_down();
        }
    }

    /// Has the kernel discard a connection's unsent output at its close. The kernel would keep that
    /// output for a peer that takes none, outside every limit.
    pub(super) fn reset_at_close(&mut self, slot: Slot) {
        if let Some(socket) = self.net.get(slot)
            && let Err(e) = set_socket_linger(socket, Some(Duration::ZERO))
        {
            tracing::debug!("a connection cannot be reset: {e}");
        }
    }

    /// Notes that a connection was reset before this process began. The note lives until the
    /// connection is closed, or its session is told.
    pub(super) fn note_broken(&mut self, slot: Slot) {
        self.broken.insert(slot);
    }

    /// Has these connections read in the next pass.
    pub(super) fn read_again(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            if self.listed.insert(slot) {
                self.again.push_back(slot);
            }
        }
    }

    /// Number of connections to read although the poll may report nothing. Asked before the reads
    /// of a pass, so a connection that is read again and again shares the pass with all others.
    pub(super) fn again(&self) -> usize {
        self.again.len()
    }

    /// Takes off the connection that has waited longest for such a read.
    pub(super) fn pop_again(&mut self) -> Option<Slot> {
        let slot = self.again.pop_front()?;
        self.listed.remove(&slot);
        Some(slot)
    }

    /// Returns whether the next pass must not sleep, because it reads connections again.
    pub(super) fn reads_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Returns whether another read has a place before the next commit. [`Sockets::read`] must not
    /// be called without one.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.input.has_room()
    }

    /// Frees the places of all reads. The caller has just committed: their input has been run, or
    /// is in records.
    #[inline]
    pub(super) fn input_is_committed(&mut self) {
        self.input.clear();
    }

    /// Finds input that a predecessor had read and not committed, by [`Pool::find`]. `None`: the
    /// bytes are not there. Must come before the first read, which overwrites the memory. O(notes).
    pub(super) fn find_input(&self, number: u64, offset: u64, len: usize, epoch: u64) -> Option<Vec<u8>> {
        self.input.find(number, offset, len, epoch)
    }

    /// Reads a connection once, if the core wants input from it.
    ///
    /// A read is one system call for at most [`READ_BYTES`], a session's share of a pass.
    ///
    /// The poll is edge-triggered. If it may stay silent although more input is there (the place
    /// was filled, or `to_the_end` says so), the next pass reads the connection again. The caller
    /// makes sure that a read has a place.
    #[inline]
    pub(super) fn read(&mut self, core: &mut Core, slot: Slot, to_the_end: bool) {
        if !core.wants_input(slot) {
            if self.broken.contains(&slot) && core.is_resuming(slot) {
                // Input that arrived before the reset comes first.
                self.read_again([slot]);
            } else if self.broken.remove(&slot) {
                // The session waits for its peer to take output, and the peer is gone.
                core.handle(Input::Broken { slot });
            }
            return;
        }
        let Some(session) = core.sessions().get(slot) else { return };
        let Some(socket) = self.net.get(slot) else { return };
        // The epoch that the pass will commit: a note of an older epoch counts for no successor.
        let place = self.input.place(session.id, session.bytes_in, core.store().epoch() + 1);
        crash_points::pass(Point::Noted);
        match socket.read(place) {
            Ok(0) if self.broken.remove(&slot) => core.handle(Input::Broken { slot }),
            Ok(0) => core.handle(Input::PeerDone { slot }),
            Ok(n) => {
                crash_points::pass(Point::Read);
                if n == READ_BYTES || to_the_end {
                    self.read_again([slot]);
                }
                core.handle(Input::Received { slot, bytes: self.input.taken(n) });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && self.broken.remove(&slot) => {
                core.handle(Input::Broken { slot });
            }
            // The kernel has nothing: the poll reports the next byte.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => self.read_again([slot]),
            Err(_) => core.handle(Input::Broken { slot }),
        }
    }

    /// Writes the committed output of the sessions whose turn it is, as far as the kernel takes it.
    ///
    /// The core picks the sessions: those with input in this pass, then a bounded number of others.
    /// Up to [`PIECES_AT_ONCE`] pieces are one system call. If the kernel takes less than offered,
    /// the session waits until the poll reports it writable.
    ///
    /// The caller has committed all output that the core offers. Sent bytes are booked in the core
    /// and become part of the next commit; until then the kernel's count is the truth.
    pub(super) fn send(&mut self, core: &mut Core) {
        core.take_sendable(&mut self.sendable);
        let mut failed = Vec::new();
        for slot in self.sendable.drain(..) {
            let Some(socket) = self.net.get(slot) else {
                self.without.push(slot);
                continue;
            };
            loop {
                // Lent from the store, without a copy.
                let written = core.output(slot, |pieces| match write_all_of(socket, pieces) {
                    Ok(n) => Ok((n, n < pieces.iter().map(|p| p.len()).sum())),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Ok((0, true)),
                    Err(e) if e.kind() == ErrorKind::Interrupted => Ok((0, false)),
                    Err(e) => Err(e),
                });
                match written {
                    Some(Ok((bytes, blocked))) => {
                        crash_points::pass(Point::Sent);
                        core.handle(Input::Sent { slot, bytes, blocked });
                        if blocked {
                            break;
                        }
                    }
                    Some(Err(_)) => {
                        failed.push(slot);
                        break;
                    }
                    // All is sent, or the session has ended.
                    None => break,
                }
            }
        }
        // These sessions have last turns, which may cost much: the next passes read them, each
        // within its budget. What the peer sent before it broke the connection comes first.
        for slot in failed {
            self.broken.insert(slot);
            self.read_again([slot]);
        }
    }

    /// Takes the sessions without a connection that the last [`Sockets::send`] has met.
    pub(super) fn take_without(&mut self, into: &mut Vec<Slot>) {
        into.append(&mut self.without);
    }

    /// Takes a free slot for a session without a connection.
    pub(super) fn take_slot(&mut self) -> Slot {
        self.net.take_slot()
    }

    /// Frees the slot of a session without a connection, from the next pass on.
    pub(super) fn give_back_later(&mut self, slot: Slot) {
        self.net.give_back_later(slot);
    }

    /// Ends a pass: slots of closed connections may be used again.
    pub(super) fn end_pass(&mut self) {
        self.net.end_pass();
    }
}

/// Writes pieces with one system call, as far as the kernel takes them. At most [`PIECES_AT_ONCE`]
/// pieces, which is what the core lends at once.
#[inline]
fn write_all_of(socket: &Stream, pieces: &[&[u8]]) -> io::Result<usize> {
    match pieces {
        [one] => socket.write(one),
        many => {
            let slices: ArrayVec<_, PIECES_AT_ONCE> = many.iter().map(|p| IoSlice::new(p)).collect();
            socket.write_vectored(&slices)
        }
    }
}
