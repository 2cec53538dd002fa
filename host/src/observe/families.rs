//! Table of all metrics. `host/METRICS.md` shows it to operators.
//!
//! Names follow the conventions of Prometheus: the unit comes last, and counters end with `_total`
//! in samples. A name is never given to another figure, and a label is never taken away.

use super::samples::{Family, FamilyKind, MetricSamples};
use crate::protocol::metrics::Metrics;
use std::collections::BTreeMap;

/// Makes a family.
const fn family(
    kind: FamilyKind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    figures: fn(&Metrics, &mut MetricSamples<'_>),
) -> Family {
    Family { name, kind, labels, help, figures }
}

use FamilyKind::{Counter, Gauge, Histogram};

/// All families, in the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    family(Gauge, "greenroom_build_info", &["version"], "Version of the host; always 1.", |m, to| {
        to.number(&[&m.status.host.version], 1);
    }),
    family(Gauge, "greenroom_start_time_seconds", &[], "Time when the host started, since 1970.", |m, to| {
        to.seconds(&[], m.started_ms * 1_000_000);
    }),
    family(Gauge, "greenroom_worker_serving", &[], "1 if a worker serves, else 0.", |m, to| {
        to.number(&[], u64::from(m.status.host.worker == "serving"));
    }),
    family(
        Gauge,
        "greenroom_worker_stalled_seconds",
        &[],
        "Time for which the worker has been busy with one thing; 0 below a second.",
        |m, to| to.seconds(&[], m.status.host.stalled.as_ref().map_or(0, |s| s.for_ms * 1_000_000)),
    ),
    family(
        Gauge,
        "greenroom_worker_resident_memory_bytes",
        &[],
        "Resident memory of the worker's process.",
        |m, to| to.number(&[], m.worker_resident_bytes),
    ),
    family(
        Counter,
        "greenroom_takeovers",
        &["cause"],
        "Workers that took over: handover, crash, kill or stall.",
        |m, to| each(&m.takeovers, to),
    ),
    family(
        Histogram,
        "greenroom_takeover_duration_seconds",
        &[],
        "Time from the end of a worker until another one served.",
        |m, to| to.histogram(&[], &m.takeover_times),
    ),
    family(Gauge, "greenroom_connections", &[], "Connections that the host holds.", |m, to| {
        to.number(&[], m.status.host.connections as u64);
    }),
    family(Counter, "greenroom_accepts", &[], "Connections accepted.", |m, to| to.number(&[], m.accepts)),
    family(
        Histogram,
        "greenroom_loop_pass_duration_seconds",
        &[],
        "Loop lag: time of a pass, for whose end whoever comes in it waits.",
        |m, to| to.histogram(&[], &m.passes),
    ),
    family(
        Gauge,
        "greenroom_loop_longest_pass_seconds",
        &[],
        "Longest pass since the host started, as the watchdog saw it.",
        |m, to| to.seconds(&[], m.status.host.longest_pass_ms * 1_000_000),
    ),
    family(Gauge, "greenroom_sessions", &["service"], "Sessions alive.", |m, to| {
        m.status.services.iter().for_each(|s| to.number(&[&s.name], s.sessions as u64));
    }),
    family(Counter, "greenroom_sessions_opened", &["service"], "Sessions opened.", |m, to| {
        m.traffic.iter().for_each(|s| to.number(&[&s.service], s.opened));
    }),
    family(
        Counter,
        "greenroom_received_bytes",
        &["service"],
        "Bytes of streams taken from peers, those of TLS and framings included.",
        |m, to| m.traffic.iter().for_each(|s| to.number(&[&s.service], s.bytes_in)),
    ),
    family(
        Counter,
        "greenroom_sent_bytes",
        &["service"],
        "Bytes of streams that the kernel took for peers.",
        |m, to| m.traffic.iter().for_each(|s| to.number(&[&s.service], s.bytes_out)),
    ),
    family(Counter, "greenroom_turns", &["service"], "Turns committed, failed ones included.", |m, to| {
        m.status.services.iter().for_each(|s| to.number(&[&s.name], s.turns));
    }),
    family(
        Counter,
        "greenroom_faults",
        &["service"],
        "Turns that failed, those that the previous build then ran included.",
        |m, to| m.status.services.iter().for_each(|s| to.number(&[&s.name], s.faults)),
    ),
    family(
        Histogram,
        "greenroom_turn_duration_seconds",
        &["service", "generation"],
        "Time of a turn in the handler. Turns of one call share its time equally.",
        |m, to| {
            for t in &m.turns {
                to.histogram(&[&t.service, &t.generation.to_string()], &t.times);
            }
        },
    ),
    family(
        Counter,
        "greenroom_turn_faults",
        &["service", "generation"],
        "Turns of a generation that failed.",
        |m, to| {
            for t in &m.turns {
                to.number(&[&t.service, &t.generation.to_string()], t.faults);
            }
        },
    ),
    family(
        Counter,
        "greenroom_actions",
        &["service", "generation", "action"],
        "Turns of a generation by kind of action. One that was run again counts each time.",
        |m, to| {
            for t in &m.turns {
                let generation = t.generation.to_string();
                t.actions.iter().for_each(|(action, n)| to.number(&[&t.service, &generation, action], *n));
            }
        },
    ),
    family(
        Counter,
        "greenroom_action_seconds",
        &["service", "generation", "action"],
        "Time of those turns in the handler.",
        |m, to| {
            for t in &m.turns {
                let generation = t.generation.to_string();
                t.action_ns
                    .iter()
                    .for_each(|(action, ns)| to.seconds(&[&t.service, &generation, action], *ns));
            }
        },
    ),
    family(Gauge, "greenroom_generation", &["service"], "Generation that serves.", |m, to| {
        m.status.services.iter().for_each(|s| to.number(&[&s.name], s.generation));
    }),
    family(Gauge, "greenroom_jobs_running", &["service"], "Threads taken by jobs.", |m, to| {
        m.status.services.iter().for_each(|s| to.number(&[&s.name], s.jobs.running));
    }),
    family(Gauge, "greenroom_jobs_waiting", &["service"], "Jobs that wait for a thread.", |m, to| {
        m.status.services.iter().for_each(|s| to.number(&[&s.name], s.jobs.waiting));
    }),
    family(
        Gauge,
        "greenroom_job_oldest_seconds",
        &["service"],
        "Time that the oldest running job has been running; 0: none runs.",
        |m, to| {
            for s in &m.status.services {
                to.seconds(&[&s.name], s.jobs.oldest_ms.unwrap_or(0) * 1_000_000);
            }
        },
    ),
    family(Gauge, "greenroom_timers", &[], "Timers that are not due.", |m, to| to.number(&[], m.timers)),
    family(Gauge, "greenroom_store_bytes", &[], "Bytes of all records.", |m, to| {
        to.number(&[], m.store_bytes);
    }),
    family(Gauge, "greenroom_store_limit_bytes", &[], "Limit of those (`store_bytes_max`).", |m, to| {
        to.number(&[], m.store_bytes_max);
    }),
    family(Gauge, "greenroom_store_kind_bytes", &["kind"], "Bytes of the records of a kind.", |m, to| {
        each(&m.store_bytes_by_kind, to);
    }),
    family(
        Gauge,
        "greenroom_builds_kept",
        &["library"],
        "Private copies of builds of a library, that of the one that serves included.",
        |m, to| each(&m.builds, to),
    ),
    family(
        Counter,
        "greenroom_reloads",
        &["outcome"],
        "Reloads and other changes by outcome, as `history` has them, and dry runs.",
        |m, to| each(&m.reloads, to),
    ),
    family(
        Histogram,
        "greenroom_reload_pause_seconds",
        &[],
        "Time that the loop stood still for a reload, a rollback, a restore or a configuration.",
        |m, to| to.histogram(&[], &m.pauses),
    ),
    family(Histogram, "greenroom_rehearsal_duration_seconds", &[], "Time of a rehearsal.", |m, to| {
        to.histogram(&[], &m.rehearsals)
    }),
    family(Counter, "greenroom_limits_reached", &["limit"], "Times that a limit was reached.", |m, to| {
        each(&m.status.host.limits, to);
    }),
    family(Gauge, "greenroom_failing", &["part"], "1 for each part of the host that fails now.", |m, to| {
        let parts: BTreeMap<_, _> = m.status.host.failing.iter().map(|f| (f.what.clone(), 1)).collect();
        each(&parts, to);
    }),
    family(Gauge, "greenroom_files_missing", &[], "Files of the host that are missing.", |m, to| {
        to.number(&[], m.status.host.missing.len() as u64);
    }),
    family(
        Counter,
        "greenroom_files_made_anew",
        &["kind"],
        "Files of the host that others deleted, and that it made anew.",
        |m, to| each(&m.status.host.made_anew, to),
    ),
];

/// Writes a sample for each entry of a map: its key is the only label.
fn each(figures: &BTreeMap<String, u64>, to: &mut MetricSamples<'_>) {
    figures.iter().for_each(|(label, value)| to.number(&[label], *value));
}
