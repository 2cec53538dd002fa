//! Builds, and the services that they offer.
//!
//! A service outlives its builds: sessions and records name the service, and a reload replaces
//! only what the service points to. Data of another version is converted when it is read, never
//! with loss on the way down.
//!
//! | file | holds |
//! | --- | --- |
//! | [`offer`] | what a library offers |
//! | [`canaries`] | canaries under way, and what their terms bring about |
//! | `canary` | a candidate that runs some sessions of a service |
//! | [`canary_counts`] | what is counted of both builds |
//! | [`canary_terms`] | which sessions run a candidate, and what ends it |
//! | `encoding` | how messages to a session are written |
//! | [`registry`] | every service and its builds |
//! | `framings` | the framings of a service's sessions |
//! | [`convert`] | a stored value from one version to another |
//! | [`probation`] | probations: what is counted, when one ends |
//! | [`placeholder`] | code for a service without a library |

pub mod canaries;
mod canary;
pub mod canary_counts;
pub mod canary_terms;
pub mod convert;
pub(crate) mod encoding;
mod framings;
pub mod offer;
pub mod placeholder;
pub mod probation;
pub mod registry;
