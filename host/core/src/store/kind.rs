//! Kinds of records, and the key of each.
//!
//! The number of a kind, its key and its format are stored: a successor of another version
//! reads them. So a number is never given to another kind, and a format changes with its
//! version.
//!
//! In a key, *session* is the number of a session, or the number that stands for a service's
//! own turns ([`crate::ids::service_of_number`]).
//!
//! Recovery hands each record to the part that owns its kind (`crate::recovery::rebuild`). A
//! record of an unknown number is erased and named: a later build wrote it.

/// Kind of a record. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`greenroom_state::session_record::SessionRecord`]; key: session.
    Session = 1,
    /// A session's state, MessagePack; key: session.
    State = 2,
    /// Input that is kept: no whole message yet, or messages that must wait; key: session.
    Input = 3,
    /// Output not sent yet, behind its offset in the stream (u64, little-endian); key: session.
    Output = 4,
    /// The names of the topics that a session is on, a line each, as builds before
    /// [`Kind::Subscription`] wrote them; key: session.
    Topics = 5,
    /// An entry of a table, which names it; key: the version of its value, and in the upper half
    /// the era of its write, as `tables/drops.rs` says.
    Entry = 6,
    /// A service's name; key: its number, which the sessions' records hold.
    Service = 7,
    /// A library and the builds that it runs, as the shell writes it; key: the shell's.
    Library = 8,
    /// The ports that are held, as the shell writes it; key: 0.
    Ports = 9,
    /// The highest number of a connection that was served (u64, little-endian); key: 0.
    Served = 10,
    /// Quarantine of a session until another build takes it on: the turn that must not run
    /// (u64, little-endian), and the reason; key: session.
    Quarantine = 11,
    /// A line of the ledger, as the shell writes it; key: counts up.
    Ledger = 12,
    /// An action that waits for its turn, as `effects/inbox.rs` says; key: session.
    Action = 13,
    /// Payload that several actions or pieces of output carry; key: its number, which they
    /// name.
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
    /// The configuration in force, as the shell writes it, if it is not the one that the host was
    /// started with; key: 0.
    Config = 19,
    /// Bytes that the framing of a session stores, as its file in `framing` says; key: session.
    Framing = 20,
    /// Other sessions whose output a session waits for, as `session/flow_control.rs` says; key:
    /// session.
    Waits = 21,
    /// Kept input that was appended behind the record of kind `Input`, as `store/tail.rs` says;
    /// key: session.
    InputTail = 22,
    /// Framings of a service's sessions, as `service/framings.rs` says; key: the service's number.
    Framings = 23,
    /// Secrets and numbers of a session over TLS, as `tls/state.rs` says; key: session. The store
    /// wipes such a record when it is gone.
    Tls = 24,
    /// Part of a record of TLS that came in; key: session.
    TlsInput = 25,
    /// Facts of a session's handshake, as `tls/facts.rs` says; key: session.
    TlsFacts = 26,
    /// Handshake that a session is to have, as `tls/due.rs` says; key: session.
    TlsDue = 27,
    /// Topic that a session is on: its name; key: session.
    Subscription = 28,
    /// Name that a session holds in its service; key: session.
    Name = 29,
    /// Stream of WebSocket that carries a session, as `session/socket_streams.rs` says; key:
    /// session.
    Socket = 30,
    /// Content of a file in settings; key: the first 64 bits of its SHA-256.
    HeldFile = 31,
    /// Drop of a prefix of a table whose entries are not all deleted, as `tables/drops.rs` says;
    /// key: its era.
    Drop = 32,
    /// An entry of a table that has a deadline: milliseconds since 1970 (u64, little-endian), then
    /// what a record of kind `Entry` has; key: as there.
    Expiring = 33,
    /// Terms that a session's handler has set for its peer, as `session/terms.rs` says; key:
    /// session.
    Terms = 34,
    /// Secret of the host, and the time when it began, as `effects/birth.rs` says; key: 0.
    Birth = 35,
    /// Data that the last change of an operator replaced, as `operate/undo.rs` says; key: 0.
    Undo = 36,
    /// Counts of a service's canary, as `service/canary_counts.rs` says; key: the service's number.
    Canary = 37,
}

impl Kind {
    /// Returns the version of the format in which this build writes records of a kind, from 0
    /// to 3. Recovery reads this one and all before it, and erases later ones by name.
    ///
    /// A change of a format raises its version here, and the decoder goes by
    /// [`Found::version`](super::recover::Found::version). A build with a lower version here
    /// cannot read the record, so the trial of an upgrade to that build refuses it.
    ///
    /// The version of a session's record stays: its first byte is a version that more builds
    /// read.
    pub(crate) const fn version(self) -> u8 {
        0
    }

    /// Returns whether a session without the record is another one. The keys of such records are
    /// numbers of sessions, or of services for their own turns.
    pub(crate) fn is_part_of_session(self) -> bool {
        use Kind::*;
        let of_stream =
            matches!(self, Input | InputTail | Framing | Output | Shared | Tls | TlsInput | TlsDue | Socket);
        of_stream
            || matches!(
                self,
                State | Topics | Subscription | Name | Terms | Quarantine | Action | Timer | Job | Connect
            )
    }

    /// Returns the name of the kind for operators: `input_tail`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Returns the kind of a stored number; `None`: this build knows no such kind.
    pub fn from_number(n: u8) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 37] = [
            Session,
            State,
            Input,
            Output,
            Topics,
            Entry,
            Service,
            Library,
            Ports,
            Served,
            Quarantine,
            Ledger,
            Action,
            Payload,
            Timer,
            Job,
            Connect,
            Shared,
            Config,
            Framing,
            Waits,
            InputTail,
            Framings,
            Tls,
            TlsInput,
            TlsFacts,
            TlsDue,
            Subscription,
            Name,
            Socket,
            HeldFile,
            Drop,
            Expiring,
            Terms,
            Birth,
            Undo,
            Canary,
        ];
        // The numbers count from 1, in the order of the list.
        ALL.get(usize::from(n).wrapping_sub(1)).copied()
    }
}
