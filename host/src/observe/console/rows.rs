//! Rows of the list of sessions, small: there may be 100,000 of them.

use crate::protocol::admin::SessionLine;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sessions in the order of their numbers.
pub(super) type Rows = Vec<Row>;

/// A session in the list. Texts that many sessions share are one text.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) id: u64,
    #[serde(serialize_with = "as_text")]
    pub(super) service: Arc<str>,
    #[serde(serialize_with = "as_text")]
    pub(super) endpoint: Arc<str>,
    pub(super) peer: Box<str>,
    pub(super) opened_at: Box<str>,
    pub(super) state_version: u32,
    pub(super) turns: u64,
    /// Turns each second, between the last two reads of the list.
    pub(super) rate: f32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) over_tls: bool,
    pub(super) waits_for: Option<Box<str>>,
    pub(super) quarantined: Option<Box<str>>,
    /// Facts of the handshake of TLS.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tls: BTreeMap<String, String>,
}

/// Writes a shared text as any other.
fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// Notes the turns each second of sessions that were there before. Both lists are in the order of
/// the numbers. O(sessions).
pub(super) fn note_rates(rows: &mut [Row], before: &[Row], seconds: f32) {
    let mut before = before.iter().peekable();
    for row in rows {
        while before.next_if(|b| b.id < row.id).is_some() {}
        if let Some(b) = before.next_if(|b| b.id == row.id) {
            row.rate = row.turns.saturating_sub(b.turns) as f32 / seconds.max(0.001);
        }
    }
}

/// A session as it is kept.
pub(super) fn row(line: SessionLine, texts: &mut BTreeSet<Arc<str>>) -> Row {
    let mut shared = |text: String| match texts.get(text.as_str()) {
        Some(known) => known.clone(),
        None => {
            let text: Arc<str> = text.into();
            texts.insert(text.clone());
            text
        }
    };
    Row {
        id: line.id,
        service: shared(line.service),
        endpoint: shared(line.endpoint),
        peer: line.peer.into(),
        opened_at: line.opened_at.into(),
        state_version: line.state_version,
        turns: line.turns,
        rate: 0.0,
        bytes_in: line.bytes_in,
        bytes_out: line.bytes_out,
        over_tls: line.over_tls,
        waits_for: line.waits_for.map(Into::into),
        quarantined: line.quarantined.map(Into::into),
        tls: line.tls,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A session of a service, with this number.
    pub(in crate::observe::console) fn session(id: u64, service: &str, turns: u64) -> Row {
        let line = serde_json::json!({
            "id": id, "service": service, "peer": format!("10.0.0.{}:{id}", id % 256), "turns": turns,
            "opened_at": "2026-11-26T12:00:00Z", "state_version": 1, "bytes_in": 7 * id, "bytes_out": 0,
            "quarantined": (id % 100 == 7).then_some("it failed twice"),
        });
        row(serde_json::from_value(line).unwrap(), &mut BTreeSet::new())
    }

    #[test]
    fn rates_are_those_of_sessions_that_were_there_before() {
        let before = [session(1, "a", 10), session(3, "a", 10), session(4, "a", 10)];
        let mut now = [session(2, "a", 50), session(3, "a", 30), session(4, "a", 10), session(9, "a", 5)];
        note_rates(&mut now, &before, 2.0);
        assert_eq!(now.map(|row| row.rate), [0.0, 10.0, 0.0, 0.0]);
    }
}
