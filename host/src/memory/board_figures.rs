//! Figures on the board: counts and times that operators collect.
//!
//! The loop pays a few plain stores for each call of a handler and for each pass. A process that
//! dies between two of them leaves a figure that is off by one; a successor counts on.
//!
//! [`super::figures_layout`] has the words.

use crate::memory::board::Board;
use crate::memory::board_layout::{DONE, FIGURES};
use crate::memory::figures_layout::{
    ACTION_TIMES, ACTION_TIMES_WORDS, ACTIONS, ACTIONS_MAX, FAULTS, FIGURE_WORDS, GAUGES, Gauge, HISTOGRAMS,
    KEY, KINDS, KINDS_MAX, LAYOUT, OUTCOMES, REPORTS, SERVICES_MAX, SHARED, SLOT_WORDS, SLOTS, TIMES,
    TRAFFIC, TRAFFIC_WORDS, TURNS, Times, TurnSlot, key, of_key, place,
};
use crate::memory::histogram::{Histogram, WORDS, bucket};
use crate::memory::reading::Reading;
use greenroom_core::ledger::{Outcome, Report};
use greenroom_core::service::registry::Traffic;
use std::sync::atomic::Ordering::{Relaxed, Release};

impl Board {
    /// Clears figures of another layout. Runs when the board is opened.
    pub(super) fn open_figures(self) {
        if self.get(0) == LAYOUT {
            return;
        }
        (1..FIGURE_WORDS).for_each(|word| self.set(word, 0));
        self.set(0, LAYOUT);
    }

    /// Reads a word of the figures.
    #[inline]
    fn get(self, word: usize) -> u64 {
        self.words()[FIGURES + word].load(Relaxed)
    }

    /// Writes a word of the figures.
    #[inline]
    fn set(self, word: usize, value: u64) {
        self.words()[FIGURES + word].store(value, Relaxed);
    }

    /// Adds to a word. For the loop alone: no other thread may write it.
    #[inline]
    fn add(self, word: usize, more: u64) {
        self.set(word, self.get(word).wrapping_add(more));
    }

    /// Notes a time, so often, in the histogram that begins at a word.
    #[inline]
    fn note(self, at: usize, ns: u64, times: u64) {
        self.add(at, ns.wrapping_mul(times));
        self.add(at + 1 + bucket(ns), times);
    }

    /// Counts the turns of a call that has just ended, which took so long together. Each is noted
    /// with its share. `failed`: the turn behind those that the board has counted failed. `slot`
    /// remembers the place for the next call.
    #[inline]
    pub fn turns(self, slot: &mut TurnSlot, of: (u16, u64), action: u32, ns: u64, failed: bool) {
        let key = key(of.0, of.1);
        if slot.key != key || self.get(slot.at) != slot.has {
            *slot = self.turn_slot(key);
        }
        let turns = self.words()[DONE].load(Relaxed) + u64::from(failed);
        if let Some(each_ns) = ns.checked_div(turns) {
            let kind = (action as usize).min(ACTIONS_MAX - 1);
            self.note(slot.at + TIMES, each_ns, turns);
            self.add(slot.at + ACTIONS + kind, turns);
            self.add(slot.times_at + kind, ns);
            self.add(slot.at + FAULTS, u64::from(failed));
        }
    }

    /// Finds or makes the slot of a generation. O(slots), once for each generation.
    #[cold]
    fn turn_slot(self, key: u64) -> TurnSlot {
        let keys: [u64; SLOTS] = std::array::from_fn(|n| self.get(TURNS + n * SLOT_WORDS + KEY));
        if let Some(n) = keys.iter().position(|k| *k == key) {
            return TurnSlot::number(n, key, key);
        }
        let (n, has) = place(&keys, key).map_or((SLOTS - 1, SHARED), |n| (n, key));
        let slot = TurnSlot::number(n, key, has);
        if keys[n] != has {
            // The key comes last: a reader takes a slot without one for a free one.
            self.set(slot.at + KEY, 0);
            (1..SLOT_WORDS).for_each(|word| self.set(slot.at + word, 0));
            (0..ACTION_TIMES_WORDS).for_each(|word| self.set(slot.times_at + word, 0));
            self.words()[FIGURES + slot.at + KEY].store(has, Release);
        }
        slot
    }

