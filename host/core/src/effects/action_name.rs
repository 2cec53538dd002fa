//! Names of the kinds of actions, as operators read them.

use super::action_record::CLOSE_ASKED;
use greenroom_state::abi;

/// Returns the name of a kind of action, for operators; `?` for an unknown one.
pub fn action_name(kind: u32) -> &'static str {
    match kind {
        abi::action::OPENED => "opened",
        abi::action::MESSAGE => "message",
        abi::action::CLOSED => "closed",
        abi::action::TIMER => "timer",
        abi::action::NOTE => "note",
        abi::action::PAGE => "page",
        abi::action::PUBLISHED => "published",
        abi::action::JOB => "job",
        abi::action::DIALED => "dialed",
        abi::action::CONNECT => "connect",
        abi::action::NEGOTIATED => "negotiated",
        abi::action::TLS_STARTED => "tls started",
        abi::action::STARTED => "started",
        abi::action::WOKEN => "woken",
        abi::action::IDLE => "idle",
        abi::action::MISSED => "missed",
        CLOSE_ASKED => "close",
        abi::action::SUBNEGOTIATION => "subnegotiation",
        abi::action::DATAGRAM => "datagram",
        abi::action::EXPIRED => "expired",
        _ => "?",
    }
}
