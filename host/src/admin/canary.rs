//! Choice of the sessions that run a canary's candidate, on a caller's thread.
//!
//! Sessions are chosen by their numbers, or by values of their states. States are read in slices
//! before the reload begins, so the choice costs clients nothing. A session that ends meanwhile is
//! in the list without a use: its number is never given again.

use crate::admin::ask::{Failure, each_slice, services};
use crate::admin::query::{CanaryRequest, QueryMailbox};
use crate::protocol::canary::CanaryWish;
use greenroom_core::operate::inspect::{Filter, SessionView};
use greenroom_core::reload::request::Requester;
use greenroom_core::service::canary_terms::{CHOSEN_MAX, WHOLE};
use greenroom_state::json;
use greenroom_state::path::FieldPath;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Makes a request of an operator's wish. An error says what in it does not fit.
pub(super) fn request(
    target: String,
    from: Option<PathBuf>,
    wish: CanaryWish,
    by: Requester,
    mailbox: &QueryMailbox,
) -> Result<CanaryRequest, Failure> {
    let CanaryWish { share, sessions, fields, compare_every, promote_after_ms, faults_max } = wish;
    if share > WHOLE {
        return Err(Failure::Said("a share of new sessions is from 0 % to 100 %".into()));
    }
    let path = |(path, value): (String, Value)| FieldPath::parse(&path).map(|path| (path, value));
    let fields = fields.into_iter().map(path).collect::<Result<Vec<_>, _>>().map_err(Failure::Said)?;
    let all = services(mailbox)?;
    let library = all.iter().find(|s| s.name == target).map_or(&target, |s| &s.library);
    let mine: BTreeSet<_> = all.iter().filter(|s| s.library == *library).map(|s| s.name.as_str()).collect();
    let chosen = chosen(&sessions, &fields, &mine, mailbox)?;
    if share == 0 && chosen.is_empty() {
        return Err(Failure::Said(match fields.is_empty() {
            true => "a canary needs a share of new sessions, or sessions that are there".into(),
            false => format!("no session of {target} has a state with these values, and the share is 0 %"),
        }));
    }
    Ok(CanaryRequest { target, from, share, chosen, compare_every, promote_after_ms, faults_max, by })
}

/// Sessions of some services by their numbers, and those whose states hold values, sorted. An error
/// names a number that none of them has, or says that there are too many.
fn chosen(
    numbers: &[u64],
    fields: &[(FieldPath, Value)],
    services: &BTreeSet<&str>,
    mailbox: &QueryMailbox,
) -> Result<Vec<u64>, Failure> {
    let (mut chosen, wanted) = (BTreeSet::new(), numbers.iter().copied().collect::<BTreeSet<_>>());
    if wanted.is_empty() && fields.is_empty() {
        return Ok(Vec::new());
    }
    let filter = Filter { contents: !fields.is_empty(), ..Filter::default() };
    each_slice(mailbox, &filter, |slice| {
        let mine = slice.iter().filter(|v| services.contains(v.service.as_str()));
        let is_chosen = |v: &&SessionView| wanted.contains(&v.record.id) || holds(v, fields);
        chosen.extend(mine.filter(is_chosen).map(|v| v.record.id));
        match chosen.len() > CHOSEN_MAX {
            true => Err(Failure::Said(format!(
                "more than {CHOSEN_MAX} sessions would be chosen; choose fewer, or a share of new sessions"
            ))),
            false => Ok(()),
        }
    })?;
    match wanted.difference(&chosen).next() {
        Some(id) => {
            let all: Vec<_> = services.iter().copied().collect();
            Err(Failure::Said(format!("no session of {} has number {id}", all.join(", "))))
        }
        None => Ok(chosen.into_iter().collect()),
    }
}

/// Whether a session's state holds these values; without any, it is not chosen by them.
fn holds(view: &SessionView, fields: &[(FieldPath, Value)]) -> bool {
    let state = || view.state.as_ref().and_then(|packed| json::to_json(packed).ok());
    !fields.is_empty()
        && state().is_some_and(|state| fields.iter().all(|(path, value)| path.find(&state) == Some(value)))
}