    /// Shows a service's traffic. A service beyond the 1,024th is left out.
    #[inline]
    pub fn traffic(self, service: usize, traffic: Traffic) {
        if service < SERVICES_MAX {
            let at = TRAFFIC + TRAFFIC_WORDS * service;
            self.set(at, traffic.opened);
            self.set(at + 1, traffic.bytes_in);
            self.set(at + 2, traffic.bytes_out);
        }
    }

    /// A service's traffic, as a predecessor left it.
    pub fn traffic_so_far(self, service: usize) -> Traffic {
        let at = TRAFFIC + TRAFFIC_WORDS * service.min(SERVICES_MAX - 1);
        match service < SERVICES_MAX {
            true => Traffic { opened: self.get(at), bytes_in: self.get(at + 1), bytes_out: self.get(at + 2) },
            false => Traffic::default(),
        }
    }

    /// Shows a number that goes up and down.
    #[inline]
    pub fn gauge(self, gauge: Gauge, value: u64) {
        self.set(GAUGES + gauge as usize, value);
    }

    /// Shows the bytes of a kind of records, by the kind's number.
    #[inline]
    pub fn store_bytes(self, kind: usize, bytes: u64) {
        self.set(KINDS + kind.min(KINDS_MAX - 1), bytes);
    }

    /// Counts a report that the ledger gets, by its outcome, and notes its rehearsal.
    pub fn reported(self, report: &Report) {
        let outcome = OUTCOMES.iter().position(|o| *o == report.outcome);
        outcome.into_iter().for_each(|n| self.add(REPORTS + n, 1));
        if report.rehearsal_ms > 0 || report.rehearsal.is_some() {
            self.took(Times::Rehearsal, report.rehearsal_ms * 1_000_000);
        }
    }

    /// Notes a time in a histogram of its own.
    #[inline]
    pub fn took(self, times: Times, ns: u64) {
        self.note(HISTOGRAMS + times as usize * WORDS, ns, 1);
    }
}

/// Turns of one generation of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnFigures {
    /// Number of the service, and the generation. `None`: those of services and generations beyond
    /// the board's places.
    pub of: Option<(u16, u64)>,
    /// Turns that failed.
    pub faults: u64,
    /// Times of the turns.
    pub times: Histogram,
    /// Turns by kind of action, a number of [`greenroom_state::abi::action`]; kinds without turns
    /// are left out.
    pub actions: Vec<(u32, u64)>,
    /// Times of those, in nanoseconds. A worker of an earlier version notes none.
    pub action_ns: Vec<(u32, u64)>,
}

impl Reading {
    /// Whether the words are those of this layout.
    fn has_figures(&self) -> bool {
        self.words()[FIGURES] == LAYOUT
    }

    /// Word of the figures; 0: they have another layout.
    fn figure(&self, word: usize) -> u64 {
        if self.has_figures() { self.words()[FIGURES + word] } else { 0 }
    }

    /// Turns of all generations that the board remembers.
    pub fn turns(&self) -> Vec<TurnFigures> {
        let slots = self.words()[FIGURES + TURNS..][..SLOTS * SLOT_WORDS].chunks_exact(SLOT_WORDS);
        let times = self.words()[FIGURES + ACTION_TIMES..].chunks_exact(ACTION_TIMES_WORDS);
        let used = slots.zip(times).filter(|(slot, _)| slot[KEY] != 0 && self.has_figures());
        let by_kind = |words: &[u64]| {
            let kinds = words.iter().enumerate().filter(|(_, n)| **n > 0);
            kinds.map(|(kind, n)| (kind as u32, *n)).collect()
        };
        used.map(|(slot, times)| TurnFigures {
            of: of_key(slot[KEY]),
            faults: slot[FAULTS],
            times: Histogram::of_words(&slot[TIMES..TIMES + WORDS]),
            actions: by_kind(&slot[ACTIONS..]),
            action_ns: by_kind(times),
        })
        .collect()
    }

    /// A service's traffic. `None`: the board has no place for its number.
    pub fn traffic(&self, service: usize) -> Option<Traffic> {
        let at = TRAFFIC + TRAFFIC_WORDS * service.min(SERVICES_MAX - 1);
        let [opened, bytes_in, bytes_out] = std::array::from_fn(|i| self.figure(at + i));
        (service < SERVICES_MAX).then_some(Traffic { opened, bytes_in, bytes_out })
    }

