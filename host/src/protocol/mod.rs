//! Types that cross a process boundary.
//!
//! Keeper and worker may be of different versions, so fields of their messages are only added.
//!
//! | file | holds |
//! |---|---|
//! | [`admin`] | requests and replies between a command and the host |
//! | [`canary`] | canaries, as they are asked for and shown |
//! | [`data`] | data of sessions and tables in answers |
//! | [`handshaker`] | messages of the process that does handshakes of TLS |
//! | [`keeper`] | messages between keeper and worker |
//! | [`metrics`] | the answer to `greenroom metrics` |
//! | [`selection`] | which sessions an operator means |
//! | [`observer`] | messages of the process that serves HTTP |
//! | [`serving`] | the process that serves each command, and how long a client waits |
//! | [`status`] | the answer to `greenroom status` |
//! | [`link`] | the socket between keeper and worker: packets with descriptors |

pub mod admin;
pub mod board_text;
pub mod canary;
pub mod data;
pub mod found;
pub mod handshaker;
pub mod keeper;
pub mod link;
pub mod log;
pub mod metrics;
pub mod observer;
pub mod selection;
pub mod serving;
pub mod status;
pub mod watch;
