//! What this binary does on the host, where it is started as a helper and not as `/init`.

pub mod net_filter;
pub mod save_memory;
pub mod tap;
pub mod traceable;
pub mod tsc;
