//! Unsafe code towards the kernel, and only that.

#[allow(unsafe_code)]
pub mod mapping;
#[allow(unsafe_code)]
pub mod stack;
#[allow(unsafe_code)]
pub mod tcp;
