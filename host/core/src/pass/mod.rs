//! Stages of a pass through the host.
//!
//! | stage | does |
//! | --- | --- |
//! | `begin` | deadlines, due timers, sessions whose input resumes |
//! | `reclaim` | entries that are over or were dropped are deleted |
//! | `open` | a connection becomes a session and runs its first turn |
//! | `datagram` | datagrams of a service itself |
//! | `receive` | bytes become frames, frames become batches |
//! | `keep` | input that can't run yet is stored |
//! | `proxied` | the PROXY header that begins a session |
//! | `handshake` | the request that begins a session, or asks for a page |
//! | `framing` | what a framing keeps and tells beside messages |
//! | `cut` | messages at the beginning of some input |
//! | `between` | replies, requests, closes and broken rules between messages |
//! | `reply` | bytes that the host itself sends for a framing |
//! | `deliver` | waiting actions get their turns |
//! | `close` | last turn, remaining output, end of stream |
//! | `tls` | records of TLS become bytes |
//! | `socket` | frames of WebSocket that carry a stream become bytes |
//! | `timeout` | closes sessions whose peer stays silent too long |
//! | `commit` | changed sessions are written, and one epoch makes all of it valid |
//! | `send` | picks the sessions to send to, and books what the kernel took |
//! | `outcome` | connections that were made and jobs that are over |
//!
//! Code that few messages need is never inlined: it would take registers that all others then save.
//!
//! [`crate::core::Core::handle`] calls one stage for each input. Records that a pass writes
//! count from its commit on, all at once; nothing of it becomes visible before.

pub(crate) mod begin;
mod between;
#[cfg(test)]
mod budget_tests;
pub(crate) mod close;
pub(crate) mod commit;
mod cut;
pub(crate) mod datagram;
pub(crate) mod deliver;
pub(crate) mod ends;
mod framing;
mod handshake;
mod keep;
pub(crate) mod open;
pub(crate) mod outcome;
mod proxied;
pub(crate) mod receive;
mod reclaim;
#[cfg(test)]
mod reclaim_tests;
#[cfg(test)]
mod relay_tests;
mod reply;
pub(crate) mod send;
#[cfg(test)]
mod send_tests;
#[cfg(test)]
mod share_tests;
mod socket;
pub(crate) mod start_tls;
#[cfg(test)]
mod start_tls_tests;
#[cfg(test)]
mod terms_tests;
pub(crate) mod timeout;
mod tls;
#[cfg(test)]
mod tls_tests;

use self::cut::CutBuffers;
use self::tls::TlsBuffers;
use crate::effects::action_buffer::ActionBuffer;
use crate::effects::running_batch::RunningBatch;
use crate::execute::Executor;
use crate::host_state::HostState;

/// Memory that stages use again: no stage relies on what another one left in it.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Waiting actions, copied out of the store.
    copied: ActionBuffer,
    /// Batch under way, if its actions come from an inbox.
    running: RunningBatch,
    /// Messages under way that differ from their input, and states of framings.
    cut: CutBuffers,
    /// Records of TLS under way.
    tls: TlsBuffers,
}

/// View of the host for the stages of a pass, made for one input.
pub(crate) struct Pass<'a> {
    pub(crate) host: &'a mut HostState,
    pub(crate) executor: &'a mut Executor,
    pub(crate) scratch: &'a mut Scratch,
}
