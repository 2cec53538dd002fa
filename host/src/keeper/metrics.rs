//! Figures of the host: those that the keeper counts itself, and those of the board.
//!
//! The worker is not asked, so a scrape costs its loop nothing, and is answered while none lives.

use crate::clock::unix_ms;
use crate::keeper::Keeper;
use crate::memory::board_figures::TurnFigures;
use crate::memory::figures_layout::{Gauge, KINDS_MAX, Times};
use crate::memory::reading::Reading;
use crate::protocol::metrics::{GenerationTurns, Metrics, ServiceTraffic};
use greenroom_core::effects::action_name::action_name;
use greenroom_core::ledger::Outcome;
use greenroom_core::store::kind::Kind;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Time when the host started, computed once: the clock of the day may be set.
static STARTED_MS: OnceLock<u64> = OnceLock::new();

impl Keeper {
    /// Puts all figures together. Costs two copies of the board.
    pub(super) fn metrics(&mut self) -> Metrics {
        let status = self.status();
        let board = self.worker.read_board();
        let deaths = self.worker.deaths();
        Metrics {
            started_ms: *STARTED_MS.get_or_init(|| unix_ms() - self.started.elapsed().as_millis() as u64),
            worker_resident_bytes: resident_bytes(status.host.worker_pid),
            accepts: self.acceptor.accepts(),
            takeovers: deaths.takeovers().map(|(cause, n)| (cause.to_owned(), n)).collect(),
            takeover_times: deaths.gaps().clone(),
            passes: board.times(Times::Pass),
            pauses: board.times(Times::Pause),
            rehearsals: board.times(Times::Rehearsal),
            reloads: board.reports().map(|(outcome, n)| (name_of(outcome), n)).collect(),
            builds: self.builds_kept(),
            timers: board.gauge(Gauge::Timers),
            store_bytes: board.gauge(Gauge::StoreBytes),
            store_bytes_max: self.options.config.limits.store_bytes_max as u64,
            store_bytes_by_kind: by_kind(&board),
            traffic: self.traffic(&board),
            turns: board.turns().into_iter().filter_map(|turns| self.turns_of(turns)).collect(),
            status,
        }
    }

    /// Private copies by library. A file of which no build runs has its path for a name.
    fn builds_kept(&self) -> BTreeMap<String, u64> {
        let name = |path: &Path| match self.files.library(path) {
            Some(library) => library.to_owned(),
            None => path.to_string_lossy().into_owned(),
        };
        let held = self.belongings.held().into_iter();
        held.map(|(path, copies)| (name(&path), copies as u64)).collect()
    }

    /// Traffic of the services that are not withdrawn.
    fn traffic(&self, board: &Reading) -> Vec<ServiceTraffic> {
        let all = (0..).map_while(|number| Some((number, board.traffic(usize::from(number))?)));
        let named = all.filter_map(|(number, traffic)| {
            let service = self.worker.service(number)?.name.clone();
            let (opened, bytes_in, bytes_out) = (traffic.opened, traffic.bytes_in, traffic.bytes_out);
            Some(ServiceTraffic { service, opened, bytes_in, bytes_out })
        });
        named.collect()
    }

    /// Turns of a generation, with names. `None`: its service is withdrawn.
    fn turns_of(&self, turns: TurnFigures) -> Option<GenerationTurns> {
        let (service, generation) = match turns.of {
            Some((number, generation)) => (self.worker.service(number)?.name.clone(), generation),
            None => (String::new(), 0),
        };
        let named = |of: Vec<(u32, u64)>| {
            of.into_iter().map(|(kind, n)| (action_name(kind).to_owned(), n)).collect::<BTreeMap<_, _>>()
        };
        let (faults, times) = (turns.faults, turns.times);
        let (actions, action_ns) = (named(turns.actions), named(turns.action_ns));
        Some(GenerationTurns { service, generation, faults, times, actions, action_ns })
    }
}

/// Resident memory of a process; 0: it is not there.
fn resident_bytes(pid: u32) -> u64 {
    let kilobytes = || {
        let all = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = all.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    kilobytes().unwrap_or(0) * 1024
}

/// Name of an outcome, as `history --json` has it.
fn name_of(outcome: Outcome) -> String {
    let name = serde_json::to_value(outcome).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Bytes of the store by kind of record. Kinds of a later version have numbers for names.
fn by_kind(board: &Reading) -> BTreeMap<String, u64> {
    let name = |number: usize| {
        let kind = u8::try_from(number).ok().and_then(Kind::from_number);
        kind.map_or_else(|| format!("kind_{number}"), Kind::name)
    };
    let kinds = (0..KINDS_MAX).map(|number| (number, board.store_bytes(number)));
    kinds.filter(|(_, bytes)| *bytes > 0).map(|(number, bytes)| (name(number), bytes)).collect()
}
