//! The executor: runs handler code over the host's state, and applies or drops what it asked
//! for.
//!
//! Turns run through this folder alone. An action goes through the files in this order: `batch`,
//! `call`, `reserve`, `apply`, and `fallback` if its turn failed. The records that are written
//! count with the next commit.
//!
//! | file | does |
//! | --- | --- |
//! | `batch` | a batch of turns, run again without the turn that failed |
//! | `call` | one call of a service's code with a session's state |
//! | `reserve` | reserves room for every record that the batch will write |
//! | `apply` | applies the staged effects; cannot fail |
//! | `fallback` | a turn that failed on probation is run by the previous build |
//! | `watched` | runs the turns of sessions that somebody watches |
//! | `fault_reply` | the reply that a failed turn has for its peer |

pub(crate) mod apply;
pub(crate) mod batch;
#[cfg(test)]
mod broadcast_tests;
pub(crate) mod call;
pub(crate) mod fallback;
pub(crate) mod fault_reply;
#[cfg(test)]
mod other_sessions_tests;
pub(crate) mod reserve;
pub(crate) mod watched;

use crate::framing::peer::LocalEnd;
use crate::turn::staging::Buffers;
use std::net::SocketAddr;

/// Calls of all sessions that may be repeated in one pass. With more, the sessions whose turns
/// fail wait for the next pass, so that failing input costs other sessions little.
const REPLAYS_PER_PASS: u32 = 64;

/// The memory of calls, kept from batch to batch, and the count of repeated calls. One for a
/// host: turns run one after the other.
#[derive(Default)]
pub(crate) struct Executor {
    /// Staging of the batch under way.
    pub(crate) buffers: Buffers,
    /// State of the batch under way, copied out of the store.
    state: Vec<u8>,
    /// Calls repeated in this pass.
    replays: u32,
}

impl Executor {
    /// Lets the turns of the next batch know facts about the connection, and asks for a page if
    /// that is given: whether its head alone. The caller takes both back behind the batch.
    pub(crate) fn know(&mut self, facts: Vec<(&'static str, Vec<u8>)>, page: Option<bool>) {
        (self.buffers.facts, self.buffers.page) = (facts, page);
    }

    /// Lets the turns of the next batch answer datagrams, one for each action, that came to one
    /// end. The caller takes them back behind the batch.
    pub(crate) fn hear(&mut self, end: LocalEnd, datagrams: impl Iterator<Item = (SocketAddr, usize)>) {
        let heard = &mut self.buffers.datagrams;
        heard.end = end;
        heard.all.clear();
        heard.all.extend(datagrams);
    }

    /// Returns the words of the last turn that closed its session with words.
    pub(crate) fn close_words(&self) -> Option<(u16, &str)> {
        self.buffers.close_words.as_ref().map(|words| (words.0, &*words.1))
    }

    /// Begins a pass: the count of repeated calls starts anew.
    pub(crate) fn begin_pass(&mut self) {
        self.replays = 0;
    }

    /// Whether more calls than allowed were repeated in this pass.
    pub(crate) fn replays_exhausted(&self) -> bool {
        self.replays > REPLAYS_PER_PASS
    }

    /// Sets the count of repeated calls aside. So sessions whose input keeps failing do not let
    /// the waiting actions of other sessions wait.
    pub(crate) fn set_replays_aside(&mut self) -> u32 {
        std::mem::take(&mut self.replays)
    }

    /// Adds the replays that were set aside.
    pub(crate) fn add_replays(&mut self, replays: u32) {
        self.replays += replays;
    }
}
