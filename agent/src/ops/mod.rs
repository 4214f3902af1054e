//! The operations of `docs/guest-protocol.md`.

pub mod configure;
pub mod dial;
pub mod files;
pub mod grow;
pub mod listen;
pub mod listeners;
pub mod metrics;
pub mod request;
pub mod tar_in;
pub mod tar_out;
pub mod transfer;
pub mod unpack;
pub mod whose;
pub mod worker;
