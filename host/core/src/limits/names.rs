//! Names of limits, for counting and for messages.
//!
//! A name is the key in the configuration file. Logs, messages of failed turns and the counts
//! of `status` use the same name, so operators can search by it.

macro_rules! limits {
    // The list is written once: variants, order and names cannot differ.
    ($($variant:ident = $name:literal,)*) => {
        /// Limit that is counted when it is reached: `status` shows how often. Each name is
        /// that of the field of [`super::host::Limits`], but for three: the process is given
        /// [`Limit::OpenFiles`], [`Limit::ProxyHeader`] is fixed, and [`Limit::ProxyFrom`] is
        /// a list of the service. A keeper and a worker of other versions may count for each
        /// other, so new ones come last.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Limit { $($variant,)* }

        impl Limit {
            /// All limits, in the order in which the board counts them.
            pub const ALL: &[Limit] = &[$(Limit::$variant,)*];

            /// Returns the name in the configuration, in logs and in `status`.
            pub fn name(self) -> &'static str {
                match self { $(Limit::$variant => $name,)* }
            }
        }
    };
}

limits! {
    SessionsMax = "sessions_max",
    SessionsPerPeerMax = "sessions_per_peer_max",
    TurnsAtOnceMax = "turns_at_once_max",
    FrameBytesMax = "frame_bytes_max",
    StateBytesMax = "state_bytes_max",
    OutputBytesPause = "output_bytes_pause",
    OutputBytesMax = "output_bytes_max",
    TurnBytesMax = "turn_bytes_max",
    ActionsPendingMax = "actions_pending_max",
    ActionsPendingBytesMax = "actions_pending_bytes_max",
    CascadeMax = "cascade_max",
    TimersPerSessionMax = "timers_per_session_max",
    TimersPerServiceMax = "timers_per_service_max",
    TimerNameBytesMax = "timer_name_bytes_max",
    JobsRunningMax = "jobs_running_max",
    JobsMax = "jobs_max",
    JobsPerSessionMax = "jobs_per_session_max",
    JobNameBytesMax = "job_name_bytes_max",
    JobResultBytesMax = "job_result_bytes_max",
    ConnectsMax = "connects_max",
    ConnectMs = "connect_ms",
    TopicNameBytesMax = "topic_name_bytes_max",
    NamesPerSessionMax = "names_per_session_max",
    TopicsPerSessionMax = "topics_per_session_max",
    TableKeyBytesMax = "table_key_bytes_max",
    TableValueBytesMax = "table_value_bytes_max",
    TableBytesMax = "table_bytes_max",
    TablesMax = "tables_max",
    StoreBytesMax = "store_bytes_max",
    StallWarnMs = "stall_warn_ms",
    StallKillMs = "stall_kill_ms",
    FirstByteMs = "first_byte_ms",
    IdleMs = "idle_ms",
    FrameMs = "frame_ms",
    DrainMs = "drain_ms",
    LingerMs = "linger_ms",
    StopMs = "stop_ms",
    OpenFiles = "open_files",
    SendsAtOnceMax = "sends_at_once_max",
    OutputMs = "output_ms",
    PassUs = "pass_us",
    TurnRecipientsMax = "turn_recipients_max",
    JobWarnMs = "job_warn_ms",
    SaveMs = "save_ms",
    PingMs = "ping_ms",
    DatagramAmplificationMax = "datagram_amplification_max",
    ProxyHeaderMs = "proxy_header_ms",
    ProxyHeader = "proxy_header",
    ProxyFrom = "proxy_from",
    TlsRecordsMax = "tls_records_max",
    HandshakeMs = "handshake_ms",
    HandshakesMax = "handshakes_max",
    HandshakesPerS = "handshakes_per_s",
    TokenBucketsMax = "token_buckets_max",
    WatchersMax = "watchers_max",
    WatcherBytesMax = "watcher_bytes_max",
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "limit {}", self.name())
    }
}
