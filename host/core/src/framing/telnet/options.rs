//! Options of a telnet session: negotiation by RFC 1143's Q method, and its stored form.
//!
//! Each side of a connection has each option on or off. A side asks for a change, and the other
//! one agrees or refuses. The Q method answers a verb only if the option changes by it, so no two
//! hosts can answer each other for ever.
//!
//! | the peer offers or asks for an option | answer |
//! | --- | --- |
//! | that a turn has asked for | agreed to, now and later |
//! | that a turn has asked to leave off, or has not named | refused |
//!
//! An option that is off, and that no turn has asked for, takes no room. So a peer can't fill the
//! table: turns alone add to it.
//!
//! Stored form: the framing's number, the version, the bytes of the line that were answered (4
//! bytes, little-endian). Version 2 has two bytes behind that for each option: its number, then
//! the host's side in the low half of a byte and the peer's in the high half. Without options
//! version 1 is written, which older hosts read.

use super::super::frame::{FrameState, STORED_BYTES_MAX};
use arrayvec::ArrayVec;
use greenroom_state::abi;

/// Demand that the peer leaves an option off.
pub(super) const DONT: u8 = 254;
/// Request that the host turns an option on.
pub(super) const DO: u8 = 253;
/// Refusal to turn an option on.
pub(super) const WONT: u8 = 252;
/// Offer to turn an option on.
pub(super) const WILL: u8 = 251;
/// Bytes as they are, without the meaning of CR (RFC 856).
pub(super) const BINARY: u8 = 0;
/// No GA behind a prompt (RFC 858).
pub(super) const SUPPRESS_GO_AHEAD: u8 = 3;
/// Mark at the end of a record, which stands behind a prompt (RFC 885).
pub(super) const END_OF_RECORD: u8 = 25;

/// Bytes of the stored form before the options.
const HEAD_BYTES: usize = 6;
/// Most options that a session holds which are on, under way, or agreed to.
const OPTIONS_MAX: usize = (STORED_BYTES_MAX - HEAD_BYTES) / 2;
/// Version of the stored form without options.
const VERSION_PLAIN: u8 = 1;
/// Version of the stored form with options.
const VERSION_OPTIONS: u8 = 2;

/// Bit of a side's half byte: a turn has asked for the option, so an offer of it is agreed to.
const AGREED: u8 = 8;

/// Progress of an option on one side, the low three bits of its half byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Progress {
    /// Off.
    No = 0,
    /// On.
    Yes = 1,
    /// Asked to turn it off; no answer yet.
    WantNo = 2,
    /// The same, and a request to turn it on follows the answer.
    WantNoThenYes = 3,
    /// Asked to turn it on; no answer yet.
    WantYes = 4,
    /// The same, and a request to turn it off follows the answer.
    WantYesThenNo = 5,
}

/// Outcome of a verb that the peer sent, for one side.
struct Step {
    next: Progress,
    /// Verb that is sent: whether it is the one that turns on.
    says: Option<bool>,
    /// Whether a handler is told: an option changed, a request was answered, an offer was refused.
    is_news: bool,
}

impl Progress {
    /// Reads three bits. `None`: they mean nothing.
    fn from_bits(bits: u8) -> Option<Progress> {
        use Progress::*;
        [No, Yes, WantNo, WantNoThenYes, WantYes, WantYesThenNo].get(usize::from(bits)).copied()
    }

    /// Takes a verb of the peer: WILL or DO (`on`), WONT or DONT. The table of RFC 1143,
    /// section 7.
    fn heard(self, on: bool, agreed: bool) -> Step {
        use Progress::*;
        let (next, says, is_news) = match (self, on) {
            (No, true) if agreed => (Yes, Some(true), true),
            (No, true) => (No, Some(false), true),
            (Yes, true) | (No, false) => (self, None, false),
            // A refusal that is answered by an offer breaks the rules: the peer has its way once.
            (WantNo, true) => (No, None, true),
            (WantNoThenYes | WantYes, true) => (Yes, None, true),
            (WantYesThenNo, true) => (WantNo, Some(false), false),
            (Yes, false) => (No, Some(false), true),
            (WantNo | WantYes | WantYesThenNo, false) => (No, None, true),
            (WantNoThenYes, false) => (WantYes, Some(true), false),
        };
        Step { next, says, is_news }
    }

