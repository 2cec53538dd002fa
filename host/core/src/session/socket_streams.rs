//! Streams of WebSocket that carry sessions: the place in each peer's frames.
//!
//! Such a session begins with the framing of WebSocket, which reads the request. Behind its first
//! turn the framing inside takes its place, and the bytes of the peer's data frames are its input.
//!
//! | [`Socket`] | framing that cuts the input | framing of what is sent | record |
//! | --- | --- | --- | --- |
//! | `None` | the session's | the same | none |
//! | `Asked` | WebSocket, for the request | the one inside, in frames | the number of that |
//! | `Open` | the one inside, of the stream | the same, in frames | its place |
//! | `Closed` | none: the peer's end waits for the input before it | the same | its place |
//!
//! A record is two bytes and the place: 1 while the request is awaited and 0 behind it, and the
//! number of the framing inside until then. It is written when something of it changes: between
//! two whole frames the place never does. A session without a stream has no memory here.

use crate::framing::websocket::stream::{StreamEvent, StreamPlace};
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use std::collections::HashMap;

/// Part that WebSocket has in a session, beside the framing of its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Socket {
    /// None: the framing is all.
    #[default]
    None,
    /// A stream, whose request is awaited, or has its turn to come.
    Asked {
        /// Number of the framing inside.
        inside: u8,
    },
    /// A stream, which carries the bytes that the framing cuts.
    Open,
    /// A stream whose peer has closed it: what follows is of no meaning.
    Closed,
}

/// Stream of one session.
#[derive(Debug)]
struct Stream {
    record: Ref,
    /// Part that its session has.
    socket: Socket,
    place: StreamPlace,
}

/// Streams of all sessions that have one.
#[derive(Debug, Default)]
pub(crate) struct SocketStreams {
    all: HashMap<Slot, Stream>,
}

impl SocketStreams {
    /// Whether no session has one. O(1).
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Begins the stream of a new session, whose number is `id`. Fails without room.
    pub(crate) fn begin(
        &mut self,
        store: &mut Store,
        (slot, id): (Slot, u64),
        inside: u8,
    ) -> Result<(), Full> {
        let (socket, place) = (Socket::Asked { inside }, StreamPlace::default());
        let record = put(store, (None, id), socket, &place)?;
        self.all.insert(slot, Stream { record, socket, place });
        Ok(())
    }

    /// Notes that the frames of a stream come from here on. Fails without room.
    pub(crate) fn open(&mut self, store: &mut Store, (slot, id): (Slot, u64)) -> Result<(), Full> {
        let stream = self.all.get_mut(&slot).ok_or(Full)?;
        stream.socket = Socket::Open;
        stream.record = put(store, (Some(stream.record), id), stream.socket, &stream.place)?;
        Ok(())
    }

    /// Takes bytes from the peer of an open stream, as [`StreamPlace::take`] does. Fails if the
    /// place behind them has no room; a session without a stream, which only damage can leave,
    /// has none either.
    pub(crate) fn take(
        &mut self,
        store: &mut Store,
        (slot, id): (Slot, u64),
        bytes: &[u8],
        content: &mut Vec<u8>,
    ) -> Result<(usize, Option<StreamEvent>), Full> {
        let Stream { record, socket, place } = self.all.get_mut(&slot).ok_or(Full)?;
        let before = place.clone();
        let taken = place.take(bytes, content);
        if *place != before {
            *record = put(store, (Some(*record), id), *socket, place)?;
        }
        Ok(taken)
    }

    /// Whether a header or a control frame of the peer has come in part.
    pub(crate) fn is_cut(&self, slot: Slot) -> bool {
        self.all.get(&slot).is_some_and(|stream| stream.place.is_cut())
    }

    /// Payload of the peer's close; `None`: it has not closed.
    pub(crate) fn closing(&self, slot: Slot) -> Option<&[u8]> {
        self.all.get(&slot)?.place.closing()
    }

    /// Whether a session has a stream.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.all.contains_key(&slot)
    }

    /// Forgets the stream of a session, if it has one.
    pub(crate) fn forget(&mut self, store: &mut Store, slot: Slot) {
        if let Some(stream) = self.all.remove(&slot) {
            store.delete(stream.record);
        }
    }

    /// Takes in a record that recovery found. Returns the part that the session has. `None`: the
    /// record can't be read, or is a second one.
    pub(crate) fn recover(&mut self, store: &Store, slot: Slot, record: Ref) -> Option<Socket> {
        let (socket, place) = store.read(record, |bytes| {
            let (head, place) = bytes.split_first_chunk()?;
            let socket = match *head {
                [0, _] => Socket::Open,
                [1, inside] => Socket::Asked { inside },
                _ => return None,
            };
            let place = StreamPlace::decode(place)?;
            Some((if place.closing().is_some() { Socket::Closed } else { socket }, place))
        })?;
        if self.has(slot) {
            return None;
        }
        self.all.insert(slot, Stream { record, socket, place });
        Some(socket)
    }
}

/// Writes a record, in place of the one before.
fn put(
    store: &mut Store,
    (before, id): (Option<Ref>, u64),
    socket: Socket,
    place: &StreamPlace,
) -> Result<Ref, Full> {
    let mut stored = match socket {
        Socket::Asked { inside } => vec![1, inside],
        Socket::None | Socket::Open | Socket::Closed => vec![0, 0],
    };
    place.encode(&mut stored);
    if !store.reserve([stored.len()]) {
        return Err(Full);
    }
    store.put(before, Kind::Socket, id, &stored)
}
