//! Queue of the connections that a worker's process does not have yet.
//!
//! Connections go to the process in batches of at most [`DESCRIPTORS_MAX`] descriptors, and the
//! process acknowledges each batch. The kernel refuses descriptors in flight beyond the limit of
//! open files, so batches without an acknowledgement are bounded.

use crate::keeper::connections::Batch;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::{DESCRIPTORS_MAX, Link};
use std::collections::VecDeque;

/// Batches of connections that a worker may leave unacknowledged. With so many, accepting waits.
/// At [`DESCRIPTORS_MAX`] descriptors each, 1,000 are in flight at most.
const BATCHES_MAX: usize = 4;

/// Connections of a batch that are more than accepted: number of each, and another one.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Outbound ones, with the numbers of their requests.
    pub(super) dialed: Vec<(u64, u64)>,
    /// Those over TLS, with the numbers of their handshakes.
    pub(super) shaken: Vec<(u64, u64)>,
}

/// Keys of the connections that a process does not have yet, in order.
#[derive(Debug, Default)]
pub(super) struct HandQueue {
    keys: VecDeque<u32>,
    /// Batches that the process has not acknowledged: at most [`BATCHES_MAX`].
    in_flight: usize,
}

impl HandQueue {
    /// Queue of a process that was just started: it has none of these connections.
    pub(super) fn of(keys: VecDeque<u32>) -> HandQueue {
        HandQueue { keys, in_flight: 0 }
    }

    /// Whether the process keeps up with the batches that it gets.
    pub(super) fn takes_more(&self) -> bool {
        self.in_flight < BATCHES_MAX
    }

    /// Whether the process has been given all connections.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Queues more connections.
    pub(super) fn extend(&mut self, keys: impl IntoIterator<Item = u32>) {
        self.keys.extend(keys);
    }

    /// Keys of the next batch. `None`: nothing to hand over, or not now.
    pub(super) fn next_batch(&self) -> Option<impl ExactSizeIterator<Item = u32> + use<'_>> {
        let may = self.takes_more() && !self.keys.is_empty();
        may.then(|| self.keys.iter().copied().take(DESCRIPTORS_MAX))
    }

    /// Sends the batch of the next `keys` keys, behind what is announced of them. False: the socket
    /// has no room now, or the process is gone, and the keys stay queued. O(keys).
    pub(super) fn hand(
        &mut self,
        link: &mut Link<ToKeeper, ToWorker>,
        keys: usize,
        batch: Batch<'_>,
        Announced { dialed, shaken }: Announced,
    ) -> bool {
        if !batch.connections.is_empty() {
            // Both announcements go first: the worker must know endpoint and request of a
            // connection when it opens the session. A repeated announcement does no harm. While one
            // waits for room, the batch would be refused, so it is not announced again.
            if link.has_unsent() {
                return false;
            }
            if !dialed.is_empty() {
                link.send(&ToWorker::Dialed(dialed));
            }
            if !shaken.is_empty() {
                link.send(&ToWorker::Shaken(shaken));
            }
            // A worker that numbers no endpoints is of an earlier version, which does not know
            // the message.
            if batch.endpoints.iter().any(|(endpoint, _)| !endpoint.is_none()) {
                link.send(&ToWorker::Endpoints(batch.endpoints));
            }
            match link.send_with(&ToWorker::Connections(batch.connections), &batch.descriptors) {
                Ok(true) => self.in_flight += 1,
                Ok(false) | Err(_) => return false,
            }
        }
        self.keys.drain(..keys.min(self.keys.len()));
        true
    }

    /// Notes that the process has received a batch. A surplus acknowledgement is ignored.
    pub(super) fn acknowledged(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes that the process is gone, and its batches with it.
    pub(super) fn nothing_is_in_flight(&mut self) {
        self.in_flight = 0;
    }
}