    /// Takes a wish of a turn. Returns the progress, and the verb to send.
    fn wished(self, on: bool) -> (Progress, Option<bool>) {
        use Progress::*;
        match (self, on) {
            (No, true) => (WantYes, Some(true)),
            (WantNo, true) => (WantNoThenYes, None),
            (WantYesThenNo, true) => (WantYes, None),
            (Yes, false) => (WantNo, Some(false)),
            (WantNoThenYes, false) => (WantNo, None),
            (WantYes, false) => (WantYesThenNo, None),
            _ => (self, None),
        }
    }
}

/// Side of the connection that an option is on or off for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Ours: WILL and WONT are said by us, DO and DONT by the peer.
    Host,
    /// The peer's: the other way round.
    Peer,
}

impl Side {
    /// Place of its half byte.
    fn shift(self) -> u8 {
        match self {
            Side::Host => 0,
            Side::Peer => 4,
        }
    }

    /// Verb that we send about it.
    fn verb(self, on: bool) -> u8 {
        match (self, on) {
            (Side::Host, true) => WILL,
            (Side::Host, false) => WONT,
            (Side::Peer, true) => DO,
            (Side::Peer, false) => DONT,
        }
    }
}

/// Side and direction of a verb that the peer sends; `None`: it is no verb.
fn heard_verb(verb: u8) -> Option<(Side, bool)> {
    match verb {
        WILL => Some((Side::Peer, true)),
        WONT => Some((Side::Peer, false)),
        DO => Some((Side::Host, true)),
        DONT => Some((Side::Host, false)),
        _ => None,
    }
}

/// Answer to a verb of the peer.
pub(super) struct Answer {
    /// Verb to send back.
    pub(super) verb: Option<u8>,
    /// Whether a handler is told of it.
    pub(super) is_news: bool,
    /// Whether the option is on now, on the side that the verb is about.
    pub(super) is_on: bool,
}

/// State of a telnet session between two cuts, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TelnetState {
    /// Bytes of the unconsumed line whose commands were dealt with.
    pub(super) answered: u32,
    /// Options that are not off, or agreed to: number, and both sides.
    options: ArrayVec<(u8, u8), OPTIONS_MAX>,
}

impl TelnetState {
    /// Decodes stored bytes. Those of another framing, of another version or of a wrong length
    /// count as none.
    pub(super) fn read(stored: &[u8]) -> TelnetState {
        let mut state = TelnetState::default();
        let [framing, version, a, b, c, d, rest @ ..] = stored else { return state };
        let is_known = match *version {
            VERSION_PLAIN => rest.is_empty(),
            VERSION_OPTIONS => rest.len() % 2 == 0,
            _ => false,
        };
        if *framing != abi::framing::TELNET as u8 || !is_known {
            return state;
        }
        state.answered = u32::from_le_bytes([*a, *b, *c, *d]);
        for pair in rest.chunks_exact(2).take(OPTIONS_MAX) {
            state.options.push((pair[0], pair[1]));
        }
        state
    }

    /// Encodes the state. Nothing is stored if no command of the line was dealt with, and no
    /// option differs from what it is at first.
    pub(super) fn write(&self, state: &mut FrameState) {
        if self.answered == 0 && self.options.is_empty() {
            return state.store(&[]);
        }
        let version = if self.options.is_empty() { VERSION_PLAIN } else { VERSION_OPTIONS };
        let mut bytes = ArrayVec::<u8, STORED_BYTES_MAX>::new();
        bytes.extend([abi::framing::TELNET as u8, version]);
        bytes.extend(self.answered.to_le_bytes());
        bytes.extend(self.options.iter().flat_map(|(option, sides)| [*option, *sides]));
        state.store(&bytes);
    }

