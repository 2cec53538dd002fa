//! Reloads, as the shell carries them out: the core decides, and these files do the work.
//!
//! | file | holds |
//! |---|---|
//! | `build_records` | The record of each library: current and earlier builds. |
//! | `canary` | Begins and ends canaries, and shows them. |
//! | `canary_list` | Canaries, as operators see them. |
//! | `carry_out` | Carries out the steps that the core orders. |
//! | `commit` | Commits prepared builds between two passes. |
//! | `config_in_force` | The configuration in force, and the one being committed. |
//! | `configure` | Puts a proposed configuration in force, or refuses it. |
//! | `held_files` | The content of files in settings, as the store has it. |
//! | `held_thread` | Ends reloads that wait for code of authors without end. |
//! | `later_loads` | Loads that are tried again, as what refused them may pass. |
//! | `loads_under_way` | Loads that the process may not come back from. |
//! | `owed_answers` | Steps that the prepare thread has not answered yet. |
//! | `ports` | Ports that listen, and ports being opened for a reload. |
//! | `probation` | Ends probations and rolls back. |
//! | `proposals` | Configurations that wait for their turn. |
//! | `requests` | Turns a wish for a reload into requests. |
//! | `roll_back` | Records and reports that the previous build is back in charge. |
//! | `running_build` | A build, and what a process loads it from. |
//! | `snapshot` | Pins the live data that a candidate is rehearsed with. |
//! | `wanted_ports` | Endpoints of a configuration, and the held ports that are theirs. |

pub(super) mod build_records;
pub(super) mod canary;
pub(super) mod canary_list;
pub(super) mod carry_out;
mod commit;
pub(super) mod config_in_force;
mod configure;
mod held_files;
mod held_thread;
pub(super) mod later_loads;
mod loads_under_way;
mod owed_answers;
pub(super) mod ports;
pub(super) mod probation;
pub(super) mod proposals;
mod requests;
pub(super) mod roll_back;
pub(super) mod running_build;
mod snapshot;
mod wanted_ports;
