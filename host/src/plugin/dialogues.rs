//! Dialogues in a rehearsal: a candidate is asked what becomes of the sessions that are in one.
//!
//! The record of a dialogue is a map in the state, whose key `asked` names the question that waits.
//! Sessions without one are not asked about: that would double the time of a rehearsal. The
//! candidate runs the dialogue along its answers, in a turn of which nothing is kept.

use greenroom_core::core::Core;
use greenroom_core::ids::Slot;
use greenroom_core::service::convert::Reread;
use greenroom_state::dialogue_report::DialogueReport;

/// Key of a record and the beginning of its value, as MessagePack.
const ASKED: &[u8] = b"\xa5asked";
/// Null as MessagePack: no question waits.
const NIL: u8 = 0xc0;

/// Asks about the dialogue of a session whose state was read, if it is in one.
pub(super) fn retrace(core: &mut Core, slot: Slot, read: &Reread, report: &mut DialogueReport) {
    let state = read.after.as_deref().or(read.before.as_ref().map(|(_, state)| &state[..]));
    if !state.is_some_and(may_wait) {
        return;
    }
    match core.operator().retrace(slot) {
        Ok(None) => {}
        Ok(Some(told)) => report
            .saw(serde_json::from_str(&told).map_err(|e| format!("its answer can't be read: {e}: {told:?}"))),
        Err(why) => report.saw(Err(why)),
    }
}

/// Whether a state may have a dialogue whose question waits. O(bytes).
fn may_wait(state: &[u8]) -> bool {
    let keys = state.windows(ASKED.len() + 1).filter(|w| w.starts_with(ASKED));
    keys.into_iter().any(|w| w[ASKED.len()] != NIL)
}
