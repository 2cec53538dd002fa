//! Compares each session with the kernel's byte counts.
//!
//! Bytes that were read and not committed must be given to the core again. Output that was
//! committed and not sent is still there. A session for which the counts do not add up cannot
//! be trusted, and is given up by name.
//!
//! | direction | must hold | else |
//! | --- | --- | --- |
//! | input | committed <= read by the kernel's count | given up |
//! | output | first byte kept <= sent <= end of the output | given up |
//! | output | the pieces are the stream from the first byte kept to the end | given up |
//!
//! Bookings count with the first commit; a process that dies before it leaves its successor the
//! same comparison.

use crate::command::Command;
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::output::{offer, sent as book_sent};
use crate::host_state::tls_due::ask_if_drained;
use crate::ids::Slot;
use crate::session::life::Life;
use crate::session::output::piece_len;
use greenroom_state::session_record::SessionRecord;

/// Byte counts of a survivor's connection.
#[derive(Debug, Clone, Copy)]
pub enum StreamCounts {
    /// By the kernel.
    Kernel {
        /// Bytes that came from the peer in all and were read.
        read: u64,
        /// Bytes that were sent in all. `None`: the connection is broken, so its output does not
        /// matter any more, and [`crate::input::Input::Broken`] is to follow.
        sent: Option<u64>,
    },
    /// By the session's record: the kernel does not count, and the predecessor has handed over.
    Recorded,
}

/// Compares a survivor with the counts of its connection. Returns the bytes that were read and not
/// committed: the caller gives them to the core again.
///
/// To be done for every survivor before the first pass. A turn that ran earlier would build on
/// a session that may have to be given up.
///
/// Fails if the session cannot be trusted; it is gone then, and the error names it. O(pieces).
pub(crate) fn reconcile(host: &mut HostState, slot: Slot, counts: StreamCounts) -> Result<u64, String> {
    let Some(s) = host.sessions.get(slot) else { return Err("there is no such session".into()) };
    let (id, first, end) = (s.id, s.bytes_sent, s.bytes_out);
    // Output that was sent as a whole is gone, and its session's record may be older.
    let recorded = || {
        let record = s.record.and_then(|r| host.store.read(r, SessionRecord::decode));
        record.map_or(first, |r| r.bytes_sent.max(first))
    };
    // A handshake may be under way, whose bytes are none of the session's.
    let in_handshake = s.tls_due() && host.tls_due.is_drained(slot, recorded());
    let (read, sent) = match counts {
        StreamCounts::Kernel { read, sent } if !in_handshake => (read, sent),
        _ => (s.bytes_in, Some(recorded())),
    };
    let Some(sent) = sent else {
        let missing = read.saturating_sub(s.bytes_in);
        // Trying to send it finds out that it cannot be sent.
        offer(host, slot);
        return Ok(missing);
    };
    // The output must be one piece: from where the first record begins to the end of the
    // stream.
    let pieces: u64 = s.output.iter().map(|&r| piece_len(&host.store, r) as u64).sum();
    let why = if read < s.bytes_in {
        Some(format!("{} bytes of its input were run, and the kernel gave out {read}", s.bytes_in))
    } else if sent > end || sent < first || first + pieces != end {
        Some(format!(
            "the kernel took {sent} bytes of its output, and bytes {first} to {end} are here ({pieces})"
        ))
    } else {
        None
    };
    if let Some(why) = why {
        give_up(host, slot);
        return Err(format!("session {id}: {why}"));
    }
    // Input behind a session's last turn is read and dropped.
    let missing = if s.life == Life::Open { read - s.bytes_in } else { 0 };
    // A draining session whose output is out shuts its end here, as after a send.
    book_sent(host, slot, (sent - first) as usize, false);
    if sent == first {
        ask_if_drained(host, slot);
    }
    offer(host, slot);
    Ok(missing)
}

/// Has the next commit write how much of each output was sent, for
/// [`StreamCounts::Recorded`]. O(sessions).
pub(crate) fn record_sent(host: &mut HostState) {
    let slots: Vec<_> = host.sessions.slots().collect();
    for slot in slots {
        if host.sessions.get(slot).is_some_and(|s| !s.output.is_empty()) {
            host.sessions.touch(slot);
        }
    }
}

/// Forgets a survivor that cannot be trusted, or whose connection is gone. Its handler is not
/// told. O(what it owns).
pub(crate) fn give_up(host: &mut HostState, slot: Slot) {
    gone(host, slot);
    // The shell has no connection in this slot yet, and frees the slot itself.
    let is_of = |c: &Command| match c {
        Command::Close { slot: s, .. } | Command::StartTls { slot: s, .. } | Command::Shutdown(s) => {
            *s == slot
        }
        _ => false,
    };
    host.commands.retain(|c| !is_of(c));
}
