//! Stages of a pass of the loop, as the board and the log name them.

/// Stage of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stage {
    /// Runs deadlines, timers, and input that waited.
    Begin,
    /// Reads connections, and runs what they sent.
    Read,
    /// Handles messages of the keeper: connections, commands, signals.
    Keeper,
    /// Handles messages of threads: jobs, queries, steps of a reload.
    Threads,
    /// Runs what turns have caused, and commits.
    Commit,
    /// Carries out commands: closes connections, starts jobs.
    Commands,
    /// Sends output.
    Send,
    /// Begins a save.
    Save,
    /// Goes on with reloads, configurations and restores.
    Drivers,
}

impl Stage {
    /// All stages, by number.
    pub(super) const ALL: [Stage; 9] = [
        Stage::Begin,
        Stage::Read,
        Stage::Keeper,
        Stage::Threads,
        Stage::Commit,
        Stage::Commands,
        Stage::Send,
        Stage::Save,
        Stage::Drivers,
    ];

    /// Name for the log.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Begin => "begin",
            Stage::Read => "read",
            Stage::Keeper => "messages of the keeper",
            Stage::Threads => "messages of threads",
            Stage::Commit => "commit",
            Stage::Commands => "commands",
            Stage::Send => "send",
            Stage::Save => "save",
            Stage::Drivers => "drivers",
        }
    }
}
