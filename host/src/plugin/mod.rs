//! From a file to running code, a step each: read it whole, inspect it without running it, try it in a child, load it.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`stage`] | reads a finished file, hashes it, makes the private copy |
//! | [`inspect`] | judges the ELF file and its note |
//! | [`trial`] | loads the copy in a child process first |
//! | [`ffi`] | loads it here, and is the host's side of the C ABI: the only unsafe code towards handlers |

#[allow(unsafe_code)]
pub mod ffi;
pub mod inspect;
pub mod stage;
pub mod trial;
pub mod trust;
