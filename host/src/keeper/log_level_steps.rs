//! Changes of the log's levels: asked for, shown, told to all who log, ended in time.

use crate::keeper::Keeper;
use crate::logs::levels;
use crate::protocol::admin::Reply;
use crate::protocol::keeper::ToWorker;
use crate::protocol::log::LevelWish;
use std::time::{Duration, Instant};

impl Keeper {
    /// Answers `greenroom log`: shows the levels, or changes them first.
    pub(super) fn log_level(&mut self, wish: Option<LevelWish>) -> Reply {
        match wish.map(|wish| self.change_level(&wish)) {
            Some(Err(why)) => Reply::Error(why),
            Some(Ok(())) | None => Reply::LogLevels(Box::new(self.log_levels.report())),
        }
    }

    /// Changes levels, and tells all who log. The error says what is wrong with the wish.
    fn change_level(&mut self, wish: &LevelWish) -> Result<(), String> {
        // The services as they are now: one may have come since.
        self.worker.read_board();
        if let Some(service) = wish.service.as_ref().filter(|name| !self.knows_service(name)) {
            let all: Vec<_> = self.worker.services().map(|s| s.name.as_str()).collect();
            let all = if all.is_empty() { "not known yet".into() } else { all.join(", ") };
            return Err(format!("no service is named {service}; the services are: {all}"));
        }
        let until =
            match wish.for_ms {
                Some(0) => return Err("the level would end at once: --for must be more than 0".into()),
                Some(ms) => {
                    let at = Instant::now().checked_add(Duration::from_millis(ms));
                    Some(at.ok_or(
                        "the time of --for is too long; without it the level stays until the host ends",
                    )?)
                }
                None => None,
            };
        self.log_levels.apply(wish, until);
        self.tell_levels();
        let of = wish.service.as_deref().unwrap_or("all");
        match (wish.level, wish.for_ms) {
            (Some(level), Some(ms)) => {
                let time = humantime::format_duration(Duration::from_millis(ms));
                tracing::info!("an operator has set the level of the log: {level} for {of}, for {time}");
            }
            (Some(level), None) => {
                tracing::info!("an operator has set the level of the log: {level} for {of}");
            }
            (None, _) => tracing::info!("an operator has reset the level of the log for {of}"),
        }
        Ok(())
    }

    /// Whether a service is known, or its level was set before.
    fn knows_service(&self, name: &str) -> bool {
        self.log_levels.knows(name) || self.worker.services().any(|s| s.name == name)
    }

    /// Puts the levels in force here, and tells the worker. A successor learns them at its start.
    fn tell_levels(&mut self) {
        let in_force = self.log_levels.in_force();
        levels::set(in_force.clone());
        self.worker.send(&ToWorker::LogLevels(in_force));
    }

    /// Follows the level of a configuration that is in force.
    pub(super) fn configure_log(&mut self) {
        if self.log_levels.configure(self.options.config.log.level()) {
            self.tell_levels();
        }
    }

    /// Ends levels whose time is over.
    pub(super) fn end_log_levels(&mut self, now: Instant) {
        if self.log_levels.end_due(now) {
            self.tell_levels();
            tracing::info!("the time of a level of the log is over");
        }
    }
}
