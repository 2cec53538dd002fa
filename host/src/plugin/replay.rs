//! Replay of a recording, in the trial's child: a candidate runs recorded turns, and what it does
//! is compared with what was done.
//!
//! Compared are the state behind the turn, field by field, the effects in their order, the end of
//! the session, and the fault. States of another version are converted by the candidate first, the
//! recorded as well as its own. Values of tables are compared as values, not as bytes. Log lines,
//! and the place of a fault in the source, may differ.
//!
//! A turn that asks the host for something that the recorded one did not ask has no answer. That is
//! a difference, too.

use crate::plugin::recording::each_turn;
use crate::protocol::watch::RecordedTurn;
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use greenroom_core::operate::replay::Replayed;
use greenroom_core::service::offer::{Build, Offer, Serving};
use greenroom_core::turn::effect_record::EffectRecord;
use greenroom_core::turn::turn_record::{StateRecord, TurnOutcome, TurnRecord};
use greenroom_state::json;
use greenroom_state::same_value::{same_value, same_with_sets};
use greenroom_state::sets::Sets;
use greenroom_state::value_change::{ValueChange, present, value_changes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// Differences that a report has. The rest is counted.
const DIFFERENCES_MAX: usize = 1000;

/// Order to replay a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayOrder {
    /// Limits of the host that were in force.
    pub limits: Limits,
    /// Limits that single services had.
    pub service_limits: BTreeMap<String, ServiceLimits>,
    /// Patterns of differences that are wanted: `FIELD`, or `SERVICE:FIELD`, with `*` for any
    /// characters.
    pub allow: Vec<String>,
}

/// Report of a replay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Turns of the recording.
    pub turns: u64,
    /// Turns that were replayed.
    pub replayed: u64,
    /// Turns that were not, by the reason.
    pub left_out: BTreeMap<String, u64>,
    /// Turns that differ, beyond what is allowed.
    pub differing: u64,
    /// Differences that are allowed.
    pub allowed: u64,
    /// Differences that are not, the first ones.
    pub differences: Vec<TurnDifference>,
}

/// Difference between a recorded turn and the candidate's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TurnDifference {
    /// Line of the recording.
    pub line: u64,
    /// Service of the session.
    pub service: String,
    /// Number of the session; 0: the service itself.
    pub session: u64,
    /// Number of the turn.
    pub turn: u64,
    /// Name of the action.
    pub action: String,
    /// Path of what differs, such as `state.count` or `effects.0.data`.
    pub field: String,
    /// Recorded value; none: it was not there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Value>,
    /// Value of the candidate; none: it is not there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Value>,
    /// Whether values of the turn were replaced in the recording, which may be the cause.
    #[serde(default)]
    pub redacted: bool,
}

/// Replays a recording. `tell` gets the turns that are done. An error means that the recording
/// can't be read.
pub(super) fn replay(
    library: &str,
    serving: Serving,
    order: &ReplayOrder,
    lines: impl Read,
    mut tell: impl FnMut(u64),
) -> Result<ReplayReport, String> {
    let offers: Vec<Offer> = serving.iter().map(|(offer, _)| offer.clone()).collect();
    let mut core = Core::new(order.limits.clone());
    let build = Build { library: library.to_owned(), generation: 0, hash: String::new() };
    core.adopt(&build, serving);
    let services = order.service_limits.clone();
    core.set_limits(AllLimits { services, ..AllLimits::from(order.limits.clone()) });
    let mut report = ReplayReport::default();
    each_turn(lines, |line, recorded| {
        report.turns += 1;
        if report.turns.is_multiple_of(1000) {
            tell(report.turns);
        }
        let RecordedTurn { redacted, turn, .. } = recorded;
        let compared = match turn.outcome {
            // Its turn by the previous build follows.
            TurnOutcome::AskedBefore => Err("the previous build was asked instead".to_owned()),
            TurnOutcome::Quarantined => Err("the build could not read the state".to_owned()),
            _ => core.operator().replay(&turn).map(|replayed| compare(&core, &offers, &turn, replayed)),
        };
        match compared {
            Ok(changes) => {
                report.replayed += 1;
                report.take(line, &turn, redacted, changes, &order.allow);
            }
            Err(why) => *report.left_out.entry(why).or_default() += 1,
        }
        Ok(())
    })?;
    tell(report.turns);
    Ok(report)
}

