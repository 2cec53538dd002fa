//! Redaction of a recording: values of named fields are replaced before they leave the host.
//!
//! A field is named as in a state, without the path to it: `password` is every field of that name,
//! at whatever depth, in states, in values of tables and in messages that are JSON or MessagePack.
//!
//! | value | replaced by |
//! | --- | --- |
//! | text of 4 bytes or more | letters of the same length, wherever it occurs in the turn |
//! | shorter text | letters of the same length, in its field |
//! | number, truth value | 0, false, in its field |
//!
//! The letters follow from the value and from a secret of the recording. So equal values stay equal
//! within a recording: a turn that sends a secret back, or looks it up, is replayed as it was. Code
//! that computes with a redacted value may differ in a replay, and such turns are marked.

use greenroom_core::turn::turn_record::TurnRecord;
use greenroom_state::byte_text::ByteText;
use greenroom_state::json;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// Length from which a value is replaced wherever it occurs. Shorter ones occur by chance.
const EVERYWHERE_FROM: usize = 4;

/// Fields whose values are replaced, and the secret of the recording.
pub(super) struct Redaction {
    fields: Vec<String>,
    secret: RandomState,
}

impl Redaction {
    /// Redaction of these fields. Fails for a name that is none.
    pub(super) fn new(fields: &[String]) -> Result<Redaction, String> {
        match fields.iter().find(|f| f.is_empty() || f.contains(['.', '['])) {
            Some(field) => Err(format!(
                "--redact {field:?}: name a field without the path to it, such as `password`; every field of \
                 that name is replaced"
            )),
            None => Ok(Redaction { fields: fields.to_vec(), secret: RandomState::new() }),
        }
    }

    /// Replaces values of a turn. Returns whether there were any. O(bytes of the turn times
    /// values).
    pub(super) fn apply(&self, turn: &mut TurnRecord) -> bool {
        if self.fields.is_empty() {
            return false;
        }
        let mut found = BTreeMap::new();
        let mut is_any = false;
        for part in parts(turn) {
            if let Some(replaced) = self.in_fields(&part.0, &mut found) {
                is_any = true;
                part.0 = replaced;
            }
        }
        // Longest first: a value may be part of another one.
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        for part in parts(turn) {
            for (value, letters) in &found {
                replace_all(&mut part.0, value, letters);
            }
        }
        let texts = turn.log.iter_mut().map(|l| &mut l.message);
        for text in texts.chain(turn.fault.iter_mut().map(|f| &mut f.message)) {
            for (value, letters) in &found {
                if let (Ok(value), Ok(letters)) = (std::str::from_utf8(value), std::str::from_utf8(letters)) {
                    *text = text.replace(value, letters);
                }
            }
        }
        is_any
    }

    /// Replaces named fields of bytes that are a document of MessagePack or JSON. `None`: they are
    /// none, or have no such field.
    fn in_fields(&self, bytes: &[u8], found: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
        // Most bytes that are sent are neither.
        if let Ok(mut value) = json::to_json(bytes)
            && (value.is_object() || value.is_array())
        {
            return self.in_value(&mut value, false, found).then(|| json::from_json(&value).ok()).flatten();
        }
        let end = bytes.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |at| at + 1);
        let mut value: Value = match bytes.first() {
            Some(b'{' | b'[') => greenroom_state::parse::parse_written(&bytes[..end]).ok()?,
            _ => return None,
        };
        self.in_value(&mut value, false, found).then(|| {
            let mut text = value.to_string().into_bytes();
            text.extend_from_slice(&bytes[end..]);
            text
        })
    }

    /// Replaces values. `named`: the value is in a named field. Returns whether any was replaced.
    fn in_value(&self, value: &mut Value, named: bool, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
        match value {
            Value::Object(map) => {
                let mut is_any = false;
                for (name, value) in map.iter_mut() {
                    let named = named || self.fields.contains(name);
                    is_any |= self.in_value(value, named, found);
                }
                is_any
            }
            Value::Array(items) => {
                items.iter_mut().fold(false, |is_any, v| self.in_value(v, named, found) | is_any)
            }
            _ if !named => false,
            Value::String(text) => {
                let letters = self.letters(text.as_bytes());
                if text.len() >= EVERYWHERE_FROM {
                    found.insert(text.clone().into_bytes(), letters.clone());
                }
                *text = String::from_utf8(letters).unwrap_or_default();
                true
            }
            Value::Number(_) => {
                *value = Value::from(0);
                true
            }
            Value::Bool(_) => {
                *value = Value::Bool(false);
                true
            }
            Value::Null => false,
        }
    }

    /// Letters in place of a value: as many as it has bytes.
    fn letters(&self, value: &[u8]) -> Vec<u8> {
        let mut seed = self.secret.hash_one(value);
        let letter = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'a' + ((seed >> 33) % 26) as u8
        };
        (0..value.len()).map(letter).collect()
    }
}

