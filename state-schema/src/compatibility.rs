//! Compatibility of two builds: the versions, migrations and downgrades of their data.
//!
//! The rule: within one version, only fields with defaults may be added. Any other change
//! (removed, renamed, another type, a default lost) needs a higher version, and a migration
//! from each version still stored. A decoder that happens to accept other data decides nothing.
//! Data goes back only if that is asked for, by the downgrades of the build that is left.
//!
//! | from the stored version to the wanted one | converted by | judged by |
//! | --- | --- | --- |
//! | the same | nobody; differences of the schemas decide | [`judge`] |
//! | a higher one | migrations of the build that comes | [`judge`], [`judge_back`] |
//! | a lower one | downgrades of the build that left the data | [`judge_back`] |
//!
//! A step leads from a version to its neighbour, and a way is a chain of steps without a gap.
//! Builds only declare which steps they have; no step runs here.
//!
//! Callers: the judge of a reload, before anything live changes, and a rollback of a build on
//! probation. All functions are pure, and cost O(stored versions × steps) beside the comparison
//! of the schemas. Errors are sentences for the handler's author.

use crate::schema::Schema;
use crate::schema_diff::{Change, Difference};
use serde::{Deserialize, Serialize};

/// Shape of one service's state, or of one table's values, as a build declares it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StateShape {
    /// Version, from 1; 0 only for a service without state.
    pub version: u32,
    /// Schema; `None`: the service keeps no state.
    pub schema: Option<Schema>,
    /// Versions from which the build can make the next one. In any order; gaps are allowed.
    pub migrations: Vec<u32>,
    /// Versions from which the build can make the previous one. In any order; gaps are allowed.
    pub downgrades: Vec<u32>,
}

/// Shape of a table that a build owns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableShape {
    /// Name of the table.
    pub name: String,
    /// Shape of its values.
    pub shape: StateShape,
    /// Whether the service is told of entries whose deadline is over.
    #[serde(default)]
    pub hears_of_expiry: bool,
    /// Whether the build tells keys of the table from other bytes.
    #[serde(default)]
    pub reads_keys: bool,
}

impl StateShape {
    /// Whether this build can convert data from one version to another, up or down. The error
    /// is the version from which it has no step: the first one on the way. Equal versions need
    /// no step.
    pub fn converts(&self, from: u32, to: u32) -> Result<(), u32> {
        let missing = match from <= to {
            true => (from..to).find(|v| !self.migrations.contains(v)),
            // Downgrades are listed by the version that they start from.
            false => (to + 1..=from).rev().find(|v| !self.downgrades.contains(v)),
        };
        missing.map_or(Ok(()), Err)
    }

    /// Compares this shape's schema with a newer one's, by field. A state that the newer build
    /// no longer keeps is a removal; a state that only the newer build keeps is no difference.
    pub fn differences(&self, new: &StateShape) -> Vec<Difference> {
        match (&self.schema, &new.schema) {
            // Equal fingerprints spare the walk.
            (Some(o), Some(n)) if o.fingerprint() != n.fingerprint() => o.differences(n),
            (Some(_), None) => vec![Difference {
                field: String::new(),
                change: Change::Removed("kept".into()),
                backward: false,
                forward: false,
            }],
            _ => Vec::new(),
        }
    }
}

/// Decides whether the data that `old` left can be served by `new`, going forward.
///
/// `what` names the data in the error, and `version` is the word for its version. `stored`
/// lists the versions of the stored data. Versions above that of `new` pass.
pub fn judge(
    what: &str,
    version: &str,
    old: &StateShape,
    new: &StateShape,
    stored: &[u32],
) -> Result<(), String> {
    // Going down is a rollback, and asks `judge_back` instead.
    if new.version < old.version {
        return Err(format!(
            "{what}: {version} {} is below {}, which is live; `greenroom rollback` goes back to a build that ran before",
            new.version, old.version
        ));
    }
    if new.version == old.version {
        let differences = old.differences(new);
        let bad: Vec<_> =
            differences.iter().filter(|d| !d.change.is_compatible()).map(ToString::to_string).collect();
        if !bad.is_empty() {
            return Err(format!(
                "{what}: {}; raise {version} above {} and add a migration",
                bad.join("; "),
                old.version
            ));
        }
    }
    // No data of the old build exists, so nothing has to be migrated.
    if old.schema.is_none() {
        return Ok(());
    }
    // Old data is migrated one by one, so several versions may be stored. The version that is
    // live counts even if no data has it yet: turns write it until the commit.
    for &from in stored.iter().chain([&old.version]) {
        // A newer version was left by a build that was rolled back. Downgrades of that build
        // convert it.
        let Err(gap) = new.converts(from.min(new.version), new.version) else { continue };
        return Err(format!(
            "{what}: {version} is {} and version {from} is live, but there is no migration from version {gap} to {}; \
             add it to the handler's migrations",
            new.version,
            gap + 1
        ));
    }
    Ok(())
}

