//! Every limit of the host: its name, its unit, its default, and what happens when it is
//! reached.
//!
//! The names are also the keys of `[limits]` in the configuration file, and some of them of
//! `[service.NAME.limits]`. `host/LIMITS.md` has the table for operators.
//!
//! If a turn reaches a limit, the call is refused and the turn fails. Its effects are dropped,
//! its action is used up, and the session goes on. Limits of sessions close or pause the
//! session. [`super::names::Limit`] counts the limits of serving; those of reloads and crashes
//! are not counted.
//!
//! [`Limits::check`] is for configurations: its pairs are what records and the loop rely on.

use crate::store::layout::{RECORD_BYTES_MAX, STORE_BYTES_LIMIT};
use serde::{Deserialize, Serialize};

/// Limits of a host. Units are in the names: bytes, milliseconds (`ms`), microseconds (`us`); a
/// name without one is a number of things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at once, of the host or of one service. A connection beyond it is closed as
    /// soon as it is accepted, and that is logged.
    pub sessions_max: usize,
    /// Sessions at once that came from one peer's IP address, over all services. A connection
    /// beyond it is closed and logged. Outbound connections do not count. 0: no limit.
    pub sessions_per_peer_max: usize,
    /// Messages of one session that are run before the others have their turns. The rest of its
    /// input waits for the next pass.
    pub turns_at_once_max: usize,
    /// Work of each stage of a pass, in microseconds, as the core estimates it. The rest waits for
    /// the next pass: messages of a session, connections not read yet, actions that wait.
    pub pass_us: u64,
    /// Longest frame that a service may declare, in bytes. A library that declares more is
    /// refused.
    pub frame_bytes_max: u32,
    /// Stored state of one session, in bytes. A turn that would leave a longer one fails.
    pub state_bytes_max: usize,
    /// Output that a peer has not taken, in bytes. Beyond it the session's input is not read,
    /// until half of this is left.
    pub output_bytes_pause: usize,
    /// Output that a peer has not taken, in bytes. Beyond it the session is closed and the
    /// output dropped. Broadcasts and other sessions' actions can lead here; the session's own
    /// input pauses before.
    pub output_bytes_max: usize,
    /// Sessions that are sent in one pass what others have caused, as a broadcast does. If the
    /// pass has run more turns, as many sessions as turns. The rest is sent in the next passes.
    ///
    /// A session whose peer has spoken in the pass is sent to with it. A session with more than
    /// half of `output_bytes_pause` to send does not wait either.
    pub sends_at_once_max: usize,
    /// Bytes that one turn may stage: sends, broadcasts, table writes and other effects. Beyond
    /// it the turn fails. Log lines of a turn have as many bytes of their own; lines beyond are
    /// dropped.
    pub turn_bytes_max: usize,
    /// Sessions that the broadcasts and published messages of one turn reach, counted for each
    /// message anew. The turn that would reach more fails.
    pub turn_recipients_max: usize,
    /// Notes and published messages that wait for one session's turns. An action beyond it is
    /// dropped, and operators are told; its sender goes on.
    pub actions_pending_max: usize,
    /// Bytes that those actions carry. An action beyond it is dropped likewise.
    pub actions_pending_bytes_max: usize,
    /// Turns that may follow one from another: a note that causes a note, and so on. The turn
    /// that would go deeper fails. Input from outside and timers begin at 0.
    pub cascade_max: u16,
    /// Timers of one session. The turn that would set one more fails.
    pub timers_per_session_max: usize,
    /// Timers of a service itself. The turn that would set one more fails.
    pub timers_per_service_max: usize,
    /// Length of a timer's name, in bytes. The turn that sets a longer one fails.
    pub timer_name_bytes_max: usize,
    /// Jobs that run at once, a thread each. The others wait, but a service of which none runs
    /// gets one thread more.
    pub jobs_running_max: usize,
    /// Time of one job, from which the log names it, once. The job goes on. 0: off.
    pub job_warn_ms: u64,
    /// Jobs of the whole host that run or wait. The turn that would start one more fails.
    pub jobs_max: usize,
    /// Jobs of one session that run or wait. The turn that would start one more fails. A
    /// service's own jobs have no such limit.
    pub jobs_per_session_max: usize,
    /// Length of a job's name, in bytes. The turn that starts a job with a longer one fails.
    pub job_name_bytes_max: usize,
    /// Length of a job's result, in bytes. A job with a longer result has failed.
    pub job_result_bytes_max: usize,
    /// Outbound connections of the whole host that are being made. The turn that would ask for
    /// one more fails.
    pub connects_max: usize,
    /// Time for an outbound connection to be made. Afterwards it has failed, and its session is
    /// told.
    pub connect_ms: u64,
    /// Length of a topic's name, in bytes. The turn that uses a longer one fails.
    pub topic_name_bytes_max: usize,
    /// Names that one session may hold. The turn that would register one more fails.
    pub names_per_session_max: usize,
    /// Token buckets that the host remembers for all services, 16 bytes each. For one more, another
    /// is forgotten, which has all its tokens again.
    pub token_buckets_max: usize,
    /// Topics that one session may be on. The turn that would subscribe it to one more fails.
    pub topics_per_session_max: usize,
    /// Length of a table entry's key, in bytes. The turn that writes a longer one fails.
    pub table_key_bytes_max: usize,
    /// Length of a table entry's value, in bytes. The turn that writes a longer one fails.
    pub table_value_bytes_max: usize,
    /// Keys and values of one table, in bytes. The turn that would exceed it fails.
    pub table_bytes_max: usize,
    /// Tables at once. The turn that would make one more fails.
    pub tables_max: usize,
    /// All records together, in bytes: sessions, states, input, output, tables. Beyond it new
    /// sessions and turns that write are refused. Closing still works: the store has a reserve
    /// for it.
    pub store_bytes_max: usize,
    /// Workers that one generation may kill within `crash_window_ms`. At this number it gives
    /// way to the previous build, if that can read the states.
    pub crashes_max: u32,
    /// Time in which `crashes_max` counts.
    pub crash_window_ms: u64,
    /// Time of one callback, from which the log names it, and its function and line. Also the
    /// time of one pass of the loop, from which the log names its stage. 0: off.
    pub stall_warn_ms: u64,
    /// Time of one callback, from which the worker is ended and a successor goes on. The action
    /// counts as an action that killed its worker. 0: off.
    pub stall_kill_ms: u64,
    /// Time of a probation, in which the previous build stands by. 0: no probation.
    pub probation_ms: u64,
    /// Turns after which a probation is over before its time. 0: only the time counts.
    pub probation_turns: u64,
    /// Failed turns at which a build on probation is rolled back. Those count that the previous
    /// build runs without a fault, or cannot be asked about.
    pub probation_faults_max: u32,
    /// Earlier builds of a library that are kept for `greenroom rollback`. The oldest is
    /// dropped.
    pub builds_kept: usize,
    /// Time for a candidate to be loaded and rehearsed. `rehearsal_item_us` is added for each
    /// session and table entry. Afterwards the candidate is refused.
    pub rehearsal_ms: u64,
    /// Time that each session and each entry adds to `rehearsal_ms`.
    pub rehearsal_item_us: u64,
    /// Entries that a rehearsal reads of a table whose version and schema stay as they are. The
    /// others are left out. Of a table that changes, all are read. 0: all of every table.
    pub rehearsal_entries_max: usize,
    /// Memory of a rehearsal, in bytes, beside what copies of the records take. Beyond it an
    /// allocation fails, and the candidate is refused.
    pub rehearsal_bytes_max: usize,
    /// Builds that one worker loads before a fresh worker goes on. A library that was loaded is
    /// never unloaded, and the C library's thread keys run out at about 1,000.
    pub builds_max: u32,
    /// Bytes of private copies that a worker has loaded and that are deleted since. They keep their
    /// space on disk until that worker ends. From here on a fresh worker goes on.
    pub retired_bytes_max: usize,
    /// Dead records that readers of a snapshot may hold back, in bytes. Beyond it the readers
    /// fail, and serving goes on.
    pub pin_bytes_max: usize,
    /// Time for a peer to send its first byte. Afterwards its session is closed. 0: no limit.
    pub first_byte_ms: u64,
    /// Time in which a peer may send nothing. Afterwards its session is closed. 0: no limit.
    pub idle_ms: u64,
    /// Time for a frame to be whole once it has begun, however often a byte of it comes.
    /// Afterwards its session is closed. 0: no limit.
    pub frame_ms: u64,
    /// Time in which a peer may take none of the output that waits for it, whatever it sends.
    /// Afterwards its session is closed. Taken is what makes room in the kernel's buffer. 0: no
    /// limit.
    pub output_ms: u64,
    /// Time in which a peer of WebSocket may send nothing before it is pinged, and again before its
    /// session is closed. 0: no pings.
    pub ping_ms: u64,
    /// Bytes that an address may be sent for each byte of the datagrams that came from it, as their
    /// sender may be another one. 0: no limit.
    pub datagram_amplification_max: u64,
    /// Time for a PROXY header to be whole, from the opening. Afterwards its session is closed. 0:
    /// no limit.
    pub proxy_header_ms: u64,
    /// Time after which the kernel gives up a peer that does not answer. 0: the kernel's own times.
    pub dead_peer_ms: u64,
    /// Records that one key of TLS seals before another follows. In TLS 1.2 the session is closed
    /// then. A cipher may allow fewer.
    pub tls_records_max: u64,
    /// Handshakes of TLS under way. The oldest one is given up for one more.
    pub handshakes_max: usize,
    /// Handshakes of TLS that begin in a second. More wait. 0: no limit.
    pub handshakes_per_s: u64,
    /// Time for a handshake of TLS. Afterwards its connection is closed.
    pub handshake_ms: u64,
    /// Time for the output of a closed session to be flushed. Afterwards the output is dropped.
    pub drain_ms: u64,
    /// Time for a peer to close its end after ours is shut. Afterwards the connection is
    /// closed.
    pub linger_ms: u64,
    /// Time for output to be flushed once the host was told to stop. Afterwards it is dropped.
    pub stop_ms: u64,
    /// Commands at once that watch or record turns. One more is refused.
    pub watchers_max: usize,
    /// Bytes of turns that one of them has not taken yet. Turns beyond it are left out for it, and
    /// it is told how many.
    pub watcher_bytes_max: usize,
    /// Time in which the save at the end brings nothing to the disk. Afterwards the worker is
    /// killed, and what was saved before stays.
    pub save_ms: u64,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Limits {
    /// Limits of a host whose configuration names none.
    pub const DEFAULT: Limits = Limits {
        sessions_max: 100_000,
        sessions_per_peer_max: 0,
        turns_at_once_max: 1024,
        sends_at_once_max: 32,
        pass_us: 2_000,
        frame_bytes_max: MIB as u32,
        state_bytes_max: 64 * KIB,
        output_bytes_pause: 256 * KIB,
        output_bytes_max: MIB,
        turn_bytes_max: MIB,
        turn_recipients_max: MIB,
        actions_pending_max: 1024,
        actions_pending_bytes_max: MIB,
        cascade_max: 16,
        timers_per_session_max: 16,
        timers_per_service_max: 1_000_000,
        timer_name_bytes_max: 256,
        jobs_running_max: 4,
        job_warn_ms: 60_000,
        jobs_max: 1024,
        jobs_per_session_max: 16,
        job_name_bytes_max: 256,
        job_result_bytes_max: MIB,
        connects_max: 256,
        connect_ms: 10_000,
        topic_name_bytes_max: 256,
        names_per_session_max: 16,
        token_buckets_max: 65_536,
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
        retired_bytes_max: 1024 * MIB,
        pin_bytes_max: 512 * MIB,
        first_byte_ms: 0,
        idle_ms: 0,
        frame_ms: 300_000,
        output_ms: 300_000,
        ping_ms: 30_000,
        datagram_amplification_max: 3,
        proxy_header_ms: 5_000,
        dead_peer_ms: 120_000,
        tls_records_max: 1 << 23,
        handshakes_max: 1024,
        handshakes_per_s: 1000,
        handshake_ms: 10_000,
        drain_ms: 10_000,
        linger_ms: 2_000,
        stop_ms: 5_000,
        watchers_max: 8,
        watcher_bytes_max: 8 * MIB,
        save_ms: 60_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

impl Limits {
    /// Checks that no value contradicts another one or the format that holds it. The error
    /// names the first such key, its value and its bounds. O(1).
    pub fn check(&self) -> Result<(), String> {
        self.check_times()?;
        const NAME: &str = "what a name's 16-bit length says";
        // Each of these must be at least 1. The right side is a limit, or the width of the
        // field that holds the number.
        let pairs = [
            ("sessions_max", self.sessions_max, "what 31-bit slots count", 1 << 31),
            ("turns_at_once_max", self.turns_at_once_max, "what a pass may take", 1 << 20),
            ("sends_at_once_max", self.sends_at_once_max, "what a pass may take", 1 << 20),
            ("pass_us", self.pass_us as usize, "a second", 1_000_000),
            ("token_buckets_max", self.token_buckets_max, "what a gigabyte holds", 1 << 26),
            ("turn_recipients_max", self.turn_recipients_max, "what a turn may take", 1 << 30),
            ("output_bytes_pause", self.output_bytes_pause, "output_bytes_max", self.output_bytes_max),
            ("turn_bytes_max", self.turn_bytes_max, "store_bytes_max", self.store_bytes_max),
            // Half leaves room for a head, and for a framing that makes a message longer.
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
        // 0 forbids connections, names or topics.
        let or_none = [
            ("connects_max", self.connects_max, 1 << 20),
            ("names_per_session_max", self.names_per_session_max, 1024),
            ("topics_per_session_max", self.topics_per_session_max, 1 << 20),
        ];
        if let Some((name, n, most)) = or_none.into_iter().find(|(_, n, most)| n > most) {
            return Err(format!("limits.{name} is {n}: it must be at most {most}"));
        }
        for (small, s, large, l) in pairs {
            if s == 0 || s > l {
                let large = if large.contains(' ') { large.to_owned() } else { format!("limits.{large}") };
                return Err(format!("limits.{small} is {s}: it must be from 1 to {large}, which is {l}"));
            }
        }
        Ok(())
    }

    /// Checks that no time is longer than its use allows, and that nothing is 0 that must not be.
    fn check_times(&self) -> Result<(), String> {
        // Ten years are as good as for ever, and nanoseconds of them fit 64 bits beside the
        // clock's.
        const LONGEST_MS: u64 = 10 * 366 * 24 * 3_600_000;
        let times = [
            ("job_warn_ms", self.job_warn_ms),
            ("connect_ms", self.connect_ms),
            ("crash_window_ms", self.crash_window_ms),
            ("stall_warn_ms", self.stall_warn_ms),
            ("stall_kill_ms", self.stall_kill_ms),
            ("probation_ms", self.probation_ms),
            ("rehearsal_ms", self.rehearsal_ms),
            ("first_byte_ms", self.first_byte_ms),
            ("idle_ms", self.idle_ms),
            ("frame_ms", self.frame_ms),
            ("output_ms", self.output_ms),
            ("ping_ms", self.ping_ms),
            ("proxy_header_ms", self.proxy_header_ms),
            ("dead_peer_ms", self.dead_peer_ms),
            ("handshake_ms", self.handshake_ms),
            ("drain_ms", self.drain_ms),
            ("linger_ms", self.linger_ms),
            ("stop_ms", self.stop_ms),
            ("save_ms", self.save_ms),
        ];
        if let Some((name, ms)) = times.into_iter().find(|(_, ms)| *ms > LONGEST_MS) {
            return Err(format!(
                "limits.{name} is {ms}: it must be at most {LONGEST_MS}, which is ten years"
            ));
        }
        // With 0 no build could be tried, or each worker would give way to the next one.
        let least = [
            ("builds_max", self.builds_max as usize),
            ("retired_bytes_max", self.retired_bytes_max),
            ("rehearsal_bytes_max", self.rehearsal_bytes_max),
            ("rehearsal_ms", self.rehearsal_ms as usize),
            ("tls_records_max", self.tls_records_max as usize),
            ("handshakes_max", self.handshakes_max),
            ("handshake_ms", self.handshake_ms as usize),
        ];
        match least.into_iter().find(|(_, n)| *n == 0) {
            Some((name, _)) => Err(format!("limits.{name} is 0: it must be at least 1")),
            None => Ok(()),
        }
    }
}

/// Actions that go into one call of a handler: they share one decoding and one encoding of the
/// state. More gains nothing measurable, and lets one session hold up the others longer.
pub const BATCH_ACTIONS_MAX: usize = 64;

/// Staged bytes from which a batch ends with the turn under way, and bytes that the waiting
/// actions of a batch carry. The output that a session's own input makes then stays near
/// `output_bytes_pause`.
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

    /// Merged limits are checked as well: an override can contradict the host's values.
    #[test]
    fn a_service_has_its_own_limits_under_the_hosts() {
        let own = ServiceLimits { idle_ms: Some(7), output_bytes_max: Some(5), ..ServiceLimits::default() };
        let all =
            AllLimits { services: BTreeMap::from([("s".into(), own)]), ..AllLimits::from(Limits::default()) };
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
