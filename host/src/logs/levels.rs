//! Levels of the log that are in force: one for all, and one for each service that has its own.
//!
//! Levels change while the host runs. A call site that nobody wants costs what it costs without any
//! of this: `tracing` knows the most detailed level, and whether the site is wanted at all. Sites
//! that name a service are looked at again with each event.
//!
//! Libraries read their level in the host's table, and drop events beyond it before they cross the
//! ABI. Each table that [`follow`] was told of has the level of its own services, as it is now.
//!
//! `RUST_LOG` sets levels of single modules, such as `greenroom::keeper=debug`. Those stay as they
//! are.

use greenroom_state::abi::level;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};

/// Name of the field that holds an event's service.
pub(super) const SERVICE: &str = "service";

/// The most detailed events that are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// None at all.
    Off,
    /// Failures.
    Error,
    /// Warnings, too.
    Warn,
    /// Events of a usual day, too.
    #[default]
    Info,
    /// Causes and details, too.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Number of this level in the ABI, which has none for `off`.
    fn in_abi(self) -> u32 {
        match self {
            LogLevel::Off | LogLevel::Error => level::ERROR,
            LogLevel::Warn => level::WARN,
            LogLevel::Info => level::INFO,
            LogLevel::Debug => level::DEBUG,
            LogLevel::Trace => level::TRACE,
        }
    }

    /// Filter of `tracing` that this level is.
    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }

    /// Whether an event of a level is logged.
    fn shows(self, level: Level) -> bool {
        level <= self.filter()
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        // An empty text would be one of `tracing`.
        let filter = text.parse::<LevelFilter>().ok().filter(|_| !text.is_empty());
        let filter = filter
            .ok_or_else(|| format!("{text:?} is no level; those are error, warn, info, debug and trace"))?;
        Ok(match filter.into_level() {
            None => LogLevel::Off,
            Some(Level::ERROR) => LogLevel::Error,
            Some(Level::WARN) => LogLevel::Warn,
            Some(Level::INFO) => LogLevel::Info,
            Some(Level::DEBUG) => LogLevel::Debug,
            Some(Level::TRACE) => LogLevel::Trace,
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// Levels of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// The level of all that has none of its own.
    pub all: LogLevel,
    /// Levels of services, by name.
    #[serde(default)]
    pub services: BTreeMap<String, LogLevel>,
}

/// Levels in force, and who follows them.
struct InForce {
    levels: Levels,
    /// Levels of modules, by the beginning of their path.
    modules: Vec<(String, LogLevel)>,
    /// Tables that libraries read, with the services of each.
    tables: Vec<(Vec<String>, &'static AtomicU32)>,
}

static IN_FORCE: RwLock<InForce> = RwLock::new(InForce {
    // Before the log has started, nothing is shown.
    levels: Levels { all: LogLevel::Off, services: BTreeMap::new() },
    modules: Vec::new(),
    tables: Vec::new(),
});

impl InForce {
    /// Level of a module's events without a service: the longest path that fits counts.
    fn of_module(&self, target: &str) -> LogLevel {
        let fits = self.modules.iter().filter(|(path, _)| target.starts_with(path.as_str()));
        fits.max_by_key(|(path, _)| path.len()).map_or(self.levels.all, |(_, level)| *level)
    }

    /// Whether some event of a call site is logged.
    fn wants(&self, site: &Metadata<'_>) -> bool {
        let own = self.of_module(site.target());
        let of_services = site.fields().field(SERVICE).and(self.levels.services.values().max());
        of_services.map_or(own, |most| own.max(*most)).shows(*site.level())
    }

    /// Level of a library with these services.
    fn of_library(&self, services: &[String]) -> LogLevel {
        let modules = self.modules.iter().map(|(_, level)| *level);
        let all = modules.fold(self.levels.all, LogLevel::max);
        let of = |service| self.levels.services.get(service).copied().unwrap_or(all);
        services.iter().map(of).max().unwrap_or(all)
    }

    /// The most detailed level of all.
    fn most(&self) -> LogLevel {
        let modules = self.modules.iter().map(|(_, level)| *level);
        modules.chain(self.levels.services.values().copied()).fold(self.levels.all, LogLevel::max)
    }
}

/// Puts levels in force, for the process and its libraries. Locks for a moment; O(call sites).
pub fn set(levels: Levels) {
    change(|now| now.levels = levels);
}

/// Reads the levels of modules in `RUST_LOG`. What is none is left out.
pub(super) fn read_modules() {
    let text = std::env::var("RUST_LOG").unwrap_or_default();
    let parsed = text.split(',').filter_map(|part| {
        let (module, level) = part.trim().rsplit_once('=').unwrap_or(("", part.trim()));
        Some((module.to_owned(), level.parse().ok()?))
    });
    let modules = parsed.collect();
    change(|now| now.modules = modules);
}

fn change(f: impl FnOnce(&mut InForce)) {
    let mut now = IN_FORCE.write().unwrap_or_else(PoisonError::into_inner);
    f(&mut now);
    for (services, table) in &now.tables {
        // Relaxed: a library may see it a moment later.
        table.store(now.of_library(services).in_abi(), Ordering::Relaxed);
    }
    // Call sites ask for the levels again.
    drop(now);
    tracing::callsite::rebuild_interest_cache();
}

fn read<T>(f: impl FnOnce(&InForce) -> T) -> T {
    f(&IN_FORCE.read().unwrap_or_else(PoisonError::into_inner))
}

/// Has a table follow the level of a library's services, from now on for as long as the process
/// lives.
pub fn follow(services: Vec<String>, table: &'static AtomicU32) {
    change(|now| now.tables.push((services, table)));
}

/// The most detailed level.
pub(super) fn most() -> LevelFilter {
    read(|now| now.most().filter())
}

/// Whether some event of a call site is logged.
pub(super) fn wants(site: &Metadata<'_>) -> bool {
    read(|now| now.wants(site))
}

/// Whether an event of a service is logged: the service's own level counts, if it has one. The call
/// site is one that [`wants`] has let pass.
pub(super) fn shows(site: &Metadata<'_>, service: &str) -> bool {
    read(|now| {
        let own = now.levels.services.get(service).copied();
        own.unwrap_or_else(|| now.of_module(site.target())).shows(*site.level())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(all: LogLevel, services: &[(&str, LogLevel)], modules: &[(&str, LogLevel)]) -> InForce {
        let owned =
            |all: &[(&str, LogLevel)]| all.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect::<Vec<_>>();
        let levels = Levels { all, services: owned(services).into_iter().collect() };
        InForce { levels, modules: owned(modules), tables: Vec::new() }
    }

    #[test]
    fn levels_are_read_as_they_are_written_and_more_detail_is_more() {
        for text in ["off", "error", "warn", "info", "debug", "trace"] {
            assert_eq!(text.parse::<LogLevel>().unwrap().to_string(), text);
            assert_eq!(serde_json::to_value(text.parse::<LogLevel>().unwrap()).unwrap(), text);
        }
        assert_eq!("WARN".parse(), Ok(LogLevel::Warn));
        let said = "loud".parse::<LogLevel>().unwrap_err();
        assert!(said.contains("\"loud\" is no level; those are error"), "{said}");
        assert!("".parse::<LogLevel>().is_err());
        assert!(LogLevel::Off < LogLevel::Error && LogLevel::Debug < LogLevel::Trace);
        assert!(!LogLevel::Off.shows(Level::ERROR) && LogLevel::Warn.shows(Level::ERROR));
    }

    #[test]
    fn a_library_has_the_most_detailed_level_of_its_services() {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let now = in_force(LogLevel::Info, &[("chat", LogLevel::Debug), ("echo", LogLevel::Error)], &[]);
        assert_eq!(now.of_library(&owned(&["echo"])), LogLevel::Error);
        assert_eq!(now.of_library(&owned(&["echo", "tally"])), LogLevel::Info);
        assert_eq!(now.of_library(&owned(&["echo", "chat"])), LogLevel::Debug);
        assert_eq!((now.of_library(&[]), now.most()), (LogLevel::Info, LogLevel::Debug));
    }

    #[test]
    fn the_longest_path_of_a_module_counts() {
        let modules =
            [("greenroom", LogLevel::Warn), ("greenroom::keeper", LogLevel::Trace), ("", LogLevel::Error)];
        let now = in_force(LogLevel::Info, &[], &modules);
        assert_eq!(now.of_module("greenroom::keeper::stop"), LogLevel::Trace);
        assert_eq!(now.of_module("greenroom::worker"), LogLevel::Warn);
        assert_eq!(now.of_module("other"), LogLevel::Error);
        assert_eq!(now.most(), LogLevel::Trace);
    }
}
