//! Restore of states and tables by an operator: all become valid in one epoch, or none.
//!
//! The shell has items checked (`Core::check_state`, `Core::check_entry`), a slice in a pass,
//! and gathers their stored forms in a [`Plan`]. Turns run between the slices, so a plan may be
//! outdated when it is carried out:
//!
//! - If another build serves than the one that checked, the plan is refused: the forms may not
//!   fit.
//! - If a table has another owner, the plan is refused.
//! - Sessions that are gone are counted and left out.
//! - A state or value that a turn has changed since is overwritten.
//! - An entry whose deadline has passed is left out, and one in its place is deleted.
//!
//! A restore runs between two passes. `has_room` reserves all bytes first, so the writes
//! after it cannot fail. They count with the commit that the shell makes at once, together with
//! the ledger line. If the worker dies before, nothing of the restore is stored. Repeating a
//! restore is harmless: what is there already is left alone. The pause is O(what changes), plus
//! the states of the plan: tables are looked at in slices before.

use crate::host_state::HostState;
use crate::host_state::state::write_state;
use crate::ids::Slot;
use crate::ledger::Restored;
use crate::operate::check::has_same_entry;
use crate::operate::check::has_same_state;
use crate::operate::check::restorable;
use crate::operate::plan::At;
use crate::operate::plan::Plan;
use crate::operate::plan::PlannedEntry;
use crate::operate::plan::PlannedTable;
use crate::operate::plan::Survey;
use crate::operate::plan::TableSurvey;
use crate::operate::undo::{ReplacedData, is_stored, replaced};
use crate::tables::entry::deadline_bytes;
use crate::tables::entry::overhead;
use greenroom_state::session_record;

/// Items that one slice of a check or of a survey looks at. Bounds the pause of a dry run.
pub const ITEMS_PER_SLICE: usize = 64;
/// Reason to refuse a plan: another build serves than the one that checked it, or a table has
/// another owner.
pub const MEANWHILE: &str = "a reload was committed meanwhile; try again";

/// Goes on with a survey for at most `items` items. Returns whether all of the plan was looked
/// at. Changes nothing but the survey.
pub(crate) fn survey_plan(host: &HostState, plan: &Plan, survey: &mut Survey, items: usize) -> bool {
    let mut left = items;
    while left > 0 && survey.at.state < plan.states.len() {
        survey_state(host, plan, survey);
        left -= 1;
    }
    while left > 0 && survey.at.table < plan.tables.len() {
        left = survey_table(host, &plan.tables[survey.at.table], survey, left);
    }
    survey.at.state == plan.states.len() && survey.at.table == plan.tables.len()
}

/// Survey of a whole plan as of now, with what an `earlier` one has found in tables that were not
/// written since.
fn survey_anew(host: &HostState, plan: &Plan, earlier: &Survey) -> Survey {
    let mut survey = Survey::default();
    while survey.at.state < plan.states.len() {
        survey_state(host, plan, &mut survey);
    }
    while let Some(planned) = plan.tables.get(survey.at.table) {
        // The table that the earlier one is at is not done.
        let done = earlier.tables.get(survey.at.table).filter(|_| survey.at.table < earlier.at.table);
        match done.filter(|found| found.last_write == host.tables.last_write(&planned.name)) {
            Some(found) => {
                survey.tables.push(found.clone());
                survey.at.table += 1;
            }
            None => _ = survey_table(host, planned, &mut survey, usize::MAX),
        }
    }
    survey
}

/// Looks at the next state of a plan.
fn survey_state(host: &HostState, plan: &Plan, survey: &mut Survey) {
    let place = survey.at.state;
    // Counted first, because each way out of this function is done with the state.
    survey.at.state += 1;
    let planned = &plan.states[place];
    let Some((slot, _)) = restorable(host, planned.session) else {
        return survey.gone.push(planned.session);
    };
    let is = |state: &Option<(u32, Vec<u8>)>| {
        has_same_state(host, slot, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])))
    };
    // The given form in an older version is left to the next turn, which migrates it. So a
    // restore of the same dump changes nothing the second time.
    if is(&planned.kept) || (planned.given.is_some() && is(&planned.given)) {
        survey.unchanged += 1;
        return;
    }
    survey.states.push((slot, place));
    // The report names these: a new state alone does not let them go on.
    if host.quarantines.contains(slot) {
        survey.quarantined.push(planned.session);
    }
}

