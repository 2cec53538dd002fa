//! Services on the board: written by the worker, read by the keeper and the watchdog.
//!
//! Names, builds and addresses change with a commit of a reload, and are one text of JSON. Counts
//! change with every pass, and are numbers of their own on the board. A reader puts both together.

use crate::clock::now_ns;
use crate::memory::board::Board;
use crate::memory::reading::Reading;
use crate::protocol::status::{JobsStatus, ServiceStatus};

/// Writes the services, by their numbers; `None`: withdrawn. A text beyond 512 KiB is left out, and
/// the previous text stays.
pub fn write(board: Board, services: &[Option<ServiceStatus>]) {
    board.say(&serde_json::to_vec(services).unwrap_or_default());
}

/// Reads the services, by their numbers, with their present counts. `None`: there are none yet,
/// they are being written, or the text cannot be parsed. A caller then keeps what it read before.
pub fn read(board: &Reading) -> Option<Vec<Option<ServiceStatus>>> {
    let mut services: Vec<Option<ServiceStatus>> = serde_json::from_slice(&board.text()?).ok()?;
    for (number, service) in services.iter_mut().enumerate() {
        if let (Some(s), Some([sessions, turns, faults])) = (service, board.counts(number)) {
            (s.sessions, s.turns, s.faults) = (sessions as usize, turns, faults);
            s.jobs = jobs_of(board, number, now_ns());
        }
    }
    Some(services)
}

/// The jobs of a service at this moment.
fn jobs_of(board: &Reading, service: usize, now_ns: u64) -> JobsStatus {
    let [running, waiting, since_ns] = board.jobs(service).unwrap_or_default();
    let oldest_ms = (since_ns > 0).then(|| now_ns.saturating_sub(since_ns) / 1_000_000);
    JobsStatus { running, waiting, oldest_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::records::memory_file;

    #[test]
    fn a_reader_sees_the_services_with_their_counts() {
        let fd = memory_file("test").unwrap();
        assert!(read(&Reading::of(&fd)).is_none());
        let board = Board::open(&fd).unwrap();
        let tally = ServiceStatus {
            name: "tally".into(),
            library: "echo".into(),
            generation: 9,
            build: "00".into(),
            state_version: 1,
            listen: vec!["tcp://127.0.0.1:4002".into()],
            dual_stack: Vec::new(),
            sessions: 0,
            turns: 0,
            faults: 0,
            jobs: JobsStatus::default(),
            canary: None,
        };
        write(board, &[None, Some(tally)]);
        board.count(1, [5, 6, 7]);
        board.count_jobs(1, [2, 3, now_ns() - 5_000_000]);
        let services = read(&Reading::of(&fd)).unwrap();
        let tally = services[1].as_ref().unwrap();
        assert_eq!((tally.sessions, tally.turns, tally.faults, tally.name.as_str()), (5, 6, 7, "tally"));
        assert_eq!((tally.jobs.running, tally.jobs.waiting), (2, 3));
        assert!(tally.jobs.oldest_ms >= Some(5));
    }
}