/// All bytes of a turn that may hold values.
fn parts(turn: &mut TurnRecord) -> Vec<&mut ByteText> {
    let TurnRecord { action, before, after, effects, seen, .. } = turn;
    let mut all = vec![&mut action.data, &mut action.name];
    all.extend(before.iter_mut().chain(after).map(|s| &mut s.packed));
    for e in effects {
        all.extend([&mut e.name, &mut e.key, &mut e.data].into_iter().flatten());
        all.extend(&mut e.topics);
    }
    for read in seen.iter_mut().flat_map(|s| s.reads.iter_mut().flatten()) {
        all.extend([&mut read.name, &mut read.key]);
        all.extend(read.answer.iter_mut().map(|(_, bytes)| bytes));
    }
    all
}

/// Replaces each occurrence of a value by bytes of the same length.
fn replace_all(bytes: &mut [u8], value: &[u8], by: &[u8]) {
    let mut at = 0;
    while at + value.len() <= bytes.len() {
        match bytes[at..].starts_with(value) {
            true => {
                bytes[at..at + value.len()].copy_from_slice(by);
                at += value.len();
            }
            false => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::turn::effect_record::EffectRecord;
    use serde_json::json;

    #[test]
    fn a_value_is_replaced_wherever_it_occurs() {
        let redaction = Redaction::new(&["secret".to_owned(), "pin".to_owned()]).unwrap();
        let state = json::from_json(&json!({"secret": "hunter22", "pin": 1234, "nick": "ann"})).unwrap();
        let line = br#"{"a": {"secret": "hunter22"}, "b": 1}"#;
        let mut turn: TurnRecord = serde_json::from_value(json!({
            "session": 1, "service": "s", "peer": "", "turn": 1, "generation": 1, "build": "", "version": 1,
            "wall_ns": 0, "now_ns": 0, "action": {"kind": 2, "action": "message",
            "data": json::bytes_to_json(line)}, "before": {"version": 1, "packed": json::bytes_to_json(&state)},
            "effects": [], "closes": false, "log": [], "took_ns": 0, "outcome": "applied"
        }))
        .unwrap();
        let data = Some(ByteText::from(&b"you said hunter22\n"[..]));
        turn.effects.push(EffectRecord { effect: "send".into(), data, ..EffectRecord::default() });
        assert!(redaction.apply(&mut turn));
        let all = serde_json::to_string(&turn).unwrap();
        assert!(!all.contains("hunter22") && !all.contains("1234"), "{all}");
        let state = json::to_json(&turn.before.unwrap().packed.0).unwrap();
        assert_eq!((&state["nick"], &state["pin"]), (&json!("ann"), &json!(0)));
        let letters = state["secret"].as_str().unwrap();
        let sent = String::from_utf8(turn.effects[0].data.clone().unwrap().0).unwrap();
        assert_eq!(sent, format!("you said {letters}\n"));
        let message: Value = serde_json::from_slice(&turn.action.data.0).unwrap();
        assert_eq!(message, json!({"a": {"secret": letters}, "b": 1}));
        assert!(Redaction::new(&["a.b".to_owned()]).is_err());
    }
}
