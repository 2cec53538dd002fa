//! Turns as somebody who watches them sees them: action, state before and after, effects, end.
//!
//! A record owns all that it tells. It is a line of a recording, too: then it also holds what a
//! replay needs ([`ReplayFacts`]). Fields are only added, with a default.

use super::effect_record::EffectRecord;
use super::fault::{Fault, FaultReply, LogLine};
use super::reads::Read;
use crate::framing::Framing;
use greenroom_state::byte_text::ByteText;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Turn that was watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Number of the session; 0: the service itself.
    pub session: u64,
    /// Name of the service.
    pub service: String,
    /// Address of the peer; empty: the service itself.
    pub peer: String,
    /// Number of the turn in its session.
    pub turn: u64,
    /// Generation of the build that ran it.
    pub generation: u64,
    /// Hash of that build's file.
    pub build: String,
    /// Version in which that build writes states; 0: it keeps none.
    pub version: u32,
    /// Time of the calendar, in nanoseconds since 1970.
    pub wall_ns: u64,
    /// Time of the pass, by CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// Action of the turn.
    pub action: ActionRecord,
    /// State before the turn; none: none was stored.
    pub before: Option<StateRecord>,
    /// State that the turn left; none: it changed none.
    pub after: Option<StateRecord>,
    /// Effects that it asked for.
    pub effects: Vec<EffectRecord>,
    /// Whether it closed its session.
    pub closes: bool,
    /// Code and words of that close.
    pub close_words: Option<(u16, String)>,
    /// Fault of the code; its effects are none then.
    pub fault: Option<Fault>,
    /// Consequence of the fault for the peer.
    pub fault_reply: Option<FaultReply>,
    /// Lines that it logged.
    pub log: Vec<LogLine>,
    /// Time that the call took, in nanoseconds; 0: it was not measured.
    pub took_ns: u64,
    /// Consequence for the host.
    pub outcome: TurnOutcome,
    /// Facts for a replay; none: the turn was only watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<ReplayFacts>>,
}

/// Consequence of a turn for the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnOutcome {
    /// Success: its effects count.
    #[default]
    Applied,
    /// Failure: its action is used up.
    Failed,
    /// Failure, and the previous build is asked: its turn follows.
    AskedBefore,
    /// Refusal by the host, for this reason.
    Refused(String),
    /// Quarantine: the state could not be read, and the session waits for other code.
    Quarantined,
}

/// Action of a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Kind, a number from [`greenroom_state::abi::action`].
    pub kind: u32,
    /// Name of the kind.
    pub action: String,
    /// Detail that the kind names.
    #[serde(default)]
    pub detail: u32,
    /// Number that the kind calls for, such as the session that sent a note.
    #[serde(default)]
    pub from: u64,
    /// Name that the kind calls for.
    #[serde(default, skip_serializing_if = "ByteText::is_empty")]
    pub name: ByteText,
    /// Data.
    #[serde(default, skip_serializing_if = "ByteText::is_empty")]
    pub data: ByteText,
    /// Turns between it and something from outside.
    #[serde(default)]
    pub depth: u16,
}

/// State of a session, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Version of the state.
    pub version: u32,
    /// MessagePack.
    pub packed: ByteText,
}

/// Facts that a replay needs beside the rest of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayFacts {
    /// Facts of the session.
    pub session: SessionFacts,
    /// Questions that the turn asked the host, with the answers; none: there were too many.
    pub reads: Option<Vec<Read>>,
    /// Whether a page was asked for, and its head alone.
    #[serde(default)]
    pub page: Option<bool>,
    /// Datagram of the turn: where it came from, its length, and the end that it came to.
    #[serde(default)]
    pub datagram: Option<(SocketAddr, usize, u32, Option<IpAddr>)>,
}

/// Facts of a session that decide how its turns ask and send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Framing of what is sent.
    pub framing: Framing,
    /// State of the framing.
    pub frame: ByteText,
    /// Whether the stream is one of WebSocket.
    pub in_socket: bool,
    /// Whether the host has connected.
    pub outbound: bool,
    /// Whether the stream is one of TLS.
    pub over_tls: bool,
    /// Bytes from the peer.
    pub bytes_in: u64,
    /// Bytes for the peer.
    pub bytes_out: u64,
    /// Bytes of those that the kernel took.
    pub bytes_sent: u64,
}
