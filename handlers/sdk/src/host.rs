//! Host as a batch sees it: the real one, through the C ABI, or the one of a handler's own
//! tests.
//!
//! Effects are staged by the host, and dropped if their turn fails. Methods that stage an
//! effect return a status of [`greenroom_state::abi::status`]. A refusal never interrupts the
//! callback: the turn notes the refusal and fails in the end.

use crate::fault::Fault;
use crate::log::LogEvent;
use greenroom_state::abi;

/// Functions that a batch may call on its host: [`greenroom_state::abi::Host`] in safe words.
pub(crate) trait Host {
    /// Ends a turn that succeeded. False: no further turn of this batch may run.
    fn turn_ok(&mut self) -> bool;
    /// Ends a turn that failed: its effects are dropped.
    fn turn_failed(&mut self, fault: &Fault);
    /// Hands over the state that the batch leaves, at most once, if it changed.
    fn state(&mut self, bytes: &[u8]);
    /// Address of the peer, as text.
    fn peer(&mut self) -> String;
    fn wall(&mut self) -> u64;
    /// Sends a message.
    fn send(&mut self, bytes: &[u8]) -> u32;
    /// Sends a line, given without its ending.
    fn send_line(&mut self, line: &[u8]) -> u32;
    /// Closes the session, and tells the peer a code and a reason.
    fn close_with(&mut self, code: u16, reason: &str) -> u32;
    /// Fact about the connection, if there is one of the name.
    fn fact(&mut self, name: &str) -> Option<Vec<u8>>;
    /// Answers a request for a page.
    fn page(&mut self, content_type: &str, page: &[u8]) -> u32;
    /// Closes the session once its output is flushed.
    fn close(&mut self) -> u32;
    /// Adds the session to a topic.
    fn subscribe(&mut self, topic: &[u8]) -> u32;
    /// Takes the session off a topic.
    fn unsubscribe(&mut self, topic: &[u8]) -> u32;
    /// Sends bytes to all sessions on a topic. `flags`: 0, `BROADCAST_OTHERS`, `BROADCAST_LINE`.
    fn broadcast(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32;
    /// Lends a value to `read`, the batch's own writes included. False: there is none.
    fn table_get(&mut self, table: &str, key: &[u8], read: &mut dyn FnMut(&[u8])) -> bool;
    /// Writes a value.
    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32;
    /// Writes a value until a time of the calendar, in nanoseconds since 1970.
    fn table_put_until(&mut self, table: &str, key: &[u8], value: &[u8], until_ns: u64) -> u32;
    /// Deletes a key, if it is there.
    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32;
    /// Drops all entries whose keys start with `prefix`.
    fn table_drop_prefix(&mut self, table: &str, prefix: &[u8]) -> u32;
    /// Finds the next entry whose key starts with `prefix`, and lends its value to `read`. Returns
    /// the key. `flags`: 0, `BACKWARDS`, `KEY_ALONE`.
    fn table_seek(
        &mut self,
        table: &str,
        range: (&[u8], &[u8]),
        flags: u32,
        read: &mut dyn FnMut(&[u8]),
    ) -> Option<Vec<u8>>;
    /// Number of entries of a table.
    fn table_len(&mut self, table: &str) -> u64;
    /// Sets a timer. `flags`: 0 or `TIMER_OF_SERVICE`.
    fn set_timer(&mut self, name: &str, after_ns: u64, flags: u32) -> u32;
    /// Cancels a timer. `flags`: 0 or `TIMER_OF_SERVICE`.
    fn cancel_timer(&mut self, name: &str, flags: u32) -> u32;
    /// Sends a note to a session.
    fn note(&mut self, session: u64, data: &[u8]) -> u32;
    /// Wakes a session.
    fn wake(&mut self, session: u64) -> u32;
    /// Wakes this session once its output is sent.
    fn wake_when_drained(&mut self) -> u32;
    /// Bytes of output that were not sent when the batch began.
    fn unsent(&mut self) -> u64;
    /// Next open session of the service; 0: there is none.
    fn session_next(&mut self, after: u64) -> u64;
    /// Bounds the messages of the session's peer; 0: not beyond the service's bound.
    fn frame_max(&mut self, bytes: u32) -> u32;
    /// Has the session told of its peer's silence; 0: not any more.
    fn idle_after(&mut self, after_ns: u64) -> u32;
    /// Takes a token of a key's bucket, if there is one. The error is a status of the ABI.
    fn allow(&mut self, key: &[u8], interval_ns: u64, burst: u32) -> Result<bool, u32>;
    /// Next random number of the turn.
    fn random(&mut self) -> u64;
    /// Numbers of the host.
    fn stats(&mut self) -> abi::Stats;
    /// Sends bytes to the peer of a session. `flags`: those of a broadcast.
    fn send_to(&mut self, session: u64, data: &[u8], flags: u32) -> u32;
    /// Closes a session.
    fn close_session(&mut self, session: u64) -> u32;
    /// Takes a name, and returns who held it. The error is a status of the ABI.
    fn register(&mut self, name: &[u8]) -> Result<Option<u64>, u32>;
    /// Gives up a name.
    fn unregister(&mut self, name: &[u8]) -> u32;
    /// Holder of a name.
    fn whereis(&mut self, name: &[u8]) -> Option<u64>;
    /// First name that is not before `from`, and its holder.
    fn name_next(&mut self, from: &[u8]) -> Option<(Vec<u8>, u64)>;
    /// Sends bytes to all sessions on any of several topics. `flags`: those of a broadcast.
    fn broadcast_any(&mut self, topics: &[&[u8]], data: &[u8], flags: u32) -> u32;
    /// Number of sessions on a topic.
    fn topic_len(&mut self, topic: &[u8]) -> u64;
    /// First topic that is not before `from`.
    fn topic_next(&mut self, from: &[u8]) -> Option<Vec<u8>>;
    /// Publishes bytes on a topic. `flags`: 0 or `BROADCAST_OTHERS`.
    fn publish(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32;
    /// Starts a job and returns its number. `flags`: 0 or `JOB_ONCE`. The error is a status of the
    /// ABI.
    fn start_job(&mut self, name: &str, input: &[u8], flags: u32) -> Result<u64, u32>;
    /// Cancels a job of this session.
    fn cancel_job(&mut self, number: u64) -> u32;
    /// Asks for a connection and returns its number. The error is a status of the ABI.
    fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32>;
    fn connect_tls(&mut self, service: &str, addr: &str, name: &str, context: &[u8]) -> Result<u64, u32>;
    fn start_tls(&mut self, name: &str) -> u32;
    /// Has this session's input wait for another session's output.
    fn wait_for(&mut self, session: u64) -> u32;
    /// Holds this session's input, or releases it.
    fn hold(&mut self, on: bool) -> u32;
    /// Says a verb about a telnet option.
    fn negotiate(&mut self, verb: u8, option: u8) -> u32;
    /// Sends a subnegotiation of a telnet option.
    fn subnegotiate(&mut self, option: u8, bytes: &[u8]) -> u32;
    /// Sends a datagram to an address.
    fn send_datagram(&mut self, to: &str, bytes: &[u8]) -> u32;
    /// Sends a text behind which the peer is to answer.
    fn prompt(&mut self, text: &[u8]) -> u32;
    /// Logs an event, at any time.
    fn log(&mut self, event: &LogEvent);
}
