//! TLS as a stage before the framing: records are opened as they come, and sealed as they are sent.
//!
//! Another process does the handshake and hands its secrets over. From then on a session's TLS is
//! [`state::TlsState`]: 248 bytes that are stored and committed with everything else. So a
//! successor opens the next record, and seals the next one, exactly where its predecessor stopped.
//!
//! *Invariant*: no two texts are ever sealed under one key and number. A sealed record and the
//! number behind it are in one commit, and nothing is sent before that. What was not committed was
//! seen by nobody, so its number may be used again. Sealed bytes never change, and nothing brings
//! an older state back: no dump, no restore and no saved file holds one.
//!
//! The core does no cryptography. The shell gives it [`protection::Protection`].
//!
//! | file | holds |
//! | --- | --- |
//! | [`due`] | sessions whose handshake is still to come |
//! | [`facts`] | facts of a handshake, by name |
//! | [`protection`] | ciphers, as the shell implements them |
//! | [`record`] | header of a record, kinds of content, alerts |
//! | [`stage`] | one session's stage: opens input, seals output |
//! | [`state`] | the stored state |
//! | `table` | all sessions over TLS: their records, and stages in use |

pub mod due;
pub mod facts;
pub mod protection;
pub mod record;
pub mod stage;
pub mod state;
pub(crate) mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
