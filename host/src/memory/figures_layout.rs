//! Layout of the figures on the board: their words, and the kinds of figures.
//!
//! | words, from the first on | content |
//! | --- | --- |
//! | 0 | number of this layout |
//! | 16 to 31 | reports by outcome, in the order of `OUTCOMES` |
//! | 32 to 47 | [`Gauge`]s |
//! | 64 to 127 | bytes of the store by kind of record, by the kind's number |
//! | behind those | histograms: passes, pauses, rehearsals |
//! | behind those | traffic of each service: sessions opened, bytes in, bytes out |
//! | behind those | turns of a service and generation, in `SLOTS` slots |
//! | behind those | times of each slot's turns by kind of action, in nanoseconds |
//!
//! The last ones came later. They have a place of their own, so that the words before them mean the
//! same to every version.
//!
//! A slot belongs to one generation of one service. A new generation takes a free slot, or that of
//! the oldest generation of a service that has several. Turns beyond the last slot share it.

use crate::memory::histogram::WORDS;
use greenroom_core::ledger::Outcome;

/// Services with counters. Further ones are served, and not counted here.
pub(super) const SERVICES_MAX: usize = 1024;
/// Number of the layout. Words of another number are cleared, and not read.
pub(super) const LAYOUT: u64 = 1;
/// Outcomes, in the order of their counters. New ones come last.
pub(super) const OUTCOMES: [Outcome; 10] = [
    Outcome::Committed,
    Outcome::Unchanged,
    Outcome::Refused,
    Outcome::RolledBack,
    Outcome::Rehearsed,
    Outcome::Replaced,
    Outcome::Configured,
    Outcome::Restored,
    Outcome::Canary,
    Outcome::TakenBack,
];
pub(super) const REPORTS: usize = 16;
pub(super) const GAUGES: usize = 32;
pub(super) const KINDS: usize = 64;
/// Places for kinds of records, more than there are.
pub const KINDS_MAX: usize = 64;
pub(super) const HISTOGRAMS: usize = KINDS + KINDS_MAX;
pub(super) const TRAFFIC: usize = HISTOGRAMS + 3 * WORDS;
/// Words of a service's traffic.
pub(super) const TRAFFIC_WORDS: usize = 3;
pub(super) const TURNS: usize = TRAFFIC + TRAFFIC_WORDS * SERVICES_MAX;
/// Slots of turns, one for each generation of a service that is remembered.
pub(super) const SLOTS: usize = 256;
/// Generations of one service that are remembered.
pub(super) const GENERATIONS_MAX: usize = 4;
/// Words of a slot: its key, faults, a histogram, and turns by kind of action.
pub(super) const SLOT_WORDS: usize = 128;
pub(super) const KEY: usize = 0;
pub(super) const FAULTS: usize = 1;
pub(super) const TIMES: usize = 2;
pub(super) const ACTIONS: usize = TIMES + WORDS;
/// Places for kinds of actions.
pub(super) const ACTIONS_MAX: usize = SLOT_WORDS - ACTIONS;
/// Key of the slot for turns beyond the last one.
pub(super) const SHARED: u64 = u64::MAX;
/// First word of the times by kind of action.
pub(super) const ACTION_TIMES: usize = TURNS + SLOTS * SLOT_WORDS;
/// Words of those of one slot.
pub(super) const ACTION_TIMES_WORDS: usize = 32;
/// Words of all figures.
pub(super) const FIGURE_WORDS: usize = ACTION_TIMES + SLOTS * ACTION_TIMES_WORDS;
const _: () = assert!(REPORTS + OUTCOMES.len() <= GAUGES);
const _: () = assert!(ACTIONS_MAX > 24 && ACTIONS_MAX <= ACTION_TIMES_WORDS);

/// Number that goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Bytes of the store.
    StoreBytes,
    /// Timers that are not due.
    Timers,
}

/// Times that have a histogram of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Time of a pass of the loop.
    Pass,
    /// Time that the loop stood still for a change.
    Pause,
    /// Time of a rehearsal.
    Rehearsal,
}

/// Slot of the turns of one generation, as a user of the board keeps it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TurnSlot {
    /// Key of the generation; 0: the slot was not looked for.
    pub(super) key: u64,
    /// Key that the slot has, which may be that of the shared one.
    pub(super) has: u64,
    /// First word of the slot.
    pub(super) at: usize,
    /// First word of its times by kind of action.
    pub(super) times_at: usize,
}

impl TurnSlot {
    /// Slot of this number, for the turns of a key.
    pub(super) fn number(n: usize, key: u64, has: u64) -> TurnSlot {
        TurnSlot { key, has, at: TURNS + n * SLOT_WORDS, times_at: ACTION_TIMES + n * ACTION_TIMES_WORDS }
    }
}

/// Key of a service's generation; never 0.
pub(super) fn key(service: u16, generation: u64) -> u64 {
    (u64::from(service) + 1) << 40 | generation & ((1 << 40) - 1)
}

/// Service and generation of a key. `None`: turns that share the last slot.
pub(super) fn of_key(key: u64) -> Option<(u16, u64)> {
    (key != SHARED).then(|| ((key >> 40) as u16 - 1, key & ((1 << 40) - 1)))
}

/// Place of a new key among the slots, the last of which is shared. `None`: each service has one
/// slot, and none is free.
pub(super) fn place(keys: &[u64], key: u64) -> Option<usize> {
    let own = &keys[..keys.len() - 1];
    let service = |k: u64| k >> 40;
    let oldest = |of: u64| (0..own.len()).filter(|n| service(own[*n]) == of).min_by_key(|n| own[*n]);
    let slots_of = |of: u64| own.iter().filter(|k| service(**k) == of).count();
    if slots_of(service(key)) >= GENERATIONS_MAX {
        return oldest(service(key));
    }
    let free = own.iter().position(|k| *k == 0);
    free.or_else(|| oldest(own.iter().map(|k| service(*k)).find(|of| slots_of(*of) > 1)?))
}