    /// A number that goes up and down.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.figure(GAUGES + gauge as usize)
    }

    /// Bytes of a kind of records, by the kind's number.
    pub fn store_bytes(&self, kind: usize) -> u64 {
        self.figure(KINDS + kind.min(KINDS_MAX - 1))
    }

    /// Reports that the ledger got, by outcome.
    pub fn reports(&self) -> impl Iterator<Item = (Outcome, u64)> {
        OUTCOMES.into_iter().enumerate().map(|(n, outcome)| (outcome, self.figure(REPORTS + n)))
    }

    /// Times of a histogram of its own.
    pub fn times(&self, times: Times) -> Histogram {
        let at = HISTOGRAMS + times as usize * WORDS;
        let words = &self.words()[FIGURES + at..][..WORDS];
        if self.has_figures() { Histogram::of_words(words) } else { Histogram::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::board_layout::Running;
    use crate::memory::records::memory_file;

    fn run(board: Board, slot: &mut TurnSlot, of: (u16, u64), turns: usize, ns: u64, failed: bool) {
        let running = Running { service: of.0, generation: of.1, session: 1, turn: 0, action: 2 };
        board.begin(running, turns);
        (0..turns - usize::from(failed)).for_each(|_| board.step());
        board.end();
        board.turns(slot, of, 2, ns, failed);
    }

    #[test]
    fn turns_are_counted_by_generation_and_a_successor_counts_on() {
        let fd = memory_file("test").unwrap();
        let (board, mut slot) = (Board::open(&fd).unwrap(), TurnSlot::default());
        run(board, &mut slot, (3, 7), 4, 40_000, false);
        run(board, &mut slot, (3, 7), 2, 40_000, true);
        // A call that ran no turn counts nothing.
        run(board, &mut slot, (3, 7), 0, 40_000, false);
        let (board, mut slot) = (Board::open(&fd).unwrap(), TurnSlot::default());
        run(board, &mut slot, (3, 7), 1, 10_000, false);
        run(board, &mut slot, (3, 8), 1, 10_000, false);
        let turns = Reading::of(&fd).turns();
        let counts = |n: usize| (turns[n].of, turns[n].faults, turns[n].times.count());
        assert_eq!(turns.len(), 2);
        assert_eq!((counts(0), counts(1)), ((Some((3, 7)), 1, 7), (Some((3, 8)), 0, 1)));
        assert_eq!(turns[0].times.sum_ns, 90_000);
        assert_eq!(turns[0].actions, [(2, 7)]);
        // The call that ran no turn took no time of one.
        assert_eq!(
            (&turns[0].action_ns[..], &turns[1].action_ns[..]),
            (&[(2, 90_000)][..], &[(2, 10_000)][..])
        );
    }

    #[test]
    fn a_service_keeps_its_last_generations_and_a_full_board_shares_a_slot() {
        let fd = memory_file("test").unwrap();
        let (board, mut slot) = (Board::open(&fd).unwrap(), TurnSlot::default());
        (1..=10).for_each(|generation| run(board, &mut slot, (0, generation), 1, 1, false));
        let kept = |fd| Reading::of(fd).turns().into_iter().map(|t| t.of).collect::<Vec<_>>();
        let mut generations: Vec<_> = kept(&fd).into_iter().flatten().map(|(_, g)| g).collect();
        generations.sort_unstable();
        assert_eq!(generations, [7, 8, 9, 10]);
        for service in 1..400 {
            run(board, &mut slot, (service, 1), 1, 1, false);
        }
        let turns = Reading::of(&fd).turns();
        assert_eq!(turns.len(), SLOTS);
        let shared = turns.iter().find(|t| t.of.is_none()).expect("a shared slot");
        assert_eq!(shared.times.count(), 400 - 255);
        assert!(turns.iter().any(|t| t.of == Some((0, 10))), "the last generation stays");
    }

    #[test]
    fn figures_of_another_layout_are_cleared() {
        let fd = memory_file("test").unwrap();
        let board = Board::open(&fd).unwrap();
        board.gauge(Gauge::Timers, 5);
        assert_eq!(Reading::of(&fd).gauge(Gauge::Timers), 5);
        board.set(0, LAYOUT + 1);
        assert_eq!(Reading::of(&fd).gauge(Gauge::Timers), 0);
        Board::open(&fd).unwrap();
        assert_eq!((Reading::of(&fd).gauge(Gauge::Timers), board.get(0)), (0, LAYOUT));
    }
}
