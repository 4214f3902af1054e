//! What this binary does on the host, where it is started as a helper and not as `/init`.

mod address;
mod attached;
mod confine;
pub mod data_ranges;
mod gate;
pub mod launch;
mod names;
pub mod net_filter;
mod packet;
mod policy;
mod refusal;
pub mod save_memory;
mod tap;
mod team;
pub mod traceable;
pub mod tsc;
mod whose;
