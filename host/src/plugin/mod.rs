//! From a file to running code, a step each: read the file whole, inspect it without running it,
//! try it in a child, load it.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`discover`] | finds handler libraries among files and directories |
//! | [`watch`] | finds out that a file changed, from `notices` of the system and by looks |
//! | `lookups` | entries of directories that decide which file a path names |
//! | [`prepare`] | the thread that prepares a reload: reads, tries, loads |
//! | [`authors_code`] | which code of authors that thread runs, and since when |
//! | [`stage`] | reads a finished file, hashes it, makes the private copy |
//! | [`room`] | counts the space that private copies take |
//! | [`inspect`] | judges the ELF file and its note |
//! | `linkage` | judges what builds of a library would share in one process |
//! | [`trial`] | tries the copy in a child process |
//! | `trial_output` | reads what the child answers |
//! | [`trial_child`] | the trial, in the child |
//! | `apart` | keeps the child apart from other processes, and watches it |
//! | `confine` | what the child may do |
//! | `system_calls` | the system calls that the child may make |
//! | [`rehearse`] | has the candidate read and write copies of live data |
//! | `dialogues` | asks the candidate what becomes of dialogues |
//! | [`live`] | input of a rehearsal: live offers, limits, counts |
//! | [`recording`] | files of recordings |
//! | [`replay`] | has the candidate run recorded turns, and compares |
//! | [`entries`] | picks the entries of tables that a rehearsal reads |
//! | [`ffi`] | loads a library here, and is the host's side of the C ABI |

mod apart;
pub mod authors_code;
mod confine;
mod dialogues;
pub mod discover;
pub mod entries;
#[allow(unsafe_code)]
pub mod ffi;
pub mod inspect;
mod linkage;
pub mod live;
mod lookups;
pub mod notices;
pub mod prepare;
pub mod recording;
pub mod rehearse;
pub mod replay;
pub mod room;
pub mod stage;
mod system_calls;
pub mod trial;
pub mod trial_child;
mod trial_output;
pub mod watch;
