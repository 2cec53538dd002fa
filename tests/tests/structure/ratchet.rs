//! Exceptions from the rules: one list for each rule, which may only shrink.
//!
//! `exceptions/RULE.txt` beside this file has a line for each exception: the finding, and how
//! much of it there is. A finding that is not in the list, or larger than the list says, fails
//! the test. A line that says more than is found fails it too. `GREENROOM_SHRINK=1` rewrites
//! the lists with the rest of them, and adds nothing.

use greenroom_tests::root;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Findings of a rule: by their name in the list, their size, and their places.
#[derive(Default)]
pub(crate) struct Findings(BTreeMap<String, (usize, Vec<String>)>);

impl Findings {
    /// Counts one more under this name.
    pub(crate) fn count(&mut self, name: String, place: String) {
        let found = self.0.entry(name).or_default();
        found.0 += 1;
        found.1.push(place);
    }

    /// Keeps the largest under this name.
    pub(crate) fn largest(&mut self, name: String, size: usize, place: String) {
        let found = self.0.entry(name).or_default();
        if size > found.0 {
            *found = (size, vec![place]);
        }
    }

    /// Compares the findings with the list of the rule. Panics with all places if one is new or
    /// larger.
    #[track_caller]
    pub(crate) fn check(&self, rule: &str, says: &str) {
        let mut known = list(rule);
        if std::env::var_os("GREENROOM_SHRINK").is_some() {
            known.retain(|name, _| self.0.contains_key(name));
            known.iter_mut().for_each(|(name, size)| *size = (*size).min(self.0[name].0));
            let lines: String = known.iter().map(|(name, size)| format!("{name} {size}\n")).collect();
            std::fs::write(file(rule), lines).expect("the list");
        }
        let mut wrong = Vec::new();
        for (name, (size, places)) in &self.0 {
            if *size > known.get(name).copied().unwrap_or(0) {
                wrong.push(format!("{name} {size}\n    {}", places.join("\n    ")));
            }
        }
        assert!(wrong.is_empty(), "{says}:\n{}", wrong.join("\n"));
        // A list that allows more than there is would let the difference come back unseen.
        let found = |name: &str| self.0.get(name).map_or(0, |(size, _)| *size);
        let lower = known.iter().filter(|(name, size)| found(name) < **size);
        let lower: Vec<_> =
            lower.map(|(name, size)| format!("{name} {size}: it is {} now", found(name))).collect();
        assert!(
            lower.is_empty(),
            "{}: lower what is less by now (GREENROOM_SHRINK=1 does):\n{}",
            file(rule).display(),
            lower.join("\n")
        );
    }
}

/// List of a rule.
fn file(rule: &str) -> PathBuf {
    root().join(format!("tests/tests/structure/exceptions/{rule}.txt"))
}

/// Exceptions of a rule; none if it has no list. Panics at a line that can't be read.
fn list(rule: &str) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(file(rule)).unwrap_or_default();
    let line = |line: &str| {
        let (name, size) = line.rsplit_once(' ')?;
        Some((name.to_owned(), size.parse().ok()?))
    };
    text.lines().map(|l| line(l).unwrap_or_else(|| panic!("{}: {l:?}", file(rule).display()))).collect()
}
