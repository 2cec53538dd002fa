//! Every limit of the host: its name, its unit, its default, and what happens when it is reached.
//!
//! The names are also the keys of `[limits]` in the configuration file, and some of them of
//! `[service.NAME.limits]`. `host/LIMITS.md` has the table for operators.

use crate::store::layout::{RECORD_BYTES_MAX, STORE_BYTES_LIMIT};
use serde::{Deserialize, Serialize};

/// See the fields. Bytes and milliseconds, as the names say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at once, of the host or of one service. A connection beyond it is closed as soon as
    /// it is accepted, and that is logged.
    pub sessions_max: usize,
    /// Sessions at once that came from one peer's IP address, over all services. One more is closed
    /// likewise. 0: as many as come.
    pub sessions_per_peer_max: usize,
    /// Messages of one session that are run before the others have their turns; what else it has
    /// sent waits for the next pass.
    pub turns_at_once_max: usize,
    /// The longest frame that a service may declare. A library that wants more is refused.
    pub frame_bytes_max: u32,
    /// One session's stored state. A turn that would grow it further fails.
    pub state_bytes_max: usize,
    /// Output that a peer hasn't taken: from here on its input is not read, until half of it is
    /// gone.
    pub output_bytes_pause: usize,
    /// Output that a peer hasn't taken: beyond it the session is closed and the output dropped.
    /// What others broadcast can get it here, its own input can't.
    pub output_bytes_max: usize,
    /// Sessions that are sent in one pass what others have caused, as a broadcast does; as many as
    /// the pass has run turns, if those are more. The rest is sent in the next ones. Whose peer has
    /// spoken in the pass is answered with it, and a session with more than half of
    /// `output_bytes_pause` to send doesn't wait.
    pub sends_at_once_max: usize,
    /// What one turn may stage: sends, broadcasts, table writes, log. Beyond it the turn fails.
    pub turn_bytes_max: usize,
    /// Notes and published messages that wait for one session's turns. One more isn't delivered,
    /// and that is logged: whoever sent it goes on.
    pub actions_pending_max: usize,
    /// What those carry. One more isn't delivered, likewise.
    pub actions_pending_bytes_max: usize,
    /// Turns that may follow one from another: a note that causes a note, and so on. The one that
    /// would go deeper is refused, and the turn fails. What comes from outside, and a timer, begins
    /// anew.
    pub cascade_max: u16,
    /// Timers of one session. One more is refused, and the turn fails.
    pub timers_per_session_max: usize,
    /// A service's own timers. One more is refused, and the turn fails.
    pub timers_per_service_max: usize,
    /// A timer's name. A longer one is refused, and the turn fails.
    pub timer_name_bytes_max: usize,
    /// Jobs that run at once, a thread each. The others wait.
    pub jobs_running_max: usize,
    /// Jobs of the whole host that run or wait. One more is refused, and the turn fails.
    pub jobs_max: usize,
    /// Jobs of one session that run or wait. One more is refused, and the turn fails.
    pub jobs_per_session_max: usize,
    /// A job's name. A longer one is refused, and the turn fails.
    pub job_name_bytes_max: usize,
    /// What a job returns. With more it has failed.
    pub job_result_bytes_max: usize,
    /// Outbound connections of the whole host that are being made. One more is refused, and the
    /// turn fails.
    pub connects_max: usize,
    /// How long one may take to be made before it has failed.
    pub connect_ms: u64,
    /// A topic's name. A longer one is refused, and the turn fails.
    pub topic_name_bytes_max: usize,
    /// Topics that one session may subscribe to. One more is refused, and the turn fails.
    pub topics_per_session_max: usize,
    /// A table entry's key. A longer one is refused, and the turn fails.
    pub table_key_bytes_max: usize,
    /// A table entry's value. A longer one is refused, and the turn fails.
    pub table_value_bytes_max: usize,
    /// All keys and values of one table. A write that would go beyond it is refused, and the turn
    /// fails.
    pub table_bytes_max: usize,
    /// Tables at once. One more is refused, and the turn fails.
    pub tables_max: usize,
    /// All records together: sessions, states, input, output, tables. Beyond it sessions and turns
    /// are refused, and closing still works.
    pub store_bytes_max: usize,
    /// A generation that killed so many workers within `crash_window_ms` gives way to the one
    /// before it, if that can read the states.
    pub crashes_max: u32,
    /// See `crashes_max`.
    pub crash_window_ms: u64,
    /// A callback that takes longer is logged, with where it is.
    pub stall_warn_ms: u64,
    /// A callback that takes longer ends the worker, and a successor goes on; the action counts as
    /// one that killed it. 0: off.
    pub stall_kill_ms: u64,
    /// A new build is on probation for so long, and the one before is ready to take over. 0: no
    /// probation.
    pub probation_ms: u64,
    /// Probation is over before its time once so many turns have run. 0: only the time counts.
    pub probation_turns: u64,
    /// A build on probation is rolled back when so many of its turns failed that the build before
    /// didn't fail, or couldn't be asked.
    pub probation_faults_max: u32,
    /// Builds that ran before and are kept, for `greenroom rollback`. The oldest is let go of.
    pub builds_kept: usize,
    /// How long a candidate may take to be loaded and rehearsed, before it is refused; and
    /// `rehearsal_item_us` for each session and entry of its tables.
    pub rehearsal_ms: u64,
    /// See `rehearsal_ms`.
    pub rehearsal_item_us: u64,
    /// Entries that a candidate reads there of a table whose values stay as they are; of one that
    /// changes, all. 0: all of every one.
    pub rehearsal_entries_max: usize,
    /// Memory that a candidate may take meanwhile, beside copies of the records. Beyond it the
    /// allocation fails, and it is refused.
    pub rehearsal_bytes_max: usize,
    /// Builds that a worker loads before a fresh one goes on: what is loaded is never unloaded, and
    /// the C library's thread keys run out at about 1,000.
    pub builds_max: u32,
    /// What readers of a snapshot may keep from being used again. Beyond it they fail, not the
    /// loop.
    pub pin_bytes_max: usize,
    /// How long a peer may take to send its first byte. Then the session is closed. 0: as long as
    /// it likes.
    pub first_byte_ms: u64,
    /// How long a peer may send nothing. Then the session is closed. 0: as long as it likes.
    pub idle_ms: u64,
    /// How long a frame may take to be whole once it has begun, however often a byte of it comes.
    /// Then the session is closed. 0: as long as it likes.
    pub frame_ms: u64,
    /// How long a closed session's output may take to be flushed before it is dropped.
    pub drain_ms: u64,
    /// How long a peer may take to close its end after ours is shut.
    pub linger_ms: u64,
    /// How long a host that was told to stop waits for output to be flushed.
    pub stop_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Limits {
            sessions_max: 100_000,
            sessions_per_peer_max: 0,
            turns_at_once_max: 1024,
            sends_at_once_max: 32,
            frame_bytes_max: MIB as u32,
            state_bytes_max: 64 * KIB,
            output_bytes_pause: 256 * KIB,
            output_bytes_max: MIB,
            turn_bytes_max: MIB,
            actions_pending_max: 1024,
            actions_pending_bytes_max: MIB,
            cascade_max: 16,
            timers_per_session_max: 16,
            timers_per_service_max: 1_000_000,
            timer_name_bytes_max: 256,
            jobs_running_max: 4,
            jobs_max: 1024,
            jobs_per_session_max: 16,
            job_name_bytes_max: 256,
            job_result_bytes_max: MIB,
            connects_max: 256,
            connect_ms: 10_000,
            topic_name_bytes_max: 256,
            topics_per_session_max: 64,
            table_key_bytes_max: KIB,
            table_value_bytes_max: 64 * KIB,
            table_bytes_max: 1024 * MIB,
            tables_max: 1024,
            store_bytes_max: 4096 * MIB,
            crashes_max: 3,
            crash_window_ms: 300_000,
            stall_warn_ms: 200,
            stall_kill_ms: 0,
            probation_ms: 10_000,
            probation_turns: 100_000,
            probation_faults_max: 5,
            builds_kept: 5,
            rehearsal_ms: 10_000,
            rehearsal_item_us: 100,
            rehearsal_entries_max: 100_000,
            rehearsal_bytes_max: 1024 * MIB,
            builds_max: 256,
            pin_bytes_max: 512 * MIB,
            first_byte_ms: 0,
            idle_ms: 0,
            frame_ms: 300_000,
            drain_ms: 10_000,
            linger_ms: 2_000,
            stop_ms: 5_000,
        }
    }
}

