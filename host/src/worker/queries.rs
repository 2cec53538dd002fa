//! Answers to operators' queries.
//!
//! An operator's thread asks one query at a time and blocks until the answer is there. A query
//! costs the loop a bounded slice of work: long lists are asked for slice by slice, and sessions
//! are served in between. A list is therefore no snapshot: items may come and go between slices.
//!
//! Queries are answered inside a pass, behind its reads. Reading ones see turns that are not
//! committed yet. Closing and releasing sessions takes part in the pass's commit. Queries that
//! change builds, configuration or data queue at a driver, and are answered when it is done.
//!
//! If the worker ends, queries without an answer end with an error, because their channels close.

use crate::admin::query::{Answer, Ask, Query, ReadState, SchemaOf, TableEntries};
use crate::protocol::data::TableLine;
use crate::worker::drivers::Drivers;
use crate::worker::reload::canary_list::canaries;
use crate::worker::restore::OperatorRestore;
use crate::worker::shell::Shell;
use crate::worker::watches;
use greenroom_core::core::Core;
use greenroom_core::ids::service_of_number;
use greenroom_core::operate::check::{Builds, GivenEntry, GivenState};
use greenroom_core::operate::inspect::Filter;
use greenroom_core::operate::plan::{Plan, Survey};
use greenroom_core::operate::restore::ITEMS_PER_SLICE;
use greenroom_core::operate::undo::ReplacedData;
use greenroom_core::store::kind::Kind;
use greenroom_core::tables::owner::Owner;
use greenroom_state::schema::Schema;

/// Answers a query at once, or gives it to the driver that answers it later. Long answers are
/// slices of bounded length. An answer for a caller that is gone is dropped.
pub(super) fn answer(shell: &mut Shell, drivers: &mut Drivers, ask: Ask) {
    let core = &mut shell.core;
    let answer = match ask.query {
        Query::Services => Answer::Services(shell.service_statuses().into_iter().flatten().collect()),
        Query::Sessions(after, filter) => Answer::Sessions(core.sessions_after(after, &filter)),
        Query::OwnOf(name, after) => {
            let service = core.service_named(&name);
            // An unknown service has nothing of its own.
            let own = service.map(|s| core.of_service(s, after.as_deref()));
            Answer::Own(own.unwrap_or_default())
        }
        Query::Tables => Answer::Tables(core.table_names()),
        Query::TableList => Answer::TableList(table_lines(core)),
        Query::ReadState(id) => {
            read_state(core, id).map_or_else(Answer::Error, |s| Answer::State(Box::new(s)))
        }
        Query::ReplacedData => Answer::ReplacedData(replaced_data(core).map(Box::new)),
        Query::Owned => Answer::Owned(owned_tables(core)),
        Query::Entries(table, from) => {
            let (entries, next) = core.entries_from(&table, &from);
            // Versions that differ from the owner's: such values are not migrated yet.
            let versions = entries.iter().map(|(key, _)| core.other_version(&table, key)).collect();
            let until =
                entries.iter().map(|(key, _)| core.tables().until(core.store(), &table, key)).collect();
            Answer::Entries(TableEntries { entries, versions, until, next })
        }
        Query::Ledger(line) => Answer::Ledger(shell.ledger.lines_from(core, line)),
        Query::Release(id) => core.release(id).map_or_else(Answer::Error, |()| Answer::Done),
        Query::Close(id) => core.close(id).map_or_else(Answer::Error, |()| Answer::Done),
        Query::Message(id, text) => {
            core.operator().send_message(id, text.as_bytes()).map_or_else(Answer::Error, |()| Answer::Done)
        }
        Query::Configure(proposal) => return drivers.proposals.add(proposal, Some(ask.reply)),
        Query::Reload(wish) => return drivers.reload.ask_reload(shell, wish, ask.reply),
        Query::Canary(wish) => return drivers.reload.ask_canary(shell, wish, ask.reply),
        Query::Canaries => Answer::Canaries(canaries(core)),
        Query::Promote(name, by) => return drivers.reload.ask_promote(shell, &name, by, Some(ask.reply)),
        Query::TakeBack(name, by) => return drivers.canaries.ask_take_back(name, by, ask.reply),
        Query::RollBack(name, to, by) => {
            return drivers.reload.ask_roll_back(shell, &name, to, by, ask.reply);
        }
        Query::Await(line) => return drivers.probations.wait_for(shell, line, ask.reply),
        Query::CheckStates(states) => check_states(core, &states),
        Query::CheckEntries(table, entries) => check_entries(core, &table, &entries),
        Query::Schema(of) => Answer::Schema(schema(core, &of).cloned().map(Box::new)),
        Query::Survey(plan, survey) => continue_survey(core, &plan, survey),
        Query::Restore(wanted) => {
            return drivers.restores.add(OperatorRestore::Dump(Box::new(wanted), ask.reply));
        }
        Query::Set(wanted) => return drivers.restores.add(OperatorRestore::Fields(wanted, ask.reply)),
        Query::Watch { subject, records } => watches::begin(shell, subject, records),
        Query::Watched(number) => return drivers.watches.wait(shell, number, ask.reply),
        Query::Unwatch(number) => return drivers.watches.end(shell, number),
    };
    // The caller may be gone: the error is ignored.
    let _ = ask.reply.send(answer);
}

