//! Reports of rehearsals: the changes that a build makes to data, and whether there is a way
//! back.
//!
//! Two sources meet here. The schemas say field by field which build can read the other's data.
//! The live data says how many values a removed field holds, and which fields differ after the
//! way to the new version and back.
//!
//! An [`Observer`] lives in the trial's child, for one state or table. It is made before the
//! data is read, is shown each value, and turns into the report at the end. Its memory is
//! bounded by the schema's fields and by 32 paths, not by the data.
//!
//! The report goes from the child to the worker as JSON, and stays in the ledger. Lines of
//! older builds lack newer fields, so those have defaults. Nothing here refuses a build: the
//! judge decides, and `failed` says that data could not be read.

use crate::compatibility::StateShape;
use crate::dialogue_report::DialogueReport;
use crate::schema_diff::{Change, Difference};
use crate::sets::{Place, Sets, pairs, same_at};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Compatibility by the schemas alone, in the words of schema registries. Two verdicts meet in
/// [`Verdict::and`]: `Full` > `Backward`, `Forward` > `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Readers of neither schema can read the other's data: only migrations lead from one to the
    /// other.
    None,
    /// Readers of the old schema can read new data.
    Forward,
    /// Readers of the new schema can read old data.
    Backward,
    /// Readers of each schema can read the other's data.
    Full,
}

impl Verdict {
    /// Verdict on a list of differences: that of the worst one in each direction. `Full` if
    /// there are none.
    pub fn of(differences: &[Difference]) -> Verdict {
        match (differences.iter().all(|d| d.backward), differences.iter().all(|d| d.forward)) {
            (true, true) => Verdict::Full,
            (true, false) => Verdict::Backward,
            (false, true) => Verdict::Forward,
            (false, false) => Verdict::None,
        }
    }

    /// Verdict on two changes together: only readers that can read both.
    pub fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Full, one) | (one, Verdict::Full) => one,
            (a, b) if a == b => a,
            _ => Verdict::None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Full => "full",
            Verdict::Backward => "backward",
            Verdict::Forward => "forward",
            Verdict::None => "none",
        })
    }
}

/// Way back to the previous build: the result of going to the new version and back with live
/// data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum WayBack {
    /// All data comes back as it was.
    Exact,
    /// Data comes back, but for some fields: lost, changed, or not known to the previous build.
    Loses {
        /// Paths of those fields, sorted.
        fields: Vec<String>,
    },
    /// No way back.
    None {
        /// Reason, in words.
        why: String,
    },
}

impl fmt::Display for WayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WayBack::Exact => f.write_str("exact"),
            WayBack::Loses { fields } => {
                // An empty path is the value itself: a state may be a number.
                let named = fields.iter().map(|f| if f.is_empty() { "all of it" } else { f });
                write!(f, "loses {}", named.collect::<Vec<_>>().join(", "))
            }
            WayBack::None { why } => write!(f, "none: {why}"),
        }
    }
}

/// Field that a build changes. Programs read `change`, people `text`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldReport {
    /// Path of the field; empty: the whole value.
    pub field: String,
    /// Kind: `added`, `added-without-default`, `removed`, `default-lost`, `renamed`, `widened`,
    /// `changed`.
    pub change: String,
    /// Description in words.
    pub text: String,
    /// Value of an added field in data without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Number of sessions or entries that hold data in a removed field; none: the field is not
    /// removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<u64>,
}

/// Changes that a build makes to a service's state or to a table, with the data that was read
/// for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapeReport {
    /// Name of the service.
    pub service: String,
    /// Name of the table; none: the state of sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Version that is live.
    pub from: u32,
    /// Version of the candidate.
    pub to: u32,
    /// Compatibility by the schemas alone.
    pub verdict: Verdict,
    /// Fields that differ.
    pub fields: Vec<FieldReport>,
    /// Way back to the build that is live.
    pub way_back: WayBack,
    /// Number of states or entries that were read.
    pub read: u64,
    /// Number of them that had to be migrated.
    pub migrated: u64,
    /// Number of entries that were not read: the table stays as it is, and has more than limit
    /// `rehearsal_entries_max`.
    #[serde(default)]
    pub left_out: u64,
}

