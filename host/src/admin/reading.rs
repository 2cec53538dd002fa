//! Input of states and entries that an operator wants to store: checked in slices, and planned.
//!
//! The code that serves reads each state and each value of an owned table, and writes it again.
//! Anything that is wrong becomes a reason, and all reasons are told together. Costs O(input) of
//! memory, on the caller's thread.

use crate::admin::ask::{Failure, get};
use crate::admin::pieces::{Reasons, next_piece};
use crate::admin::query::{Answer, Query, QueryMailbox, SchemaOf};
use crate::protocol::admin::Piece;
use greenroom_core::operate::check::{Builds, Checked, GivenEntry, GivenState};
use greenroom_core::operate::plan::{Plan, PlannedEntry, PlannedState, PlannedTable};
use greenroom_core::operate::restore::{ITEMS_PER_SLICE, MEANWHILE};
use greenroom_core::tables::owner::Owner;
use greenroom_state::dump::DumpedEntry;
use greenroom_state::edit::objection;
use greenroom_state::elf_note::is_name;
use greenroom_state::json;
use greenroom_state::schema::Schema;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

/// Bytes from which a slice of a check is full.
const SLICE_BYTES: usize = 64 * 1024;

/// Input that was read so far: the plan, and reasons against it.
pub(super) struct CheckedInput<'a> {
    mailbox: &'a QueryMailbox,
    plan: Plan,
    reasons: Reasons,
    /// Sessions in the input.
    seen: BTreeSet<u64>,
    /// Items to be checked next, as they were given; also as JSON, to be compared with what the
    /// handler writes.
    // At most a slice of each, see `check_if_many`.
    states: Vec<(GivenState, Value)>,
    entries: Vec<(GivenEntry, Value)>,
    bytes: usize,
    /// Version of values without one of their own, in the table that is read.
    version: Option<u32>,
    /// Entries that the input does not name stay as they are.
    others_stay: bool,
    schemas: BTreeMap<SchemaOf, Option<Schema>>,
}

