//! TLS on streams in use: sessions whose handshake the keeper and the handshaker bring about.
//!
//! | event | step |
//! | --- | --- |
//! | the core's command, behind a commit | the keeper is asked |
//! | the keeper names the handshake, and its secrets are here | the session goes on over TLS |
//! | the handshake has failed, or its secrets are lost | the session ends |
//!
//! The command is repeated by each successor that finds the session still in its handshake. The
//! keeper begins a handshake once, and names it to each worker.

use crate::protocol::keeper::{BEGINNING_BYTES_MAX, HandshakeWanted};
use crate::worker::handshakes::check_counts;
use crate::worker::shell::Shell;
use greenroom_core::ids::Slot;
use greenroom_core::input::{Input, TlsBegin};

/// Asks the keeper for the handshake of a session that waits for it.
pub(super) fn ask(shell: &mut Shell, slot: Slot, id: u64) {
    let Some(due) = shell.core.handshake_of(slot) else { return };
    let server_name = Some(due.server_name.to_owned()).filter(|name| !name.is_empty());
    let wanted = HandshakeWanted { service: due.service.to_owned(), server_name, input: due.input.to_vec() };
    let why = match shell.sockets.key(slot) {
        // Its end is on the way.
        None => return,
        Some(_) if wanted.input.len() > BEGINNING_BYTES_MAX => {
            "its peer has sent more than the beginning of a handshake"
        }
        Some(key) if shell.keeper.start_tls((key, id), wanted) => return,
        Some(_) => "this host's keeper is of an earlier version, which has no handshake for it",
    };
    shell.core.handle(Input::HandshakeEnded { slot, outcome: Err(why) });
}

/// Deals with the handshakes whose secrets are here, and whose connections have a session: those
/// that wait go on over TLS. Of others a predecessor had committed the secrets, and died before it
/// said so.
pub(super) fn settle(shell: &mut Shell) {
    let Shell { core, handshakes, .. } = &mut *shell;
    for (connection, handshake) in handshakes.take_known(|n| core.sessions().slot_of(n).is_some()) {
        let slot = shell.core.sessions().slot_of(connection);
        let waits = |slot: &Slot| shell.core.sessions().get(*slot).is_some_and(|s| s.tls_due());
        if let Some(slot) = slot.filter(waits)
            && let Some(begin) = shell.handshakes.take(handshake)
        {
            go_on(shell, slot, &begin);
        }
        shell.handshakes.is_over(connection, handshake);
    }
}

/// Lets a session go on over TLS, if its stream is where the handshake left it.
fn go_on(shell: &mut Shell, slot: Slot, begin: &TlsBegin) {
    let Some(s) = shell.core.sessions().get(slot) else { return };
    // On an outbound connection the host's own SYN counts as a byte.
    let written = s.bytes_sent + begin.state.written + u64::from(s.outbound);
    let read = s.bytes_in + begin.state.read;
    let Some(socket) = shell.sockets.socket(slot) else { return };
    match check_counts(socket, read, written) {
        Ok(()) => shell.core.handle(Input::HandshakeEnded { slot, outcome: Ok(begin) }),
        Err(why) => shell.core.handle(Input::HandshakeEnded { slot, outcome: Err(&why) }),
    }
}

/// Ends the session of a connection whose handshake has failed.
pub(super) fn failed(shell: &mut Shell, connection: u64, why: &str) {
    if let Some(slot) = shell.core.sessions().slot_of(connection) {
        shell.core.handle(Input::HandshakeEnded { slot, outcome: Err(why) });
    }
}

/// Ends the sessions whose secrets are lost with their handshaker.
pub(super) fn give_up_lost(shell: &mut Shell) {
    let Shell { core, handshakes, .. } = &mut *shell;
    let waits = |n: u64| {
        let slot = core.sessions().slot_of(n);
        slot.and_then(|slot| core.sessions().get(slot)).is_some_and(|s| s.tls_due())
    };
    for (connection, handshake) in handshakes.lost_of(waits) {
        failed(shell, connection, "the handshaker has ended");
        shell.handshakes.is_over(connection, handshake);
    }
}