/// Report of a rehearsal: totals over all services and tables, then each of them.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Number of sessions whose states were read.
    pub sessions: u64,
    /// Number of sessions whose states had to be migrated.
    pub migrated: u64,
    /// Number of table entries that were read.
    pub entries: u64,
    /// Number of entries that had to be migrated.
    pub entries_migrated: u64,
    /// Number of entries that were not read, of large tables that stay as they are.
    #[serde(default)]
    pub entries_left_out: u64,
    /// Time that the rehearsal took in the child, in milliseconds.
    pub ms: u64,
    /// Changes to each service and table that was there before.
    pub shapes: Vec<ShapeReport>,
    /// Sessions in the middle of a dialogue, by service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dialogues: Vec<DialogueReport>,
    /// Sessions and entries that the build that serves can't read either, as a sentence with the
    /// first ones; none: there are none. No reason to refuse a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_before: Option<String>,
    /// Reason of a failure; none: the rehearsal succeeded. A sentence that names the first
    /// sessions and entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Rehearsal {
    /// Number of entries that were read, and of how many if that is less than all, as text.
    pub fn entries_read(&self) -> String {
        match self.entries_left_out {
            0 => self.entries.to_string(),
            left_out => format!("{} of {}", self.entries, self.entries + left_out),
        }
    }

    /// Verdict on all services and tables together.
    pub fn verdict(&self) -> Verdict {
        self.shapes.iter().fold(Verdict::Full, |v, s| v.and(s.verdict))
    }
}

/// Collects the report on one state or table while its data is read.
#[derive(Debug)]
pub struct Observer {
    /// Differences of the schemas, found when the observer was made.
    differences: Vec<Difference>,
    /// Removed fields by their paths, with the number of values that hold data in them.
    removed: BTreeMap<String, u64>,
    /// Paths at which a value differed after its way there and back, up to [`NAMED_MAX`].
    lost: BTreeSet<String>,
    /// Reason why the first value did not come back at all; `None`: all values did.
    stuck: Option<String>,
    /// Sets of the old schema: their order is no difference.
    sets: Sets,
}

impl Observer {
    /// Observes data that goes from one shape to another. Compares the schemas, once.
    pub fn new(old: &StateShape, new: &StateShape) -> Observer {
        let differences = old.differences(new);
        let removed = differences.iter().filter(|d| matches!(d.change, Change::Removed(_)));
        let removed = removed.map(|d| (d.field.clone(), 0)).collect();
        let sets = Sets::of(old.schema.as_ref());
        Observer { differences, removed, lost: BTreeSet::new(), stuck: None, sets }
    }