/// Decides whether the data can go back from `live`, the build that serves, to `to`, a previous
/// one.
///
/// A way must lead there from every stored version. Down lead the downgrades of `live`, or of
/// one of `others`: builds that were rolled back and left data. Up lead the migrations of `to`.
/// A single call converts a value, so the way down must be known to one build as a whole.
pub fn judge_back(
    what: &str,
    live: &StateShape,
    others: &[&StateShape],
    to: &StateShape,
    stored: &[u32],
) -> Result<(), String> {
    if to.schema.is_none() && !stored.is_empty() {
        return Err(format!("{what}: the build to go back to keeps none of it, and there is some"));
    }
    // Versions above: left by the build that serves, or by one that was rolled back before it.
    for &from in stored.iter().filter(|v| **v > to.version) {
        let Err(gap) = live.converts(from, to.version) else { continue };
        if others.iter().any(|o| o.converts(from, to.version).is_ok()) {
            continue;
        }
        return Err(format!(
            "{what}: version {from} is stored, version {} is wanted, and the build that serves has no downgrade from version \
             {gap}; add one to its migrations (`back`), load that build, and roll back then",
            to.version
        ));
    }
    // Versions below: not migrated yet, so the previous build does that itself.
    for &from in stored.iter().filter(|v| **v < to.version) {
        let Err(gap) = to.converts(from, to.version) else { continue };
        return Err(format!(
            "{what}: version {from} is stored, and there is no migration from version {gap}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: &str = r#""count":{"type":"integer","format":"uint64","minimum":0}"#;

    fn shape(version: u32, properties: &str, required: &str, migrations: &[u32]) -> StateShape {
        let text = format!(r#"{{"type":"object","properties":{{{properties}}},"required":[{required}]}}"#);
        let schema = Some(Schema::parse(&text).unwrap());
        StateShape { version, schema, migrations: migrations.to_vec(), downgrades: Vec::new() }
    }

    /// Each rule of `judge` on its own: same version, higher, lower, a gap, and data that was
    /// never kept.
    #[test]
    fn judges_by_version_and_migrations() {
        let old = shape(1, COUNT, r#""count""#, &[]);
        let text = r#""count":{"type":"string"}"#;
        let says = |new: &StateShape, stored: &[u32]| judge("tally", "STATE_VERSION", &old, new, stored);

        assert_eq!(says(&old, &[1]), Ok(()));
        let added = format!("{COUNT},\"n\":{{\"type\":\"integer\",\"default\":7}}");
        assert_eq!(says(&shape(1, &added, r#""count""#, &[]), &[1]), Ok(()));
        assert_eq!(
            says(&shape(1, text, r#""count""#, &[]), &[]).unwrap_err(),
            "tally: field count: integer -> string; raise STATE_VERSION above 1 and add a migration"
        );
        assert_eq!(says(&shape(2, text, r#""count""#, &[1]), &[1]), Ok(()));
        let err = says(&shape(2, text, r#""count""#, &[]), &[1]).unwrap_err();
        assert!(err.contains("no migration from version 1 to 2"), "{err}");
        assert_eq!(says(&shape(3, text, r#""count""#, &[1, 2]), &[1]), Ok(()));
        let err = says(&shape(3, text, r#""count""#, &[2]), &[2]).unwrap_err();
        assert!(err.contains("no migration from version 1 to 2"), "{err}");
        let err = judge("tally", "V", &shape(2, text, "", &[]), &shape(3, text, "", &[2]), &[1]).unwrap_err();
        assert!(err.contains("version 1 is live"), "{err}");
        let err = judge("tally", "V", &shape(2, text, "", &[]), &old, &[]).unwrap_err();
        assert!(err.contains("V 1 is below 2"), "{err}");
        let none = StateShape { version: 1, ..StateShape::default() };
        assert!(says(&none, &[]).unwrap_err().contains("above 1"));
        assert_eq!(judge("tally", "V", &none, &old, &[]), Ok(()));
        // Version 2 was left by a build that was rolled back.
        assert_eq!(judge("tally", "V", &old, &old, &[1, 2]), Ok(()));
    }

    /// Each stored version needs a whole chain of downgrades in one build.
    #[test]
    fn goes_back_only_over_downgrades() {
        let old = shape(1, COUNT, "", &[]);
        let mut live = shape(3, r#""count":{"type":"string"}"#, "", &[1, 2]);
        assert_eq!(judge_back("tally", &live, &[], &old, &[1]), Ok(()));
        assert_eq!(judge_back("tally", &live, &[], &old, &[]), Ok(()));
        live.downgrades = vec![3];
        let err = judge_back("tally", &live, &[], &old, &[1, 3]).unwrap_err();
        assert!(err.contains("version 3 is stored") && err.contains("no downgrade from version 2"), "{err}");
        live.downgrades = vec![2, 3];
        assert_eq!(judge_back("tally", &live, &[], &old, &[1, 2, 3]), Ok(()));
        // Version 3 is downgraded by the build that left it, although another one serves.
        assert_eq!(judge_back("tally", &old, &[&live], &old, &[1, 3]), Ok(()));
        assert!(judge_back("tally", &old, &[], &old, &[1, 3]).is_err());
        assert_eq!((live.converts(3, 1), live.converts(1, 3), live.converts(4, 3)), (Ok(()), Ok(()), Err(4)));
        let none = StateShape::default();
        assert!(judge_back("tally", &live, &[], &none, &[1]).unwrap_err().contains("keeps none"));
    }
}
