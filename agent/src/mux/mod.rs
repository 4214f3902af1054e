//! Many streams over one connection.

pub mod credit;
pub mod datagram;
pub mod outbox;
pub mod stream;
