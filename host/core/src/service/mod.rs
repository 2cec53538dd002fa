//! Builds and the services they offer.
//!
//! | file | holds |
//! | --- | --- |
//! | [`offer`] | what a library offers |
//! | [`registry`] | every service and its builds |
//! | [`convert`] | a stored value from one version to another |
//! | [`probation`] | probations: what is counted, when one ends |
//! | [`placeholder`] | code for a service without a library |

pub mod convert;
pub mod offer;
pub mod placeholder;
pub mod probation;
pub mod registry;
