//! Figures of the host as text, for those who observe it from outside.
//!
//! | file | holds |
//! | --- | --- |
//! | [`metrics`] | the text of all figures, in two formats |
//! | `families` | the table of all metrics: names, labels, meaning, values |

mod families;
pub mod metrics;
