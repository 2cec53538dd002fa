//! A pass through the host, stage by stage.
//!
//! | stage | does |
//! | --- | --- |
//! | [`begin`] | deadlines, due timers, sessions whose input resumes |
//! | [`open`] | a connection becomes a session and runs its first turn |
//! | [`receive`] | bytes become frames, frames become batches, the rest is kept |
//! | [`deliver`] | waiting actions get their turns |
//! | [`close`] | last turn, remaining output, end of stream |
//! | [`timeout`] | closes sessions whose peer stays silent too long |
//! | [`commit`] | changed sessions are written, and one epoch makes all of it valid |
//! | [`send`] | picks the sessions to send to, and books what the kernel took |
//! | [`outcome`] | connections that were made and jobs that are over |

pub(crate) mod begin;
pub(crate) mod close;
pub(crate) mod commit;
pub(crate) mod deliver;
pub(crate) mod open;
pub(crate) mod outcome;
pub(crate) mod receive;
pub(crate) mod send;
#[cfg(test)]
mod send_tests;
#[cfg(test)]
mod share_tests;
pub(crate) mod timeout;

use crate::effects::inbox::{ActionBuffer, RunningBatch};
use crate::execute::Executor;
use crate::host_state::HostState;

/// Memory that stages use again: no stage relies on what another one left in it.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Waiting actions, copied out of the store.
    copied: ActionBuffer,
    /// The batch under way, if its actions come from an inbox.
    running: RunningBatch,
}

/// One pass over the host: a borrowed view for its stages.
pub(crate) struct Pass<'a> {
    pub(crate) host: &'a mut HostState,
    pub(crate) executor: &'a mut Executor,
    pub(crate) scratch: &'a mut Scratch,
}
