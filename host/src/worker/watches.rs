//! Operators who watch turns: each gets what is new when it asks.
//!
//! An operator's thread asks, and waits here until its watch has seen something. While it does not
//! ask, what is seen waits in the core, whose limit bounds it. A worker that is about to end
//! answers nobody: the threads end, and their callers ask the next worker.

use crate::admin::follow::ABOUT_TO_END;
use crate::admin::query::Answer;
use crate::config::admin::AdminConfig;
use crate::worker::shell::Shell;
use greenroom_core::watch::subject::Subject;
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

/// Watches whose operators wait for turns.
#[derive(Default)]
pub(super) struct Watches {
    waiting: Vec<(u64, Sender<Answer>)>,
    /// Roles that were in force when a watch began, or when it was told of them last.
    roles: BTreeMap<u64, AdminConfig>,
}

/// Begins a watch. A worker that is about to end begins none.
pub(super) fn begin(shell: &mut Shell, subject: Subject, records: bool) -> Answer {
    if shell.lifecycle.is_ending() {
        return Answer::Error(ABOUT_TO_END.into());
    }
    let limits = Box::new(shell.config.get().all_limits());
    match shell.core.watching().begin(subject, records) {
        Ok(number) => Answer::Watching(number, limits),
        Err(why) => Answer::Error(why),
    }
}

impl Watches {
    /// Lets an operator wait for turns.
    pub(super) fn wait(&mut self, shell: &Shell, number: u64, reply: Sender<Answer>) {
        self.roles.entry(number).or_insert_with(|| shell.config.get().admin.clone());
        self.waiting.push((number, reply));
    }

    /// Ends a watch, and forgets its operator.
    pub(super) fn end(&mut self, shell: &mut Shell, number: u64) {
        self.waiting.retain(|(n, _)| *n != number);
        self.roles.remove(&number);
        shell.core.watching().end(number);
    }

    /// Gives operators what their watches have seen. Behind a commit: a turn is shown once it
    /// counts.
    pub(super) fn step(&mut self, shell: &mut Shell) {
        if self.waiting.is_empty() {
            return;
        }
        if shell.lifecycle.is_ending() {
            return self.waiting.clear();
        }
        let admin = &shell.config.get().admin;
        let mut desk = shell.core.watching();
        self.waiting.retain(|(number, reply)| {
            // The operator may have lost its role: its thread knows.
            if let Some(told) = self.roles.get_mut(number).filter(|told| *told != admin) {
                told.clone_from(admin);
                let _ = reply.send(Answer::Roles(Box::new(admin.clone())));
                return false;
            }
            let seen = desk.take(*number);
            if seen.is_none() && !desk.is_over(*number) {
                return true;
            }
            // The operator may be gone: its thread ends the watch.
            let _ = reply.send(Answer::Watched(seen));
            false
        });
    }
}
