//! States and tables are put back as an operator gives them: each item is checked by the code that
//! serves, then all of them become valid in one epoch, or none.
//!
//! The shell has items checked (`Core::check_state`, `Core::check_entry`), a few in a pass, and
//! gathers what they would be stored as in a [`Plan`]. Nothing of it is kept here meanwhile; so
//! what was checked by a build that no longer serves is refused when the plan is carried out.

use crate::host_state::HostState;
use crate::host_state::state::write_state;
use crate::ids::Slot;
use crate::ledger::Restored;
use crate::operate::check::has_entry;
use crate::operate::check::has_state;
use crate::operate::check::restorable;
use crate::operate::plan::At;
use crate::operate::plan::Plan;
use crate::operate::plan::PlannedTable;
use crate::operate::plan::Survey;
use crate::operate::plan::TableSurvey;
use crate::service::registry::Writer;
use crate::tables::entry::overhead;
use greenroom_state::session_record;

/// Items that one slice looks at.
pub const ITEMS_PER_SLICE: usize = 64;
/// Another build serves than the one that has checked it.
pub const MEANWHILE: &str = "a reload was committed meanwhile; try again";

/// Looks at so many items of a plan: what it would change. True: at all of them.
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

fn survey_state(host: &HostState, plan: &Plan, survey: &mut Survey) {
    let place = survey.at.state;
    survey.at.state += 1;
    let planned = &plan.states[place];
    let Some((slot, _)) = restorable(host, planned.session) else {
        return survey.gone.push(planned.session);
    };
    let is = |state: &Option<(u32, Vec<u8>)>| {
        has_state(host, slot, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])))
    };
    if is(&planned.kept) || (planned.given.is_some() && is(&planned.given)) {
        survey.unchanged += 1;
        return;
    }
    survey.states.push((slot, place));
    if host.quarantines.contains(slot) {
        survey.quarantined.push(planned.session);
    }
}

/// Returns how many items are left to be looked at.
fn survey_table(host: &HostState, planned: &PlannedTable, survey: &mut Survey, mut left: usize) -> usize {
    let at = &mut survey.at;
    if survey.tables.len() == at.table {
        survey.tables.push(TableSurvey::default());
    }
    let found = &mut survey.tables[at.table];
    if !at.stored {
        for (key, entry) in planned.entries.range(at.key.clone()..) {
            if left == 0 {
                at.key.clone_from(key);
                return 0;
            }
            left -= 1;
            let has =
                |(version, bytes): &(u32, Vec<u8>)| has_entry(host, &planned.name, key, (*version, bytes));
            match has(&entry.kept) || entry.given.as_ref().is_some_and(has) {
                true => {
                    found.unchanged += 1;
                    found.bytes += host.tables.entry_bytes(&host.store, &planned.name, key);
                }
                false => {
                    found.bytes += key.len() + entry.kept.1.len();
                    found.puts.push(key.clone());
                }
            }
        }
        (at.stored, at.key) = (true, Vec::new());
    }
    for key in host.tables.keys_from(&planned.name, &at.key.clone()) {
        if left == 0 {
            at.key = key.to_vec();
            return 0;
        }
        left -= 1;
        if !planned.entries.contains_key(key) {
            found.deletes.push(key.to_vec());
        }
    }
    *at = At { state: at.state, table: at.table + 1, ..At::default() };
    left
}

/// Whether all that a survey found can be stored, and was checked by the builds that serve. The
/// error is a sentence.
pub(crate) fn has_room(host: &mut HostState, plan: &Plan, survey: &Survey) -> Result<(), String> {
    for (name, build) in &plan.builds {
        let serves =
            host.services.all().iter().find(|s| s.offer.name == *name).and_then(|s| s.build.as_ref());
        if serves != Some(build) {
            return Err(MEANWHILE.into());
        }
    }
    let max = host.limits.host().table_bytes_max;
    let mut tables = host.tables.len();
    for (planned, found) in plan.tables.iter().zip(&survey.tables) {
        let PlannedTable { name, owner, entries } = planned;
        if host.owners.get(name) != owner.as_ref() {
            return Err(MEANWHILE.into());
        }
        if found.bytes > max && !found.puts.is_empty() {
            let bytes = found.bytes;
            return Err(format!("table {name} would have {bytes} bytes (limit table_bytes_max: {max})"));
        }
        match (host.tables.contains(name), entries.is_empty()) {
            (true, true) => tables -= 1,
            (false, false) => tables += 1,
            _ => {}
        }
    }
    if tables > host.limits.host().tables_max && tables > host.tables.len() {
        return Err(format!(
            "there would be {tables} tables (limit tables_max: {})",
            host.limits.host().tables_max
        ));
    }
    let states = survey.states.iter().flat_map(|(_, place)| {
        let state = plan.states[*place].kept.as_ref().map(|(_, bytes)| bytes.len());
        state.into_iter().chain([session_record::SIZE])
    });
    let entries = plan.tables.iter().zip(&survey.tables).flat_map(|(planned, found)| {
        let len = |key: &Vec<u8>| overhead(&planned.name, key) + planned.entries[key].kept.1.len();
        found.puts.iter().map(len)
    });
    match host.store.reserve(states.chain(entries)) {
        true => Ok(()),
        false => Err("there is no room for all of it (limit store_bytes_max)".into()),
    }
}

/// Stores all of a plan that differs from what is there, or nothing. It counts with the next
/// commit, as anything does. The error is a sentence.
pub(crate) fn restore(host: &mut HostState, plan: &Plan) -> Result<Restored, String> {
    let mut survey = Survey::default();
    survey_plan(host, plan, &mut survey, usize::MAX);
    has_room(host, plan, &survey)?;
    for &(slot, place) in &survey.states {
        match &plan.states[place].kept {
            Some((_, bytes)) => put_state_back(host, slot, bytes),
            None => remove_state(host, slot),
        }
    }
    let room = "room was made sure of before";
    for (planned, found) in plan.tables.iter().zip(&survey.tables) {
        let HostState { tables, store, .. } = &mut *host;
        for key in &found.puts {
            let (version, bytes) = &planned.entries[key].kept;
            tables.put(store, &planned.name, key, *version, bytes).expect(room);
        }
        for key in &found.deletes {
            tables.delete(store, &planned.name, key);
        }
    }
    Ok(survey.found(plan))
}

fn put_state_back(host: &mut HostState, slot: Slot, bytes: &[u8]) {
    let Some(s) = host.sessions.get(slot) else { return };
    let written = host.services[s.service].written(Writer::Serving);
    // The session's record says no more of its state than this.
    let as_it_was = (s.state_version, s.state_fingerprint) == (written.version, written.fingerprint);
    write_state(host, slot, bytes, written);
    if !as_it_was {
        host.sessions.touch(slot);
    }
}

/// The session goes on as one that never stored a state.
fn remove_state(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let Some(r) = s.state.take() else { return };
    host.store.delete(r);
    let from = std::mem::take(&mut s.state_version);
    s.state_fingerprint = 0;
    host.services[s.service].count_stored(from, 0);
    host.sessions.touch(slot);
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
