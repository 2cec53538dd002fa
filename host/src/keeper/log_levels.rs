//! Levels of the log that operators have set, for all or for a service, each perhaps with an end.
//!
//! The keeper holds them, so a worker may die meanwhile, and a level can be set while a callback
//! stalls. Each worker learns them at its start, and from then on by a message. Ends are counted by
//! a clock that nobody sets.

use crate::logs::levels::{Levels, LogLevel};
use crate::protocol::log::{LevelLine, LevelWish, LogReport};
use std::collections::BTreeMap;
use std::time::Instant;

/// A level that an operator has set.
#[derive(Debug, Clone, Copy)]
struct SetLevel {
    level: LogLevel,
    /// End; `None`: the host's.
    until: Option<Instant>,
}

impl SetLevel {
    /// The level in an answer.
    fn line(&self, service: Option<&str>) -> LevelLine {
        let left = self.until.map(|at| at.saturating_duration_since(Instant::now()));
        LevelLine {
            service: service.map(str::to_owned),
            level: self.level,
            is_set: true,
            left_ms: left.map(|left| left.as_millis() as u64),
        }
    }
}

/// Levels of the log.
pub(super) struct LogLevels {
    /// Level of the configuration, or of the command line.
    configured: LogLevel,
    /// Level of all, if an operator has set it.
    all: Option<SetLevel>,
    /// Levels of services, by name.
    services: BTreeMap<String, SetLevel>,
}

impl LogLevels {
    /// Begins with the level of the configuration.
    pub(super) fn new(configured: LogLevel) -> LogLevels {
        LogLevels { configured, all: None, services: BTreeMap::new() }
    }

    /// Levels in force.
    pub(super) fn in_force(&self) -> Levels {
        Levels {
            all: self.all.map_or(self.configured, |set| set.level),
            services: self.services.iter().map(|(name, set)| (name.clone(), set.level)).collect(),
        }
    }

    /// Follows the configuration. Returns whether its level is another one.
    pub(super) fn configure(&mut self, level: LogLevel) -> bool {
        std::mem::replace(&mut self.configured, level) != level
    }

    /// Whether a service has a level of its own.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// The first end.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.services.values().chain(&self.all).filter_map(|set| set.until).min()
    }

    /// Ends levels whose time is over. Returns whether any was.
    pub(super) fn end_due(&mut self, now: Instant) -> bool {
        let is_due = |set: &SetLevel| set.until.is_some_and(|at| at <= now);
        let before = self.services.len() + usize::from(self.all.is_some());
        self.services.retain(|_, set| !is_due(set));
        self.all = self.all.filter(|set| !is_due(set));
        before != self.services.len() + usize::from(self.all.is_some())
    }

    /// Levels that operators have set.
    pub(super) fn changed(&self) -> Vec<LevelLine> {
        let all = self.all.iter().map(|set| set.line(None));
        all.chain(self.services.iter().map(|(name, set)| set.line(Some(name)))).collect()
    }

    /// The levels in an answer, that of all first.
    pub(super) fn report(&self) -> LogReport {
        let mut levels = self.changed();
        if self.all.is_none() {
            let level = self.configured;
            levels.insert(0, LevelLine { service: None, level, is_set: false, left_ms: None });
        }
        LogReport { configured: self.configured, levels }
    }

    /// Sets or resets levels.
    pub(super) fn apply(&mut self, wish: &LevelWish, until: Option<Instant>) {
        let set = wish.level.map(|level| SetLevel { level, until });
        match (&wish.service, set) {
            (Some(service), Some(set)) => _ = self.services.insert(service.clone(), set),
            (Some(service), None) => _ = self.services.remove(service),
            (None, Some(set)) => self.all = Some(set),
            (None, None) => (self.all, self.services) = (None, BTreeMap::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn levels_end_by_their_times_or_by_a_reset() {
        let mut all = LogLevels::new(LogLevel::Info);
        let (now, wish) = (Instant::now(), |level, service: Option<&str>| LevelWish {
            level,
            service: service.map(str::to_owned),
            for_ms: None,
        });
        let second = Some(now + Duration::from_secs(1));
        all.apply(&wish(Some(LogLevel::Debug), Some("chat")), second);
        all.apply(&wish(Some(LogLevel::Warn), None), None);
        assert_eq!(all.in_force().all, LogLevel::Warn);
        assert_eq!(all.in_force().services, BTreeMap::from([("chat".to_owned(), LogLevel::Debug)]));
        assert_eq!((all.deadline(), all.changed().len(), all.report().levels.len()), (second, 2, 2));
        assert!(!all.end_due(now) && all.end_due(now + Duration::from_secs(1)));
        assert_eq!((all.deadline(), all.changed().len()), (None, 1));
        all.apply(&wish(Some(LogLevel::Trace), Some("echo")), None);
        all.apply(&wish(None, Some("echo")), None);
        assert!(all.in_force().services.is_empty());
        all.apply(&wish(None, None), None);
        assert_eq!((all.in_force().all, all.changed().len()), (LogLevel::Info, 0));
        assert!(!all.report().levels[0].is_set);
    }
}