    /// Half byte of a side. An option without an entry is off.
    fn half(&self, option: u8, side: Side) -> (Progress, bool) {
        let sides = self.options.iter().find(|(o, _)| *o == option).map_or(0, |(_, sides)| *sides);
        let half = sides >> side.shift();
        (Progress::from_bits(half & 7).unwrap_or(Progress::No), half & AGREED != 0)
    }

    /// Sets the half byte of a side. False: the table is full, and nothing has changed.
    fn set(&mut self, option: u8, side: Side, progress: Progress, agreed: bool) -> bool {
        let half = progress as u8 | if agreed { AGREED } else { 0 };
        let at = self.options.iter().position(|(o, _)| *o == option);
        let before = at.map_or(0, |at| self.options[at].1);
        let sides = before & !(15 << side.shift()) | half << side.shift();
        match at {
            Some(at) if sides == 0 => drop(self.options.remove(at)),
            Some(at) => self.options[at].1 = sides,
            None if sides == 0 => {}
            None => return self.options.try_push((option, sides)).is_ok(),
        }
        true
    }

    /// Whether an option is on. For the peer, until it says that it is off: bytes before that
    /// were sent with it on.
    pub(super) fn is_on(&self, option: u8, side: Side) -> bool {
        use Progress::*;
        match (side, self.half(option, side).0) {
            (_, Yes) | (Side::Peer, WantNo | WantNoThenYes) => true,
            (_, No | WantNo | WantNoThenYes | WantYes | WantYesThenNo) => false,
        }
    }

    /// Whether an option is on for either side, so that its subnegotiations mean something.
    pub(super) fn is_on_somewhere(&self, option: u8) -> bool {
        self.is_on(option, Side::Host) || self.is_on(option, Side::Peer)
    }

    /// Takes a verb that the peer sent about an option.
    pub(super) fn hear(&mut self, verb: u8, option: u8) -> Answer {
        let nothing = Answer { verb: None, is_news: false, is_on: false };
        let Some((side, on)) = heard_verb(verb) else { return nothing };
        let (progress, agreed) = self.half(option, side);
        let step = progress.heard(on, agreed);
        // Has room: a verb of the peer adds no option that a turn has not added.
        self.set(option, side, step.next, agreed);
        Answer {
            verb: step.says.map(|on| side.verb(on)),
            is_news: step.is_news,
            is_on: self.is_on(option, side),
        }
    }

