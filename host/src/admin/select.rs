//! Sessions that an operator selects, slice after slice.
//!
//! The loop selects by service and number. The caller's thread selects by all else, on copies: the
//! address, times, and fields of the state as it is stored. So a search costs the loop a copy of
//! each state that it looks at, in slices of bounded size.
//!
//! A condition on a field that no session has is told: it may be a slip of the pen.

use crate::admin::ask::{Failure, each_slice, services};
use crate::admin::query::QueryMailbox;
use crate::clock::unix_ms;
use crate::protocol::selection::Selection;
use greenroom_core::operate::inspect::{Filter, SessionView};
use greenroom_state::condition::Condition;
use greenroom_state::json;

/// Selection with its conditions read.
struct Selector {
    selection: Selection,
    conditions: Vec<Condition>,
    /// Whether a session had the field of each condition.
    seen: Vec<bool>,
    now_ms: u64,
}

/// Calls `each` with the selected sessions, in the order of their numbers. `contents`: with states,
/// input and output. Returns how many there were, and a notice for the operator.
///
/// Refuses an unknown service, a condition that is none, and the number of no session.
pub(super) fn each_selected(
    mailbox: &QueryMailbox,
    selection: Selection,
    contents: bool,
    mut each: impl FnMut(SessionView) -> Result<(), Failure>,
) -> Result<(usize, Option<String>), Failure> {
    if let Some(name) = &selection.service {
        known_service(name, mailbox)?;
    }
    let mut selector = Selector::new(selection)?;
    let contents = contents || !selector.conditions.is_empty();
    let mut found = 0;
    let numbers = selector.selection.sessions.clone();
    let one_by_one: Vec<_> = match numbers.is_empty() {
        true => vec![None],
        false => numbers.into_iter().map(Some).collect(),
    };
    for session in one_by_one {
        let service = selector.selection.service.clone().filter(|_| session.is_none());
        let mut exists = false;
        each_slice(mailbox, &Filter { service, session, contents }, |slice| {
            for view in slice {
                exists = true;
                if selector.takes(&view) {
                    found += 1;
                    each(view)?;
                }
            }
            Ok(())
        })?;
        // A number that no session has is an error and not an empty list: scripts should notice.
        if let (Some(id), false) = (session, exists) {
            return Err(Failure::Said(format!("no session has number {id}")));
        }
    }
    Ok((found, selector.notice()))
}

/// Refuses a name that no service has, and says which there are. O(services).
pub(super) fn known_service(name: &str, mailbox: &QueryMailbox) -> Result<(), Failure> {
    let all = services(mailbox)?;
    match all.iter().any(|s| s.name == name) {
        true => Ok(()),
        false => {
            let known: Vec<_> = all.iter().map(|s| s.name.as_str()).collect();
            Err(Failure::Said(format!("no service is called {name:?}; there are: {}", known.join(", "))))
        }
    }
}

impl Selector {
    fn new(selection: Selection) -> Result<Selector, Failure> {
        let conditions = selection.conditions.iter().map(|text| Condition::parse(text));
        let conditions: Vec<_> = conditions.collect::<Result<_, _>>().map_err(Failure::Said)?;
        let seen = vec![false; conditions.len()];
        Ok(Selector { selection, conditions, seen, now_ms: unix_ms() })
    }

    /// Whether a session is selected. O(bytes of its state), if there are conditions.
    fn takes(&mut self, view: &SessionView) -> bool {
        let s = &self.selection;
        let age_ms = self.now_ms.saturating_sub(view.record.opened_at_ms);
        let fits = s.service.as_ref().is_none_or(|name| *name == view.service)
            && s.peer.as_ref().is_none_or(|part| view.record.peer.to_string().contains(part.as_str()))
            && s.older_ms.is_none_or(|ms| age_ms >= ms)
            && s.younger_ms.is_none_or(|ms| age_ms <= ms)
            && s.idle_ms.is_none_or(|ms| view.idle_ns / 1_000_000 >= ms)
            && (!s.quarantined || view.quarantined.is_some());
        fits && self.meets_conditions(view)
    }

    /// Whether a session's state meets all conditions. Each is looked at, as all are told.
    fn meets_conditions(&mut self, view: &SessionView) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let Some(state) = view.state.as_deref().and_then(|packed| json::to_json(packed).ok()) else {
            return false;
        };
        let mut meets = true;
        for (condition, seen) in self.conditions.iter().zip(&mut self.seen) {
            let holds = condition.holds(&state);
            *seen |= holds.is_some();
            meets &= holds == Some(true);
        }
        meets
    }

    /// Says which fields no session had.
    fn notice(&self) -> Option<String> {
        let unseen = self.conditions.iter().zip(&self.seen).filter(|(_, seen)| !**seen);
        let unseen: Vec<_> = unseen.map(|(condition, _)| condition.path().to_string()).collect();
        (!unseen.is_empty()).then(|| format!("no stored state has a field {}", unseen.join(", nor ")))
    }
}