impl Limits {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), String> {
        // Ten years are as good as for ever, and can be counted in nanoseconds.
        const LONGEST_MS: u64 = 10 * 366 * 24 * 3_600_000;
        let times = [
            ("connect_ms", self.connect_ms),
            ("crash_window_ms", self.crash_window_ms),
            ("stall_warn_ms", self.stall_warn_ms),
            ("stall_kill_ms", self.stall_kill_ms),
            ("probation_ms", self.probation_ms),
            ("rehearsal_ms", self.rehearsal_ms),
            ("first_byte_ms", self.first_byte_ms),
            ("idle_ms", self.idle_ms),
            ("frame_ms", self.frame_ms),
            ("drain_ms", self.drain_ms),
            ("linger_ms", self.linger_ms),
            ("stop_ms", self.stop_ms),
        ];
        if let Some((name, ms)) = times.into_iter().find(|(_, ms)| *ms > LONGEST_MS) {
            return Err(format!(
                "limits.{name} is {ms}: it must be at most {LONGEST_MS}, which is ten years"
            ));
        }
        const NAME: &str = "what a name's 16-bit length says";
        let pairs = [
            ("sessions_max", self.sessions_max, "what 31-bit slots count", 1 << 31),
            ("turns_at_once_max", self.turns_at_once_max, "what a pass may take", 1 << 20),
            ("sends_at_once_max", self.sends_at_once_max, "what a pass may take", 1 << 20),
            ("output_bytes_pause", self.output_bytes_pause, "output_bytes_max", self.output_bytes_max),
            ("turn_bytes_max", self.turn_bytes_max, "store_bytes_max", self.store_bytes_max),
            ("turn_bytes_max", self.turn_bytes_max, "what a record holds", RECORD_BYTES_MAX / 2),
            (
                "table_key_bytes_max",
                self.table_key_bytes_max,
                "what an entry's 16-bit length says",
                usize::from(u16::MAX),
            ),
            ("cascade_max", usize::from(self.cascade_max), "what a 16-bit depth counts", 10_000),
            ("topic_name_bytes_max", self.topic_name_bytes_max, NAME, usize::from(u16::MAX)),
            ("timer_name_bytes_max", self.timer_name_bytes_max, NAME, usize::from(u16::MAX)),
            ("job_name_bytes_max", self.job_name_bytes_max, NAME, usize::from(u16::MAX)),
            ("job_result_bytes_max", self.job_result_bytes_max, "what a record holds", RECORD_BYTES_MAX / 2),
            ("jobs_running_max", self.jobs_running_max, "jobs_max", self.jobs_max),
            ("jobs_max", self.jobs_max, "what a pass can start", 1 << 20),
            ("state_bytes_max", self.state_bytes_max, "what a record holds", RECORD_BYTES_MAX / 2),
            ("frame_bytes_max", self.frame_bytes_max as usize, "what a record holds", RECORD_BYTES_MAX / 2),
            ("store_bytes_max", self.store_bytes_max, "what 32-bit references reach", STORE_BYTES_LIMIT),
        ];
        for (small, s, large, l) in pairs {
            if s == 0 || s > l {
                let large = if large.contains(' ') { large.to_owned() } else { format!("limits.{large}") };
                return Err(format!("limits.{small} is {s}: it must be from 1 to {large}, which is {l}"));
            }
        }
        Ok(())
    }
}

