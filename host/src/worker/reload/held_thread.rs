//! Code of authors that holds the prepare thread, and with it all reloads.
//!
//! A library was loaded and built in its trial, within limit `rehearsal_ms`. The same code may wait
//! for ever in the worker: for a lock, a server, or a child that the trial could not have. A thread
//! can't be ended, so a fresh process takes over, which leaves without running destructors.
//!
//! | the thread is held by | its reload | reloads that wait for the thread |
//! | --- | --- | --- |
//! | a load, for `rehearsal_ms` | refused | refused; the fresh worker may carry them out |
//! | destructors, for as long | is over | the same |
//!
//! A worker that has not served yet can't be replaced. It refuses the load all the same, and is
//! replaced once another reload waits.

use crate::plugin::authors_code::AuthorsStep;
use crate::protocol::admin::FRESH_WORKER;
use crate::worker::reload::carry_out::ReloadDriver;
use crate::worker::reload::loads_under_way::say_loads;
use crate::worker::reload::owed_answers::OwedStep;
use crate::worker::shell::Shell;
use greenroom_core::reload::request::Event;
use std::time::Duration;

impl ReloadDriver {
    /// Ends reloads that wait for code of authors, and asks for a fresh process. O(1) without one.
    pub(super) fn end_held(&mut self, shell: &mut Shell) {
        if !shell.core.reloads.is_busy() {
            return;
        }
        let limit = Duration::from_millis(shell.config.limits().rehearsal_ms);
        let Some(held) = shell.threads.prepare.held_for(limit) else { return };
        let after = format!("after {} s (limit rehearsal_ms)", limit.as_secs_f64());
        let did = format!("has not come back from `new` or a constructor in the worker {after}");
        let why = match held {
            AuthorsStep::Load(id) => format!("{} {did}", shell.core.reloads.libraries()[id.0].name()),
            AuthorsStep::Drop => format!("the destructors of a replaced build have not come back {after}"),
        };
        let given_up = self.owed.give_up();
        say_loads(shell, &self.owed, &self.read);
        for (id, step) in given_up {
            let why = match held == AuthorsStep::Load(id) {
                true => format!("it {did}, although it had in its trial"),
                false => format!("{why}; {FRESH_WORKER}"),
            };
            match step {
                OwedStep::Stage => self.handle(shell, Event::Staged(id, Err(why))),
                OwedStep::Try(epoch) => self.end_trial(shell, id, epoch, Err(why)),
                OwedStep::Load => self.end_load(shell, id, Err(why)),
            }
        }
        if shell.keeper.may_recycle() {
            shell.keeper.recycle(why);
        }
    }
}
