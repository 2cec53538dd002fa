//! Work that the loop of `greenroom dev` has under way, and what follows it.

/// Work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Nothing,
    Build,
    Start,
    Reload,
}

/// Step behind a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The configuration changed beside sources, and is put in force behind them.
    Configure,
    /// The build was refused, perhaps for want of the settings that are put in force now.
    Reload,
}
