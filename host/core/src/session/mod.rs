//! Session: a connection and what the host owes its peer.
//!
//! | file | holds |
//! | --- | --- |
//! | [`life`] | one session: its life as a table |
//! | [`blocked`] | reasons why a session waits, and what each blocks |
//! | `carrier` | what a session's stream stands behind, or in |
//! | `deadline` | when a session's peer is late |
//! | [`table`] | all sessions |
//! | [`terms`] | what a handler has set for its peer |
//! | `terms_of` | the terms of all sessions |
//! | `output` | output a peer has not taken |
//! | `socket_streams` | streams of WebSocket that carry sessions |
//! | `send_queue` | sessions with output to send |
//! | `flow_control` | sessions that wait for another one's output |
//! | [`quarantine`] | sessions whose input is kept and not run |

pub mod blocked;
pub(crate) mod carrier;
mod deadline;
pub(crate) mod flow_control;
pub mod life;
pub(crate) mod output;

pub mod quarantine;
pub(crate) mod send_queue;
pub(crate) mod socket_streams;
pub mod table;
pub mod terms;
mod terms_of;
