//! Many streams over one connection.

pub mod credit;
pub mod outbox;
pub mod stream;
