//! Tap of a call: what it notes of a turn that somebody watches.
//!
//! A call has a tap only while its session is watched, and then one action. So a turn that nobody
//! watches pays for one branch. A tap of a recording also keeps what the turn asked the host.

use super::reads::{KeptReads, PlayedReads, Read, Reads};
use super::turn_record::{TurnOutcome, TurnRecord};

/// Tap of the calls of one turn: the build that serves runs it, and perhaps the one before.
#[derive(Debug, Default)]
pub(crate) struct TurnTap {
    /// Answers to the turn; `None`: it is only watched.
    reads: Option<Reads>,
    /// Turns that were noted, oldest first.
    turns: Vec<TurnRecord>,
}

impl TurnTap {
    /// Makes a tap. `keeps`: it keeps what the turn asks, for a recording.
    pub(crate) fn new(keeps: bool) -> TurnTap {
        TurnTap { reads: keeps.then(|| Reads::Kept(KeptReads::default())), ..TurnTap::default() }
    }

    /// Makes a tap that answers a turn from a recording.
    pub(crate) fn playing(reads: &[Read]) -> TurnTap {
        TurnTap { reads: Some(Reads::Played(PlayedReads::of(reads))), ..TurnTap::default() }
    }

    /// Answers to the turn, if it is recorded or played.
    pub(crate) fn reads(&self) -> Option<&Reads> {
        self.reads.as_ref()
    }

    /// Questions that the recording had no answer to.
    pub(crate) fn unknown(&self) -> Vec<String> {
        match &self.reads {
            Some(Reads::Played(played)) => played.unknown(),
            _ => Vec::new(),
        }
    }

    /// Adds a turn.
    pub(super) fn add(&mut self, turn: TurnRecord) {
        self.turns.push(turn);
    }

    /// Notes what came of the last turn that was noted.
    pub(crate) fn came_to(&mut self, outcome: TurnOutcome) {
        if let Some(last) = self.turns.last_mut() {
            last.outcome = outcome;
        }
    }

    /// Takes the turns that were noted.
    pub(crate) fn take(&mut self) -> Vec<TurnRecord> {
        std::mem::take(&mut self.turns)
    }
}