/// The tables that services own: service, table, and the version that its values are written in.
/// O(tables).
fn owned_tables(core: &Core) -> Vec<(String, String, u32)> {
    let name = |o: &Owner| core.services()[usize::from(o.service.0)].offer.name.clone();
    core.owners().iter().map(|(table, o)| (name(o), table.to_string(), o.version)).collect()
}

/// Reads a session's state, as its next turn would. Changes nothing. Fails if it is not open.
fn read_state(core: &mut Core, id: u64) -> Result<ReadState, String> {
    let none = || format!("no session has number {id}");
    let slot = core.sessions().slot_of(id).filter(|_| service_of_number(id).is_none()).ok_or_else(none)?;
    let s = core.sessions().get(slot).ok_or_else(none)?;
    let (service, turns) = (s.service, s.turns);
    let offer = &core.services()[usize::from(service.0)].offer;
    let (service, version) = (offer.name.clone(), offer.shape.version);
    let read = core.rehearse(slot);
    // A state that can't be read is stored all the same.
    let stored = match &read {
        Ok(read) => read.before.clone(),
        Err(_) => stored_state(core, id),
    };
    Ok(ReadState { service, version, turns, stored, read: read.map(|r| r.after) })
}

/// A session's state as it is stored, with its version.
fn stored_state(core: &Core, id: u64) -> Option<(u32, Vec<u8>)> {
    let filter = Filter { session: Some(id), contents: true, ..Filter::default() };
    let view = core.sessions_after(0, &filter).items.pop()?;
    Some((view.record.state_version, view.state?))
}

/// Describes the tables that have entries or owners. O(tables × versions).
fn table_lines(core: &Core) -> Vec<TableLine> {
    let owners = core.owners();
    let mut names = core.table_names();
    names.extend(owners.keys().map(|name| name.to_string()));
    names.sort_unstable();
    names.dedup();
    let line = |name: String| {
        let owner = owners.get(&*name);
        let tables = core.tables();
        TableLine {
            owner: owner.map(|o| core.services()[usize::from(o.service.0)].offer.name.clone()),
            version: owner.map(|o| o.version),
            entries: tables.count(&name),
            bytes: tables.bytes(&name),
            versions: tables.counts(&name),
            name,
        }
    };
    names.into_iter().map(line).collect()
}

/// Reads the data that the last change of an operator replaced.
fn replaced_data(core: &Core) -> Option<ReplacedData> {
    let (_, bytes) = core.host_records_from(Kind::Undo, 0, 1).into_iter().next()?;
    ReplacedData::decode(&bytes)
}

/// Checks states that an operator wants to restore, one verdict for each. Changes nothing. The
/// caller bounds the number: handler code reads each state on the loop's thread.
fn check_states(core: &mut Core, states: &[GivenState]) -> Answer {
    let mut builds = Builds::new();
    let checked = states.iter().map(|s| core.operator().check_state(s, &mut builds)).collect();
    Answer::Checked(checked, builds, None)
}

/// Checks entries that an operator wants to restore, one verdict for each. Changes nothing. The
/// answer names the builds that have checked and the table's owner, which must still hold later.
fn check_entries(core: &mut Core, table: &str, entries: &[GivenEntry]) -> Answer {
    let mut builds = Builds::new();
    let checked = entries.iter().map(|e| core.operator().check_entry(table, e, &mut builds)).collect();
    Answer::Checked(checked, builds, core.owners().get(table).copied())
}

/// The schema of a service's states or a table's values, if the build that runs has one.
fn schema<'c>(core: &'c Core, of: &SchemaOf) -> Option<&'c Schema> {
    match of {
        SchemaOf::Service(name) => core.schema(Some(name), None),
        SchemaOf::Table(name) => core.schema(None, Some(name)),
    }
}

/// Compares one slice more of a plan with the core's data, at most [`ITEMS_PER_SLICE`] items. The
/// last slice also says whether all of it can be stored; an error there says why it cannot.
fn continue_survey(core: &mut Core, plan: &Plan, mut survey: Box<Survey>) -> Answer {
    let whole = core.operator().survey(plan, &mut survey, ITEMS_PER_SLICE);
    let room = whole.then(|| core.operator().has_room(plan, &survey));
    Answer::Surveyed(survey, room)
}