    /// Whether [`Observer::saw`] has a field to look for. If not, the caller need not convert
    /// values to JSON.
    pub fn wants_data(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Looks at a value as it is stored now. O(removed fields × items on their paths).
    pub fn saw(&mut self, value: &Value) {
        for (field, held) in &mut self.removed {
            *held += u64::from(holds(value, field));
        }
    }

    /// Compares a value with what it became on the way to the new shape and back. A value that did
    /// not come back is an error, with the reason: there is no way back then.
    pub fn came_back(&mut self, before: &Value, after: Result<&Value, String>) {
        match after {
            Ok(after) => differing("", before, after, &self.sets.top(), &mut self.lost),
            Err(why) => drop(self.stuck.get_or_insert(why)),
        }
    }

    /// Makes the report. `versions` are the live one and the candidate's. If the data can't be
    /// converted back, `back` is the reason, in words.
    pub fn report(
        self,
        versions: (u32, u32),
        back: Result<(), String>,
    ) -> (Verdict, Vec<FieldReport>, WayBack) {
        let mut lost = self.lost;
        let mut fields = Vec::new();
        for d in &self.differences {
            let (change, default) = match &d.change {
                Change::Added(default) => ("added", Some(default.clone())),
                Change::AddedWithoutDefault(_) => ("added-without-default", None),
                Change::Removed(_) => ("removed", None),
                Change::DefaultLost(_) => ("default-lost", None),
                Change::Renamed(_) => ("renamed", None),
                Change::Widened(..) => ("widened", None),
                Change::Retyped(..) => ("changed", None),
            };
            if matches!(d.change, Change::Added(_) | Change::AddedWithoutDefault(_)) {
                // The previous build has no place for an added field.
                lost.insert(d.field.clone());
            }
            fields.push(FieldReport {
                field: d.field.clone(),
                change: change.to_owned(),
                text: d.to_string(),
                default,
                held_by: self.removed.get(&d.field).copied(),
            });
        }
        let way_back = match back.and(self.stuck.map_or(Ok(()), Err)) {
            Err(why) => WayBack::None { why },
            // Within one version no step runs, so the previous build would read the new shape as
            // its own.
            Ok(())
                if versions.0 == versions.1 && self.differences.iter().any(|d| !d.change.is_compatible()) =>
            {
                WayBack::None { why: "its shape changed, and its version didn't".into() }
            }
            Ok(()) if lost.is_empty() => WayBack::Exact,
            Ok(()) => WayBack::Loses { fields: lost.into_iter().collect() },
        };
        (Verdict::of(&self.differences), fields, way_back)
    }
}

/// Whether a value holds data at a path of [`Difference::field`], where `[]` and `{}` stand for
/// any item or value. Null, an empty text, list or map is no data; 0 and false are.
fn holds(value: &Value, path: &str) -> bool {
    let is_something = |v: &Value| match v {
        Value::Null => false,
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
        _ => true,
    };
    if path.is_empty() {
        return is_something(value);
    }
    if let Some(rest) = path.strip_prefix("[]") {
        return value.as_array().is_some_and(|all| all.iter().any(|v| holds(v, rest)));
    }
    if let Some(rest) = path.strip_prefix("{}") {
        return value.as_object().is_some_and(|all| all.values().any(|v| holds(v, rest)));
    }
    // A name with a dot or bracket in it is cut here, and looked up as if it were nested.
    let path = path.strip_prefix('.').unwrap_or(path);
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    value.get(&path[..end]).is_some_and(|v| holds(v, &path[end..]))
}

/// Paths that are named at most. A migration that changes every entry of a map would name them
/// all.
const NAMED_MAX: usize = 32;

/// Adds the paths at which two values differ. A missing field counts as null. Lists are compared as
/// a whole, in their order, and sets in any order.
fn differing(path: &str, a: &Value, b: &Value, place: &Place<'_>, found: &mut BTreeSet<String>) {
    if a == b || found.len() >= NAMED_MAX {
        return;
    }
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if pairs(a).is_none() => {
            for name in x.keys().chain(y.keys()).collect::<BTreeSet<_>>() {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (x, y) = (x.get(name).unwrap_or(&Value::Null), y.get(name).unwrap_or(&Value::Null));
                differing(&at, x, y, &place.below(Some(name)), found);
            }
        }
        _ if same_at(a, b, place) => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use serde_json::json;

    fn shape(version: u32, properties: Value) -> StateShape {
        let required: Vec<_> = properties.as_object().unwrap().keys().cloned().collect();
        let text = json!({"type": "object", "properties": properties, "required": required}).to_string();
        StateShape { version, schema: Some(Schema::parse(&text).unwrap()), ..StateShape::default() }
    }

    #[test]
    fn removed_data_is_counted_where_there_is_any() {
        let old = shape(
            1,
            json!({"nick": {"type": "string"}, "all": {"type": "array", "items": {
            "type": "object", "properties": {"age": {"type": "integer"}}}}}),
        );
        let new = shape(2, json!({"all": {"type": "array", "items": {"type": "object", "properties": {}}}}));
        let mut o = Observer::new(&old, &new);
        assert!(o.wants_data());
        for state in [
            json!({"nick": "ann", "all": []}),
            json!({"nick": "", "all": [{}, {"age": 0}]}),
            json!({"nick": null, "all": [{"age": null}]}),
            json!({}),
        ] {
            o.saw(&state);
        }
        let (verdict, fields, way_back) = o.report((1, 2), Err("no downgrade from version 2".into()));
        let held: Vec<_> = fields.iter().map(|f| (f.field.as_str(), f.change.as_str(), f.held_by)).collect();
        assert_eq!(held, [("all[].age", "removed", Some(1)), ("nick", "removed", Some(1))]);
        assert_eq!(verdict, Verdict::Backward);
        assert_eq!(way_back.to_string(), "none: no downgrade from version 2");
    }

    #[test]
    fn the_way_back_is_what_came_back() {
        let (old, new) =
            (shape(1, json!({"n": {"type": "integer"}})), shape(2, json!({"n": {"type": "string"}})));
        let mut o = Observer::new(&old, &new);
        o.came_back(&json!({"n": 1}), Ok(&json!({"n": 1})));
        let (verdict, fields, way_back) = o.report((1, 2), Ok(()));
        assert_eq!((verdict, way_back), (Verdict::None, WayBack::Exact));
        assert_eq!(fields[0].text, "field n: integer -> string");
        let mut o = Observer::new(&old, &new);
        o.came_back(&json!({"n": 1, "m": {"k": 1}}), Ok(&json!({"n": 0, "m": {"k": 1, "l": 2}})));
        let (_, _, way_back) = o.report((1, 2), Ok(()));
        assert_eq!(way_back.to_string(), "loses m.l, n");
        let text = json!({"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}}, "required": ["n"]});
        let added = StateShape { schema: Some(Schema::parse(&text.to_string()).unwrap()), ..old.clone() };
        let (_, _, way_back) = Observer::new(&old, &added).report((1, 1), Ok(()));
        assert_eq!(way_back.to_string(), "loses m");
        let (_, _, way_back) = Observer::new(&old, &new).report((1, 1), Ok(()));
        assert_eq!(way_back.to_string(), "none: its shape changed, and its version didn't");
    }

    /// A value that fails on its way back ends it. A build of a lower version loses what differs,
    /// too. The order of a set is no difference.
    #[test]
    fn a_way_back_that_fails_is_none() {
        let (old, new) =
            (shape(2, json!({"n": {"type": "integer"}})), shape(1, json!({"n": {"type": "string"}})));
        let says = |before: Value, after: Result<Value, String>, old: &StateShape| {
            let mut o = Observer::new(old, &new);
            o.came_back(&before, after.as_ref().map_err(Clone::clone));
            o.report((old.version, new.version), Ok(())).2.to_string()
        };
        let failed = says(json!({"n": 1}), Err("migration from version 1: no".into()), &old);
        assert_eq!(failed, "none: migration from version 1: no");
        assert_eq!(says(json!({"n": 1}), Ok(json!({"n": 2})), &old), "loses n");
        assert_eq!(says(json!({"n": 1}), Ok(json!({"n": 1})), &old), "exact");
        assert_eq!(says(json!(1), Ok(json!(2)), &old), "loses all of it");
        let set = shape(2, json!({"n": {"type": "array", "uniqueItems": true}}));
        assert_eq!(says(json!({"n": [1, 2]}), Ok(json!({"n": [2, 1]})), &set), "exact");
        assert_eq!(says(json!({"n": [1, 2]}), Ok(json!({"n": [2, 1]})), &old), "loses n");
    }

    #[test]
    fn verdicts_add_up() {
        use Verdict::{Backward, Forward, Full, None};
        assert_eq!(
            (Full.and(Backward), Backward.and(Backward), Backward.and(Forward)),
            (Backward, Backward, None)
        );
        assert_eq!((Forward.and(Full), None.and(Full)), (Forward, None));
    }
}