    /// Takes a wish of a turn, as the verb that it wants to say. Returns the verb to send;
    /// `Ok(None)`: none is due now. Fails if the session has [`OPTIONS_MAX`] other options.
    pub(super) fn wish(&mut self, verb: u8, option: u8) -> Result<Option<u8>, ()> {
        let (side, on) = match verb {
            WILL | WONT => (Side::Host, verb == WILL),
            _ => (Side::Peer, verb == DO),
        };
        let (next, says) = self.half(option, side).0.wished(on);
        match self.set(option, side, next, on) {
            true => Ok(says.map(|on| side.verb(on))),
            false => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts that talk to each other until neither has anything to say. Returns the number of
    /// verbs.
    fn talk(hosts: &mut [TelnetState; 2], wires: &mut [Vec<(u8, u8)>; 2]) -> usize {
        let mut said = 0;
        while let Some(to) = (0..2).find(|to| !wires[*to].is_empty()) {
            let (verb, option) = wires[to].remove(0);
            said += 1;
            assert!(said < 1000, "a loop");
            let answer = hosts[to].hear(verb, option).verb;
            wires[1 - to].extend(answer.map(|verb| (verb, option)));
        }
        said
    }

    /// Random wishes of both ends at random times: each talk ends, and both ends agree.
    #[test]
    fn two_hosts_never_loop_and_agree() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..2000 {
            let mut hosts: [TelnetState; 2] = Default::default();
            let mut wires: [Vec<(u8, u8)>; 2] = Default::default();
            for _ in 0..random.usize(1..12) {
                let from = random.usize(0..2);
                let verb = [WILL, WONT, DO, DONT][random.usize(0..4)];
                let option = random.u8(0..3);
                let says = hosts[from].wish(verb, option).expect("room");
                wires[1 - from].extend(says.map(|verb| (verb, option)));
                // Some verbs cross others on their way.
                if random.bool() {
                    let to = random.usize(0..2);
                    if !wires[to].is_empty() {
                        let (verb, option) = wires[to].remove(0);
                        let answer = hosts[to].hear(verb, option).verb;
                        wires[1 - to].extend(answer.map(|verb| (verb, option)));
                    }
                }
            }
            talk(&mut hosts, &mut wires);
            for option in 0..3 {
                assert_eq!(hosts[0].is_on(option, Side::Host), hosts[1].is_on(option, Side::Peer));
                assert_eq!(hosts[0].is_on(option, Side::Peer), hosts[1].is_on(option, Side::Host));
                let settled =
                    |h: &TelnetState, side| matches!(h.half(option, side).0, Progress::No | Progress::Yes);
                for host in &hosts {
                    assert!(settled(host, Side::Host) && settled(host, Side::Peer), "{host:?}");
                }
            }
        }
    }

    /// Offers that no turn has asked for leave no trace, however many there are.
    #[test]
    fn a_peer_cannot_fill_the_table() {
        let mut state = TelnetState::default();
        for option in 0..=255 {
            for verb in [WILL, DO, WONT, DONT, WILL, DO] {
                state.hear(verb, option);
            }
        }
        assert_eq!(state, TelnetState::default());
    }

    /// The longest table fits its record, and one option more is refused.
    #[test]
    fn the_table_is_bounded_and_comes_back_as_it_was() {
        let mut state = TelnetState { answered: 70_000, ..TelnetState::default() };
        for option in 0..OPTIONS_MAX as u8 {
            assert_eq!(state.wish(DO, option), Ok(Some(DO)));
        }
        assert_eq!(state.wish(WILL, 200), Err(()));
        assert_eq!(state.wish(WONT, 200), Ok(None), "an option that stays off takes no room");
        let mut stored = FrameState::default();
        state.write(&mut stored);
        assert_eq!(stored.stored().len(), STORED_BYTES_MAX);
        assert_eq!(TelnetState::read(stored.stored()), state);
        for option in 0..OPTIONS_MAX as u8 {
            state.wish(DONT, option).expect("it is there");
            state.hear(WONT, option);
        }
        assert!(state.options.is_empty());
    }

    /// Options that a turn has asked for once are agreed to whenever the peer offers them.
    #[test]
    fn an_option_that_was_asked_for_is_agreed_to_later() {
        let mut state = TelnetState::default();
        assert_eq!(state.wish(DO, 31), Ok(Some(DO)));
        let refused = state.hear(WONT, 31);
        assert!(refused.verb.is_none() && refused.is_news && !refused.is_on);
        let offered = state.hear(WILL, 31);
        assert!(offered.verb == Some(DO) && offered.is_news && offered.is_on);
        assert!(state.hear(WILL, 31).verb.is_none());
        // Left off from here on.
        assert_eq!(state.wish(DONT, 31), Ok(Some(DONT)));
        assert!(state.is_on(31, Side::Peer), "the peer has not heard of it yet");
        assert!(!state.hear(WONT, 31).is_on);
        assert_eq!(state.hear(WILL, 31).verb, Some(DONT));
        assert_eq!(state, TelnetState::default());
    }
}
