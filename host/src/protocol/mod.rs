//! Types that cross a process boundary.
//!
//! | file | holds |
//! |---|---|
//! | [`admin`] | requests and replies between a command and the host |
//! | [`keeper`] | messages between keeper and worker |
//! | [`link`] | the socket between keeper and worker: packets with descriptors |

pub mod admin;
pub mod keeper;
pub mod link;
