//! Questions to the host, asked at the admin socket as any command does.
//!
//! Answers are kept for a moment, and readers that come meanwhile wait for the one that asks. So
//! any number of scrapes each second costs the host one question. The host's loop is not asked for
//! the status at all: the keeper answers it.

use crate::admin::client::{CallError, call, call_while};
use crate::protocol::admin::{AdminCommand, LedgerLine, Reply};
use crate::protocol::metrics::Metrics;
use crate::protocol::status::Status;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Age up to which an answer serves other readers, too.
const AGE_MAX: Duration = Duration::from_millis(500);
/// Time for which a reader waits for another one's question.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Questions without a kept answer that are under way at once, such as dumps of sessions.
const ASKED_AT_ONCE: usize = 4;

/// Questions to one host.
pub(super) struct Questions {
    runtime: PathBuf,
    status: Kept<Status>,
    metrics: Kept<Metrics>,
    history: Kept<Vec<LedgerLine>>,
    /// Places of questions without a kept answer.
    places: Places,
}

impl Questions {
    /// Makes questions to the host of a runtime directory.
    pub(super) fn new(runtime: PathBuf) -> Questions {
        Questions {
            runtime,
            status: Kept::default(),
            metrics: Kept::default(),
            history: Kept::default(),
            places: Places::new(ASKED_AT_ONCE),
        }
    }

    /// Status, at most half a second old. The error says why there is none.
    pub(super) fn status(&self) -> Result<Arc<Status>, String> {
        self.status.get(AGE_MAX, || {
            let mut status = None;
            self.call(&AdminCommand::Status, |reply| {
                if let Reply::Status(s) = reply {
                    status = Some(*s);
                }
            })?;
            status.ok_or_else(|| "the host answered something else".to_owned())
        })
    }

    /// All figures, at most half a second old. The error says why there are none.
    pub(super) fn metrics(&self) -> Result<Arc<Metrics>, String> {
        self.metrics.get(AGE_MAX, || {
            let mut metrics = None;
            self.call(&AdminCommand::Metrics, |reply| {
                if let Reply::Metrics(m) = reply {
                    metrics = Some(*m);
                }
            })?;
            metrics.ok_or_else(|| "the host answered something else".to_owned())
        })
    }

    /// Status as it is now.
    pub(super) fn status_now(&self) -> Result<Arc<Status>, String> {
        self.status.forget();
        self.status()
    }

    /// Lines of the ledger, at most half a second old.
    pub(super) fn history(&self) -> Result<Arc<Vec<LedgerLine>>, String> {
        self.history.get(AGE_MAX, || {
            let mut lines = Vec::new();
            self.call(&AdminCommand::History, |reply| {
                if let Reply::History(slice) = reply {
                    lines.extend(slice);
                }
            })?;
            Ok(lines)
        })
    }

    /// Asks the host, and calls `each` with each reply.
    pub(super) fn call(&self, command: &AdminCommand, each: impl FnMut(Reply)) -> Result<(), String> {
        call(&self.runtime, command, each).map_err(in_words)
    }

    /// Asks the host once, and calls `each` with each reply until it returns false.
    pub(super) fn call_while(
        &self,
        command: &AdminCommand,
        each: impl FnMut(Reply) -> bool,
    ) -> Result<(), String> {
        call_while(&self.runtime, command, each).map_err(in_words)
    }

    /// Runtime directory of the host.
    pub(super) fn runtime(&self) -> &std::path::Path {
        &self.runtime
    }

    /// Asks the host in one of few places. Fails if all are taken.
    pub(super) fn in_a_place<T>(&self, ask: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        match self.places.take() {
            Some(_place) => ask(),
            None => Err("too many questions to the host are under way; try again".into()),
        }
    }
}

/// Places that are taken and given back.
pub(super) struct Places(Mutex<usize>);

/// A place that is taken. Dropping it gives it back, also in a panic.
pub(super) struct TakenPlace<'a>(&'a Places);

impl Places {
    /// Makes so many places.
    pub(super) fn new(count: usize) -> Places {
        Places(Mutex::new(count))
    }

    /// Takes a place; `None`: all are taken.
    pub(super) fn take(&self) -> Option<TakenPlace<'_>> {
        let mut free = locked(&self.0);
        *free = free.checked_sub(1)?;
        Some(TakenPlace(self))
    }
}

impl Drop for TakenPlace<'_> {
    fn drop(&mut self) {
        *locked(&self.0.0) += 1;
    }
}

/// Reason of a failed question.
pub(super) fn in_words(e: CallError) -> String {
    match e {
        CallError::NoHost(text) | CallError::Failed(text) | CallError::BrokenOff(text) => text,
    }
}

/// Locks, also behind a panic: what is kept here is whole at any time.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody else has; `None`: somebody has.
pub(super) fn try_locked<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// An answer that is kept.
struct Kept<T> {
    answer: Mutex<Answer<T>>,
    /// The one that asked has its answer.
    asked: Condvar,
}

struct Answer<T> {
    /// Time and answer.
    last: Option<(Instant, Result<Arc<T>, String>)>,
    /// A reader asks at the moment.
    is_asking: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept { answer: Mutex::new(Answer { last: None, is_asking: false }), asked: Condvar::new() }
    }
}

impl<T> Kept<T> {
    /// Answer of at most this age. Asks if there is none, unless another reader does: then its
    /// answer is waited for.
    fn get(&self, age: Duration, ask: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        let mut answer = locked(&self.answer);
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some((at, last)) = &answer.last
                && at.elapsed() <= age
            {
                return last.clone();
            }
            if !answer.is_asking {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the host has not answered for {} s", WAIT_MAX.as_secs()));
            }
            answer = self.asked.wait_timeout(answer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        answer.is_asking = true;
        drop(answer);
        // Set back also if the question panics: others would wait for ever.
        let asking = Asking(self);
        let result = ask().map(Arc::new);
        locked(&self.answer).last = Some((Instant::now(), result.clone()));
        drop(asking);
        result
    }

    /// Has the next reader ask anew.
    fn forget(&self) {
        locked(&self.answer).last = None;
    }
}

/// A question under way.
struct Asking<'a, T>(&'a Kept<T>);

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        locked(&self.0.answer).is_asking = false;
        self.0.asked.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::sync::mpsc::channel;

    /// Readers at one time share one question, and its failure.
    #[test]
    fn readers_share_a_question() {
        let (kept, asked) = (Kept::<u32>::default(), AtomicU32::new(0));
        let (begun, begins) = channel();
        let (go, goes) = channel::<()>();
        let (kept, asked) = (&kept, &asked);
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                kept.get(Duration::MAX, || {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                    Ok(asked.fetch_add(1, Relaxed))
                })
            });
            begins.recv().unwrap();
            let others: Vec<_> = (0..8)
                .map(|_| scope.spawn(move || kept.get(Duration::MAX, || Ok(asked.fetch_add(1, Relaxed)))))
                .collect();
            go.send(()).unwrap();
            assert_eq!(*first.join().unwrap().unwrap(), 0);
            assert!(others.into_iter().all(|t| *t.join().unwrap().unwrap() == 0));
        });
        assert_eq!(asked.load(Relaxed), 1);
        kept.forget();
        assert_eq!(kept.get(Duration::MAX, || Err("gone".into())), Err("gone".into()));
        assert_eq!(kept.get(Duration::MAX, || Ok(7)), Err("gone".into()), "it is kept, too");
    }
}
