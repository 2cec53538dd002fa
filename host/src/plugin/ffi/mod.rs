//! The C ABI, host side, and the only unsafe code towards handlers.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`library`] | a loaded library and what it offers |
//! | `instance` | an instance of a service: runs turns and jobs, converts values |
//! | `host_calls` | the functions that a handler calls during a turn |
//! | `topic_calls`, `session_calls` | those for topics, and for other sessions |
//! | `chance_calls` | those for tokens, random numbers and numbers of the host |
//! | `stream_calls` | those for connections that the host makes, and for TLS |
//! | `table_calls` | those for tables |
//! | `telnet_calls` | those for telnet sessions |
//! | `under_way` | what those functions get back of the turn |
//! | `bytes` | bytes that cross the boundary |

mod bytes;
mod chance_calls;
mod host_calls;
mod instance;
pub mod library;
mod session_calls;
mod stream_calls;
mod table_calls;
mod telnet_calls;
mod topic_calls;
mod under_way;
