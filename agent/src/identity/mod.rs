//! Who this guest is: names, ids, keys, randomness.

pub mod entropy;
pub mod files;
pub mod hold;
pub mod hosts;
pub mod ids;
pub mod ssh;
pub mod still;
pub mod turn;
