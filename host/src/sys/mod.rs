//! Unsafe code towards the kernel, and only that.
//!
//! Callers need no unsafe code. Some must keep a promise all the same, which stands at the
//! function: one mapping of a file, a thread that lives on. Each unsafe block has a SAFETY line.

#[allow(unsafe_code)]
pub mod activation;
#[allow(unsafe_code)]
pub mod crash_thread;
pub mod descriptors;
#[allow(unsafe_code)]
pub mod first_descriptors;
#[allow(unsafe_code)]
pub mod fork;
#[allow(unsafe_code)]
pub mod mapping;
#[allow(unsafe_code)]
pub mod peer;
pub mod proc;
#[allow(unsafe_code)]
pub mod process_state;
pub mod regular_file;
#[allow(unsafe_code)]
pub mod stack;
#[allow(unsafe_code)]
pub mod tcp;
pub mod user;
