//! Differences between two configurations, by name.
//!
//! A proposal needs the names for two reasons. A value that only a restart can change refuses
//! the whole proposal, and the ledger line of a configuration names what is new. Both
//! configurations are compared as JSON, so a new key needs no code here unless a restart is
//! needed for it.

use crate::config::Config;
use std::collections::{BTreeMap, BTreeSet};

impl Config {
    /// Names of the values that differ in another configuration: those that only a restart of
    /// the host can change, and the others, in order. Two empty lists: nothing differs.
    /// O(values).
    pub fn changes(&self, to: &Config) -> (Vec<String>, Vec<String>) {
        let mut fixed = Vec::new();
        // When a host starts, it changes its user, log and saver open their files, and the store is
        // mapped. Paths of libraries are watched from then on.
        for (name, same) in [
            ("handlers", self.handlers == to.handlers),
            ("save.file", self.save.file == to.save.file),
            ("log.format", self.log.format == to.log.format),
            ("log.file", self.log.file == to.log.file),
            ("process.user", self.process == to.process),
            ("limits.store_bytes_max", self.limits.store_bytes_max == to.limits.store_bytes_max),
        ] {
            fixed.extend((!same).then(|| name.to_owned()));
        }
        let flat = |config: &Config| {
            let mut names = BTreeMap::new();
            flatten("", &config.without_contents(), &mut names);
            names
        };
        let (old, new) = (flat(self), flat(to));
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let differs = |name: &&&String| old.get(**name) != new.get(**name);
        // Otherwise a fixed value would be named again, field by field.
        let known = |name: &String| !fixed.iter().any(|f| name.starts_with(f.as_str()));
        let live = names.iter().filter(differs).map(|n| (**n).clone()).filter(known).collect();
        (fixed, live)
    }
}

/// Collects the values of a tree by their dotted names. Null and empty lists count as absent,
/// so a service's empty section is no change. Lists are values as a whole.
pub(super) fn flatten(at: &str, value: &serde_json::Value, names: &mut BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                flatten(&if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, value, names);
            }
        }
        serde_json::Value::Null => {}
        serde_json::Value::Array(items) if items.is_empty() => {}
        value => _ = names.insert(at.to_owned(), value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read;

    #[test]
    fn changes_are_named() {
        let old = read("[service.chat]\nsettings = {a = 1, b = 2}\n[limits]\nidle_ms = 5\n").unwrap();
        let new = read(
            "watch = false\n[service.chat]\nsettings = {a = 1, b = 3}\n[service.x]\nlimits = {frame_ms = 1}\n[limits]\nstore_bytes_max = 20000000\n",
        )
        .unwrap();
        let (fixed, live) = old.changes(&new);
        assert_eq!(fixed, ["limits.store_bytes_max"]);
        assert_eq!(live, ["limits.idle_ms", "service.chat.settings.b", "service.x.limits.frame_ms", "watch"]);
        assert_eq!(old.changes(&old), (Vec::new(), Vec::new()));
    }
}
