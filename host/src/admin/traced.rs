//! A turn that was watched, as a caller reads it: its state as the fields that changed.
//!
//! Made on the caller's thread, and never on the loop: states are parsed and compared here.

use crate::protocol::watch::TracedTurn;
use greenroom_core::turn::turn_record::{StateRecord, TurnOutcome, TurnRecord};
use greenroom_state::json;
use greenroom_state::sets::Sets;
use greenroom_state::value_change::value_changes;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// Tells a turn; `sets` are those of its state. O(bytes of its states).
pub fn traced(turn: &TurnRecord, sets: &Sets) -> TracedTurn {
    let (outcome, reason) = outcome(&turn.outcome);
    let (mut changes, mut raw) = (Vec::new(), None);
    if let (Some(after), TurnOutcome::Applied) = (&turn.after, &turn.outcome) {
        match json::to_json(&after.packed.0) {
            Ok(after) => changes = value_changes(&before(turn.before.as_ref(), &after), &after, sets),
            Err(_) => raw = Some(json::bytes_to_json(&after.packed.0)),
        }
    }
    let changed = turn.before.as_ref().zip(turn.after.as_ref());
    let migrated_from = changed.filter(|(b, a)| b.version != a.version).map(|(b, _)| b.version);
    TracedTurn {
        at: at(turn.wall_ns),
        session: turn.session,
        service: turn.service.clone(),
        peer: turn.peer.clone(),
        turn: turn.turn,
        generation: turn.generation,
        build: turn.build.clone(),
        action: turn.action.clone(),
        changes,
        migrated_from,
        effects: turn.effects.clone(),
        closes: turn.closes,
        close_words: turn.close_words.clone(),
        log: turn.log.clone(),
        took_us: (turn.took_ns > 0).then(|| turn.took_ns as f64 / 1000.0),
        outcome: outcome.to_owned(),
        reason,
        fault: turn.fault.clone(),
        raw,
    }
}

/// State before a turn. Without one, an object without fields: each field of the first state is
/// new then.
fn before(state: Option<&StateRecord>, after: &Value) -> Value {
    let parsed = state.and_then(|s| json::to_json(&s.packed.0).ok());
    let none = if after.is_object() { Value::Object(serde_json::Map::new()) } else { Value::Null };
    parsed.unwrap_or(none)
}

/// Name of what came of a turn, and the reason of a refusal.
fn outcome(of: &TurnOutcome) -> (&'static str, Option<String>) {
    match of {
        TurnOutcome::Applied => ("applied", None),
        TurnOutcome::Failed => ("failed", None),
        TurnOutcome::AskedBefore => ("asked-before", None),
        TurnOutcome::Refused(why) => ("refused", Some(why.clone())),
        TurnOutcome::Quarantined => ("quarantined", None),
    }
}

/// Time of a pass, RFC 3339 with microseconds.
fn at(wall_ns: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns);
    humantime::format_rfc3339_micros(time).to_string()
}
