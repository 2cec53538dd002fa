//! Parts of the host that fail, for `status`.
//!
//! A part is named by a few words. Its first failure begins a row, and its success ends it. The
//! keeper keeps the rows, so they outlive a worker that reported them.

use crate::admin::time::rfc3339;
use crate::clock::unix_ms;
use crate::protocol::status::Failing;
use std::collections::BTreeMap;
use std::time::Instant;

/// Parts that are kept at most: a directory may hold any number of files that are refused. Further
/// ones are in the log alone.
const PARTS_MAX: usize = 64;

/// Parts that fail, by name, each with the time of its last failure.
#[derive(Default)]
pub(super) struct FailingParts(BTreeMap<String, (Failing, Instant)>);

impl FailingParts {
    /// Notes that a part has failed, for this reason, or that it has not.
    pub(super) fn note(&mut self, what: String, why: Option<String>) {
        let Some(why) = why else {
            self.0.remove(&what);
            return;
        };
        if self.0.len() >= PARTS_MAX && !self.0.contains_key(&what) {
            return;
        }
        let first =
            || Failing { what: what.clone(), why: String::new(), since: rfc3339(unix_ms()), times: 0 };
        let (part, last) = self.0.entry(what.clone()).or_insert_with(|| (first(), Instant::now()));
        (part.why, part.times, *last) = (why, part.times + 1, Instant::now());
    }

    /// Reason and time of the last failure of a part; `None`: it works.
    pub(super) fn last(&self, what: &str) -> Option<(&str, Instant)> {
        self.0.get(what).map(|(part, last)| (part.why.as_str(), *last))
    }

    /// Names of the parts that fail.
    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All parts that fail, by name.
    pub(super) fn all(&self) -> Vec<Failing> {
        self.0.values().map(|(part, _)| part.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_counted_until_the_part_works() {
        let mut parts = FailingParts::default();
        parts.note("save".into(), Some("the disk is full".into()));
        parts.note("save".into(), Some("it is gone".into()));
        let all = parts.all();
        assert_eq!((all.len(), all[0].times, all[0].why.as_str()), (1, 2, "it is gone"));
        assert_eq!((parts.last("save").map(|(why, _)| why), parts.last("none")), (Some("it is gone"), None));
        (0..2 * PARTS_MAX).for_each(|n| parts.note(format!("library {n}"), Some("no".into())));
        assert_eq!(parts.all().len(), PARTS_MAX);
        parts.note("save".into(), None);
        parts.note("save".into(), None);
        assert_eq!(parts.all().len(), PARTS_MAX - 1);
    }
}
