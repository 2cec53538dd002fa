//! Reasons why a session waits, and what each of them blocks.
//!
//! A session can wait for several reasons at once. Five questions are asked about it, and each
//! reason blocks some of them:
//!
//! | reason | run frames | run actions | end | read | expect its peer |
//! | --- | --- | --- | --- | --- | --- |
//! | output full | blocked | | blocked | blocked | blocked |
//! | share used | blocked | | blocked | blocked | blocked |
//! | held by its handler | blocked | | blocked | blocked | blocked |
//! | another session's output | blocked | | blocked | blocked | blocked |
//! | resumes next pass | | | blocked | | blocked |
//! | quarantined | blocked | blocked | blocked | | blocked |
//! | opened turn due | | blocked | | | |
//! | output over its limit | blocked | blocked | blocked | blocked | blocked |
//!
//! A session whose handshake of TLS is still to come waits with everything. Its carrier says so,
//! and no bit here: whatever the session did would go out beside the handshake.
//!
//! A session that resumes may run frames that arrive before its turn comes, but its end waits for
//! the input that it kept. A quarantined session is read on, up to a limit of kept input. The unit
//! test holds this table and the code together.

/// Reason why a session waits. Each is a bit of one byte, so no two share a number; the last one is
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Blocked {
    /// The peer leaves too much output untaken.
    OutputFull = 1,
    /// The session has run its share of this pass, or its turns fail again and again.
    ShareUsed = 1 << 1,
    /// The handler holds the input.
    HeldByHandler = 1 << 2,
    /// Another session's output must drain first.
    OtherSessionsOutput = 1 << 3,
    /// Kept input runs with the next pass.
    ResumesNextPass = 1 << 4,
    /// The next action must not run.
    Quarantined = 1 << 5,
    /// The first turn was blocked, and comes before all others.
    OpenedTurnDue = 1 << 6,
    /// The output grew over its limit: the session is about to be closed.
    OutputOverflows = 1 << 7,
    /// The handshake of TLS is still to come.
    TlsDue = 0,
}

/// Question asked about a session that may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// May messages of its peer be run?
    RunFrames,
    /// May actions from its inbox be run?
    RunActions,
    /// May it end, now that its peer has?
    End,
    /// May its connection be read?
    Read,
    /// Is its peer expected to send something, so that it can be late?
    ExpectPeer,
}

impl Blocked {
    /// All reasons with a bit, in the order in which they are reported.
    pub const ALL: [Blocked; 8] = [
        Blocked::OutputFull,
        Blocked::ShareUsed,
        Blocked::HeldByHandler,
        Blocked::OtherSessionsOutput,
        Blocked::ResumesNextPass,
        Blocked::Quarantined,
        Blocked::OpenedTurnDue,
        Blocked::OutputOverflows,
    ];
}

impl Question {
    /// Returns the reasons that block it, as bits. The table in the module's head says the
    /// same.
    const fn blockers(self) -> u8 {
        use Blocked::*;
        let waits = OutputFull as u8
            | ShareUsed as u8
            | HeldByHandler as u8
            | OtherSessionsOutput as u8
            | OutputOverflows as u8;
        match self {
            Question::RunFrames => waits | Quarantined as u8,
            Question::RunActions => Quarantined as u8 | OpenedTurnDue as u8 | OutputOverflows as u8,
            Question::End | Question::ExpectPeer => waits | ResumesNextPass as u8 | Quarantined as u8,
            Question::Read => waits,
        }
    }
}

/// Reasons why one session waits. One byte.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks(u8);

impl Blocks {
    /// Returns whether a reason holds.
    #[inline]
    pub(crate) fn has(self, reason: Blocked) -> bool {
        self.0 & reason as u8 != 0
    }

    /// Sets or clears a reason. Returns whether it held before.
    #[inline]
    pub(crate) fn set(&mut self, reason: Blocked, holds: bool) -> bool {
        let before = self.has(reason);
        self.0 = if holds { self.0 | reason as u8 } else { self.0 & !(reason as u8) };
        before
    }

    /// Returns the first reason that blocks what is asked; `None`: nothing does. O(1): the
    /// common case is one `and`.
    #[inline]
    pub(crate) fn by(self, question: Question) -> Option<Blocked> {
        let found = self.0 & question.blockers();
        if found == 0 {
            return None;
        }
        Blocked::ALL.into_iter().find(|reason| found & *reason as u8 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the table of the module's head.
    fn table() -> Vec<(String, Vec<bool>)> {
        let rows = include_str!("blocked.rs").lines().filter_map(|l| l.strip_prefix("//! | "));
        let cells = |row: &str| row.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        let rows = rows.skip(2).map(cells);
        rows.map(|c| (c[0].clone(), c[1..6].iter().map(|c| c == "blocked").collect())).collect()
    }

    #[test]
    fn the_table_says_which_reason_blocks_which_question() {
        let questions =
            [Question::RunFrames, Question::RunActions, Question::End, Question::Read, Question::ExpectPeer];
        let table = table();
        assert_eq!(table.len(), Blocked::ALL.len());
        for (reason, (name, row)) in Blocked::ALL.into_iter().zip(&table) {
            let mut blocks = Blocks::default();
            assert!(!blocks.set(reason, true));
            for (question, expected) in questions.into_iter().zip(row) {
                let by = blocks.by(question);
                assert_eq!(by, expected.then_some(reason), "{name} and {question:?}");
            }
            assert!(blocks.set(reason, false));
            assert_eq!(blocks, Blocks::default());
        }
    }

    #[test]
    fn one_reason_does_not_clear_another() {
        let mut blocks = Blocks::default();
        blocks.set(Blocked::OutputFull, true);
        blocks.set(Blocked::HeldByHandler, true);
        blocks.set(Blocked::OutputFull, false);
        assert_eq!(blocks.by(Question::Read), Some(Blocked::HeldByHandler));
    }
}
