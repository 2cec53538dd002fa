//! From a file to running code, a step each: read it whole, inspect it without running it, try it in a child, load it.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`stage`] | reads a finished file, hashes it, makes the private copy |
//! | [`inspect`] | judges the ELF file and its note |
//! | [`trial`] | loads the copy in a child process first |
//! | [`rehearse`] | has it read copies of all that is live there, and says what it changes |
//! | [`entries`] | which entries of tables it reads there |
//! | [`confine`] | what a candidate may do meanwhile |
//! | [`ffi`] | loads it here, and is the host's side of the C ABI: the only unsafe code towards handlers |

pub mod confine;
pub mod discover;
pub mod entries;
#[allow(unsafe_code)]
pub mod ffi;
pub mod inspect;
pub mod prepare;
pub mod rehearse;
pub mod stage;
pub mod trial;
pub mod watch;
