//! Ends that come from outside: a peer ends its side, or the connection breaks.

use super::Pass;
use super::close::last_turn;
use super::deliver::finish_if_peer_done;
use crate::host_state::end::gone;
use crate::ids::Slot;
use crate::session::life::Life;
use greenroom_state::abi::closed;

/// Notes that a peer has ended its side. An open session ends once its frames and waiting
/// actions have run; a draining one ends with its output; a lingering one ends now.
pub(crate) fn peer_done(pass: &mut Pass<'_>, slot: Slot) {
    let Some(s) = pass.host.sessions.get_mut(slot) else { return };
    s.peer_done = true;
    match s.life {
        Life::Open => {
            pass.host.sessions.touch(slot);
            finish_if_peer_done(pass, slot);
        }
        // Stored, so that a successor closes the session as soon as its output is flushed.
        Life::Draining => pass.host.sessions.touch(slot),
        Life::Lingering => gone(pass.host, slot),
    }
}

/// Ends a session whose connection broke, after its last turn. Unsent output is dropped: nobody
/// can take it.
pub(crate) fn broken(pass: &mut Pass<'_>, slot: Slot) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let open = s.life == Life::Open;
    s.drop_output(&mut host.store, &mut host.shared);
    if open {
        last_turn(pass, slot, closed::BROKEN);
    }
    gone(pass.host, slot);
}
