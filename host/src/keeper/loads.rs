//! Loads of builds that ended workers.
//!
//! A build whose trial went well may still end the process that loads it: a constructor does there
//! what the trial's confinement forbade. The worker says what it is about to load, so the end of a
//! process tells of which build: the board shows the library whose code was running. The next
//! process writes such a load to the ledger, and leaves a build alone whose loads have ended two
//! processes.

use crate::protocol::keeper::{EndedLoad, LOADS_MAX, Load};
use greenroom_core::reload::request::LibraryId;

/// Loads under way, and those that ended a process: of each path the last build that was to be
/// committed, and each generation.
#[derive(Default)]
pub(super) struct Loads {
    under_way: Vec<Load>,
    ended: Vec<EndedLoad>,
}

impl Loads {
    /// Notes which loads are under way. Others are over.
    pub(super) fn are_under_way(&mut self, loads: Vec<Load>) {
        self.under_way = loads;
    }

    /// Notes that the worker has handed over: it did not end by a load.
    pub(super) fn handed_over(&mut self) {
        self.under_way.clear();
    }

    /// Notes that the worker has ended, and how. `loads`: the library whose code it was loading.
    /// `died`: it did not say itself that it cannot serve. Returns the library's path; `None`: none
    /// was loaded.
    pub(super) fn ended(&mut self, how: &str, loads: Option<LibraryId>, died: bool) -> Option<String> {
        let under_way = std::mem::take(&mut self.under_way);
        let load = under_way.into_iter().find(|load| loads.is_some_and(|id| id.0 as u64 == load.library))?;
        let generation = |e: &EndedLoad| e.load.path == load.path && e.load.generation == load.generation;
        let same = |e: &&EndedLoad| generation(e) && e.load.build == load.build;
        let times = 1 + self.ended.iter().find(same).map_or(0, |e| e.times);
        self.ended.retain(|e| !generation(e));
        let path = load.path.display().to_string();
        self.ended.push(EndedLoad { load, times, how: how.to_owned(), died, told: false });
        Some(path)
    }

    /// Notes that a process serves which knows of all loads that ended others. A recorded build
    /// whose load ended one was loaded by now, or is given up.
    pub(super) fn told(&mut self) {
        self.ended.retain(|e| e.load.generation == 0 || e.times >= LOADS_MAX);
        self.ended.iter_mut().for_each(|e| e.told = true);
    }

    /// Loads that ended a process.
    pub(super) fn that_ended(&self) -> Vec<EndedLoad> {
        self.ended.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_counted_by_content_until_the_file_changes() {
        let load = |library, path: &str, build: &str| Load {
            library,
            path: path.into(),
            build: build.to_owned(),
            generation: 0,
            by: "watcher".to_owned(),
        };
        let of = |loads: &Loads| -> Vec<_> {
            loads.that_ended().into_iter().map(|e| (e.load.build, e.times, e.told)).collect()
        };
        let one = |build: &str, times, told| (build.to_owned(), times, told);
        let (mut loads, [a, b]) = (Loads::default(), [0, 1].map(|n| Some(LibraryId(n))));
        assert_eq!(loads.ended("a signal", a, true), None);
        for times in 1..3 {
            loads.are_under_way(vec![load(0, "a.so", "1")]);
            assert_eq!(loads.ended("a signal", a, true).as_deref(), Some("a.so"));
            assert_eq!(of(&loads), [one("1", times, false)]);
            loads.told();
            assert_eq!(of(&loads), [one("1", times, true)]);
        }
        // The one that waits behind it is not to blame, nor is one before its code was loaded.
        loads.are_under_way(vec![load(0, "a.so", "2"), load(1, "b.so", "3")]);
        assert_eq!(loads.ended("a signal", b, true).as_deref(), Some("b.so"));
        loads.are_under_way(vec![load(0, "a.so", "2")]);
        assert_eq!(loads.ended("a signal", None, true), None);
        assert_eq!(of(&loads), [one("1", 2, true), one("3", 1, false)]);
        loads.are_under_way(vec![load(0, "a.so", "2")]);
        loads.handed_over();
        assert_eq!(loads.ended("a signal", a, true), None);
        loads.are_under_way(vec![load(0, "a.so", "2")]);
        loads.ended("a signal", a, true);
        assert_eq!(of(&loads), [one("3", 1, false), one("2", 1, false)]);
    }

    #[test]
    fn a_generation_that_was_loaded_after_all_begins_its_count_anew() {
        let load = Load {
            library: 0,
            path: "a.so".into(),
            build: "1".to_owned(),
            generation: 7,
            by: "host".to_owned(),
        };
        let mut loads = Loads::default();
        let end = |loads: &mut Loads| {
            loads.are_under_way(vec![load.clone()]);
            loads.ended("a signal", Some(LibraryId(0)), true);
            loads.that_ended()[0].times
        };
        assert_eq!(end(&mut loads), 1);
        loads.told();
        assert_eq!((end(&mut loads), end(&mut loads)), (1, 2));
        loads.told();
        assert_eq!(end(&mut loads), 3);
    }
}
