//! Admin socket: a Unix socket in the runtime directory, and a thread for each caller.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`server`] | accepts commands on the admin socket |
//! | [`caller`] | places, threads and patience for callers |
//! | [`access`] | roles of callers, and the modes that let them in |
//! | [`audit`] | writes the audit log |
//! | `trail` | data before and after a change, for the audit log |
//! | [`answer`] | answers one command |
//! | `amend` | changes single states and entries, and undoes the last change |
//! | `ask` | asks the loop one question and waits for the answer |
//! | `canary` | chooses the sessions of a canary |
//! | `dump` | streams a state dump |
//! | `look` | looks at one session, at tables and their entries |
//! | [`patience`] | bounds the time that a client waits |
//! | `pieces` | reads the input of a restore, and collects reasons against it |
//! | `lists` | lists sessions, and carries out commands to several |
//! | `reading` | reads and checks states and entries to store, and plans it |
//! | `redact` | replaces values of a recording |
//! | `restore` | restores a dump, sets fields of a state |
//! | `select` | the sessions that an operator selects |
//! | [`query`] | queries from operators to the loop, and its answers |
//! | [`client`] | sends a command to the host |
//! | [`follow`] | goes on with an answer that has no end, whatever worker serves |
//! | [`text`] | ledger lines as sentences |
//! | [`time`] | times in the form of RFC 3339 |
//! | [`traced`] | a turn that was watched, as a caller reads it |
//! | `watch` | streams the turns that are watched |
//!
//! The keeper accepts the callers, so that `status` is answered whatever the worker does. The
//! keeper passes the socket of any other command to the worker, which asks its loop for one
//! small slice at a time.

pub mod access;
mod amend;
pub mod answer;
mod ask;
pub mod audit;
pub mod caller;
mod canary;
pub mod client;
mod dump;
pub mod follow;
mod lists;
mod look;
pub mod patience;
mod pieces;
pub mod query;
mod reading;
mod redact;
mod restore;
mod select;
pub mod server;
pub mod text;
pub mod time;
pub mod traced;
mod trail;
mod watch;