impl ReplayReport {
    /// Takes the differences of a turn.
    fn take(
        &mut self,
        line: u64,
        turn: &TurnRecord,
        redacted: bool,
        changes: Vec<ValueChange>,
        allow: &[String],
    ) {
        let allowed = |c: &ValueChange| allow.iter().any(|p| is_allowed(p, &turn.service, &c.field));
        let (allowed, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(allowed);
        self.allowed += allowed.len() as u64;
        self.differing += u64::from(!others.is_empty());
        let room = DIFFERENCES_MAX - self.differences.len();
        self.differences.extend(others.into_iter().take(room).map(|c| TurnDifference {
            line,
            service: turn.service.clone(),
            session: turn.session,
            turn: turn.turn,
            action: turn.action.action.clone(),
            field: c.field,
            recorded: c.before,
            candidate: c.after,
            redacted,
        }));
    }

    /// Describes the outcome in a line.
    pub fn in_words(&self) -> String {
        let left_out: u64 = self.left_out.values().sum();
        let mut text = match self.differing {
            0 => format!("{} turns replayed, no difference", self.replayed),
            n => format!("{} turns replayed, {n} differ", self.replayed),
        };
        if self.allowed > 0 {
            text += &format!(", {} differences are allowed", self.allowed);
        }
        if left_out > 0 {
            let why: Vec<_> = self.left_out.iter().map(|(why, n)| format!("{n}: {why}")).collect();
            text += &format!(", {left_out} left out ({})", why.join("; "));
        }
        text
    }
}

impl TurnDifference {
    /// Describes the difference in a line.
    pub fn in_words(&self) -> String {
        let who = match self.session {
            0 => self.service.clone(),
            id => format!("{} {id}", self.service),
        };
        let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
        let mark = if self.redacted { " (values of this turn were redacted)" } else { "" };
        format!(
            "{who} turn {} ({}): {}: {} -> {}{mark}",
            self.turn,
            self.action,
            self.field,
            shown(&self.recorded),
            shown(&self.candidate)
        )
    }
}

/// Whether a pattern allows a difference.
fn is_allowed(pattern: &str, service: &str, field: &str) -> bool {
    let (of, pattern) = pattern.split_once(':').unwrap_or(("*", pattern));
    matches(of, service) && matches(pattern, field)
}

/// Whether a text matches a pattern, in which `*` is any characters. O(pattern times text).
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Differences between a recorded turn and the candidate's.
fn compare(core: &Core, offers: &[Offer], recorded: &TurnRecord, replayed: Replayed) -> Vec<ValueChange> {
    let Replayed { turn, unknown } = replayed;
    let offer = offers.iter().find(|o| o.name == recorded.service);
    let mut changes = match (&recorded.fault, &turn.fault, offer) {
        (None, None, Some(offer)) => states(core, offer, recorded, &turn),
        _ => Vec::new(),
    };
    let (before, mut after) = (told(recorded), told(&turn));
    for (at, (a, b)) in recorded.effects.iter().zip(&turn.effects).enumerate() {
        if is_same_entry(core, a, b) {
            after["effects"][at]["data"] = before["effects"][at]["data"].clone();
        }
    }
    changes.extend(value_changes(&before, &after, &Sets::default()));
    if !unknown.is_empty() {
        let after = Some(json!(unknown));
        changes.push(ValueChange { field: "asks the host".into(), before: None, after });
    }
    changes
}

/// Differences of the states behind two turns. Both are read by the candidate first: they are of
/// its version then, and fields that it adds have their defaults in both.
fn states(core: &Core, offer: &Offer, recorded: &TurnRecord, played: &TurnRecord) -> Vec<ValueChange> {
    let sets = Sets::of(offer.shape.schema.as_ref());
    let behind = |t: &TurnRecord| t.after.clone().or_else(|| t.before.clone());
    let (Some(a), Some(b)) = (behind(recorded), behind(played)) else {
        let of = |s: Option<StateRecord>| s.map_or(Value::Null, |s| shown(&s.packed.0));
        return under("state", value_changes(&of(behind(recorded)), &of(behind(played)), &sets));
    };
    let service = core.service_named(&offer.name);
    let as_read = |s: &StateRecord| {
        let read = service.map(|id| core.convert(id, 0, s.version, offer.shape.version, &s.packed.0));
        read.and_then(Result::ok).unwrap_or_else(|| s.packed.0.clone())
    };
    let (a, b) = (as_read(&a), as_read(&b));
    match same_with_sets(&a, &b, &sets) {
        true => Vec::new(),
        false => under("state", value_changes(&shown(&a), &shown(&b), &sets)),
    }
}

/// Differences with their paths below a name.
fn under(name: &str, changes: Vec<ValueChange>) -> Vec<ValueChange> {
    let path = |field: &str| if field.is_empty() { name.to_owned() } else { format!("{name}.{field}") };
    changes.into_iter().map(|c| ValueChange { field: path(&c.field), ..c }).collect()
}

/// Value of MessagePack, or bytes.
fn shown(packed: &[u8]) -> Value {
    json::stored_to_json(packed)
}

/// Wishes of a turn and its end, as JSON: all that two turns must have in common.
fn told(turn: &TurnRecord) -> Value {
    let fault = turn.fault.as_ref().map(|f| json!({"kind": f.kind, "message": f.message}));
    json!({
        "effects": turn.effects.iter().map(effect).collect::<Vec<_>>(),
        "closes": turn.closes,
        "close_words": turn.close_words,
        "fault": fault,
        "fault_reply": turn.fault_reply,
    })
}

/// Whether two effects write one value to one entry, perhaps in another order.
fn is_same_entry(core: &Core, a: &EffectRecord, b: &EffectRecord) -> bool {
    let (Some(table), Some(x), Some(y)) = (&a.table, &a.data, &b.data) else { return false };
    let schema = std::str::from_utf8(&table.0).ok().and_then(|table| core.schema(None, Some(table)));
    a.table == b.table && a.key == b.key && same_value(&x.0, &y.0, schema)
}

/// An effect, with the value of an entry as a value: maps of the standard library are written in
/// an order of their own each time.
fn effect(e: &EffectRecord) -> Value {
    let mut told = serde_json::to_value(e).unwrap_or_default();
    if let (Some(_), Some(data)) = (&e.table, &e.data) {
        told["data"] = shown(&data.0);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_allow_fields_of_services() {
        assert!(is_allowed("state.*", "chat", "state.count") && is_allowed("*", "chat", "x"));
        assert!(is_allowed("chat:effects.*.data", "chat", "effects.12.data"));
        assert!(!is_allowed("chat:effects.*.data", "tally", "effects.12.data"));
        assert!(
            !is_allowed("state", "chat", "state.count") && !is_allowed("*.data", "chat", "effects.0.key")
        );
        assert!(matches("a*b*c", "a-bb-c") && !matches("a*b*c", "a-c") && matches("a", "a"));
    }
}
