//! Starting programs for `exec`.

pub mod environment;
pub mod launch;
pub mod spawn;
pub mod terminal;
