//! Kinds of records, and the key of each.

/// What a record is. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`greenroom_state::session_record::SessionRecord`]; key: session.
    Session = 1,
    /// A session's state, MessagePack; key: session.
    State = 2,
    /// Input that was not a whole message yet; key: session.
    Input = 3,
    /// Output not sent yet, behind its offset in the stream (u64, little-endian); key: session.
    Output = 4,
    /// The names of the topics that a session is on, a line each; key: session.
    Topics = 5,
    /// An entry of a table; key: 0, the entry names its table.
    Entry = 6,
    /// A service's name; key: its number, which the sessions' records hold.
    Service = 7,
    /// A library and the builds that it runs, as the shell writes it; key: the shell's.
    Library = 8,
    /// The ports that are held, as the shell writes it; key: 0.
    Ports = 9,
    /// The highest number of a connection that was served (u64, little-endian); key: 0.
    Served = 10,
    /// Why a session is quarantined until another build takes it on: the turn that must not run
    /// (u64, little-endian), and the reason; key: session.
    Quarantine = 11,
    /// A line of the ledger, as the shell writes it; key: counts up.
    Ledger = 12,
    /// An action that waits for its turn, as `effects/inbox.rs` says; key: session.
    Action = 13,
    /// What several actions carry; key: its number, which they name.
    Payload = 14,
    /// A timer, as `effects/timers.rs` says; key: session.
    Timer = 15,
    /// A job, as `effects/jobs.rs` says; key: session.
    Job = 16,
    /// A connection that is being made, as `effects/outbound.rs` says; key: session.
    Connect = 17,
    /// Output not sent yet whose bytes are a payload's: its offset in the stream, the payload's
    /// number (u64 each, little-endian) and length (u32); key: session.
    Shared = 18,
    /// The configuration in force, as the shell writes it, if it isn't the one that the host was
    /// started with; key: 0.
    Config = 19,
    /// Bytes that the framing of a session stores, as its file in `framing` says; key: session.
    Framing = 20,
}

impl Kind {
    pub(crate) fn from_number(n: u8) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 20] = [
            Session, State, Input, Output, Topics, Entry, Service, Library, Ports, Served, Quarantine,
            Ledger, Action, Payload, Timer, Job, Connect, Shared, Config, Framing,
        ];
        // They are numbered from 1, in this order.
        ALL.get(usize::from(n).wrapping_sub(1)).copied()
    }
}
