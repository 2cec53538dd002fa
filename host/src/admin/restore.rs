//! Commands `state restore` and `state set`, on the caller's thread.
//!
//! The input is read line by line, and the loop checks it in slices of at most 64 items
//! (`reading`). Checked items make a [`Plan`], held here and not in the loop. The loop then stores
//! the whole plan between two passes, or refuses it with a reason.
//!
//! Clients are served between the slices. If another build serves or a table has another owner
//! meanwhile, the plan is refused: the check no longer holds. Costs O(input) of memory.

use crate::admin::ask::{Failure, get};
use crate::admin::caller::Caller;
use crate::admin::query::{Answer, Query, QueryMailbox, Restoring, Setting};
use crate::admin::reading::CheckedInput;
use crate::protocol::admin::Reply;
use greenroom_core::ledger::{Outcome, Report, Restored};
use greenroom_core::operate::plan::{Plan, Survey};
use greenroom_core::reload::request::Requester;
use std::sync::Arc;

/// Answers [`crate::protocol::admin::AdminCommand::Restore`]. A refusal is a report, not an
/// error: the loop notes it in the ledger, unless it is a dry run.
pub(super) fn restore(
    file: String,
    dry_run: bool,
    by: Requester,
    caller: &mut Caller<'_>,
    mailbox: &QueryMailbox,
) -> Result<(), Failure> {
    caller.say(&Reply::Go)?;
    let mut reading = CheckedInput::new(mailbox, false);
    // The whole input is read, whatever is wrong with it: a caller that still writes would not hear
    // why.
    reading.read(caller.reader())?;
    let plan = reading.plan().map(Arc::new);
    let report = match dry_run {
        true => Box::new(rehearsed(file, plan, mailbox)?),
        // The loop drops its share before this thread does, so that it need not free the plan.
        false => {
            let of = Restored { file: Some(file), ..Restored::default() };
            // Before the pause: what is stored as planned already need not be looked at in it.
            let survey = match &plan {
                Ok(plan) => surveyed(plan, mailbox)?.0,
                Err(_) => Box::default(),
            };
            carried_out(Restoring { plan: plan.clone(), survey, of, by }, mailbox)?
        }
    };
    Ok(caller.say(&Reply::Report(report))?)
}

/// Has the loop store a plan, or note in the ledger why not.
pub(super) fn carried_out(wanted: Restoring, mailbox: &QueryMailbox) -> Result<Box<Report>, Failure> {
    get(mailbox, Query::Restore(wanted), |a| if let Answer::Report(r) = a { Some(r) } else { None })
}

/// Answers [`crate::protocol::admin::AdminCommand::Set`].
pub(super) fn set(wanted: Setting, caller: &mut Caller<'_>, mailbox: &QueryMailbox) -> Result<(), Failure> {
    let answer = |a| match a {
        Answer::Set(report, before, after) => Some((report, Some((before, after)))),
        Answer::Report(report) => Some((report, None)),
        _ => None,
    };
    let (report, states) = get(mailbox, Query::Set(wanted), answer)?;
    if let Some((before, after)) = states {
        caller.say(&Reply::Set(before, after))?;
    }
    Ok(caller.say(&Reply::Report(report))?)
}

/// Report on what a restore would change. Changes nothing and leaves no line in the ledger.
fn rehearsed(
    file: String,
    plan: Result<Arc<Plan>, String>,
    mailbox: &QueryMailbox,
) -> Result<Report, Failure> {
    let file = Some(file);
    let refused =
        |file, why| Restored { file, ..Restored::default() }.report(Outcome::Refused, why, Vec::new());
    let plan = match plan {
        Err(why) => return Ok(refused(file, why)),
        Ok(plan) => plan,
    };
    let (survey, room) = surveyed(&plan, mailbox)?;
    if let Err(why) = room {
        return Ok(refused(file, why));
    }
    let services = plan.services();
    let found = Restored { file, ..survey.found(&plan) };
    Ok(found.report(Outcome::Rehearsed, String::new(), services))
}

/// Surveys a plan, a slice in a pass. Returns also whether there is room for what it changes.
fn surveyed(plan: &Arc<Plan>, mailbox: &QueryMailbox) -> Result<(Box<Survey>, Result<(), String>), Failure> {
    let mut survey = Box::<Survey>::default();
    loop {
        let answer = |a| if let Answer::Surveyed(s, room) = a { Some((s, room)) } else { None };
        let (found, room) = get(mailbox, Query::Survey(plan.clone(), survey), answer)?;
        survey = found;
        if let Some(room) = room {
            return Ok((survey, room));
        }
    }
}
