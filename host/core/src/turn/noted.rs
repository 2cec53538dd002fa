//! Notes of turns that somebody watches: what a call makes of the turn under way.

use super::code::Batch;
use super::effect_telling::effect_records;
use super::reads::Reads;
use super::staging::{Buffers, Staging};
use super::tap::TurnTap;
use super::turn_record::{ActionRecord, ReplayFacts, SessionFacts, StateRecord, TurnOutcome, TurnRecord};
use crate::effects::action_name::action_name;
use crate::framing::Framing;
use crate::ids::{ServiceId, public_number};
use crate::session::life::Session;

/// Parts of the record of a turn that come from the host and the build.
pub(crate) struct TapNames<'a> {
    /// Name of the turn's service.
    pub(crate) service: &'a str,
    /// Hash of the build's file.
    pub(crate) build: &'a str,
    /// Version in which the build writes states.
    pub(crate) version: u32,
    /// Framing of what is sent to the session.
    pub(crate) framing: Framing,
    /// Turns between the action and something from outside.
    pub(crate) depth: u16,
    /// Time of the calendar.
    pub(crate) wall_ns: u64,
    /// Name and data of the action.
    pub(crate) action: (&'a [u8], &'a [u8]),
    /// Names of services.
    pub(crate) services: &'a dyn Fn(ServiceId) -> String,
}

/// Notes a turn behind its call. The buffers hold its outcome.
pub(crate) fn note(
    tap: &mut TurnTap,
    batch: &Batch<'_>,
    session: &Session,
    staged: &Buffers,
    names: &TapNames<'_>,
) {
    let (name, data) = names.action;
    let first = batch.actions.first();
    let action = first.map_or_else(ActionRecord::default, |action| ActionRecord {
        kind: action.kind,
        action: action_name(action.kind).to_owned(),
        detail: action.detail,
        from: action.from,
        name: name.into(),
        data: data.into(),
        depth: names.depth,
    });
    let version = names.version;
    let after = staged.has_state.then(|| StateRecord { version, packed: staged.state[..].into() });
    let seen = match tap.reads() {
        Some(Reads::Kept(kept)) => Some(Box::new(ReplayFacts {
            session: facts(session, names.framing),
            reads: kept.take(),
            page: staged.page,
            datagram: staged
                .datagrams
                .all
                .first()
                .map(|(from, len)| (*from, *len, staged.datagrams.end.port, staged.datagrams.end.ip)),
        })),
        _ => None,
    };
    tap.add(TurnRecord {
        session: public_number(batch.session),
        service: names.service.to_owned(),
        peer: if session.is_service() { String::new() } else { session.peer.to_string() },
        turn: batch.turn,
        generation: batch.generation,
        build: names.build.to_owned(),
        version,
        wall_ns: names.wall_ns,
        now_ns: batch.now_ns,
        action,
        before: batch.state.map(|(version, bytes)| StateRecord { version, packed: bytes.into() }),
        after,
        effects: effect_records(staged, batch.now_ns, names.services),
        closes: staged.close,
        close_words: staged.close_words.as_deref().cloned().filter(|_| staged.close),
        fault: staged.fault.clone(),
        fault_reply: staged.fault_reply.clone().filter(|_| staged.fault.is_some()),
        log: staged.log.clone(),
        took_ns: staged.took_ns.unwrap_or(0),
        outcome: match staged.fault {
            Some(_) => TurnOutcome::Failed,
            None => TurnOutcome::Applied,
        },
        seen,
    });
}

/// Facts of a session, for a replay.
fn facts(s: &Session, framing: Framing) -> SessionFacts {
    SessionFacts {
        framing,
        frame: s.frame.stored().into(),
        in_socket: s.in_socket(),
        outbound: s.outbound,
        over_tls: s.over_tls(),
        bytes_in: s.bytes_in,
        bytes_out: s.bytes_out,
        bytes_sent: s.bytes_sent,
    }
}

impl Staging<'_> {
    /// Tells how long the call took, in nanoseconds. Code does so behind its last turn.
    pub fn took(&mut self, ns: u64) {
        self.buffers.took_ns = Some(ns);
    }

    /// Whether a turn of the call has failed.
    #[inline]
    pub fn has_failed(&self) -> bool {
        self.buffers.fault.is_some()
    }

    /// Whether somebody watches the turn, and wants to know how long it takes.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.context.is_watched
    }
}
