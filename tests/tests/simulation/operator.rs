//! Operator: other configurations, and states and entries that are taken away and put back.

use crate::script::TABLE;
use crate::world::World;
use greenroom_core::limits::per_service::{AllLimits, ServiceLimits};
use greenroom_core::operate::check::{Checked, GivenState};
use greenroom_core::operate::inspect::Filter;
use greenroom_core::operate::plan::{Plan, PlannedEntry, PlannedState, PlannedTable, Survey};
use greenroom_core::store::kind::Kind;
use std::collections::BTreeMap;

impl World {
    /// Takes states and entries away, and puts them back as they were.
    pub(crate) fn take_away_and_put_back(&mut self) {
        let (mut away, mut back) = (Plan::default(), Plan::default());
        self.plan_states(&mut away, &mut back);
        self.plan_entries(&mut away, &mut back);
        let core = &mut self.host.core;
        let states = core.store().count(Kind::State);

        let (gone, _) = core.operator().restore(&away, &Survey::default()).expect("nothing needs no room");
        assert_eq!(core.store().count(Kind::State), states - gone.changed);
        let (done, _) =
            core.operator().restore(&back, &Survey::default()).expect("there is room for what there was");

        assert_eq!((gone.changed, done.changed), (back.states.len(), back.states.len()));
        self.counts.states_put_back += done.changed as u64;
    }

    /// Plans every state, but those of sessions that are closing or in quarantine.
    fn plan_states(&mut self, away: &mut Plan, back: &mut Plan) {
        let filter = Filter { contents: true, ..Filter::default() };
        for view in self.host.core.sessions_after(0, &filter).items {
            let session = view.record.id;
            let Some(state) = view.state else { continue };
            let given = Some((view.record.state_version, state));
            let asked = GivenState { session, service: view.service, state: given };
            let checked = self.host.core.operator().check_state(&asked, &mut back.builds);
            let Checked::Fits { kept, .. } = checked else { continue };
            away.states.push(PlannedState { session, kept: None, given: None });
            back.states.push(PlannedState { session, kept, given: None });
        }
    }

    /// Plans the whole table of the peers, if one page holds it.
    fn plan_entries(&self, away: &mut Plan, back: &mut Plan) {
        let (entries, next) = self.host.core.entries_from(TABLE, b"");
        if next.is_some() {
            return;
        }
        let table = PlannedTable { name: TABLE.to_owned(), ..PlannedTable::default() };
        let planned = |value| PlannedEntry { kept: (0, value), given: None, until: None };
        let entries = entries.into_iter().map(|(key, value)| (key, planned(value))).collect();
        away.tables.push(table.clone());
        back.tables.push(PlannedTable { entries, ..table });
    }

    /// Draws other limits, of the host and of the service.
    pub(crate) fn other_limits(&mut self) -> AllLimits {
        let mut limits = self.host.limits.clone();
        let mut any = |of: &[usize]| of[self.rng.usize(0..of.len())];
        limits.host.output_bytes_pause = any(&[100, 600, 5000]);
        limits.host.output_bytes_max = any(&[700, 5000, 1 << 20]).max(limits.host.output_bytes_pause);
        limits.host.turns_at_once_max = any(&[1, 5, 64]);
        limits.host.sends_at_once_max = any(&[1, 2, 32]);
        limits.host.pass_us = any(&[1, 5, 2_000]) as u64;
        limits.host.jobs_running_max = any(&[1, 2, 3]);
        limits.host.sessions_max = any(&[5, 8, 100]);
        limits.host.sessions_per_peer_max = any(&[0, 100]);
        let own = ServiceLimits {
            output_bytes_pause: Some(any(&[50, 1000])).filter(|n| *n < 1000),
            turns_at_once_max: Some(any(&[2, 1000])).filter(|n| *n < 1000),
            sessions_max: Some(any(&[7, 1000])).filter(|n| *n < 1000),
            ..ServiceLimits::default()
        };
        limits.services = BTreeMap::from([(self.subject.name().to_owned(), own)]);
        limits
    }

    /// Puts limits in force, with their record, as the worker does between two passes.
    pub(crate) fn configure(&mut self, limits: AllLimits) {
        self.host.core.set_limits(limits.clone());
        let record = serde_json::to_vec(&(&limits.host, &limits.services)).expect("limits are JSON");
        assert!(self.host.core.put_host_record(Kind::Config, 0, &record), "there is room");
        self.host.limits = limits;
        self.counts.configured += 1;
    }
}
