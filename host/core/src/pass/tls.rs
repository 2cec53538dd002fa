//! TLS: records that peers send are opened.
//!
//! All whole records are opened as they come, also of a session whose input waits: what is kept is
//! data, and a part of one record at most. `receive` gives the data to the session's framing, and
//! ends the session if its stream has ended. Costs O(bytes), and a copy of them.

use crate::host_state::HostState;
use crate::ids::Slot;
use crate::store::layout::Full;
use crate::tls::record::alert;
use crate::tls::stage::TlsEnd;

/// Memory for records under way, used again.
#[derive(Default)]
pub(super) struct TlsBuffers {
    /// Part of a record that was kept, and bytes that came behind it.
    input: Vec<u8>,
    /// Record that is being opened.
    record: Vec<u8>,
    /// Data that were opened.
    pub(super) content: Vec<u8>,
}

/// Outcome of opening.
pub(super) enum TlsInput {
    /// Data are in the buffers, as far as there are any. The stream may have ended behind them.
    Opened(Option<TlsEnd>),
    /// The part of a record behind the data has no room in the store.
    NoRoom,
    /// This process has no ciphers for the session.
    NoCiphers,
}

/// Opens bytes from a peer into `buffers.content`, and keeps a part of a record.
pub(super) fn open(host: &mut HostState, slot: Slot, bytes: &[u8], buffers: &mut TlsBuffers) -> TlsInput {
    let TlsBuffers { input, record, content } = buffers;
    input.clear();
    input.extend_from_slice(host.tls.kept(&host.store, slot));
    input.extend_from_slice(bytes);
    content.clear();
    let records_max = host.limits.host().tls_records_max;
    let mut out = Vec::new();
    let Some((stage, ciphers)) = host.tls.stage(&host.store, slot) else { return TlsInput::NoCiphers };
    let opened = stage.open(ciphers, input, records_max, (content, &mut out), record);
    host.budget.spend(opened.work_ns);
    host.tls.change(slot, &out);
    let rest = if opened.end.is_some() { &[] } else { &input[opened.consumed..] };
    let id = host.sessions.get(slot).map_or(0, |s| s.id);
    match host.tls.keep(&mut host.store, slot, id, rest) {
        Ok(()) => TlsInput::Opened(opened.end),
        Err(Full) => TlsInput::NoRoom,
    }
}

/// Reason of a refusal, in words.
pub(super) fn describe(alert: u8) -> &'static str {
    match alert {
        alert::BAD_RECORD_MAC => "a record does not open",
        alert::RECORD_OVERFLOW => "a record is too long",
        alert::UNEXPECTED_MESSAGE => "a record does not belong here",
        _ => "its keys can't be changed",
    }
}