/// Looks at `left` items of a table at most: at its planned entries, then at its stored keys.
/// Returns how many items are left for the next table.
fn survey_table(host: &HostState, planned: &PlannedTable, survey: &mut Survey, mut left: usize) -> usize {
    let at = &mut survey.at;
    // The first slice of this table.
    if survey.tables.len() == at.table {
        // Entries that stay count from the beginning, and those that change are taken off.
        let bytes = planned.deletes.as_ref().map_or(0, |_| host.tables.bytes(&planned.name));
        let last_write = host.tables.last_write(&planned.name);
        survey.tables.push(TableSurvey { bytes, last_write, ..TableSurvey::default() });
    }
    let found = &mut survey.tables[at.table];
    if !at.stored {
        for (key, entry) in planned.entries.range(at.key.clone()..) {
            if left == 0 {
                // The place is kept before the key is looked at, so the next slice begins with
                // it.
                at.key.clone_from(key);
                return 0;
            }
            left -= 1;
            survey_entry(host, planned, (key, entry), found);
        }
        // Keys that are stored and not planned are found in a second walk.
        (at.stored, at.key) = (true, Vec::new());
    }
    if let Some(deletes) = &planned.deletes {
        for key in deletes.range(at.key.clone()..) {
            if left == 0 {
                at.key.clone_from(key);
                return 0;
            }
            left -= 1;
            survey_delete(host, planned, key, found);
        }
        *at = At { state: at.state, table: at.table + 1, ..At::default() };
        return left;
    }
    // Stored keys count as items even if they are planned, because looking at them takes time.
    for key in host.tables.keys_from(&host.store, &planned.name, &at.key.clone()) {
        if left == 0 {
            at.key = key.to_vec();
            return 0;
        }
        left -= 1;
        if planned.entries.get(key).is_none_or(|entry| entry.is_over(host.wall_ms())) {
            found.deletes.push(key.to_vec());
        }
    }
    *at = At { state: at.state, table: at.table + 1, ..At::default() };
    left
}

/// Looks at a planned entry. One that is over is planned as if it were not there.
fn survey_entry(
    host: &HostState,
    planned: &PlannedTable,
    (key, entry): (&Vec<u8>, &PlannedEntry),
    found: &mut TableSurvey,
) {
    if entry.is_over(host.wall_ms()) {
        found.over += 1;
        if planned.deletes.is_some() {
            survey_delete(host, planned, key, found);
        }
        return;
    }
    let stored_bytes = || host.tables.entry_bytes(&planned.name, key).unwrap_or(0);
    let has = |(version, bytes): &(u32, Vec<u8>)| has_same_entry(host, &planned.name, key, (*version, bytes));
    let is_until = host.tables.until(&host.store, &planned.name, key) == entry.until;
    match is_until && (has(&entry.kept) || entry.given.as_ref().is_some_and(has)) {
        true => {
            found.unchanged += 1;
            // The stored form counts: the given one may be longer or shorter.
            found.bytes += if planned.deletes.is_none() { stored_bytes() } else { 0 };
        }
        false => {
            let before = if planned.deletes.is_some() { stored_bytes() } else { 0 };
            found.bytes = found.bytes.saturating_sub(before);
            found.bytes += key.len() + entry.kept.1.len() + deadline_bytes(entry.until);
            found.puts.push(key.clone());
        }
    }
}

/// Looks at a key that is to be deleted.
fn survey_delete(host: &HostState, planned: &PlannedTable, key: &[u8], found: &mut TableSurvey) {
    if host.tables.value(&host.store, &planned.name, key).is_some() {
        let bytes = host.tables.entry_bytes(&planned.name, key).unwrap_or(0);
        found.bytes = found.bytes.saturating_sub(bytes);
        found.deletes.push(key.to_vec());
    }
}

