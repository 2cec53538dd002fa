//! Replay: code runs a recorded turn, with the recorded answers of the host.
//!
//! The core of a replay serves the candidate, and nothing else: no session, entry or topic is in
//! it. For each turn it gets a session like the recorded one, with the state as it was before. All
//! that the turn asks is answered from the record. Nothing is applied, so turns do not follow from
//! each other: a candidate that differs in one turn is asked about the next one as it was recorded.

use crate::effects::running_batch::RunningBatch;
use crate::execute::Executor;
use crate::execute::call::{Call, call_serving};
use crate::framing::frame::FrameState;
use crate::framing::peer::LocalEnd;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::session::carrier::Carrier;
use crate::session::life::Session;
use crate::session::socket_streams::Socket;
use crate::turn::tap::TurnTap;
use crate::turn::turn_record::{ReplayFacts, TurnRecord};
use greenroom_state::abi::{Action, action};

/// Slot of the session whose turn is played.
const SLOT: Slot = Slot(0);

/// Turn as other code has run it.
#[derive(Debug)]
pub struct Replayed {
    /// The turn, as it was noted.
    pub turn: TurnRecord,
    /// Questions that the recorded turn had not asked, in words.
    pub unknown: Vec<String>,
}

/// Runs a recorded turn with the build that serves its service. An error says why that can't be:
/// the record has not all that it takes, or the build can't take the turn.
pub(crate) fn replay(
    host: &mut HostState,
    executor: &mut Executor,
    recorded: &TurnRecord,
) -> Result<Replayed, String> {
    let seen = recorded.seen.as_ref().ok_or("it was watched, and not recorded")?;
    let reads = seen.reads.as_ref().ok_or("it asked the host for more than a recording keeps")?;
    let name = &recorded.service;
    let service = host.services.number(name).filter(|id| host.services[*id].build.is_some());
    let service = service.ok_or_else(|| format!("the library does not offer service {name}"))?;
    let version = host.services[service].offer.shape.version;
    if let Some(before) = recorded.before.as_ref().filter(|s| s.version > version) {
        let stored = before.version;
        return Err(format!("its state is of version {stored}, and the library reads up to {version}"));
    }
    host.now_ns = recorded.now_ns;
    host.take_wall_clock(recorded.wall_ns);
    let slot = match recorded.session {
        0 => {
            let slot = Slot::of_service(service);
            if let Some(s) = host.sessions.get_mut(slot) {
                s.turns = recorded.turn;
            }
            slot
        }
        _ => {
            let session = session(host, service, recorded, seen)?;
            host.sessions.insert(SLOT, session);
            SLOT
        }
    };
    let a = &recorded.action;
    let action = Action {
        kind: a.kind,
        detail: a.detail,
        data: a.data.0[..].into(),
        name: a.name.0[..].into(),
        from: a.from,
    };
    executor.know(Vec::new(), seen.page);
    if a.kind == action::DATAGRAM
        && let Some((from, len, port, ip)) = seen.datagram
    {
        executor.hear(LocalEnd { port, ip }, std::iter::once((from, len)));
    }
    executor.buffers.tap = Some(Box::new(TurnTap::playing(reads)));
    let running = RunningBatch::of_depth(a.depth);
    let call = Call { slot, actions: &[action], running: &running };
    let state = recorded.before.as_ref().map(|s| (s.version, &s.packed.0[..]));
    call_serving(host, call, state, &mut executor.buffers);
    let tap = executor.buffers.tap.take();
    executor.know(Vec::new(), None);
    executor.hear(LocalEnd::default(), std::iter::empty());
    host.sessions.remove(SLOT);
    let played = tap.and_then(|mut tap| Some((tap.take().pop()?, tap.unknown())));
    let (turn, unknown) = played.ok_or("the library ran no turn")?;
    Ok(Replayed { turn, unknown })
}

/// Session like the one of a recorded turn. Fails if the record can't be read.
fn session(
    host: &mut HostState,
    service: ServiceId,
    recorded: &TurnRecord,
    seen: &ReplayFacts,
) -> Result<Session, String> {
    let facts = &seen.session;
    let peer = recorded.peer.parse().map_err(|e| format!("its peer can't be read: {e}"))?;
    let mut s = Session::new(recorded.session, service, peer, 0);
    let framings = &mut host.services.get_mut(service).ok_or("no such service")?.framings;
    s.framing = framings.number(&facts.framing).ok_or("its service has too many framings")?;
    s.frame = FrameState::new(0, &facts.frame.0).ok_or("the state of its framing is too long")?;
    s.socket = if facts.in_socket { Socket::Open } else { Socket::None };
    s.carrier = if facts.over_tls { Carrier::Tls } else { Carrier::Plain };
    s.outbound = facts.outbound;
    s.turns = recorded.turn;
    (s.bytes_in, s.bytes_out, s.bytes_sent) = (facts.bytes_in, facts.bytes_out, facts.bytes_sent);
    Ok(s)
}