/// Actions that go into one call of a handler: they share one decoding and one encoding of the
/// state. More gains nothing measurable, and lets one session hold up the others longer.
pub const BATCH_ACTIONS_MAX: usize = 64;

/// A batch that has staged this much ends with the turn under way, so that what a session's own
/// input makes the host hold stays near `output_bytes_pause`.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;
/// Pieces of output that one system call sends: a peer that many sessions' broadcasts reach has
/// many short ones.
pub const PIECES_AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::per_service::AllLimits;
    use crate::limits::per_service::ServiceLimits;
    use std::collections::BTreeMap;

    #[test]
    fn a_service_has_its_own_limits_under_the_hosts() {
        let own = ServiceLimits { idle_ms: Some(7), output_bytes_max: Some(5), ..ServiceLimits::default() };
        let all = AllLimits { host: Limits::default(), services: BTreeMap::from([("s".into(), own)]) };
        assert_eq!((all.of("s").idle_ms, all.of("s").frame_ms, all.of("t")), (7, 300_000, Limits::default()));
        let err = all.check().unwrap_err();
        assert!(err.contains("service.s.limits.output_bytes_pause is 262144"), "{err}");
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong = Limits { table_key_bytes_max: 1 << 16, ..Limits::default() };
        assert!(wrong.check().unwrap_err().contains("table_key_bytes_max is 65536"));
        let wrong = Limits { turn_bytes_max: 1 << 30, ..Limits::default() };
        assert!(wrong.check().unwrap_err().contains("turn_bytes_max is 1073741824"));
        let wrong = Limits { idle_ms: u64::MAX / 2, ..Limits::default() };
        assert!(wrong.check().unwrap_err().contains("limits.idle_ms is 9223372036854775807"));
        let wrong = Limits { output_bytes_pause: 10, output_bytes_max: 9, ..Limits::default() };
        assert!(wrong.check().unwrap_err().contains("output_bytes_pause is 10"));
    }
}