/// Whether all that a survey found may and can be stored, and reserves the room. The survey
/// must be complete. Fails with a sentence if builds or owners have changed, or if a limit
/// would be exceeded. Nothing but the reserve has changed then. O(services × builds + entries).
pub(crate) fn has_room(host: &mut HostState, plan: &Plan, survey: &Survey) -> Result<(), String> {
    for ((name, _), build) in &plan.builds {
        let service = host.services.all().iter().find(|s| s.offer.name == *name);
        if !service.is_some_and(|s| s.runs(build)) {
            return Err(MEANWHILE.into());
        }
    }
    // A canary may have begun or ended since: then other builds run its sessions.
    let fits = |&(slot, place): &(Slot, usize)| {
        let (s, kept) = (host.sessions.get(slot), &plan.states[place].kept);
        let version = s.map(|s| host.services[s.service].build_of(s.id).written.version);
        kept.as_ref().is_none_or(|(kept, _)| version == Some(*kept))
    };
    if !survey.states.iter().all(fits) {
        return Err(MEANWHILE.into());
    }
    // Limits are those of the moment, which an operator may have changed since the checks.
    let max = host.limits.host().table_bytes_max;
    let mut tables = host.tables.len();
    for (planned, found) in plan.tables.iter().zip(&survey.tables) {
        let PlannedTable { name, owner, entries, deletes } = planned;
        if host.owners.get(name) != owner.as_ref() {
            return Err(MEANWHILE.into());
        }
        // A table that exceeds a lowered limit already may still lose entries.
        if found.bytes > max && !found.puts.is_empty() {
            let bytes = found.bytes;
            return Err(format!("table {name} would have {bytes} bytes (limit table_bytes_max: {max})"));
        }
        // A table exists while it has entries.
        let stays = deletes.is_some() && host.tables.count(name) > found.deletes.len();
        match (host.tables.contains(name), entries.len() == found.over && !stays) {
            (true, true) => tables -= 1,
            (false, false) => tables += 1,
            _ => {}
        }
    }
    // More tables than a lowered limit allows are no reason, unless the restore adds some.
    if tables > host.limits.host().tables_max && tables > host.tables.len() {
        return Err(format!(
            "there would be {tables} tables (limit tables_max: {})",
            host.limits.host().tables_max
        ));
    }
    let states = survey.states.iter().flat_map(|(_, place)| {
        let state = plan.states[*place].kept.as_ref().map(|(_, bytes)| bytes.len());
        // Each changed session also writes its record with the commit.
        state.into_iter().chain([session_record::SIZE])
    });
    // Room is needed for each entry that is written, also in place of an old one: that is free
    // only after the commit.
    let entries = plan.tables.iter().zip(&survey.tables).flat_map(|(planned, found)| {
        let len = |key: &Vec<u8>| {
            let entry = &planned.entries[key];
            overhead(entry.until, &planned.name, key) + entry.kept.1.len()
        };
        found.puts.iter().map(len)
    });
    match host.store.reserve(states.chain(entries)) {
        true => Ok(()),
        false => Err("there is no room for all of it (limit store_bytes_max)".into()),
    }
}

/// Stores all of a plan that differs from what is there, or nothing. The changes count with the
/// next commit. Returns what was changed, and the data that were replaced. Fails with a sentence,
/// and nothing has changed then. Call it outside turns.
///
/// `earlier`: a survey of the plan that was made in slices. Tables that were not written since are
/// not looked at again. O(states of the plan + entries of its other tables + entries that change).
pub(crate) fn restore(
    host: &mut HostState,
    plan: &Plan,
    earlier: &Survey,
) -> Result<(Restored, ReplacedData), String> {
    plan.only_if.iter().try_for_each(|expected| is_stored(host, expected))?;
    let survey = survey_anew(host, plan, earlier);
    has_room(host, plan, &survey)?;
    let replaced = replaced(host, plan, &survey);
    for &(slot, place) in &survey.states {
        match &plan.states[place].kept {
            Some((_, bytes)) => put_state_back(host, slot, bytes),
            None => remove_state(host, slot),
        }
    }
    // Reserved for the sum of all records, so no `put` of this plan can find the store full.
    let room = "room was made sure of before";
    for (planned, found) in plan.tables.iter().zip(&survey.tables) {
        let HostState { tables, store, .. } = &mut *host;
        for key in &found.puts {
            let PlannedEntry { kept: (version, bytes), until, .. } = &planned.entries[key];
            tables.put_until(store, (&planned.name, key), *version, bytes, *until).expect(room);
        }
        for key in &found.deletes {
            tables.delete(store, &planned.name, key);
        }
    }
    Ok((survey.found(plan), replaced))
}

/// Writes a session's state, marked with the version of the build that runs it. Room is reserved.
fn put_state_back(host: &mut HostState, slot: Slot, bytes: &[u8]) {
    let Some(s) = host.sessions.get(slot) else { return };
    let written = host.services[s.service].build_of(s.id).written;
    // The session's record holds version and fingerprint of its state. If both stay, the record
    // needs no write.
    let as_it_was = (s.state_version, s.state_fingerprint) == (written.version, written.fingerprint);
    write_state(host, slot, bytes, written);
    if !as_it_was {
        host.sessions.touch(slot);
    }
}

/// Removes a session's state. The session goes on as one that never stored any.
fn remove_state(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let Some(r) = s.state.take() else { return };
    host.store.delete(r);
    // Version 0 says that no state is stored.
    let from = std::mem::take(&mut s.state_version);
    s.state_fingerprint = 0;
    host.services[s.service].count_stored(from, 0);
    host.sessions.touch(slot);
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
