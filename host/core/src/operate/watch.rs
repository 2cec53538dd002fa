//! Watching turns: who begins, of what, and what was seen.

use crate::host_state::HostState;
use crate::limits::names::Limit;
use crate::watch::subject::Subject;
use crate::watch::watchers::WatchedTurns;

/// Desk at which watches of turns begin and end. Made for each call.
pub struct WatchDesk<'a> {
    pub(crate) host: &'a mut HostState,
}

impl WatchDesk<'_> {
    /// Begins to watch turns, and returns the number of the watch. `records`: they are to be
    /// replayed. Fails if nothing can be watched under that name or number, or over `watchers_max`.
    pub fn begin(&mut self, subject: Subject, records: bool) -> Result<u64, String> {
        let host = &mut *self.host;
        let service = match &subject {
            Subject::Service { name, .. } => Some(host.services.number(name).ok_or_else(|| {
                let all = host.services.all().iter().filter(|s| s.build.is_some());
                let names: Vec<_> = all.map(|s| s.offer.name.as_str()).collect();
                format!("no service is called {name:?}; there are: {}", names.join(", "))
            })?),
            Subject::Sessions(ids) => {
                if let Some(id) = ids.iter().find(|id| host.sessions.slot_of(**id).is_none()) {
                    return Err(format!("no session has number {id}"));
                }
                None
            }
            Subject::Peer(_) | Subject::PeerAt(_) => None,
        };
        let most = host.limits.host().watchers_max;
        if host.watchers.len() >= most {
            host.limits.reached(Limit::WatchersMax);
            return Err(format!("{most} commands watch turns already (limit watchers_max)"));
        }
        Ok(host.watchers.add(subject, service, records))
    }

    /// Ends a watch. A number that is none has no effect.
    pub fn end(&mut self, number: u64) {
        self.host.watchers.remove(number);
    }

    /// Takes the turns of committed passes that a watch has seen; `None`: nothing is new.
    pub fn take(&mut self, number: u64) -> Option<WatchedTurns> {
        self.host.watchers.take(number)
    }

    /// Whether the sessions that a watch names are gone, so that it sees no turn any more.
    pub fn is_over(&self, number: u64) -> bool {
        let ids = self.host.watchers.sessions_of(number);
        ids.is_some_and(|ids| ids.iter().all(|id| self.host.sessions.slot_of(*id).is_none()))
    }
}
