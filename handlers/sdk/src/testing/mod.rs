//! Host in memory, for a handler's own tests: no socket, no clock, the same turns.
//!
//! Turns run through the code that runs in a real host, one action in a batch. A turn works on
//! a copy of the whole host, which replaces the original if the turn succeeds. That costs
//! O(host) for each turn, and makes a failed turn change nothing. Framing of output, most limits,
//! holds, waits and most facts are not simulated. Log events go nowhere.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `host.rs` | the host: sessions, time, turns |
//! | `peers.rs` | what peers do, and the transcript |
//! | `conversation.rs` | conversations as text, in many ways |
//! | `services.rs` | the service that is tested, and others |
//! | `input.rs` | input, cut into messages |
//! | `shared.rs`, `turn.rs` | the state of the host; the host that a turn sees |

mod conversation;
#[cfg(test)]
mod dialogue_tests;
mod host;
mod input;
#[cfg(test)]
mod kit_tests;
mod peers;
mod services;
mod shared;
mod turn;
mod turns;

pub use conversation::Conversation;
pub use host::TestHost;