impl<'a> CheckedInput<'a> {
    /// Begins without input. `others_stay`: entries that it does not name are not deleted.
    pub(super) fn new(mailbox: &'a QueryMailbox, others_stay: bool) -> CheckedInput<'a> {
        CheckedInput {
            mailbox,
            plan: Plan::default(),
            reasons: Reasons::default(),
            seen: BTreeSet::new(),
            states: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
            version: None,
            others_stay,
            schemas: BTreeMap::new(),
        }
    }

    /// Plan, if all of the input can be stored, or why not.
    pub(super) fn plan(self) -> Result<Plan, String> {
        self.reasons.in_words().map_or(Ok(self.plan), Err)
    }

    /// Reads the input to its end, piece by piece, and checks it on the way. Fails at once if the
    /// caller leaves or the host stops. Anything else that is wrong becomes a reason.
    pub(super) fn read(&mut self, mut from: impl BufRead) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            match next_piece(&mut from, &mut line)? {
                Ok(Piece::End) if self.reasons.are_enough() => return Ok(()),
                Ok(Piece::End) => return self.check(),
                Ok(Piece::Malformed(why)) => {
                    self.reasons.add(why);
                    return Ok(());
                }
                // The input is refused anyway.
                _ if self.reasons.are_enough() => {}
                Ok(Piece::Session { id, service, state_version, state }) => {
                    self.session(id, service, state_version, state)?;
                }
                Ok(Piece::Table { name, version }) => self.table(name, version)?,
                Ok(Piece::Entry(entry)) => self.entry(entry)?,
                Ok(Piece::Delete(key)) => self.delete(&key),
                Err(why) => self.reasons.add(format!("this host can't read what follows the command: {why}")),
            }
        }
    }

    /// Takes a session's state.
    pub(super) fn session(
        &mut self,
        id: u64,
        service: String,
        version: u32,
        state: Value,
    ) -> Result<(), Failure> {
        let what = about_session(&service, id);
        if !self.seen.insert(id) {
            self.reasons.add(format!("{what}: it is there twice"));
            return Ok(());
        }
        let packed = match state.is_null() && version == 0 {
            true => None,
            false => match json::from_json(&state) {
                Ok(packed) => Some((version, packed)),
                Err(why) => {
                    self.reasons.add(format!("{what}: {why}"));
                    return Ok(());
                }
            },
        };
        self.bytes += packed.as_ref().map_or(0, |(_, bytes)| bytes.len());
        self.states.push((GivenState { session: id, service, state: packed }, state));
        self.check_if_many(self.states.len())
    }

    /// Begins a table. Entries of the previous one are checked first: they are planned for the
    /// last table.
    pub(super) fn table(&mut self, name: String, version: Option<u32>) -> Result<(), Failure> {
        self.check()?;
        if !is_name(&name) {
            self.reasons.add(format!("no table may be called {name:?}: letters, digits, - and _, up to 64"));
        }
        // Asked without entries, so that an empty table has its owner, too.
        let (_, owner) = self.ask(Query::CheckEntries(name.clone(), Vec::new()))?;
        let deletes = self.others_stay.then(BTreeSet::new);
        self.plan.tables.push(PlannedTable { name, owner, entries: BTreeMap::new(), deletes });
        self.version = version;
        Ok(())
    }

    /// Takes an entry of the table under way.
    pub(super) fn entry(&mut self, entry: DumpedEntry) -> Result<(), Failure> {
        let DumpedEntry { key, value, version, until_ms: until } = entry;
        let packed = json::bytes_from_json(&key).and_then(|k| json::from_json(&value).map(|v| (k, v)));
        match packed {
            Err(why) => {
                let table = self.plan.tables.last().map_or("", |t| &t.name);
                self.reasons.add(format!("{}: {why}", about_entry(table, &key)));
                Ok(())
            }
            Ok((key, packed)) => {
                self.bytes += key.len() + packed.len();
                let version = version.or(self.version);
                self.entries.push((GivenEntry { key, value: packed, version, until }, value));
                self.check_if_many(self.entries.len())
            }
        }
    }

    /// Takes the key of an entry to delete, of the table under way.
    pub(super) fn delete(&mut self, key: &Value) {
        let table = self.plan.tables.last_mut().and_then(|t| t.deletes.as_mut());
        match (json::bytes_from_json(key), table) {
            (Ok(key), Some(deletes)) => _ = deletes.insert(key),
            (Err(why), _) => self.reasons.add(format!("key {key}: {why}")),
            (_, None) => self.reasons.add(format!("key {key}: no table is to lose single entries")),
        }
    }

    /// Checks what was read if a slice is full.
    fn check_if_many(&mut self, items: usize) -> Result<(), Failure> {
        if items >= ITEMS_PER_SLICE || self.bytes >= SLICE_BYTES { self.check() } else { Ok(()) }
    }

    /// Has the loop check the items that were read since the last check. Afterwards nothing is
    /// unchecked.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let states = std::mem::take(&mut self.states);
        if !states.is_empty() {
            let asked = states.iter().map(|(given, _)| given.clone()).collect();
            let (checked, _) = self.ask(Query::CheckStates(asked))?;
            for ((given, json), checked) in states.into_iter().zip(checked) {
                self.plan_state(given, &json, checked)?;
            }
        }
        let entries = std::mem::take(&mut self.entries);
        let Some(table) = self.plan.tables.last().map(|t| t.name.clone()).filter(|_| !entries.is_empty())
        else {
            return Ok(());
        };
        let asked = entries.iter().map(|(given, _)| given.clone()).collect();
        let (checked, owner) = self.ask(Query::CheckEntries(table.clone(), asked))?;
        if self.plan.tables.last().is_some_and(|t| t.owner != owner) {
            self.reasons.add(MEANWHILE.into());
        }
        for ((given, json), checked) in entries.into_iter().zip(checked) {
            self.plan_entry(&table, given, &json, checked)?;
        }
        Ok(())
    }

    /// Asks the loop to check items. A build that differs from an earlier slice's is a reason.
    fn ask(&mut self, query: Query) -> Result<(Vec<Checked>, Option<Owner>), Failure> {
        let checked = |a| if let Answer::Checked(c, b, o) = a { Some((c, b, o)) } else { None };
        let (checked, builds, owner): (_, Builds, _) = get(self.mailbox, query, checked)?;
        for (service, build) in builds {
            let before = self.plan.builds.insert(service.clone(), build);
            if before.is_some_and(|b| b != self.plan.builds[&service]) {
                self.reasons.add(MEANWHILE.into());
            }
        }
        Ok((checked, owner))
    }

    /// Plans a state that the loop has checked, or notes why it can't be stored.
    fn plan_state(&mut self, given: GivenState, json: &Value, checked: Checked) -> Result<(), Failure> {
        let GivenState { session, service, state } = given;
        let kept = match checked {
            Checked::Gone => {
                self.plan.gone.push(session);
                return Ok(());
            }
            Checked::Stays => Ok(state.clone()),
            // A null that the handler can't read as a state means that the session stores none.
            Checked::Unreadable(_) | Checked::Refused(_) if json.is_null() && state.is_some() => {
                let none = GivenState { session, service, state: None };
                let (checked, _) = self.ask(Query::CheckStates(vec![none.clone()]))?;
                return checked.into_iter().try_for_each(|c| self.plan_state(none.clone(), json, c));
            }
            other => {
                let given = state.as_ref().map(|(_, bytes)| &bytes[..]);
                self.judge(&SchemaOf::Service(service.clone()), (json, given), other)?
            }
        };
        match kept {
            Err(why) => self.reasons.add(format!("{}: {why}", about_session(&service, session))),
            Ok(kept) => {
                let given = state.filter(|s| kept.as_ref().is_some_and(|k| k != s));
                self.plan.states.push(PlannedState { session, kept, given });
            }
        }
        Ok(())
    }

    /// Plans an entry that the loop has checked, or notes why it can't be stored. A key may
    /// come once.
    fn plan_entry(
        &mut self,
        table: &str,
        given: GivenEntry,
        json: &Value,
        checked: Checked,
    ) -> Result<(), Failure> {
        let GivenEntry { key, value, version, until } = given;
        let what = about_entry(table, &json::bytes_to_json(&key));
        let of_owner = self.plan.tables.last().and_then(|t| t.owner).map_or(0, |o| o.version);
        let given = (version.unwrap_or(of_owner), value);
        let kept = match checked {
            Checked::Stays => Ok(Some(given.clone())),
            other => self.judge(&SchemaOf::Table(table.to_owned()), (json, Some(&given.1)), other)?,
        };
        let reason = match (kept, self.plan.tables.last_mut()) {
            (Err(why), _) => format!("{what}: {why}"),
            (Ok(Some(kept)), Some(table)) => {
                let given = Some(given).filter(|g| *g != kept);
                match table.entries.insert(key, PlannedEntry { kept, given, until }) {
                    None => return Ok(()),
                    Some(_) => format!("{what}: it is there twice"),
                }
            }
            (Ok(_), _) => return Ok(()),
        };
        self.reasons.add(reason);
        Ok(())
    }

    /// State or value to be stored, or why it can't be. An item in the version that serves must
    /// be written back whole; an older one may lose what its migration drops.
    fn judge(
        &mut self,
        of: &SchemaOf,
        (json, given): (&Value, Option<&[u8]>),
        checked: Checked,
    ) -> Result<Judged, Failure> {
        let (kept, why) = match checked {
            Checked::Refused(why) => return Ok(Err(why)),
            Checked::Unreadable(why) => (None, Some(why)),
            // The same bytes, which may be no MessagePack: a handler in C stores what it likes.
            Checked::Fits { kept: Some(kept), served: true } if given == Some(&kept.1) => {
                return Ok(Ok(Some(kept)));
            }
            Checked::Fits { kept: Some(kept), served: true } => (Some(kept), None),
            Checked::Fits { kept, .. } => return Ok(Ok(kept)),
            Checked::Gone | Checked::Stays => return Ok(Ok(None)),
        };
        let made = match (&kept, &why) {
            (Some((_, bytes)), _) => Ok(&bytes[..]),
            (None, why) => Err(why.as_deref().unwrap_or_default()),
        };
        // The schema belongs to the loop, so it is asked for only if there is a reason to give.
        if objection(json, made, None).is_none() {
            return Ok(Ok(kept));
        }
        let schema = self.schema(of)?;
        Ok(match objection(json, made, schema) {
            Some(why) => Err(why),
            None => Ok(kept),
        })
    }

    /// Gets a schema from the loop, once for each owner.
    fn schema(&mut self, of: &SchemaOf) -> Result<Option<&Schema>, Failure> {
        if !self.schemas.contains_key(of) {
            let schema = |a| if let Answer::Schema(s) = a { Some(s) } else { None };
            let schema = get(self.mailbox, Query::Schema(of.clone()), schema)?;
            self.schemas.insert(of.clone(), schema.map(|s| *s));
        }
        Ok(self.schemas.get(of).and_then(Option::as_ref))
    }
}

/// State or value to be stored, with its version, or why it can't be.
type Judged = Result<Option<(u32, Vec<u8>)>, String>;

/// Subject of a reason.
fn about_session(service: &str, id: u64) -> String {
    format!("service {service}, session {id}")
}

/// Names an entry in a reason.
fn about_entry(table: &str, key: &Value) -> String {
    format!("table {table}, key {key}")
}
