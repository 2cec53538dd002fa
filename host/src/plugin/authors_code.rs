//! Code of authors on the prepare thread, and since when it runs.
//!
//! A constructor of a library, `create` of a handler and the destructors of a replaced build may
//! wait for ever, and a thread can't be ended. All reloads wait behind it. So the loop looks here
//! while a reload is under way.

use greenroom_core::reload::request::LibraryId;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Step of the prepare thread that runs code of authors in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorsStep {
    /// Load of a library, and the construction of its instances.
    Load(LibraryId),
    /// Destructors of replaced builds.
    Drop,
}

/// The step that runs now, with its beginning. Shared by the prepare thread and the loop.
#[derive(Debug, Clone, Default)]
pub struct AuthorsCode(Arc<Mutex<Option<(AuthorsStep, Instant)>>>);

impl AuthorsCode {
    /// Runs a step on the calling thread.
    pub fn run<T>(&self, step: AuthorsStep, code: impl FnOnce() -> T) -> T {
        self.set(Some((step, Instant::now())));
        let result = code();
        self.set(None);
        result
    }

    /// Returns the step that has run for so long at least. `None`: no step has.
    pub fn runs_for(&self, time: Duration) -> Option<AuthorsStep> {
        let running = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.filter(|(_, since)| since.elapsed() >= time).map(|(step, _)| step)
    }

    fn set(&self, running: Option<(AuthorsStep, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_runs_until_its_code_returns() {
        let (code, load) = (AuthorsCode::default(), AuthorsStep::Load(LibraryId(3)));
        assert_eq!(code.runs_for(Duration::ZERO), None);
        code.run(load, || {
            assert_eq!(code.runs_for(Duration::ZERO), Some(load));
            assert_eq!(code.runs_for(Duration::from_secs(3600)), None);
        });
        assert_eq!(code.runs_for(Duration::ZERO), None);
    }
}
