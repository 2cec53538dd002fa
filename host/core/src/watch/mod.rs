//! Watching: operators see the turns of sessions as they happen.
//!
//! A watcher names sessions, a service or a peer. While a session is watched, its actions run one
//! by one, so that each turn has a state and a time of its own. What the turns did waits in a list
//! of bounded size. A turn that has no room there is counted instead: the host never waits for a
//! reader.
//!
//! Nothing here is stored. A watch ends with its process, or when its reader is gone.
//!
//! | file | holds |
//! | --- | --- |
//! | [`subject`] | what a watcher watches |
//! | [`watchers`] | all watchers, and the turns that they have not taken |

pub mod subject;
pub mod watchers;
